// SPDX-License-Identifier: GPL-2.0
/*
 * Test that the guest's clock (kvmclock) goes on when the VM leaves master clock
 * mode, because the host's clocksource is not the TSC any more, and when it
 * enters it again.  This changes the host's clocksource.
 *
 * Out of that mode the clock is one of the host's, CLOCK_MONOTONIC_RAW, plus an
 * offset, and each vCPU's page has a reference that was read from it and from the
 * TSC.  KVM can't read the two at once, and so can't do better than that the clock
 * does not go back, and steps forward by the time between the two readings.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "pvclock_test.h"

#define MAX_RUNNING	4
#define NR_TRIPS	2
#define AHEAD		(1000 * NSEC_PER_SEC)

/* The clocksource to use instead of the TSC, and what makes the TSC unstable. */
static char other_clocksource[MAX_CLOCKSOURCE];
static const char *unstable_file;

/*
 * The vCPUs that run.  Only one if the TSC is found unstable: as soon as it is, KVM
 * stops the TSC of vCPUs that have to wait for a CPU, and what the clock loses when
 * it leaves is hidden by that.
 */
static int nr_running = MAX_RUNNING;

/* --- the guest ------------------------------------------------------------------ */

/* Shared with the guest. */
static struct watch {
	u64 nr_readings;
	u64 nr_left;
	u64 nr_entered;
	u64 ns;
} watches[MAX_RUNNING];
static bool stop;
static bool tsc_is_unstable;

/* As guests do: a page that changes while it is read is read again. */
static struct reading guest_read_clock(struct pvclock_vcpu_time_info *page,
				       struct pvclock_vcpu_time_info *copy)
{
	struct reading reading;
	unsigned int version;

	do {
		version = pvclock_read_begin(page);
		*copy = *page;
		reading.tsc = rdtsc();
	} while (pvclock_read_retry(page, version));

	reading.ns = clock_at(copy, reading.tsc);
	return reading;
}

/*
 * The last reading of F, and the first one after KVM has left master clock mode.
 *
 * The clock goes on from F, and is at the reference of this vCPU not behind what the
 * VM's last reference gives.  Each reference loses less than 2 ns, and there are not
 * more than one in 200 ns.
 *
 * KVM has read the host's clock and the TSC, one after the other, for the offset and
 * for references.  So the clock can step forward by the time in between, which is
 * no more than has passed since the last reading.  The host's clock and the TSC have
 * the same rate within 1 %, or the TSC is faster, see assert_goes_on().
 */
static void guest_assert_goes_on(int id, const struct pvclock_vcpu_time_info *clock,
				 const struct reading *last, const struct reading *now)
{
	u64 passed = cycles_to_ns(clock, now->tsc - last->tsc);
	u64 step = now->ns - last->ns;

	__GUEST_ASSERT(step + passed / 100 + 6 >= passed,
		       "Leaving, vCPU %d's clock loses %lu of %lu ns", id,
		       passed - step, passed);
	__GUEST_ASSERT(step <= 2 * passed + passed / 100 + 6,
		       "Leaving, vCPU %d's clock steps forward by %lu ns in %lu ns", id,
		       step - passed, passed);
}

/*
 * Reads its clock without pause, over all that the host does.  If the TSC is found
 * unstable, then until it has left: after that, KVM steps the guest's TSC.
 */
static void guest_watch(int id)
{
	struct pvclock_vcpu_time_info page = {}, last_page = {};
	struct watch *watch = &watches[id];
	struct reading now, last = {};

	guest_enable_clock(id);

	while (!READ_ONCE(stop)) {
		now = guest_read_clock(&pvti[id], &page);
		__GUEST_ASSERT(now.ns >= last.ns,
			       "vCPU %d's clock goes back by %lu ns, flags %#x to %#x",
			       id, last.ns - now.ns, last_page.flags, page.flags);

		if (last_page.flags && !page.flags) {
			WRITE_ONCE(watch->nr_left, watch->nr_left + 1);
			if (READ_ONCE(tsc_is_unstable))
				break;
			guest_assert_goes_on(id, &page, &last, &now);
		} else if (watch->nr_left && !last_page.flags && page.flags) {
			WRITE_ONCE(watch->nr_entered, watch->nr_entered + 1);
		}
		WRITE_ONCE(watch->ns, now.ns);
		WRITE_ONCE(watch->nr_readings, watch->nr_readings + 1);
		last = now;
		last_page = page;
	}

	guest_main(id);
}

/* --- running vCPUs ---------------------------------------------------------------- */

