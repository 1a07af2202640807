// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the arithmetic of the guest clock, guest_clock.h.  A cycle takes
 * mul * 2^(shift - 32) ns, e.g. 1/2 ns if mul is 2^31 and shift is 0.
 */
#include <kunit/test.h>

#include <linux/limits.h>
#include <linux/module.h>

#include "guest_clock.h"

static const struct read_row {
	const char *name;
	u64 delta;		/* cycles since the reference */
	u32 mul;
	s8 shift;
	u64 ns;			/* since the reference */
	u32 khz;		/* 10^6 * 2^(32 - shift) / mul, rounded down */
} read_rows[] = {
	{ "2 GHz", 2000000001, BIT(31), 0, 1000000000, 2000000 },
	{ "2.5 GHz, a bit lost before the product", 5, 0xcccccccc, -1, 1, 2500000 },
	/* (2^33 - 1) * (2^32 - 1) * 2^-32 = 2^33 - 3 + 2^-32 */
	{ "carry from the lower half", BIT_ULL(33) - 1, U32_MAX, 0, BIT_ULL(33) - 3, 1000000 },
	{ "largest delta", U64_MAX, U32_MAX, 0, U64_MAX - BIT_ULL(32), 1000000 },
	{ "slowest TSC", BIT_ULL(33) - 1, U32_MAX, 31, U64_MAX - BIT_ULL(32) - BIT_ULL(31) + 1, 0 },
	{ "fastest TSC", BIT_ULL(44), U32_MAX, -12, U32_MAX, 4096000000 },
};

KUNIT_ARRAY_PARAM_DESC(read, read_rows, name);

static void guest_clock_read_test(struct kunit *test)
{
	const u64 values[] = { 0, 1, BIT_ULL(32), BIT_ULL(63), U64_MAX };
	const struct read_row *row = test->param_value;
	struct pvclock_vcpu_time_info clock = { .tsc_to_system_mul = row->mul,
						.tsc_shift = row->shift };
	int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		clock.tsc_timestamp = values[i];
		clock.system_time = ~values[i];
		KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, values[i] + row->delta),
				~values[i] + row->ns);
	}

	KUNIT_EXPECT_TRUE(test, guest_clock_has_rate(&clock, row->khz, row->khz));
	KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, row->khz + 1, U32_MAX));
	KUNIT_EXPECT_FALSE(test, row->khz && guest_clock_has_rate(&clock, 0, row->khz - 1));
}

/* The TSC is 1000 and runs at 500 MHz to 2 GHz.  -EINVAL means a malformed structure. */
static const struct check_row {
	const char *name;
	struct pvclock_vcpu_time_info clock;
	int result;
} check_rows[] = {
#define ROW(name, result, mul, shift, ...)						\
	{ name, { .tsc_to_system_mul = mul, .tsc_shift = shift, __VA_ARGS__ }, result }
	ROW("reference at the TSC", 0, BIT(31), 0, .tsc_timestamp = 1000),
	ROW("reference ahead", -ERANGE, BIT(31), 0, .tsc_timestamp = 1001),
	ROW("oldest reference", 0, BIT(31), 0, .tsc_timestamp = 1000 - BIT_ULL(62)),
	ROW("older reference", -ERANGE, BIT(31), 0, .tsc_timestamp = 999 - BIT_ULL(62)),
	ROW("largest value", 0, BIT(31), 0, .system_time = S64_MAX - 500),
	ROW("larger value", -ERANGE, BIT(31), 0, .system_time = S64_MAX - 499),
	ROW("overflow of the distance", -ERANGE, BIT(31), 2, .tsc_timestamp = 1000 - BIT_ULL(62)),
	ROW("500 MHz", 0, BIT(31), 2),
	ROW("just below 500 MHz", -ERANGE, BIT(31) + 1, 2),
	ROW("less than 1 kHz above 2 GHz", 0, 4294965149, -1),
	ROW("1 kHz above 2 GHz", -ERANGE, 4294965148, -1),
	ROW("smallest shift", -ERANGE, BIT(31), -31),
	ROW("largest shift", -ERANGE, BIT(31), 31),
	ROW("multiplier not normalized", -EINVAL, BIT(30), 1),
	ROW("shift too small", -EINVAL, BIT(31), -32),
	ROW("shift too large", -EINVAL, BIT(31), 32),
	ROW("version and known flag", 0, BIT(31), 0, .version = 1, .flags = PVCLOCK_TSC_STABLE_BIT),
	ROW("another flag", -EINVAL, BIT(31), 0, .flags = PVCLOCK_GUEST_STOPPED),
	ROW("pad0", -EINVAL, BIT(31), 0, .pad0 = BIT(31)),
	ROW("pad[0]", -EINVAL, BIT(31), 0, .pad[0] = 1),
	ROW("pad[1]", -EINVAL, BIT(31), 0, .pad[1] = 1),
};

