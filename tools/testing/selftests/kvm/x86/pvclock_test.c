// SPDX-License-Identifier: GPL-2.0
/*
 * Tests for KVM_GET_CLOCK_GUEST and KVM_SET_CLOCK_GUEST: restoring, and errors.
 *
 * The guest's clock (kvmclock) is a function of its TSC.  The tests save that
 * function, disturb the clock or destroy the VM, restore it, and compare the
 * function that the guest has then with the one that was saved.
 */
#include <getopt.h>
#include <sys/mman.h>
#include <time.h>

#include "pvclock_test.h"

#define NR_VCPUS	4

/* A clock that is off by so much that no test can take it for the right one. */
static void disturb_clock(struct guest *guest)
{
	struct kvm_clock_data data = {};

	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	data.clock += 1000 * NSEC_PER_SEC;
	data.flags = 0;
	vm_ioctl(guest->vm, KVM_SET_CLOCK, &data);
}

static void assert_disturbed(struct guest *guest,
			     const struct pvclock_vcpu_time_info *saved)
{
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		struct reading reading = run_vcpu(guest->vcpus[i]);
		u64 ahead = reading.ns - clock_at(saved, reading.tsc);

		TEST_ASSERT(ahead > 999 * NSEC_PER_SEC && ahead < 1001 * NSEC_PER_SEC,
			    "KVM_SET_CLOCK moved the clock by %ld ns, not by 1000 s",
			    ahead);
	}
}

