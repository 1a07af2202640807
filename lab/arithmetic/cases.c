// SPDX-License-Identifier: GPL-2.0
#include "cases.h"

/*
 * C leaves open which operand is evaluated first, and so each draw here has a
 * statement of its own: a case is the same with every compiler.
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
		return draw_near(0);
	case 1:
		return draw_near(1ULL << draw(6));
	case 2:
		return draw_near(draw(1) ? 1ULL << 63 : 1ULL << 32);
	default:
		return draw(64);
	}
}

static u32 draw_mul(void)
{
	u32 mul;

	switch (draw(2)) {
	case 0:
		return draw_number();
	case 1:		/* each number of zeros at the end */
		mul = draw(32) | 1;
		return mul << draw(5);
	default:	/* as KVM has them */
		return draw(31) | 1U << 31;
	}
}

static s8 draw_shift(void)
{
	return draw(1) ? draw(6) % 63 - 31 : draw(3) - 4;
}

/* Not valid most of the time. */
static void spoil(struct pvclock_vcpu_time_info *clock)
{
	switch (draw(3)) {
	case 0:
		clock->tsc_to_system_mul = 0;
		break;
	case 1:
		clock->tsc_shift = draw(1) ? 32 : -32;
		break;
	case 2:
		clock->tsc_shift = draw(8);
		break;
	case 3:
		clock->flags = draw(8);
		break;
	case 4:
		clock->pad0 = draw(32);
		break;
	case 5:
		clock->pad0 = 1U << draw(5);
		break;
	case 6:
		clock->pad[0] = draw(8);
		break;
	default:
		clock->pad[1] = draw(8);
	}
}

static void draw_rate(struct clock_case *c)
{
	c->mul = c->clock.tsc_to_system_mul;
	c->shift = c->clock.tsc_shift;
	switch (draw(3)) {
	case 0:
		c->mul += draw(3) - 4;
		break;
	case 1:
		c->shift = draw_shift();
		break;
	case 2:
		c->mul = draw_mul();
		c->shift = draw_shift();
		break;
	}
}

u32 rate_of(const struct pvclock_vcpu_time_info *clock)
{
	unsigned __int128 khz = 1000000;

	if (!clock->tsc_to_system_mul || clock->tsc_shift < -31 || clock->tsc_shift > 31)
		return 0;
	khz = (khz << (32 - clock->tsc_shift)) / clock->tsc_to_system_mul;
	return khz > UINT32_MAX ? UINT32_MAX : khz;
}

static void draw_bounds(struct clock_case *c)
{
	u32 khz = rate_of(&c->clock), host_khz, tolerance;

	switch (draw(2)) {
	case 0:		/* at the rate, or next to it */
		c->min_khz = khz + draw(2) - 2;
		c->max_khz = khz + draw(2) - 1;
		break;
	case 1:		/* as KVM has them: 250 ppm to both sides of another rate */
		tolerance = khz / 4000;
		host_khz = draw_near(draw(1) ? khz + tolerance : khz - tolerance);
		c->min_khz = host_khz - tolerance;
		c->max_khz = host_khz + tolerance;
		break;
	case 2:
		c->min_khz = 0;
		c->max_khz = UINT32_MAX;
		break;
	default:
		c->min_khz = draw(32);
		c->max_khz = draw(32);
	}
}

struct clock_case draw_case(void)
{
	struct clock_case c = { .tsc = draw_number() };

	c.other_tsc = draw(64);
	c.clock.version = draw(32);
	c.clock.tsc_timestamp = c.tsc - draw_number();
	c.clock.system_time = draw_number();
	c.clock.tsc_to_system_mul = draw_mul();
	c.clock.tsc_shift = draw_shift();
	c.clock.flags = draw(1);
	draw_rate(&c);
	draw_bounds(&c);
	if (draw(4) == 1)
		spoil(&c.clock);
	return c;
}
