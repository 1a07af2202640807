// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that read kvmclock, and the clock as a function of the TSC.
 */
#include <asm/kvm_para.h>
#include <asm/pvclock.h>
#include <sys/wait.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "hyperv.h"
#include "pvclock.h"

#define NR_TSC_VALUES	500
#define TSC_RANGE	BIT_ULL(40)

/* Shared with the guest. */
static struct pvclock_vcpu_time_info pages[PVCLOCK_MAX_VCPUS] __aligned(PAGE_SIZE);
static struct hv_tsc_page hv_page __aligned(PAGE_SIZE);
static u64 pages_gpa;
static u64 wrmsr_value;
static u32 wrmsr_index;

#define guest_copy(guest, var)	\
	((typeof(var) *)addr_gva2hva((guest)->vm, (unsigned long)&(var)))

void pvclock_guest_enable(int id)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (pages_gpa + id * sizeof(*pages)) | KVM_MSR_ENABLED);
}

void pvclock_guest_report(int id, u64 tsc)
{
	GUEST_SYNC_ARGS(0, tsc, __pvclock_read_cycles(&pages[id], tsc), 0, 0);
}

static void guest_code(int id)
{
	pvclock_guest_enable(id);

	for (;;) {
		if (READ_ONCE(wrmsr_index))
			wrmsr(wrmsr_index, wrmsr_value);

		pvclock_guest_report(id, rdtsc());
	}
}

struct kvm_vcpu *pvclock_add_vcpu(struct pvclock_vm *guest)
{
	int id = guest->nr_vcpus++;

	guest->vcpus[id] = vm_vcpu_add(guest->vm, id, guest_code);
	vcpu_args_set(guest->vcpus[id], 1, id);
	return guest->vcpus[id];
}

struct pvclock_vm pvclock_create_vm(int nr_vcpus, unsigned long tsc_khz)
{
	struct pvclock_vm guest = { .vm = vm_create(PVCLOCK_MAX_VCPUS) };

	if (tsc_khz)
		vm_ioctl(guest.vm, KVM_SET_TSC_KHZ, (void *)tsc_khz);

	while (guest.nr_vcpus < nr_vcpus)
		pvclock_add_vcpu(&guest);

	*guest_copy(&guest, pages_gpa) = addr_gva2gpa(guest.vm, (unsigned long)pages);
	return guest;
}

void pvclock_free_vm(struct pvclock_vm *guest)
{
	kvm_vm_free(guest->vm);
}

struct pvclock_reading pvclock_run(struct pvclock_vm *guest, int id)
{
	struct kvm_vcpu *vcpu = guest->vcpus[id];
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
	return (struct pvclock_reading){ .tsc = uc.args[2], .ns = uc.args[3] };
}

void pvclock_run_all(struct pvclock_vm *guest)
{
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		pvclock_run(guest, i);
}

struct pvclock_reading pvclock_run_wrmsr(struct pvclock_vm *guest, int id, u32 msr, u64 value)
{
	struct pvclock_reading reading;

	*guest_copy(guest, wrmsr_value) = value;
	*guest_copy(guest, wrmsr_index) = msr;
	reading = pvclock_run(guest, id);
	*guest_copy(guest, wrmsr_index) = 0;
	return reading;
}

u64 pvclock_page_gpa(struct pvclock_vm *guest, int id)
{
	return addr_gva2gpa(guest->vm, (unsigned long)&pages[id]);
}

struct pvclock_vcpu_time_info pvclock_page(struct pvclock_vm *guest, int id)
{
	struct pvclock_vcpu_time_info page = *guest_copy(guest, pages[id]);

	TEST_ASSERT(page.version && !(page.version & 1),
		    "The page of vCPU %d was never written, or not to the end", id);
	return page;
}

void pvclock_allow_hyperv(struct pvclock_vm *guest)
{
	vcpu_set_hv_cpuid(guest->vcpus[0]);
}

