// SPDX-License-Identifier: GPL-2.0
/*
 * Checks guest_clock.h with all combinations of edges, and then with random cases.
 *
 *	property SEED CASES [FIRST]
 *
 * Which case a number stands for depends on the seed alone, so a single one can be
 * checked again: CASES is 1 then, and FIRST its number.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"
#include "checks.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static u64 seed, nr_cases, first_case;
static struct tally *parts;	/* of the random cases, one for each process */
static unsigned int nr_parts;
static time_t started;

/* --- edges ---------------------------------------------------------------- */

static const u32 some_muls[] = {
	1, 3, (1U << 31) - 1, (1U << 31) + 1, UINT32_MAX - 1, 0xcccccccc, 0xaaaaaaaa,
};

static const u64 numbers[] = {
	0, 1, 2, (1ULL << 32) - 1, 1ULL << 32, (1ULL << 32) + 1, (1ULL << 33) - 1,
	(1ULL << 63) - 1, 1ULL << 63, (1ULL << 63) + 1, UINT64_MAX - 1, UINT64_MAX,
};

static const u64 tscs[] = { 0, 1, 1ULL << 32, 1ULL << 63, UINT64_MAX };

static bool check_bounds(struct clock_case *c, struct tally *tally)
{
	const u32 khz = rate_of(&c->clock);
	const u32 bounds[][2] = {
		{ 0, UINT32_MAX }, { khz, khz }, { khz + 1, UINT32_MAX }, { 0, khz - 1 },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bounds); i++) {
		c->min_khz = bounds[i][0];
		c->max_khz = bounds[i][1];
		if (!check_case(c, tally))
			return false;
	}
	return true;
}

/* The same rate, another mul, and another shift. */
static bool check_rates(struct clock_case *c, struct tally *tally)
{
	c->mul = c->clock.tsc_to_system_mul;
	c->shift = c->clock.tsc_shift;
	if (!check_bounds(c, tally))
		return false;
	c->mul ^= 1;
	if (!check_bounds(c, tally))
		return false;
	c->mul ^= 1;
	c->shift ^= 1;
	return check_bounds(c, tally);
}

static bool check_mul(u32 mul, struct tally *tally)
{
	struct clock_case c = { .clock.version = 6, .clock.system_time = UINT64_MAX };

	c.clock.tsc_to_system_mul = mul;
	for (int shift = -31; shift <= 31; shift++) {
		for (unsigned int i = 0; i < ARRAY_SIZE(tscs) * ARRAY_SIZE(numbers); i++) {
			c.tsc = tscs[i % ARRAY_SIZE(tscs)];
			c.other_tsc = ~c.tsc;
			c.clock.tsc_shift = shift;
			c.clock.tsc_timestamp = c.tsc - numbers[i / ARRAY_SIZE(tscs)];
			if (!check_rates(&c, tally))
				return false;
		}
	}
	return true;
}

/* Each value of each small field of an otherwise valid clock. */
static bool check_fields(struct tally *tally)
{
	const struct clock_case valid = {
		.clock = { .tsc_to_system_mul = 1U << 31 }, .mul = 1U << 31, .max_khz = UINT32_MAX,
	};

	for (int i = 0; i < 256; i++) {
		struct clock_case shift = valid, flags = valid, pad0 = valid, pad1 = valid;

		shift.clock.tsc_shift = i - 128;
		flags.clock.flags = i;
		pad0.clock.pad[0] = i;
		pad1.clock.pad[1] = i;
		if (!check_case(&shift, tally) || !check_case(&flags, tally) ||
		    !check_case(&pad0, tally) || !check_case(&pad1, tally))
			return false;
	}
	for (int bit = 0; bit < 32; bit++) {
		struct clock_case pad = valid;

		pad.clock.pad0 = 1U << bit;
		if (!check_case(&pad, tally))
			return false;
	}
	return true;
}

