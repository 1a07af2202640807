// SPDX-License-Identifier: GPL-2.0
/*
 * Test the procedure by which a VMM moves the TSCs and the clock of a VM to another
 * host, or keeps them over a live update of its own: it is in section 4.1 of
 * Documentation/virt/kvm/devices/vcpu.rst, with the same numbers for the steps.
 *
 * The state of the source goes into one structure, the source is destroyed, and
 * another VM is built from nothing but that structure.
 */
#include "pvclock_test.h"

#define NR_VCPUS	16
#define NR_HOPS		85	/* with the single ones, 100 migrations at each rate */

/* --- a VMM ----------------------------------------------------------------------- */

struct saved_vm {
	u32 nr_vcpus;
	u32 tsc_khz;
	u64 clock;				/* in ns */
	u64 realtime;				/* in ns, when the clock was saved */
	u64 host_tsc;				/* then */
	u64 tsc[NR_VCPUS];			/* then */
	bool has_clock_guest;
	struct pvclock_vcpu_time_info clock_guest;	/* of vCPU 0 */
};

enum policy {
	TIME_GOES_ON,
	TIME_STANDS_STILL,
	LIVE_UPDATE,
};

static u64 get_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return timespec_to_ns(ts);
}

/* KVM reads all of it at once if it can. */
static struct kvm_clock_data get_clock_and_tsc(struct kvm_vm *vm)
{
	struct kvm_clock_data now = {};

	vm_ioctl(vm, KVM_GET_CLOCK, &now);
	if (!(now.flags & KVM_CLOCK_HOST_TSC)) {
		now.host_tsc = rdtsc();
		now.realtime = get_realtime();
	}
	return now;
}

static u64 scale_host_tsc(struct kvm_vcpu *vcpu, u64 host_tsc)
{
	struct kvm_vcpu_tsc_scale scale = { .tsc_ratio = 1 };

	if (!__vcpu_has_device_attr(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE))
		vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &scale);

	return (u64)((__uint128_t)host_tsc * scale.tsc_ratio >> scale.tsc_frac_bits);
}

static struct saved_vm save_vm(struct guest *guest)
{
	struct kvm_vcpu *vcpu = guest->vcpus[0];
	struct saved_vm saved = {};
	struct kvm_clock_data now;
	int i;

	/* 1. */
	saved.nr_vcpus = guest->nr_vcpus;
	saved.tsc_khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);

	/* 2. */
	now = get_clock_and_tsc(guest->vm);
	saved.clock = now.clock;
	saved.realtime = now.realtime;
	saved.host_tsc = now.host_tsc;

	/* 3. */
	for (i = 0; i < guest->nr_vcpus; i++)
		saved.tsc[i] = scale_host_tsc(guest->vcpus[i], now.host_tsc) +
			       get_tsc_offset(guest->vcpus[i]);

	/* 4. */
	saved.has_clock_guest = !__vcpu_ioctl(vcpu, KVM_GET_CLOCK_GUEST, &saved.clock_guest);
	TEST_ASSERT(saved.has_clock_guest || errno == ENODATA,
		    KVM_IOCTL_ERROR(KVM_GET_CLOCK_GUEST, -1));

	return saved;
}

/*
 * Returns 0, or an error if there can't be such a VM here.  @now is when the TSCs were
 * set, @exact whether the clock is the same function of the TSC as in the source.
 */
static int restore_vm(const struct saved_vm *saved, int nr_vcpus, enum policy policy,
		      struct guest *guest, struct kvm_clock_data *now, bool *exact)
{
	struct kvm_clock_data clock = {
		.clock = saved->clock,
		.realtime = saved->realtime,
		.flags = policy == TIME_STANDS_STILL ? 0 : KVM_CLOCK_REALTIME,
	};
	u64 elapsed, offset;
	int i;

	if (saved->nr_vcpus != nr_vcpus)
		return -EINVAL;

	/* 5. */
	*guest = new_guest(nr_vcpus);
	for (i = 0; i < nr_vcpus; i++) {
		if (__vcpu_ioctl(guest->vcpus[i], KVM_SET_TSC_KHZ,
				 (void *)(unsigned long)saved->tsc_khz)) {
			free_guest(guest);
			return -ERANGE;
		}
	}

