// SPDX-License-Identifier: GPL-2.0
/*
 * While a VM is in master clock mode, its clock (kvmclock) is one function F of
 * the guest's TSC, and nothing moves it but the ioctls that set it.  Test that
 *
 *  - whatever makes KVM update the master clock leaves F as it is,
 *  - all clocks of a VM give F at the same TSC: KVM_GET_CLOCK, the page of each
 *    vCPU, Xen's pages, Hyper-V's reference counter and TSC page,
 *  - F can be saved and restored whatever state the vCPU is in,
 *  - KVM_SET_CLOCK sets the clock to what it is asked to.
 */
#include <getopt.h>
#include <pthread.h>
#include <sys/timex.h>
#include <time.h>

#include "pvclock_test.h"

#define NR_VCPUS	4
#define MAX_ADJ_FREQ	(500L << 16)	/* 500 ppm, the most that the kernel accepts */

/* Where struct vcpu_info of Xen has the clock, for 32-bit and 64-bit guests. */
struct xen_vcpu_info {
	u8 events[32];
	struct pvclock_vcpu_time_info time;
} __aligned(64);

/* Shared with the guest. */
static u8 xen_shared_info[4096] __aligned(4096);
static struct xen_vcpu_info xen_vcpu_info[NR_VCPUS] __aligned(4096);
static struct pvclock_vcpu_time_info xen_time_info[NR_VCPUS] __aligned(4096);

static struct pvclock_wall_clock wall_clock;

/* For how long KVM_GET_CLOCK is compared with the guest's clock. */
static u64 seconds = 1;

static u64 gpa_of(struct guest *guest, void *var)
{
	return addr_gva2gpa(guest->vm, (unsigned long)var);
}

/* --- what leaves F as it is ---------------------------------------------- */

/* On return, the vCPU's next run begins with an update of the master clock. */
static void request_update(struct guest *guest, int id)
{
	vcpu_set_msr(guest->vcpus[id], HV_X64_MSR_REFERENCE_TSC,
		     get_hv_tsc_page_msr(guest));
}

static void switch_msrs(struct guest *guest)
{
	use_old_msr(guest, 0);
	use_new_msr(guest, 0);
}

/* Only the MSR that the vCPU with ID 0 uses has ever made a difference. */
static void use_old_msr_on_last_vcpu(struct guest *guest)
{
	use_old_msr(guest, NR_VCPUS - 1);
}

static void disable_and_enable_msr(struct guest *guest)
{
	run_with_wrmsr(guest, 0, MSR_KVM_SYSTEM_TIME_NEW, 0);
	use_new_msr(guest, 0);
}

static void create_vcpu(struct guest *guest)
{
	add_vcpu(guest, guest_main);
}

static void request_updates(struct guest *guest)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		request_update(guest, i);
}

static void set_same_tsc_offset(struct guest *guest)
{
	set_tsc_offset(guest, get_tsc_offset(guest->vcpus[0]));
}

/* KVM takes a zero as a wish to have the same TSC as the other vCPUs. */
static void write_tsc_zero(struct guest *guest)
{
	u64 offset = get_tsc_offset(guest->vcpus[0]);
	int i;

	for (i = 0; i < NR_VCPUS; i++) {
		vcpu_set_msr(guest->vcpus[i], MSR_IA32_TSC, 0);
		TEST_ASSERT_EQ(get_tsc_offset(guest->vcpus[i]), offset);
	}
}

/*
 * KVM takes a value within a second of what the TSC has as the same TSC.  A
 * write that came too late because the host was busy says nothing: it is made
 * again, after the TSCs were set to the first offset again.
 */
static void write_expected_tsc(struct guest *guest)
{
	u64 hz = 1000ull * __vcpu_ioctl(guest->vcpus[0], KVM_GET_TSC_KHZ, NULL);
	u64 offset = get_tsc_offset(guest->vcpus[0]), start;
	struct tsc_scale tsc = get_tsc_scale(guest->vcpus[0]);
	int i;

	do {
		set_tsc_offset(guest, offset);
		start = tsc_at(&tsc, rdtsc());
		for (i = 0; i < NR_VCPUS; i++)
			vcpu_set_msr(guest->vcpus[i], MSR_IA32_TSC, start + hz / 4);
	} while (tsc_at(&tsc, rdtsc()) - start > hz);

	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT_EQ(get_tsc_offset(guest->vcpus[i]), offset);
}

