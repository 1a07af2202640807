// SPDX-License-Identifier: GPL-2.0
/*
 * Test vm_clock.c on KVM, in new VMs: each policy, each way back to KVM_SET_CLOCK, the
 * number of ioctls, and timers.  Compare clocks by evaluating both at one TSC value.
 *
 *	vm_clock_test [stock]
 *
 * With "stock", KVM has to be one without the series.  Where KVM scales TSCs, all is
 * done at the host's rate and at another one.  Prints TAP.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Its static functions, too: a state is changed, and its checksum renewed. */
#include "vm_clock.c"
#include "vmm.h"

#define COUNTED_VCPUS	64
#define TSC_VALUES	500
#define TSC_STEP	((1ull << 40) / TSC_VALUES)

struct blob {
	struct vm_clock_state state;
	struct vm_clock_vcpu vcpus[COUNTED_VCPUS];
};

static unsigned int results, failures, vm_calls, vcpu_calls[COUNTED_VCPUS];
static const int *counted_vcpus;
static bool stock, can_scale;
static uint32_t khz;	/* of the VMs' TSCs, 0 for the host's rate */

/* The linker puts this in place of ioctl(). */
int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	if (counted_vcpus) {
		/* What is done for the first vCPU alone counts for the VM. */
		int i = request == KVM_SET_CLOCK_GUEST || request == KVM_GET_DEVICE_ATTR ||
			request == KVM_GET_MSRS ? COUNTED_VCPUS : 0;

		while (i < COUNTED_VCPUS && counted_vcpus[i] != fd)
			i++;
		(*(i < COUNTED_VCPUS ? &vcpu_calls[i] : &vm_calls))++;
	}
	return __real_ioctl(fd, request, arg);
}

static bool check(bool ok, const char *what)
{
	printf("%s %u - %s, TSC at %s, %zu-bit program\n", ok ? "ok" : "not ok", ++results,
	       what, khz ? "another rate" : "the host's rate", 8 * sizeof(void *));
	failures += !ok;
	return ok;
}

static void seal(struct blob *blob)
{
	blob->state.checksum = checksum(blob, blob->state.size);
}

static struct vmm create(const struct blob *blob)
{
	struct vmm vmm = vmm_create_vm();

	if (blob && vm_clock_prepare(vmm.vm, blob, blob->state.size) < 0)
		err(1, "vm_clock_prepare");
	if (!blob && khz)
		must_ioctl(vmm.vm, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz);
	vmm_add_vcpu(&vmm);
	return vmm;
}

/* A VM that has run for a while, with a TSC of its own; *@clock is its guest's. */
static struct vmm create_source(struct pvclock_vcpu_time_info *clock)
{
	struct vmm vmm = create(NULL);

	vmm_set_tsc_offset(&vmm, vmm_get_tsc_offset(&vmm) + (1ull << 44));
	vmm_guest_enables_clock(&vmm, 0);
	vmm_read_guest_tsc(&vmm);
	*clock = vmm_guest_clock(&vmm);
	return vmm;
}

static struct blob save(struct vmm *vmm)
{
	struct blob blob = { 0 };

	if (vm_clock_save(vmm->vm, &vmm->vcpu, 1, &blob, sizeof(blob)) < 0)
		err(1, "vm_clock_save");
	return blob;
}

/* The largest difference of two clocks, at this TSC and later ones, in ns. */
static uint64_t difference(const struct pvclock_vcpu_time_info *a,
			   const struct pvclock_vcpu_time_info *b, uint64_t tsc, int values)
{
	uint64_t most = 0;

	for (int i = 0; i < values; i++, tsc += TSC_STEP) {
		int64_t ns = clock_at(a, tsc) - clock_at(b, tsc);

		most = (uint64_t)llabs(ns) > most ? (uint64_t)llabs(ns) : most;
	}
	return most;
}

/* The clock of the guest, once it has run; *@tsc is when. */
static struct pvclock_vcpu_time_info run_guest(struct vmm *vmm, uint64_t *tsc)
{
	vmm_guest_enables_clock(vmm, 0);
	*tsc = vmm_read_guest_tsc(vmm);
	return vmm_guest_clock(vmm);
}

static void say(const struct vm_clock_result *result, uint64_t ns)
{
	printf("# off by %" PRIu64 " ns, bound %" PRIu64 " ns, elapsed %" PRIu64 " ns: %s\n",
	       ns, result->bound_ns, result->elapsed_ns, result->reason);
}

