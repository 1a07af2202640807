/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The smallest VMM that has a guest with a kvmclock: one vCPU in real mode,
 * which reads its TSC or writes an MSR and halts, or does nothing but exit.
 */
#ifndef LAB_VMM_VMM_H
#define LAB_VMM_VMM_H

#include <stddef.h>
#include <stdint.h>
#include <linux/kvm.h>
#include <asm/pvclock-abi.h>

struct vmm {
	int vm;
	int vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *memory;
};

/* All of these print what went wrong and exit when the kernel says no. */
struct vmm vmm_create(void);
/* The same in two steps, for what is set before there is a vCPU. */
struct vmm vmm_create_vm(void);
void vmm_add_vcpu(struct vmm *vmm);
void vmm_destroy(struct vmm *vmm);

/* The guest runs until it halts. Returns the TSC as the guest read it. */
uint64_t vmm_read_guest_tsc(struct vmm *vmm);
void vmm_guest_writes_msr(struct vmm *vmm, uint32_t msr, uint64_t value);

/* The guest enables its clock, with the new MSR or the one that it replaces. */
void vmm_guest_enables_clock(struct vmm *vmm, int old_msr);

/* From now on each KVM_RUN ends at once, because of I/O. */
void vmm_guest_only_exits(struct vmm *vmm);

/* The clock as the guest has it in its memory, after a run. */
struct pvclock_vcpu_time_info vmm_guest_clock(struct vmm *vmm);

uint64_t vmm_get_tsc_offset(struct vmm *vmm);
void vmm_set_tsc_offset(struct vmm *vmm, uint64_t offset);

/* The value of @clock in ns when the guest's TSC is @tsc. */
uint64_t clock_at(const struct pvclock_vcpu_time_info *clock, uint64_t tsc);

int xioctl(int fd, unsigned long request, void *arg, const char *name);
#define must_ioctl(fd, request, arg) xioctl(fd, request, arg, #request)

#endif
