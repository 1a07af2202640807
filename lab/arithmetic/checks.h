/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CHECKS_H
#define CHECKS_H

#include "oracle.h"

struct clock_case {
	struct pvclock_vcpu_time_info clock;
	u64 tsc;			/* the guest's */
	u64 other;			/* cycles to another TSC value */
	u32 min_khz, max_khz;
	struct scaled_tsc scaled;	/* the guest's TSC as a scaled one */
	u32 raw_mult, raw_shift;	/* CLOCK_MONOTONIC_RAW of that host */
};

/* Return that many bits, at most 64; each program has a source of its own. */
u64 draw(unsigned int bits);

/* Make a case out of arbitrary bits so that all that can happen happens often. */
void draw_case(struct clock_case *c);

/* kvm_get_pvclock_scale() and kvm_get_raw_clock_scale() of x86.c. */
void get_pvclock_scale(const struct scaled_tsc *tsc, s8 *shift, u32 *mul);
void get_raw_clock_scale(const struct scaled_tsc *tsc, u32 raw_mult, u32 raw_shift,
			 s8 *shift, u32 *mul);

/* Count what was checked.  Return false, and say why, if a result is wrong. */
bool check_case(const struct clock_case *c);

/* Print all counts.  Return false if one is zero. */
bool print_counts(void);

#endif
