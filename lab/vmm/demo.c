// SPDX-License-Identifier: GPL-2.0
/*
 * Measure how far a guest's clock moves against its TSC when a VMM restores it
 * in a new VM, and when KVM takes a new reference for it while the guest runs.
 *
 * Both clocks, the one before and the one after, are functions of the guest's
 * TSC, read from the guest's memory. The error is their difference at one TSC
 * value, so no time passes in between, and reading it costs no accuracy.
 *
 * Prints a line a trial, `trial EVENT METHOD NS`, and at the end a line for
 * each event and method, `result EVENT METHOD TRIALS MEDIAN WORST`, in ns, of
 * absolute values. lab/vmm/demo-table.sh makes a table of them. Then, for live updates
 * in a row, a line each, `hop METHOD N NS`. lab/vmm/demo-drift.sh makes a plot of them.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/ioctl.h>

#include "vmm.h"

#define TRIALS			100
#define HOPS			100
#define PAUSE_NS		10000000	/* between source and destination */
#define AGE_NS			3000000000ull	/* of a VM at the clock update */

enum event { LIVE_UPDATE, MIGRATION };
enum method { SET_CLOCK, SET_CLOCK_GUEST, CLOCK_UPDATE };

static const char *const event_names[] = { "live-update", "migration" };
static const char *const method_names[] = {
	"KVM_SET_CLOCK", "KVM_SET_CLOCK_GUEST", "clock-update",
};

/* What a VMM takes along. */
struct saved_state {
	struct kvm_clock_data vm_clock;
	struct pvclock_vcpu_time_info guest_clock;
	uint64_t tsc_offset;
	uint32_t tsc_khz;
};

static struct saved_state save(struct vmm *vmm, enum method method)
{
	struct saved_state state = {};

	state.tsc_offset = vmm_get_tsc_offset(vmm);
	state.tsc_khz = must_ioctl(vmm->vcpu, KVM_GET_TSC_KHZ, 0);
	must_ioctl(vmm->vm, KVM_GET_CLOCK, &state.vm_clock);
	if (~state.vm_clock.flags & (KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC))
		errx(1, "KVM_GET_CLOCK gives no host TSC: is the clocksource tsc?");
	if (method == SET_CLOCK_GUEST)
		must_ioctl(vmm->vcpu, KVM_GET_CLOCK_GUEST, &state.guest_clock);
	return state;
}

/*
 * The TSC goes on from the saved value, plus the time that has passed since in
 * terms of CLOCK_REALTIME, which two hosts share.
 */
static uint64_t moved_tsc_offset(struct vmm *vmm, const struct saved_state *state)
{
	const struct kvm_clock_data *before = &state->vm_clock;
	struct kvm_clock_data now;
	uint64_t elapsed_cycles, guest_tsc;

	must_ioctl(vmm->vm, KVM_GET_CLOCK, &now);
	if (~now.flags & (KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC))
		errx(1, "KVM_GET_CLOCK gives no host TSC: is the clocksource tsc?");

	elapsed_cycles = (now.realtime - before->realtime) * state->tsc_khz / 1000000;
	guest_tsc = before->host_tsc + state->tsc_offset + elapsed_cycles;
	return guest_tsc - now.host_tsc;
}

static struct vmm restore(const struct saved_state *state, enum event event,
			  enum method method)
{
	struct kvm_clock_data vm_clock = state->vm_clock;
	struct pvclock_vcpu_time_info guest_clock = state->guest_clock;
	struct vmm vmm = vmm_create();

	/* A VM has its master clock, and gives the host TSC, after the first run. */
	vmm_read_guest_tsc(&vmm);
	vmm_set_tsc_offset(&vmm, event == MIGRATION ?
			   moved_tsc_offset(&vmm, state) : state->tsc_offset);

	if (method == SET_CLOCK_GUEST) {
		must_ioctl(vmm.vcpu, KVM_SET_CLOCK_GUEST, &guest_clock);
	} else {
		vm_clock.flags = KVM_CLOCK_REALTIME;
		must_ioctl(vmm.vm, KVM_SET_CLOCK, &vm_clock);
	}
	return vmm;
}

static int64_t clock_error(const struct pvclock_vcpu_time_info *before, struct vmm *vmm)
{
	uint64_t tsc = vmm_read_guest_tsc(vmm);
	struct pvclock_vcpu_time_info after = vmm_guest_clock(vmm);

	return clock_at(&after, tsc) - clock_at(before, tsc);
}

/* Returns a VM that has run; *clock is its guest's. */
static struct vmm start(struct pvclock_vcpu_time_info *clock)
{
	struct vmm vmm = vmm_create();