static void test_get_before_run(int nr_vcpus)
{
	struct guest guest = new_guest(nr_vcpus);
	struct pvclock_vcpu_time_info clock = get_clock_guest(guest.vcpus[0]);

	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

static void test_restore_after_set_clock(int nr_vcpus)
{
	struct guest guest = new_guest(nr_vcpus);
	struct saved_clock saved;
	int i;

	run_all(&guest);
	for (i = 0; i < nr_vcpus; i++) {
		saved = save_clock(guest.vcpus[i]);
		disturb_clock(&guest);
		assert_disturbed(&guest, &saved.clock);
		set_clock_guest(guest.vcpus[i], &saved.clock);
		assert_guest_clock(&guest, &saved.clock);
	}
	free_guest(&guest);
}

/*
 * The update that guests cause in practice: a boot loader uses one MSR, the
 * kernel the other.  It takes a new reference for the clock.
 */
static void test_restore_after_msr_switch(int nr_vcpus)
{
	struct guest guest = new_guest(nr_vcpus);
	struct saved_clock saved;

	run_all(&guest);
	saved = save_clock(guest.vcpus[0]);
	disturb_clock(&guest);
	use_old_msr(&guest, 0);
	use_new_msr(&guest, 0);
	set_clock_guest(guest.vcpus[nr_vcpus - 1], &saved.clock);
	assert_guest_clock(&guest, &saved.clock);
	free_guest(&guest);
}

/* Save, destroy, and restore with the TSC moved on by @tsc_delta. */
static void restore_in_new_vm(int nr_vcpus, u64 tsc_delta)
{
	struct guest guest = new_guest(nr_vcpus);
	struct saved_clock saved;

	disturb_clock(&guest);
	run_all(&guest);
	saved = save_clock(guest.vcpus[nr_vcpus - 1]);
	free_guest(&guest);

	/* Each new vCPU has a request for an update of the clock pending. */
	guest = new_guest(nr_vcpus);
	set_tsc_offset(&guest, saved.tsc_offset + tsc_delta);
	set_clock_guest(guest.vcpus[0], &saved.clock);
	assert_guest_clock(&guest, &saved.clock);
	free_guest(&guest);
}

static void test_live_update(int nr_vcpus)
{
	restore_in_new_vm(nr_vcpus, 0);
}

static void test_migration(int nr_vcpus)
{
	restore_in_new_vm(nr_vcpus, 123456789);
}

/* A TSC that was below zero at the reference. */
static void test_wrapped_reference(int nr_vcpus)
{
	struct guest guest = new_guest(nr_vcpus);
	struct saved_clock saved;
	int i;

	run_all(&guest);
	for (i = 0; i < nr_vcpus; i++)
		vcpu_set_msr(guest.vcpus[i], MSR_IA32_TSC, 1000);

	saved = save_clock(guest.vcpus[0]);
	TEST_ASSERT((s64)saved.clock.tsc_timestamp < 0,
		    "The reference at TSC %#lx is not below zero",
		    (u64)saved.clock.tsc_timestamp);
	disturb_clock(&guest);
	set_clock_guest(guest.vcpus[0], &saved.clock);
	assert_guest_clock(&guest, &saved.clock);
	free_guest(&guest);
}

/* Fields that KVM_SET_CLOCK_GUEST does not look at, or that may be either. */
static void test_ignored_fields(int nr_vcpus)
{
	struct guest guest = new_guest(nr_vcpus);
	struct pvclock_vcpu_time_info clock;
	struct saved_clock saved;

	run_all(&guest);
	saved = save_clock(guest.vcpus[0]);
	clock = saved.clock;
	clock.version = 12345;
	clock.flags = 0;
	disturb_clock(&guest);
	set_clock_guest(guest.vcpus[0], &clock);
	assert_guest_clock(&guest, &saved.clock);
	free_guest(&guest);
}

/* Returns whether the vCPUs' pages are the same after the failed SET. */
static bool set_fails(struct guest *guest,
		      const struct pvclock_vcpu_time_info *clock, int err)
{
	struct pvclock_vcpu_time_info *pages = guest_copy(guest, pvti[0]);
	struct hv_tsc_page *hv_page = guest_copy(guest, hv_tsc_page);
	struct pvclock_vcpu_time_info before, after, pages_before[NR_VCPUS];
	u32 hv_sequence = hv_page->sequence;

	before = get_clock_guest(guest->vcpus[0]);
	memcpy(pages_before, pages, sizeof(pages_before));

	assert_fails(guest->vcpus[0], KVM_SET_CLOCK_GUEST, clock, err);

	after = get_clock_guest(guest->vcpus[0]);
	TEST_ASSERT(!memcmp(&before, &after, sizeof(after)),
		    "The failed KVM_SET_CLOCK_GUEST changed the clock");
	run_all(guest);
	TEST_ASSERT_EQ(hv_page->sequence, hv_sequence);

	return !memcmp(pages_before, pages, sizeof(pages_before));
}

/*
 * An error leaves everything as it was: the clock, to the byte, and the pages,
 * as an update would give a page a new version, or a new sequence number.  The
 * vCPUs' writes to the MSR cause updates, too, on some kernels with a delay,
 * but each of them only one.
 */
static void assert_set_fails(struct guest *guest,
			     const struct pvclock_vcpu_time_info *clock, int err)
{
	int i;

	for (i = 0; i <= NR_VCPUS; i++) {
		if (set_fails(guest, clock, err))
			return;
	}
	TEST_FAIL("The failed KVM_SET_CLOCK_GUEST updated a vCPU's page");
}

static void *inaccessible_page(void)
{
	void *page = mmap(NULL, getpagesize(), PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TEST_ASSERT(page != MAP_FAILED, "mmap() failed");
	return page;
}

static void test_efault(struct guest *guest)
{
	struct pvclock_vcpu_time_info *page = inaccessible_page();

	assert_set_fails(guest, page, EFAULT);
	assert_fails(guest->vcpus[0], KVM_GET_CLOCK_GUEST, page, EFAULT);
	munmap(page, getpagesize());
}

/* One field at a time: the rest is the guest's own clock. */
#define TEST_EINVAL(name, field, value)						\
static void test_einval_##name(struct guest *guest)				\
{										\
	struct pvclock_vcpu_time_info clock = get_clock_guest(guest->vcpus[0]);	\
										\
	clock.field = value;							\
	assert_set_fails(guest, &clock, EINVAL);				\
}

TEST_EINVAL(mul_0, tsc_to_system_mul, 0)
TEST_EINVAL(shift_32, tsc_shift, 32)
TEST_EINVAL(shift_127, tsc_shift, 127)
TEST_EINVAL(shift_minus_32, tsc_shift, -32)
TEST_EINVAL(shift_minus_128, tsc_shift, -128)
TEST_EINVAL(pad0, pad0, 1)
TEST_EINVAL(pad_first, pad[0], 1)
TEST_EINVAL(pad_last, pad[1], 0x80)
TEST_EINVAL(guest_stopped, flags, PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED)
TEST_EINVAL(unknown_flag, flags, PVCLOCK_TSC_STABLE_BIT | 0x80)

/* Whether the rate is within a factor of two of @khz. */
static bool is_near_rate(u32 mul, int shift, double khz)
{
	double cycle_ns = (double)mul / BIT_ULL(32 - shift);

	return cycle_ns * khz > 0.5e6 && cycle_ns * khz < 2e6;
}

static void test_erange_absurd_rate(struct guest *guest)
{
	u64 khz = __vcpu_ioctl(guest->vcpus[0], KVM_GET_TSC_KHZ, NULL);
	struct pvclock_vcpu_time_info own = get_clock_guest(guest->vcpus[0]);
	static const u32 muls[] = { 1, 0x80000000, 0xffffffff };
	struct pvclock_vcpu_time_info clock;
	int i, shift;

	for (shift = -31; shift <= 31; shift++) {
		for (i = 0; i < ARRAY_SIZE(muls); i++) {
			if (is_near_rate(muls[i], shift, khz))
				continue;

			clock = own;
			clock.tsc_to_system_mul = muls[i];
			clock.tsc_shift = shift;
			assert_set_fails(guest, &clock, ERANGE);
		}
	}
}

static u64 get_tolerance_ppm(void)
{
	const char *path = "/sys/module/kvm/parameters/tsc_tolerance_ppm";
	FILE *file = fopen(path, "r");
	u64 ppm;

	TEST_ASSERT(file && fscanf(file, "%lu", &ppm) == 1, "Can't read %s", path);
	fclose(file);
	return ppm;
}

static void set_rate(struct pvclock_vcpu_time_info *clock, u64 khz)
{
	int shift;
	u64 mul;

	/* A cycle has mul * 2^(shift - 32) ns, and mul has as many bits as fit. */
	for (shift = -8; ; shift++) {
		mul = (NSEC_PER_SEC / 1000 << (32 - shift)) / khz;
		if (mul <= UINT32_MAX)
			break;
	}

	clock->tsc_to_system_mul = mul;
	clock->tsc_shift = shift;
}

/* The rates that KVM_SET_TSC_KHZ accepts without scaling, and their neighbours. */
static void test_erange_rate_tolerance(struct guest *guest)
{
	u64 khz = __vcpu_ioctl(guest->vcpus[0], KVM_GET_TSC_KHZ, NULL);
	u64 lo = khz * (1000000 - get_tolerance_ppm()) / 1000000;
	u64 hi = khz * (1000000 + get_tolerance_ppm()) / 1000000;
	struct pvclock_vcpu_time_info own = get_clock_guest(guest->vcpus[0]);
	struct pvclock_vcpu_time_info clock = own, now;
	u64 rates[] = { lo, khz, hi };
	int i;

	set_rate(&clock, lo - 1);
	assert_set_fails(guest, &clock, ERANGE);
	set_rate(&clock, hi + 1);
	assert_set_fails(guest, &clock, ERANGE);

	/*
	 * A rate that is accepted goes on as the TSC's own, from the value that
	 * the clock that was set has at the new reference.
	 */
	for (i = 0; i < ARRAY_SIZE(rates); i++) {
		set_rate(&clock, rates[i]);
		set_clock_guest(guest->vcpus[0], &clock);
		now = get_clock_guest(guest->vcpus[0]);
		TEST_ASSERT_EQ(now.tsc_to_system_mul, own.tsc_to_system_mul);
		TEST_ASSERT_EQ(now.tsc_shift, own.tsc_shift);
		assert_at(now.tsc_timestamp, clock_at(&clock, now.tsc_timestamp),
			  now.system_time, "The clock that was set at another rate");
	}
	run_all(guest);
}

static void test_erange_reference_ahead(struct guest *guest)
{
	struct pvclock_vcpu_time_info clock = get_clock_guest(guest->vcpus[0]);
	u64 tsc = run_vcpu(guest->vcpus[0]).tsc;

	clock.tsc_timestamp = tsc + TSC_AHEAD;
	assert_set_fails(guest, &clock, ERANGE);

	clock.tsc_timestamp = tsc + BIT_ULL(63) - 1;
	assert_set_fails(guest, &clock, ERANGE);

	/* Farther ahead is behind. */
	clock.tsc_timestamp = tsc + BIT_ULL(63) + TSC_AHEAD;
	set_clock_guest(guest->vcpus[0], &clock);
	assert_guest_clock(guest, &clock);
}

/* The vCPU has no clock to get, and the failed SET leaves the VM's as it is. */
static void assert_no_guest_clock(struct guest *guest, struct kvm_vcpu *vcpu,
				  const struct pvclock_vcpu_time_info *saved)
{
	struct pvclock_vcpu_time_info clock = *saved;
	u64 limits[2][2];
	int i;

	assert_fails(vcpu, KVM_GET_CLOCK_GUEST, &clock, ENODATA);

	/*
	 * Then the clock is CLOCK_MONOTONIC_RAW plus an offset.  The readings
	 * of the one around the other give a range for the offset, before and
	 * after, and the two ranges have to overlap.
	 */
	for (i = 0; i < 2; i++) {
		struct kvm_clock_data data = {};
		struct timespec ts;

		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		limits[i][1] = -timespec_to_ns(ts);
		vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		limits[i][0] = data.clock - timespec_to_ns(ts);
		limits[i][1] += data.clock;

		if (i)
			break;

		/* An hour off, so that the ranges can't overlap if it is set. */
		clock.system_time += 3600 * NSEC_PER_SEC;
		assert_fails(vcpu, KVM_SET_CLOCK_GUEST, &clock, ENODATA);
	}

	TEST_ASSERT((s64)(limits[0][0] - limits[1][1]) <= 0 &&
		    (s64)(limits[1][0] - limits[0][1]) <= 0,
		    "The failed KVM_SET_CLOCK_GUEST changed the clock");
}

/* A guest that uses the old MSR for its clock can be saved and restored, too. */
static void test_old_msr(struct guest *guest)
{
	struct pvclock_vcpu_time_info saved = get_clock_guest(guest->vcpus[0]), clock;
	u64 tsc;

	use_old_msr(guest, 0);
	disturb_clock(guest);
	set_clock_guest(guest->vcpus[0], &saved);
	tsc = run_vcpu(guest->vcpus[0]).tsc;
	clock = get_clock_guest(guest->vcpus[0]);
	assert_same_function(&saved, &clock, tsc, "GET");

	use_new_msr(guest, 0);
	assert_guest_clock(guest, &saved);
}

/*
 * All vCPUs have the same clock at the same moment: the references differ as their
 * TSCs do.  But no vCPU can use the clock of another one.
 */
static void assert_unmatched_clock(struct guest *guest, const struct saved_clock *saved)
{
	struct pvclock_vcpu_time_info expected, clock;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		expected = saved->clock;
		expected.flags = 0;
		expected.tsc_timestamp += get_tsc_offset(guest->vcpus[i]) -
					  saved->tsc_offset;
		clock = __get_clock_guest(guest->vcpus[i], 0);
		TEST_ASSERT(!memcmp(&clock, &expected, sizeof(clock)),
			    "vCPU %d has another clock", i);

		run_vcpu(guest->vcpus[i]);
		clock = *guest_copy(guest, pvti[i]);
		clock.version = 0;
		TEST_ASSERT(!memcmp(&clock, &expected, sizeof(clock)),
			    "vCPU %d has another clock in its page", i);
	}
}

static void test_unmatched_tscs(struct guest *guest)
{
	struct kvm_vcpu *last = guest->vcpus[guest->nr_vcpus - 1];
	struct saved_clock saved = save_clock(last);
	struct pvclock_vcpu_time_info clock;
	u64 offset = saved.tsc_offset + NSEC_PER_SEC;

	vcpu_device_attr_set(last, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
	clock = __get_clock_guest(last, 0);
	assert_unmatched_clock(guest, &saved);

	disturb_clock(guest);
	set_clock_guest(last, &clock);
	assert_unmatched_clock(guest, &saved);
	disturb_clock(guest);
	set_clock_guest(guest->vcpus[0], &saved.clock);
	assert_unmatched_clock(guest, &saved);

	set_tsc_offset(guest, saved.tsc_offset);
	assert_guest_clock(guest, &saved.clock);
}

/* Without hardware for it, KVM emulates the other rate. */
static void test_enodata_tsc_rates_differ(struct guest *guest)
{
	struct kvm_vcpu *last = guest->vcpus[guest->nr_vcpus - 1];
	struct pvclock_vcpu_time_info saved = get_clock_guest(last);
	unsigned long khz = __vcpu_ioctl(last, KVM_GET_TSC_KHZ, NULL);
	int i;

	vcpu_ioctl(last, KVM_SET_TSC_KHZ, (void *)(2 * khz));
	for (i = 0; i < guest->nr_vcpus; i++)
		assert_no_guest_clock(guest, guest->vcpus[i], &saved);
	run_all(guest);
	assert_no_guest_clock(guest, guest->vcpus[0], &saved);
}

static void test_tsc_scale(struct guest *guest)
{
	struct kvm_vcpu *vcpu = guest->vcpus[0];
	struct tsc_scale tsc = get_tsc_scale(vcpu);
	u64 start, end, guest_tsc;
	int r;

	start = rdtsc();
	guest_tsc = run_vcpu(vcpu).tsc;
	end = rdtsc();
	TEST_ASSERT(guest_tsc >= tsc_at(&tsc, start) && guest_tsc <= tsc_at(&tsc, end),
		    "The guest's TSC is %#lx, not within %#lx and %#lx", guest_tsc,
		    tsc_at(&tsc, start), tsc_at(&tsc, end));

	r = __vcpu_device_attr_set(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &tsc.scale);
	TEST_ASSERT(r == -1 && errno == EINVAL, "Setting the ratio: %d, errno %d", r, errno);
}

static void test_enxio_tsc_scale(struct guest *guest)
{
	struct kvm_vcpu *vcpu = guest->vcpus[0];
	struct kvm_vcpu_tsc_scale scale;
	int r;

	r = __vcpu_has_device_attr(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE);
	TEST_ASSERT(r == -1 && errno == ENXIO, "KVM has the ratio: %d, errno %d", r, errno);
	r = __vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &scale);
	TEST_ASSERT(r == -1 && errno == ENXIO, "Getting the ratio: %d, errno %d", r, errno);
	r = __vcpu_device_attr_set(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &scale);
	TEST_ASSERT(r == -1 && errno == ENXIO, "Setting the ratio: %d, errno %d", r, errno);
}

/*
 * The TSC has the old and the new function's value at some moment of the ioctl, and
 * the clock at its new reference, which is taken until it is got: neither steps.
 */
static void test_set_tsc_khz(struct guest *unused)
{
	struct guest guest = new_guest(1);
	struct kvm_vcpu *vcpu = guest.vcpus[0];
	struct reading before = run_vcpu(vcpu), after;
	struct pvclock_vcpu_time_info old_clock = get_clock_guest(vcpu), clock;
	struct tsc_scale old = get_tsc_scale(vcpu), new;
	unsigned long khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
	u64 start, set, ref, end;

	start = rdtsc();
	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)(2 * khz));
	set = rdtsc();
	clock = get_clock_guest(vcpu);
	end = rdtsc();
	new = get_tsc_scale(vcpu);

	TEST_ASSERT(tsc_at(&new, start) <= tsc_at(&old, start) &&
		    tsc_at(&new, set) >= tsc_at(&old, set), "The TSC steps");

	for (ref = start; ref < end && tsc_at(&new, ref) < clock.tsc_timestamp; ref++)
		;
	TEST_ASSERT(tsc_at(&new, ref) == clock.tsc_timestamp,
		    "The clock's reference is not from when its rate changed");
	TEST_ASSERT_EQ((u64)clock.system_time, clock_at(&old_clock, tsc_at(&old, ref)));

	after = run_vcpu(vcpu);
	TEST_ASSERT(after.tsc > before.tsc && after.ns > before.ns,
		    "The guest's TSC or clock goes back");
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* As VMMs do it, for one vCPU after the other: they have the same TSC. */
static void test_set_tsc_khz_before_run(struct guest *unused)
{
	struct guest guest = new_guest(NR_VCPUS);
	unsigned long khz = __vcpu_ioctl(guest.vcpus[0], KVM_GET_TSC_KHZ, NULL);
	struct pvclock_vcpu_time_info clock;
	int i;

	for (i = 0; i < guest.nr_vcpus; i++)
		vcpu_ioctl(guest.vcpus[i], KVM_SET_TSC_KHZ, (void *)(khz + khz / 4));
	clock = get_clock_guest(guest.vcpus[0]);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* Without hardware for it, KVM makes a TSC run faster by steps at each exit. */
static void test_enodata_emulated_tsc_rate(struct guest *guest)
{
	struct kvm_vcpu *vcpu = guest->vcpus[0];
	struct pvclock_vcpu_time_info saved = get_clock_guest(vcpu);
	unsigned long khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);

	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)(2 * khz));
	assert_no_guest_clock(guest, vcpu, &saved);
}