	/* 6. */
	vm_ioctl(guest->vm, KVM_SET_CLOCK, &clock);

	/* 7. */
	*now = get_clock_and_tsc(guest->vm);
	if (policy == LIVE_UPDATE) {
		now->clock = saved->clock;
		now->host_tsc = saved->host_tsc;
	}

	/* 8. */
	elapsed = (u64)((__uint128_t)(now->clock - saved->clock) * saved->tsc_khz / 1000000);
	for (i = 0; i < nr_vcpus; i++) {
		offset = saved->tsc[i] + elapsed -
			 scale_host_tsc(guest->vcpus[i], now->host_tsc);
		vcpu_device_attr_set(guest->vcpus[i], KVM_VCPU_TSC_CTRL,
				     KVM_VCPU_TSC_OFFSET, &offset);
	}

	/* 9. */
	*exact = saved->has_clock_guest &&
		 !__vcpu_ioctl(guest->vcpus[0], KVM_SET_CLOCK_GUEST, &saved->clock_guest);
	TEST_ASSERT(*exact || !saved->has_clock_guest || errno == ENODATA || errno == ERANGE,
		    KVM_IOCTL_ERROR(KVM_SET_CLOCK_GUEST, -1));

	return 0;
}

/* --- what the guest and the test know about the source ----------------------------- */

struct source {
	struct pvclock_vcpu_time_info clock[NR_VCPUS];
	struct reading last[NR_VCPUS];
};

/* With different offsets, the order of the TSCs is not that of the vCPUs. */
static void set_different_offsets(struct guest *guest)
{
	u64 offset = get_tsc_offset(guest->vcpus[0]), own;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		own = offset + (7 * i + 3) % NR_VCPUS * 1000003;
		vcpu_device_attr_set(guest->vcpus[i], KVM_VCPU_TSC_CTRL,
				     KVM_VCPU_TSC_OFFSET, &own);
	}
}

static struct guest new_source(int nr_vcpus, bool different_offsets)
{
	struct guest guest = new_guest(nr_vcpus);

	if (different_offsets)
		set_different_offsets(&guest);
	run_all(&guest);
	return guest;
}

static void run_source(struct guest *guest, struct source *source)
{
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		source->last[i] = run_vcpu(guest->vcpus[i]);
}

static struct source look_at_source(struct guest *guest)
{
	struct source source;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		vcpu_ioctl(guest->vcpus[i], KVM_GET_CLOCK_GUEST, &source.clock[i]);
	run_source(guest, &source);
	return source;
}

/* --- what must be so in the destination --------------------------------------------- */

struct destination {
	struct guest guest;
	struct kvm_clock_data now;
	bool exact;
};

/* What the host's clocks say about a moment. */
struct moment {
	u64 tsc;
	u64 realtime;
};

static struct moment get_moment(void)
{
	return (struct moment){ .tsc = rdtsc(), .realtime = get_realtime() };
}

/*
 * KVM_SET_CLOCK adds the time since the clock was saved, if it is asked to, and then
 * the clock goes on as the TSC does until KVM_GET_CLOCK.  Both were called between
 * @start and @end.
 */
static void assert_elapsed(struct destination *dst, const struct saved_vm *saved,
			   enum policy policy, const struct moment *start)
{
	struct kvm_vcpu *vcpu = dst->guest.vcpus[0];
	u64 elapsed = dst->now.clock - saved->clock, min = 0, max = 0;
	struct pvclock_vcpu_time_info clock;
	struct moment end = get_moment();

	if (policy != LIVE_UPDATE) {
		vcpu_ioctl(vcpu, KVM_GET_CLOCK_GUEST, &clock);
		max = cycles_to_ns(&clock, scale_host_tsc(vcpu, end.tsc) -
					   scale_host_tsc(vcpu, start->tsc));
	}
	if (policy == TIME_GOES_ON) {
		min += start->realtime - saved->realtime;
		max += end.realtime - saved->realtime;
	}
	TEST_ASSERT(elapsed >= min && elapsed <= max,
		    "The clock went on by %lu ns, not by %lu to %lu ns", elapsed, min, max);
}

