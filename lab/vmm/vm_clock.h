/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Save the TSCs and the clock (kvmclock) of a VM, and restore them in another VM, on
 * the same host or on another one: the procedure of section 4.1 of
 * Documentation/virt/kvm/devices/vcpu.rst, with the fallback to KVM_SET_CLOCK where
 * KVM_SET_CLOCK_GUEST is not available or refuses.
 *
 * Source:
 *	vm_clock_save()		with all vCPUs outside of KVM_RUN
 *
 * Destination:
 *	vm_clock_check()	before switchover, if the state is saved early
 *	vm_clock_prepare()	on the new VM, before its first vCPU is created
 *	vm_clock_restore()	after all other state of the vCPUs is restored, in
 *				particular KVM_SET_LAPIC, and before any vCPU runs
 *
 * The caller
 * - does not restore MSR_IA32_TSC, neither before nor after: KVM would take it for a
 *   request to synchronize TSCs.  MSR_IA32_TSC_ADJUST is fine,
 * - restores Xen timers (KVM_XEN_VCPU_ATTR_TYPE_TIMER) after vm_clock_restore(), as KVM
 *   arms them against the clock: restored earlier, they fire early or late by as much
 *   as the clock moves.  TSC-deadline timers are armed by vm_clock_restore(),
 * - invokes KVM_KVMCLOCK_CTRL on every vCPU if time went on, so that the guest does not
 *   take the pause for a lockup, and ignores EINVAL,
 * - includes vCPUs that are parked, i.e. unplugged from the guest, but not closed,
 * - keeps the state of a VM that was restored and has not run, instead of saving it
 *   again: the time since would be lost, or counted.
 *
 * Functions return 0, or -1 with errno set.  They need clock_gettime(), RDTSC and
 * ioctls, and read /proc/sys/kernel/random/boot_id.
 */
#ifndef VM_CLOCK_H
#define VM_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <asm/pvclock-abi.h>

#define VM_CLOCK_MAGIC		"VM_CLOCK"
#define VM_CLOCK_VERSION	1
#define VM_CLOCK_HAS_FUNCTION	(1u << 0)
#define VM_CLOCK_MAX_VCPUS	65536

/*
 * The saved state, a header and a record for each vCPU.  Integers are little-endian,
 * reserved bits are 0, and there is no padding.
 */
struct vm_clock_state {
	char magic[8];		/* VM_CLOCK_MAGIC, without a terminating 0 */
	uint32_t version;	/* VM_CLOCK_VERSION */
	uint32_t size;		/* of header and records, in bytes */
	uint32_t checksum;	/* CRC-32 (IEEE 802.3) of all that follows */
	uint32_t nr_vcpus;
	uint32_t flags;		/* VM_CLOCK_HAS_FUNCTION */
	uint32_t tsc_khz;	/* nominal rate of the TSCs, 1 to 2^31 - 1; 0 without vCPUs */
	struct pvclock_vcpu_time_info function;	/* of the first vCPU's TSC, or all 0 */
	uint64_t tsc_ratio;	/* KVM_VCPU_TSC_SCALE, 1 if the TSC is not scaled */
	uint32_t tsc_frac_bits;	/* the same, 0 to 63 */
	/* Read at one moment: */
	uint32_t tai_offset_s;	/* CLOCK_TAI - CLOCK_REALTIME, 0 if the host doesn't know */
	uint64_t clock_ns;	/* the clock's value */
	uint64_t realtime_ns;	/* the host's CLOCK_REALTIME */
	uint64_t suspended_ns;	/* CLOCK_BOOTTIME - CLOCK_MONOTONIC, modulo 2^64 */
	uint64_t host_tsc;	/* in cycles */
	uint64_t window_ns;	/* how long that moment was */
	char boot_id[36];	/* /proc/sys/kernel/random/boot_id, all 0 if unreadable */
	uint32_t reserved;
};

struct vm_clock_vcpu {
	uint64_t tsc_offset;	/* KVM_VCPU_TSC_OFFSET, in cycles */
	uint64_t tsc_deadline;	/* MSR_IA32_TSC_DEADLINE, in cycles; 0: not armed */
};

enum vm_clock_policy {
	/*
	 * VM_CLOCK_SAME_HOST if the boot ID is the same, and the host was not suspended and
	 * its TSC did not go backwards since the save, else VM_CLOCK_GO_ON.
	 */
	VM_CLOCK_AUTO,
	/* TSCs and clock advance by the time that passed, by the host's TSC. */
	VM_CLOCK_SAME_HOST,
	/*
	 * The same, by CLOCK_TAI if both hosts know its offset, else by CLOCK_REALTIME.
	 * The clocks of both hosts have to be synchronized.
	 */
	VM_CLOCK_GO_ON,
	/* TSCs and clock continue where they were.  Do the same with the VM's other clocks. */
	VM_CLOCK_STAND_STILL,
};