/*
 * The clock's reference stays while the TSC is written, and so is older than
 * what the TSC has to catch up with: that must not take the TSC far ahead.
 */
static void test_emulated_tsc_rate_and_tsc_write(struct guest *unused)
{
	struct guest guest = new_guest(1);
	struct kvm_vcpu *vcpu = guest.vcpus[0];
	unsigned long khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
	u64 tsc;

	run_vcpu(vcpu);
	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)(2 * khz));
	vcpu_set_msr(vcpu, MSR_IA32_TSC, BIT_ULL(50));
	tsc = run_vcpu(vcpu).tsc;
	TEST_ASSERT(tsc - BIT_ULL(50) < TSC_AHEAD,
		    "The TSC went from 2^50 to %#lx", tsc);
	free_guest(&guest);
}

/* The same clock gives the same Hyper-V page, computed anew. */
static void test_hv_tsc_page(struct guest *guest)
{
	struct hv_tsc_page *page = guest_copy(guest, hv_tsc_page);
	struct pvclock_vcpu_time_info saved = get_clock_guest(guest->vcpus[0]);
	struct hv_tsc_page before = *page, disturbed;

	disturb_clock(guest);
	run_all(guest);
	disturbed = *page;
	TEST_ASSERT(disturbed.offset != before.offset,
		    "The Hyper-V TSC page does not follow KVM_SET_CLOCK");

	set_clock_guest(guest->vcpus[0], &saved);
	assert_guest_clock(guest, &saved);
	TEST_ASSERT(page->sequence != disturbed.sequence,
		    "KVM_SET_CLOCK_GUEST did not update the Hyper-V TSC page");
	TEST_ASSERT_EQ(page->scale, before.scale);
	TEST_ASSERT_EQ(page->offset, before.offset);
}

