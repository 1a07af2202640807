// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <linux/kvm.h>
#include <x86intrin.h>

#include "fake_kvm.h"

#define MSR_IA32_TSC	0x10

struct fake_kvm fake_kvm;

static int status(int error)
{
	errno = error;
	return error ? -1 : 0;
}

static int access_attr(struct fake_vcpu *vcpu, const struct kvm_device_attr *attr, bool set)
{
	void *value = (void *)(uintptr_t)attr->addr;

	if (attr->attr == KVM_VCPU_TSC_SCALE) {
		fake_kvm.vm_calls++;
		vcpu->calls--;
		if (!fake_kvm.has_scale)
			return status(ENXIO);
		memcpy(value, &fake_kvm.scale, sizeof(fake_kvm.scale));
	} else if (set) {
		if (fake_kvm.set_offset)
			return status(fake_kvm.set_offset);
		memcpy(&vcpu->offset, value, sizeof(vcpu->offset));
		vcpu->deadline_is_armed_late = false;
	} else {
		memcpy(value, &vcpu->offset, sizeof(vcpu->offset));
	}
	return 0;
}

/* @msrs is a struct kvm_msrs with one entry. */
static int access_msr(struct fake_vcpu *vcpu, uint64_t *msrs, bool set)
{
	if ((uint32_t)msrs[1] == MSR_IA32_TSC) {
		fake_kvm.vm_calls++;
		vcpu->calls--;
		msrs[2] = __rdtsc() + vcpu->offset;
		return fake_kvm.has_msr_tsc;
	}
	if (set) {
		vcpu->deadline = msrs[2];
		vcpu->deadline_is_armed_late = true;
	} else {
		msrs[2] = vcpu->deadline;
	}
	return 1;
}

static int vcpu_ioctl(struct fake_vcpu *vcpu, unsigned long request, void *arg)
{
	vcpu->calls++;
	switch (request) {
	case KVM_GET_TSC_KHZ:
		return vcpu->khz;
	case KVM_SET_TSC_KHZ:
		vcpu->khz = (uintptr_t)arg;
		return status(fake_kvm.set_khz);
	case KVM_GET_DEVICE_ATTR:
	case KVM_SET_DEVICE_ATTR:
		return access_attr(vcpu, arg, request == KVM_SET_DEVICE_ATTR);
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return access_msr(vcpu, arg, request == KVM_SET_MSRS);
	case KVM_GET_CLOCK_GUEST:
		memcpy(arg, &fake_kvm.function, sizeof(fake_kvm.function));
		return status(fake_kvm.get_clock_guest);
	case KVM_SET_CLOCK_GUEST:
		fake_kvm.vm_calls++;
		vcpu->calls--;
		if (!fake_kvm.set_clock_guest)
			memcpy(&fake_kvm.function, arg, sizeof(fake_kvm.function));
		return status(fake_kvm.set_clock_guest);
	}
	return status(ENOTTY);
}

static int vm_ioctl(unsigned long request, void *arg)
{
	fake_kvm.vm_calls++;
	switch (request) {
	case KVM_CHECK_EXTENSION:
		return (uintptr_t)arg == KVM_CAP_CLOCK_GUEST && fake_kvm.has_clock_guest;
	case KVM_GET_CLOCK:
		memcpy(arg, &fake_kvm.clock, sizeof(fake_kvm.clock));
		return status(fake_kvm.get_clock);
	case KVM_SET_CLOCK:
		memcpy(&fake_kvm.set_clock, arg, sizeof(fake_kvm.set_clock));
		return status(fake_kvm.set_clock_error);
	case KVM_SET_TSC_KHZ:
		return status(fake_kvm.set_khz);
	case KVM_CREATE_VCPU:
		return FAKE_VCPU(0);
	}
	return status(ENOTTY);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd >= FAKE_VCPU(0) && fd < FAKE_VCPU(FAKE_MAX_VCPUS))
		return vcpu_ioctl(&fake_kvm.vcpus[fd - FAKE_VCPU(0)], request, arg);
	if (fd == FAKE_VM)
		return vm_ioctl(request, arg);
	if (fd == FAKE_KVM && request == KVM_CREATE_VM)
		return fake_kvm.create_vm ? status(fake_kvm.create_vm) : FAKE_VM;
	return status(EBADF);
}
