// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the arithmetic of the guest's clock, guest_clock.h.
 *
 * The expected values are worked out by hand.  In the comments, a clock's rate is
 * mul * 2^(shift - 32) ns per cycle, so mul 2^31 means 1/2 ns with shift 0 and
 * 1 ns with shift 1.
 */
#include <kunit/test.h>

#include <linux/bits.h>
#include <linux/limits.h>
#include <linux/module.h>

#include "guest_clock.h"

#define HALF_NS		((u32)BIT(31))
#define MAX_MUL		U32_MAX		/* 2^32 - 1 */

/* No field that is kept is zero, so that a lost one is noticed. */
static struct pvclock_vcpu_time_info make_clock(u64 tsc, u64 ns, u32 mul, s8 shift)
{
	return (struct pvclock_vcpu_time_info) {
		.version = 6,
		.tsc_timestamp = tsc,
		.system_time = ns,
		.tsc_to_system_mul = mul,
		.tsc_shift = shift,
		.flags = PVCLOCK_TSC_STABLE_BIT,
	};
}

/* --- guest_clock_read ----------------------------------------------------- */

struct read_case {
	const char *name;
	u64 delta;		/* cycles since the reference */
	u32 mul;
	s8 shift;
	u64 ns;			/* since the reference */
};

static const struct read_case read_cases[] = {
	{ "no cycle", 0, MAX_MUL, 31, 0 },
	{ "a cycle of 1 ns", 1, HALF_NS, 1, 1 },
	/* 1/2 */
	{ "half a ns", 1, HALF_NS, 0, 0 },
	/* 1 - 2^-32 */
	{ "nearly a ns", 1, MAX_MUL, 0, 0 },

	/* (2^32 - 1) * 2^-32 */
	{ "smallest mul, below 1 ns", BIT_ULL(32) - 1, 1, 0, 0 },
	{ "smallest mul, 1 ns", BIT_ULL(32), 1, 0, 1 },
	/* 2^32 - 2^-32 */
	{ "smallest mul, largest delta", U64_MAX, 1, 0, BIT_ULL(32) - 1 },

	/* (2^32 - 1)^2 * 2^-32 = 2^32 - 2 + 2^-32 */
	{ "largest mul, below 2^32", BIT_ULL(32) - 1, MAX_MUL, 0, BIT_ULL(32) - 2 },
	{ "largest mul, 2^32", BIT_ULL(32), MAX_MUL, 0, BIT_ULL(32) - 1 },
	/* (2^32 + 1) * (2^32 - 1) * 2^-32 = 2^32 - 2^-32 */
	{ "largest mul, above 2^32", BIT_ULL(32) + 1, MAX_MUL, 0, BIT_ULL(32) - 1 },
	/*
	 * (2^33 - 1) * (2^32 - 1) * 2^-32 = 2^33 - 3 + 2^-32: 2^32 - 1 from the
	 * upper half of the delta, 2^32 - 2 from its lower half.
	 */
	{ "carry from the lower half", BIT_ULL(33) - 1, MAX_MUL, 0, BIT_ULL(33) - 3 },

	/* 2^63 - 2^31 - 1 + 2^-32 */
	{ "largest mul, below 2^63", BIT_ULL(63) - 1, MAX_MUL, 0, BIT_ULL(63) - BIT_ULL(31) - 1 },
	{ "largest mul, 2^63", BIT_ULL(63), MAX_MUL, 0, BIT_ULL(63) - BIT_ULL(31) },
	/* 2^63 - 2^31 + 1 - 2^-32 */
	{ "largest mul, above 2^63", BIT_ULL(63) + 1, MAX_MUL, 0, BIT_ULL(63) - BIT_ULL(31) },
	/* (2^64 - 1) * (2^32 - 1) * 2^-32 = 2^64 - 2^32 - 1 + 2^-32 */
	{ "largest mul, largest delta", U64_MAX, MAX_MUL, 0, U64_MAX - BIT_ULL(32) },

	/* The lowest bit goes first: 1 - 2^-32, and not 3/2 of that. */
	{ "bit lost before the product", 3, MAX_MUL, -1, 0 },
	{ "31 bits lost", BIT_ULL(31) - 1, MAX_MUL, -31, 0 },
	/* 3 * (1 - 2^-32) */
	{ "31 bits lost of 33", BIT_ULL(33) - 1, MAX_MUL, -31, 2 },
	{ "2^63 by -31", BIT_ULL(63), MAX_MUL, -31, BIT_ULL(32) - 1 },

	/* 2^31 * 2^31 * 2^-32 */
	{ "1 by 31", 1, HALF_NS, 31, BIT_ULL(30) },
	/* (2^64 - 2^31) * (2^32 - 1) * 2^-32 = 2^64 - 2^32 - 2^31 + 1/2 */
	{ "33 bits by 31", BIT_ULL(33) - 1, MAX_MUL, 31, U64_MAX - BIT_ULL(32) - BIT_ULL(31) + 1 },
	/* The guest's shift loses what is above 2^64, too. */
	{ "34th bit by 31", BIT_ULL(33), MAX_MUL, 31, 0 },
	{ "34 bits by 31", BIT_ULL(33) + 1, HALF_NS, 31, BIT_ULL(30) },
};

