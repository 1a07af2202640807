/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_GUEST_CLOCK_H
#define __KVM_X86_GUEST_CLOCK_H

/*
 * Arithmetic of the guest clock (kvmclock): F, a function of a TSC (in cycles)
 * to nanoseconds, in the form of struct pvclock_vcpu_time_info.
 * See Documentation/virt/kvm/x86/guest-clock.rst.
 */
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/math64.h>
#include <linux/types.h>

#include <asm/pvclock-abi.h>

#define GUEST_CLOCK_MAX_SHIFT	31
#define GUEST_CLOCK_MAX_AGE	BIT_ULL(62)	/* cycles */
/*
 * Where a period is short, keep references behind TSC values that were read a
 * moment before, by a VMM, or on a CPU whose TSC is some cycles behind.
 */
#define GUEST_CLOCK_MIN_AGE	BIT_ULL(20)	/* cycles */

/* Return F(@tsc), as the guest computes it. */
static inline u64 guest_clock_read(const struct pvclock_vcpu_time_info *clock,
				   u64 tsc)
{
	u64 delta = tsc - clock->tsc_timestamp;

	if (clock->tsc_shift < 0)
		delta >>= -clock->tsc_shift;
	else
		delta <<= clock->tsc_shift;

	return clock->system_time +
	       mul_u64_u32_shr(delta, clock->tsc_to_system_mul, 32);
}

/*
 * Move the reference to less than one period before @tsc without changing F.
 *
 * F repeats, up to a constant: with z trailing zeros in tsc_to_system_mul, the
 * 2^(32 - z - tsc_shift) cycles that follow any TSC value take a whole number
 * of nanoseconds, tsc_to_system_mul >> z.  A reference that is moved by whole
 * periods drops the same fractions as before, i.e. describes the same function.
 * If the exponent is negative, every single cycle takes a whole number.
 *
 * Leave a reference that is ahead of @tsc alone.
 */
static inline void guest_clock_renew(struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	int zeros = __ffs(clock->tsc_to_system_mul);
	int exponent = 32 - zeros - clock->tsc_shift;
	u64 period_ns = clock->tsc_to_system_mul >> zeros;
	u64 periods = tsc - clock->tsc_timestamp;

	if ((s64)periods < 0)
		return;

	if (exponent >= 0)
		periods >>= exponent;
	else
		period_ns <<= -exponent;

	clock->tsc_timestamp += periods << max(exponent, 0);
	clock->system_time += periods * period_ns;
}

/*
 * Return true if the structure is well-formed.  The multiplier must be normalized,
 * as KVM's are: the product then overflows after 292 years, at any shift.
 */
static inline bool guest_clock_is_valid(const struct pvclock_vcpu_time_info *clock)
{
	return clock->tsc_to_system_mul >> 31 &&
	       clock->tsc_shift >= -GUEST_CLOCK_MAX_SHIFT &&
	       clock->tsc_shift <= GUEST_CLOCK_MAX_SHIFT &&
	       !(clock->flags & ~PVCLOCK_TSC_STABLE_BIT) &&
	       !clock->pad0 && !clock->pad[0] && !clock->pad[1];
}

/*
 * Return true if the valid @clock is for a TSC of @min_khz to @max_khz.  Its rate
 * is 10^6 * 2^(32 - tsc_shift) / tsc_to_system_mul kHz, rounded down because
 * rounding down tsc_to_system_mul made the quotient larger.  A shift below -12 is
 * for more than 2^32 kHz.
 */
static inline bool guest_clock_has_rate(const struct pvclock_vcpu_time_info *clock,
					u32 min_khz, u32 max_khz)
{
	u64 scaled_khz = 1000000;

	if (clock->tsc_shift < -12)
		return false;

	scaled_khz <<= 32 - clock->tsc_shift;

	return scaled_khz >= (u64)min_khz * clock->tsc_to_system_mul &&
	       scaled_khz < ((u64)max_khz + 1) * clock->tsc_to_system_mul;
}

/*
 * Return 0 if the valid @clock can be the clock of a guest whose TSC is @tsc and
 * runs at @min_khz to @max_khz, else -ERANGE: its rate differs, its reference is
 * ahead of @tsc (modulo 2^64) or older than GUEST_CLOCK_MAX_AGE, or F(@tsc) is 2^63
 * or more.  F(@tsc) is that, too, if the shifted distance overflows.
 */
static inline int guest_clock_check(const struct pvclock_vcpu_time_info *clock,
				    u64 tsc, u32 min_khz, u32 max_khz)
{
	u64 delta = tsc - clock->tsc_timestamp;

	if (!guest_clock_has_rate(clock, min_khz, max_khz))
		return -ERANGE;

	if (delta > GUEST_CLOCK_MAX_AGE)
		return -ERANGE;

	if (clock->tsc_shift > 0 && delta >> (64 - clock->tsc_shift))
		return -ERANGE;

	return (s64)guest_clock_read(clock, tsc) < 0 ? -ERANGE : 0;
}

#endif
