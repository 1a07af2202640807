/* SPDX-License-Identifier: GPL-2.0 */
#ifndef LAB_KVM_CLOCK_HOST_H
#define LAB_KVM_CLOCK_HOST_H

#include <stdbool.h>
#include <stdint.h>

#define EXIT_ERROR	4

/* What a host has for the clocks of its guests. */
struct host {
	char name[65];			/* of the host */
	char kernel[65];		/* its release */
	char cpu[64];			/* model name */
	char clocksource[32];		/* the current one */
	char vm_reason[128];		/* why a VM gets what it gets */
	bool clock_guest;		/* KVM_CAP_CLOCK_GUEST */
	bool master_clock;		/* of a new VM */
	bool constant_tsc;		/* its rate does not follow the CPU's */
	bool nonstop_tsc;		/* it counts in deep sleep states, too: invariant */
	bool tsc_scaling;		/* KVM_CAP_TSC_CONTROL */
	bool secure_tsc;		/* SEV-SNP guests can have a TSC of their own */
	bool vm_exact;			/* saved and restored here, a clock is exact */
	uint32_t tsc_khz;		/* in kHz */
	uint32_t tsc_frac_bits;		/* of the scaling ratio; 0: none, or KVM doesn't tell */
	uint32_t tsc_tolerance_ppm;	/* by which KVM lets the host's TSC stand in */
};

/* Read this host, or exit with a message. */
void host_read(struct host *host);

/* Print as text or as JSON. */
void host_print(const struct host *host);
void host_print_json(const struct host *host);

/* Read the JSON, or exit with a message. */
void host_load(const char *path, struct host *host);

/* In order of severity, and the exit status of `kvm-clock compare`. */
enum fit { FIT_EXACT, FIT_TOLERANCE, FIT_VALUE, FIT_IMPOSSIBLE };

/*
 * Print what the clock of a guest gets that moves from @a to @b, and why.  @guest_khz is
 * the rate that the VM was created with, 0 for that of @a.
 */
enum fit compare_hosts(const struct host *a, const struct host *b, uint32_t guest_khz);

/* Print what happens to the clock of the VM of process @pid, until that ends. */
int watch(int pid);

#endif