static struct kvm_vcpu *spare_vcpu(struct guest *guest)
{
	return guest->vcpus[nr_running];
}

static void assert_enodata(struct guest *guest)
{
	struct pvclock_vcpu_time_info clock = {
		.tsc_to_system_mul = 1,
		.flags = PVCLOCK_TSC_STABLE_BIT,
	};

	assert_fails(spare_vcpu(guest), KVM_SET_CLOCK_GUEST, &clock, ENODATA);
	assert_fails(spare_vcpu(guest), KVM_GET_CLOCK_GUEST, &clock, ENODATA);
}

/*
 * A clock that nothing but an offset that KVM keeps can explain.  A vCPU that runs
 * can't be used for ioctls: there is a spare one, which does not run.
 */
static struct pvclock_vcpu_time_info set_ahead(struct guest *guest)
{
	struct pvclock_vcpu_time_info clock = get_clock_guest(spare_vcpu(guest));

	clock.system_time += AHEAD;
	set_clock_guest(spare_vcpu(guest), &clock);
	return clock;
}

static bool all_vcpus(struct guest *guest, bool (*did)(struct watch *watch, u64 value),
		      u64 value)
{
	int i;

	for (i = 0; i < nr_running; i++) {
		if (!did(guest_copy(guest, watches[i]), value))
			return false;
	}
	return true;
}

static bool has_left(struct watch *watch, u64 value)
{
	return READ_ONCE(watch->nr_left) >= value;
}

static bool has_entered(struct watch *watch, u64 value)
{
	return READ_ONCE(watch->nr_entered) >= value;
}

static bool has_read(struct watch *watch, u64 value)
{
	return READ_ONCE(watch->ns) >= value;
}

static void wait_for_vcpus(struct guest *guest,
			   bool (*did)(struct watch *watch, u64 value), u64 value)
{
	while (!all_vcpus(guest, did, value))
		usleep(1000);
}

/* Let the TSC, the host's clocksource and the clock drift apart. */
static void let_pass(struct guest *guest, u64 ns)
{
	u64 start = READ_ONCE(guest_copy(guest, watches[0])->ns);

	wait_for_vcpus(guest, has_read, start + ns);
}

static bool mover_stops;

static int next_cpu(const cpu_set_t *cpus, int cpu)
{
	do {
		cpu = (cpu + 1) % CPU_SETSIZE;
	} while (!CPU_ISSET(cpu, cpus));

	return cpu;
}

/* Moves this process's threads between the CPUs that it may use. */
static void *move_threads(void *threads)
{
	int start = 0, cpu, i;
	cpu_set_t all, one;

	TEST_ASSERT(!sched_getaffinity(0, sizeof(all), &all), "Can't get the CPUs");

	while (!READ_ONCE(mover_stops)) {
		start = next_cpu(&all, start);
		cpu = start;
		for (i = 0; i < nr_running; i++) {
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			pthread_setaffinity_np(((pthread_t *)threads)[i], sizeof(one), &one);
			cpu = next_cpu(&all, cpu);
		}
		usleep(1000);
	}

	return NULL;
}

static void *run_once(void *vcpu)
{
	run_vcpu(vcpu);
	return NULL;
}

static void start_vcpus(struct guest *guest, pthread_t *threads)
{
	int i;

	for (i = 0; i < nr_running; i++)
		pthread_create(&threads[i], NULL, run_once, guest->vcpus[i]);
	let_pass(guest, 1);
}

static void stop_vcpus(struct guest *guest, pthread_t *threads)
{
	int i;

	stop = true;
	sync_global_to_guest(guest->vm, stop);
	for (i = 0; i < nr_running; i++)
		pthread_join(threads[i], NULL);
}

/* --- the trip --------------------------------------------------------------------- */

/* The VM at the start of the trip, when the clock is still F. */
struct trip {
	struct pvclock_vcpu_time_info clock;	/* F */
	u64 tsc_offset;
	u64 start_tsc;
	u64 start_raw_ns;
};

/* The guest's TSC, not through KVM: KVM steps that one if it is unstable. */
static u64 trip_tsc(const struct trip *trip)
{
	return rdtsc() + trip->tsc_offset;
}

static struct trip begin_trip(struct guest *guest)
{
	struct trip trip = {
		.clock = get_clock_guest(spare_vcpu(guest)),
		.tsc_offset = get_tsc_offset(spare_vcpu(guest)),
	};

	let_pass(guest, NSEC_PER_SEC);
	trip.start_tsc = trip_tsc(&trip);
	trip.start_raw_ns = get_raw_ns();
	return trip;
}

