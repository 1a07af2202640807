/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Expected results, from the definitions and in integers of any size.  Nothing here
 * knows how the kernel computes.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>

#include <linux/types.h>

#include <asm/pvclock-abi.h>

/* What becomes of a clock that userspace restores: one of these. */
enum outcome {
	BAD_MUL, BAD_SHIFT, BAD_FLAGS, BAD_PADDING,	/* malformed */
	TOO_SLOW, TOO_FAST, AHEAD, TOO_OLD, OVERFLOW, TOO_LATE,	/* out of range */
	RESTORED,
	NR_OUTCOMES
};

void oracle_init(void);

enum outcome oracle_restore(const struct pvclock_vcpu_time_info *clock, u64 tsc,
			    u32 min_khz, u32 max_khz);

/* The rest is for valid clocks. */

/* F as the guest computes it, in registers of 64 bits. */
u64 oracle_read(const struct pvclock_vcpu_time_info *clock, u64 tsc);

/* F without limits, modulo 2^64, @after - @before cycles after the reference. */
u64 oracle_function(const struct pvclock_vcpu_time_info *clock, u64 after, u64 before);

/* Log2 of the shortest period of F. */
unsigned int oracle_period(const struct pvclock_vcpu_time_info *clock);

/* In kHz, rounded down. */
u64 oracle_khz(const struct pvclock_vcpu_time_info *clock);

/* A TSC of @host_khz, scaled by @ratio / 2^@frac_bits. */
struct scaled_tsc {
	u32 host_khz;
	u64 ratio;
	u8 frac_bits;
};

/* Return true if a clock of that scale gains or loses less than 1 ns/s. */
bool oracle_is_exact(const struct scaled_tsc *tsc, u32 mul, s8 shift);

/*
 * Return true if a clock of that scale runs no faster than one that gains
 * @raw_mult / 2^@raw_shift ns per cycle of the host's TSC, and by less than
 * 2 ppb slower.
 */
bool oracle_is_below_raw(const struct scaled_tsc *tsc, u32 raw_mult, u32 raw_shift,
			 u32 mul, s8 shift);

#endif
