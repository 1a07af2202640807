// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>	/* max() */

#include <stdio.h>
#include <string.h>

#include "checks.h"
#include "guest_clock.h"

/* Everything that is counted, and has to have happened in the end. */
#define COUNTS(X)								\
	X(VALID, "check: valid")						\
	X(READ, "check: read")							\
	X(HAS_RATE, "check: has-rate")						\
	X(RESTORE, "check: restore")						\
	X(AHEAD_STAYS, "check: reference ahead stays")				\
	X(SAME_FUNCTION, "check: same function")				\
	X(OTHER_FIELDS, "check: other fields stay")				\
	X(YOUNG, "check: reference younger than a period")			\
	X(IDEMPOTENT, "check: idempotent, also by a later TSC")			\
	X(SCALE, "check: scale within 1 ns/s")					\
	X(SCALE_FITS, "check: scale is valid and has the TSC's rate")		\
	X(RAW_SCALE, "check: raw scale not faster, at most 2 ppb slower")	\
	X(OUTCOMES, "outcome: mul")						\
	X(IS_BAD_SHIFT, "outcome: shift")					\
	X(IS_BAD_FLAGS, "outcome: flags")					\
	X(IS_BAD_PADDING, "outcome: padding")					\
	X(IS_TOO_SLOW, "outcome: rate too low")					\
	X(IS_TOO_FAST, "outcome: rate too high")				\
	X(IS_AHEAD, "outcome: reference ahead")					\
	X(IS_TOO_OLD, "outcome: reference too old")				\
	X(IS_OVERFLOW, "outcome: shifted distance overflows")			\
	X(IS_TOO_LATE, "outcome: value 2^63 or more")				\
	X(IS_RESTORED, "outcome: restored")					\
	X(SUB_CYCLE, "edge: a period of one cycle")				\
	X(LONGEST, "edge: a period of 2^63 cycles")				\
	X(AT_MIN, "edge: rate the least")					\
	X(BELOW_MIN, "edge: rate 1 kHz below the least")			\
	X(AT_MAX, "edge: rate the greatest")					\
	X(ABOVE_MAX, "edge: rate 1 kHz above the greatest")			\
	X(AT_TSC, "edge: reference at the TSC")					\
	X(ONE_AHEAD, "edge: reference 1 ahead")					\
	X(OLDEST, "edge: reference 2^62 ago")					\
	X(OLDER, "edge: reference 2^62 + 1 ago")				\
	X(WRAPPED, "edge: reference ago and still the larger number")

#define ENUMERATOR(name, text)	name,
#define TEXT(name, text)	text,

enum count { COUNTS(ENUMERATOR) NR_COUNTS };

static const char *const texts[] = { COUNTS(TEXT) };
static u64 counts[NR_COUNTS];

static bool expect(enum count check, bool ok)
{
	counts[check]++;
	if (!ok)
		printf("FAIL: %s\n", texts[check] + strlen("check: "));
	return ok;
}

