/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the guest's clock (kvmclock) share: guests that read it, and
 * the comparison of clocks as functions of the TSC.
 *
 * Clocks are compared by computing both functions at one TSC value, never by
 * reading one after the other.  So there is no time that passes between the
 * two, and what they differ by is the error.
 */
#ifndef SELFTEST_KVM_PVCLOCK_TEST_H
#define SELFTEST_KVM_PVCLOCK_TEST_H

#include <asm/kvm_para.h>
#include <asm/pvclock.h>
#include <asm/pvclock-abi.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "hyperv.h"

#define MAX_VCPUS	64
#define NR_TSC_VALUES	2000
#define TSC_AHEAD	BIT_ULL(40)

struct guest {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	int nr_vcpus;
};

/* One reading of its clock by the guest. */
struct reading {
	u64 tsc;
	u64 ns;
};

/* What a VMM keeps to restore TSC and clock. */
struct saved_clock {
	struct pvclock_vcpu_time_info clock;
	u64 tsc_offset;
};

/* The Hyper-V TSC page.  KVM gives it a new sequence number with each update. */
struct hv_tsc_page {
	u32 sequence;
	u32 reserved;
	u64 scale;
	s64 offset;
} __aligned(4096);

/* An MSR that the guest writes before it reads its clock, or 0. */
struct guest_wrmsr {
	u64 value;
	u32 index;
	bool again;
};

/* Shared with the guest. */
static struct pvclock_vcpu_time_info pvti[MAX_VCPUS] __aligned(4096);
static struct hv_tsc_page hv_tsc_page;
static struct guest_wrmsr guest_wrmsr;
static u64 pvti_gpa;

/* The TSC frequency of new guests in kHz, 0 for the host's. */
static unsigned long scaled_tsc_khz;

/* The first one needs no scaling. */
static const struct {
	unsigned long mul, div;
	const char *name;
} tsc_rates[] = {
	{ 1, 1, "host's TSC rate" },
	{ 1, 2, "TSC scaled by 1/2" },
	{ 3, 4, "TSC scaled by 3/4" },
	{ 5, 4, "TSC scaled by 5/4" },
	{ 3, 1, "TSC scaled by 3" },
	{ 13, 1, "TSC scaled by 13" },
	{ 47, 1, "TSC scaled by 47" },
};

static inline unsigned long get_host_tsc_khz(void)
{
	struct kvm_vm *vm = vm_create_barebones();
	unsigned long khz = __vm_ioctl(vm, KVM_GET_TSC_KHZ, NULL);

	kvm_vm_free(vm);
	return khz;
}

static inline int get_nr_tsc_rates(void)
{
	return kvm_has_cap(KVM_CAP_VM_TSC_CONTROL) ? ARRAY_SIZE(tsc_rates) : 1;
}

static inline void set_tsc_rate(int rate)
{
	scaled_tsc_khz = !rate ? 0 :
			 get_host_tsc_khz() * tsc_rates[rate].mul / tsc_rates[rate].div;
}

static inline u64 get_pvti_gpa(int id)
{
	return pvti_gpa + id * sizeof(*pvti);
}

static inline void guest_enable_clock(int id)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, get_pvti_gpa(id) | KVM_MSR_ENABLED);
}

static inline void guest_main(int id)
{
	u64 tsc;

	guest_enable_clock(id);

	for (;;) {
		while (READ_ONCE(guest_wrmsr.index)) {
			wrmsr(guest_wrmsr.index, guest_wrmsr.value);
			if (!READ_ONCE(guest_wrmsr.again))
				break;
		}

		tsc = rdtsc();
		GUEST_SYNC_ARGS(0, tsc, __pvclock_read_cycles(&pvti[id], tsc), 0, 0);
	}
}

static inline struct reading run_vcpu(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		break;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("Unhandled ucall: %lu", uc.cmd);
	}

	return (struct reading){ .tsc = uc.args[2], .ns = uc.args[3] };
}

static inline void run_all(struct guest *guest)
{
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		run_vcpu(guest->vcpus[i]);
}

static inline void set_guest_wrmsr(struct guest *guest, u32 index, u64 value,
				   bool again)
{
	guest_wrmsr = (struct guest_wrmsr){ value, index, again };
	sync_global_to_guest(guest->vm, guest_wrmsr);
}

static inline struct reading run_with_wrmsr(struct guest *guest, int id,
					    u32 index, u64 value)
{
	struct reading reading;

	set_guest_wrmsr(guest, index, value, false);
	reading = run_vcpu(guest->vcpus[id]);
	set_guest_wrmsr(guest, 0, 0, false);
	return reading;
}

static inline void use_old_msr(struct guest *guest, int id)
{
	run_with_wrmsr(guest, id, MSR_KVM_SYSTEM_TIME,
		       get_pvti_gpa(id) | KVM_MSR_ENABLED);
}