	vmm_guest_enables_clock(&vmm, 0);
	vmm_read_guest_tsc(&vmm);
	*clock = vmm_guest_clock(&vmm);
	return vmm;
}

/* Returns the VM after the event; *error is how far its clock has moved. */
static struct vmm run_event(struct vmm *source, enum event event, enum method method,
			    int64_t *error)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct pvclock_vcpu_time_info before = vmm_guest_clock(source);
	struct saved_state state = save(source, method);
	struct vmm vmm;

	if (event == MIGRATION)
		nanosleep(&pause, NULL);

	vmm = restore(&state, event, method);
	vmm_guest_enables_clock(&vmm, 0);
	*error = clock_error(&before, &vmm);
	return vmm;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void wait_until(uint64_t ns)
{
	uint64_t now;

	while ((now = now_ns()) < ns) {
		struct timespec rest = {
			.tv_sec = (ns - now) / 1000000000,
			.tv_nsec = (ns - now) % 1000000000,
		};

		nanosleep(&rest, NULL);
	}
}

/*
 * The VMs of a series of trials run for a while, then each guest writes the old
 * and the new clock MSR, as a boot loader and a kernel do, and KVM takes a new
 * reference for the clock.
 */
static void update_clocks(struct vmm *vmms, int64_t *errors)
{
	struct pvclock_vcpu_time_info before[TRIALS];
	int i;

	for (i = 0; i < TRIALS; i++) {
		vmm_read_guest_tsc(&vmms[i]);
		before[i] = vmm_guest_clock(&vmms[i]);
	}

	wait_until(now_ns() + AGE_NS);
	for (i = 0; i < TRIALS; i++) {
		vmm_guest_enables_clock(&vmms[i], 1);
		vmm_guest_enables_clock(&vmms[i], 0);
		errors[i] = clock_error(&before[i], &vmms[i]);
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = llabs(*(const int64_t *)a), y = llabs(*(const int64_t *)b);

	return (x > y) - (x < y);
}

static void report(enum event event, enum method method, int64_t *errors)
{
	int i;

	for (i = 0; i < TRIALS; i++)
		printf("trial %s %s %" PRId64 "\n", event_names[event],
		       method_names[method], errors[i]);

	qsort(errors, TRIALS, sizeof(*errors), compare);
	printf("result %s %s %d %lld %lld\n", event_names[event],
	       method_names[method], TRIALS, llabs(errors[TRIALS / 2]),
	       llabs(errors[TRIALS - 1]));
}

static void run_trials(enum event event, enum method method, int update)
{
	struct pvclock_vcpu_time_info clock;
	struct vmm source = start(&clock), vmms[TRIALS];
	int64_t errors[TRIALS];
	int i;

	/* Each VM is the source of the next one. */
	for (i = 0; i < TRIALS; i++)
		vmms[i] = run_event(i ? &vmms[i - 1] : &source, event, method, &errors[i]);
	report(event, method, errors);

	if (update) {
		update_clocks(vmms, errors);
		report(event, CLOCK_UPDATE, errors);
	}

	vmm_destroy(&source);
	for (i = 0; i < TRIALS; i++)
		vmm_destroy(&vmms[i]);
}

/*
 * One live update after the other: every VM starts from what was saved in the one
 * before. The errors are against the first VM's clock, so they show what adds up.
 */
static void run_chain(enum method method)
{
	struct pvclock_vcpu_time_info first;
	struct vmm vmm = start(&first);
	int hop;

	for (hop = 1; hop <= HOPS; hop++) {
		struct saved_state state = save(&vmm, method);

		vmm_destroy(&vmm);
		vmm = restore(&state, LIVE_UPDATE, method);
		vmm_guest_enables_clock(&vmm, 0);
		printf("hop %s %d %" PRId64 "\n", method_names[method], hop,
		       clock_error(&first, &vmm));
	}
	vmm_destroy(&vmm);
}

static int has_clock_guest(void)
{
	struct vmm vmm = vmm_create();
	int has = must_ioctl(vmm.vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_CLOCK_GUEST);

	vmm_destroy(&vmm);
	return has;
}

int main(void)
{
	int has_guest = has_clock_guest();
	int event;

	/* After the last restore, the VMs go on, and nothing corrects the update. */
	for (event = LIVE_UPDATE; event <= MIGRATION; event++) {
		run_trials(event, SET_CLOCK, !has_guest);
		if (has_guest)
			run_trials(event, SET_CLOCK_GUEST, 1);
	}

	run_chain(has_guest ? SET_CLOCK_GUEST : SET_CLOCK);
	return 0;
}
