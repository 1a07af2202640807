// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the rate of this machine's TSC in kHz, as tsc_early_khz= takes it.
 * It is good to a few parts per million, also on a busy machine: of many
 * readings of TSC and clock, the one that took least time counts.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct reading {
	uint64_t tsc;
	int64_t ns;
};

static struct reading read_both(void)
{
	struct reading best = { 0 };
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		struct timespec now;
		uint64_t before = __rdtsc(), after;

		clock_gettime(CLOCK_MONOTONIC_RAW, &now);
		after = __rdtsc();
		if (after - before >= shortest)
			continue;
		shortest = after - before;
		best.tsc = before + shortest / 2;
		best.ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
	}
	return best;
}

int main(void)
{
	struct reading first = read_both(), last;

	usleep(50000);
	last = read_both();
	printf("%lu\n", (last.tsc - first.tsc) * 1000000 / (last.ns - first.ns));
	return 0;
}
