// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>
#include <string.h>

#include "checks.h"

typedef unsigned __int128 __u128;	/* linux/types.h of tools has none in 6.12 */
#include "guest_clock.h"

#define OLDEST_DISTANCE		((1ULL << 63) + 1)	/* 2^63 - 1 ago, modulo 2^64 */

static const char *const check_names[NR_CHECKS] = {
	[VALID]			= "valid",
	[READ]			= "read",
	[HAS_RATE]		= "has-rate",
	[SET_RATE]		= "set-rate",
	[CONTINUOUS]		= "continuous",
	[PERIODIC]		= "periodic",
	[RESULT]		= "restore-result",
	[ERROR_KEEPS]		= "error-keeps-every-byte",
	[EQUAL_RATE_KEEPS]	= "equal-rate-keeps-every-byte",
	[SAME_FUNCTION]		= "equal-rate-same-function",
	[OTHER_RATE]		= "other-rate",
};

static const char *const outcome_names[NR_OUTCOMES] = {
	[BAD_MUL]		= "not valid: mul",
	[BAD_SHIFT]		= "not valid: shift",
	[BAD_FLAGS]		= "not valid: flags",
	[BAD_PADDING]		= "not valid: padding",
	[AHEAD]			= "out of range: reference ahead",
	[TOO_SLOW]		= "out of range: rate too low",
	[TOO_FAST]		= "out of range: rate too high",
	[KEPT]			= "restored: kept",
	[RATE_CHANGED]		= "restored: at another rate",
};

static const char *const edge_names[NR_EDGES] = {
	[RATE_BELOW_MIN]	= "rate 1 kHz below the least",
	[RATE_AT_MIN]		= "rate the least",
	[RATE_AT_MAX]		= "rate the greatest",
	[RATE_ABOVE_MAX]	= "rate 1 kHz above the greatest",
	[AT_THE_TSC]		= "reference at the TSC",
	[ONE_AHEAD]		= "reference 1 ahead",
	[OLDEST]		= "reference 2^63 - 1 ago",
	[FARTHEST_AHEAD]	= "reference 2^63 ahead",
	[WRAPPED]		= "reference ago and still the larger number",
};

static void print_case(const struct clock_case *c)
{
	const struct pvclock_vcpu_time_info *clock = &c->clock;

	printf("  clock: version %#x pad0 %#x tsc_timestamp %#llx system_time %#llx\n"
	       "         mul %#x shift %d flags %#x pad %#x %#x\n"
	       "  tsc %#llx (also read at %#llx) mul %#x shift %d from %u to %u kHz\n",
	       clock->version, clock->pad0, (unsigned long long)clock->tsc_timestamp,
	       (unsigned long long)clock->system_time, clock->tsc_to_system_mul,
	       clock->tsc_shift, clock->flags, clock->pad[0], clock->pad[1],
	       (unsigned long long)c->tsc, (unsigned long long)c->other_tsc, c->mul, c->shift,
	       c->min_khz, c->max_khz);
}

static bool expect(enum check check, bool ok, const struct clock_case *c, struct tally *tally)
{
	tally->checks[check]++;
	if (!ok) {
		printf("FAIL: %s\n", check_names[check]);
		print_case(c);
	}
	return ok;
}

