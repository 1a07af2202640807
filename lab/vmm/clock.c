// SPDX-License-Identifier: GPL-2.0
#include <sys/ioctl.h>

#include "clock.h"

static bool has_clock_guest(int vm)
{
	return ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) > 0;
}

int save_clock(int vm, int vcpu, struct saved_clock *saved)
{
	saved->has_guest = has_clock_guest(vm) &&
			   ioctl(vcpu, KVM_GET_CLOCK_GUEST, &saved->guest) == 0;
	return ioctl(vm, KVM_GET_CLOCK, &saved->vm);
}

int restore_clock(int vm, int vcpu, const struct saved_clock *saved)
{
	struct kvm_clock_data vm_clock = saved->vm;

	if (saved->has_guest && has_clock_guest(vm) &&
	    ioctl(vcpu, KVM_SET_CLOCK_GUEST, &saved->guest) == 0)
		return 0;

	/*
	 * Fall back: the clock will move against the TSC by some microseconds.  ENODATA
	 * means not now, ERANGE not with this TSC.  Other kernels may have EBUSY while
	 * the TSC's rate is unknown, and EINVAL, otherwise a damaged state, for a
	 * reference that is ahead of the TSC.
	 */
	vm_clock.flags &= KVM_CLOCK_REALTIME;
	return ioctl(vm, KVM_SET_CLOCK, &vm_clock);
}