KUNIT_ARRAY_PARAM_DESC(read, read_cases, name);

/* Where the reference is, and that something wraps, makes no difference. */
static void read_deltas(struct kunit *test)
{
	const u64 values[] = { 0, 1, BIT_ULL(32), BIT_ULL(63), U64_MAX - 1, U64_MAX };
	const struct read_case *c = test->param_value;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		for (j = 0; j < ARRAY_SIZE(values); j++) {
			struct pvclock_vcpu_time_info clock =
				make_clock(values[i], values[j], c->mul, c->shift);

			KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, values[i] + c->delta),
					values[j] + c->ns);
		}
	}
}

static void read_shifts(struct kunit *test)
{
	int shift;

	for (shift = -GUEST_CLOCK_MAX_SHIFT; shift <= GUEST_CLOCK_MAX_SHIFT; shift++) {
		struct pvclock_vcpu_time_info clock = make_clock(0, 0, HALF_NS, shift);
		/* 2^32 * 2^31 * 2^(shift - 32), nothing is lost */
		u64 ns = BIT_ULL(31 + shift);
		/* The cycle before: 2^(shift - 1), or 1/2 where bits are lost. */
		u64 ns_of_a_cycle = shift > 0 ? BIT_ULL(shift - 1) : 1;

		KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, BIT_ULL(32)), ns);
		KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, BIT_ULL(32) - 1),
				ns - ns_of_a_cycle);
	}
}

/* --- guest_clock_set_rate ------------------------------------------------- */

static void set_rate(struct kunit *test)
{
	/* 1 ns per cycle, then 1/2 */
	struct pvclock_vcpu_time_info clock = make_clock(1000, 50000, HALF_NS, 1);
	struct pvclock_vcpu_time_info expected = make_clock(4000, 53000, HALF_NS, 0);

	guest_clock_set_rate(&clock, 4000, HALF_NS, 0);

	KUNIT_EXPECT_MEMEQ(test, &clock, &expected, sizeof(clock));
	KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, 6000), 54000);
}

/* Also if the old rate rounds at that TSC, or something wraps. */
static void set_rate_is_continuous(struct kunit *test)
{
	const u64 tscs[] = { 0, 1, 1001, BIT_ULL(32) - 1, BIT_ULL(63) + 1, U64_MAX };
	int i;

	for (i = 0; i < ARRAY_SIZE(tscs); i++) {
		/* 2.5 GHz, then 3 GHz */
		struct pvclock_vcpu_time_info clock = make_clock(7, U64_MAX, 0xcccccccc, -1);
		u64 ns = guest_clock_read(&clock, tscs[i]);

		guest_clock_set_rate(&clock, tscs[i], 0xaaaaaaaa, -1);
		KUNIT_EXPECT_EQ(test, guest_clock_read(&clock, tscs[i]), ns);
	}
}

/* --- guest_clock_is_valid ------------------------------------------------- */

static void valid_any_value(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(U64_MAX, U64_MAX, MAX_MUL, 0);

	KUNIT_EXPECT_TRUE(test, guest_clock_is_valid(&clock));
	clock.version = U32_MAX;
	KUNIT_EXPECT_TRUE(test, guest_clock_is_valid(&clock));
	clock = (struct pvclock_vcpu_time_info) { .tsc_to_system_mul = 1 };
	KUNIT_EXPECT_TRUE(test, guest_clock_is_valid(&clock));
}