static void set_xen_shared_info(struct guest *guest)
{
	struct kvm_xen_hvm_attr attr = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = gpa_of(guest, xen_shared_info) / getpagesize(),
	};

	vm_ioctl(guest->vm, KVM_XEN_HVM_SET_ATTR, &attr);
}

static void call_kvmclock_ctrl(struct guest *guest)
{
	struct pvclock_vcpu_time_info *page = guest_copy(guest, pvti[0]);

	vcpu_ioctl(guest->vcpus[0], KVM_KVMCLOCK_CTRL, NULL);
	run_vcpu(guest->vcpus[0]);
	TEST_ASSERT_EQ(page->flags, PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED);
	page->flags &= ~PVCLOCK_GUEST_STOPPED;	/* as guests do */
}

/* CLOCK_MONOTONIC minus CLOCK_MONOTONIC_RAW. */
static s64 get_adjustment(void)
{
	struct timespec monotonic, raw;

	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_MONOTONIC_RAW, &raw);
	return timespec_to_ns(monotonic) - timespec_to_ns(raw);
}

static void adjust_host_time(struct timex *timex)
{
	TEST_ASSERT(clock_adjtime(CLOCK_REALTIME, timex) >= 0,
		    "clock_adjtime() failed, errno %d (%s)", errno, strerror(errno));
}

static void run_with_updates(struct guest *guest)
{
	request_updates(guest);
	run_all(guest);
}

/* Returns when the new rate has made a difference of 100 us, or seems to. */
static void set_host_frequency(long freq)
{
	struct timex timex = { .modes = ADJ_FREQUENCY, .freq = freq };
	s64 adjustment = get_adjustment();

	adjust_host_time(&timex);
	while (llabs(get_adjustment() - adjustment) < 100000)
		sched_yield();
}

static void change_host_frequency(struct guest *guest)
{
	struct timex timex = {};

	adjust_host_time(&timex);
	set_host_frequency(timex.freq > 0 ? -MAX_ADJ_FREQ : MAX_ADJ_FREQ);
	run_with_updates(guest);
	set_host_frequency(timex.freq > 0 ? MAX_ADJ_FREQ : -MAX_ADJ_FREQ);
	run_with_updates(guest);

	timex.modes = ADJ_FREQUENCY;
	adjust_host_time(&timex);
}

static void step_host_time(struct guest *guest)
{
	struct timex forward = { .modes = ADJ_SETOFFSET, .time.tv_sec = 1 };
	struct timex back = { .modes = ADJ_SETOFFSET, .time.tv_sec = -1 };

	adjust_host_time(&forward);
	run_with_updates(guest);
	adjust_host_time(&back);
	run_with_updates(guest);
}

static void *run_once(void *vcpu)
{
	run_vcpu(vcpu);
	return NULL;
}

/*
 * The guest on vCPU 0 requests an update of the master clock again and again,
 * while vCPUs are created.  In between KVM has a vCPU whose TSC is not yet
 * known to match.
 */
static void create_vcpus_during_updates(struct guest *guest)
{
	struct pvclock_vcpu_time_info before = get_clock_guest(guest->vcpus[0]), now;
	struct kvm_vcpu *vcpu;
	pthread_t thread;

	set_guest_wrmsr(guest, HV_X64_MSR_REFERENCE_TSC, get_hv_tsc_page_msr(guest), true);
	pthread_create(&thread, NULL, run_once, guest->vcpus[0]);
	while (guest->nr_vcpus < MAX_VCPUS) {
		vcpu = add_vcpu(guest, guest_main);
		now = get_clock_guest(vcpu);
		assert_same_function(&before, &now, get_tsc(vcpu), "GET on a new vCPU");
	}
	set_guest_wrmsr(guest, 0, 0, false);
	pthread_join(thread, NULL);
}

