// SPDX-License-Identifier: GPL-2.0
/*
 * Run save_clock() and restore_clock() of clock.c, in new VMs,
 * with each of their ways. Built as a 64-bit and as a 32-bit program.
 */
#include <inttypes.h>
#include <stdio.h>

#include "clock.h"
#include "vmm.h"

static int failures;

static void check(const char *what, int ok)
{
	printf("%s - %s, %zu-bit program\n", ok ? "ok" : "not ok", what,
	       8 * sizeof(void *));
	failures += !ok;
}

/* The error of the clock in a new VM with the same TSC, in ns. */
static int64_t restore_error(const struct saved_clock *saved, uint64_t tsc_offset,
			     const struct pvclock_vcpu_time_info *before)
{
	struct vmm vmm = vmm_create();
	struct pvclock_vcpu_time_info after;
	uint64_t tsc;
	int r;

	vmm_set_tsc_offset(&vmm, tsc_offset);
	r = restore_clock(vmm.vm, vmm.vcpu, saved);
	check("restore_clock() succeeds", r == 0);

	vmm_guest_enables_clock(&vmm, 0);
	tsc = vmm_read_guest_tsc(&vmm);
	after = vmm_guest_clock(&vmm);
	vmm_destroy(&vmm);
	return clock_at(&after, tsc) - clock_at(before, tsc);
}

int main(void)
{
	struct pvclock_vcpu_time_info before;
	struct saved_clock saved;
	struct vmm vmm = vmm_create();
	uint64_t tsc_offset;
	int64_t error;

	vmm_guest_enables_clock(&vmm, 0);
	vmm_read_guest_tsc(&vmm);
	before = vmm_guest_clock(&vmm);
	tsc_offset = vmm_get_tsc_offset(&vmm);
	check("save_clock() succeeds", save_clock(vmm.vm, vmm.vcpu, &saved) == 0);
	check("the clock is saved as a function", saved.has_guest);
	vmm_destroy(&vmm);

	error = restore_error(&saved, tsc_offset, &before);
	printf("# error %" PRId64 " ns\n", error);
	check("the function is restored exactly", error == 0);

	/* A reference that is ahead of the TSC: the value has to do. */
	saved.guest.tsc_timestamp += 1ull << 60;
	error = restore_error(&saved, tsc_offset, &before);
	printf("# error %" PRId64 " ns\n", error);
	check("after ERANGE the clock falls back to the value", error != 0);

	saved.guest.pad0 = 1;
	error = restore_error(&saved, tsc_offset, &before);
	printf("# error %" PRId64 " ns\n", error);
	check("after EINVAL the clock falls back to the value", error != 0);

	vmm = vmm_create();
	check("without a value it is an error", restore_clock(-1, vmm.vcpu, &saved) < 0);
	vmm_destroy(&vmm);

	return failures != 0;
}
