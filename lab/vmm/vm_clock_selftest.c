// SPDX-License-Identifier: GPL-2.0
/*
 * Compare vm_clock.c with pvclock_save() and pvclock_restore() of KVM's selftests, which
 * have to be kernel code, by themselves: the same offsets, and the same function.
 */
#define _GNU_SOURCE
#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "pvclock.h"

#include "vm_clock.h"

#define VCPUS	4

struct blob {
	struct vm_clock_state state;
	struct vm_clock_vcpu vcpus[VCPUS];
};

static const int *vcpu_fds(struct pvclock_vm *guest)
{
	static int fds[VCPUS];

	for (int i = 0; i < VCPUS; i++)
		fds[i] = guest->vcpus[i]->fd;
	return fds;
}

static void save_both(struct pvclock_vm *guest, struct pvclock_saved *saved, struct blob *blob)
{
	*saved = pvclock_save(guest);
	TEST_ASSERT(!vm_clock_save(guest->vm->fd, vcpu_fds(guest), VCPUS, blob, sizeof(*blob)),
		    "vm_clock_save() failed, errno %d", errno);
	TEST_ASSERT(blob->state.tsc_khz == saved->tsc_khz, "%u kHz, the selftest has %lu",
		    blob->state.tsc_khz, saved->tsc_khz);
	pvclock_assert_same(&saved->clock, &blob->state.function, vcpu_tsc_now(guest->vcpus[0]),
			    "The saved function");
	for (int i = 0; i < VCPUS; i++)
		TEST_ASSERT(blob->vcpus[i].tsc_offset == saved->tsc_offsets[i],
			    "vCPU %d's saved offset differs", i);
}

static struct pvclock_vm restore_blob(const struct blob *blob)
{
	struct pvclock_vm guest = pvclock_create_vm(VCPUS, blob->state.tsc_khz);
	struct vm_clock_result result;

	TEST_ASSERT(!vm_clock_restore(guest.vm->fd, vcpu_fds(&guest), VCPUS, blob, sizeof(*blob),
				      VM_CLOCK_SAME_HOST, &result) &&
		    result.outcome == VM_CLOCK_EXACT, "%s", result.reason);
	return guest;
}

/* @stagger is by how much each vCPU's TSC is ahead of the one before. */
static void compare(unsigned long tsc_khz, u64 stagger)
{
	struct pvclock_vm guest = pvclock_create_vm(VCPUS, tsc_khz), one, other;
	u8 flags = stagger ? 0 : PVCLOCK_TSC_STABLE_BIT;
	struct pvclock_saved saved;
	struct blob blob;
	u64 a, b;

	for (int i = 0; i < VCPUS; i++)
		vcpu_set_tsc_offset(guest.vcpus[i], vcpu_get_tsc_offset(guest.vcpus[0]) + i * stagger);
	pvclock_run_all(&guest);
	save_both(&guest, &saved, &blob);
	pvclock_free_vm(&guest);

	one = pvclock_restore(&saved, VCPUS);
	other = restore_blob(&blob);
	for (int i = 0; i < VCPUS; i++) {
		a = vcpu_get_tsc_offset(one.vcpus[i]);
		b = vcpu_get_tsc_offset(other.vcpus[i]);
		TEST_ASSERT(a == b, "vCPU %d: offset %#lx, the selftest's %#lx", i, b, a);
	}
	pvclock_assert_clock(&one, &saved.clock, flags);
	pvclock_assert_clock(&other, &saved.clock, flags);
	pvclock_free_vm(&one);
	pvclock_free_vm(&other);
}

int main(void)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));

	compare(0, 0);
	compare(0, 12345678901);
	if (kvm_has_cap(KVM_CAP_VM_TSC_CONTROL))
		compare(host_tsc_khz() * 47123 / 100000, 12345678901);
	return 0;
}
