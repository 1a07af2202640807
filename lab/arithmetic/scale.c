// SPDX-License-Identifier: GPL-2.0
/*
 * The functions of x86.c that compute a clock's scale, as they are: compile.sh copies
 * them to x86-functions.h.  Here is what they need of the kernel.
 */
#include <linux/math64.h>
#include <linux/time64.h>

#include "checks.h"

#define CONFIG_X86_64		1
#define VDSO_CLOCKMODE_TSC	1

#define read_seqcount_begin(seq)	(*(seq))
#define read_seqcount_retry(seq, start)	(*(seq) != (start))

struct pvclock_clock {
	int vclock_mode;
	u32 mult, shift;
};

static struct pvclock_gtod_data {
	unsigned int seq;
	struct pvclock_clock raw_clock;
} pvclock_gtod_data;

static struct {
	u64 default_tsc_scaling_ratio;
	u8 tsc_scaling_ratio_frac_bits;
} kvm_caps;

static u64 mul_u64_u64_shr(u64 a, u64 b, unsigned int shift)
{
	return (unsigned __int128)a * b >> shift;
}

#define do_shl32_div32(n, base)	((n) = ((u64)(n) << 32) / (base))

#include "x86-functions.h"

static void set_frac_bits(u8 bits)
{
	kvm_caps.tsc_scaling_ratio_frac_bits = bits;
	kvm_caps.default_tsc_scaling_ratio = 1ULL << bits;
}

void get_pvclock_scale(const struct scaled_tsc *tsc, s8 *shift, u32 *mul)
{
	set_frac_bits(tsc->frac_bits);
	kvm_get_pvclock_scale(tsc->host_khz, tsc->ratio, shift, mul);
}

void get_raw_clock_scale(const struct scaled_tsc *tsc, u32 raw_mult, u32 raw_shift,
			 s8 *shift, u32 *mul)
{
	set_frac_bits(tsc->frac_bits);
	pvclock_gtod_data.raw_clock = (struct pvclock_clock) {
		VDSO_CLOCKMODE_TSC, raw_mult, raw_shift,
	};
	kvm_get_raw_clock_scale(tsc->ratio, shift, mul);
}