/* vm_clock_check() says the same as vm_clock_restore(), but for what depends on when. */
static void test_check(const struct blob *blob, enum vm_clock_policy policy,
		       const struct vm_clock_result *expected)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct vm_clock_result result;

	check(vm_clock_check(kvm, blob, blob->state.size, policy, &result) == 0 &&
	      result.outcome == expected->outcome && result.policy == expected->policy &&
	      result.error == expected->error && result.reason == expected->reason,
	      "vm_clock_check() says so before");
	close(kvm);
}

/* Restore in a new VM: the clock is @before, exactly or to within the bound. */
static struct vm_clock_result test_restore(const struct blob *blob, enum vm_clock_policy policy,
					   const struct pvclock_vcpu_time_info *before,
					   enum vm_clock_outcome outcome, int error,
					   const char *what)
{
	struct vmm vmm = create(blob);
	struct pvclock_vcpu_time_info after;
	struct vm_clock_result result;
	uint64_t tsc, ns, begin, end, moved, tsc_before;
	int r;

	begin = __rdtsc();
	r = vm_clock_restore(vmm.vm, &vmm.vcpu, 1, blob, blob->state.size, policy, &result);
	end = __rdtsc();
	moved = blob->vcpus[0].tsc_offset - vmm_get_tsc_offset(&vmm);
	after = run_guest(&vmm, &tsc);
	ns = difference(before, &after, tsc, outcome == VM_CLOCK_EXACT ? TSC_VALUES : 1);
	say(&result, ns);
	check(r == 0 && result.outcome == outcome && result.error == error, what);
	check(ns <= result.bound_ns && (outcome == VM_CLOCK_VALUE) == !!result.bound_ns,
	      "the clock is as the result says");
	if (result.policy == VM_CLOCK_SAME_HOST)
		check(!moved, "the TSC offset is the same");
	tsc_before = scale_tsc(&blob->state, blob->state.host_tsc);
	if (result.policy == VM_CLOCK_STAND_STILL)
		check(moved >= scale_tsc(&blob->state, begin) - tsc_before &&
		      moved <= scale_tsc(&blob->state, end) - tsc_before,
		      "the TSC stood still from save to restore");
	test_check(blob, policy, &result);
	vmm_destroy(&vmm);
	return result;
}

static void test_policies(void)
{
	enum vm_clock_outcome outcome = stock ? VM_CLOCK_VALUE : VM_CLOCK_EXACT;
	struct pvclock_vcpu_time_info before;
	struct vmm vmm = create_source(&before);
	struct blob blob = save(&vmm);
	struct vm_clock_result result;

	check(!!(blob.state.flags & VM_CLOCK_HAS_FUNCTION) == !stock,
	      "the function is saved if KVM tells it");
	vmm_destroy(&vmm);
	result = test_restore(&blob, VM_CLOCK_AUTO, &before, outcome, 0, "chosen by itself");
	check(result.policy == VM_CLOCK_SAME_HOST && result.elapsed_ns, "it is the same host");
	test_restore(&blob, VM_CLOCK_SAME_HOST, &before, outcome, 0, "the same host");
	result = test_restore(&blob, VM_CLOCK_GO_ON, &before, outcome, 0, "time goes on");
	check(result.elapsed_ns, "time went on");
	result = test_restore(&blob, VM_CLOCK_STAND_STILL, &before, outcome, 0,
			      "time stands still");
	check(!result.elapsed_ns, "time stood still");
}

/* Both hosts could do it, but this state they can't. */
static void test_fallback(void)
{
	struct pvclock_vcpu_time_info before;
	struct vmm vmm = create_source(&before);
	struct blob blob = save(&vmm), bad;

	vmm_destroy(&vmm);
	/* As a kernel with the series saved it: the guest's page has the function, too. */
	blob.state.flags = VM_CLOCK_HAS_FUNCTION;
	blob.state.function = before;
	blob.state.function.version = 0;
	blob.state.function.flags = 0;

	bad = blob;
	bad.state.function.tsc_timestamp += 1ull << 60;
	seal(&bad);
	test_restore(&bad, VM_CLOCK_AUTO, &before, VM_CLOCK_VALUE, stock ? ENOTTY : ERANGE,
		     "a reference that is ahead");
	bad = blob;
	bad.state.function.tsc_to_system_mul ^= 1u << 30;
	seal(&bad);
	test_restore(&bad, VM_CLOCK_SAME_HOST, &before, VM_CLOCK_VALUE, stock ? ENOTTY : ERANGE,
		     "another rate");
	bad = blob;
	bad.state.flags = 0;
	memset(&bad.state.function, 0, sizeof(bad.state.function));
	seal(&bad);
	test_restore(&bad, VM_CLOCK_AUTO, &before, VM_CLOCK_VALUE, 0, "no function");
	seal(&blob);
	test_restore(&blob, VM_CLOCK_AUTO, &before, stock ? VM_CLOCK_VALUE : VM_CLOCK_EXACT,
		     stock ? ENOTTY : 0, "the function of the guest's page");
}

