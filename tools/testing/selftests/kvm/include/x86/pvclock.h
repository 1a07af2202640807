/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests that read kvmclock, and the clock as a function of the TSC.
 *
 * Compare clocks by evaluating both at one TSC value, never by reading one after
 * the other: no time passes in between, and whatever they differ by is an error.
 */
#ifndef SELFTEST_KVM_PVCLOCK_H
#define SELFTEST_KVM_PVCLOCK_H

#include <asm/pvclock-abi.h>

#include "kvm_util.h"
#include "processor.h"

#define PVCLOCK_MAX_VCPUS	64
#define PVCLOCK_MIN_AGE		BIT_ULL(20)	/* of references, see guest-clock.rst */

/* A VM whose vCPUs enable kvmclock and report what they read, see pvclock_run(). */
struct pvclock_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[PVCLOCK_MAX_VCPUS];
	int nr_vcpus;
};

/* One reading of its clock by the guest. */
struct pvclock_reading {
	u64 tsc;
	u64 ns;
};

/* A vCPU's TSC as a function of the host's. */
struct vcpu_tsc {
	u64 ratio;
	u64 offset;
	int frac_bits;
};

/* What a VMM keeps to restore TSCs and clock. */
struct pvclock_saved {
	struct pvclock_vcpu_time_info clock;	/* of vCPU 0 */
	u64 tsc_offsets[PVCLOCK_MAX_VCPUS];
	unsigned long tsc_khz;
};

/* The Hyper-V TSC page. */
struct hv_tsc_page {
	u32 sequence;		/* 0: not in use */
	u32 reserved;
	u64 scale;
	u64 offset;
};

/* @tsc_khz is the rate of the VM's TSCs, or 0 for the host's. */
struct pvclock_vm pvclock_create_vm(int nr_vcpus, unsigned long tsc_khz);
void pvclock_free_vm(struct pvclock_vm *guest);
struct kvm_vcpu *pvclock_add_vcpu(struct pvclock_vm *guest);

/* For guests with code of their own: enable kvmclock, and report its value at @tsc. */
void pvclock_guest_enable(int id);
void pvclock_guest_report(int id, u64 tsc);

/* Run the vCPU until it has read its clock. */
struct pvclock_reading pvclock_run(struct pvclock_vm *guest, int id);
void pvclock_run_all(struct pvclock_vm *guest);
/* The same, with a WRMSR by the guest before it reads its clock. */
struct pvclock_reading pvclock_run_wrmsr(struct pvclock_vm *guest, int id, u32 msr, u64 value);

/* The vCPU's page, for MSR_KVM_SYSTEM_TIME(_NEW), and as it is now. */
u64 pvclock_page_gpa(struct pvclock_vm *guest, int id);
struct pvclock_vcpu_time_info pvclock_page(struct pvclock_vm *guest, int id);

/* Call pvclock_allow_hyperv() before the first run of vCPU 0. */
void pvclock_allow_hyperv(struct pvclock_vm *guest);
void pvclock_enable_hv_page(struct pvclock_vm *guest);
struct hv_tsc_page pvclock_hv_page(struct pvclock_vm *guest);
/* In units of 100 ns. */
u64 hv_tsc_page_at(const struct hv_tsc_page *page, u64 tsc);

unsigned long host_tsc_khz(void);
struct vcpu_tsc vcpu_get_tsc(struct kvm_vcpu *vcpu);
u64 vcpu_tsc_at(const struct vcpu_tsc *tsc, u64 host_tsc);
u64 vcpu_tsc_now(struct kvm_vcpu *vcpu);
u64 vcpu_get_tsc_offset(struct kvm_vcpu *vcpu);
void vcpu_set_tsc_offset(struct kvm_vcpu *vcpu, u64 offset);

/* The clock at @tsc, and the cycles after which it repeats up to a constant. */
u64 pvclock_at(const struct pvclock_vcpu_time_info *clock, u64 tsc);
u64 pvclock_period(const struct pvclock_vcpu_time_info *clock);
/* Assert that both are the same function of the TSC, from @tsc on. */
void pvclock_assert_same(const struct pvclock_vcpu_time_info *expected,
			 const struct pvclock_vcpu_time_info *clock, u64 tsc,
			 const char *what);
/*
 * Assert that the reference is by less than a period older than it has to be when KVM
 * writes it, after @tsc.
 */
void pvclock_assert_recent(const struct pvclock_vcpu_time_info *clock, u64 tsc,
			   const char *what);

struct pvclock_vcpu_time_info vcpu_get_clock_guest(struct kvm_vcpu *vcpu);
void vcpu_set_clock_guest(struct kvm_vcpu *vcpu, const struct pvclock_vcpu_time_info *clock);

/* What a VMM does on the source, and on the destination with a new VM. */
struct pvclock_saved pvclock_save(struct pvclock_vm *guest);
struct pvclock_vm pvclock_restore(const struct pvclock_saved *saved, int nr_vcpus);

/*
 * Assert that all vCPUs have the clock @expected, a function of the TSC of vCPU 0:
 * in their pages after a run and nothing else, when the guest reads it, for
 * KVM_GET_CLOCK, and for KVM_GET_CLOCK_GUEST.
 */
void pvclock_assert_clock(struct pvclock_vm *guest,
			  const struct pvclock_vcpu_time_info *expected, u8 flags);

/* Return true if @run() passes, in a process of its own: it can fail, but not skip. */
bool run_in_child(void (*run)(void));

#endif /* SELFTEST_KVM_PVCLOCK_H */