void pvclock_enable_hv_page(struct pvclock_vm *guest)
{
	u64 gpa = addr_gva2gpa(guest->vm, (unsigned long)&hv_page);

	pvclock_run_wrmsr(guest, 0, HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	pvclock_run_wrmsr(guest, 0, HV_X64_MSR_REFERENCE_TSC, gpa | 1);
}

struct hv_tsc_page pvclock_hv_page(struct pvclock_vm *guest)
{
	return *guest_copy(guest, hv_page);
}

u64 hv_tsc_page_at(const struct hv_tsc_page *page, u64 tsc)
{
	return (u64)((__uint128_t)tsc * page->scale >> 64) + page->offset;
}

unsigned long host_tsc_khz(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	unsigned long khz = __vm_ioctl(vm, KVM_GET_TSC_KHZ, NULL);

	kvm_vm_free(vm);
	return khz;
}

u64 vcpu_get_tsc_offset(struct kvm_vcpu *vcpu)
{
	u64 offset;

	vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
	return offset;
}

void vcpu_set_tsc_offset(struct kvm_vcpu *vcpu, u64 offset)
{
	vcpu_device_attr_set(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
}

struct vcpu_tsc vcpu_get_tsc(struct kvm_vcpu *vcpu)
{
	struct vcpu_tsc tsc = { .ratio = 1, .offset = vcpu_get_tsc_offset(vcpu) };
	struct kvm_vcpu_tsc_scale scale;

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &scale);
		tsc.ratio = scale.tsc_ratio;
		tsc.frac_bits = scale.tsc_frac_bits;
	}
	return tsc;
}

u64 vcpu_tsc_at(const struct vcpu_tsc *tsc, u64 host_tsc)
{
	return (u64)((__uint128_t)host_tsc * tsc->ratio >> tsc->frac_bits) + tsc->offset;
}

u64 vcpu_tsc_now(struct kvm_vcpu *vcpu)
{
	struct vcpu_tsc tsc = vcpu_get_tsc(vcpu);

	return vcpu_tsc_at(&tsc, rdtsc());
}

/*
 * The clock advances by a whole number of ns in 2^n cycles if neither the shift
 * nor the division by 2^32 of the product drops a bit.
 */
u64 pvclock_period(const struct pvclock_vcpu_time_info *clock)
{
	u32 mul = clock->tsc_to_system_mul;
	int bits = 32 - clock->tsc_shift;

	while (bits > 0 && !(mul & 1)) {
		mul >>= 1;
		bits--;
	}
	return BIT_ULL(max(bits, max(-clock->tsc_shift, 0)));
}

/* Compute from the definition, not with the guest's or KVM's code. */
static u64 cycles_to_ns(const struct pvclock_vcpu_time_info *clock, __uint128_t cycles)
{
	if (clock->tsc_shift < 0)
		cycles /= BIT_ULL(-clock->tsc_shift);
	else
		cycles *= BIT_ULL(clock->tsc_shift);

	return cycles * clock->tsc_to_system_mul / BIT_ULL(32);
}

/* Before its reference the clock is what it repeats. */
u64 pvclock_at(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	u64 cycles = tsc - clock->tsc_timestamp, period = pvclock_period(clock), periods = 0;

	if ((s64)cycles < 0)
		periods = (-cycles - 1) / period + 1;

	return clock->system_time + cycles_to_ns(clock, cycles + periods * period) -
	       periods * cycles_to_ns(clock, period);
}

void pvclock_assert_same(const struct pvclock_vcpu_time_info *expected,
			 const struct pvclock_vcpu_time_info *clock, u64 tsc,
			 const char *what)
{
	u64 ns, expected_ns;
	int i;

	for (i = 0; i < NR_TSC_VALUES; i++, tsc += TSC_RANGE / NR_TSC_VALUES) {
		ns = pvclock_at(clock, tsc);
		expected_ns = pvclock_at(expected, tsc);
		TEST_ASSERT(ns == expected_ns,
			    "%s: off by %ld ns at TSC %#lx: %lu ns, expected %lu ns",
			    what, ns - expected_ns, tsc, ns, expected_ns);
	}
}

void pvclock_assert_recent(const struct pvclock_vcpu_time_info *clock, u64 tsc, const char *what)
{
	u64 age = tsc - clock->tsc_timestamp;

	TEST_ASSERT((s64)age < 0 || age < PVCLOCK_MIN_AGE + pvclock_period(clock),
		    "%s: the reference was %lu cycles old at TSC %#lx, a period is %lu cycles",
		    what, age, tsc, pvclock_period(clock));
}

struct pvclock_vcpu_time_info vcpu_get_clock_guest(struct kvm_vcpu *vcpu)
{
	struct pvclock_vcpu_time_info clock;

	memset(&clock, 0xff, sizeof(clock));
	vcpu_ioctl(vcpu, KVM_GET_CLOCK_GUEST, &clock);
	TEST_ASSERT(!clock.version && !clock.pad0 && !clock.pad[0] && !clock.pad[1],
		    "The version or the padding is not zero");
	return clock;
}

