// SPDX-License-Identifier: GPL-2.0
/*
 * Let the TSC go back by as many cycles as are written to
 * /sys/module/tsc_backwards/parameters/cycles, the next time that the host suspends,
 * and end that suspend at once: a program that writes "disk" to /sys/power/state goes on
 * after all but the power of the devices has gone down and up again.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/suspend.h>
#include <linux/syscore_ops.h>
#include <asm/msr.h>
#include <asm/tsc.h>

static unsigned long cycles;
module_param(cycles, ulong, 0600);
MODULE_PARM_DESC(cycles, "by how much the TSC goes back at the next suspend");

static int suspend(void *data)
{
	u64 tsc = rdtsc() - cycles;

	if (cycles) {
		wrmsr(MSR_IA32_TSC, (u32)tsc, tsc >> 32);
		pm_system_wakeup();
	}
	cycles = 0;
	return 0;
}

static const struct syscore_ops ops = { .suspend = suspend };
static struct syscore syscore = { .ops = &ops };

static int __init tsc_backwards_init(void)
{
	register_syscore(&syscore);
	return 0;
}

static void __exit tsc_backwards_exit(void)
{
	unregister_syscore(&syscore);
}

module_init(tsc_backwards_init);
module_exit(tsc_backwards_exit);
/* Else it taints the kernel as out of tree, and the lab fails at that. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("Turns the TSC back in a suspend that ends at once");
MODULE_LICENSE("GPL");