static inline void use_new_msr(struct guest *guest, int id)
{
	run_with_wrmsr(guest, id, MSR_KVM_SYSTEM_TIME_NEW,
		       get_pvti_gpa(id) | KVM_MSR_ENABLED);
}

static inline struct kvm_vcpu *add_vcpu(struct guest *guest, void *guest_code)
{
	int id = guest->nr_vcpus++;

	guest->vcpus[id] = vm_vcpu_add(guest->vm, id, guest_code);
	vcpu_args_set(guest->vcpus[id], 1, id);
	return guest->vcpus[id];
}

static inline void share_clocks(struct guest *guest)
{
	pvti_gpa = addr_gva2gpa(guest->vm, (unsigned long)pvti);
	sync_global_to_guest(guest->vm, pvti_gpa);
}

/* The VM has memory for @max_vcpus. */
static inline struct guest __new_guest(int nr_vcpus, int max_vcpus, void *guest_code)
{
	struct guest guest = { .vm = vm_create(max_vcpus) };

	if (scaled_tsc_khz)
		vm_ioctl(guest.vm, KVM_SET_TSC_KHZ, (void *)scaled_tsc_khz);

	while (guest.nr_vcpus < nr_vcpus)
		add_vcpu(&guest, guest_code);
	share_clocks(&guest);

	return guest;
}

static inline struct guest new_guest(int nr_vcpus)
{
	return __new_guest(nr_vcpus, nr_vcpus, guest_main);
}

static inline void free_guest(struct guest *guest)
{
	kvm_vm_free(guest->vm);
	guest->vm = NULL;
}

/* The guest's copy of a variable that is shared with it. */
#define guest_copy(guest, var)	\
	((typeof(var) *)addr_gva2hva((guest)->vm, (unsigned long)&(var)))

static inline struct pvclock_vcpu_time_info __get_clock_guest(struct kvm_vcpu *vcpu,
							      u8 flags)
{
	struct pvclock_vcpu_time_info clock;

	memset(&clock, 0xff, sizeof(clock));
	vcpu_ioctl(vcpu, KVM_GET_CLOCK_GUEST, &clock);

	TEST_ASSERT(!clock.version && !clock.pad0 && !clock.pad[0] && !clock.pad[1],
		    "version or padding is not zero");
	TEST_ASSERT_EQ(clock.flags, flags);

	return clock;
}

static inline struct pvclock_vcpu_time_info get_clock_guest(struct kvm_vcpu *vcpu)
{
	return __get_clock_guest(vcpu, PVCLOCK_TSC_STABLE_BIT);
}

static inline void set_clock_guest(struct kvm_vcpu *vcpu,
				   const struct pvclock_vcpu_time_info *clock)
{
	vcpu_ioctl(vcpu, KVM_SET_CLOCK_GUEST, clock);
}

static inline u64 get_tsc_offset(struct kvm_vcpu *vcpu)
{
	u64 tsc_offset;

	vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &tsc_offset);
	return tsc_offset;
}

/* The vCPU's TSC as a function of the host's. */
struct tsc_scale {
	struct kvm_vcpu_tsc_scale scale;
	u64 offset;
};

static inline struct tsc_scale get_tsc_scale(struct kvm_vcpu *vcpu)
{
	struct tsc_scale tsc = { .scale.tsc_ratio = 1, .offset = get_tsc_offset(vcpu) };

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL))
		vcpu_device_attr_get(vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &tsc.scale);
	return tsc;
}

static inline u64 tsc_at(const struct tsc_scale *tsc, u64 host_tsc)
{
	return (u64)((__uint128_t)host_tsc * tsc->scale.tsc_ratio >>
		     tsc->scale.tsc_frac_bits) + tsc->offset;
}

/* The vCPU's TSC now. */
static inline u64 get_tsc(struct kvm_vcpu *vcpu)
{
	struct tsc_scale tsc = get_tsc_scale(vcpu);

	return tsc_at(&tsc, rdtsc());
}

static inline void set_tsc_offset(struct guest *guest, u64 tsc_offset)
{
	int i;

	for (i = 0; i < guest->nr_vcpus; i++)
		vcpu_device_attr_set(guest->vcpus[i], KVM_VCPU_TSC_CTRL,
				     KVM_VCPU_TSC_OFFSET, &tsc_offset);
}

static inline struct saved_clock save_clock(struct kvm_vcpu *vcpu)
{
	return (struct saved_clock){
		.clock = get_clock_guest(vcpu),
		.tsc_offset = get_tsc_offset(vcpu),
	};
}

