// SPDX-License-Identifier: GPL-2.0
/*
 * Count the instructions of one call: of the ioctls that save and restore the
 * guest's clock, of the old ones, of one that does nothing, and of a KVM_RUN
 * whose guest exits at once. All of them from userspace to userspace.
 *
 * Needs the emulator's time to be the number of instructions (`time counted`,
 * see lab/run). A timer interrupt now and then adds to a call, so a figure is
 * the median of many calls. The others are undisturbed, and take the same number
 * of instructions each: every figure is measured twice, in new VMs, and has to
 * be the same. "First-KVM_RUN" is the mean of the first one of each vCPU, with all
 * that they make KVM do for the other vCPUs, and with interrupts.
 *
 * Prints `count CALL VCPUS INSTRUCTIONS`. lab/vmm/bench-table.sh makes a table of it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "vmm.h"

#define CYCLES_PER_INSTRUCTION	2	/* of the TSC, with lab/run's -icount */
#define WARM_UP			100
#define CALLS			1001	/* odd: the median is one of them */
#define MAX_VCPUS		256
#define MAX_CALLS		8

static const unsigned int sizes[] = { 1, 8, 64, MAX_VCPUS };

struct call {
	const char *name;
	int fd;
	unsigned long request;
	void *arg;
};

struct count {
	const char *name;
	uint64_t instructions;
};

/* 1000 instructions: from one rdtsc on, up to the next one and with it. */
static uint64_t cycles_of_1000_instructions(void)
{
	uint32_t cycles;

	asm volatile("rdtsc\n\t"
		     "mov %%eax, %%ecx\n\t"
		     ".rept 998\n\t"
		     "nop\n\t"
		     ".endr\n\t"
		     "rdtsc\n\t"
		     "sub %%ecx, %%eax"
		     : "=a" (cycles) : : "ecx", "edx", "cc");
	return cycles;
}

/* An interrupt can disturb one time, but not a hundred times. */
static void check_that_time_is_counted(void)
{
	uint64_t cycles = 0;
	int i;

	for (i = 0; i < 100; i++) {
		cycles = cycles_of_1000_instructions();
		if (cycles == 1000 * CYCLES_PER_INSTRUCTION)
			return;
	}
	errx(1, "1000 instructions take %" PRIu64 " cycles: is this 'time counted'?",
	     cycles);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t count_instructions(const struct call *call)
{
	uint64_t cycles[CALLS];
	int i;

	for (i = -WARM_UP; i < CALLS; i++) {
		uint64_t before = __rdtsc(), after;
		int r = ioctl(call->fd, call->request, call->arg);

		after = __rdtsc();
		if (r < 0)
			err(1, "%s", call->name);
		if (i >= 0)
			cycles[i] = after - before;
	}

	qsort(cycles, CALLS, sizeof(*cycles), compare);
	return cycles[CALLS / 2] / CYCLES_PER_INSTRUCTION;
}

/* Let all vCPUs run what the first one does. */
static void report_first_runs(struct vmm *vmm, const int *vcpus, unsigned int nr_vcpus)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t before, cycles;
	unsigned int id;

	must_ioctl(vmm->vcpu, KVM_GET_SREGS, &sregs);
	must_ioctl(vmm->vcpu, KVM_GET_REGS, &regs);
	for (id = 1; id < nr_vcpus; id++) {
		must_ioctl(vcpus[id], KVM_SET_SREGS, &sregs);
		must_ioctl(vcpus[id], KVM_SET_REGS, &regs);
	}

	before = __rdtsc();
	for (id = 1; id < nr_vcpus; id++)
		must_ioctl(vcpus[id], KVM_RUN, NULL);
	cycles = __rdtsc() - before;
	printf("count First-KVM_RUN %u %" PRIu64 "\n", nr_vcpus,
	       cycles / CYCLES_PER_INSTRUCTION / (nr_vcpus - 1));
}

/* Fills @counts, as far as the kernel has the calls, and returns how many. */
static int measure(unsigned int nr_vcpus, struct count *counts)
{
	struct vmm vmm = vmm_create();
	struct kvm_clock_data got_clock, set_clock = {};	/* no flags: at its cheapest */
	struct pvclock_vcpu_time_info guest_clock;
	uintptr_t khz = must_ioctl(vmm.vcpu, KVM_GET_TSC_KHZ, NULL);
	const struct call calls[] = {
		{ "KVM_RUN", vmm.vcpu, KVM_RUN, NULL },
		{ "KVM_GET_TSC_KHZ", vmm.vcpu, KVM_GET_TSC_KHZ, NULL },
		{ "KVM_SET_TSC_KHZ", vmm.vcpu, KVM_SET_TSC_KHZ, (void *)khz },
		{ "KVM_GET_CLOCK", vmm.vm, KVM_GET_CLOCK, &got_clock },
		{ "KVM_SET_CLOCK", vmm.vm, KVM_SET_CLOCK, &set_clock },
		{ "KVM_GET_CLOCK_GUEST", vmm.vcpu, KVM_GET_CLOCK_GUEST, &guest_clock },
		{ "KVM_SET_CLOCK_GUEST", vmm.vcpu, KVM_SET_CLOCK_GUEST, &guest_clock },
	};
	int nr_calls = sizeof(calls) / sizeof(*calls);
	int vcpus[MAX_VCPUS];
	uintptr_t id;
	int i;

	for (id = 1; id < nr_vcpus; id++)
		vcpus[id] = must_ioctl(vmm.vm, KVM_CREATE_VCPU, (void *)id);

	vmm_guest_enables_clock(&vmm, 0);
	vmm_guest_only_exits(&vmm);
	if (nr_vcpus > 1)
		report_first_runs(&vmm, vcpus, nr_vcpus);

	if (!must_ioctl(vmm.vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_CLOCK_GUEST))
		nr_calls -= 2;
	for (i = 0; i < nr_calls; i++) {
		counts[i].name = calls[i].name;
		counts[i].instructions = count_instructions(&calls[i]);
	}
	if (vmm.run->exit_reason != KVM_EXIT_IO)
		errx(1, "the guest stopped for reason %u, not because of I/O",
		     vmm.run->exit_reason);

	for (id = 1; id < nr_vcpus; id++)
		close(vcpus[id]);
	vmm_destroy(&vmm);
	return nr_calls;
}

static void report(unsigned int nr_vcpus)
{
	struct count first[MAX_CALLS], second[MAX_CALLS];
	int nr_calls = measure(nr_vcpus, first);
	int i;

	measure(nr_vcpus, second);
	for (i = 0; i < nr_calls; i++) {
		if (first[i].instructions != second[i].instructions)
			errx(1, "%s with %u vCPUs took %" PRIu64 " and then %" PRIu64
			     " instructions", first[i].name, nr_vcpus,
			     first[i].instructions, second[i].instructions);
		printf("count %s %u %" PRIu64 "\n", first[i].name, nr_vcpus,
		       first[i].instructions);
	}
}

int main(void)
{
	unsigned int i;

	check_that_time_is_counted();
	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		report(sizes[i]);
	return 0;
}
