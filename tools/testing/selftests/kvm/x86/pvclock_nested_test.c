// SPDX-License-Identifier: GPL-2.0
/*
 * Save and restore the clock of a guest hypervisor, L1, while its guest, L2, runs.
 */
#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "pvclock.h"
#include "svm_util.h"
#include "vmx.h"

#define L2_TSC_OFFSET	BIT_ULL(40)

/* Read L1's clock, a function of L1's TSC. */
static void l2_guest_code(void)
{
	for (;;)
		pvclock_guest_report(0, rdtsc() - L2_TSC_OFFSET);
}

static void run_l2_vmx(struct vmx_pages *vmx)
{
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, l2_guest_code);
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, vmreadz(CPU_BASED_VM_EXEC_CONTROL) |
		CPU_BASED_USE_MSR_BITMAPS | CPU_BASED_USE_TSC_OFFSETTING);
	vmwrite(TSC_OFFSET, L2_TSC_OFFSET);
	vmlaunch();
}

static void run_l2_svm(struct svm_test_data *svm)
{
	generic_svm_setup(svm, l2_guest_code);
	svm->vmcb->control.tsc_offset = L2_TSC_OFFSET;
	run_guest(svm->vmcb, svm->vmcb_gpa);
}

static void l1_guest_code(void *nested)
{
	pvclock_guest_enable(0);
	if (this_cpu_has(X86_FEATURE_VMX))
		run_l2_vmx(nested);
	else
		run_l2_svm(nested);
	GUEST_FAIL("L2 exited to L1");
}

static struct pvclock_vm create_vm(unsigned long tsc_khz)
{
	struct pvclock_vm guest = pvclock_create_vm(1, tsc_khz);
	gva_t nested;

	if (kvm_cpu_has(X86_FEATURE_VMX))
		vcpu_alloc_vmx(guest.vm, &nested);
	else
		vcpu_alloc_svm(guest.vm, &nested);

	vcpu_arch_set_entry_point(guest.vcpus[0], l1_guest_code);
	vcpu_args_set(guest.vcpus[0], 1, nested);
	return guest;
}

/* Replace VM and vCPU by new ones, which have the memory and the state of the old ones. */
static void restore_vm(struct pvclock_vm *guest)
{
	struct kvm_x86_state *state = vcpu_save_state(guest->vcpus[0]);
	struct pvclock_saved saved = pvclock_save(guest);

	TEST_ASSERT(kvm_x86_state_is_guest_mode(state), "L2 doesn't run");

	kvm_vm_release(guest->vm);
	guest->vcpus[0] = vm_recreate_with_one_vcpu(guest->vm);
	vcpu_ioctl(guest->vcpus[0], KVM_SET_TSC_KHZ, (void *)saved.tsc_khz);
	vcpu_load_state(guest->vcpus[0], state);
	vcpu_set_tsc_offset(guest->vcpus[0], saved.tsc_offsets[0]);
	vcpu_set_clock_guest(guest->vcpus[0], &saved.clock);
	kvm_x86_state_cleanup(state);
}

static void test_nested(unsigned long tsc_khz)
{
	struct pvclock_vm guest = create_vm(tsc_khz);
	struct pvclock_vcpu_time_info clock;
	int i;

	pvclock_run(&guest, 0);
	clock = pvclock_page(&guest, 0);
	pvclock_assert_clock(&guest, &clock, PVCLOCK_TSC_STABLE_BIT);

	for (i = 0; i < 5; i++) {
		restore_vm(&guest);
		pvclock_assert_clock(&guest, &clock, PVCLOCK_TSC_STABLE_BIT);
	}

	/* Move L1's TSC on, and the clock and L2's TSC with it. */
	vcpu_set_tsc_offset(guest.vcpus[0], vcpu_get_tsc_offset(guest.vcpus[0]) + BIT_ULL(50));
	clock.tsc_timestamp += BIT_ULL(50);
	pvclock_assert_clock(&guest, &clock, PVCLOCK_TSC_STABLE_BIT);
	pvclock_free_vm(&guest);
}

int main(void)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_VMX) || kvm_cpu_has(X86_FEATURE_SVM));

	test_nested(0);
	if (kvm_has_cap(KVM_CAP_VM_TSC_CONTROL))
		test_nested(host_tsc_khz() * 7 / 5 + 1);
}