/*
 * A new reference is off by what CLOCK_MONOTONIC_RAW and pvclock drift apart in
 * the meantime, some tens of ns per second: let the old one become old enough.
 */
static void age_reference(struct guest *guest)
{
	u64 start = run_vcpu(guest->vcpus[0]).ns;

	while (run_vcpu(guest->vcpus[0]).ns - start < NSEC_PER_SEC / 2)
		;
}

static void assert_unmoved_by(void (*trigger)(struct guest *guest))
{
	struct guest guest = __new_guest(NR_VCPUS, MAX_VCPUS, guest_main);
	struct pvclock_vcpu_time_info before;

	if (kvm_has_cap(KVM_CAP_HYPERV_TIME)) {
		allow_hyperv(&guest);
		run_with_wrmsr(&guest, 0, HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	}
	run_all(&guest);
	before = get_clock_guest(guest.vcpus[0]);
	age_reference(&guest);
	trigger(&guest);
	assert_guest_clock(&guest, &before);
	free_guest(&guest);
}

#define TRIGGER(name)						\
static void test_##name(void)					\
{								\
	assert_unmoved_by(name);				\
}

TRIGGER(switch_msrs)
TRIGGER(use_old_msr_on_last_vcpu)
TRIGGER(disable_and_enable_msr)
TRIGGER(create_vcpu)
TRIGGER(create_vcpus_during_updates)
TRIGGER(enable_hv_tsc_page)
TRIGGER(request_updates)
TRIGGER(set_same_tsc_offset)
TRIGGER(write_tsc_zero)
TRIGGER(write_expected_tsc)
TRIGGER(set_xen_shared_info)
TRIGGER(call_kvmclock_ctrl)
TRIGGER(change_host_frequency)
TRIGGER(step_host_time)

/*
 * While the guest uses the old MSR, its pages do not promise that the clock is
 * the same on all vCPUs, and KVM gives each the reference that it computes when
 * it updates the page: the value of F there.  From then on the page is behind F
 * by less than 1 ns because the fraction of a nanosecond at the reference is
 * lost, and by less than 1 ns because the bits of the TSC that the shift to the
 * right drops at the reference are lost: whole numbers, so 0 to 2 ns.
 */
static void assert_old_msr_clock(struct guest *guest, int id,
				 const struct pvclock_vcpu_time_info *before)
{
	struct pvclock_vcpu_time_info *page = guest_copy(guest, pvti[id]);
	struct pvclock_vcpu_time_info clock = get_clock_guest(guest->vcpus[id]);
	u64 tsc = run_vcpu(guest->vcpus[id]).tsc;
	int i;

	assert_same_function(before, &clock, tsc, "GET while the old MSR is used");
	TEST_ASSERT_EQ(page->flags, 0);
	for (i = 0; i < NR_TSC_VALUES; i++, tsc += TSC_AHEAD / NR_TSC_VALUES) {
		u64 behind = clock_at(before, tsc) - clock_at(page, tsc);

		TEST_ASSERT(behind <= 2, "vCPU %d's page is behind F by %ld ns", id, behind);
	}
}

static void test_old_msr(void)
{
	struct guest guest = new_guest(NR_VCPUS);
	struct pvclock_vcpu_time_info before;
	int i;

	run_all(&guest);
	before = get_clock_guest(guest.vcpus[0]);
	age_reference(&guest);
	use_old_msr(&guest, 0);
	run_all(&guest);
	for (i = 0; i < NR_VCPUS; i++)
		assert_old_msr_clock(&guest, i, &before);
	use_new_msr(&guest, 0);
	assert_guest_clock(&guest, &before);
	free_guest(&guest);
}

static void test_requests_before_and_after_set(void)
{
	struct guest guest = new_guest(NR_VCPUS);
	struct pvclock_vcpu_time_info clock;
	int nr, i;

	run_all(&guest);
	for (nr = 0; nr <= NR_VCPUS; nr++) {
		for (i = 0; i < nr; i++)
			request_update(&guest, i);
		clock = get_clock_guest(guest.vcpus[0]);
		clock.system_time += NSEC_PER_SEC;
		set_clock_guest(guest.vcpus[nr % NR_VCPUS], &clock);
		for (i = nr; i < NR_VCPUS; i++)
			request_update(&guest, i);
		age_reference(&guest);
		assert_guest_clock(&guest, &clock);
	}
	free_guest(&guest);
}

/* The guest on vCPU 0 requests updates while the clock is set on the last vCPU. */
static void test_requests_during_set(void)
{
	struct guest guest = new_guest(2);
	struct pvclock_vcpu_time_info clock, now;
	pthread_t thread;
	int i;

	allow_hyperv(&guest);
	run_with_wrmsr(&guest, 0, HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);

	set_guest_wrmsr(&guest, HV_X64_MSR_REFERENCE_TSC, get_hv_tsc_page_msr(&guest), true);
	pthread_create(&thread, NULL, run_once, guest.vcpus[0]);
	for (i = 0; i < 1000; i++) {
		clock = get_clock_guest(guest.vcpus[1]);
		clock.system_time += NSEC_PER_SEC;
		set_clock_guest(guest.vcpus[1], &clock);
		now = get_clock_guest(guest.vcpus[1]);
		assert_same_function(&clock, &now, get_tsc(guest.vcpus[1]), "GET");
	}
	set_guest_wrmsr(&guest, 0, 0, false);
	pthread_join(thread, NULL);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* --- one clock ------------------------------------------------------------- */

static void assert_kvm_get_clock(struct guest *guest,
				 const struct pvclock_vcpu_time_info *clock)
{
	u32 flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	struct kvm_clock_data data = {};
	struct tsc_scale scale;
	u64 tsc;

	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT_EQ(data.flags, flags);
	scale = get_tsc_scale(guest->vcpus[0]);
	tsc = tsc_at(&scale, data.host_tsc);
	assert_at(tsc, clock_at(clock, tsc), data.clock, "KVM_GET_CLOCK");
}

static u64 get_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return timespec_to_ns(ts);
}

/* The epoch is the host's time minus F at some moment between the readings here. */
static void assert_wall_clock(struct guest *guest,
			      const struct pvclock_vcpu_time_info *clock)
{
	struct pvclock_wall_clock *page = guest_copy(guest, wall_clock);
	u64 first, last, start, end, epoch;

	first = clock_at(clock, get_tsc(guest->vcpus[0]));
	start = get_realtime();
	run_with_wrmsr(guest, 0, MSR_KVM_WALL_CLOCK_NEW, gpa_of(guest, &wall_clock));
	end = get_realtime();
	last = clock_at(clock, get_tsc(guest->vcpus[0]));

	epoch = page->sec * NSEC_PER_SEC + page->nsec;
	TEST_ASSERT(epoch >= start - last && epoch <= end - first,
		    "The wall-clock epoch is %lu ns, not within %lu and %lu ns",
		    epoch, start - last, end - first);
}

static void set_xen_vcpu_attr(struct kvm_vcpu *vcpu, int type, u64 gpa)
{
	struct kvm_xen_vcpu_attr attr = { .type = type, .u.gpa = gpa };

	vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}

static void enable_xen_pages(struct guest *guest)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++) {
		set_xen_vcpu_attr(guest->vcpus[i], KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
				  gpa_of(guest, &xen_vcpu_info[i]));
		set_xen_vcpu_attr(guest->vcpus[i], KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
				  gpa_of(guest, &xen_time_info[i]));
	}
}