/* With an APIC whose timer is in TSC-deadline mode. */
static struct vmm create_with_apic(const struct blob *blob)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(*cpuid->entries));
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct vmm vmm = vmm_create_vm();
	struct kvm_lapic_state apic;

	must_ioctl(vmm.vm, KVM_CREATE_IRQCHIP, 0);
	if (vm_clock_prepare(vmm.vm, blob, blob->state.size) < 0)
		err(1, "vm_clock_prepare");
	vmm_add_vcpu(&vmm);
	cpuid->nent = 256;
	must_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	for (unsigned int i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |= 1u << 24;
	must_ioctl(vmm.vcpu, KVM_SET_CPUID2, cpuid);
	must_ioctl(vmm.vcpu, KVM_GET_LAPIC, &apic);
	memcpy(apic.regs + 0xf0, &(uint32_t){ 0x1ff }, 4);
	memcpy(apic.regs + 0x320, &(uint32_t){ 2u << 17 | 0x40 }, 4);
	must_ioctl(vmm.vcpu, KVM_SET_LAPIC, &apic);
	close(kvm);
	free(cpuid);
	return vmm;
}

/*
 * KVM arms the timer by the TSC that the vCPU has then.  As the source's TSC is hours
 * ahead of a new VM's, a timer that is armed too early fires hours late.
 */
static void test_deadline(void)
{
	struct pvclock_vcpu_time_info clock;
	struct vmm vmm = create_source(&clock), source;
	struct blob blob = save(&vmm), saved;
	struct vm_clock_result result;
	uint64_t deadline, value = 0, tsc = 0;

	vmm_destroy(&vmm);
	source = create_with_apic(&blob);
	vmm_set_tsc_offset(&source, blob.vcpus[0].tsc_offset);
	/* 50 ms from now */
	access_msr(source.vcpu, KVM_GET_MSRS, MSR_IA32_TSC, &deadline);
	deadline += blob.state.tsc_khz * 50ull;
	access_msr(source.vcpu, KVM_SET_MSRS, MSR_IA32_TSC_DEADLINE, &deadline);
	saved = save(&source);
	check(saved.vcpus[0].tsc_deadline == deadline, "the deadline is saved");
	vmm_destroy(&source);

	vmm = create_with_apic(&saved);
	check(vm_clock_restore(vmm.vm, &vmm.vcpu, 1, &saved, saved.state.size,
			       VM_CLOCK_STAND_STILL, &result) == 0, "restored with an APIC");
	access_msr(vmm.vcpu, KVM_GET_MSRS, MSR_IA32_TSC_DEADLINE, &value);
	check(value == deadline, "the deadline is restored");
	vmm_guest_only_exits(&vmm);
	while (value) {
		must_ioctl(vmm.vcpu, KVM_RUN, 0);
		access_msr(vmm.vcpu, KVM_GET_MSRS, MSR_IA32_TSC_DEADLINE, &value);
	}
	access_msr(vmm.vcpu, KVM_GET_MSRS, MSR_IA32_TSC, &tsc);
	check(tsc >= deadline, "the timer fires, and not before the deadline");
	vmm_destroy(&vmm);
}

