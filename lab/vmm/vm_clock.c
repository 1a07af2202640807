// SPDX-License-Identifier: GPL-2.0 OR MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
#include <x86intrin.h>

#include "vm_clock.h"

#define MSR_IA32_TSC		0x10
#define MSR_IA32_TSC_DEADLINE	0x6e0
#define NSEC_PER_SEC		1000000000ull
#define MAX_TAI_OFFSET		100000		/* s, the kernel's limit */
#define SUSPEND_MIN_NS		1000000		/* no suspend is shorter */
#define BOOT_ID_SIZE		sizeof(((struct vm_clock_state *)0)->boot_id)
#define ROUNDING_NS		4		/* of elapsed_ns, cycles, and KVM's reference */
#define TOLERANCE_PPM		250		/* the default of kvm.tsc_tolerance_ppm */

/* Memory is little-endian, too: a structure is its own encoding. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "x86");
_Static_assert(sizeof(struct vm_clock_state) == 160, "padding");
_Static_assert(sizeof(struct vm_clock_vcpu) == 16, "padding");

struct restore {
	int vm;
	bool has_clock_guest;
	struct vm_clock_state saved, now;
	uint64_t started;	/* the begin of now, by CLOCK_MONOTONIC_RAW */
	struct vm_clock_result *result;
};

static int fail(struct restore *r, int error, const char *reason)
{
	r->result->error = error;
	r->result->reason = reason;
	errno = error;
	return -1;
}

/* The product has 128 bits; 32-bit programs have no type for it. */
static uint64_t multiply(uint64_t a, uint64_t b, uint64_t *high)
{
	uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX);
	uint64_t middle = (a >> 32) * (b & UINT32_MAX) + (low >> 32);
	uint64_t other = (a & UINT32_MAX) * (b >> 32) + (middle & UINT32_MAX);

	*high = (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);
	return other << 32 | (low & UINT32_MAX);
}

/* @a * @b / @divisor, modulo 2^64 */
static uint64_t multiply_divide(uint64_t a, uint64_t b, uint32_t divisor)
{
	uint64_t high, low = multiply(a, b, &high);
	uint64_t upper = (high % divisor) << 32 | low >> 32;
	uint64_t lower = (upper % divisor) << 32 | (low & UINT32_MAX);

	return ((upper / divisor) << 32) + lower / divisor;
}

/* The TSC of a guest without an offset, at @host_tsc, modulo 2^64. */
static uint64_t scale_tsc(const struct vm_clock_state *s, uint64_t host_tsc)
{
	uint64_t high, low = multiply(host_tsc, s->tsc_ratio, &high);
	unsigned int bits = s->tsc_frac_bits;

	return bits ? high << (64 - bits) | low >> bits : low;
}

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* By how much @later is ahead of @earlier; an interruption between the two adds to it. */
static uint64_t read_difference(clockid_t earlier, clockid_t later)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t ns = read_clock(earlier);

		ns = read_clock(later) - ns;
		least = ns < least ? ns : least;
	}
	return least;
}

static void read_boot_id(char *boot_id)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, boot_id, BOOT_ID_SIZE) != BOOT_ID_SIZE)
		memset(boot_id, 0, BOOT_ID_SIZE);
	if (fd >= 0)
		close(fd);
}

/* Read the clocks of one moment, which @started by CLOCK_MONOTONIC_RAW. */
static int read_moment(int vm, struct vm_clock_state *now, uint64_t *started)
{
	struct kvm_clock_data data = { 0 };

	*started = read_clock(CLOCK_MONOTONIC_RAW);
	if (ioctl(vm, KVM_GET_CLOCK, &data) < 0)
		return -1;
	now->clock_ns = data.clock;
	now->host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : __rdtsc();
	now->realtime_ns = data.flags & KVM_CLOCK_REALTIME ? data.realtime :
			   read_clock(CLOCK_REALTIME);
	now->window_ns = read_clock(CLOCK_MONOTONIC_RAW) - *started;
	now->suspended_ns = read_difference(CLOCK_MONOTONIC, CLOCK_BOOTTIME);
	now->tai_offset_s = read_difference(CLOCK_REALTIME, CLOCK_TAI) / NSEC_PER_SEC;
	read_boot_id(now->boot_id);
	return 0;
}

