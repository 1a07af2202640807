// SPDX-License-Identifier: GPL-2.0
#include "checks.h"

/*
 * C leaves open which operand is evaluated first, so draw in statements: a case is
 * the same with every compiler.
 */

/* On both sides of @number, modulo 2^64. */
static u64 draw_near(u64 number)
{
	return number + draw(3) - 4;
}

static u64 draw_number(void)
{
	switch (draw(2)) {
	case 0:
		return draw_near(draw(1) ? 0 : 1ULL << 62);
	case 1:
		return draw_near(1ULL << draw(6));
	case 2:
		return draw(62);
	default:
		return draw(64);
	}
}

/* Normalized, with each number of zeros at the end. */
static u32 draw_mul(void)
{
	u32 mul = draw(32);

	return (draw(1) ? mul : mul << draw(5)) | 1U << 31;
}

/* Flip a bit of pad0 or of what is from the top byte of the multiplier on. */
static void spoil(struct pvclock_vcpu_time_info *clock)
{
	static const u8 bytes[] = { 4, 6, 7, 27, 28, 29, 30, 31 };
	u8 byte = bytes[draw(3)];

	((u8 *)clock)[byte] ^= 1U << draw(3);
}

static void draw_bounds(struct clock_case *c)
{
	u64 khz = oracle_khz(&c->clock);
	u32 tolerance = khz / 4000;

	c->min_khz = 0;
	c->max_khz = UINT32_MAX;
	switch (draw(2)) {
	case 0:		/* at the rate, or next to it */
		c->min_khz = khz + draw(2) - 2;
		c->max_khz = khz + draw(2) - 1;
		break;
	case 1:		/* 250 ppm to both sides of another rate */
		khz = draw_near(draw(1) ? khz + tolerance : khz - tolerance);
		c->min_khz = khz - tolerance;
		c->max_khz = khz + tolerance;
		break;
	}
}

/* Host and guest have 25 MHz to 5 GHz, and most ratios are no number of kHz. */
static void draw_scaled_tsc(struct clock_case *c)
{
	struct scaled_tsc *tsc = &c->scaled;
	u64 guest_hz = 25000000 + draw(33) % 4975000000;

	tsc->host_khz = 25000 + draw(23) % 4975001;
	tsc->frac_bits = draw(1) ? 32 : 48;
	tsc->ratio = 1ULL << tsc->frac_bits;
	if (draw(2))
		tsc->ratio = ((unsigned __int128)guest_hz << tsc->frac_bits) /
			     (tsc->host_khz * 1000ULL);
	if (!draw(4))	/* the bits that rounding drops */
		tsc->host_khz = 5000000 - draw(10);

	/* The shift that the clocksource gets from its rate is 24. */
	c->raw_shift = 23 + draw(2) % 3;
	c->raw_mult = (1000000ULL << c->raw_shift) / tsc->host_khz + draw(1);
}

void draw_case(struct clock_case *c)
{
	*c = (struct clock_case) { .tsc = draw_number() };
	c->other = draw_number();
	c->clock.version = draw(32);
	c->clock.tsc_timestamp = c->tsc - draw_number();
	c->clock.system_time = draw_number();
	c->clock.tsc_to_system_mul = draw_mul();
	c->clock.tsc_shift = draw(1) ? (int)(draw(6) % 63) - 31 : (int)draw(4) - 12;
	c->clock.flags = draw(1);
	draw_bounds(c);
	draw_scaled_tsc(c);
	if (!draw(3))
		spoil(&c->clock);
}