enum vm_clock_outcome {
	VM_CLOCK_EXACT,		/* the clock is the same function of the TSC as before */
	VM_CLOCK_VALUE,		/* the clock has a value, and moved against the TSC */
};

struct vm_clock_result {
	enum vm_clock_outcome outcome;
	enum vm_clock_policy policy;	/* that was applied, not VM_CLOCK_AUTO */
	int error;		/* errno that ruled out VM_CLOCK_EXACT, else 0 */
	uint64_t elapsed_ns;	/* by which the guest's time advanced */
	/*
	 * For VM_CLOCK_VALUE: when the TSCs have advanced by elapsed_ns since the save,
	 * the clock is clock_ns + elapsed_ns, to within bound_ns.  Where only
	 * the nominal rate of the TSCs is known, bound_ns includes 250 ppm of elapsed_ns,
	 * by which KVM lets a TSC miss that, unless tsc_tolerance_ppm is changed.
	 */
	uint64_t bound_ns;
	const char *reason;	/* a sentence, also if vm_clock_restore() fails */
};

/* The size in bytes of the state of a VM with @nr_vcpus. */
static inline size_t vm_clock_size(unsigned int nr_vcpus)
{
	return sizeof(struct vm_clock_state) + nr_vcpus * sizeof(struct vm_clock_vcpu);
}

/*
 * Save to @blob, which has @size bytes, vm_clock_size(@nr_vcpus) or more.  @vcpus[] are
 * the file descriptors of all vCPUs.  If the guest owns its TSCs (SEV-SNP with Secure
 * TSC, TDX), pass no vCPUs: the state has the clock's value only.  Changes nothing.
 *
 *	ENOSPC	@size is too small
 *	EINVAL	more than VM_CLOCK_MAX_VCPUS
 *	ENOTSUP	the rates of the TSCs differ, or the TSC is scaled, and KVM doesn't tell
 *		how (KVM_VCPU_TSC_SCALE)
 *	ENXIO	KVM has no KVM_VCPU_TSC_OFFSET (before Linux 5.16)
 *	EBADMSG	a value is out of range, e.g. KVM does not know the rate of the TSC
 *	other	of KVM_GET_CLOCK, KVM_GET_TSC_KHZ
 *
 * For all but the first two: save MSR_IA32_TSC and KVM_GET_CLOCK as before.
 */
int vm_clock_save(int vm, const int *vcpus, unsigned int nr_vcpus, void *blob, size_t size);

/*
 * Check that @blob, of @size bytes, is intact and in range.
 *
 *	EBADMSG		damaged, truncated, or no saved state: reject it
 *	EPROTONOSUPPORT	of another version: save with this version, or update
 */
int vm_clock_validate(const void *blob, size_t size);

/*
 * Find out what vm_clock_restore() would do on this host, by doing it to a VM that
 * exists only for that.  @kvm is /dev/kvm.  Errors are those of vm_clock_restore(),
 * and of KVM_CREATE_VM and KVM_CREATE_VCPU.
 */
int vm_clock_check(int kvm, const void *blob, size_t size, enum vm_clock_policy policy,
		   struct vm_clock_result *result);

/*
 * Set the TSC rate of the VM, before it has a vCPU, so that vCPUs that are plugged later
 * have it.  Errors are those of vm_clock_validate(), and EINVAL: the host can't provide
 * the rate, or the VM has vCPUs.
 */
int vm_clock_prepare(int vm, const void *blob, size_t size);

/*
 * Set TSC rates and offsets, then the clock, and arm TSC-deadline timers.  @vcpus[] are
 * in the order of vm_clock_save().  On success, the guest can run; @result says how the
 * clock came out.  It can be called again as long as no vCPU has run, e.g. if
 * @result->error is EBUSY.
 *
 *	EBADMSG, EPROTONOSUPPORT	see vm_clock_validate()
 *	EINVAL	@nr_vcpus differs from the saved one, or the host can't provide the rate
 *		of the TSC: run the guest on another host
 *	EXDEV	VM_CLOCK_SAME_HOST, but the state is of another host or boot, or the
 *		host's TSC was interrupted: use VM_CLOCK_GO_ON
 *	ENOTSUP, ENXIO	see vm_clock_save(): restore MSR_IA32_TSC and KVM_SET_CLOCK
 *	other	of KVM_GET_CLOCK, KVM_SET_CLOCK
 *
 * On an error, TSCs and clock are undefined: call it again, or don't run the guest.
 */
int vm_clock_restore(int vm, const int *vcpus, unsigned int nr_vcpus, const void *blob,
		     size_t size, enum vm_clock_policy policy, struct vm_clock_result *result);

#endif
