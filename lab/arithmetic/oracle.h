/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What guest_clock.h has to answer, from the definitions and in integers of any
 * size. Nothing here knows how the header computes.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <linux/types.h>

#include <asm/pvclock-abi.h>

/* A clock that userspace restores, and the TSC that it is restored to. */
struct clock_case {
	struct pvclock_vcpu_time_info clock;
	u64 tsc;
	u64 other_tsc;			/* another one to read the clock at */
	u32 mul;
	s8 shift;
	u32 min_khz, max_khz;
};

/* What has to come of it. */
enum outcome {
	BAD_MUL, BAD_SHIFT, BAD_FLAGS, BAD_PADDING,	/* it is not valid */
	AHEAD, TOO_SLOW, TOO_FAST,			/* it is out of range */
	KEPT, RATE_CHANGED,
	NR_OUTCOMES
};

void oracle_init(void);
enum outcome oracle_restore(const struct clock_case *c);

/* The rest is for a valid clock only. */
u64 oracle_read(const struct pvclock_vcpu_time_info *clock, u64 tsc);

/* In kHz, rounded down. UINT64_MAX stands for everything above, too. */
u64 oracle_rate(const struct pvclock_vcpu_time_info *clock);

/* How far the reference is above the TSC, modulo 2^64. */
u64 oracle_distance(const struct clock_case *c);

#endif
