/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A KVM of variables: ioctl() as vm_clock.c uses it, on file descriptors that don't
 * exist, so that errors and rates can be had that no machine at hand has.
 */
#ifndef LAB_VMM_FAKE_KVM_H
#define LAB_VMM_FAKE_KVM_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/kvm.h>
#include <asm/pvclock-abi.h>

#define FAKE_MAX_VCPUS	64
#define FAKE_KVM	1000000
#define FAKE_VM		1000001
#define FAKE_VCPU(i)	(1000002 + (i))

struct fake_vcpu {
	uint64_t offset, deadline;
	bool deadline_is_armed_late;	/* after the offset was set */
	unsigned int calls;
	uint32_t khz;
};

extern struct fake_kvm {
	struct fake_vcpu vcpus[FAKE_MAX_VCPUS];
	unsigned int vm_calls;		/* with those on vCPU 0 that are not done for each */
	bool has_clock_guest, has_scale, has_msr_tsc;
	struct kvm_vcpu_tsc_scale scale;
	struct kvm_clock_data clock;	/* what KVM_GET_CLOCK returns */
	struct kvm_clock_data set_clock;
	struct pvclock_vcpu_time_info function;
	/* errno of each ioctl, or 0 */
	int get_clock_guest, set_clock_guest, get_clock, set_clock_error, set_khz, set_offset;
	int create_vm;
} fake_kvm;

#endif
