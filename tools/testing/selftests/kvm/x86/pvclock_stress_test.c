// SPDX-License-Identifier: GPL-2.0
/*
 * Test KVM_GET_CLOCK_GUEST and KVM_SET_CLOCK_GUEST with much of everything: with
 * running vCPUs, with many vCPUs, and many times in a row.  The clock is the
 * same function of the TSC all the time.
 */
#include <getopt.h>
#include <pthread.h>
#include <time.h>

#include "pvclock_test.h"

#define NR_RUNNING	4
#define NR_SETTERS	2
#define NR_STRESS_VCPUS	(NR_RUNNING + NR_SETTERS)
#define MIN_READINGS	1000
#define MIN_SETS	100
#define NR_FREEING	16

static int stress_seconds = 30;
static int nr_hops = 10000;

/* --- running vCPUs ------------------------------------------------------------ */

/* Shared with the guest. */
static struct pvclock_vcpu_time_info expected;
static u64 latest;
static u64 nr_readings[NR_STRESS_VCPUS];
static bool stop;

/* As guests do: a page that changes while it is read is read again. */
static struct reading guest_read_clock(const struct pvclock_vcpu_time_info *page)
{
	struct reading reading;
	unsigned int version;

	do {
		version = pvclock_read_begin(page);
		reading.tsc = rdtsc();
		reading.ns = __pvclock_read_cycles(page, reading.tsc);
	} while (pvclock_read_retry(page, version));

	return reading;
}