/*
 * The reference stays, the TSC restarts, and so the reference is from before the
 * TSC's zero.  The page and the clock in units of 100 ns differ by less than four
 * units: the page rounds three times, the conversion of the clock once.
 */
static void test_hv_wrapped_reference(struct guest *guest)
{
	struct hv_tsc_page *page = guest_copy(guest, hv_tsc_page);
	struct pvclock_vcpu_time_info clock;
	s64 error;
	u64 tsc;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		vcpu_set_msr(guest->vcpus[i], MSR_IA32_TSC, 1000);

	run_all(guest);
	tsc = run_vcpu(guest->vcpus[0]).tsc;
	clock = get_clock_guest(guest->vcpus[0]);
	TEST_ASSERT((s64)clock.tsc_timestamp < 0,
		    "The reference at TSC %#lx is not below zero",
		    (u64)clock.tsc_timestamp);

	error = (u64)((__uint128_t)tsc * page->scale >> 64) + page->offset -
		clock_at(&clock, tsc) / 100;
	TEST_ASSERT(error > -4 && error < 4,
		    "The Hyper-V TSC page is off by %ld units of 100 ns", error);
}

static const struct {
	const char *name;
	void (*run)(int nr_vcpus);
} restore_tests[] = {
	{ "get before the first run", test_get_before_run },
	{ "restore after KVM_SET_CLOCK", test_restore_after_set_clock },
	{ "restore after the guest switched MSRs", test_restore_after_msr_switch },
	{ "live update: new VM, same TSC", test_live_update },
	{ "migration: new VM, TSC moved on", test_migration },
	{ "wrapped reference", test_wrapped_reference },
	{ "version and flags are ignored", test_ignored_fields },
};