static bool same(const struct pvclock_vcpu_time_info *a, const struct pvclock_vcpu_time_info *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static struct pvclock_vcpu_time_info renew(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	struct pvclock_vcpu_time_info renewed = *clock;

	guest_clock_renew(&renewed, tsc);
	return renewed;
}

/* At @distance from the reference of @clock, before and after the one of @renewed. */
static bool same_function(const struct pvclock_vcpu_time_info *clock,
			  const struct pvclock_vcpu_time_info *renewed, u64 distance)
{
	u64 moved = renewed->tsc_timestamp - clock->tsc_timestamp;

	return oracle_function(clock, distance, 0) == oracle_function(renewed, distance, moved);
}

static bool check_renew(const struct clock_case *c)
{
	const struct pvclock_vcpu_time_info *clock = &c->clock;
	struct pvclock_vcpu_time_info renewed = renew(clock, c->tsc), expected = *clock, again;
	unsigned int period = oracle_period(clock);
	u64 age = c->tsc - clock->tsc_timestamp, new_age = c->tsc - renewed.tsc_timestamp;
	u64 later = c->tsc + c->other / 2;

	if (age >> 63)
		return expect(AHEAD_STAYS, same(&renewed, clock));

	counts[SUB_CYCLE] += period == 0;
	counts[LONGEST] += period == 63;
	expected.tsc_timestamp = renewed.tsc_timestamp;
	expected.system_time = renewed.system_time;
	if (!expect(OTHER_FIELDS, same(&renewed, &expected)) ||
	    !expect(SAME_FUNCTION, same_function(clock, &renewed, c->other) &&
				   same_function(clock, &renewed, age)) ||
	    !expect(YOUNG, new_age <= age && !(new_age >> period)))
		return false;

	/* Renewed once or twice: two references of a function become the same. */
	if ((age + c->other / 2) >> 63)
		return true;

	again = renew(&renewed, later);
	renewed = renew(clock, later);
	return expect(IDEMPOTENT, same(&again, &renewed));
}

static void count_edges(const struct clock_case *c)
{
	u64 khz = oracle_khz(&c->clock), age = c->tsc - c->clock.tsc_timestamp;

	counts[AT_MIN] += khz == c->min_khz;
	counts[BELOW_MIN] += khz + 1 == c->min_khz;
	counts[AT_MAX] += khz == c->max_khz;
	counts[ABOVE_MAX] += khz == (u64)c->max_khz + 1;
	counts[AT_TSC] += age == 0;
	counts[ONE_AHEAD] += age == UINT64_MAX;
	counts[OLDEST] += age == 1ULL << 62;
	counts[OLDER] += age == (1ULL << 62) + 1;
	counts[WRAPPED] += !(age >> 63) && c->clock.tsc_timestamp > c->tsc;
}

static bool check_clock(const struct clock_case *c)
{
	const struct pvclock_vcpu_time_info *clock = &c->clock;
	enum outcome outcome = oracle_restore(clock, c->tsc, c->min_khz, c->max_khz);
	bool valid = outcome > BAD_PADDING;
	u64 tsc = c->tsc + c->other;

	counts[OUTCOMES + outcome]++;
	if (!expect(VALID, guest_clock_is_valid(clock) == valid))
		return false;
	if (!valid)
		return true;

	count_edges(c);
	return expect(READ, guest_clock_read(clock, tsc) == oracle_read(clock, tsc)) &&
	       expect(HAS_RATE, guest_clock_has_rate(clock, c->min_khz, c->max_khz) ==
				(outcome != TOO_SLOW && outcome != TOO_FAST)) &&
	       expect(RESTORE, guest_clock_check(clock, c->tsc, c->min_khz, c->max_khz) ==
			       (outcome == RESTORED ? 0 : -ERANGE)) &&
	       check_renew(c);
}

/* What KVM_GET_CLOCK_GUEST returns KVM_SET_CLOCK_GUEST accepts, within 250 ppm. */
static bool check_scale(const struct clock_case *c)
{
	const struct scaled_tsc *tsc = &c->scaled;
	u32 khz = (unsigned __int128)tsc->host_khz * tsc->ratio >> tsc->frac_bits;
	struct pvclock_vcpu_time_info clock = { 0 };
	u32 mul;
	s8 shift;

	get_pvclock_scale(tsc, &shift, &mul);
	clock.tsc_to_system_mul = mul;
	clock.tsc_shift = shift;
	return expect(SCALE, oracle_is_exact(tsc, mul, shift)) &&
	       expect(SCALE_FITS, guest_clock_is_valid(&clock) &&
				  guest_clock_has_rate(&clock, khz - khz / 4000, khz + khz / 4000));
}

static bool check_raw_scale(const struct clock_case *c)
{
	s8 shift;
	u32 mul;

	get_raw_clock_scale(&c->scaled, c->raw_mult, c->raw_shift, &shift, &mul);
	return expect(RAW_SCALE, oracle_is_below_raw(&c->scaled, c->raw_mult, c->raw_shift,
						     mul, shift));
}

static void print_case(const struct clock_case *c)
{
	const struct pvclock_vcpu_time_info *clock = &c->clock;

	printf("  clock: version %#x pad0 %#x tsc_timestamp %#llx system_time %#llx\n"
	       "         mul %#x shift %d flags %#x pad %#x %#x\n"
	       "  tsc %#llx other %#llx from %u to %u kHz\n"
	       "  host %u kHz ratio %#llx / 2^%d raw %u / 2^%u\n",
	       clock->version, clock->pad0, (unsigned long long)clock->tsc_timestamp,
	       (unsigned long long)clock->system_time, clock->tsc_to_system_mul,
	       clock->tsc_shift, clock->flags, clock->pad[0], clock->pad[1],
	       (unsigned long long)c->tsc, (unsigned long long)c->other, c->min_khz, c->max_khz,
	       c->scaled.host_khz, (unsigned long long)c->scaled.ratio, c->scaled.frac_bits,
	       c->raw_mult, c->raw_shift);
}

bool check_case(const struct clock_case *c)
{
	if (check_clock(c) && check_scale(c) && check_raw_scale(c))
		return true;
	print_case(c);
	return false;
}

bool print_counts(void)
{
	bool all = true;

	for (int i = 0; i < NR_COUNTS; i++) {
		printf("%s: %llu times\n", texts[i], (unsigned long long)counts[i]);
		all &= counts[i] > 0;
	}
	return all;
}
