// SPDX-License-Identifier: GPL-2.0
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <asm/kvm_para.h>

#include "vmm.h"

#define MEMORY_SIZE	0x4000
#define READ_TSC	0x1000
#define WRITE_MSR	0x1100
#define EXIT_LOOP	0x1200
#define CLOCK		0x2000

static const uint8_t read_tsc_code[] = { 0x0f, 0x31, 0xf4 };	/* rdtsc; hlt */
static const uint8_t write_msr_code[] = { 0x0f, 0x30, 0xf4 };	/* wrmsr; hlt */
static const uint8_t exit_loop_code[] = { 0xe6, 0x80, 0xeb, 0xfc };	/* 1: out; jmp 1b */

int xioctl(int fd, unsigned long request, void *arg, const char *name)
{
	int r = ioctl(fd, request, arg);

	if (r < 0)
		err(1, "%s", name);
	return r;
}

static void add_memory(struct vmm *vmm)
{
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY_SIZE,
	};

	vmm->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vmm->memory == MAP_FAILED)
		err(1, "mmap of guest memory");

	memcpy(vmm->memory + READ_TSC, read_tsc_code, sizeof(read_tsc_code));
	memcpy(vmm->memory + WRITE_MSR, write_msr_code, sizeof(write_msr_code));
	memcpy(vmm->memory + EXIT_LOOP, exit_loop_code, sizeof(exit_loop_code));
	region.userspace_addr = (uintptr_t)vmm->memory;
	must_ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static int open_kvm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		err(1, "/dev/kvm");
	return kvm;
}

struct vmm vmm_create_vm(void)
{
	int kvm = open_kvm();
	struct vmm vmm = { .vm = must_ioctl(kvm, KVM_CREATE_VM, 0) };

	add_memory(&vmm);
	close(kvm);
	return vmm;
}

void vmm_add_vcpu(struct vmm *vmm)
{
	int kvm = open_kvm();
	struct kvm_sregs sregs;

	vmm->vcpu = must_ioctl(vmm->vm, KVM_CREATE_VCPU, 0);
	vmm->run_size = must_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vmm->run = mmap(NULL, vmm->run_size, PROT_READ | PROT_WRITE,
			MAP_SHARED, vmm->vcpu, 0);
	if (vmm->run == MAP_FAILED)
		err(1, "mmap of the vCPU");

	must_ioctl(vmm->vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	must_ioctl(vmm->vcpu, KVM_SET_SREGS, &sregs);
	close(kvm);
}

struct vmm vmm_create(void)
{
	struct vmm vmm = vmm_create_vm();

	vmm_add_vcpu(&vmm);
	return vmm;
}

void vmm_destroy(struct vmm *vmm)
{
	munmap(vmm->run, vmm->run_size);
	close(vmm->vcpu);
	close(vmm->vm);
	munmap(vmm->memory, MEMORY_SIZE);
}

static struct kvm_regs run_until_halt(struct vmm *vmm, struct kvm_regs regs)
{
	regs.rflags = 2;
	must_ioctl(vmm->vcpu, KVM_SET_REGS, &regs);
	while (ioctl(vmm->vcpu, KVM_RUN, 0) < 0) {
		if (errno != EINTR)
			err(1, "KVM_RUN");
	}
	if (vmm->run->exit_reason != KVM_EXIT_HLT)
		errx(1, "the guest stopped for reason %u, not because it halted",
		     vmm->run->exit_reason);

	must_ioctl(vmm->vcpu, KVM_GET_REGS, &regs);
	return regs;
}

uint64_t vmm_read_guest_tsc(struct vmm *vmm)
{
	struct kvm_regs regs = { .rip = READ_TSC };

	regs = run_until_halt(vmm, regs);
	return regs.rdx << 32 | (uint32_t)regs.rax;
}

void vmm_guest_writes_msr(struct vmm *vmm, uint32_t msr, uint64_t value)
{
	struct kvm_regs regs = {
		.rip = WRITE_MSR,
		.rcx = msr,
		.rdx = value >> 32,
		.rax = (uint32_t)value,
	};

	run_until_halt(vmm, regs);
}

void vmm_guest_enables_clock(struct vmm *vmm, int old_msr)
{
	vmm_guest_writes_msr(vmm, old_msr ? MSR_KVM_SYSTEM_TIME :
			     MSR_KVM_SYSTEM_TIME_NEW, CLOCK | KVM_MSR_ENABLED);
}

void vmm_guest_only_exits(struct vmm *vmm)
{
	struct kvm_regs regs = { .rip = EXIT_LOOP, .rflags = 2 };

	must_ioctl(vmm->vcpu, KVM_SET_REGS, &regs);
}

struct pvclock_vcpu_time_info vmm_guest_clock(struct vmm *vmm)
{
	struct pvclock_vcpu_time_info clock;

	memcpy(&clock, vmm->memory + CLOCK, sizeof(clock));
	return clock;
}

static struct kvm_device_attr tsc_offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

uint64_t vmm_get_tsc_offset(struct vmm *vmm)
{
	uint64_t offset;
	struct kvm_device_attr attr = tsc_offset_attr(&offset);

	must_ioctl(vmm->vcpu, KVM_GET_DEVICE_ATTR, &attr);
	return offset;
}

void vmm_set_tsc_offset(struct vmm *vmm, uint64_t offset)
{
	struct kvm_device_attr attr = tsc_offset_attr(&offset);

	must_ioctl(vmm->vcpu, KVM_SET_DEVICE_ATTR, &attr);
}

uint64_t clock_at(const struct pvclock_vcpu_time_info *clock, uint64_t tsc)
{
	uint64_t delta = tsc - clock->tsc_timestamp;
	uint64_t low, high;

	if (clock->tsc_shift < 0)
		delta >>= -clock->tsc_shift;
	else
		delta <<= clock->tsc_shift;

	/* delta * mul / 2^32, without 128-bit types: this runs in 32 bits, too. */
	low = (delta & 0xffffffff) * clock->tsc_to_system_mul;
	high = (delta >> 32) * clock->tsc_to_system_mul;
	return clock->system_time + high + (low >> 32);
}