enum condition {
	ALWAYS,
	WITH_HYPERV,
	WITH_SCALING,
	WITHOUT_SCALING,
};

static const struct {
	const char *name;
	void (*run)(struct guest *guest);
	enum condition when;
} guest_tests[] = {
	{ "Hyper-V TSC page", test_hv_tsc_page, WITH_HYPERV },
	{ "Hyper-V TSC page, wrapped reference", test_hv_wrapped_reference, WITH_HYPERV },
	{ "EFAULT", test_efault },
	{ "EINVAL: mul 0", test_einval_mul_0 },
	{ "EINVAL: shift 32", test_einval_shift_32 },
	{ "EINVAL: shift 127", test_einval_shift_127 },
	{ "EINVAL: shift -32", test_einval_shift_minus_32 },
	{ "EINVAL: shift -128", test_einval_shift_minus_128 },
	{ "EINVAL: pad0", test_einval_pad0 },
	{ "EINVAL: pad[0]", test_einval_pad_first },
	{ "EINVAL: pad[1]", test_einval_pad_last },
	{ "EINVAL: flag GUEST_STOPPED", test_einval_guest_stopped },
	{ "EINVAL: unknown flag", test_einval_unknown_flag },
	{ "ERANGE: absurd rates", test_erange_absurd_rate },
	{ "ERANGE: limits of the rate", test_erange_rate_tolerance },
	{ "ERANGE: reference ahead", test_erange_reference_ahead },
	{ "old MSR", test_old_msr },
	{ "TSCs that do not match", test_unmatched_tscs },
	{ "ENODATA: TSC rates differ", test_enodata_tsc_rates_differ },
	{ "ENODATA: emulated TSC rate", test_enodata_emulated_tsc_rate, WITHOUT_SCALING },
	{ "emulated TSC rate, TSC write", test_emulated_tsc_rate_and_tsc_write, WITHOUT_SCALING },
	{ "ENXIO: KVM_VCPU_TSC_SCALE", test_enxio_tsc_scale, WITHOUT_SCALING },
	{ "KVM_VCPU_TSC_SCALE", test_tsc_scale, WITH_SCALING },
	{ "KVM_SET_TSC_KHZ", test_set_tsc_khz, WITH_SCALING },
	{ "KVM_SET_TSC_KHZ before the first run", test_set_tsc_khz_before_run, WITH_SCALING },
};

