// SPDX-License-Identifier: GPL-2.0
#include <limits.h>

#include <gmp.h>

#include "oracle.h"

_Static_assert(sizeof(unsigned long) == sizeof(u64), "mpz_set_ui() takes 64 bits");

static mpz_t x, y, limit;	/* allocated once, as there are very many cases */

void oracle_init(void)
{
	mpz_inits(x, y, limit, NULL);
}

/* x * 2^n, rounded down. */
static void scale(int n)
{
	if (n < 0)
		mpz_fdiv_q_2exp(x, x, -n);
	else
		mpz_mul_2exp(x, x, n);
}

/* x modulo 2^64: from 0 to 2^64 - 1, also if x is negative. */
static u64 wrap(void)
{
	mpz_fdiv_r_2exp(x, x, 64);
	return mpz_get_ui(x);
}

static u64 distance(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	mpz_set_ui(x, tsc);
	mpz_sub_ui(x, x, clock->tsc_timestamp);
	return wrap();
}

/* The shifted distance x to F, modulo 2^64. */
static u64 value(const struct pvclock_vcpu_time_info *clock)
{
	mpz_mul_ui(x, x, clock->tsc_to_system_mul);
	scale(-32);
	mpz_add_ui(x, x, clock->system_time);
	return wrap();
}

u64 oracle_read(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	distance(clock, tsc);
	scale(clock->tsc_shift);
	wrap();
	return value(clock);
}

u64 oracle_function(const struct pvclock_vcpu_time_info *clock, u64 after, u64 before)
{
	mpz_set_ui(x, after);
	mpz_sub_ui(x, x, before);
	scale(clock->tsc_shift);
	return value(clock);
}

/* The first 2^n cycles that take a whole number of ns. */
unsigned int oracle_period(const struct pvclock_vcpu_time_info *clock)
{
	unsigned int n = 0;

	mpz_set_ui(x, clock->tsc_to_system_mul);
	scale(31 + clock->tsc_shift);	/* 2^63 is 1 ns */
	while (!mpz_divisible_2exp_p(x, 63)) {
		scale(1);
		n++;
	}
	return n;
}

/* 1 ms has khz cycles, and each takes mul * 2^(shift - 32) ns. */
u64 oracle_khz(const struct pvclock_vcpu_time_info *clock)
{
	mpz_set_ui(x, 1000000);
	scale(32 - clock->tsc_shift);
	mpz_fdiv_q_ui(x, x, clock->tsc_to_system_mul);
	return mpz_get_ui(x);
}

static enum outcome check_form(const struct pvclock_vcpu_time_info *clock)
{
	if (clock->tsc_to_system_mul < 1U << 31)
		return BAD_MUL;
	if (clock->tsc_shift < -31 || clock->tsc_shift > 31)
		return BAD_SHIFT;
	if (clock->flags != 0 && clock->flags != PVCLOCK_TSC_STABLE_BIT)
		return BAD_FLAGS;
	if (clock->pad0 != 0 || clock->pad[0] != 0 || clock->pad[1] != 0)
		return BAD_PADDING;
	return RESTORED;
}

enum outcome oracle_restore(const struct pvclock_vcpu_time_info *clock, u64 tsc,
			    u32 min_khz, u32 max_khz)
{
	enum outcome form = check_form(clock);
	u64 khz, age;

	if (form != RESTORED)
		return form;

	khz = oracle_khz(clock);
	if (khz < min_khz)
		return TOO_SLOW;
	if (khz > max_khz)
		return TOO_FAST;

	age = distance(clock, tsc);
	if (age >= 1ULL << 63)
		return AHEAD;
	if (age > 1ULL << 62)
		return TOO_OLD;

	scale(clock->tsc_shift);
	if (mpz_sizeinbase(x, 2) > 64)
		return OVERFLOW;
	return oracle_read(clock, tsc) > LONG_MAX ? TOO_LATE : RESTORED;
}

/*
 * Set x to the ns that a clock of that scale gains in @tsc's second, and y to 1 ns,
 * both times 2^(63 + frac_bits).
 */
static void gain_per_second(const struct scaled_tsc *tsc, u32 mul, s8 shift)
{
	mpz_set_ui(x, tsc->ratio);
	mpz_mul_ui(x, x, tsc->host_khz);
	mpz_mul_ui(x, x, 1000);
	mpz_mul_ui(x, x, mul);
	scale(shift + 31);
	mpz_set_ui(y, 1);
	mpz_mul_2exp(y, y, 63 + tsc->frac_bits);
}

bool oracle_is_exact(const struct scaled_tsc *tsc, u32 mul, s8 shift)
{
	gain_per_second(tsc, mul, shift);
	mpz_submul_ui(x, y, 1000000000);
	return mpz_cmpabs(x, y) < 0;
}

bool oracle_is_below_raw(const struct scaled_tsc *tsc, u32 raw_mult, u32 raw_shift,
			 u32 mul, s8 shift)
{
	gain_per_second(tsc, mul, shift);
	scale(raw_shift);

	/* What the other clock gains, times 2^raw_shift as well. */
	mpz_mul_ui(limit, y, tsc->host_khz * 1000ULL);
	mpz_mul_ui(limit, limit, raw_mult);

	/* limit * (1 - 2 / 10^9) < x <= limit */
	mpz_sub(x, limit, x);
	mpz_mul_ui(x, x, 500000000);
	return mpz_sgn(x) >= 0 && mpz_cmp(x, limit) < 0;
}