/* The latest reading of all vCPUs, which only grows. */
static void guest_publish(u64 ns)
{
	u64 old = READ_ONCE(latest);

	while (old < ns && !__atomic_compare_exchange_n(&latest, &old, ns, false,
							__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/*
 * A guest may read any vCPU's page.  KVM writes a vCPU's own page while that
 * vCPU is not in the guest, so only another vCPU can see it half-written.
 * The other vCPUs' latest reading is read before the TSC, which rdtsc() sees to.
 */
static void guest_stress(int id)
{
	struct reading now, last = {};
	int from = id;
	u64 others;

	guest_enable_clock(id);
	GUEST_SYNC_ARGS(0, 0, 0, 0, 0);

	while (!READ_ONCE(stop)) {
		others = READ_ONCE(latest);
		now = guest_read_clock(&pvti[from]);
		__GUEST_ASSERT(now.ns >= last.ns, "vCPU %u steps back by %lu ns",
			       id, last.ns - now.ns);
		__GUEST_ASSERT(now.ns >= others, "vCPU %u is behind another one by %lu ns",
			       id, others - now.ns);
		__GUEST_ASSERT(now.ns == clock_at(&expected, now.tsc),
			       "vCPU %u is off by %ld ns at TSC %#lx", id,
			       now.ns - clock_at(&expected, now.tsc), now.tsc);
		guest_publish(now.ns);
		WRITE_ONCE(nr_readings[id], nr_readings[id] + 1);
		last = now;
		from = (from + 1) % NR_RUNNING;
	}

	guest_main(id);
}

static void *run_once(void *vcpu)
{
	run_vcpu(vcpu);
	return NULL;
}

struct setter {
	struct kvm_vcpu *vcpu;
	pthread_t thread;
	u64 nr_sets;
};

static bool setters_stop;

/*
 * The same function with a reference that is @n periods earlier.  A period is the
 * least number of cycles that is a whole number of ns and that the shift to the
 * right loses nothing of: cycles * mul / 2^(32 - shift) with all factors of 2 in
 * mul cancelled.
 */
static struct pvclock_vcpu_time_info earlier_reference(struct pvclock_vcpu_time_info clock,
						       u64 n)
{
	int factors = __builtin_ctz(clock.tsc_to_system_mul);
	int bits = 32 - factors - clock.tsc_shift;

	TEST_ASSERT(bits >= 0 && bits < 40, "A period of 2^%d cycles", bits);
	clock.tsc_timestamp -= n * BIT_ULL(bits);
	clock.system_time -= n * (clock.tsc_to_system_mul >> factors);
	return clock;
}

/*
 * Sets the clock to what GET returned, and to the same with other references, so
 * that two halves of two pages make a wrong clock.  A vCPU that runs can't be used
 * for ioctls: these are on one that does not.
 */
static void *set_again_and_again(void *arg)
{
	struct pvclock_vcpu_time_info clock;
	struct setter *setter = arg;

	while (!READ_ONCE(setters_stop)) {
		clock = get_clock_guest(setter->vcpu);
		assert_same_function(&expected, &clock, get_tsc(setter->vcpu), "GET");
		set_clock_guest(setter->vcpu, &clock);
		clock = earlier_reference(expected, setter->nr_sets % 8);
		set_clock_guest(setter->vcpu, &clock);
		WRITE_ONCE(setter->nr_sets, setter->nr_sets + 1);
	}

	return NULL;
}

static bool did_enough(struct guest *guest, struct setter *setters)
{
	u64 *readings = guest_copy(guest, nr_readings)[0];
	int i;

	for (i = 0; i < NR_RUNNING; i++) {
		if (READ_ONCE(readings[i]) < MIN_READINGS)
			return false;
	}
	for (i = 0; i < NR_SETTERS; i++) {
		if (READ_ONCE(setters[i].nr_sets) < MIN_SETS)
			return false;
	}
	return true;
}

static struct timespec get_monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts;
}

/* The time says how long to go on, and nothing about the result. */
static void wait_for_stress(struct guest *guest, struct setter *setters)
{
	struct timespec start = get_monotonic();

	while (timespec_to_ns(timespec_sub(get_monotonic(), start)) <
	       stress_seconds * NSEC_PER_SEC || !did_enough(guest, setters))
		usleep(10000);
}

static void test_running_vcpus(void)
{
	struct guest guest = __new_guest(NR_STRESS_VCPUS, NR_STRESS_VCPUS, guest_stress);
	struct setter setters[NR_SETTERS] = {};
	u64 *readings = guest_copy(&guest, nr_readings)[0];
	pthread_t threads[NR_RUNNING];
	int i;

	for (i = 0; i < NR_RUNNING; i++)
		run_vcpu(guest.vcpus[i]);
	expected = get_clock_guest(guest.vcpus[0]);
	sync_global_to_guest(guest.vm, expected);

	for (i = 0; i < NR_RUNNING; i++)
		pthread_create(&threads[i], NULL, run_once, guest.vcpus[i]);
	for (i = 0; i < NR_SETTERS; i++) {
		setters[i].vcpu = guest.vcpus[NR_RUNNING + i];
		pthread_create(&setters[i].thread, NULL, set_again_and_again, &setters[i]);
	}

	wait_for_stress(&guest, setters);

	WRITE_ONCE(setters_stop, true);
	for (i = 0; i < NR_SETTERS; i++) {
		pthread_join(setters[i].thread, NULL);
		ksft_print_msg("thread %d: %lu SETs\n", i, setters[i].nr_sets);
	}
	stop = true;
	sync_global_to_guest(guest.vm, stop);
	for (i = 0; i < NR_RUNNING; i++) {
		pthread_join(threads[i], NULL);
		ksft_print_msg("vCPU %d: %lu readings\n", i, readings[i]);
	}

	guest.nr_vcpus = NR_RUNNING;
	assert_guest_clock(&guest, &expected);
	free_guest(&guest);
}

/* --- many vCPUs --------------------------------------------------------------- */

/*
 * Each vCPU has a request for an update of the master clock pending from its
 * creation until it runs.  @nr_run of them run before SET, the others after it.
 */
static void set_with_requests(int nr_run)
{
	struct guest guest = new_guest(1);
	struct saved_clock saved;
	int i;

	run_all(&guest);
	saved = save_clock(guest.vcpus[0]);
	saved.clock.system_time += NSEC_PER_SEC;
	free_guest(&guest);

	guest = new_guest(MAX_VCPUS);
	set_tsc_offset(&guest, saved.tsc_offset);
	for (i = 0; i < nr_run; i++)
		run_vcpu(guest.vcpus[i]);
	set_clock_guest(guest.vcpus[MAX_VCPUS - 1], &saved.clock);
	assert_guest_clock(&guest, &saved.clock);
	free_guest(&guest);
}

static void test_requests_on_all(void)
{
	set_with_requests(0);
}

static void test_request_on_one(void)
{
	set_with_requests(MAX_VCPUS - 1);
}

static void test_requests_on_half(void)
{
	set_with_requests(MAX_VCPUS / 2);
}

/* The vCPUs run for the first time while SET is called. */
static void test_requests_during_set(void)
{
	struct guest guest = new_guest(MAX_VCPUS);
	pthread_t threads[MAX_VCPUS - 1];
	int i;

	expected = get_clock_guest(guest.vcpus[0]);
	for (i = 0; i < MAX_VCPUS - 1; i++) {
		pthread_create(&threads[i], NULL, run_once, guest.vcpus[i]);
		set_clock_guest(guest.vcpus[MAX_VCPUS - 1], &expected);
	}
	for (i = 0; i < MAX_VCPUS - 1; i++)
		pthread_join(threads[i], NULL);
	assert_guest_clock(&guest, &expected);
	free_guest(&guest);
}

/* --- many times ---------------------------------------------------------------- */

static void *free_vm(void *vm)
{
	kvm_vm_free(vm);
	return NULL;
}

/* Freeing a VM is mostly waiting for RCU: several at a time wait no longer. */
static void free_in_background(struct kvm_vm *vm)
{
	static pthread_t threads[NR_FREEING];
	static int nr_freed;
	pthread_t *thread = &threads[nr_freed++ % NR_FREEING];

	if (nr_freed > NR_FREEING)
		pthread_join(*thread, NULL);
	pthread_create(thread, NULL, free_vm, vm);
}

/* Without memory and a guest: making such VMs is fast. */
static struct guest new_empty_guest(void)
{
	struct guest guest = { .vm = vm_create_barebones(), .nr_vcpus = 1 };

	guest.vcpus[0] = __vm_vcpu_add(guest.vm, 0);
	return guest;
}

/*
 * Each hop restores in a new VM what was saved in the one before it, every other
 * one with the TSC moved on as for a migration.  The function never changes.
 */
static void test_hops(void)
{
	struct guest guest = new_empty_guest();
	struct saved_clock saved, now;
	int hop;

	saved = save_clock(guest.vcpus[0]);
	expected = saved.clock;
	for (hop = 1; hop <= nr_hops; hop++) {
		free_in_background(guest.vm);
		guest = hop < nr_hops ? new_empty_guest() : new_guest(1);
		set_tsc_offset(&guest, saved.tsc_offset + (hop % 2 ? 123456789 : 0));
		set_clock_guest(guest.vcpus[0], &saved.clock);
		now = save_clock(guest.vcpus[0]);
		assert_same_function(&expected, &now.clock, get_tsc(guest.vcpus[0]), "GET");
		saved = now;
		if (hop % 1000 == 0)
			ksft_print_msg("hop %d\n", hop);
	}
	assert_guest_clock(&guest, &expected);
	free_guest(&guest);
}

static const struct test tests[] = {
	{ "GET and SET with running vCPUs", test_running_vcpus },
	{ "SET with requests pending on all of 64 vCPUs", test_requests_on_all },
	{ "SET with requests pending on half of 64 vCPUs", test_requests_on_half },
	{ "SET with a request pending on one of 64 vCPUs", test_request_on_one },
	{ "SET while 64 vCPUs process their requests", test_requests_during_set },
	{ "hops, each into a new VM", test_hops },
};

static void usage(const char *name)
{
	printf("Usage: %s [-t seconds] [-h hops]\n"
	       " -t: how long to set the clock of running vCPUs (default %d)\n"
	       " -h: how many times to restore in a new VM (default %d)\n",
	       name, stress_seconds, nr_hops);
}

int main(int argc, char *argv[])
{
	int opt;

	while ((opt = getopt(argc, argv, "t:h:")) != -1) {
		switch (opt) {
		case 't':
			stress_seconds = atoi_positive("Seconds", optarg);
			break;
		case 'h':
			nr_hops = atoi_positive("Hops", optarg);
			break;
		default:
			usage(argv[0]);
			exit(KSFT_FAIL);
		}
	}

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(sys_clocksource_is_based_on_tsc());

	ksft_print_header();
	ksft_set_plan(ARRAY_SIZE(tests));
	run_tests("", tests, ARRAY_SIZE(tests));
	ksft_finished();
}