/* Before Linux 5.16 vCPUs have no attributes at all, and KVM says EINVAL. */
static int tsc_attr(int vcpu, unsigned long request, uint64_t attr, void *value)
{
	struct kvm_device_attr device_attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = attr,
		.addr = (uintptr_t)value,
	};
	int ret = ioctl(vcpu, request, &device_attr);

	if (ret < 0 && errno == EINVAL)
		errno = ENXIO;
	return ret;
}

static int access_msr(int vcpu, unsigned long request, uint32_t index, uint64_t *value)
{
	uint64_t msrs[] = { 1, index, *value };	/* struct kvm_msrs, with one entry */
	int nr = ioctl(vcpu, request, msrs);

	*value = msrs[2];
	return nr == 1 ? 0 : -1;
}

/* A ratio of 1 if KVM has no attribute: the TSC is not scaled, or see is_unscaled(). */
static int read_scale(int vcpu, struct vm_clock_state *s)
{
	struct kvm_vcpu_tsc_scale value = { .tsc_ratio = 1 };

	if (tsc_attr(vcpu, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, &value) < 0 && errno != ENXIO)
		return -1;
	s->tsc_ratio = value.tsc_ratio;
	s->tsc_frac_bits = value.tsc_frac_bits;
	return 0;
}

/* A kernel without the attribute may scale the TSC all the same. */
static bool is_unscaled(int vcpu, uint64_t offset)
{
	uint64_t before = __rdtsc(), tsc = 0;

	if (access_msr(vcpu, KVM_GET_MSRS, MSR_IA32_TSC, &tsc) < 0)
		return false;
	return tsc - offset - before <= __rdtsc() - before;
}

