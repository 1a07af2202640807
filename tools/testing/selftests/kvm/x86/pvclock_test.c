// SPDX-License-Identifier: GPL-2.0
/*
 * Test kvmclock as a function of the TSC: saving and restoring the function with
 * KVM_GET_CLOCK_GUEST and KVM_SET_CLOCK_GUEST, their errors, and that the function
 * stays whatever else makes KVM update the clock.
 *
 * Look at the pages of all vCPUs, after each vCPU's next entry, before any call
 * that could repair them.
 */
#include <asm/kvm_para.h>
#include <asm/pvclock-abi.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "hyperv.h"
#include "pvclock.h"

#define STABLE		PVCLOCK_TSC_STABLE_BIT
#define TOLERANCE_PPM	250	/* the default of kvm.tsc_tolerance_ppm */

/* The rate of the VMs' TSCs in kHz, 0 for the host's. */
static unsigned long tsc_khz;

static struct pvclock_vm create_vm(int nr_vcpus)
{
	return pvclock_create_vm(nr_vcpus, tsc_khz);
}

static bool has_scaling(void)
{
	return kvm_has_cap(KVM_CAP_VM_TSC_CONTROL);
}

static void assert_refused(struct kvm_vcpu *vcpu, struct pvclock_vcpu_time_info clock, int err,
			   const char *what)
{
	int r = __vcpu_ioctl(vcpu, KVM_SET_CLOCK_GUEST, &clock);

	TEST_ASSERT(r == -1 && errno == err, "%s: returned %d, errno %d, expected errno %d",
		    what, r, errno, err);
}

/* Assert that F is @clock, that all TSCs match, and that nothing repairs it. */
static void assert_stable(struct pvclock_vm *guest, const struct pvclock_vcpu_time_info *clock)
{
	pvclock_assert_clock(guest, clock, STABLE);
}

/* A function that KVM has in use, without asking for it: look at the page. */
static struct pvclock_vcpu_time_info read_page(struct pvclock_vm *guest)
{
	pvclock_run(guest, 0);
	return pvclock_page(guest, 0);
}