static void test_many_vcpus(void)
{
	struct pvclock_vcpu_time_info before, after;
	struct vmm vmm = create_source(&before), other;
	int vcpus[COUNTED_VCPUS] = { vmm.vcpu };
	struct vm_clock_result result;
	unsigned int most = 0, same = 0;
	struct blob blob;
	uint64_t tsc, offset;
	int r;

	for (int i = 1; i < COUNTED_VCPUS; i++)
		vcpus[i] = must_ioctl(vmm.vm, KVM_CREATE_VCPU, (void *)(uintptr_t)i);
	if (vm_clock_save(vmm.vm, vcpus, COUNTED_VCPUS, &blob, sizeof(blob)) < 0)
		err(1, "vm_clock_save");
	/* No vCPU has an APIC, and KVM ignores the deadline, but the ioctl counts. */
	for (int i = 0; i < COUNTED_VCPUS; i++) {
		blob.vcpus[i].tsc_deadline = 1;
		if (i)
			close(vcpus[i]);
	}
	seal(&blob);
	vmm_destroy(&vmm);

	other = create(&blob);
	vcpus[0] = other.vcpu;
	for (int i = 1; i < COUNTED_VCPUS; i++)
		vcpus[i] = must_ioctl(other.vm, KVM_CREATE_VCPU, (void *)(uintptr_t)i);
	vm_calls = 0;
	memset(vcpu_calls, 0, sizeof(vcpu_calls));
	counted_vcpus = vcpus;
	r = vm_clock_restore(other.vm, vcpus, COUNTED_VCPUS, &blob, blob.state.size,
			     VM_CLOCK_AUTO, &result);
	counted_vcpus = NULL;
	for (int i = 0; i < COUNTED_VCPUS; i++) {
		most = vcpu_calls[i] > most ? vcpu_calls[i] : most;
		tsc_attr(vcpus[i], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset);
		same += offset == blob.vcpus[i].tsc_offset;
	}
	after = run_guest(&other, &tsc);
	say(&result, difference(&before, &after, tsc, 1));
	printf("# %d vCPUs: %u ioctls each, and %u\n", COUNTED_VCPUS, most, vm_calls);
	check(r == 0 && most <= 3 && vm_calls <= 5,
	      "64 vCPUs take at most 3 ioctls each, and 5 for the VM");
	check(same == COUNTED_VCPUS, "each has its TSC");
	check(difference(&before, &after, tsc, stock ? 1 : TSC_VALUES) <= result.bound_ns,
	      "their clock is as the result says");
	for (int i = 1; i < COUNTED_VCPUS; i++)
		close(vcpus[i]);
	vmm_destroy(&other);
}

/* A guest that owns its TSC: the value is all that can be restored. */
static void test_no_vcpus(void)
{
	struct vmm vmm = create(NULL);
	struct vm_clock_result result;
	struct kvm_clock_data clock;
	struct blob blob = { 0 };

	check(vm_clock_save(vmm.vm, NULL, 0, &blob, sizeof(blob)) == 0 &&
	      vm_clock_restore(vmm.vm, NULL, 0, &blob, blob.state.size, VM_CLOCK_GO_ON, &result) == 0 &&
	      result.outcome == VM_CLOCK_VALUE && result.policy == VM_CLOCK_GO_ON,
	      "without vCPUs, the value is restored");
	must_ioctl(vmm.vm, KVM_GET_CLOCK, &clock);
	check(clock.clock - blob.state.clock_ns >= result.elapsed_ns, "and went on");
	vmm_destroy(&vmm);
}

/* Without the ratio, no TSC is computed: better an error than a wrong TSC. */
static void test_stock_scaled(void)
{
	struct vmm vmm = create(NULL);
	struct vm_clock_result result;
	struct blob blob = { 0 };

	errno = 0;
	check(vm_clock_save(vmm.vm, &vmm.vcpu, 1, &blob, sizeof(blob)) < 0 && errno == ENOTSUP,
	      "a TSC that is scaled by KVM alone knows how much can't be saved");
	vmm_destroy(&vmm);

	/* As if from another host, that does not scale this rate. */
	khz = 0;
	vmm = create(NULL);
	blob = save(&vmm);
	vmm_destroy(&vmm);
	blob.state.tsc_khz /= 2;
	seal(&blob);
	vmm = vmm_create();
	check(vm_clock_restore(vmm.vm, &vmm.vcpu, 1, &blob, blob.state.size, VM_CLOCK_AUTO, &result) < 0 &&
	      errno == ENOTSUP, "nor can it be restored");
	puts(result.reason);
	vmm_destroy(&vmm);
}

static void test_rate(void)
{
	test_policies();
	test_fallback();
	test_deadline();
	test_many_vcpus();
	test_no_vcpus();
}

int main(int argc, char **argv)
{
	struct vmm vmm = vmm_create();
	uint32_t host_khz = must_ioctl(vmm.vcpu, KVM_GET_TSC_KHZ, 0);

	stock = argc > 1 && !strcmp(argv[1], "stock");
	can_scale = must_ioctl(vmm.vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_VM_TSC_CONTROL) > 0;
	check((must_ioctl(vmm.vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_CLOCK_GUEST) > 0) == !stock,
	      stock ? "KVM is without the series" : "KVM has the series");
	vmm_destroy(&vmm);

	test_rate();
	if (can_scale) {
		khz = (uint64_t)host_khz * 47123456 / 100000000;
		if (stock)
			test_stock_scaled();
		else
			test_rate();
	}
	printf("1..%u\n", results);
	return failures != 0;
}