static void assert_xen_pages(struct guest *guest,
			     const struct pvclock_vcpu_time_info *clock)
{
	struct pvclock_vcpu_time_info *page;
	u64 tsc;
	int i;

	for (i = 0; i < NR_VCPUS; i++) {
		tsc = run_vcpu(guest->vcpus[i]).tsc;
		page = &guest_copy(guest, xen_vcpu_info[i])->time;
		assert_same_function(clock, page, tsc, "Xen's vcpu_info");
		page = guest_copy(guest, xen_time_info[i]);
		assert_same_function(clock, page, tsc, "Xen's vcpu_time_info");
	}
}

static u64 hv_tsc_page_at(const struct hv_tsc_page *page, u64 tsc)
{
	return (u64)((__uint128_t)tsc * page->scale >> 64) + page->offset;
}

/*
 * The page and F have units of 100 ns and of 1 ns.  With the reference at ref
 * and system_time, and the exact scale s of the page in 2^-64 units per cycle,
 * the line that both approximate is in units of 100 ns
 *
 *	G = system_time / 100 + (tsc - ref) * s / 2^64
 *
 * The page has floor(s) for s, so it loses less than (tsc - ref) / 2^64, which
 * is below 0.01 up to 2^57 cycles.  It is floor(tsc * scale / 2^64), which loses
 * less than 1, plus floor(system_time / 100), which loses less than 1, minus
 * floor(ref * scale / 2^64), which gains less than 1.  So
 *
 *	-2.01 < page - G < 1
 *
 * F loses less than 1 ns each with the shift to the right before and after the
 * multiplication: -2 < F - 100 G <= 0.  So -201 < 100 page - F < 102.
 */
