// SPDX-License-Identifier: GPL-2.0
/*
 * libFuzzer looks for a saved state that vm_clock.c reads wrongly.  An input is what KVM
 * says, and then the state, as it is or with what is hard to guess repaired.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm_clock.c"
#include "fake_kvm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first bytes of an input. */
struct kvm_says {
	uint8_t repair;		/* checksum; magic, version, sizes, boot; function; TSC */
	uint8_t policy;
	uint8_t has;		/* the capability, KVM_VCPU_TSC_SCALE, a TSC not scaled, errors */
	uint8_t set_clock_guest, set_clock, set_khz, set_offset;
	uint8_t flags;		/* of KVM_GET_CLOCK */
	uint64_t host_tsc, realtime, ratio;
	uint8_t frac_bits;
} __attribute__((packed));

static uint64_t nr_refused, nr_exact, nr_value, nr_failed;

static void print_counts(void)
{
	printf("refused: %" PRIu64 " times\nexact: %" PRIu64 " times\nvalue: %" PRIu64
	       " times\nfailed: %" PRIu64 " times\n", nr_refused, nr_exact, nr_value, nr_failed);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return atexit(print_counts);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	printf("FAIL: %s\n", what);
	fflush(stdout);
	abort();
}

static void prepare_kvm(const struct kvm_says *says)
{
	int refuse = says->has & 8 ? 0xff : 0, errors = says->has & 16 ? 0xff : 0;

	fake_kvm = (struct fake_kvm){
		.has_clock_guest = says->has & 1,
		.has_scale = says->has & 2,
		.has_msr_tsc = says->has & 4,
		.scale = { says->ratio, says->frac_bits & 63 },
		.clock = {
			.flags = says->flags,
			.host_tsc = says->host_tsc,
			.realtime = says->realtime,
		},
		.set_clock_guest = says->set_clock_guest & refuse,
		.set_clock_error = says->set_clock & errors,
		.set_khz = says->set_khz & errors,
		.set_offset = says->set_offset & errors,
	};
}

static void repair(uint8_t *blob, size_t size, uint8_t what)
{
	struct vm_clock_state s;

	memcpy(&s, blob, sizeof(s));
	if (what & 2) {
		memcpy(s.magic, VM_CLOCK_MAGIC, sizeof(s.magic));
		s.version = VM_CLOCK_VERSION;
		s.nr_vcpus = (size - sizeof(s)) / sizeof(struct vm_clock_vcpu);
		s.size = size;
		read_boot_id(s.boot_id);
	}
	if (what & 4) {
		s.flags = VM_CLOCK_HAS_FUNCTION;
		s.function.version = s.function.pad0 = s.function.flags = 0;
		memset(s.function.pad, 0, sizeof(s.function.pad));
		s.function.tsc_to_system_mul |= 1u << 31;
	}
	if (what & 8) {
		s.tsc_khz |= !!s.nr_vcpus;
		s.tsc_ratio = 1;
	}
	memcpy(blob, &s, sizeof(s));
	s.checksum = checksum(blob, size);
	memcpy(blob, &s, sizeof(s));
}

/* The order of things, whatever they are. */
static void check_result(const struct vm_clock_state *s, int r, enum vm_clock_policy policy,
			 const struct vm_clock_result *result)
{
	must(result->reason, "no reason");
	if (r < 0) {
		must(result->error && result->error == errno, "failed without an error");
		nr_failed++;
		return;
	}
	must(result->policy != VM_CLOCK_AUTO && (policy == VM_CLOCK_AUTO || !s->nr_vcpus ||
						 result->policy == policy), "another policy");
	must(policy != VM_CLOCK_STAND_STILL || !result->elapsed_ns, "time did not stand still");
	if (result->outcome == VM_CLOCK_EXACT) {
		must(fake_kvm.has_clock_guest && s->flags & VM_CLOCK_HAS_FUNCTION &&
		     !memcmp(&fake_kvm.function, &s->function, sizeof(s->function)) &&
		     !result->bound_ns && !result->error, "not exact");
		nr_exact++;
	} else {
		must(result->bound_ns && fake_kvm.set_clock.flags == KVM_CLOCK_REALTIME &&
		     fake_kvm.set_clock.clock == s->clock_ns + result->elapsed_ns, "not the value");
		nr_value++;
	}
	for (unsigned int i = 0; i < s->nr_vcpus; i++)
		must(fake_kvm.vcpus[i].khz == s->tsc_khz, "not the rate");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int vcpus[FAKE_MAX_VCPUS];
	struct vm_clock_result result = { 0 };
	struct vm_clock_state s;
	struct kvm_says says;
	uint8_t *blob;
	int r;

	if (size < sizeof(says))
		return 0;
	memcpy(&says, data, sizeof(says));
	size -= sizeof(says);
	/* Exactly as much memory as the caller says. */
	blob = malloc(size ? size : 1);
	memcpy(blob, data + sizeof(says), size);
	if (says.repair & 1 && size >= sizeof(s))
		repair(blob, size, says.repair);

	if (vm_clock_validate(blob, size) < 0) {
		must(errno == EBADMSG || errno == EPROTONOSUPPORT, "another error");
		must(vm_clock_prepare(FAKE_VM, blob, size) < 0, "prepared a damaged state");
		nr_refused++;
	} else {
		memcpy(&s, blob, sizeof(s));
		must(s.nr_vcpus <= FAKE_MAX_VCPUS && vm_clock_size(s.nr_vcpus) == size, "size");
		prepare_kvm(&says);
		for (int i = 0; i < FAKE_MAX_VCPUS; i++)
			vcpus[i] = FAKE_VCPU(i);
		r = vm_clock_restore(FAKE_VM, vcpus, s.nr_vcpus, blob, size, says.policy & 3, &result);
		check_result(&s, r, says.policy & 3, &result);
	}
	free(blob);
	return 0;
}
