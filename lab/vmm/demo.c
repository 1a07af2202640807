// SPDX-License-Identifier: GPL-2.0
/*
 * Measure how far a guest's clock moves against its TSC when a VMM restores it
 * in a new VM, and when KVM takes a new reference for it while the guest runs.
 *
 * Both clocks, the one before and the one after, are functions of the guest's
 * TSC, read from the guest's memory. The error is their difference at one TSC
 * value, so no time passes in between, and reading it costs no accuracy.
 *
 * Prints for each event and method `result EVENT METHOD TRIALS MEDIAN WORST`, in ns, of
 * absolute values, and for each of the live updates in a row `restore METHOD N NS`.
 * lab/vmm/demo.awk makes tables of them.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/ioctl.h>

#include "vm_clock.h"
#include "vmm.h"

#define TRIALS			100
#define RESTORES		100
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
	struct kvm_clock_data vm_clock;		/* for KVM_SET_CLOCK with the series */
	uint8_t state[sizeof(struct vm_clock_state) + sizeof(struct vm_clock_vcpu)];
};

static struct saved_state save(struct vmm *vmm)
{
	struct saved_state saved;

	if (vm_clock_save(vmm->vm, &vmm->vcpu, 1, saved.state, sizeof(saved.state)) < 0)
		err(1, "vm_clock_save");
	must_ioctl(vmm->vm, KVM_GET_CLOCK, &saved.vm_clock);
	if (~saved.vm_clock.flags & (KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC))
		errx(1, "KVM_GET_CLOCK gives no host TSC: is the clocksource tsc?");
	return saved;
}

/*
 * A migration restores on this host, as if it were another one. Without the series,
 * vm_clock_restore() falls back to KVM_SET_CLOCK; with it, call KVM_SET_CLOCK afterwards
 * to measure that.
 */
static struct vmm restore(const struct saved_state *saved, enum event event,
			  enum method method)
{
	struct kvm_clock_data vm_clock = saved->vm_clock;
	struct vmm vmm = vmm_create();
	struct vm_clock_result result;

	/* A VM has its master clock, and gives the host TSC, after the first run. */
	vmm_read_guest_tsc(&vmm);
	if (vm_clock_restore(vmm.vm, &vmm.vcpu, 1, saved->state, sizeof(saved->state),
			     event == MIGRATION ? VM_CLOCK_GO_ON : VM_CLOCK_SAME_HOST,
			     &result) < 0)
		err(1, "%s", result.reason);

	if (method == SET_CLOCK_GUEST && result.outcome != VM_CLOCK_EXACT)
		errx(1, "not restored exactly: %s", result.reason);
	if (method == SET_CLOCK && result.outcome == VM_CLOCK_EXACT) {
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
	struct saved_state state = save(source);
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
	int n;

	for (n = 1; n <= RESTORES; n++) {
		struct saved_state state = save(&vmm);

		vmm_destroy(&vmm);
		vmm = restore(&state, LIVE_UPDATE, method);
		vmm_guest_enables_clock(&vmm, 0);
		printf("restore %s %d %" PRId64 "\n", method_names[method], n,
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

	/* Measure the clock update last: nothing corrects it. */
	for (event = LIVE_UPDATE; event <= MIGRATION; event++) {
		run_trials(event, SET_CLOCK, !has_guest);
		if (has_guest)
			run_trials(event, SET_CLOCK_GUEST, 1);
	}

	run_chain(has_guest ? SET_CLOCK_GUEST : SET_CLOCK);
	return 0;
}