static void valid_mul(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, 0, 0);

	KUNIT_EXPECT_FALSE(test, guest_clock_is_valid(&clock));
	clock.tsc_to_system_mul = 1;
	KUNIT_EXPECT_TRUE(test, guest_clock_is_valid(&clock));
}

static void valid_shift(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, HALF_NS, 0);
	int shift;

	for (shift = S8_MIN; shift <= S8_MAX; shift++) {
		clock.tsc_shift = shift;
		KUNIT_EXPECT_EQ_MSG(test, guest_clock_is_valid(&clock),
				    shift >= -31 && shift <= 31, "shift %d", shift);
	}
}

static void valid_flags(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, HALF_NS, 0);
	int flags;

	for (flags = 0; flags <= U8_MAX; flags++) {
		clock.flags = flags;
		KUNIT_EXPECT_EQ_MSG(test, guest_clock_is_valid(&clock),
				    flags == 0 || flags == PVCLOCK_TSC_STABLE_BIT,
				    "flags %#x", flags);
	}
}

static void valid_padding(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, HALF_NS, 0);
	int bit;

	for (bit = 0; bit < 32; bit++) {
		clock.pad0 = BIT(bit);
		KUNIT_EXPECT_FALSE_MSG(test, guest_clock_is_valid(&clock), "bit %d", bit);
	}
	clock.pad0 = 0;

	for (bit = 0; bit < 16; bit++) {
		clock.pad[0] = BIT(bit);
		clock.pad[1] = BIT(bit) >> 8;
		KUNIT_EXPECT_FALSE_MSG(test, guest_clock_is_valid(&clock), "bit %d", bit);
	}
}

/* --- guest_clock_has_rate ------------------------------------------------- */

struct rate_case {
	const char *name;
	u32 mul;
	s8 shift;
	u32 khz;		/* 10^6 * 2^(32 - shift) / mul, rounded down */
};

static const struct rate_case rate_cases[] = {
	{ "2 GHz", HALF_NS, 0, 2000000 },
	{ "2 GHz, smallest mul", 1, 31, 2000000 },
	/* 2 * 10^6 * (1 - 1 / (2^31 + 1)) */
	{ "just below 2 GHz", HALF_NS + 1, 0, 1999999 },
	/* 2 * 10^6 * (1 + 1 / (2^31 - 1)) */
	{ "just above 2 GHz", HALF_NS - 1, 0, 2000000 },

	/* 0xcccccccc is 4/5 * (2^32 - 1), so 2.5 * 10^6 * (1 + 1 / (2^32 - 1)) */
	{ "2.5 GHz", 0xcccccccc, -1, 2500000 },
	/* 0xaaaaaaaa is 2/3 * (2^32 - 1) */
	{ "3 GHz", 0xaaaaaaaa, -1, 3000000 },

	/* 10^6 * 2 / mul */
	{ "1 kHz", 2000000, 31, 1 },
	{ "just below 1 kHz", 2000001, 31, 0 },
	{ "slowest", MAX_MUL, 31, 0 },

	/* 10^6 * 2^12 * (1 + 1 / (2^32 - 1)) */
	{ "largest mul", MAX_MUL, -12, 4096000000 },
	/* 2^11 * 10^6 + 1, so 2^32 * (1 - 1 / (2^11 * 10^6 + 1)) = 2^32 - 2.1 */
	{ "just below 2^32 kHz", 2048000001, -11, U32_MAX - 2 },
};

KUNIT_ARRAY_PARAM_DESC(rate, rate_cases, name);

static void rate_bounds(struct kunit *test)
{
	const struct rate_case *c = test->param_value;
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, c->mul, c->shift);

	KUNIT_EXPECT_TRUE(test, guest_clock_has_rate(&clock, 0, U32_MAX));
	KUNIT_EXPECT_TRUE(test, guest_clock_has_rate(&clock, c->khz, c->khz));
	KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, c->khz + 1, U32_MAX));
	KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, c->khz + 1, c->khz));
	if (c->khz)
		KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, 0, c->khz - 1));
}

/* At least 2^32 kHz: no bounds have it. */
static const struct rate_case absurd_rate_cases[] = {
	/* 10^6 * 2^63 */
	{ "fastest", 1, -31 },
	/* 10^6 * 2^13 */
	{ "smallest mul", 1, 19 },
	/* 10^6 * 2^13 * (1 + 1 / (2^32 - 1)) */
	{ "largest mul", MAX_MUL, -13 },
	/* 10^6 * 2^26 / 5^6 = 2^32 */
	{ "2^32 kHz", 15625, 6 },
};