static void assert_hv_tsc_page(struct guest *guest,
			       const struct pvclock_vcpu_time_info *clock)
{
	struct hv_tsc_page *page = guest_copy(guest, hv_tsc_page);
	u64 tsc = run_vcpu(guest->vcpus[0]).tsc;
	int i;

	TEST_ASSERT(page->sequence, "KVM does not update the Hyper-V TSC page");
	TEST_ASSERT((s64)clock->tsc_timestamp >= 0 && tsc < BIT_ULL(57) - TSC_AHEAD,
		    "The bound is not for these TSC values");
	for (i = 0; i < NR_TSC_VALUES; i++, tsc += TSC_AHEAD / NR_TSC_VALUES) {
		s64 error = 100 * hv_tsc_page_at(page, tsc) - clock_at(clock, tsc);

		TEST_ASSERT(error > -201 && error < 102,
			    "The Hyper-V TSC page is off by %ld ns at TSC %#lx", error, tsc);
	}
}

static u64 hv_counter_from_page(struct guest *guest, u64 tsc)
{
	return hv_tsc_page_at(guest_copy(guest, hv_tsc_page), tsc);
}

/* The counter is read at some TSC value between the two readings of the TSC. */
static void assert_hv_counter(struct guest *guest,
			      const struct pvclock_vcpu_time_info *clock, bool has_page)
{
	u64 start, end, lo, hi, counter;

	start = get_tsc(guest->vcpus[0]);
	counter = vcpu_get_msr(guest->vcpus[0], HV_X64_MSR_TIME_REF_COUNT);
	end = get_tsc(guest->vcpus[0]);

	lo = has_page ? hv_counter_from_page(guest, start) : clock_at(clock, start) / 100;
	hi = has_page ? hv_counter_from_page(guest, end) : clock_at(clock, end) / 100;
	TEST_ASSERT(counter >= lo && counter <= hi,
		    "The Hyper-V reference counter is %lu, not within %lu and %lu",
		    counter, lo, hi);
}

/* A guest that has run, and F. */
static struct guest new_guest_with_clock(struct pvclock_vcpu_time_info *clock)
{
	struct guest guest = new_guest(NR_VCPUS);

	if (kvm_has_cap(KVM_CAP_HYPERV_TIME))
		allow_hyperv(&guest);
	run_all(&guest);
	*clock = get_clock_guest(guest.vcpus[0]);
	return guest;
}

/* F moved by what no test can overlook: a restored F, with an old reference. */
static void move_clock(struct guest *guest, struct pvclock_vcpu_time_info *clock)
{
	clock->system_time += 1000 * NSEC_PER_SEC;
	set_clock_guest(guest->vcpus[1], clock);
}

