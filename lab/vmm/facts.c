// SPDX-License-Identifier: GPL-2.0
/*
 * Run a guest, and print what KVM says of TSC and clock, a line `KEY: VALUE` each: for
 * the report of host/try, and as proof that the loaded modules work.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm.h"

static void print_scaling(struct vmm *vmm)
{
	struct kvm_vcpu_tsc_scale scale;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_SCALE,
		.addr = (uintptr_t)&scale,
	};
	int scaling = must_ioctl(vmm->vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_VM_TSC_CONTROL);

	if (scaling <= 0)
		printf("scaling: none\n");
	else if (ioctl(vmm->vcpu, KVM_GET_DEVICE_ATTR, &attr))
		printf("scaling: yes, fraction bits unknown\n");
	else
		printf("scaling: yes, %llu fraction bits\n", scale.tsc_frac_bits);
}

int main(void)
{
	struct vmm vmm = vmm_create();
	struct kvm_clock_data clock = {};

	vmm_guest_enables_clock(&vmm, 0);
	if (!vmm_read_guest_tsc(&vmm))
		errx(1, "the guest's TSC is 0");
	must_ioctl(vmm.vm, KVM_GET_CLOCK, &clock);
	printf("tsc_khz: %d\n", must_ioctl(vmm.vcpu, KVM_GET_TSC_KHZ, 0));
	print_scaling(&vmm);
	printf("master clock: %s\n", clock.flags & KVM_CLOCK_HOST_TSC ? "yes" : "no");
	printf("KVM_CAP_CLOCK_GUEST: %d\n",
	       must_ioctl(vmm.vm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_CLOCK_GUEST));
	vmm_destroy(&vmm);
	return 0;
}