KUNIT_ARRAY_PARAM_DESC(absurd_rate, absurd_rate_cases, name);

static void rate_absurd(struct kunit *test)
{
	const struct rate_case *c = test->param_value;
	struct pvclock_vcpu_time_info clock = make_clock(0, 0, c->mul, c->shift);

	KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, 0, U32_MAX));
	KUNIT_EXPECT_FALSE(test, guest_clock_has_rate(&clock, U32_MAX, U32_MAX));
}

/* --- guest_clock_restore -------------------------------------------------- */

/* To a TSC of 2 GHz, which stands in for one with the same rate in kHz. */
static int restore(struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	return guest_clock_restore(clock, tsc, HALF_NS, 0, 1999999, 2000000);
}

struct reference_case {
	const char *name;
	u64 age;		/* cycles since the reference */
	int result;
};

static const struct reference_case reference_cases[] = {
	{ "at the TSC", 0, 0 },
	{ "a cycle ago", 1, 0 },
	{ "2^32 ago", BIT_ULL(32), 0 },
	{ "2^63 - 1 ago", BIT_ULL(63) - 1, 0 },
	{ "2^63 ago, which is 2^63 ahead", BIT_ULL(63), -ERANGE },
	{ "2^63 - 1 ahead", BIT_ULL(63) + 1, -ERANGE },
	{ "2^32 ahead", -BIT_ULL(32), -ERANGE },
	{ "a cycle ahead", -1ULL, -ERANGE },
};

KUNIT_ARRAY_PARAM_DESC(reference, reference_cases, name);

static const u64 restore_tscs[] = { 0, 1, BIT_ULL(32), BIT_ULL(63) - 1, BIT_ULL(63), U64_MAX };

/* An equal rate or an error: either way every byte stays as it was. */
static void restore_equal_rate(struct kunit *test)
{
	const struct reference_case *c = test->param_value;
	int i;

	for (i = 0; i < ARRAY_SIZE(restore_tscs); i++) {
		u64 tsc = restore_tscs[i];
		struct pvclock_vcpu_time_info saved = make_clock(tsc - c->age, 5000, HALF_NS, 0);
		struct pvclock_vcpu_time_info clock = saved;

		KUNIT_EXPECT_EQ(test, restore(&clock, tsc), c->result);
		KUNIT_EXPECT_MEMEQ(test, &clock, &saved, sizeof(clock));
	}
}

/* The TSC's own rate is right whatever the bounds are. */
static void restore_equal_rate_any_bounds(struct kunit *test)
{
	struct pvclock_vcpu_time_info saved = make_clock(1000, 5000, HALF_NS, 0);
	struct pvclock_vcpu_time_info clock = saved;

	KUNIT_EXPECT_EQ(test, 0, guest_clock_restore(&clock, 3001, HALF_NS, 0, 0, 0));
	KUNIT_EXPECT_EQ(test, 0, guest_clock_restore(&clock, 3001, HALF_NS, 0, U32_MAX, 0));
	KUNIT_EXPECT_MEMEQ(test, &clock, &saved, sizeof(clock));
}

/* The clock goes on at the TSC's rate, or there is an error and it stays. */
static void restore_other_rate(struct kunit *test)
{
	const struct reference_case *c = test->param_value;
	int i;

	for (i = 0; i < ARRAY_SIZE(restore_tscs); i++) {
		u64 tsc = restore_tscs[i];
		/* (2^31 - 1) * 2^-32: 1/2 - 2^-32 ns per cycle */
		struct pvclock_vcpu_time_info saved = make_clock(tsc - c->age, 5000,
								 HALF_NS - 1, 0);
		struct pvclock_vcpu_time_info clock = saved;
		struct pvclock_vcpu_time_info expected = saved;

		if (!c->result)
			expected = make_clock(tsc, guest_clock_read(&saved, tsc), HALF_NS, 0);

		KUNIT_EXPECT_EQ(test, restore(&clock, tsc), c->result);
		KUNIT_EXPECT_MEMEQ(test, &clock, &expected, sizeof(clock));
	}
}