void vcpu_set_clock_guest(struct kvm_vcpu *vcpu, const struct pvclock_vcpu_time_info *clock)
{
	vcpu_ioctl(vcpu, KVM_SET_CLOCK_GUEST, clock);
}

struct pvclock_saved pvclock_save(struct pvclock_vm *guest)
{
	struct pvclock_saved saved = {};
	int i;

	saved.clock = vcpu_get_clock_guest(guest->vcpus[0]);
	for (i = 0; i < guest->nr_vcpus; i++)
		saved.tsc_offsets[i] = vcpu_get_tsc_offset(guest->vcpus[i]);
	saved.tsc_khz = __vcpu_ioctl(guest->vcpus[0], KVM_GET_TSC_KHZ, NULL);
	return saved;
}

struct pvclock_vm pvclock_restore(const struct pvclock_saved *saved, int nr_vcpus)
{
	/* The rate is the VM's, before there are vCPUs. */
	struct pvclock_vm guest = pvclock_create_vm(nr_vcpus, saved->tsc_khz);
	int i;

	/* The TSCs of all vCPUs, then the clock as a function of one of them. */
	for (i = 0; i < nr_vcpus; i++)
		vcpu_set_tsc_offset(guest.vcpus[i], saved->tsc_offsets[i]);
	vcpu_set_clock_guest(guest.vcpus[0], &saved->clock);
	return guest;
}

static void assert_vcpu_clock(struct pvclock_vm *guest, int id, u8 flags,
			      const struct pvclock_vcpu_time_info *expected)
{
	struct pvclock_reading reading = pvclock_run(guest, id);
	struct pvclock_vcpu_time_info clock = pvclock_page(guest, id);

	TEST_ASSERT(clock.flags == flags, "The page of vCPU %d has flags %#x, expected %#x",
		    id, clock.flags, flags);
	pvclock_assert_same(expected, &clock, reading.tsc, "The page");
	TEST_ASSERT(reading.ns == pvclock_at(expected, reading.tsc),
		    "vCPU %d read %lu ns at TSC %#lx, expected %lu ns", id, reading.ns,
		    reading.tsc, pvclock_at(expected, reading.tsc));
}

static void assert_get_clock(struct pvclock_vm *guest,
			     const struct pvclock_vcpu_time_info *expected)
{
	struct vcpu_tsc tsc = vcpu_get_tsc(guest->vcpus[0]);
	struct kvm_clock_data data = {};
	u64 ns;

	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	TEST_ASSERT(data.flags & KVM_CLOCK_TSC_STABLE && data.flags & KVM_CLOCK_HOST_TSC,
		    "KVM_GET_CLOCK has flags %#x: no master clock", data.flags);
	ns = pvclock_at(expected, vcpu_tsc_at(&tsc, data.host_tsc));
	TEST_ASSERT(data.clock == ns, "KVM_GET_CLOCK: off by %lld ns at the host's TSC %#llx",
		    data.clock - ns, data.host_tsc);
}

void pvclock_assert_clock(struct pvclock_vm *guest,
			  const struct pvclock_vcpu_time_info *expected, u8 flags)
{
	u64 offset = vcpu_get_tsc_offset(guest->vcpus[0]);
	struct pvclock_vcpu_time_info shifted, clock;
	u64 before;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		shifted = *expected;
		shifted.tsc_timestamp += vcpu_get_tsc_offset(guest->vcpus[i]) - offset;
		assert_vcpu_clock(guest, i, flags, &shifted);
	}

	assert_get_clock(guest, expected);

	for (i = 0; i < guest->nr_vcpus; i++) {
		shifted = *expected;
		shifted.tsc_timestamp += vcpu_get_tsc_offset(guest->vcpus[i]) - offset;
		before = vcpu_tsc_now(guest->vcpus[i]);
		clock = vcpu_get_clock_guest(guest->vcpus[i]);
		TEST_ASSERT_EQ(clock.flags, flags);
		pvclock_assert_same(&shifted, &clock, before, "KVM_GET_CLOCK_GUEST");
		pvclock_assert_recent(&clock, before, "KVM_GET_CLOCK_GUEST");
	}
}

bool run_in_child(void (*run)(void))
{
	pid_t pid = fork();
	int status;

	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid) {
		run();
		exit(KSFT_PASS);
	}
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	return !status;
}