KUNIT_ARRAY_PARAM_DESC(check, check_rows, name);

static void guest_clock_check_test(struct kunit *test)
{
	const struct check_row *row = test->param_value;

	KUNIT_EXPECT_EQ(test, row->result, !guest_clock_is_valid(&row->clock) ? -EINVAL :
			guest_clock_check(&row->clock, 1000, 500000, 2000000));
}

static const struct renew_row {
	const char *name;
	u32 mul;
	s8 shift;
	u64 period;
} renew_rows[] = {
	{ "1 cycle, 2^30 ns", BIT(31), 31, 1 },
	{ "2 cycles, 1 ns", BIT(31), 0, 2 },
	{ "2^12 cycles", 0xccd00000, 0, BIT(12) },
	{ "2^12 cycles, shifted right", 0xaa000000, -5, BIT(12) },
	{ "2^12 cycles, shifted left", 0xccccc000, 6, BIT(12) },
	{ "longer than the test", U32_MAX, 0, BIT_ULL(32) },
};

KUNIT_ARRAY_PARAM_DESC(renew, renew_rows, name);

/* Count nanoseconds and their fraction cycle by cycle, and renew the reference as often. */
static void guest_clock_renew_test(struct kunit *test)
{
	const struct renew_row *row = test->param_value;
	struct pvclock_vcpu_time_info clock = {
		.tsc_timestamp = -2000,	/* wraps */
		.tsc_to_system_mul = row->mul,
		.tsc_shift = row->shift,
	};
	u64 start = clock.tsc_timestamp, ns = 0, fraction = 0, cycles;

	for (cycles = 0; cycles < BIT(15); cycles++) {
		KUNIT_ASSERT_EQ(test, guest_clock_read(&clock, start + cycles), ns);
		guest_clock_renew(&clock, start + cycles);
		/* Leave a reference that is ahead alone. */
		guest_clock_renew(&clock, clock.tsc_timestamp - 1);
		KUNIT_ASSERT_EQ(test, guest_clock_read(&clock, start + cycles), ns);
		KUNIT_ASSERT_EQ(test, clock.tsc_timestamp - start, cycles & -row->period);

		if (row->shift >= 0 || (cycles + 1) % BIT(-row->shift) == 0)
			fraction += (u64)row->mul << max(row->shift, 0);
		ns += fraction >> 32;
		fraction &= U32_MAX;
	}
}

static struct kunit_case guest_clock_cases[] = {
	KUNIT_CASE_PARAM(guest_clock_read_test, read_gen_params),
	KUNIT_CASE_PARAM(guest_clock_check_test, check_gen_params),
	KUNIT_CASE_PARAM(guest_clock_renew_test, renew_gen_params),
	{}
};

static struct kunit_suite guest_clock_suite = {
	.name = "kvm_guest_clock",
	.test_cases = guest_clock_cases,
};

kunit_test_suite(guest_clock_suite);

MODULE_DESCRIPTION("KUnit tests of the arithmetic of the guest clock");
MODULE_LICENSE("GPL");