static uint32_t checksum(const void *blob, size_t size)
{
	const uint8_t *data = blob;
	uint32_t crc = UINT32_MAX;

	for (size_t i = offsetof(struct vm_clock_state, nr_vcpus); i < size; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* A copy, as a blob need not be aligned. */
static struct vm_clock_vcpu get_vcpu(const void *blob, unsigned int i)
{
	struct vm_clock_vcpu vcpu;

	memcpy(&vcpu, (const uint8_t *)blob + vm_clock_size(i), sizeof(vcpu));
	return vcpu;
}

static bool is_function(const struct pvclock_vcpu_time_info *f)
{
	return f->tsc_to_system_mul >> 31 && f->tsc_shift >= -31 && f->tsc_shift <= 31 &&
	       !(f->flags & ~PVCLOCK_TSC_STABLE_BIT) && !f->version && !f->pad0 &&
	       !f->pad[0] && !f->pad[1];
}

static bool is_in_range(const struct vm_clock_state *s)
{
	static const struct pvclock_vcpu_time_info none;

	if (s->flags & VM_CLOCK_HAS_FUNCTION ? !s->nr_vcpus || !is_function(&s->function) :
	    !!memcmp(&s->function, &none, sizeof(none)))
		return false;
	return !(s->flags & ~VM_CLOCK_HAS_FUNCTION) && !s->reserved &&
	       !s->tsc_khz == !s->nr_vcpus && s->tsc_khz <= INT32_MAX &&
	       s->tsc_ratio && s->tsc_frac_bits <= 63 &&
	       (s->tsc_frac_bits || s->tsc_ratio == 1) && s->tai_offset_s <= MAX_TAI_OFFSET &&
	       (s->clock_ns | s->realtime_ns | s->window_ns) <= INT64_MAX;
}

static int parse(const void *blob, size_t size, struct vm_clock_state *s)
{
	errno = EBADMSG;
	if (size < sizeof(*s))
		return -1;
	memcpy(s, blob, sizeof(*s));
	if (memcmp(s->magic, VM_CLOCK_MAGIC, sizeof(s->magic)))
		return -1;
	if (s->version != VM_CLOCK_VERSION) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return s->nr_vcpus <= VM_CLOCK_MAX_VCPUS && s->size == size &&
	       size == vm_clock_size(s->nr_vcpus) && s->checksum == checksum(blob, size) &&
	       is_in_range(s) ? 0 : -1;
}

int vm_clock_validate(const void *blob, size_t size)
{
	struct vm_clock_state saved;

	return parse(blob, size, &saved);
}

static int save_vcpu(int fd, uint32_t tsc_khz, struct vm_clock_vcpu *vcpu)
{
	if (ioctl(fd, KVM_GET_TSC_KHZ, 0) != (int)tsc_khz) {
		errno = ENOTSUP;
		return -1;
	}
	/* Without a local APIC in the kernel there is no timer either. */
	if (access_msr(fd, KVM_GET_MSRS, MSR_IA32_TSC_DEADLINE, &vcpu->tsc_deadline) < 0)
		vcpu->tsc_deadline = 0;
	return tsc_attr(fd, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &vcpu->tsc_offset);
}

/* What the vCPUs have in common is read from the first one. */
static int save_vm(int vm, int vcpu, struct vm_clock_state *s)
{
	bool has_clock_guest = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) > 0;
	struct pvclock_vcpu_time_info function;
	uint64_t offset, started;
	int khz;

	/* Before the moment, so that the reference is not ahead of its TSC. */
	if (has_clock_guest && s->nr_vcpus && !ioctl(vcpu, KVM_GET_CLOCK_GUEST, &function)) {
		s->function = function;
		s->flags |= VM_CLOCK_HAS_FUNCTION;
	}
	if (read_moment(vm, s, &started) < 0)
		return -1;
	if (!s->nr_vcpus)
		return 0;

	khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
	if (khz < 0 || read_scale(vcpu, s) < 0 ||
	    tsc_attr(vcpu, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset) < 0)
		return -1;
	s->tsc_khz = khz;
	errno = ENOTSUP;
	return has_clock_guest || s->tsc_frac_bits || is_unscaled(vcpu, offset) ? 0 : -1;
}

int vm_clock_save(int vm, const int *vcpus, unsigned int nr_vcpus, void *blob, size_t size)
{
	struct vm_clock_state s = {
		.version = VM_CLOCK_VERSION,
		.nr_vcpus = nr_vcpus,
		.tsc_ratio = 1,
	};

	errno = nr_vcpus > VM_CLOCK_MAX_VCPUS ? EINVAL : ENOSPC;
	if (nr_vcpus > VM_CLOCK_MAX_VCPUS || size < vm_clock_size(nr_vcpus))
		return -1;
	memcpy(s.magic, VM_CLOCK_MAGIC, sizeof(s.magic));
	s.size = vm_clock_size(nr_vcpus);
	if (save_vm(vm, nr_vcpus ? vcpus[0] : -1, &s) < 0)
		return -1;

	for (unsigned int i = 0; i < nr_vcpus; i++) {
		struct vm_clock_vcpu vcpu = { 0 };

		if (save_vcpu(vcpus[i], s.tsc_khz, &vcpu) < 0)
			return -1;
		memcpy((uint8_t *)blob + vm_clock_size(i), &vcpu, sizeof(vcpu));
	}
	memcpy(blob, &s, sizeof(s));
	s.checksum = checksum(blob, s.size);
	memcpy(blob, &s, sizeof(s));
	return vm_clock_validate(blob, s.size);
}

static int choose_policy(struct restore *r, enum vm_clock_policy policy)
{
	/* The TSC stops in a suspend, or starts anew. */
	uint64_t suspended = r->now.suspended_ns - r->saved.suspended_ns;
	bool known = r->saved.boot_id[0] && r->now.boot_id[0];
	bool same = r->now.host_tsc >= r->saved.host_tsc &&
		    suspended + SUSPEND_MIN_NS < 2 * SUSPEND_MIN_NS &&
		    (!known || !memcmp(r->saved.boot_id, r->now.boot_id, sizeof(r->now.boot_id)));

	if (policy == VM_CLOCK_SAME_HOST && !same)
		return fail(r, EXDEV, "The state is from another host or boot, or the host's TSC stopped since.");
	if (policy == VM_CLOCK_AUTO)
		policy = known && same ? VM_CLOCK_SAME_HOST : VM_CLOCK_GO_ON;
	/* Without TSCs there is only real time. */
	r->result->policy = policy == VM_CLOCK_SAME_HOST && !r->saved.nr_vcpus ?
			    VM_CLOCK_GO_ON : policy;
	return 0;
}

static uint64_t realtime_elapsed(const struct restore *r)
{
	uint64_t elapsed = r->now.realtime_ns - r->saved.realtime_ns;

	if (r->now.tai_offset_s && r->saved.tai_offset_s)
		elapsed += ((uint64_t)r->now.tai_offset_s - r->saved.tai_offset_s) * NSEC_PER_SEC;
	return elapsed > INT64_MAX ? 0 : elapsed;
}

/* Set elapsed_ns, and return as many cycles of the TSCs. */
static uint64_t elapse(struct restore *r)
{
	const struct pvclock_vcpu_time_info *f = &r->saved.function;
	uint64_t ns = r->result->policy == VM_CLOCK_GO_ON ? realtime_elapsed(r) : 0, cycles;

	if (r->result->policy == VM_CLOCK_SAME_HOST) {
		/* Rounded as both TSCs are: with the same ratio, the offset is the same. */
		cycles = scale_tsc(&r->saved, r->now.host_tsc) -
			 scale_tsc(&r->saved, r->saved.host_tsc);
		r->result->elapsed_ns = multiply_divide(cycles, 1000000, r->saved.tsc_khz);
		return cycles;
	}
	r->result->elapsed_ns = ns;
	if (r->saved.flags & VM_CLOCK_HAS_FUNCTION)
		return multiply_divide(ns, 1ull << (32 - f->tsc_shift), f->tsc_to_system_mul);
	return multiply_divide(ns, r->saved.tsc_khz, 1000000);
}

/* For the first vCPU, set the scale in r->now: it follows from the rate. */
static int restore_tsc(struct restore *r, int fd, struct vm_clock_vcpu vcpu, uint64_t tsc,
		       bool first)
{
	uint64_t offset;

	if (ioctl(fd, KVM_SET_TSC_KHZ, r->saved.tsc_khz) < 0)
		return fail(r, errno, "The host can't provide the rate of the guest's TSC.");
	if (first && read_scale(fd, &r->now) < 0)
		return fail(r, errno, "KVM_VCPU_TSC_SCALE can't be read.");
	offset = vcpu.tsc_offset + tsc - scale_tsc(&r->now, r->now.host_tsc);
	if (tsc_attr(fd, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset) < 0)
		return fail(r, errno, "KVM_VCPU_TSC_OFFSET can't be set.");
	if (first && !r->has_clock_guest && !r->now.tsc_frac_bits && !is_unscaled(fd, offset))
		return fail(r, ENOTSUP, "KVM scales the TSC, but has no KVM_VCPU_TSC_SCALE.");
	/* KVM converts the deadline to the host's time: the TSC has to be right. */
	if (vcpu.tsc_deadline &&
	    access_msr(fd, KVM_SET_MSRS, MSR_IA32_TSC_DEADLINE, &vcpu.tsc_deadline) < 0)
		return fail(r, EIO, "MSR_IA32_TSC_DEADLINE can't be set.");
	return 0;
}

static const char *why_not_exact(int error)
{
	switch (error) {
	case 0:		return "The source could not save its clock as a function of the TSC.";
	case ENOTTY:	return "This host's KVM has no KVM_SET_CLOCK_GUEST.";
	case ENODATA:	return "The VM is not in master clock mode: is the host's clocksource tsc?";
	case ERANGE:	return "The TSC's rate differs too much, or the TSC is behind the function.";
	case EBUSY:	return "The TSC's rate is unknown for the moment: restore once more.";
	case EINVAL:	return "KVM refused the function: is its reference ahead of the TSC?";
	default:	return "KVM_SET_CLOCK_GUEST failed.";
	}
}

static int restore_value(struct restore *r, int error)
{
	struct kvm_clock_data data = {
		.clock = r->saved.clock_ns + r->result->elapsed_ns,
		.realtime = r->now.realtime_ns,
		.flags = KVM_CLOCK_REALTIME,
	};
	uint64_t begin = read_clock(CLOCK_MONOTONIC_RAW), end, drift;

	if (ioctl(r->vm, KVM_SET_CLOCK, &data) < 0)
		return fail(r, errno, "KVM_SET_CLOCK failed.");
	/*
	 * KVM reads CLOCK_REALTIME and the TSC at different times within the ioctl, and
	 * adds what CLOCK_REALTIME counted since r->now, also if it is slewed or stepped.
	 */
	drift = read_clock(CLOCK_REALTIME) - r->now.realtime_ns;
	end = read_clock(CLOCK_MONOTONIC_RAW);
	drift -= end - r->started;
	r->result->bound_ns = end - begin + (drift > INT64_MAX ? -drift : drift) +
			      r->saved.window_ns + r->now.window_ns + ROUNDING_NS;
	/* elapse() used the nominal rate, but the TSC may run at the host's. */
	if (!(r->saved.flags & VM_CLOCK_HAS_FUNCTION) ||
	    r->result->policy == VM_CLOCK_SAME_HOST)
		r->result->bound_ns += r->result->elapsed_ns / (1000000 / TOLERANCE_PPM);
	r->result->outcome = VM_CLOCK_VALUE;
	r->result->error = error;
	r->result->reason = why_not_exact(error);
	return 0;
}

static int restore_clock(struct restore *r, const int *vcpus)
{
	if (!(r->saved.flags & VM_CLOCK_HAS_FUNCTION))
		return restore_value(r, 0);
	if (!r->has_clock_guest)
		return restore_value(r, ENOTTY);
	if (ioctl(vcpus[0], KVM_SET_CLOCK_GUEST, &r->saved.function) < 0)
		return restore_value(r, errno);
	r->result->reason = "The clock is the same function of the TSC as before.";
	return 0;
}

static int restore(struct restore *r, const int *vcpus, unsigned int nr_vcpus,
		   const void *blob, enum vm_clock_policy policy)
{
	uint64_t tsc;

	r->has_clock_guest = ioctl(r->vm, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) > 0;
	if (read_moment(r->vm, &r->now, &r->started) < 0)
		return fail(r, errno, "KVM_GET_CLOCK failed.");
	if (choose_policy(r, policy) < 0)
		return -1;
	tsc = scale_tsc(&r->saved, r->saved.host_tsc) + elapse(r);
	for (unsigned int i = 0; i < nr_vcpus; i++) {
		if (restore_tsc(r, vcpus[i], get_vcpu(blob, i), tsc, !i) < 0)
			return -1;
	}
	return restore_clock(r, vcpus);
}

static int begin_restore(struct restore *r, const void *blob, size_t size)
{
	*r->result = (struct vm_clock_result){ 0 };
	if (parse(blob, size, &r->saved) < 0)
		return fail(r, errno, "The saved state is damaged, or of another version.");
	return 0;
}

int vm_clock_restore(int vm, const int *vcpus, unsigned int nr_vcpus, const void *blob,
		     size_t size, enum vm_clock_policy policy, struct vm_clock_result *result)
{
	struct restore r = { .vm = vm, .result = result };

	if (begin_restore(&r, blob, size) < 0)
		return -1;
	if (nr_vcpus != r.saved.nr_vcpus)
		return fail(&r, EINVAL, "The VM has another number of vCPUs than was saved.");
	return restore(&r, vcpus, nr_vcpus, blob, policy);
}

int vm_clock_prepare(int vm, const void *blob, size_t size)
{
	struct vm_clock_state saved;

	if (parse(blob, size, &saved) < 0)
		return -1;
	if (!saved.nr_vcpus || ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TSC_CONTROL) <= 0)
		return 0;
	return ioctl(vm, KVM_SET_TSC_KHZ, saved.tsc_khz);
}

int vm_clock_check(int kvm, const void *blob, size_t size, enum vm_clock_policy policy,
		   struct vm_clock_result *result)
{
	struct restore r = { .result = result };
	int vcpu, ret = -1, error;

	if (begin_restore(&r, blob, size) < 0)
		return -1;
	r.vm = ioctl(kvm, KVM_CREATE_VM, 0);
	vcpu = r.vm < 0 ? -1 : ioctl(r.vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		fail(&r, errno, "A VM for the check can't be created.");
	else
		ret = restore(&r, &vcpu, r.saved.nr_vcpus ? 1 : 0, blob, policy);
	error = errno;
	close(vcpu);
	close(r.vm);
	errno = error;
	return ret;
}
