// SPDX-License-Identifier: GPL-2.0
#include <limits.h>
#include <string.h>

#include <gmp.h>

#include "oracle.h"

_Static_assert(sizeof(unsigned long) == sizeof(u64), "mpz_set_ui() takes 64 bits");

static mpz_t x;		/* allocated once, as there are very many cases */

void oracle_init(void)
{
	mpz_init2(x, 256);
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
static void wrap(void)
{
	mpz_fdiv_r_2exp(x, x, 64);
}

/* The guest's formula, see pvclock-abi.h: its registers have 64 bits. */
u64 oracle_read(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	mpz_set_ui(x, tsc);
	mpz_sub_ui(x, x, clock->tsc_timestamp);
	wrap();
	scale(clock->tsc_shift);
	wrap();
	mpz_mul_ui(x, x, clock->tsc_to_system_mul);
	scale(-32);
	mpz_add_ui(x, x, clock->system_time);
	wrap();
	return mpz_get_ui(x);
}

/*
 * A cycle takes mul * 2^(shift - 32) ns, and a rate of 1 kHz means 10^6 ns, so
 * the rate is 10^6 * 2^(32 - shift) / mul.
 */
u64 oracle_rate(const struct pvclock_vcpu_time_info *clock)
{
	mpz_set_ui(x, 1000000);
	scale(32 - clock->tsc_shift);
	mpz_fdiv_q_ui(x, x, clock->tsc_to_system_mul);
	return mpz_fits_ulong_p(x) ? mpz_get_ui(x) : ULONG_MAX;
}

u64 oracle_distance(const struct clock_case *c)
{
	mpz_set_ui(x, c->clock.tsc_timestamp);
	mpz_sub_ui(x, x, c->tsc);
	wrap();
	return mpz_get_ui(x);
}

enum outcome oracle_restore(const struct clock_case *c)
{
	static const u8 no_pad[sizeof(c->clock.pad)];
	u64 khz, distance;

	if (c->clock.tsc_to_system_mul == 0)
		return BAD_MUL;
	if (c->clock.tsc_shift < -31 || c->clock.tsc_shift > 31)
		return BAD_SHIFT;
	if (c->clock.flags != 0 && c->clock.flags != PVCLOCK_TSC_STABLE_BIT)
		return BAD_FLAGS;
	if (c->clock.pad0 != 0 || memcmp(c->clock.pad, no_pad, sizeof(no_pad)))
		return BAD_PADDING;

	distance = oracle_distance(c);
	if (distance >= 1 && distance <= 1ULL << 63)
		return AHEAD;
	if (c->clock.tsc_to_system_mul == c->mul && c->clock.tsc_shift == c->shift)
		return KEPT;

	khz = oracle_rate(&c->clock);
	if (khz < c->min_khz)
		return TOO_SLOW;
	if (khz > c->max_khz)
		return TOO_FAST;
	return RATE_CHANGED;
}