static bool same(const struct pvclock_vcpu_time_info *a, const struct pvclock_vcpu_time_info *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static bool check_read(const struct clock_case *c, struct tally *t)
{
	return expect(READ, guest_clock_read(&c->clock, c->tsc) ==
			    oracle_read(&c->clock, c->tsc), c, t) &&
	       expect(READ, guest_clock_read(&c->clock, c->other_tsc) ==
			    oracle_read(&c->clock, c->other_tsc), c, t);
}

static bool check_has_rate(const struct clock_case *c, struct tally *t)
{
	u64 khz = oracle_rate(&c->clock);

	return expect(HAS_RATE, guest_clock_has_rate(&c->clock, c->min_khz, c->max_khz) ==
				(khz >= c->min_khz && khz <= c->max_khz), c, t);
}

/* What the clock becomes if it goes on at the TSC at the other rate. */
static struct pvclock_vcpu_time_info other_rate(const struct clock_case *c)
{
	struct pvclock_vcpu_time_info clock = c->clock;

	clock.system_time = oracle_read(&c->clock, c->tsc);
	clock.tsc_timestamp = c->tsc;
	clock.tsc_to_system_mul = c->mul;
	clock.tsc_shift = c->shift;
	return clock;
}

static bool check_set_rate(const struct clock_case *c, struct tally *t)
{
	struct pvclock_vcpu_time_info clock = c->clock, expected = other_rate(c);

	guest_clock_set_rate(&clock, c->tsc, c->mul, c->shift);
	return expect(CONTINUOUS, guest_clock_read(&clock, c->tsc) ==
				  guest_clock_read(&c->clock, c->tsc), c, t) &&
	       expect(SET_RATE, same(&clock, &expected), c, t);
}

/*
 * With z zeros at the end of mul, 2^(32 - z - shift) cycles are a whole number of
 * ns, mul / 2^z, and so nothing is rounded over them: the function repeats, that
 * much higher. If the exponent is negative a single cycle is a whole number, too.
 * This holds as long as the guest's shift loses nothing at the top, that is
 * below 2^(64 - shift) cycles.
 */
static bool check_periodic(const struct clock_case *c, struct tally *t)
{
	const struct pvclock_vcpu_time_info *clock = &c->clock;
	int shift = clock->tsc_shift;
	int exponent = 32 - __builtin_ctz(clock->tsc_to_system_mul) - shift;
	u64 period = exponent > 0 ? 1ULL << exponent : 1;
	u64 ns = exponent > 0 ? clock->tsc_to_system_mul >> __builtin_ctz(clock->tsc_to_system_mul) :
				(u64)clock->tsc_to_system_mul << shift >> 32;
	u64 last = UINT64_MAX >> (shift > 0 ? shift : 0);
	u64 tsc = clock->tsc_timestamp + (c->other_tsc & last & ~period);

	return expect(PERIODIC, guest_clock_read(clock, tsc + period) ==
				guest_clock_read(clock, tsc) + ns, c, t);
}

static bool check_restore(const struct clock_case *c, enum outcome outcome, struct tally *t)
{
	struct pvclock_vcpu_time_info clock = c->clock, expected;
	int r = guest_clock_restore(&clock, c->tsc, c->mul, c->shift, c->min_khz, c->max_khz);

	switch (outcome) {
	case KEPT:
		return expect(RESULT, r == 0, c, t) &&
		       expect(SAME_FUNCTION, guest_clock_read(&clock, c->other_tsc) ==
					     guest_clock_read(&c->clock, c->other_tsc), c, t) &&
		       expect(EQUAL_RATE_KEEPS, same(&clock, &c->clock), c, t);
	case RATE_CHANGED:
		expected = other_rate(c);
		return expect(RESULT, r == 0, c, t) &&
		       expect(OTHER_RATE, same(&clock, &expected), c, t);
	default:
		return expect(RESULT, r == -ERANGE, c, t) &&
		       expect(ERROR_KEEPS, same(&clock, &c->clock), c, t);
	}
}

static void count_edges(const struct clock_case *c, struct tally *t)
{
	u64 khz = oracle_rate(&c->clock), distance = oracle_distance(c);

	t->edges[RATE_BELOW_MIN] += khz + 1 == c->min_khz;
	t->edges[RATE_AT_MIN] += khz == c->min_khz;
	t->edges[RATE_AT_MAX] += khz == c->max_khz;
	t->edges[RATE_ABOVE_MAX] += khz == (u64)c->max_khz + 1;
	t->edges[AT_THE_TSC] += distance == 0;
	t->edges[ONE_AHEAD] += distance == 1;
	t->edges[OLDEST] += distance == OLDEST_DISTANCE;
	t->edges[FARTHEST_AHEAD] += distance == 1ULL << 63;
	t->edges[WRAPPED] += distance >= OLDEST_DISTANCE && c->clock.tsc_timestamp > c->tsc;
}

bool check_case(const struct clock_case *c, struct tally *t)
{
	enum outcome outcome = oracle_restore(c);
	bool valid = outcome > BAD_PADDING;

	t->cases++;
	t->outcomes[outcome]++;
	if (!expect(VALID, guest_clock_is_valid(&c->clock) == valid, c, t))
		return false;
	if (!valid)
		return true;
	count_edges(c, t);
	return check_read(c, t) && check_has_rate(c, t) && check_set_rate(c, t) &&
	       check_periodic(c, t) && check_restore(c, outcome, t);
}

static void add(u64 *sum, const u64 *counts, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		sum[i] += counts[i];
}

void add_tally(struct tally *sum, const struct tally *tally)
{
	sum->cases += tally->cases;
	add(sum->checks, tally->checks, NR_CHECKS);
	add(sum->outcomes, tally->outcomes, NR_OUTCOMES);
	add(sum->edges, tally->edges, NR_EDGES);
}

static unsigned int print_counts(const char *what, const char *const *names, const u64 *counts,
				 unsigned int nr)
{
	unsigned int none = 0;

	for (unsigned int i = 0; i < nr; i++) {
		printf("%s: %s: %llu times\n", what, names[i], (unsigned long long)counts[i]);
		none += !counts[i];
	}
	return none;
}

unsigned int print_tally(const struct tally *tally)
{
	return print_counts("check", check_names, tally->checks, NR_CHECKS) +
	       print_counts("outcome", outcome_names, tally->outcomes, NR_OUTCOMES) +
	       print_counts("edge", edge_names, tally->edges, NR_EDGES);
}
