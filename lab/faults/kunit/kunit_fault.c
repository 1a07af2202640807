// SPDX-License-Identifier: GPL-2.0
/*
 * What can go wrong with a KUnit suite, on purpose: see fault.c.
 */
#include <kunit/test.h>
#include <linux/module.h>

static void pass(struct kunit *test)
{
}

static void fail(struct kunit *test)
{
	KUNIT_FAIL(test, "on purpose");
}

static void skip(struct kunit *test)
{
	kunit_skip(test, "on purpose");
}

static int init(struct kunit_suite *suite)
{
	return -ENODEV;
}

static struct kunit_case fail_cases[] = { KUNIT_CASE(pass), KUNIT_CASE(fail), {} };
static struct kunit_suite fail_suite = { .name = "fault_fail", .test_cases = fail_cases };

static struct kunit_case skip_cases[] = { KUNIT_CASE(pass), KUNIT_CASE(skip), {} };
static struct kunit_suite skip_suite = { .name = "fault_skip", .test_cases = skip_cases };

static struct kunit_case no_cases[] = { {} };
static struct kunit_suite empty_suite = { .name = "fault_empty", .test_cases = no_cases };

static struct kunit_case init_cases[] = { KUNIT_CASE(pass), {} };
static struct kunit_suite init_suite = {
	.name = "fault_init",
	.suite_init = init,
	.test_cases = init_cases,
};

kunit_test_suites(&fail_suite, &skip_suite, &empty_suite, &init_suite);

/* Else it taints the kernel as out of tree, and the lab would stop at that. */
MODULE_INFO(intree, "Y");
MODULE_DESCRIPTION("KUnit suites that go wrong on purpose");
MODULE_LICENSE("GPL");
