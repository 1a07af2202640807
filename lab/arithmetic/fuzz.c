// SPDX-License-Identifier: GPL-2.0
/*
 * libFuzzer looks for inputs that reach new code of the kernel's, and for one that
 * fails a check.  An input is the bits that a case is made of.
 */
#include <stdio.h>
#include <stdlib.h>

#include "checks.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const u8 *input;
static size_t left;

/* Whole bytes, so that a change of one byte changes one number; then zeros. */
u64 draw(unsigned int bits)
{
	u64 value = 0;

	for (unsigned int i = 0; i < bits && left; i += 8, left--)
		value |= (u64)*input++ << i;
	return bits < 64 ? value & ((1ULL << bits) - 1) : value;
}

static void print_at_exit(void)
{
	print_counts();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	oracle_init();
	return atexit(print_at_exit);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct clock_case c;

	input = data;
	left = size;
	draw_case(&c);
	if (!check_case(&c)) {
		fflush(stdout);
		abort();
	}
	return 0;
}