/* From the creation of the VM on, there is a master clock. */
static void test_new_vm(void)
{
	struct pvclock_vm guest = pvclock_create_vm(0, tsc_khz);
	struct kvm_clock_data data = {};
	struct pvclock_vcpu_time_info clock;
	u32 expected = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	struct vcpu_tsc tsc;

	vm_ioctl(guest.vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT_EQ(data.flags, expected);

	pvclock_add_vcpu(&guest);
	pvclock_add_vcpu(&guest);
	clock = vcpu_get_clock_guest(guest.vcpus[1]);
	TEST_ASSERT_EQ(clock.flags, STABLE);
	tsc = vcpu_get_tsc(guest.vcpus[1]);
	if (!tsc_khz)
		TEST_ASSERT_EQ(data.clock, pvclock_at(&clock, vcpu_tsc_at(&tsc, data.host_tsc)));
	assert_stable(&guest, &clock);
	pvclock_free_vm(&guest);
}

/* Bits that must be zero, and a multiplier and a shift that can't be. */
static void test_malformed(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock = read_page(&guest), bad;
	int bit;

#define REFUSE(field, value)						\
	do {								\
		bad = clock;						\
		bad.field = value;					\
		assert_refused(guest.vcpus[1], bad, EINVAL, #field);	\
	} while (0)

	clock.version = 0;
	REFUSE(pad0, 1);
	REFUSE(pad[0], 1);
	REFUSE(pad[1], 0x80);
	for (bit = 1; bit < 8; bit++)
		REFUSE(flags, BIT(bit));
	REFUSE(tsc_to_system_mul, 0);
	REFUSE(tsc_to_system_mul, INT32_MAX);
	REFUSE(tsc_shift, -32);
	REFUSE(tsc_shift, 32);
	REFUSE(tsc_shift, INT8_MIN);
	assert_stable(&guest, &clock);

	/* KVM's own version and flags mean nothing. */
	bad = clock;
	bad.version = 0xffffffff;
	bad.flags = 0;
	vcpu_set_clock_guest(guest.vcpus[1], &bad);
	assert_stable(&guest, &clock);
	pvclock_free_vm(&guest);
}

static void test_efault(void)
{
	struct pvclock_vm guest = create_vm(1);
	struct pvclock_vcpu_time_info clock = read_page(&guest);
	struct pvclock_vcpu_time_info *bad = (void *)1;

	TEST_ASSERT(__vcpu_ioctl(guest.vcpus[0], KVM_SET_CLOCK_GUEST, bad) && errno == EFAULT,
		    "SET didn't fail with EFAULT");
	TEST_ASSERT(__vcpu_ioctl(guest.vcpus[0], KVM_GET_CLOCK_GUEST, bad) && errno == EFAULT,
		    "GET didn't fail with EFAULT");
	assert_stable(&guest, &clock);
	pvclock_free_vm(&guest);
}

/* Return @clock for a TSC that is slower by @ppm, with the value of @clock at @tsc. */
static struct pvclock_vcpu_time_info change_rate(struct pvclock_vcpu_time_info clock, u64 tsc,
						 int ppm)
{
	u64 mul = (u64)clock.tsc_to_system_mul * (1000000 + ppm) / 1000000;

	clock.system_time = pvclock_at(&clock, tsc);
	clock.tsc_timestamp = tsc;
	if (mul >> 32) {
		mul >>= 1;
		clock.tsc_shift++;
	} else if (!(mul >> 31)) {
		mul <<= 1;
		clock.tsc_shift--;
	}
	clock.tsc_to_system_mul = mul;
	return clock;
}

static void test_out_of_range(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct kvm_vcpu *vcpu = guest.vcpus[1];
	struct pvclock_vcpu_time_info clock, bad;
	u64 tsc;

	clock = read_page(&guest);
	clock.version = 0;

	/* A margin of 1 ppm and the rounding of a small rate in kHz to a whole number. */
	bad = change_rate(clock, vcpu_tsc_now(vcpu), TOLERANCE_PPM + 50);
	assert_refused(vcpu, bad, ERANGE, "a rate that is too low");
	bad = change_rate(clock, vcpu_tsc_now(vcpu), -TOLERANCE_PPM - 50);
	assert_refused(vcpu, bad, ERANGE, "a rate that is too high");
	bad = clock;
	bad.tsc_shift++;
	assert_refused(vcpu, bad, ERANGE, "half the rate");

	/* A minute ahead is enough to still be ahead when the ioctl looks. */
	tsc = vcpu_tsc_now(vcpu);
	bad = clock;
	bad.tsc_timestamp = tsc + 60000ULL * host_tsc_khz() * 100;
	assert_refused(vcpu, bad, ERANGE, "a reference that is ahead");
	bad.tsc_timestamp = tsc + BIT_ULL(63);
	assert_refused(vcpu, bad, ERANGE, "a reference 2^63 cycles ago");
	bad.tsc_timestamp = tsc - BIT_ULL(62) - 1;
	assert_refused(vcpu, bad, ERANGE, "a reference more than 2^62 cycles ago");

	bad = clock;
	bad.system_time = BIT_ULL(63) - (pvclock_at(&clock, tsc) - clock.system_time);
	assert_refused(vcpu, bad, ERANGE, "a value of 2^63 ns");
	bad.system_time = -3600 * NSEC_PER_SEC - (pvclock_at(&clock, tsc) - clock.system_time);
	assert_refused(vcpu, bad, ERANGE, "a negative value");
	assert_stable(&guest, &clock);

	/* What is just within range is installed verbatim. */
	bad = clock;
	bad.system_time = 0;
	bad.tsc_timestamp = vcpu_tsc_now(vcpu) - BIT_ULL(61);
	if ((s64)pvclock_at(&bad, vcpu_tsc_now(vcpu) + BIT_ULL(40)) > 0) {
		vcpu_set_clock_guest(vcpu, &bad);
		assert_stable(&guest, &bad);
	}
	pvclock_free_vm(&guest);
}

/* Let vCPU @id's TSC have another rate than the host's; without scaling it is emulated. */
static void set_other_rate(struct pvclock_vm *guest, int id)
{
	vcpu_ioctl(guest->vcpus[id], KVM_SET_TSC_KHZ, (void *)(2 * host_tsc_khz()));
}

static void set_vm_rate(struct pvclock_vm *guest, int id)
{
	unsigned long khz = tsc_khz ? : host_tsc_khz();

	vcpu_ioctl(guest->vcpus[id], KVM_SET_TSC_KHZ, (void *)khz);
}

static void test_no_function(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock = read_page(&guest);
	struct kvm_clock_data data = {};
	int i;

	set_other_rate(&guest, 0);
	for (i = 0; i < 2; i++) {
		TEST_ASSERT(__vcpu_ioctl(guest.vcpus[i], KVM_GET_CLOCK_GUEST, &clock) &&
			    errno == ENODATA, "GET didn't fail with ENODATA");
		clock.version = 0;
		assert_refused(guest.vcpus[i], clock, ENODATA, "two rates");
	}
	vm_ioctl(guest.vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT(!(data.flags & KVM_CLOCK_TSC_STABLE), "KVM_GET_CLOCK says it is stable");
	pvclock_run_all(&guest);
	TEST_ASSERT_EQ(pvclock_page(&guest, 0).flags, 0);
	TEST_ASSERT_EQ(pvclock_page(&guest, 1).flags, 0);
	pvclock_free_vm(&guest);
}

/*
 * With two rates each vCPU's clock is its own, and never goes back, neither at a new
 * reference nor when the master clock takes over as the rates are equal again.
 */
static void test_two_rates(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info own, page;
	struct kvm_clock_data data = {};
	struct pvclock_reading reading;
	int i, id, updates;
	u64 ns;

	pvclock_run_all(&guest);
	set_other_rate(&guest, 1);

	for (i = 0; i < 100; i++) {
		id = i & 1;
		reading = pvclock_run(&guest, id);
		own = pvclock_page(&guest, id);

		/*
		 * A new reference: the old clock at that TSC is not ahead.  Each reference
		 * in between dropped the fraction of a ns that the clock had.
		 */
		reading = pvclock_run_wrmsr(&guest, id, MSR_KVM_SYSTEM_TIME_NEW,
					    pvclock_page_gpa(&guest, id) | KVM_MSR_ENABLED);
		page = pvclock_page(&guest, id);
		updates = (page.version - own.version) / 2;
		if (has_scaling())
			TEST_ASSERT(page.system_time + updates - 1 >=
				    pvclock_at(&own, page.tsc_timestamp),
				    "The clock of vCPU %d went back by %lu ns", id,
				    pvclock_at(&own, page.tsc_timestamp) - page.system_time);
		TEST_ASSERT_EQ(page.flags, 0);
	}

	ns = pvclock_run(&guest, 1).ns;
	set_vm_rate(&guest, 1);
	/* An emulated TSC was moved on. */
	vcpu_set_tsc_offset(guest.vcpus[1], vcpu_get_tsc_offset(guest.vcpus[0]));
	reading = pvclock_run(&guest, 1);
	TEST_ASSERT(reading.ns >= ns, "The clock of vCPU 1 went back by %lu ns", ns - reading.ns);
	pvclock_run_all(&guest);
	page = pvclock_page(&guest, 0);
	TEST_ASSERT_EQ(page.flags, STABLE);
	vm_ioctl(guest.vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT(data.flags & KVM_CLOCK_TSC_STABLE, "The master clock didn't come back");
	assert_stable(&guest, &page);
	pvclock_free_vm(&guest);
}

/* Into a new VM, at each rate that can stand in for the guest's TSC. */
static void test_restore(void)
{
	struct pvclock_vm guest = create_vm(4), restored;
	struct pvclock_vcpu_time_info clock = read_page(&guest);
	struct pvclock_saved saved;
	int i;

	saved = pvclock_save(&guest);
	assert_stable(&guest, &clock);
	for (i = 0; i < 4; i++) {
		restored = pvclock_restore(&saved, 4);
		/* The next one is saved before and after the first run. */
		if (i & 1)
			assert_stable(&restored, &clock);
		saved = pvclock_save(&restored);
		pvclock_free_vm(&restored);
	}
	restored = pvclock_restore(&saved, 4);
	assert_stable(&restored, &clock);
	pvclock_free_vm(&restored);
	pvclock_free_vm(&guest);
}

/* A structure of a host whose TSC was calibrated differently is installed verbatim. */
static void test_restore_other_calibration(void)
{
	static const int ppm[] = { -200, -1, 0, 1, 200, -200, 7, 199 };
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock = read_page(&guest);
	int i;

	clock.version = 0;
	for (i = 0; i < ARRAY_SIZE(ppm); i++) {
		clock = change_rate(clock, vcpu_tsc_now(guest.vcpus[0]), ppm[i]);
		vcpu_set_clock_guest(guest.vcpus[0], &clock);
		assert_stable(&guest, &clock);
		clock = change_rate(clock, vcpu_tsc_now(guest.vcpus[0]), -ppm[i]);
	}
	pvclock_free_vm(&guest);
}

/* vCPUs' offsets differ, the clock is one, SET and GET are functions of the vCPU's TSC. */
static void test_restore_offsets(void)
{
	struct pvclock_vm guest = create_vm(3), restored;
	struct pvclock_vcpu_time_info clock;
	struct pvclock_saved saved;
	int i;

	for (i = 0; i < 3; i++)
		vcpu_set_tsc_offset(guest.vcpus[i], vcpu_get_tsc_offset(guest.vcpus[i]) +
				    i * 123456789);
	pvclock_run_all(&guest);
	clock = pvclock_page(&guest, 0);
	pvclock_assert_clock(&guest, &clock, 0);

	saved = pvclock_save(&guest);
	restored = pvclock_restore(&saved, 3);
	pvclock_assert_clock(&restored, &clock, 0);

	/* By another vCPU, as a function of its TSC. */
	saved.clock = vcpu_get_clock_guest(guest.vcpus[2]);
	vcpu_set_clock_guest(restored.vcpus[2], &saved.clock);
	pvclock_assert_clock(&restored, &clock, 0);
	pvclock_free_vm(&restored);
	pvclock_free_vm(&guest);
}

/* References are renewed by whole periods: recent, and the same function. */
static void test_reference(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock = read_page(&guest), page;
	u64 base = vcpu_get_tsc_offset(guest.vcpus[0]), now;
	int i, bits;

	/* A rate whose period is some us. */
	clock.version = 0;
	clock.tsc_to_system_mul &= ~GENMASK(17, 0);
	vcpu_set_clock_guest(guest.vcpus[0], &clock);

	for (bits = 30; bits < 60; bits += 3) {
		/* Move the TSC on, and F with it. */
		for (i = 0; i < 2; i++)
			vcpu_set_tsc_offset(guest.vcpus[i], base + BIT_ULL(bits) + 12345);
		now = vcpu_tsc_now(guest.vcpus[0]);
		page = read_page(&guest);
		pvclock_assert_recent(&page, now, "The page");
		page = clock;
		page.tsc_timestamp += vcpu_get_tsc_offset(guest.vcpus[0]) - base;
		assert_stable(&guest, &page);

		/* Restore F, now with a reference that is long ago. */
		if ((s64)pvclock_at(&clock, vcpu_tsc_now(guest.vcpus[0]) + BIT_ULL(40)) < 0)
			break;
		vcpu_set_clock_guest(guest.vcpus[0], &clock);
		now = vcpu_tsc_now(guest.vcpus[0]);
		page = read_page(&guest);
		pvclock_assert_recent(&page, now, "The page");
		TEST_ASSERT(vcpu_tsc_now(guest.vcpus[0]) - page.tsc_timestamp >= PVCLOCK_MIN_AGE,
			    "The reference is too young");
		assert_stable(&guest, &clock);
		base = vcpu_get_tsc_offset(guest.vcpus[0]);
	}
	pvclock_free_vm(&guest);
}

/*
 * 10^9 * 2^(32 - shift) / mul Hz is within 1 ns per second of the rate that the host's
 * kHz and the vCPU's ratio make.
 */
static void assert_rate(struct pvclock_vm *guest, const struct pvclock_vcpu_time_info *clock)
{
	struct vcpu_tsc tsc = vcpu_get_tsc(guest->vcpus[0]);
	double expected = 1000.0 * host_tsc_khz() * tsc.ratio / BIT_ULL(tsc.frac_bits);
	double hz = 1.0 * NSEC_PER_SEC * BIT_ULL(32) / clock->tsc_to_system_mul;
	double error;
	int i;

	for (i = 0; i < clock->tsc_shift; i++)
		hz /= 2;
	for (i = 0; i > clock->tsc_shift; i--)
		hz *= 2;

	error = (hz / expected - 1) * NSEC_PER_SEC;
	TEST_ASSERT(error > -1 && error < 1,
		    "The clock is for a TSC of %.3f Hz, but the TSC runs at %.3f Hz",
		    hz, expected);
}

/* A new F passes through the value at a TSC value during the ioctl, at the TSC's rate. */
static void test_set_clock(void)
{
	static const u64 values[] = {
		1000 * NSEC_PER_SEC, 10 * NSEC_PER_SEC, 0, 10000 * NSEC_PER_SEC, 1,
	};
	struct pvclock_vm guest = create_vm(2);
	struct kvm_clock_data data = {};
	struct pvclock_vcpu_time_info page;
	u64 start, end;
	int i;

	pvclock_run_all(&guest);
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		data.clock = values[i];
		start = vcpu_tsc_now(guest.vcpus[0]);
		vm_ioctl(guest.vm, KVM_SET_CLOCK, &data);
		end = vcpu_tsc_now(guest.vcpus[0]);

		page = read_page(&guest);
		/* F begins with its reference, which can be later than the first reading. */
		if ((s64)(page.tsc_timestamp - start) > 0)
			start = page.tsc_timestamp;
		TEST_ASSERT(pvclock_at(&page, start) <= values[i] &&
			    pvclock_at(&page, end) >= values[i],
			    "Set to %lu ns, but the clock goes from %lu to %lu ns meanwhile",
			    values[i], pvclock_at(&page, start), pvclock_at(&page, end));
		assert_rate(&guest, &page);
		assert_stable(&guest, &page);
	}
	pvclock_free_vm(&guest);
}

/*
 * Rates that are set vCPU by vCPU: the TSCs match again in the end, the clock goes on,
 * and its rate is the new one.
 */
static void test_set_tsc_khz(void)
{
	struct pvclock_vm guest = create_vm(3);
	struct pvclock_vcpu_time_info old, page;
	unsigned long khz = 1234567;
	u64 ns[3];
	int i;

	pvclock_allow_hyperv(&guest);
	pvclock_run_all(&guest);
	pvclock_enable_hv_page(&guest);
	for (i = 0; i < 3; i++)
		ns[i] = pvclock_run(&guest, i).ns;

	for (i = 0; i < 3; i++) {
		vcpu_ioctl(guest.vcpus[i], KVM_SET_TSC_KHZ, (void *)khz);
		if (i == 1)
			pvclock_run_all(&guest);
	}
	for (i = 0; i < 3; i++)
		TEST_ASSERT(pvclock_run(&guest, i).ns >= ns[i], "vCPU %d's clock went back", i);
	page = pvclock_page(&guest, 0);
	assert_rate(&guest, &page);
	TEST_ASSERT(pvclock_hv_page(&guest).sequence, "The Hyper-V page didn't come back");
	assert_stable(&guest, &page);

	/* The whole VM's rate at once: F is continuous, to the snapshot's ns. */
	old = page;
	pvclock_free_vm(&guest);

	guest = create_vm(1);
	old = read_page(&guest);
	ns[0] = pvclock_at(&old, vcpu_tsc_now(guest.vcpus[0]));
	vcpu_ioctl(guest.vcpus[0], KVM_SET_TSC_KHZ, (void *)khz);
	page = read_page(&guest);
	ns[1] = pvclock_at(&page, page.tsc_timestamp);
	TEST_ASSERT(ns[1] >= ns[0], "The clock went back by %lu ns", ns[0] - ns[1]);
	assert_rate(&guest, &page);
	assert_stable(&guest, &page);
	pvclock_free_vm(&guest);
}

/* Whatever makes KVM update the clock: F stays. */
static void test_updates(void)
{
	struct pvclock_vm guest = create_vm(3);
	struct pvclock_vcpu_time_info clock;
	u64 gpa;
	int i;

	pvclock_allow_hyperv(&guest);
	clock = read_page(&guest);
	pvclock_run_all(&guest);

	for (i = 0; i < 3; i++) {
		gpa = pvclock_page_gpa(&guest, i) | KVM_MSR_ENABLED;

		vcpu_set_msr(guest.vcpus[i], MSR_KVM_SYSTEM_TIME_NEW, gpa);
		assert_stable(&guest, &clock);
		pvclock_run_wrmsr(&guest, i, MSR_KVM_SYSTEM_TIME_NEW, gpa);
		assert_stable(&guest, &clock);
		vcpu_ioctl(guest.vcpus[i], KVM_KVMCLOCK_CTRL, NULL);
		pvclock_run(&guest, i);
		TEST_ASSERT_EQ(pvclock_page(&guest, i).flags, STABLE | PVCLOCK_GUEST_STOPPED);
		/* The flag is the guest's to clear: take it as a part of the page. */
		((struct pvclock_vcpu_time_info *)
		 addr_gpa2hva(guest.vm, gpa & ~1ULL))->flags &= ~PVCLOCK_GUEST_STOPPED;
		vcpu_set_tsc_offset(guest.vcpus[i], vcpu_get_tsc_offset(guest.vcpus[i]));
		assert_stable(&guest, &clock);
		vcpu_ioctl(guest.vcpus[i], KVM_SET_TSC_KHZ,
			   (void *)(long)__vcpu_ioctl(guest.vcpus[i], KVM_GET_TSC_KHZ, NULL));
		assert_stable(&guest, &clock);
	}
	pvclock_enable_hv_page(&guest);
	assert_stable(&guest, &clock);
	pvclock_free_vm(&guest);
}

/* The boot vCPU's old MSR: no stable bit, references of now, and F stays. */
static void test_old_msr(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock, page;
	struct pvclock_reading reading;
	u64 gpa, late;
	int i;

	clock = read_page(&guest);
	pvclock_run_all(&guest);
	gpa = pvclock_page_gpa(&guest, 0) | KVM_MSR_ENABLED;
	pvclock_run_wrmsr(&guest, 0, MSR_KVM_SYSTEM_TIME, gpa);
	for (i = 0; i < 2; i++) {
		reading = pvclock_run(&guest, i);
		page = pvclock_page(&guest, i);
		TEST_ASSERT_EQ(page.flags, 0);
		TEST_ASSERT_EQ(page.system_time, pvclock_at(&clock, page.tsc_timestamp));
		/* floor(a) + floor(b) is at most 2 below floor(a + b): shift and division. */
		late = pvclock_at(&clock, reading.tsc) - reading.ns;
		TEST_ASSERT(late <= 2, "vCPU %d's clock is off by %ld ns", i, -late);
	}

	pvclock_run_wrmsr(&guest, 0, MSR_KVM_SYSTEM_TIME_NEW, gpa);
	assert_stable(&guest, &clock);
	pvclock_free_vm(&guest);
}

/* Ways to move vCPU @id's TSC on by @cycles, less those that pass meanwhile. */
static void write_offset(struct pvclock_vm *guest, int id, u64 cycles)
{
	struct kvm_vcpu *vcpu = guest->vcpus[id];

	vcpu_set_tsc_offset(vcpu, vcpu_get_tsc_offset(vcpu) + cycles);
}

static void write_msr(struct pvclock_vm *guest, int id, u64 cycles)
{
	struct kvm_vcpu *vcpu = guest->vcpus[id];

	vcpu_set_msr(vcpu, MSR_IA32_TSC, vcpu_tsc_now(vcpu) + cycles);
}

static void guest_write_tsc(struct pvclock_vm *guest, int id, u64 cycles)
{
	pvclock_run_wrmsr(guest, id, MSR_IA32_TSC, vcpu_tsc_now(guest->vcpus[id]) + cycles);
}

static void guest_write_tsc_adjust(struct pvclock_vm *guest, int id, u64 cycles)
{
	pvclock_run_wrmsr(guest, id, MSR_IA32_TSC_ADJUST,
			  vcpu_get_msr(guest->vcpus[id], MSR_IA32_TSC_ADJUST) + cycles);
}

static const struct {
	void (*write)(struct pvclock_vm *guest, int id, u64 cycles);
	const char *name;
} tsc_writes[] = {
	{ write_offset, "KVM_VCPU_TSC_OFFSET" },
	{ write_msr, "KVM_SET_MSRS" },
	{ guest_write_tsc, "WRMSR TSC" },
	{ guest_write_tsc_adjust, "WRMSR TSC_ADJUST" },
};

/*
 * Move vCPU @id's TSC on by days, as a write of a TSC that is near to the last one means
 * the same TSC.  All pages agree with F, @clock at the TSC @offset, but are not stable.
 */
static void move_tsc(struct pvclock_vm *guest, int how, int id,
		     const struct pvclock_vcpu_time_info *clock, u64 offset)
{
	u64 before = vcpu_get_tsc_offset(guest->vcpus[id]);
	struct pvclock_vcpu_time_info page, moved;
	int i;

	tsc_writes[how].write(guest, id, BIT_ULL(50));
	pvclock_run_all(guest);
	TEST_ASSERT(vcpu_get_tsc_offset(guest->vcpus[id]) - before > BIT_ULL(49),
		    "The TSC of vCPU %d wasn't moved on", id);
	for (i = 0; i < guest->nr_vcpus; i++) {
		page = pvclock_page(guest, i);
		moved = *clock;
		moved.tsc_timestamp += vcpu_get_tsc_offset(guest->vcpus[i]) - offset;
		TEST_ASSERT(!page.flags, "vCPU %d's page is still stable", i);
		pvclock_assert_same(&moved, &page, vcpu_tsc_now(guest->vcpus[i]), "The page");
	}
}

/*
 * One vCPU's TSC is changed, then vCPU 0's page and Hyper-V's change with it, without
 * GET; when the TSCs match again, in whatever order, all of it comes back.
 */
static void __test_tsc_write(int how, int id)
{
	struct pvclock_vm guest = create_vm(3);
	struct pvclock_vcpu_time_info clock, moved;
	u32 sequence;
	u64 offset;
	int i;

	pvclock_allow_hyperv(&guest);
	clock = read_page(&guest);
	pvclock_run_all(&guest);
	pvclock_enable_hv_page(&guest);
	pvclock_run_all(&guest);
	sequence = pvclock_hv_page(&guest).sequence;
	TEST_ASSERT(sequence, "No Hyper-V page");
	offset = vcpu_get_tsc_offset(guest.vcpus[id]);

	move_tsc(&guest, how, id, &clock, offset);
	/* No TSC begins or ceases to match. */
	move_tsc(&guest, how, id, &clock, offset);
	TEST_ASSERT(!pvclock_hv_page(&guest).sequence, "The Hyper-V page is still in use");

	for (i = 0; i < 3; i++)
		if (i != id)
			vcpu_set_tsc_offset(guest.vcpus[i], vcpu_get_tsc_offset(guest.vcpus[id]));
	moved = clock;
	moved.tsc_timestamp += vcpu_get_tsc_offset(guest.vcpus[0]) - offset;
	pvclock_run_all(&guest);
	/* A guest that was interrupted while it read the page must notice. */
	TEST_ASSERT_EQ(pvclock_hv_page(&guest).sequence, sequence + 1);
	assert_stable(&guest, &moved);
	pvclock_free_vm(&guest);
}

static void test_tsc_writes(void)
{
	int how, id;

	for (how = 0; how < ARRAY_SIZE(tsc_writes); how++) {
		for (id = 0; id < 3; id++) {
			pr_debug("%s, vCPU %d\n", tsc_writes[how].name, id);
			__test_tsc_write(how, id);
		}
	}
}

/* What QEMU does at power-on: it sets the rate vCPU by vCPU, then all TSCs to 0. */
static void test_power_on(void)
{
	unsigned long khz = host_tsc_khz() * 4 / 5;
	struct pvclock_vm guest = pvclock_create_vm(0, 0);
	u64 start, tsc;
	int i;

	for (i = 0; i < 3; i++) {
		pvclock_add_vcpu(&guest);
		vcpu_ioctl(guest.vcpus[i], KVM_SET_TSC_KHZ, (void *)khz);
	}
	start = rdtsc();
	for (i = 0; i < 3; i++)
		vcpu_set_msr(guest.vcpus[i], MSR_IA32_TSC, 0);
	for (i = 0; i < 3; i++) {
		tsc = vcpu_tsc_now(guest.vcpus[i]);
		TEST_ASSERT(tsc <= rdtsc() - start, "vCPU %d's TSC began at %ld", i, tsc);
		TEST_ASSERT_EQ(vcpu_get_tsc_offset(guest.vcpus[i]),
			       vcpu_get_tsc_offset(guest.vcpus[0]));
	}
	pvclock_free_vm(&guest);
}

/* A vCPU that is plugged in has the TSC of the others, whoever set that. */
static void test_plug(void)
{
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock;
	u64 offset;
	int i;

	pvclock_allow_hyperv(&guest);
	for (i = 0; i < 2; i++) {
		if (has_scaling())
			vcpu_ioctl(guest.vcpus[i], KVM_SET_TSC_KHZ, (void *)1234567L);
		vcpu_set_tsc_offset(guest.vcpus[i], BIT_ULL(45));
		guest_write_tsc_adjust(&guest, i, BIT_ULL(46));
	}
	offset = vcpu_get_tsc_offset(guest.vcpus[0]);
	clock = read_page(&guest);
	pvclock_run_all(&guest);
	pvclock_enable_hv_page(&guest);

	for (i = 2; i < 6; i++) {
		pvclock_add_vcpu(&guest);
		TEST_ASSERT_EQ(vcpu_get_tsc_offset(guest.vcpus[i]), offset);
		TEST_ASSERT_EQ(__vcpu_ioctl(guest.vcpus[i], KVM_GET_TSC_KHZ, NULL),
			       __vcpu_ioctl(guest.vcpus[0], KVM_GET_TSC_KHZ, NULL));
		assert_stable(&guest, &clock);
		TEST_ASSERT(pvclock_hv_page(&guest).sequence, "The Hyper-V page went away");
	}
	pvclock_free_vm(&guest);
}

static void assert_hv_near(u64 hv, u64 ns, const char *what)
{
	s64 diff = hv - ns / 100;

	/*
	 * Four fractions are dropped: of the product and of F/100, at the reference and
	 * now, two in each direction.
	 */
	TEST_ASSERT(diff >= -2 && diff <= 2, "%s is off by %ld units of 100 ns", what, diff);
}

/* Hyper-V's page and counter are F/100, for whatever F and TSC there are. */
static void test_hyperv(void)
{
	static const u64 offsets[] = { 0, BIT_ULL(45), BIT_ULL(63), -BIT_ULL(50) };
	static const u64 values[] = { 0, NSEC_PER_SEC, BIT_ULL(53), BIT_ULL(62) };
	struct pvclock_vm guest = create_vm(2);
	struct pvclock_vcpu_time_info clock;
	struct hv_tsc_page page;
	u64 tsc, counter, before;
	int i, j;

	pvclock_allow_hyperv(&guest);
	pvclock_run_all(&guest);
	pvclock_enable_hv_page(&guest);
	clock = read_page(&guest);
	clock.version = 0;

	for (i = 0; i < ARRAY_SIZE(offsets) * ARRAY_SIZE(values); i++) {
		for (j = 0; j < 2; j++)
			vcpu_set_tsc_offset(guest.vcpus[j], offsets[i / ARRAY_SIZE(values)]);
		clock.tsc_timestamp = vcpu_tsc_now(guest.vcpus[0]);
		clock.system_time = values[i % ARRAY_SIZE(values)];
		vcpu_set_clock_guest(guest.vcpus[0], &clock);

		tsc = pvclock_run(&guest, 0).tsc;
		page = pvclock_hv_page(&guest);
		TEST_ASSERT(page.sequence, "No Hyper-V page");
		for (j = 0; j < 1000; j++, tsc += BIT_ULL(30) + 1)
			assert_hv_near(hv_tsc_page_at(&page, tsc), pvclock_at(&clock, tsc),
				       "The page");

		before = pvclock_at(&clock, vcpu_tsc_now(guest.vcpus[0]));
		counter = vcpu_get_msr(guest.vcpus[0], HV_X64_MSR_TIME_REF_COUNT);
		TEST_ASSERT(counter >= before / 100 &&
			    counter <= pvclock_at(&clock, vcpu_tsc_now(guest.vcpus[0])) / 100,
			    "The counter is %lu, F/100 was %lu before", counter, before / 100);
	}
	pvclock_free_vm(&guest);
}

/*
 * A VMM restores the page while TSC accesses are emulated: KVM keeps the page, but not
 * for longer, as it doesn't know what clock the page is for.
 */
static void test_hyperv_emulation(void)
{
	struct pvclock_vm guest = create_vm(1);
	struct kvm_vcpu *vcpu = guest.vcpus[0];
	struct pvclock_vcpu_time_info clock;
	struct hv_tsc_page page;
	u32 sequence;
	u64 tsc;

	pvclock_allow_hyperv(&guest);
	clock = read_page(&guest);
	pvclock_enable_hv_page(&guest);
	pvclock_run(&guest, 0);
	sequence = pvclock_hv_page(&guest).sequence;
	TEST_ASSERT(sequence, "No Hyper-V page");

	vcpu_set_msr(vcpu, HV_X64_MSR_TSC_EMULATION_CONTROL, 1);
	vcpu_set_msr(vcpu, HV_X64_MSR_REFERENCE_TSC,
		     vcpu_get_msr(vcpu, HV_X64_MSR_REFERENCE_TSC));
	pvclock_run(&guest, 0);
	TEST_ASSERT_EQ(pvclock_hv_page(&guest).sequence, sequence);

	vcpu_set_msr(vcpu, HV_X64_MSR_TSC_EMULATION_CONTROL, 0);
	vcpu_get_msr(vcpu, HV_X64_MSR_TIME_REF_COUNT);
	tsc = pvclock_run_wrmsr(&guest, 0, MSR_KVM_SYSTEM_TIME_NEW,
				pvclock_page_gpa(&guest, 0) | KVM_MSR_ENABLED).tsc;
	page = pvclock_hv_page(&guest);
	TEST_ASSERT_EQ(page.sequence, sequence + 1);
	assert_hv_near(hv_tsc_page_at(&page, tsc), pvclock_at(&clock, tsc), "The page");
	pvclock_free_vm(&guest);
}

static void write_tolerance(unsigned int ppm)
{
	FILE *file = fopen("/sys/module/kvm/parameters/tsc_tolerance_ppm", "w");

	TEST_ASSERT(file && fprintf(file, "%u", ppm) > 0 && !fclose(file),
		    "tsc_tolerance_ppm can't be set to %u", ppm);
}

/* A scaled rate is no whole number of kHz: GET's own result fits all the same. */
static void test_no_tolerance(void)
{
	struct pvclock_vm guest = create_vm(1);
	struct kvm_vcpu *vcpu = guest.vcpus[0];
	struct pvclock_vcpu_time_info clock;
	unsigned long khz = host_tsc_khz() / 2;
	int i, refused = 0;

	write_tolerance(0);
	for (i = 0; i < 100; i++, khz += 12347) {
		vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)khz);
		clock = vcpu_get_clock_guest(vcpu);
		refused += !!__vcpu_ioctl(vcpu, KVM_SET_CLOCK_GUEST, &clock);
	}
	write_tolerance(TOLERANCE_PPM);
	TEST_ASSERT_EQ(refused, 0);
	pvclock_free_vm(&guest);
}

/* The clock that a host with a TSC of @khz has for its guests. */
static struct pvclock_vcpu_time_info native_clock(unsigned long khz)
{
	struct pvclock_vcpu_time_info clock = {};
	__uint128_t mul = ((__uint128_t)1000000 << 64) / khz;

	/* mul / 2^64 ns per cycle: normalize to 32 bits. */
	for (clock.tsc_shift = -32; !(mul >> 63); clock.tsc_shift--)
		mul <<= 1;
	for (clock.tsc_shift += 32; mul >> 64; clock.tsc_shift++)
		mul >>= 1;
	clock.tsc_to_system_mul = (u64)mul >> 32;
	return clock;
}

/* Let the vCPU's TSC go on from where it is, at @khz, natively or scaled. */
static void change_host(struct kvm_vcpu *vcpu, unsigned long khz)
{
	struct vcpu_tsc tsc = vcpu_get_tsc(vcpu);
	u64 host_tsc = rdtsc(), value = vcpu_tsc_at(&tsc, host_tsc);

	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	tsc = vcpu_get_tsc(vcpu);
	vcpu_set_tsc_offset(vcpu, tsc.offset + value - vcpu_tsc_at(&tsc, host_tsc));
}

/*
 * From natively to scaled and over hosts whose TSCs were calibrated differently, at
 * random rates: F is what it was at first.
 */
static void test_migrations(void)
{
	static const int ppm[] = { -200, -1, 0, 1, 200 };
	unsigned long khz, host = host_tsc_khz();
	struct pvclock_vcpu_time_info clock, saved;
	struct pvclock_vm guest = create_vm(1);
	struct kvm_vcpu *vcpu = guest.vcpus[0];
	int i, j;

	srandom(1);
	for (i = 0; i < 200; i++) {
		/* A KVM_SET_TSC_KHZ within the tolerance means the host's rate. */
		khz = has_scaling() ? host / 4 + random() % (host * 20) : host;
		vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)khz);
		vcpu_set_tsc_offset(vcpu, random() * BIT_ULL(20));
		clock = native_clock(khz);
		clock.tsc_timestamp = vcpu_tsc_now(vcpu);
		vcpu_set_clock_guest(vcpu, &clock);
		for (j = 0; j < ARRAY_SIZE(ppm); j++) {
			saved = vcpu_get_clock_guest(vcpu);
			change_host(vcpu, khz + (long)khz * ppm[j] / 1000000);
			vcpu_set_clock_guest(vcpu, &saved);
			assert_stable(&guest, &clock);
		}
	}
	pvclock_free_vm(&guest);
}