/* The vCPU's TSC when it was set. */
static u64 get_predicted_tsc(const struct destination *dst, const struct saved_vm *saved, int id)
{
	return saved->tsc[id] + (dst->now.clock - saved->clock) * saved->tsc_khz / 1000000;
}

/* To the cycle: the ratio and the offset say it for all values of the host's TSC. */
static void assert_tscs(struct destination *dst, const struct saved_vm *saved)
{
	struct guest *guest = &dst->guest;
	struct reading reading;
	struct tsc_scale tsc;
	u64 start, end;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		tsc = get_tsc_scale(guest->vcpus[i]);
		TEST_ASSERT_EQ(tsc_at(&tsc, dst->now.host_tsc), get_predicted_tsc(dst, saved, i));

		start = rdtsc();
		reading = run_vcpu(guest->vcpus[i]);
		end = rdtsc();
		TEST_ASSERT(reading.tsc >= tsc_at(&tsc, start) &&
			    reading.tsc <= tsc_at(&tsc, end),
			    "vCPU %d's TSC is %#lx, not within %#lx and %#lx", i,
			    reading.tsc, tsc_at(&tsc, start), tsc_at(&tsc, end));
	}
}

/* No vCPU sees its TSC go back, and none a clock that is behind what any has seen. */
static void assert_order(struct guest *guest, const struct source *source)
{
	struct reading reading;
	u64 latest = 0;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		latest = max(latest, source->last[i].ns);

	for (i = 0; i < guest->nr_vcpus; i++) {
		reading = run_vcpu(guest->vcpus[i]);
		TEST_ASSERT(reading.tsc > source->last[i].tsc,
			    "vCPU %d's TSC goes back from %#lx to %#lx", i,
			    source->last[i].tsc, reading.tsc);
		TEST_ASSERT(reading.ns >= latest, "vCPU %d's clock goes back by %lu ns",
			    i, latest - reading.ns);
		latest = reading.ns;
	}
}

/* At the same value of the host's TSC all have the same clock. */
static void assert_one_clock(struct guest *guest)
{
	struct tsc_scale tsc, first_tsc = get_tsc_scale(guest->vcpus[0]);
	struct pvclock_vcpu_time_info clock, first_clock;
	u64 host_tsc, end = rdtsc() + NR_TSC_VALUES;
	int i;

	vcpu_ioctl(guest->vcpus[0], KVM_GET_CLOCK_GUEST, &first_clock);
	for (i = 1; i < guest->nr_vcpus; i++) {
		tsc = get_tsc_scale(guest->vcpus[i]);
		vcpu_ioctl(guest->vcpus[i], KVM_GET_CLOCK_GUEST, &clock);
		for (host_tsc = end - NR_TSC_VALUES; host_tsc < end; host_tsc++)
			assert_at(host_tsc, clock_at(&first_clock, tsc_at(&first_tsc, host_tsc)),
				  clock_at(&clock, tsc_at(&tsc, host_tsc)), "A vCPU's clock");
	}
}

static bool is_same_rate(const struct pvclock_vcpu_time_info *a,
			 const struct pvclock_vcpu_time_info *b)
{
	return a->tsc_to_system_mul == b->tsc_to_system_mul && a->tsc_shift == b->tsc_shift;
}

/*
 * Each vCPU has its old clock, for the host and for the guest.  If the TSC has another
 * rate here, its clock has the old value when it was set, and that is its reference.
 */
static void assert_clocks(struct guest *guest, const struct source *source)
{
	const struct pvclock_vcpu_time_info *old, *page;
	struct pvclock_vcpu_time_info clock;
	u64 tsc;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		old = &source->clock[i];
		clock = __get_clock_guest(guest->vcpus[i], old->flags);
		tsc = run_vcpu(guest->vcpus[i]).tsc;

		if (is_same_rate(old, &clock))
			assert_same_function(old, &clock, tsc, "The clock");
		else
			assert_at(clock.tsc_timestamp, clock_at(old, clock.tsc_timestamp),
				  clock.system_time, "The clock at another rate");

		page = guest_copy(guest, pvti[i]);
		assert_same_function(&clock, page, tsc, "The guest's page");
		TEST_ASSERT_EQ(page->flags, old->flags);
	}
}