static void run_restore_tests(int nr_rates)
{
	static const int nr_vcpus[] = { 1, NR_VCPUS };
	int rate, nr, i;

	for (rate = 0; rate < nr_rates; rate++) {
		set_tsc_rate(rate);
		for (nr = 0; nr < ARRAY_SIZE(nr_vcpus); nr++) {
			for (i = 0; i < ARRAY_SIZE(restore_tests); i++) {
				restore_tests[i].run(nr_vcpus[nr]);
				ksft_test_result_pass("%s, %d vCPU(s), %s\n",
						      restore_tests[i].name,
						      nr_vcpus[nr],
						      tsc_rates[rate].name);
			}
		}
	}
	set_tsc_rate(0);
}

/* A guest that has run and that has the Hyper-V TSC page, if KVM has that. */
static struct guest new_guest_with_pages(void)
{
	struct guest guest = new_guest(NR_VCPUS);
	struct hv_tsc_page *page;

	if (!kvm_has_cap(KVM_CAP_HYPERV_TIME)) {
		run_all(&guest);
		return guest;
	}

	allow_hyperv(&guest);
	enable_hv_tsc_page(&guest);
	run_all(&guest);

	page = guest_copy(&guest, hv_tsc_page);
	TEST_ASSERT(page->sequence, "KVM does not update the Hyper-V TSC page");
	return guest;
}