static bool check_edges(struct tally *tally)
{
	struct clock_case no_mul = { .mul = 1 };

	if (!check_case(&no_mul, tally) || !check_fields(tally))
		return false;
	for (unsigned int i = 0; i < ARRAY_SIZE(some_muls); i++)
		if (!check_mul(some_muls[i], tally))
			return false;
	/* Each number of zeros at the end, with a single bit and with all bits. */
	for (unsigned int zeros = 0; zeros < 32; zeros++)
		if (!check_mul(1U << zeros, tally) || !check_mul(UINT32_MAX << zeros, tally))
			return false;
	return true;
}

/* --- random cases --------------------------------------------------------- */

static u64 state;

/* SplitMix64: a counter, and a bijection that stirs it. */
static u64 next_state(void)
{
	u64 z = state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

u64 draw(unsigned int bits)
{
	return next_state() >> (64 - bits);
}

static bool check_random(u64 first, u64 end, struct tally *tally)
{
	for (u64 n = first; n < end; n++) {
		struct clock_case c;

		state = seed;
		state = next_state() + n;
		state = next_state();
		c = draw_case();
		if (!check_case(&c, tally)) {
			printf("  case %llu of seed %llu\n", (unsigned long long)n,
			       (unsigned long long)seed);
			return false;
		}
	}
	return true;
}

/* --- processes ------------------------------------------------------------ */

/* Each checks a share, and counts where the first process can read it. */
static void start_parts(void)
{
	for (unsigned int i = 0; i < nr_parts; i++) {
		pid_t pid = fork();

		if (pid > 0)
			continue;
		if (pid < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL)) {
			perror("property: cannot start a process");
			exit(2);
		}
		exit(!check_random(first_case + nr_cases * i / nr_parts,
				   first_case + nr_cases * (i + 1) / nr_parts, &parts[i]));
	}
}

static struct tally sum_of_parts(void)
{
	struct tally sum = { 0 };

	for (unsigned int i = 0; i < nr_parts; i++)
		add_tally(&sum, &parts[i]);
	return sum;
}

static void interrupt_wait(int signal)
{
	(void)signal;
}

/* Says how far it is whenever the timer interrupts. */
static bool wait_for_part(void)
{
	int status;

	while (wait(&status) < 0) {
		if (errno != EINTR)
			return false;
		printf("property: %llu of %llu million random cases, %ld s\n",
		       (unsigned long long)sum_of_parts().cases / 1000000,
		       (unsigned long long)nr_cases / 1000000, (long)(time(NULL) - started));
		fflush(stdout);
	}
	return status == 0;
}

/* The first failure is the end: the other processes die with this one. */
static bool check_all_random(void)
{
	const struct itimerval ten_seconds = { { 10, 0 }, { 10, 0 } };
	const struct sigaction interrupt = { .sa_handler = interrupt_wait };

	start_parts();
	sigaction(SIGALRM, &interrupt, NULL);
	setitimer(ITIMER_REAL, &ten_seconds, NULL);
	for (unsigned int i = 0; i < nr_parts; i++)
		if (!wait_for_part())
			return false;
	return true;
}

static u64 number(const char *text)
{
	char *end;
	u64 n = strtoull(text, &end, 10);

	if (!*text || *end) {
		fprintf(stderr, "property: %s is not a number\n", text);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	struct tally tally = { 0 };
	unsigned int none;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: property SEED CASES [FIRST]\n");
		return 2;
	}
	seed = number(argv[1]);
	nr_cases = number(argv[2]);
	first_case = argc > 3 ? number(argv[3]) : 0;
	nr_parts = sysconf(_SC_NPROCESSORS_ONLN);
	parts = mmap(NULL, nr_parts * sizeof(*parts), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (parts == MAP_FAILED) {
		perror("property");
		return 2;
	}
	oracle_init();
	started = time(NULL);

	if (!check_edges(&tally))
		return 1;
	printf("property: %llu cases at the edges\n", (unsigned long long)tally.cases);
	printf("property: %llu random cases, seed %llu\n", (unsigned long long)nr_cases,
	       (unsigned long long)seed);
	fflush(stdout);
	if (!check_all_random())
		return 1;

	for (unsigned int i = 0; i < nr_parts; i++)
		add_tally(&tally, &parts[i]);
	none = print_tally(&tally);
	printf("%u passed, %u failed\n", NR_COUNTS - none, none);
	return none != 0;
}