/* Either of mul and shift makes another rate. */
static void restore_other_mul(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(1000, 5000, HALF_NS, 0);
	/* 2001 / 2 ns, rounded down */
	struct pvclock_vcpu_time_info expected = make_clock(3001, 6000, HALF_NS + 1, 0);

	KUNIT_EXPECT_EQ(test, 0, guest_clock_restore(&clock, 3001, HALF_NS + 1, 0, 0, U32_MAX));
	KUNIT_EXPECT_MEMEQ(test, &clock, &expected, sizeof(clock));
}

static void restore_other_shift(struct kunit *test)
{
	struct pvclock_vcpu_time_info clock = make_clock(1000, 5000, HALF_NS, 0);
	struct pvclock_vcpu_time_info expected = make_clock(3001, 6000, HALF_NS, 1);

	KUNIT_EXPECT_EQ(test, 0, guest_clock_restore(&clock, 3001, HALF_NS, 1, 0, U32_MAX));
	KUNIT_EXPECT_MEMEQ(test, &clock, &expected, sizeof(clock));
}

/* The rate alone, or rate and reference: the caller sees no difference. */
static void restore_rejects_rate(struct kunit *test)
{
	/* 1 GHz; 1 GHz with another mul; 3 GHz; the fastest */
	const struct { u32 mul; s8 shift; } rates[] = {
		{ HALF_NS, 1 }, { MAX_MUL, 0 }, { 0xaaaaaaaa, -1 }, { 1, -31 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(rates); i++) {
		struct pvclock_vcpu_time_info saved = make_clock(1000, 5000, rates[i].mul,
								 rates[i].shift);
		struct pvclock_vcpu_time_info clock = saved;

		KUNIT_EXPECT_EQ(test, restore(&clock, 1000), -ERANGE);
		KUNIT_EXPECT_MEMEQ(test, &clock, &saved, sizeof(clock));
		KUNIT_EXPECT_EQ(test, restore(&clock, 999), -ERANGE);
		KUNIT_EXPECT_MEMEQ(test, &clock, &saved, sizeof(clock));
	}
}

/*
 * Why the reference is kept: after 2 * 10^9 + 1 cycles it is 10^9 + 1/2 ns later.
 * A new reference at the TSC of each restore loses that half, every time.
 */
static void restore_chain(struct kunit *test)
{
	const struct pvclock_vcpu_time_info saved = make_clock(1000, 5000, HALF_NS, 0);
	struct pvclock_vcpu_time_info kept = saved, moved = saved;
	u64 tsc = 1000;
	int i;

	for (i = 0; i < 10000; i++) {
		tsc += 2000000001;
		KUNIT_ASSERT_EQ(test, restore(&kept, tsc), 0);
		guest_clock_set_rate(&moved, tsc, HALF_NS, 0);
	}

	KUNIT_EXPECT_MEMEQ(test, &kept, &saved, sizeof(kept));
	KUNIT_EXPECT_EQ(test, guest_clock_read(&kept, tsc), 5000 + 10000000005000);
	KUNIT_EXPECT_EQ(test, guest_clock_read(&moved, tsc), 5000 + 10000000000000);
}

static struct kunit_case guest_clock_cases[] = {
	KUNIT_CASE_PARAM(read_deltas, read_gen_params),
	KUNIT_CASE(read_shifts),
	KUNIT_CASE(set_rate),
	KUNIT_CASE(set_rate_is_continuous),
	KUNIT_CASE(valid_any_value),
	KUNIT_CASE(valid_mul),
	KUNIT_CASE(valid_shift),
	KUNIT_CASE(valid_flags),
	KUNIT_CASE(valid_padding),
	KUNIT_CASE_PARAM(rate_bounds, rate_gen_params),
	KUNIT_CASE_PARAM(rate_absurd, absurd_rate_gen_params),
	KUNIT_CASE_PARAM(restore_equal_rate, reference_gen_params),
	KUNIT_CASE(restore_equal_rate_any_bounds),
	KUNIT_CASE_PARAM(restore_other_rate, reference_gen_params),
	KUNIT_CASE(restore_other_mul),
	KUNIT_CASE(restore_other_shift),
	KUNIT_CASE(restore_rejects_rate),
	KUNIT_CASE(restore_chain),
	{}
};

static struct kunit_suite guest_clock_suite = {
	.name = "kvm_guest_clock",
	.test_cases = guest_clock_cases,
};

kunit_test_suite(guest_clock_suite);

MODULE_DESCRIPTION("KUnit tests of the arithmetic of the guest's clock");
MODULE_LICENSE("GPL");
