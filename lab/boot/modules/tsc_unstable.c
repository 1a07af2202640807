// SPDX-License-Identifier: GPL-2.0
/*
 * Lets a program make the host's TSC unstable, for good, at the moment when it
 * wants it: by a write to /sys/module/tsc_unstable/parameters/now.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <asm/tsc.h>

static int tsc_unstable_now(const char *value, const struct kernel_param *param)
{
	mark_tsc_unstable("a test");
	return 0;
}

static const struct kernel_param_ops now_ops = {
	.set = tsc_unstable_now,
};

module_param_cb(now, &now_ops, NULL, 0200);
MODULE_PARM_DESC(now, "write to mark the TSC unstable");
/* Else it taints the kernel as out of tree, and the lab fails at that. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("Makes the TSC unstable on demand");
MODULE_LICENSE("GPL");
