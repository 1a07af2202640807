/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What has to be true of guest_clock.h for every case, and how often it was
 * looked at.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include "oracle.h"

enum check {
	VALID, READ, HAS_RATE, SET_RATE, CONTINUOUS, PERIODIC,
	RESULT, ERROR_KEEPS, EQUAL_RATE_KEEPS, SAME_FUNCTION, OTHER_RATE,
	NR_CHECKS
};

/* Cases on both sides of each border, and where a number wraps. */
enum edge {
	RATE_BELOW_MIN, RATE_AT_MIN, RATE_AT_MAX, RATE_ABOVE_MAX,
	AT_THE_TSC, ONE_AHEAD, OLDEST, FARTHEST_AHEAD, WRAPPED,
	NR_EDGES
};

#define NR_COUNTS	(NR_CHECKS + NR_OUTCOMES + NR_EDGES)

struct tally {
	u64 cases;
	u64 checks[NR_CHECKS];
	u64 outcomes[NR_OUTCOMES];
	u64 edges[NR_EDGES];
};

/* Counts into *tally. If something is wrong it says what, and returns false. */
bool check_case(const struct clock_case *c, struct tally *tally);

void add_tally(struct tally *sum, const struct tally *tally);

/* Prints a line for each count; returns how many of the NR_COUNTS are zero. */
unsigned int print_tally(const struct tally *tally);

#endif