/*
 * The clock is @ns at some time between @raw_ns of CLOCK_MONOTONIC_RAW and now.
 *
 * Until it left it went at the rate of the TSC, then at the rate of that clock or of
 * the TSC.  The TSC is slower by at most 1 %: the kernel does not take the rate for
 * it that it measures with that clock else.  It can be faster by more, where it is
 * emulated and several CPUs read it at once.  So since the start the clock has gone
 * on by as much as CLOCK_MONOTONIC_RAW, within 1 %, or more, and by no more than the
 * TSC, within 1 %, and the steps of guest_assert_goes_on(), which are no longer than
 * the time that has passed.  Leaving, entering and reading lose less than 2 ns each.
 */
static void assert_goes_on(const struct trip *trip, u64 raw_ns, u64 ns, const char *what)
{
	u64 passed = cycles_to_ns(&trip->clock, trip_tsc(trip) - trip->start_tsc);
	u64 start_ns = clock_at(&trip->clock, trip->start_tsc);
	u64 lo = start_ns + (raw_ns - trip->start_raw_ns) - passed / 100 - 6;
	u64 hi = start_ns + 2 * passed + passed / 100 + 6;

	TEST_ASSERT(ns >= lo && ns <= hi,
		    "%s, the clock is %lu ns, not within %lu and %lu ns, after %lu ns",
		    what, ns, lo, hi, passed);
}

static void assert_goes_on_out_of_mode(struct guest *guest, const struct trip *trip)
{
	struct kvm_clock_data data = {};
	u64 raw_ns = get_raw_ns();

	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT_EQ(data.flags & KVM_CLOCK_TSC_STABLE, 0);
	assert_goes_on(trip, raw_ns, data.clock, "Out of master clock mode");
}

/* What a vCPU has read, and told before the ioctl, is not later than its result. */
static void assert_get_clock_not_behind(struct guest *guest)
{
	struct kvm_clock_data data = {};
	u64 read[MAX_RUNNING];
	int i;

	for (i = 0; i < nr_running; i++)
		read[i] = READ_ONCE(guest_copy(guest, watches[i])->ns);

	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	for (i = 0; i < nr_running; i++)
		TEST_ASSERT(data.clock >= read[i],
			    "KVM_GET_CLOCK is behind vCPU %d's clock by %llu ns", i,
			    read[i] - data.clock);
}

static void assert_left(struct guest *guest, const struct trip *trip, int nr_left)
{
	wait_for_vcpus(guest, has_left, nr_left);
	assert_goes_on_out_of_mode(guest, trip);
	assert_enodata(guest);
}

static void enter(struct guest *guest, const struct trip *trip, int nr_entered)
{
	struct pvclock_vcpu_time_info clock;
	u64 raw_ns;

	set_clocksource("tsc");
	wait_for_vcpus(guest, has_entered, nr_entered);
	clock = get_clock_guest(spare_vcpu(guest));
	raw_ns = get_raw_ns();
	assert_goes_on(trip, raw_ns, clock_at(&clock, trip_tsc(trip)),
		       "In master clock mode again");
}

static void leave_and_enter(bool move)
{
	struct guest guest = __new_guest(nr_running + 1, nr_running + 1, guest_watch);
	struct pvclock_vcpu_time_info saved = set_ahead(&guest), clock;
	pthread_t threads[MAX_RUNNING], mover;
	struct trip trip;
	int i;

	start_vcpus(&guest, threads);
	if (move)
		pthread_create(&mover, NULL, move_threads, threads);

	for (i = 1; i <= NR_TRIPS; i++) {
		trip = begin_trip(&guest);
		set_clocksource(other_clocksource);
		assert_left(&guest, &trip, i);
		let_pass(&guest, NSEC_PER_SEC);
		assert_goes_on_out_of_mode(&guest, &trip);
		assert_get_clock_not_behind(&guest);
		enter(&guest, &trip, i);
	}
	let_pass(&guest, NSEC_PER_SEC);

	WRITE_ONCE(mover_stops, true);
	if (move)
		pthread_join(mover, NULL);
	stop_vcpus(&guest, threads);

	clock = get_clock_guest(spare_vcpu(&guest));
	assert_guest_clock(&guest, &clock);
	set_clock_guest(spare_vcpu(&guest), &saved);
	assert_guest_clock(&guest, &saved);
	free_guest(&guest);
}

static void test_running_vcpus(void)
{
	leave_and_enter(false);
}

static void test_moving_vcpus(void)
{
	leave_and_enter(true);
}