static void run_guest_tests(void)
{
	static const char * const why_not[] = {
		[WITH_HYPERV] = "KVM has no Hyper-V clock",
		[WITH_SCALING] = "the TSC can't be scaled",
		[WITHOUT_SCALING] = "the TSC can be scaled",
	};
	bool can_run[] = {
		[ALWAYS] = true,
		[WITH_HYPERV] = kvm_has_cap(KVM_CAP_HYPERV_TIME),
		[WITH_SCALING] = kvm_has_cap(KVM_CAP_TSC_CONTROL),
		[WITHOUT_SCALING] = !kvm_has_cap(KVM_CAP_TSC_CONTROL),
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(guest_tests); i++) {
		struct guest guest;

		if (!can_run[guest_tests[i].when]) {
			ksft_test_result_skip("%s: %s\n", guest_tests[i].name,
					      why_not[guest_tests[i].when]);
			continue;
		}

		guest = new_guest_with_pages();
		guest_tests[i].run(&guest);
		free_guest(&guest);
		ksft_test_result_pass("%s\n", guest_tests[i].name);
	}
}

static void usage(const char *name)
{
	printf("Usage: %s [-h] [-n]\n"
	       " -h: print this text\n"
	       " -n: only the host's TSC rate, leave out TSC scaling\n", name);
}

int main(int argc, char *argv[])
{
	int nr_rates = get_nr_tsc_rates();
	int opt;

	while ((opt = getopt(argc, argv, "hn")) != -1) {
		switch (opt) {
		case 'n':
			nr_rates = 1;
			break;
		default:
			usage(argv[0]);
			exit(opt == 'h' ? KSFT_PASS : KSFT_FAIL);
		}
	}

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(sys_clocksource_is_based_on_tsc());

	ksft_print_header();
	ksft_set_plan(2 * nr_rates * ARRAY_SIZE(restore_tests) +
		      ARRAY_SIZE(guest_tests));

	run_restore_tests(nr_rates);
	run_guest_tests();

	ksft_finished();
}
