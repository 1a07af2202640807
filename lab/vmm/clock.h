/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a VMM does with the clock on a migration or a live update, with the fallback
 * to KVM_GET_CLOCK and KVM_SET_CLOCK.
 */
#ifndef LAB_VMM_CLOCK_H
#define LAB_VMM_CLOCK_H

#include <stdbool.h>
#include <linux/kvm.h>
#include <asm/pvclock-abi.h>

struct saved_clock {
	struct pvclock_vcpu_time_info guest;	/* the function of the TSC */
	struct kvm_clock_data vm;		/* its value at one moment */
	bool has_guest;
};

/* Save, with all vCPUs stopped.  Returns -1 with errno set if the VM has no clock. */
int save_clock(int vm, int vcpu, struct saved_clock *saved);

/*
 * Restore, after the TSCs of all vCPUs and before they run.  Returns -1 with errno
 * set if the value can't be restored either.
 */
int restore_clock(int vm, int vcpu, const struct saved_clock *saved);

#endif