static const struct {
	const char *name;
	void (*run)(void);
	bool needs_scaling;
	bool all_rates;		/* by itself */
} tests[] = {
	{ "master clock from the VM's creation", test_new_vm },
	{ "malformed", test_malformed },
	{ "EFAULT", test_efault },
	{ "out of range", test_out_of_range },
	{ "no function", test_no_function },
	{ "two rates", test_two_rates },
	{ "restore", test_restore },
	{ "restore from another calibration", test_restore_other_calibration },
	{ "restore with different offsets", test_restore_offsets },
	{ "reference", test_reference },
	{ "KVM_SET_CLOCK", test_set_clock },
	{ "KVM_SET_TSC_KHZ", test_set_tsc_khz, .needs_scaling = true },
	{ "updates", test_updates },
	{ "old MSR", test_old_msr },
	{ "writes of the TSC", test_tsc_writes },
	{ "power-on", test_power_on, .needs_scaling = true },
	{ "new vCPUs", test_plug },
	{ "Hyper-V", test_hyperv },
	{ "Hyper-V, emulated TSC", test_hyperv_emulation },
	{ "no tolerance", test_no_tolerance, .needs_scaling = true },
	{ "migrations", test_migrations, .all_rates = true },
};

static void run_tests(bool all_rates)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (tests[i].all_rates != all_rates)
			continue;
		if (tests[i].needs_scaling && !has_scaling())
			ksft_test_result_skip("%s: no TSC scaling\n", tests[i].name);
		else
			ksft_test_result(run_in_child(tests[i].run), "%s, TSC of %lu kHz\n",
					 tests[i].name, tsc_khz ? : host_tsc_khz());
	}
}

int main(void)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GET_TSC_KHZ));

	ksft_print_header();
	ksft_set_plan(has_scaling() ? 2 * ARRAY_SIZE(tests) - 1 : ARRAY_SIZE(tests));

	run_tests(true);
	run_tests(false);
	if (has_scaling()) {
		/* Neither the ratio nor the rate is round. */
		tsc_khz = host_tsc_khz() * 7 / 5 + 1;
		run_tests(false);
	}
	ksft_finished();
}