static void test_kvm_get_clock(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	assert_kvm_get_clock(&guest, &clock);
	age_reference(&guest);
	assert_kvm_get_clock(&guest, &clock);
	move_clock(&guest, &clock);
	assert_kvm_get_clock(&guest, &clock);
	run_all(&guest);
	assert_kvm_get_clock(&guest, &clock);
	free_guest(&guest);
}

/* Between two readings of the guest's, and equal at the host's TSC that it says. */
static void test_kvm_get_clock_over_time(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);
	u64 start = run_vcpu(guest.vcpus[0]).ns, before, after;
	struct kvm_clock_data data;

	do {
		before = run_vcpu(guest.vcpus[0]).ns;
		vm_ioctl(guest.vm, KVM_GET_CLOCK, &data);
		after = run_vcpu(guest.vcpus[0]).ns;
		TEST_ASSERT(data.clock >= before && data.clock <= after,
			    "KVM_GET_CLOCK gives %llu ns, the guest %lu and %lu ns",
			    data.clock, before, after);
		assert_kvm_get_clock(&guest, &clock);
		usleep(10000);
	} while (after - start < seconds * NSEC_PER_SEC);
	free_guest(&guest);
}

static void test_wall_clock(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	assert_wall_clock(&guest, &clock);
	move_clock(&guest, &clock);
	assert_wall_clock(&guest, &clock);
	free_guest(&guest);
}

