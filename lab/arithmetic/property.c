// SPDX-License-Identifier: GPL-2.0
/*
 * Check all combinations of edges, and then random cases.
 *
 *	property SEED CASES [FIRST]
 *
 * Which case a number stands for depends on the seed alone, so a single one can be
 * checked again: CASES is 1 then, and FIRST its number.
 */
#include <stdio.h>
#include <stdlib.h>

#include "checks.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static const u64 numbers[] = {
	0, 1, 2, (1ULL << 32) - 1, 1ULL << 32, (1ULL << 33) - 1, (1ULL << 62) - 1, 1ULL << 62,
	(1ULL << 62) + 1, (1ULL << 63) - 1, 1ULL << 63, (1ULL << 63) + 1, UINT64_MAX,
};

static const u64 tscs[] = { 0, 1, 1ULL << 32, 1ULL << 63, UINT64_MAX };

static u64 seed, state;

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

static bool check_number(u64 n)
{
	struct clock_case c;

	state = seed;
	state = next_state() + n;
	state = next_state();
	draw_case(&c);
	if (check_case(&c))
		return true;
	printf("  case %llu of seed %llu\n", (unsigned long long)n, (unsigned long long)seed);
	return false;
}

/* All shifts, ages and bounds; what isn't set here is as in @c. */
static bool check_mul(struct clock_case c, u32 mul)
{
	c.clock.tsc_to_system_mul = mul;
	for (unsigned int i = 0; i < 63 * ARRAY_SIZE(numbers) * 4; i++) {
		u64 khz;

		c.clock.tsc_shift = (int)(i / 4 % 63) - 31;
		c.clock.tsc_timestamp = c.tsc - numbers[i / 4 / 63];
		khz = oracle_khz(&c.clock);
		c.min_khz = i & 1 ? khz : khz + 1;
		c.max_khz = i & 2 ? khz : khz - 1;
		if (!check_case(&c))
			return false;
	}
	return true;
}

static bool check_edges(void)
{
	struct clock_case c;

	draw_case(&c);
	c.clock = (struct pvclock_vcpu_time_info) { .version = 6, .system_time = UINT64_MAX };
	for (unsigned int i = 0; i < ARRAY_SIZE(tscs); i++) {
		c.tsc = tscs[i];
		c.other = ~c.tsc;
		for (unsigned int zeros = 0; zeros < 32; zeros++)
			if (!check_mul(c, 1U << 31 | 1U << zeros) ||
			    !check_mul(c, UINT32_MAX << zeros))
				return false;
	}
	return true;
}

/* Each value of each byte of an otherwise valid clock. */
static bool check_bytes(void)
{
	struct clock_case valid, c;

	draw_case(&valid);
	valid.clock = (struct pvclock_vcpu_time_info) { .tsc_to_system_mul = 1U << 31 };
	for (unsigned int i = 0; i < sizeof(c.clock) * 256; i++) {
		c = valid;
		((u8 *)&c.clock)[i / 256] = i;
		if (!check_case(&c))
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	u64 first, end;
	bool ok;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: property SEED CASES [FIRST]\n");
		return 2;
	}
	seed = state = strtoull(argv[1], NULL, 10);
	first = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	end = first + strtoull(argv[2], NULL, 10);

	oracle_init();
	if (!check_bytes() || !check_edges())
		return 1;
	for (u64 n = first; n < end; n++)
		if (!check_number(n))
			return 1;

	ok = print_counts();
	printf("property: %llu random cases of seed %llu\n", (unsigned long long)(end - first),
	       (unsigned long long)seed);
	return !ok;
}
