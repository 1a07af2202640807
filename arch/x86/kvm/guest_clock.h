/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_GUEST_CLOCK_H
#define __KVM_X86_GUEST_CLOCK_H

/*
 * The arithmetic of the guest's clock (kvmclock): a function F from the guest's
 * TSC to nanoseconds, written as struct pvclock_vcpu_time_info.  See
 * Documentation/virt/kvm/x86/guest-clock.rst.
 *
 * Why a restore is exact: F rounds down twice, once when it drops low bits of the
 * TSC (tsc_shift < 0), once when it drops the low half of the product.  What it
 * drops depends on the distance from the reference.  A reference at another TSC,
 * with F's value there, drops something else: floor(a) + floor(b) is not
 * floor(a + b), and the two functions differ by 1 or 2 ns at nearly all TSC values.
 * So the reference is not computed anew as long as the rate stays.  It is taken
 * over as it is, whatever its age: nothing is rounded, and the function is the
 * same one, at any TSC, after any number of restores.  All additions and
 * subtractions are modulo 2^64, so a reference from before the TSC's zero, or
 * from before the host's boot, is as good as any other.
 *
 * KVM, its KUnit tests, and tests in userspace use this same file.  It needs a
 * 128-bit type, so 64-bit builds only.
 */
#include <linux/errno.h>
#include <linux/types.h>

#include <asm/pvclock-abi.h>

#define GUEST_CLOCK_MAX_SHIFT	31

/* The clock in ns at @tsc, in the guest's words: see pvclock-abi.h. */
static inline u64 guest_clock_read(const struct pvclock_vcpu_time_info *clock,
				   u64 tsc)
{
	u64 delta = tsc - clock->tsc_timestamp;

	if (clock->tsc_shift < 0)
		delta >>= -clock->tsc_shift;
	else
		delta <<= clock->tsc_shift;

	/* 64 by 32 bits: the product has 96, and so fits. */
	return clock->system_time +
	       (u64)((__u128)delta * clock->tsc_to_system_mul >> 32);
}

/*
 * Goes on from @clock's value at @tsc at another rate: the two functions have the
 * same value there, so a clock that is read before and after does not go back.
 */
static inline void guest_clock_set_rate(struct pvclock_vcpu_time_info *clock,
					u64 tsc, u32 mul, s8 shift)
{
	clock->system_time = guest_clock_read(clock, tsc);
	clock->tsc_timestamp = tsc;
	clock->tsc_to_system_mul = mul;
	clock->tsc_shift = shift;
}

/* Whether userspace's structure describes a function at all. */
static inline bool guest_clock_is_valid(const struct pvclock_vcpu_time_info *clock)
{
	return clock->tsc_to_system_mul &&
	       clock->tsc_shift >= -GUEST_CLOCK_MAX_SHIFT &&
	       clock->tsc_shift <= GUEST_CLOCK_MAX_SHIFT &&
	       !(clock->flags & ~PVCLOCK_TSC_STABLE_BIT) &&
	       !clock->pad0 && !clock->pad[0] && !clock->pad[1];
}

/*
 * Whether the TSC rate that the valid @clock was made for is between @min_khz and
 * @max_khz.  It is
 *
 *	10^6 * 2^(32 - tsc_shift) / tsc_to_system_mul kHz
 *
 * rounded down, as rounding down tsc_to_system_mul made the quotient larger.
 * The left side of the comparisons is below 2^83, the right one below 2^64.
 */
static inline bool guest_clock_has_rate(const struct pvclock_vcpu_time_info *clock,
					u32 min_khz, u32 max_khz)
{
	__u128 scaled_khz = 1000000;

	scaled_khz <<= 32 - clock->tsc_shift;

	return scaled_khz >= (u64)min_khz * clock->tsc_to_system_mul &&
	       scaled_khz < ((u64)max_khz + 1) * clock->tsc_to_system_mul;
}

/*
 * Decides on the valid @clock that userspace restores when the guest's TSC is
 * @tsc: returns 0 with the clock to use in @clock, or -ERANGE, with @clock as it
 * was, if its reference is ahead of the TSC.  Ahead is modulo 2^64: the 2^63 values
 * above @tsc are.
 *
 * The TSC has the rate @mul, @shift.  If @clock has it, too, it stays as it is.
 * Else it goes on from its value at @tsc, or the result is -ERANGE if its rate is
 * not between @min_khz and @max_khz.
 */
static inline int guest_clock_restore(struct pvclock_vcpu_time_info *clock, u64 tsc,
				      u32 mul, s8 shift, u32 min_khz, u32 max_khz)
{
	if ((s64)(tsc - clock->tsc_timestamp) < 0)
		return -ERANGE;

	if (clock->tsc_to_system_mul == mul && clock->tsc_shift == shift)
		return 0;

	if (!guest_clock_has_rate(clock, min_khz, max_khz))
		return -ERANGE;

	guest_clock_set_rate(clock, tsc, mul, shift);
	return 0;
}

#endif
