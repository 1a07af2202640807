/* SPDX-License-Identifier: GPL-2.0 */
/* Makes cases out of arbitrary bits, so that all that can happen happens often. */
#ifndef CASES_H
#define CASES_H

#include "oracle.h"

/* The program's source of bits: returns that many, at most 64. */
u64 draw(unsigned int bits);

struct clock_case draw_case(void);

/* The rate of a clock in kHz, as bounds can have it: about right is enough. */
u32 rate_of(const struct pvclock_vcpu_time_info *clock);

#endif