static void test_vcpu_pages(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	assert_guest_clock(&guest, &clock);
	move_clock(&guest, &clock);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

static void test_xen_pages(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	enable_xen_pages(&guest);
	assert_xen_pages(&guest, &clock);
	move_clock(&guest, &clock);
	assert_xen_pages(&guest, &clock);
	free_guest(&guest);
}

static void test_hv_tsc_page(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	enable_hv_tsc_page(&guest);
	assert_hv_tsc_page(&guest, &clock);
	move_clock(&guest, &clock);
	assert_hv_tsc_page(&guest, &clock);
	free_guest(&guest);
}

static void test_hv_counter(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	assert_hv_counter(&guest, &clock, false);
	move_clock(&guest, &clock);
	assert_hv_counter(&guest, &clock, false);

	enable_hv_tsc_page(&guest);
	assert_hv_counter(&guest, &clock, true);
	move_clock(&guest, &clock);
	run_all(&guest);
	assert_hv_counter(&guest, &clock, true);
	free_guest(&guest);
}

/* --- states of the vCPU and the VM ------------------------------------------ */

static void test_before_first_run(void)
{
	struct guest guest = new_guest(NR_VCPUS);
	struct pvclock_vcpu_time_info clock = get_clock_guest(guest.vcpus[0]);

	move_clock(&guest, &clock);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* Only vCPU 0 runs.  vCPU 1 keeps its requests, and has the same clock. */
static void test_vcpu_never_runs(void)
{
	struct guest guest = new_guest(2);
	struct pvclock_vcpu_time_info clock, other;
	u64 tsc = run_vcpu(guest.vcpus[0]).tsc;

	clock = get_clock_guest(guest.vcpus[0]);
	other = get_clock_guest(guest.vcpus[1]);
	assert_same_function(&clock, &other, tsc, "GET on a vCPU that never ran");

	move_clock(&guest, &other);
	guest.nr_vcpus = 1;
	assert_guest_clock(&guest, &other);
	clock = get_clock_guest(guest.vcpus[1]);
	assert_same_function(&other, &clock, tsc, "GET on a vCPU that never ran");
	free_guest(&guest);
}

/* That the guest was stopped is for its page, and stays there until it clears it. */
static void test_guest_stopped(void)
{
	u8 flags = PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED;
	struct pvclock_vcpu_time_info clock, now, *page;
	struct guest guest = new_guest_with_clock(&clock);
	u64 tsc;

	page = guest_copy(&guest, pvti[0]);
	vcpu_ioctl(guest.vcpus[0], KVM_KVMCLOCK_CTRL, NULL);
	now = get_clock_guest(guest.vcpus[0]);
	tsc = run_vcpu(guest.vcpus[0]).tsc;
	assert_same_function(&clock, &now, tsc, "GET after KVM_KVMCLOCK_CTRL");
	TEST_ASSERT_EQ(page->flags, flags);
	assert_same_function(&clock, page, tsc, "The page of a stopped guest");

	now = get_clock_guest(guest.vcpus[0]);
	assert_same_function(&clock, &now, tsc, "GET of a stopped guest");
	move_clock(&guest, &clock);
	run_vcpu(guest.vcpus[0]);
	TEST_ASSERT_EQ(page->flags, flags);
	assert_same_function(&clock, page, tsc, "The page after SET");
	free_guest(&guest);
}

static void guest_without_clock(int id)
{
	for (;;)
		GUEST_SYNC_ARGS(0, rdtsc(), 0, 0, 0);
}

/* GET and SET work, and KVM does not write to the page. */
static void assert_clock_without_page(struct guest *guest)
{
	struct pvclock_vcpu_time_info *page = guest_copy(guest, pvti[0]);
	struct pvclock_vcpu_time_info before = *page, clock, now;
	u64 tsc = run_vcpu(guest->vcpus[0]).tsc;

	clock = get_clock_guest(guest->vcpus[0]);
	clock.system_time += NSEC_PER_SEC;
	set_clock_guest(guest->vcpus[0], &clock);
	run_vcpu(guest->vcpus[0]);
	now = get_clock_guest(guest->vcpus[0]);
	assert_same_function(&clock, &now, tsc, "GET with the clock disabled");
	TEST_ASSERT(!memcmp(page, &before, sizeof(before)),
		    "KVM wrote to the page of a clock that is disabled");
}

static void test_msr_never_enabled(void)
{
	struct guest guest = __new_guest(1, 1, guest_without_clock);

	assert_clock_without_page(&guest);
	free_guest(&guest);
}

static void test_msr_disabled(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest(1);

	run_all(&guest);
	run_with_wrmsr(&guest, 0, MSR_KVM_SYSTEM_TIME_NEW, 0);
	assert_clock_without_page(&guest);
	clock = get_clock_guest(guest.vcpus[0]);
	use_new_msr(&guest, 0);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* The library's VMs have an interrupt controller, unless they are made again. */
static void test_no_irqchip(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = __new_guest(0, NR_VCPUS, guest_main);
	struct kvm_lapic_state lapic;

	kvm_vm_release(guest.vm);
	guest.vm->has_irqchip = false;
	kvm_vm_restart(guest.vm);
	while (guest.nr_vcpus < NR_VCPUS)
		add_vcpu(&guest, guest_main);
	TEST_ASSERT(__vcpu_ioctl(guest.vcpus[0], KVM_GET_LAPIC, &lapic) && errno == EINVAL,
		    "The VM has an interrupt controller");

	clock = get_clock_guest(guest.vcpus[0]);
	assert_guest_clock(&guest, &clock);
	move_clock(&guest, &clock);
	assert_guest_clock(&guest, &clock);
	free_guest(&guest);
}

/* --- KVM_SET_CLOCK ----------------------------------------------------------- */

static void test_set_clock_in_mode(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);

	assert_set_clock_in_mode(&guest);
	free_guest(&guest);
}

static void test_set_clock_out_of_mode(void)
{
	struct pvclock_vcpu_time_info clock;
	struct guest guest = new_guest_with_clock(&clock);
	unsigned long khz = __vcpu_ioctl(guest.vcpus[1], KVM_GET_TSC_KHZ, NULL);

	/* Now the vCPUs' TSCs have different rates. */
	vcpu_ioctl(guest.vcpus[1], KVM_SET_TSC_KHZ, (void *)(2 * khz));
	run_all(&guest);
	assert_set_clock_out_of_mode(&guest);
	free_guest(&guest);
}

static const struct test tests[] = {
	{ "F stays: while and after the guest uses the old MSR", test_old_msr },
	{ "F stays: the guest switches between the MSRs", test_switch_msrs },
	{ "F stays: another vCPU uses the old MSR", test_use_old_msr_on_last_vcpu },
	{ "F stays: the guest disables and enables its MSR", test_disable_and_enable_msr },
	{ "F stays: a vCPU is created", test_create_vcpu },
	{ "F stays: vCPUs are created during updates", test_create_vcpus_during_updates,
	  KVM_CAP_HYPERV_TIME },
	{ "F stays: updates requested on all vCPUs", test_request_updates, KVM_CAP_HYPERV_TIME },
	{ "F stays: updates requested before and after SET", test_requests_before_and_after_set,
	  KVM_CAP_HYPERV_TIME },
	{ "F stays: updates requested during SET", test_requests_during_set, KVM_CAP_HYPERV_TIME },
	{ "F stays: Xen's shared_info is set", test_set_xen_shared_info, KVM_CAP_XEN_HVM },
	{ "F stays: the guest enables the Hyper-V TSC page", test_enable_hv_tsc_page,
	  KVM_CAP_HYPERV_TIME },
	{ "F stays: the TSC offset is set to what it is", test_set_same_tsc_offset },
	{ "F stays: the host writes 0 to the TSC", test_write_tsc_zero },
	{ "F stays: the host writes what it expects to the TSC", test_write_expected_tsc },
	{ "F stays: KVM_KVMCLOCK_CTRL", test_call_kvmclock_ctrl },
	{ "F stays: the host's frequency is adjusted", test_change_host_frequency,
	  KVM_CAP_HYPERV_TIME },
	{ "F stays: the host's time is set", test_step_host_time, KVM_CAP_HYPERV_TIME },

	{ "one clock: KVM_GET_CLOCK", test_kvm_get_clock },
	{ "one clock: KVM_GET_CLOCK over time", test_kvm_get_clock_over_time },
	{ "one clock: the wall-clock epoch", test_wall_clock },
	{ "one clock: the vCPUs' pages", test_vcpu_pages },
	{ "one clock: Xen's vcpu_info and vcpu_time_info", test_xen_pages, KVM_CAP_XEN_HVM },
	{ "one clock: Hyper-V TSC page", test_hv_tsc_page, KVM_CAP_HYPERV_TIME },
	{ "one clock: Hyper-V reference counter", test_hv_counter, KVM_CAP_HYPERV_TIME },

	{ "state: before the first KVM_RUN", test_before_first_run },
	{ "state: a vCPU that never runs", test_vcpu_never_runs },
	{ "state: guest stopped", test_guest_stopped },
	{ "state: MSR never enabled", test_msr_never_enabled },
	{ "state: MSR disabled after use", test_msr_disabled },
	{ "state: no interrupt controller in the kernel", test_no_irqchip },

	{ "KVM_SET_CLOCK: in master clock mode", test_set_clock_in_mode },
	{ "KVM_SET_CLOCK: out of master clock mode", test_set_clock_out_of_mode },
};

static void usage(const char *name)
{
	printf("Usage: %s [-h] [-t seconds]\n"
	       " -h: print this text\n"
	       " -t: compare KVM_GET_CLOCK with the guest's clock for that long, %lu by default\n",
	       name, seconds);
}

int main(int argc, char *argv[])
{
	int last = get_nr_tsc_rates() - 1, opt;
	char prefix[32];

	while ((opt = getopt(argc, argv, "ht:")) != -1) {
		switch (opt) {
		case 't':
			seconds = atoi_positive("Time in seconds", optarg);
			break;
		default:
			usage(argv[0]);
			exit(opt == 'h' ? KSFT_PASS : KSFT_FAIL);
		}
	}

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(sys_clocksource_is_based_on_tsc());

	ksft_print_header();
	ksft_set_plan((last ? 2 : 1) * ARRAY_SIZE(tests));
	run_tests("", tests, ARRAY_SIZE(tests));
	if (last) {
		set_tsc_rate(last);
		snprintf(prefix, sizeof(prefix), "%s: ", tsc_rates[last].name);
		run_tests(prefix, tests, ARRAY_SIZE(tests));
	}
	ksft_finished();
}