static void assert_exact(struct destination *dst, const struct source *source,
			 const struct saved_vm *saved)
{
	TEST_ASSERT(dst->exact, "KVM_SET_CLOCK_GUEST failed");
	assert_order(&dst->guest, source);
	assert_tscs(dst, saved);
	assert_clocks(&dst->guest, source);
	assert_one_clock(&dst->guest);
}

/* --- tests ---------------------------------------------------------------------------- */

static void let_time_pass(void)
{
	u64 start = get_realtime();

	while (get_realtime() - start < NSEC_PER_SEC / 1000)
		;
}

static struct destination restore(const struct saved_vm *saved, enum policy policy)
{
	struct destination dst;
	struct moment start;
	int r;

	let_time_pass();
	start = get_moment();
	r = restore_vm(saved, saved->nr_vcpus, policy, &dst.guest, &dst.now, &dst.exact);
	TEST_ASSERT(!r, "The VM was refused: %d", r);
	if (dst.now.flags & KVM_CLOCK_HOST_TSC)
		assert_elapsed(&dst, saved, policy, &start);
	return dst;
}

static void test_migration(int nr_vcpus, bool different_offsets, enum policy policy)
{
	struct guest guest = new_source(nr_vcpus, different_offsets);
	struct source source = look_at_source(&guest);
	struct saved_vm saved = save_vm(&guest);
	struct destination dst;

	free_guest(&guest);
	dst = restore(&saved, policy);
	assert_exact(&dst, &source, &saved);
	free_guest(&dst.guest);
}

/* The last VM has the clock of the first one. */
static void test_hops(void)
{
	struct destination dst = { .guest = new_source(2, true) };
	struct source first = look_at_source(&dst.guest);
	struct saved_vm saved;
	int i;

	for (i = 0; i < NR_HOPS; i++) {
		saved = save_vm(&dst.guest);
		free_guest(&dst.guest);
		dst = restore(&saved, i % 2 ? TIME_GOES_ON : TIME_STANDS_STILL);
		assert_exact(&dst, &first, &saved);
	}
	free_guest(&dst.guest);
}

/*
 * There is but one host.  That the destination's TSC is 100 ppm slower is pretended by
 * asking for a rate that is as much higher: within what KVM tolerates.  Where it scales
 * the TSC, it has that rate, and the clock goes on at it.
 */
static void test_other_frequency(enum policy policy)
{
	struct guest guest = new_source(2, true);
	struct source source = look_at_source(&guest);
	struct saved_vm saved = save_vm(&guest);
	struct destination dst;

	free_guest(&guest);
	saved.tsc_khz += saved.tsc_khz / 10000;
	dst = restore(&saved, policy);
	assert_exact(&dst, &source, &saved);
	free_guest(&dst.guest);
}

/* The clock is what KVM_SET_CLOCK made it, and the TSCs are what they should be. */
static void assert_fell_back(struct destination *dst, const struct source *source,
			     const struct saved_vm *saved)
{
	TEST_ASSERT(!dst->exact, "KVM_SET_CLOCK_GUEST succeeded");
	assert_order(&dst->guest, source);
	assert_tscs(dst, saved);
}

static void test_no_master_clock(bool in_source, bool in_destination)
{
	char other[1][MAX_CLOCKSOURCE];
	struct guest guest = new_source(2, false);
	struct source source = look_at_source(&guest);
	struct destination dst;
	struct saved_vm saved;

	TEST_ASSERT(get_other_clocksources(other, 1), "The TSC is the only clocksource");
	if (in_source)
		set_clocksource(other[0]);
	run_source(&guest, &source);
	saved = save_vm(&guest);
	TEST_ASSERT_EQ(saved.has_clock_guest, !in_source);
	free_guest(&guest);

	set_clocksource(in_destination ? other[0] : "tsc");
	dst = restore(&saved, TIME_GOES_ON);
	TEST_ASSERT_EQ(!(dst.now.flags & KVM_CLOCK_TSC_STABLE), in_destination);
	assert_fell_back(&dst, &source, &saved);
	set_clocksource("tsc");
	free_guest(&dst.guest);
}

static void test_source_without_master_clock(void)
{
	test_no_master_clock(true, false);
}

static void test_destination_without_master_clock(void)
{
	test_no_master_clock(false, true);
}