static void test_set_clock(void)
{
	struct guest guest = new_guest(nr_running);

	run_all(&guest);
	set_clocksource(other_clocksource);
	run_all(&guest);
	assert_set_clock_out_of_mode(&guest);
	set_clocksource("tsc");
	assert_set_clock_in_mode(&guest);
	free_guest(&guest);
}

/* The vCPU's clock is updated, and a signal keeps it from entering the guest. */
static void update_without_entry(struct guest *guest)
{
	struct {
		struct kvm_signal_mask head;
		u8 none[8];
	} mask = { .head.len = sizeof(mask.none) };
	struct kvm_vcpu *vcpu = guest->vcpus[0];
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	raise(SIGUSR1);
	vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, &mask.head);
	vcpu_set_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, get_pvti_gpa(0) | KVM_MSR_ENABLED);
	TEST_ASSERT(__vcpu_run(vcpu) && errno == EINTR, "KVM_RUN was not interrupted");

	vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, (struct kvm_signal_mask *)NULL);
	signal(SIGUSR1, SIG_IGN);	/* is not pending any more */
}

/*
 * For good: there is no way back but to boot the host.  From the moment on, KVM lets
 * the guest's TSC go on from the last value that it knows.
 */
static void test_unstable_tsc(void)
{
	struct guest guest, interrupted;
	pthread_t threads[MAX_RUNNING];
	struct reading before, after;
	struct trip trip;

	nr_running = 1;
	guest = __new_guest(nr_running + 1, nr_running + 1, guest_watch);
	interrupted = new_guest(1);
	tsc_is_unstable = true;
	sync_global_to_guest(guest.vm, tsc_is_unstable);

	run_all(&interrupted);
	set_ahead(&guest);
	start_vcpus(&guest, threads);
	trip = begin_trip(&guest);
	before = run_vcpu(interrupted.vcpus[0]);
	update_without_entry(&interrupted);

	write_word(unstable_file, "1");
	after = run_vcpu(interrupted.vcpus[0]);
	TEST_ASSERT(after.tsc >= before.tsc && after.ns >= before.ns,
		    "The guest's TSC and clock go back by %ld cycles, %ld ns",
		    before.tsc - after.tsc, before.ns - after.ns);

	assert_left(&guest, &trip, 1);
	stop_vcpus(&guest, threads);
	run_all(&guest);
	assert_goes_on_out_of_mode(&guest, &trip);
	assert_enodata(&guest);
	assert_set_clock_out_of_mode(&guest);
	assert_enodata(&guest);
	free_guest(&interrupted);
	free_guest(&guest);
}

static const struct test tests[] = {
	{ "the clock of running vCPUs goes on", test_running_vcpus },
	{ "the clock of vCPUs that move between CPUs goes on", test_moving_vcpus },
	{ "KVM_SET_CLOCK", test_set_clock },
};

static const struct test unstable_tests[] = {
	{ "the clock goes on, KVM_SET_CLOCK works", test_unstable_tsc },
};

static void test_other_clocksources(void)
{
	char names[MAX_OTHERS][MAX_CLOCKSOURCE], prefix[MAX_CLOCKSOURCE + 20];
	int nr = get_other_clocksources(names, MAX_OTHERS), i, j;

	if (!nr)
		ksft_exit_skip("The TSC is the only clocksource\n");

	ksft_set_plan(nr * ARRAY_SIZE(tests));
	for (i = 0; i < nr; i++) {
		memcpy(other_clocksource, names[i], sizeof(other_clocksource));
		snprintf(prefix, sizeof(prefix), "to %.31s and back: ", names[i]);
		for (j = 0; j < ARRAY_SIZE(tests); j++) {
			run_tests(prefix, &tests[j], 1);
			set_clocksource("tsc");
		}
	}
}

static void usage(const char *name)
{
	printf("Usage: %s [-u file]\n"
	       " -u: make the TSC unstable by a write to this file, for good, and\n"
	       "     test that instead of other clocksources\n", name);
}

int main(int argc, char *argv[])
{
	int opt;

	while ((opt = getopt(argc, argv, "u:")) != -1) {
		if (opt != 'u') {
			usage(argv[0]);
			exit(KSFT_FAIL);
		}
		unstable_file = optarg;
	}

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(is_clocksource("tsc"));

	ksft_print_header();
	if (unstable_file) {
		ksft_set_plan(ARRAY_SIZE(unstable_tests));
		run_tests("TSC found unstable: ", unstable_tests, ARRAY_SIZE(unstable_tests));
	} else {
		test_other_clocksources();
	}
	ksft_finished();
}