/* What @cycles of the TSC are in ns, from the definition and not with pvclock's code. */
static inline u64 cycles_to_ns(const struct pvclock_vcpu_time_info *clock, u64 cycles)
{
	u64 mul = clock->tsc_to_system_mul;

	if (clock->tsc_shift < 0)
		cycles /= BIT_ULL(-clock->tsc_shift);
	else
		cycles *= BIT_ULL(clock->tsc_shift);

	/* cycles * mul / 2^32, in two parts of 64 bits. */
	return (cycles >> 32) * mul + ((cycles & UINT32_MAX) * mul >> 32);
}

/* The clock at @tsc. */
static inline u64 clock_at(const struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	return clock->system_time + cycles_to_ns(clock, tsc - clock->tsc_timestamp);
}

static inline void assert_at(u64 tsc, u64 expected, u64 ns, const char *what)
{
	TEST_ASSERT(ns == expected, "%s is off by %ld ns at TSC %#lx: %lu ns, expected %lu ns",
		    what, ns - expected, tsc, ns, expected);
}

static inline void assert_same_function(const struct pvclock_vcpu_time_info *expected,
					const struct pvclock_vcpu_time_info *clock,
					u64 tsc, const char *what)
{
	int i;

	for (i = 0; i < NR_TSC_VALUES; i++, tsc += TSC_AHEAD / NR_TSC_VALUES)
		assert_at(tsc, clock_at(expected, tsc), clock_at(clock, tsc), what);
}

/* The clock of each vCPU is @expected: for the guest, in its page, and for GET. */
static inline void assert_guest_clock(struct guest *guest,
				      const struct pvclock_vcpu_time_info *expected)
{
	struct pvclock_vcpu_time_info clock, *page;
	struct reading reading;
	int i;

	for (i = 0; i < guest->nr_vcpus; i++) {
		clock = get_clock_guest(guest->vcpus[i]);
		reading = run_vcpu(guest->vcpus[i]);
		assert_at(reading.tsc, clock_at(expected, reading.tsc), reading.ns,
			  "The guest's reading");

		page = guest_copy(guest, pvti[i]);
		TEST_ASSERT_EQ(page->flags, PVCLOCK_TSC_STABLE_BIT);
		assert_same_function(expected, page, reading.tsc, "The guest's page");
		assert_same_function(expected, &clock, reading.tsc, "GET before the run");
		clock = get_clock_guest(guest->vcpus[i]);
		assert_same_function(expected, &clock, reading.tsc, "GET after the run");
	}
}

static inline void assert_fails(struct kvm_vcpu *vcpu, unsigned long cmd,
				const struct pvclock_vcpu_time_info *clock, int err)
{
	int r = ioctl(vcpu->fd, cmd, clock);

	TEST_ASSERT(r == -1 && errno == err,
		    "ioctl %#lx returned %d, errno %d (%s), expected errno %d (%s)",
		    cmd, r, errno, strerror(errno), err, strerror(err));
}

/* To be called before the vCPU runs, so that its guest may use Hyper-V's MSRs. */
static inline void allow_hyperv(struct guest *guest)
{
	vcpu_set_hv_cpuid(guest->vcpus[0]);
}

static inline u64 get_hv_tsc_page_msr(struct guest *guest)
{
	return addr_gva2gpa(guest->vm, (unsigned long)&hv_tsc_page) | 1;
}

static inline void enable_hv_tsc_page(struct guest *guest)
{
	run_with_wrmsr(guest, 0, HV_X64_MSR_GUEST_OS_ID, HYPERV_LINUX_OS_ID);
	run_with_wrmsr(guest, 0, HV_X64_MSR_REFERENCE_TSC, get_hv_tsc_page_msr(guest));
}

/* Forwards, backwards, and to the beginning. */
static const u64 clock_values[] = {
	1000 * NSEC_PER_SEC, 10 * NSEC_PER_SEC, 0, 10000 * NSEC_PER_SEC, 1,
};

static inline u64 get_raw_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return timespec_to_ns(ts);
}

static inline void set_clock(struct guest *guest, u64 ns)
{
	struct kvm_clock_data data = { .clock = ns };

	vm_ioctl(guest->vm, KVM_SET_CLOCK, &data);
}

/*
 * F passes through the value at some TSC value during the ioctl.  F begins at
 * its reference, which can be later than the first reading of the TSC.
 */
static inline void __assert_set_clock_in_mode(struct guest *guest, u64 ns)
{
	struct pvclock_vcpu_time_info clock;
	u64 start, end;

	start = get_tsc(guest->vcpus[0]);
	set_clock(guest, ns);
	end = get_tsc(guest->vcpus[0]);
	clock = get_clock_guest(guest->vcpus[0]);

	TEST_ASSERT(clock.tsc_timestamp <= end, "The reference is ahead of the TSC");
	if (start < clock.tsc_timestamp)
		start = clock.tsc_timestamp;
	TEST_ASSERT(clock_at(&clock, start) <= ns && ns <= clock_at(&clock, end),
		    "KVM_SET_CLOCK to %lu ns, but the clock goes from %lu to %lu ns",
		    ns, clock_at(&clock, start), clock_at(&clock, end));
	assert_guest_clock(guest, &clock);
}