/* The clock that was saved is for a TSC of half the rate. */
static void test_rate_out_of_tolerance(void)
{
	struct guest guest = new_source(2, false);
	struct source source = look_at_source(&guest);
	struct saved_vm saved = save_vm(&guest);
	struct pvclock_vcpu_time_info clock;
	struct destination dst;
	u64 tsc;

	free_guest(&guest);
	saved.clock_guest.tsc_shift++;
	dst = restore(&saved, TIME_STANDS_STILL);
	clock = get_clock_guest(dst.guest.vcpus[0]);
	tsc = get_predicted_tsc(&dst, &saved, 0);
	assert_at(tsc, dst.now.clock, clock_at(&clock, tsc), "The clock");
	assert_fell_back(&dst, &source, &saved);
	free_guest(&dst.guest);
}

static void assert_refused(const struct saved_vm *saved, int nr_vcpus, int err)
{
	struct destination dst;
	int r;

	r = restore_vm(saved, nr_vcpus, TIME_GOES_ON, &dst.guest, &dst.now, &dst.exact);
	TEST_ASSERT_EQ(r, err);
}

/* Too slow without TSC scaling, too fast with it. */
static void test_impossible_rate(void)
{
	struct guest guest = new_source(1, false);
	struct saved_vm saved = save_vm(&guest);

	free_guest(&guest);
	saved.tsc_khz = kvm_has_cap(KVM_CAP_TSC_CONTROL) ? UINT32_MAX : saved.tsc_khz / 2;
	assert_refused(&saved, saved.nr_vcpus, -ERANGE);
}

static void test_other_number_of_vcpus(void)
{
	struct guest guest = new_source(2, false);
	struct saved_vm saved = save_vm(&guest);

	free_guest(&guest);
	assert_refused(&saved, 1, -EINVAL);
	assert_refused(&saved, 3, -EINVAL);
}

static const struct {
	const char *name;
	int nr_vcpus;
	bool different_offsets;
} vms[] = {
	{ "1 vCPU", 1 },
	{ "2 vCPUs", 2 },
	{ "2 vCPUs with different offsets", 2, true },
	{ "16 vCPUs", 16 },
	{ "16 vCPUs with different offsets", 16, true },
};

static const char * const policies[] = {
	[TIME_GOES_ON] = "time goes on",
	[TIME_STANDS_STILL] = "time stands still",
	[LIVE_UPDATE] = "live update",
};

static void run_at_rate(const char *rate)
{
	int vm, policy;

	for (policy = 0; policy < ARRAY_SIZE(policies); policy++) {
		for (vm = 0; vm < ARRAY_SIZE(vms); vm++) {
			test_migration(vms[vm].nr_vcpus, vms[vm].different_offsets, policy);
			ksft_test_result_pass("%s, %s, %s\n", rate, policies[policy],
					      vms[vm].name);
		}
		test_other_frequency(policy);
		ksft_test_result_pass("%s, %s, another host frequency\n", rate,
				      policies[policy]);
	}
	test_hops();
	ksft_test_result_pass("%s, %d migrations in a row\n", rate, NR_HOPS);
}

static const struct test failures[] = {
	{ "the destination has no master clock", test_destination_without_master_clock },
	{ "the source has no master clock", test_source_without_master_clock },
	{ "the rate is out of tolerance", test_rate_out_of_tolerance },
	{ "the rate is impossible", test_impossible_rate },
	{ "another number of vCPUs", test_other_number_of_vcpus },
};

int main(void)
{
	int nr_rates = get_nr_tsc_rates(), rate, i;

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(is_clocksource("tsc"));

	ksft_print_header();
	ksft_set_plan(nr_rates * (ARRAY_SIZE(policies) * (ARRAY_SIZE(vms) + 1) + 1) +
		      ARRAY_SIZE(failures));

	for (rate = 0; rate < nr_rates; rate++) {
		set_tsc_rate(rate);
		run_at_rate(tsc_rates[rate].name);
	}
	set_tsc_rate(0);
	for (i = 0; i < ARRAY_SIZE(failures); i++) {
		run_tests("", &failures[i], 1);
		set_clocksource("tsc");
	}
	ksft_finished();
}