/*
 * Out of master clock mode the clock is CLOCK_MONOTONIC_RAW plus an offset, or goes
 * on at the rate of the TSC if that is ahead: the value is passed by no more than the
 * faster of the two says has passed.
 */
static inline void __assert_set_clock_out_of_mode(struct guest *guest, u64 ns)
{
	struct pvclock_vcpu_time_info *page = guest_copy(guest, pvti[0]);
	u64 start_tsc = get_tsc(guest->vcpus[0]), start_raw = get_raw_ns(), passed;
	struct kvm_clock_data data = {};

	set_clock(guest, ns);
	vm_ioctl(guest->vm, KVM_GET_CLOCK, &data);
	run_vcpu(guest->vcpus[0]);
	passed = max(get_raw_ns() - start_raw,
		     cycles_to_ns(page, get_tsc(guest->vcpus[0]) - start_tsc));

	TEST_ASSERT(!(data.flags & KVM_CLOCK_TSC_STABLE), "Still in master clock mode");
	TEST_ASSERT(data.clock - ns <= passed,
		    "KVM_SET_CLOCK to %lu ns, but the clock is %llu ns within %lu ns",
		    ns, data.clock, passed);
	TEST_ASSERT(page->system_time - ns <= passed,
		    "KVM_SET_CLOCK to %lu ns, but the page is %lu ns within %lu ns",
		    ns, (u64)page->system_time, passed);
}

static inline void assert_set_clock_in_mode(struct guest *guest)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(clock_values); i++)
		__assert_set_clock_in_mode(guest, clock_values[i]);
}

static inline void assert_set_clock_out_of_mode(struct guest *guest)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(clock_values); i++)
		__assert_set_clock_out_of_mode(guest, clock_values[i]);
}

/* The host's clocksource, which is to be "tsc" again at the end. */
#define CLOCKSOURCES	"/sys/devices/system/clocksource/clocksource0/"
#define MAX_CLOCKSOURCE	32
#define MAX_OTHERS	8

static inline void read_word(const char *path, char *word)
{
	FILE *file = fopen(path, "r");

	TEST_ASSERT(file && fscanf(file, "%31s", word) == 1, "Can't read %s", path);
	fclose(file);
}

static inline void write_word(const char *path, const char *word)
{
	FILE *file = fopen(path, "w");

	TEST_ASSERT(file && fputs(word, file) >= 0 && !fclose(file),
		    "Can't write '%s' to %s", word, path);
}

static inline bool is_clocksource(const char *name)
{
	char current[MAX_CLOCKSOURCE];

	read_word(CLOCKSOURCES "current_clocksource", current);
	return !strcmp(current, name);
}

static inline void set_clocksource(const char *name)
{
	write_word(CLOCKSOURCES "current_clocksource", name);
	while (!is_clocksource(name))
		usleep(1000);
}

/* Returns how many there are besides the TSC, without those that count ticks. */
static inline int get_other_clocksources(char names[][MAX_CLOCKSOURCE], int max)
{
	FILE *file = fopen(CLOCKSOURCES "available_clocksource", "r");
	int nr = 0;

	TEST_ASSERT(file, "Can't read the available clocksources");
	while (nr < max && fscanf(file, "%31s", names[nr]) == 1) {
		if (strcmp(names[nr], "tsc") && !strstr(names[nr], "jiffies"))
			nr++;
	}
	fclose(file);
	return nr;
}

struct test {
	const char *name;
	void (*run)(void);
	long needs_cap;			/* or 0 */
};

/* Each in a process of its own, so that a failure is one failed test. */
static inline void run_tests(const char *prefix, const struct test *tests, int nr_tests)
{
	int i, status;
	pid_t pid;

	for (i = 0; i < nr_tests; i++) {
		if (tests[i].needs_cap && !kvm_has_cap(tests[i].needs_cap)) {
			ksft_test_result_skip("%s%s: KVM lacks capability %ld\n",
					      prefix, tests[i].name, tests[i].needs_cap);
			continue;
		}

		pid = fork();
		TEST_ASSERT(pid >= 0, "fork() failed");
		if (!pid) {
			tests[i].run();
			exit(KSFT_PASS);
		}
		TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
		ksft_test_result(!status, "%s%s\n", prefix, tests[i].name);
	}
}

#endif /* SELFTEST_KVM_PVCLOCK_TEST_H */
