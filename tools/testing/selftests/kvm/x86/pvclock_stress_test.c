// SPDX-License-Identifier: GPL-2.0
/*
 * Stress kvmclock as a function of the TSC, F: a random walk against a model, concurrent
 * updates, many migrations and, opt-in, changes of the host's clocksource.
 */
#include <asm/kvm_para.h>
#include <asm/pvclock.h>
#include <asm/pvclock-abi.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "hyperv.h"
#include "pvclock.h"

#define MAX_VCPUS	8
#define NR_RUNNING	3	/* vCPUs that run at the same time */
#define NR_HISTORY	20
#define NR_SAVED	8

/* The same function with the last reference not after @tsc. */
static struct pvclock_vcpu_time_info renewed(struct pvclock_vcpu_time_info clock, u64 tsc)
{
	tsc -= (tsc - clock.tsc_timestamp) & (pvclock_period(&clock) - 1);
	clock.system_time = pvclock_at(&clock, tsc);
	clock.tsc_timestamp = tsc;
	return clock;
}

/* Return true if @a and @b are the same function, at every TSC value. */
static bool same_clock(const struct pvclock_vcpu_time_info *a,
		       const struct pvclock_vcpu_time_info *b)
{
	struct pvclock_vcpu_time_info c = renewed(*a, b->tsc_timestamp);

	return a->tsc_to_system_mul == b->tsc_to_system_mul && a->tsc_shift == b->tsc_shift &&
	       c.tsc_timestamp == b->tsc_timestamp && c.system_time == b->system_time;
}

static u64 get_raw_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return timespec_to_ns(ts);
}

static u64 get_realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return timespec_to_ns(ts);
}

/* Options, see usage(). */
static u64 max_steps = 10000, walk_seconds, walk_seed;
static u64 thread_seconds = 5, nr_migrations = 10000;
static const char *other_clocksource, *unstable_file, *backwards_file;
static bool change_clocksource;

static u32 host_khz;

/* Shared with the guest: the vCPUs' pages and the Hyper-V TSC page. */
static struct pvclock_vcpu_time_info pages[MAX_VCPUS] __aligned(PAGE_SIZE);
static struct hv_tsc_page hv_page __aligned(PAGE_SIZE);
static u64 pages_gpa, hv_page_gpa;

#define guest_copy(vm, var)	((typeof(var) *)addr_gva2hva(vm, (unsigned long)&(var)))

/* What the vCPU is to do in the walk, and what it read. */
static struct command {
	u64 value;
	u32 msr;
	u64 tsc, ns;
} commands[MAX_VCPUS];

static struct kvm_vm *create_vm(u64 khz)
{
	struct kvm_vm *vm = vm_create(MAX_VCPUS);

	if (khz)
		vm_ioctl(vm, KVM_SET_TSC_KHZ, (void *)khz);
	pages_gpa = addr_gva2gpa(vm, (unsigned long)pages);
	hv_page_gpa = addr_gva2gpa(vm, (unsigned long)&hv_page);
	sync_global_to_guest(vm, pages_gpa);
	sync_global_to_guest(vm, hv_page_gpa);
	return vm;
}

static struct kvm_vcpu *create_vcpu(struct kvm_vm *vm, int id, void *guest_code)
{
	struct kvm_vcpu *vcpu = vm_vcpu_add(vm, id, guest_code);

	vcpu_args_set(vcpu, 1, id);
	vcpu_set_hv_cpuid(vcpu);
	return vcpu;
}

static void set_msr(struct kvm_vcpu *vcpu, u32 msr, u64 value)
{
	TEST_ASSERT(_vcpu_set_msr(vcpu, msr, value) == 1, "KVM_SET_MSRS %#x %#lx failed", msr,
		    value);
}

static u64 page_msr(int id)
{
	return pages_gpa + id * sizeof(*pages) + KVM_MSR_ENABLED;
}

/* Read the vCPU's clock at @tsc, as guests do. */
static u64 guest_read_clock(int id, struct pvclock_vcpu_time_info *page, u64 *tsc)
{
	unsigned int version;

	do {
		version = pvclock_read_begin(&pages[id]);
		*page = pages[id];
		*tsc = rdtsc();
	} while (pvclock_read_retry(&pages[id], version));

	return __pvclock_read_cycles(page, *tsc);
}

/* Return true if @ticks is within the bound of @ns of F, see guest-clock.rst. */
static bool is_hv_time(u64 ticks, u64 ns)
{
	s64 error = ticks - ns / 100;

	return error >= -2 && error <= 2;
}

/*
 * Out of master clock mode ("the mode") the clock is CLOCK_MONOTONIC_RAW plus an offset,
 * always the same one.  Each reading bounds it, but for 1 ns that is rounded off.
 */
struct raw_offset {
	s64 min, max;
};

static const struct raw_offset unknown_raw_offset = { INT64_MIN, INT64_MAX };

static void bound_raw_offset(struct raw_offset *raw, u64 ns, u64 start, u64 end)
{
	raw->min = max(raw->min, (s64)(ns - end) - 1);
	raw->max = min(raw->max, (s64)(ns - start) + 1);
	TEST_ASSERT(raw->min <= raw->max,
		    "Out of the mode the clock deviates from CLOCK_MONOTONIC_RAW by %ld ns",
		    raw->min - raw->max);
}

/* --- the random walk: the model ------------------------------------------------- */

/* Write an MSR if the host says so, and read the clock. */
static void guest_walk(int id)
{
	struct command *command = &commands[id];
	struct pvclock_vcpu_time_info page;

	for (;;) {
		if (READ_ONCE(command->msr))
			wrmsr(command->msr, command->value);
		command->ns = guest_read_clock(id, &page, &command->tsc);
		GUEST_SYNC(0);
	}
}

struct model_vcpu {
	struct kvm_vcpu *vcpu;
	struct pvclock_vcpu_time_info *page;
	struct command *command;
	struct vcpu_tsc tsc;
	u64 adjust;		/* IA32_TSC_ADJUST */
	bool emulated;		/* the TSC catches up with its rate */
	bool enabled;		/* the page */
	bool stale;		/* KVM is to write the page at the next entry */
	bool must_pause, paused; /* PVCLOCK_GUEST_STOPPED is to be set, is set */
	u64 ns;			/* the last reading */
};

static struct model {
	struct kvm_vm *vm;
	struct model_vcpu vcpus[MAX_VCPUS];
	int nr_vcpus;
	bool in_mode;		/* the clock is F */
	bool known;		/* which F */
	struct pvclock_vcpu_time_info clock;	/* F of the TSC without offset */
	struct vcpu_tsc tsc;			/* that TSC */
	bool old_msr;		/* the boot vCPU uses MSR_KVM_SYSTEM_TIME */
	struct hv_tsc_page *hv_page;
	bool hv_enabled;
	bool hv_current;	/* KVM has written the page since the last change */
	u64 hv_tsc;		/* when */
	u64 ns;			/* the last KVM_GET_CLOCK */
	struct raw_offset raw;
} model;

/* The VM just before a change. */
struct moment {
	struct model model;
	struct pvclock_vcpu_time_info pages[MAX_VCPUS];
	u64 host_tsc, raw_ns;
	bool matched;
};

/* A new F is from @lo_ns to @hi_ns at a time between @before and @host_tsc. */
static struct {
	struct moment before;
	u64 host_tsc, lo_ns, hi_ns;
	bool continuous;
} expected;

static struct pvclock_vcpu_time_info saved[NR_SAVED];
static char history[NR_HISTORY][128];
static u64 nr_steps, random_state;

static u64 random_u64(void)
{
	u64 x = random_state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static u64 random_below(u64 n)
{
	return random_u64() % n;
}

static bool one_in(int n)
{
	return !random_below(n);
}

/* Of any magnitude below 2^@bits. */
static u64 random_bits(int bits)
{
	u64 x = random_u64();

	return x >> (64 - bits + random_below(bits));
}

static struct model_vcpu *random_vcpu(void)
{
	return &model.vcpus[random_below(model.nr_vcpus)];
}

static void note(const char *fmt, ...)
{
	char *line = history[nr_steps % NR_HISTORY];
	int len = strlen(line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + len, sizeof(*history) - len, fmt, ap);
	va_end(ap);
}

static u64 model_at(struct model *m, u64 host_tsc)
{
	return pvclock_at(&m->clock, vcpu_tsc_at(&m->tsc, host_tsc));
}

static bool is_same_rate(struct vcpu_tsc a, struct vcpu_tsc b)
{
	return a.ratio == b.ratio;
}

static bool can_be_in_mode(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++) {
		if (model.vcpus[i].emulated ||
		    !is_same_rate(model.vcpus[i].tsc, model.vcpus[0].tsc))
			return false;
	}
	return true;
}

static bool is_matched(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++) {
		if (model.vcpus[i].tsc.offset != model.vcpus[0].tsc.offset)
			return false;
	}
	return can_be_in_mode();
}

static u8 stable_bit(void)
{
	return is_matched() && !model.old_msr ? PVCLOCK_TSC_STABLE_BIT : 0;
}

static void set_stale(struct model_vcpu *v)
{
	v->stale = true;
	model.hv_current = false;
}

static void set_all_stale(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++)
		set_stale(&model.vcpus[i]);
}

/* The clock was set, and may be behind what was read before. */
static void forget_readings(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++)
		model.vcpus[i].ns = 0;
	model.ns = 0;
	model.raw = unknown_raw_offset;
	set_all_stale();
}

/* @clock is F from now on. */
static void set_model_clock(struct model_vcpu *v, const struct pvclock_vcpu_time_info *clock)
{
	model.clock = *clock;
	model.clock.tsc_timestamp -= v->tsc.offset;
	model.tsc = v->tsc;
	model.tsc.offset = 0;
	model.known = true;
}

static bool is_within_tolerance(u64 khz)
{
	u64 tolerance = (u64)host_khz * 250 / 1000000;

	return khz >= host_khz - tolerance && khz <= host_khz + tolerance;
}

/* Without scaling, KVM lets a TSC that is to be faster than the host's catch up. */
static bool is_emulated(u32 khz)
{
	return !kvm_has_cap(KVM_CAP_TSC_CONTROL) && khz > host_khz && !is_within_tolerance(khz);
}

static struct kvm_clock_data get_clock(struct kvm_vm *vm)
{
	struct kvm_clock_data data = {};

	vm_ioctl(vm, KVM_GET_CLOCK, &data);
	return data;
}

static struct moment begin_change(void)
{
	struct moment before = { .model = model, .matched = is_matched() };
	int i;

	for (i = 0; i < model.nr_vcpus; i++)
		before.pages[i] = *model.vcpus[i].page;
	before.raw_ns = get_raw_ns();
	before.model.ns = get_clock(model.vm).clock;
	before.host_tsc = rdtsc();
	return before;
}

static void expect_clock(const struct moment *before, u64 lo_ns, u64 hi_ns, bool continuous)
{
	expected.before = *before;
	expected.host_tsc = rdtsc();
	expected.lo_ns = lo_ns;
	expected.hi_ns = hi_ns;
	expected.continuous = continuous;
	model.known = false;
	model.tsc = model.vcpus[0].tsc;
	model.tsc.offset = 0;
	set_all_stale();
}

/* By how much the rate deviates from the host's in kHz times the ratio, in ns per second. */
static s64 rate_error(const struct pvclock_vcpu_time_info *clock, struct vcpu_tsc tsc)
{
	int bits = 32 - clock->tsc_shift + tsc.frac_bits;
	__int128 error = (__int128)host_khz * 1000 * tsc.ratio * clock->tsc_to_system_mul -
			 ((__int128)NSEC_PER_SEC << bits);

	return error < 0 ? -(s64)(-error >> bits) : (s64)(error >> bits);
}

/* What is rounded off where the function is read and set: 2 ns and a cycle of its TSC. */
static u64 rounding_error(const struct pvclock_vcpu_time_info *clock)
{
	return 2 + pvclock_at(clock, clock->tsc_timestamp + 2) - clock->system_time;
}

/*
 * Leaving the mode, the clock goes on from F.  After that F and CLOCK_MONOTONIC_RAW, whose
 * rate is the host's within 1 ppm, deviate.
 */
static void check_leaving(struct moment *before)
{
	u64 start = rdtsc(), ns = get_clock(model.vm).clock, end = rdtsc(), error;
	struct model *old = &before->model;

	error = model_at(old, end) - model_at(old, before->host_tsc);
	error *= labs(rate_error(&old->clock, old->tsc)) + 1000;
	error = error / NSEC_PER_SEC + 2 + rounding_error(&old->clock);
	TEST_ASSERT(ns + error >= model_at(old, start) && ns <= model_at(old, end) + error,
		    "Leaving the mode, the clock is %lu ns, F from %lu to %lu", ns,
		    model_at(old, start), model_at(old, end));
}

/* TSCs may have changed: derive what becomes of the clock. */
static void end_change(struct moment *before)
{
	u64 passed = get_raw_ns() - before->raw_ns;

	if (is_matched() != before->matched)
		set_all_stale();

	model.in_mode = can_be_in_mode();
	if (model.in_mode && !before->model.in_mode) {
		expect_clock(before, before->model.ns, before->model.ns + passed, false);
	} else if (model.in_mode && !is_same_rate(model.tsc, model.vcpus[0].tsc)) {
		expect_clock(before, before->model.ns, model_at(&before->model, rdtsc()), true);
	} else if (!model.in_mode && before->model.in_mode) {
		set_all_stale();
		model.raw = unknown_raw_offset;
		if (before->model.known)
			check_leaving(before);
	}
}

/* --- the random walk: readers --------------------------------------------------- */

/*
 * At the reference that KVM took, F is not behind what the vCPU read last.  (Its page may
 * be ahead by now: the vCPU doesn't run.)
 */
static void check_not_behind(struct moment *before, int i)
{
	u64 end = vcpu_tsc_at(&model.tsc, expected.host_tsc), ns = before->model.vcpus[i].ns;
	u64 tsc = renewed(model.clock, end).tsc_timestamp;
	s64 behind = ns - pvclock_at(&model.clock, tsc);

	/* Unless the reference has been renewed since. */
	if (!ns || pvclock_period(&model.clock) <
	    end - vcpu_tsc_at(&model.tsc, before->host_tsc))
		return;

	TEST_ASSERT(behind <= 0, "Entering the mode, F is %ld ns behind what vCPU %d read",
		    behind, i);
}

/*
 * The rate changed, F goes on.  At the switch, old and new F are the same but for what is
 * rounded off, before and after it they deviate in one direction.
 */
static void check_continuous(void)
{
	struct model *old = &expected.before.model;
	u64 host_tsc = expected.before.host_tsc;
	s64 start = model_at(&model, host_tsc) - model_at(old, host_tsc);
	s64 end = model_at(&model, expected.host_tsc) - model_at(old, expected.host_tsc);
	s64 error = rounding_error(&old->clock) + rounding_error(&model.clock);

	TEST_ASSERT(min(start, end) <= error && max(start, end) >= -error,
		    "The rate changes, and the clock steps by %ld to %ld ns", start, end);
}

/* Take @clock, the vCPU's page or what GET returned, as F if it can be the new F. */
static void learn_clock(struct model_vcpu *v, const struct pvclock_vcpu_time_info *clock)
{
	struct moment *before = &expected.before;
	u64 start, end;
	int i;

	set_model_clock(v, clock);
	start = model_at(&model, before->host_tsc);
	end = model_at(&model, expected.host_tsc);
	TEST_ASSERT(!rate_error(&model.clock, model.tsc), "The new F deviates by %ld ns/s",
		    rate_error(&model.clock, model.tsc));
	TEST_ASSERT((s64)(end - expected.lo_ns) >= 0 && (s64)(start - expected.hi_ns) <= 0,
		    "The new F goes from %lu to %lu ns, expected within %lu and %lu ns",
		    start, end, expected.lo_ns, expected.hi_ns);

	if (expected.continuous && before->model.known)
		check_continuous();
	for (i = 0; i < before->model.nr_vcpus && !before->model.in_mode; i++)
		check_not_behind(before, i);
}

static void check_clock(struct model_vcpu *v, struct pvclock_vcpu_time_info clock, u8 flags,
			const char *what)
{
	TEST_ASSERT(clock.flags == flags, "vCPU %u's %s has flags %#x, expected %#x",
		    v->vcpu->id, what, clock.flags, flags);
	clock.tsc_timestamp -= v->tsc.offset;
	TEST_ASSERT(same_clock(&model.clock, &clock),
		    "vCPU %u's %s is not F: multiplier %#x, not %#x, or %ld ns off", v->vcpu->id,
		    what, clock.tsc_to_system_mul, model.clock.tsc_to_system_mul,
		    (s64)(clock.system_time - pvclock_at(&model.clock, clock.tsc_timestamp)));
}

/* The reference was less than @max_age old at a time between @start and @end. */
static void check_age(struct model_vcpu *v, const struct pvclock_vcpu_time_info *clock,
		      s64 max_age, u64 start, u64 end, const char *what)
{
	s64 age = vcpu_tsc_at(&v->tsc, start) - clock->tsc_timestamp;
	s64 later_age = vcpu_tsc_at(&v->tsc, end) - clock->tsc_timestamp;

	TEST_ASSERT(age < max_age && later_age >= 0,
		    "The reference of vCPU %u's %s is %ld to %ld cycles old, expected below %ld",
		    v->vcpu->id, what, age, later_age, max_age);
}

/* With the old MSR each page has a reference of its own, on F but between its periods. */
static void check_page(struct model_vcpu *v)
{
	struct pvclock_vcpu_time_info clock = *v->page;

	if (!v->enabled || v->stale || (model.in_mode && !model.known))
		return;
	if (!model.in_mode) {
		TEST_ASSERT(!(clock.flags & PVCLOCK_TSC_STABLE_BIT),
			    "vCPU %u's page is stable out of the mode", v->vcpu->id);
		return;
	}

	TEST_ASSERT(!(clock.version & 1), "vCPU %u's page has an odd version", v->vcpu->id);
	if (model.old_msr) {
		TEST_ASSERT_EQ(clock.system_time,
			       pvclock_at(&model.clock, clock.tsc_timestamp - v->tsc.offset));
		clock.tsc_timestamp = model.clock.tsc_timestamp + v->tsc.offset;
		clock.system_time = model.clock.system_time;
	}
	check_clock(v, clock, stable_bit() | (v->paused ? PVCLOCK_GUEST_STOPPED : 0), "page");
}

/* Also later, unless the TSC wraps, or has since KVM wrote the page. */
static void check_hv_page(void)
{
	u64 host_tsc = rdtsc(), tsc, ticks, ns, i;

	if (!model.hv_enabled || !model.hv_current || (model.in_mode && !model.known))
		return;

	TEST_ASSERT(!model.hv_page->sequence == !(model.in_mode && stable_bit()),
		    "The Hyper-V page has sequence %u", model.hv_page->sequence);
	for (i = 0; i < 3 && model.hv_page->sequence; i++, host_tsc += BIT_ULL(20 * i)) {
		tsc = vcpu_tsc_at(&model.vcpus[0].tsc, host_tsc);
		ticks = hv_tsc_page_at(model.hv_page, tsc);
		ns = model_at(&model, host_tsc);
		TEST_ASSERT(tsc < model.hv_tsc || is_hv_time(ticks, ns),
			    "The Hyper-V page gives %lu at %lu ns", ticks, ns);
	}
}

static void check_hv_counter(void)
{
	u64 start = rdtsc(), ticks, end;

	ticks = vcpu_get_msr(random_vcpu()->vcpu, HV_X64_MSR_TIME_REF_COUNT);
	end = rdtsc();
	if (model.in_mode)
		TEST_ASSERT(ticks + 2 >= model_at(&model, start) / 100 &&
			    ticks <= model_at(&model, end) / 100 + 1,
			    "Hyper-V's counter is %lu at %lu to %lu ns", ticks,
			    model_at(&model, start), model_at(&model, end));
}

static void check_get_clock(void)
{
	u32 flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	u64 start = get_raw_ns();
	struct kvm_clock_data data = get_clock(model.vm);
	u64 end = get_raw_ns();

	TEST_ASSERT((data.flags & flags) == (model.in_mode ? flags : 0),
		    "KVM_GET_CLOCK has flags %#x", data.flags);
	TEST_ASSERT(data.clock >= model.ns, "KVM_GET_CLOCK goes back by %llu ns",
		    model.ns - data.clock);
	model.ns = data.clock;
	if (model.in_mode)
		TEST_ASSERT_EQ(data.clock, model_at(&model, data.host_tsc));
	else
		bound_raw_offset(&model.raw, data.clock, start, end);
}

static void check_get_clock_guest(struct model_vcpu *v)
{
	struct pvclock_vcpu_time_info clock;
	u64 start = rdtsc();
	int r = __vcpu_ioctl(v->vcpu, KVM_GET_CLOCK_GUEST, &clock);

	TEST_ASSERT(model.in_mode ? !r : r && errno == ENODATA, "GET returned %d, errno %d", r,
		    errno);
	if (!model.in_mode)
		return;

	check_age(v, &clock, PVCLOCK_MIN_AGE + pvclock_period(&clock), start, rdtsc(), "GET");
	if (!model.known)
		learn_clock(v, &clock);
	check_clock(v, clock, stable_bit(), "GET");
	if (one_in(50))
		saved[random_below(NR_SAVED)] = clock;
}

/* A vCPU that has just taken a reference agrees with KVM_GET_CLOCK. */
static void check_reading(struct model_vcpu *v, u64 start_ns, u64 end_ns, bool is_new)
{
	u64 ns = v->command->ns, f;

	TEST_ASSERT(ns >= v->ns, "vCPU %u's clock goes back by %lu ns", v->vcpu->id, v->ns - ns);
	v->ns = ns;

	if (model.in_mode && model.known) {
		f = pvclock_at(&model.clock, v->command->tsc - v->tsc.offset);
		TEST_ASSERT(ns <= f && ns + (model.old_msr ? 2 : 0) >= f,
			    "vCPU %u reads a clock that is %ld ns off", v->vcpu->id, ns - f);
	} else if (!model.in_mode && is_new) {
		TEST_ASSERT(ns >= start_ns && ns <= end_ns + 1,
			    "vCPU %u reads %lu ns between KVM_GET_CLOCK's %lu and %lu ns",
			    v->vcpu->id, ns, start_ns, end_ns);
	}
}

/* --- the random walk: steps ----------------------------------------------------- */

/* KVM may synchronize a TSC that the host writes; what counts is the offset that results. */
static void after_tsc_write(struct model_vcpu *v, u32 msr, u64 value, bool by_guest,
			    const struct moment *before)
{
	u64 old_offset = v->tsc.offset, old_adjust = v->adjust;
	u64 max_offset = old_offset + value - vcpu_tsc_at(&v->tsc, before->host_tsc);
	u64 min_offset = old_offset + value - vcpu_tsc_at(&v->tsc, rdtsc());

	v->adjust = vcpu_get_msr(v->vcpu, MSR_IA32_TSC_ADJUST);
	if (msr == MSR_IA32_TSC_ADJUST)
		TEST_ASSERT_EQ(v->adjust, value);
	if (msr == MSR_IA32_TSC_ADJUST && !by_guest)
		return;

	v->tsc = vcpu_get_tsc(v->vcpu);
	set_stale(v);
	if (v->emulated || !by_guest)
		return;

	TEST_ASSERT_EQ(v->adjust - old_adjust, v->tsc.offset - old_offset);
	if (msr == MSR_IA32_TSC)
		TEST_ASSERT(v->tsc.offset - min_offset <= max_offset - min_offset,
			    "WRMSR of the TSC led to offset %#lx", v->tsc.offset);
}

static void after_wrmsr(struct model_vcpu *v, u32 msr, u64 value, bool by_guest,
			struct moment *before)
{
	bool old_msr = msr == MSR_KVM_SYSTEM_TIME;

	switch (msr) {
	case MSR_IA32_TSC:
	case MSR_IA32_TSC_ADJUST:
		after_tsc_write(v, msr, value, by_guest, before);
		break;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		v->enabled = value;
		set_stale(v);
		if (by_guest && v->vcpu->id == 0 && model.old_msr != old_msr) {
			model.old_msr = old_msr;
			set_all_stale();
		}
		break;
	case HV_X64_MSR_REFERENCE_TSC:
		model.hv_enabled = value & 1;
		if (model.hv_enabled)
			set_stale(v);
		break;
	}
	end_change(before);
}

/* KVM has written the page if it is enabled. */
static void set_paused(struct model_vcpu *v)
{
	if (!v->enabled)
		return;
	v->paused |= v->must_pause;
	v->must_pause = false;
}

/* Run the vCPU; its guest first writes an MSR if @msr is not 0. */
static void run(struct model_vcpu *v, u32 msr, u64 value)
{
	struct moment before = begin_change();
	struct ucall uc;
	bool was_stale;

	note(" KVM_RUN %u", v->vcpu->id);
	v->command->value = value;
	v->command->msr = msr;
	vcpu_run(v->vcpu);
	TEST_ASSERT_EQ(get_ucall(v->vcpu, &uc), UCALL_SYNC);

	set_paused(v);
	after_wrmsr(v, msr, value, true, &before);
	set_paused(v);
	if (v->emulated)
		v->tsc = vcpu_get_tsc(v->vcpu);
	was_stale = v->stale;
	if (was_stale) {
		model.hv_current = true;
		model.hv_tsc = vcpu_tsc_at(&model.vcpus[0].tsc, before.host_tsc);
	}
	v->stale = false;
	if (!v->enabled)
		return;

	if (model.in_mode && was_stale)
		check_age(v, v->page,
			  model.old_msr ? 1 : PVCLOCK_MIN_AGE + pvclock_period(v->page),
			  before.host_tsc, rdtsc(), "page");
	if (model.in_mode && !model.old_msr && !model.known)
		learn_clock(v, v->page);
	check_reading(v, before.model.ns, get_clock(model.vm).clock, was_stale);
}

static void run_all(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++)
		run(&model.vcpus[i], 0, 0);
}

static void run_one(void)
{
	run(random_vcpu(), 0, 0);
}

/* Let the guest or the host write the MSR. */
static void write_msr(struct model_vcpu *v, u32 msr, u64 value)
{
	struct moment before;

	note(" wrmsr %#x %#lx of %u", msr, value, v->vcpu->id);
	if (one_in(2)) {
		run(v, msr, value);
		return;
	}
	before = begin_change();
	set_msr(v->vcpu, msr, value);
	after_wrmsr(v, msr, value, false, &before);
}

/* A TSC that does not wrap during the walk. */
static u64 random_tsc(void)
{
	u64 tsc = vcpu_tsc_at(&random_vcpu()->tsc, rdtsc());

	switch (random_below(5)) {
	case 0:
		return random_bits(20);
	case 1:
		return tsc;
	case 2:
		return tsc + random_bits(34);
	case 3:
		return tsc - random_bits(34) % tsc;
	default:
		return random_bits(63);
	}
}

static u64 random_offset(struct model_vcpu *v)
{
	if (one_in(2))
		return random_vcpu()->tsc.offset;

	return v->tsc.offset + random_tsc() - vcpu_tsc_at(&v->tsc, rdtsc());
}

/* Let the rates of F and CLOCK_MONOTONIC_RAW make a difference. */
static void let_pass_ms(u64 ms)
{
	u64 start = get_raw_ns();

	while (get_raw_ns() - start < ms * NSEC_PER_SEC / 1000)
		;
}

static void let_pass(void)
{
	let_pass_ms(20);
	note(" let pass");
}

static void write_tsc(void)
{
	struct model_vcpu *v = random_vcpu();
	u64 offset = random_offset(v);

	if (one_in(2) && kvm_cpu_has(X86_FEATURE_TSC_ADJUST))
		write_msr(v, MSR_IA32_TSC_ADJUST, v->adjust + offset - v->tsc.offset);
	else
		write_msr(v, MSR_IA32_TSC, random_tsc());
}

static void set_offset(void)
{
	struct model_vcpu *one = random_vcpu(), *v;
	u64 offset = random_offset(one);
	bool all = !one_in(3);
	struct moment before;

	note(" offset %#lx of %d", offset, all ? -1 : (int)one->vcpu->id);
	for (v = model.vcpus; v < model.vcpus + model.nr_vcpus; v++) {
		if (!all && v != one)
			continue;
		before = begin_change();
		vcpu_set_tsc_offset(v->vcpu, offset);
		v->tsc.offset = offset;
		set_stale(v);
		end_change(&before);
	}
}

static void write_system_time(void)
{
	struct model_vcpu *v = one_in(3) ? &model.vcpus[0] : random_vcpu();

	write_msr(v, one_in(3) ? MSR_KVM_SYSTEM_TIME : MSR_KVM_SYSTEM_TIME_NEW,
		  one_in(6) ? 0 : page_msr(v->vcpu->id));
}

static void write_reference_tsc(void)
{
	write_msr(random_vcpu(), HV_X64_MSR_REFERENCE_TSC, hv_page_gpa + !one_in(3));
}

/* The guest takes notice of PVCLOCK_GUEST_STOPPED when its page is off. */
static void pause_vcpu(void)
{
	struct model_vcpu *v = random_vcpu();
	int r = __vcpu_ioctl(v->vcpu, KVM_KVMCLOCK_CTRL, NULL);

	note(" pause %u", v->vcpu->id);
	TEST_ASSERT(!r == v->enabled, "KVM_KVMCLOCK_CTRL returned %d", r);
	if (v->enabled) {
		v->must_pause = true;
		set_stale(v);
	} else {
		v->page->flags &= ~PVCLOCK_GUEST_STOPPED;
		v->paused = false;
	}
}

/* By fractions, so that a seed means the same walk where the host's rate is another one. */
static u32 random_khz(void)
{
	u64 max_percent = kvm_has_cap(KVM_CAP_TSC_CONTROL) ? 2000 : 200;

	if (one_in(2))
		return host_khz + (u64)host_khz * random_below(481) / 1000000 -
		       (u64)host_khz * 240 / 1000000;
	return (u64)host_khz * (50 + random_below(max_percent)) / 100;
}

/* Without scaling, a rate below the host's is refused. */
static void set_khz(struct model_vcpu *v, u32 khz)
{
	bool can_be = khz >= host_khz || is_within_tolerance(khz) ||
		      kvm_has_cap(KVM_CAP_TSC_CONTROL);
	struct moment before = begin_change();
	u64 offset = v->tsc.offset;
	int r;

	r = __vcpu_ioctl(v->vcpu, KVM_SET_TSC_KHZ, (void *)(unsigned long)khz);
	TEST_ASSERT(!r == can_be, "KVM_SET_TSC_KHZ %u returned %d, errno %d", khz, r, errno);
	v->tsc = vcpu_get_tsc(v->vcpu);
	if (!v->emulated)
		TEST_ASSERT_EQ(v->tsc.offset, offset);
	if (can_be)
		v->emulated = is_emulated(khz);
	set_stale(v);
	end_change(&before);
}

/* Out of the mode, mostly enter it again. */
static void set_rate(void)
{
	bool all = one_in(2) || (!model.in_mode && !one_in(4));
	u32 khz = all && one_in(2) ? host_khz : random_khz();
	struct model_vcpu *one = random_vcpu(), *v;

	note(" khz %u of %d", khz, all ? -1 : (int)one->vcpu->id);
	for (v = model.vcpus; v < model.vcpus + model.nr_vcpus; v++) {
		if (all || v == one)
			set_khz(v, khz);
	}
}

/* The clock is set at a time during the ioctl, to @ns and, with a realtime, what has passed. */
static void set_clock(void)
{
	u64 ns = one_in(3) ? get_clock(model.vm).clock + random_bits(34) : random_bits(62);
	struct kvm_clock_data data = { .clock = ns };
	struct moment before = begin_change();
	u64 start = get_realtime_ns(), end;

	if (one_in(2)) {
		data.flags = KVM_CLOCK_REALTIME;
		data.realtime = start - random_bits(34);
	}
	note(" KVM_SET_CLOCK %lu flags %#x", ns, data.flags);
	vm_ioctl(model.vm, KVM_SET_CLOCK, &data);
	end = data.flags ? ns + get_realtime_ns() - data.realtime : ns;
	start = data.flags ? ns + start - data.realtime : ns;

	forget_readings();
	if (model.in_mode) {
		expect_clock(&before, start, end, false);
		return;
	}
	ns = get_clock(model.vm).clock;
	TEST_ASSERT(ns >= start && ns <= end + get_raw_ns() - before.raw_ns,
		    "The clock is %lu ns after KVM_SET_CLOCK to %lu ns", ns, start);
}

/* Often a function that SET takes, with a rate up to 122 ppm from the one in force. */
static struct pvclock_vcpu_time_info random_clock(struct model_vcpu *v)
{
	struct pvclock_vcpu_time_info clock = saved[random_below(NR_SAVED)];
	u64 tsc = vcpu_tsc_at(&v->tsc, rdtsc());

	if (one_in(5) && clock.tsc_to_system_mul)
		return clock;

	clock = model.clock;
	clock.tsc_timestamp += v->tsc.offset;
	clock = renewed(clock, tsc);
	if (one_in(2)) {
		clock.tsc_timestamp = tsc - random_bits(50);
		clock.system_time = random_bits(62);
	}
	if (one_in(2))
		clock.tsc_to_system_mul = (clock.tsc_to_system_mul & ~GENMASK(17, 0)) |
					  (random_bits(18) << random_below(18) & GENMASK(17, 0));
	if (one_in(2))
		clock = renewed(clock, clock.tsc_timestamp - random_bits(56));
	clock.version = random_u64();
	clock.flags = one_in(2);
	return clock;
}

/* Make one field wrong. */
static void spoil_clock(struct pvclock_vcpu_time_info *clock, u64 tsc)
{
	u64 r = random_bits(61);

	switch (random_below(9)) {
	case 0:
		clock->tsc_to_system_mul &= GENMASK(30, 0);
		break;
	case 1:
		clock->tsc_shift = 32 + r % 193;
		break;
	case 2:
		clock->pad0 = r | 1;
		break;
	case 3:
		clock->pad[r & 1] = 1 << random_below(8);
		break;
	case 4:
		clock->flags = 2 << random_below(7);
		break;
	case 5:
		clock->tsc_to_system_mul = BIT(31) | r;
		break;
	case 6:
		clock->tsc_timestamp = tsc + BIT_ULL(40) + r;
		break;
	case 7:
		clock->tsc_timestamp = tsc - BIT_ULL(62) - 1 - r;
		break;
	case 8:
		clock->system_time += BIT_ULL(63) - pvclock_at(clock, tsc) + r;
		break;
	}
}

/*
 * Which -errno SET is to return, 0 for none, 1 if the rate is that close to the tolerance,
 * which is computed with rates in kHz, that either may be right.
 */
static int expected_errno(const struct pvclock_vcpu_time_info *clock, struct model_vcpu *v)
{
	u64 tsc = vcpu_tsc_at(&v->tsc, rdtsc()), age = tsc - clock->tsc_timestamp;
	s64 error;

	if (!(clock->tsc_to_system_mul >> 31) || clock->tsc_shift < -31 ||
	    clock->tsc_shift > 31 || clock->pad0 || clock->pad[0] || clock->pad[1] ||
	    clock->flags & ~PVCLOCK_TSC_STABLE_BIT)
		return -EINVAL;
	if (!model.in_mode)
		return -ENODATA;

	error = rate_error(clock, v->tsc);
	if (labs(error) > 180000 && labs(error) < 320000)
		return 1;
	if (labs(error) > 250000 || age > BIT_ULL(62) ||
	    (clock->tsc_shift > 0 && age >> (64 - clock->tsc_shift)) ||
	    (s64)pvclock_at(clock, tsc) < 0)
		return -ERANGE;
	return 0;
}

static void set_clock_guest(void)
{
	struct model_vcpu *v = random_vcpu();
	struct pvclock_vcpu_time_info clock;
	int r, err;

	if (!model.clock.tsc_to_system_mul)
		return;
	clock = random_clock(v);
	if (one_in(3))
		spoil_clock(&clock, vcpu_tsc_at(&v->tsc, rdtsc()));
	err = expected_errno(&clock, v);
	if (err > 0)
		return;

	note(" SET by %u: %#lx %#lx %#x %d %#x, errno %d", v->vcpu->id, clock.tsc_timestamp,
	     clock.system_time, clock.tsc_to_system_mul, clock.tsc_shift, clock.flags, -err);
	r = __vcpu_ioctl(v->vcpu, KVM_SET_CLOCK_GUEST, &clock) ? -errno : 0;
	TEST_ASSERT(r == err || r == expected_errno(&clock, v), "SET: errno %d, expected %d",
		    -r, -err);
	if (r)
		return;
	set_model_clock(v, &clock);
	forget_readings();
}

/* A new vCPU has the TSC of the one before it. */
static void add_vcpu(void)
{
	int id = model.nr_vcpus++;
	struct model_vcpu *v = &model.vcpus[id];

	memset(v, 0, sizeof(*v));
	v->vcpu = create_vcpu(model.vm, id, guest_walk);
	v->page = &(*guest_copy(model.vm, pages))[id];
	v->command = &(*guest_copy(model.vm, commands))[id];
	v->stale = true;
	v->emulated = is_emulated(__vcpu_ioctl(v->vcpu, KVM_GET_TSC_KHZ, NULL));
	v->tsc = vcpu_get_tsc(v->vcpu);
	if (id && !v[-1].emulated) {
		TEST_ASSERT_EQ(v->tsc.offset, v[-1].tsc.offset);
		TEST_ASSERT_EQ(v->tsc.ratio, v[-1].tsc.ratio);
	}
}

static void plug_vcpu(void)
{
	struct moment before = begin_change();

	if (model.nr_vcpus == MAX_VCPUS)
		return;
	note(" plug %d", model.nr_vcpus);
	add_vcpu();
	end_change(&before);
}

static void create_model(int nr_vcpus, u32 khz)
{
	struct moment before = { .host_tsc = rdtsc(), .raw_ns = get_raw_ns() };

	note(" new VM, %d vCPUs, %u kHz", nr_vcpus, khz);
	memset(&model, 0, sizeof(model));
	model.vm = create_vm(khz);
	model.hv_page = guest_copy(model.vm, hv_page);
	while (model.nr_vcpus < nr_vcpus)
		add_vcpu();
	forget_readings();
	end_change(&before);
}

static void replace_vm(void)
{
	u32 khz = random_khz();

	if (!is_within_tolerance(khz) && !kvm_has_cap(KVM_CAP_VM_TSC_CONTROL))
		khz = 0;
	kvm_vm_free(model.vm);
	create_model(1 + random_below(MAX_VCPUS), khz);
}

/* Let the TSC of @to go on from that of @from, later by @delta, and return its offset. */
static u64 continue_tsc(struct kvm_vcpu *to, struct kvm_vcpu *from, u64 delta)
{
	struct vcpu_tsc old = vcpu_get_tsc(from), tsc = vcpu_get_tsc(to);
	u64 host_tsc = rdtsc();

	tsc.offset += vcpu_tsc_at(&old, host_tsc) + delta - vcpu_tsc_at(&tsc, host_tsc);
	vcpu_set_tsc_offset(to, tsc.offset);
	return tsc.offset;
}

/* Restore a vCPU as a VMM does, its TSC later by @delta. */
static void restore_vcpu(struct model_vcpu *v, struct model_vcpu *from, u64 delta)
{
	v->tsc.offset = continue_tsc(v->vcpu, from->vcpu, delta);
	v->adjust = from->adjust;
	set_msr(v->vcpu, MSR_IA32_TSC_ADJUST, v->adjust);
	v->enabled = from->enabled;
	set_msr(v->vcpu, MSR_KVM_SYSTEM_TIME_NEW, v->enabled ? page_msr(v->vcpu->id) : 0);
}

/* Move to a new VM, sometimes with a TSC that has nearly the same rate. */
static void migrate_vm(void)
{
	u64 delta = one_in(2) ? 0 : random_bits(34);
	int i, id = random_vcpu()->vcpu->id;
	struct pvclock_vcpu_time_info clock;
	struct model_vcpu *v = &model.vcpus[id];
	struct model from = model;
	u64 khz = host_khz;

	if (!model.in_mode)
		return;
	if (v->tsc.ratio != 1ull << v->tsc.frac_bits)
		khz = __vcpu_ioctl(v->vcpu, KVM_GET_TSC_KHZ, NULL);
	if (one_in(4))
		khz = khz - khz / 25000 + khz * random_below(81) / 1000000;
	note(" migrate by %d, TSC %#lx later", id, delta);
	clock = vcpu_get_clock_guest(v->vcpu);

	create_model(from.nr_vcpus, khz);
	for (i = 0; i < model.nr_vcpus; i++)
		restore_vcpu(&model.vcpus[i], &from.vcpus[i], delta);
	model.hv_enabled = from.hv_enabled;
	set_msr(model.vcpus[0].vcpu, HV_X64_MSR_REFERENCE_TSC, hv_page_gpa + model.hv_enabled);
	v = &model.vcpus[id];
	if (!expected_errno(&clock, v)) {
		vcpu_set_clock_guest(v->vcpu, &clock);
		set_model_clock(v, &clock);
	}
	kvm_vm_free(from.vm);
}

static const struct step {
	int weight;
	void (*take)(void);
} steps[] = {
	{ 150, run_one }, { 50, run_all }, { 80, set_offset }, { 60, write_tsc },
	{ 60, write_system_time }, { 40, write_reference_tsc }, { 20, pause_vcpu },
	{ 60, set_rate }, { 60, set_clock }, { 150, set_clock_guest }, { 5, let_pass },
	{ 8, plug_vcpu }, { 1, replace_vm }, { 3, migrate_vm },
};

static void take_step(void)
{
	int weight = 0, i;

	history[nr_steps % NR_HISTORY][0] = '\0';
	for (i = 0; i < ARRAY_SIZE(steps); i++)
		weight += steps[i].weight;
	weight = random_below(weight);
	for (i = 0; weight >= steps[i].weight; i++)
		weight -= steps[i].weight;
	steps[i].take();
}

/* Look at the pages first: nothing else may have repaired them. */
static void check_readers(void)
{
	int i;

	for (i = 0; i < model.nr_vcpus; i++)
		check_page(&model.vcpus[i]);
	check_hv_page();
	if (model.in_mode && !model.known && one_in(2))
		run_one();
	for (i = 0; i < model.nr_vcpus; i++)
		check_get_clock_guest(&model.vcpus[i]);
	check_get_clock();
	if (one_in(4))
		check_hv_counter();
}

static bool walk_is_done;

static void print_history(void)
{
	u64 i;

	if (walk_is_done)
		return;
	for (i = nr_steps < NR_HISTORY ? 0 : nr_steps + 1 - NR_HISTORY; i <= nr_steps; i++)
		ksft_print_msg("step %lu:%s\n", i, history[i % NR_HISTORY]);
	ksft_print_msg("Repeat with -s %lu -w %lu\n", walk_seed, nr_steps);
}

static void test_random_walk(void)
{
	u64 start = get_raw_ns();

	ksft_print_msg("random walk -s %lu\n", walk_seed);
	random_state = walk_seed;
	atexit(print_history);

	create_model(1 + random_below(MAX_VCPUS), 0);
	check_readers();
	while (walk_seconds ? get_raw_ns() - start < walk_seconds * NSEC_PER_SEC :
			      nr_steps < max_steps) {
		nr_steps++;
		take_step();
		check_readers();
	}

	walk_is_done = true;
	kvm_vm_free(model.vm);
	ksft_print_msg("%lu steps\n", nr_steps);
}

/* --- running vCPUs -------------------------------------------------------------- */

/* Shared with the guest. */
static struct {
	u64 seq;		/* odd while F is being replaced */
	struct pvclock_vcpu_time_info clock;
} in_force = { .seq = 1 };
static u64 progress[MAX_VCPUS];	/* the seq that was checked, or the number of readings */
static u64 latest;		/* reading of all vCPUs */
static bool stop;

static void guest_enable_clock(int id)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, page_msr(id));
	if (!id)
		wrmsr(HV_X64_MSR_REFERENCE_TSC, hv_page_gpa + 1);
}

/* Without an exit, look at the vCPU's page and the Hyper-V page after F was replaced. */
static void guest_check_pages(int id)
{
	struct pvclock_vcpu_time_info clock, page;
	struct hv_tsc_page hv;
	u64 seq, tsc;

	guest_enable_clock(id);
	while (!READ_ONCE(stop)) {
		seq = READ_ONCE(in_force.seq);
		rmb();	/* read everything between two looks at seq */
		clock = in_force.clock;
		guest_read_clock(id, &page, &tsc);
		hv = hv_page;
		rmb();	/* see above */
		if (seq & 1 || seq != READ_ONCE(in_force.seq))
			continue;

		__GUEST_ASSERT(same_clock(&clock, &page),
			       "vCPU %d runs on with a clock that was replaced: %#lx, not %#lx",
			       id, (u64)page.system_time, (u64)clock.system_time);
		__GUEST_ASSERT(!hv.sequence || hv.sequence != READ_ONCE(hv_page.sequence) ||
			       is_hv_time(hv_tsc_page_at(&hv, tsc), pvclock_at(&clock, tsc)),
			       "The Hyper-V page is for a clock that was replaced: %lu at %lu ns",
			       hv_tsc_page_at(&hv, tsc), pvclock_at(&clock, tsc));
		WRITE_ONCE(progress[id], seq);
	}
	GUEST_DONE();
}

/*
 * The vCPU's own clock never goes back.  In the mode, the clock is not behind what another
 * vCPU has read.  Read that before the TSC.  Exit now and then if ioctls are to come in.
 */
static void guest_watch_clock(int id, bool with_exits)
{
	struct pvclock_vcpu_time_info page;
	u64 ns, others, tsc, nr, last_ns = 0;

	guest_enable_clock(id);
	for (nr = 1; !READ_ONCE(stop); nr++) {
		others = READ_ONCE(latest);
		ns = guest_read_clock(id, &page, &tsc);
		__GUEST_ASSERT(ns >= last_ns, "vCPU %d's clock goes back by %lu ns", id,
			       last_ns - ns);
		__GUEST_ASSERT(ns >= others || !(page.flags & PVCLOCK_TSC_STABLE_BIT),
			       "vCPU %d's clock is behind another one by %lu ns", id, others - ns);
		while (others < ns && !__atomic_compare_exchange_n(&latest, &others, ns, false,
								   __ATOMIC_SEQ_CST,
								   __ATOMIC_SEQ_CST))
			;
		last_ns = ns;
		WRITE_ONCE(progress[id], nr);
		if (with_exits && nr % 100 == 0)
			GUEST_SYNC(0);
	}
	GUEST_DONE();
}

static void guest_watch_clock_and_exit(int id)
{
	guest_watch_clock(id, true);
}

static void guest_watch_clock_only(int id)
{
	guest_watch_clock(id, false);
}

struct running {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	pthread_t threads[MAX_VCPUS];
	int nr;
	u64 *progress;
};

static void *run_until_done(void *vcpu)
{
	struct ucall uc;

	do {
		vcpu_run(vcpu);
		if (get_ucall(vcpu, &uc) == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
	} while (uc.cmd == UCALL_SYNC);

	TEST_ASSERT_EQ(uc.cmd, UCALL_DONE);
	return NULL;
}

static void start_vcpu(struct running *r, void *guest_code)
{
	int id = r->nr++;

	r->vcpus[id] = create_vcpu(r->vm, id, guest_code);
	pthread_create(&r->threads[id], NULL, run_until_done, r->vcpus[id]);
}

static struct running start_vcpus(int nr, void *guest_code)
{
	struct running r = { .vm = create_vm(0) };

	r.progress = *guest_copy(r.vm, progress);
	while (r.nr < nr)
		start_vcpu(&r, guest_code);
	return r;
}

static void wait_for_readings(struct running *r)
{
	u64 before[MAX_VCPUS];
	int i;

	memcpy(before, r->progress, sizeof(before));
	for (i = 0; i < r->nr; i++) {
		while (READ_ONCE(r->progress[i]) == before[i])
			sched_yield();
	}
}

static void stop_vcpus(struct running *r)
{
	int i;

	WRITE_ONCE(*guest_copy(r->vm, stop), true);
	for (i = 0; i < r->nr; i++)
		pthread_join(r->threads[i], NULL);
}

/* --- threads -------------------------------------------------------------------- */

struct updater {
	struct kvm_vcpu *vcpu;	/* which does not run */
	u64 value;
};

/* Replace F by another one, at any value and within 122 ppm of the rate. */
static void *update_clock(void *arg)
{
	struct updater *updater = arg;
	struct kvm_clock_data data = { .clock = updater->value };
	struct pvclock_vcpu_time_info clock;

	if (updater->value & 1) {
		vm_ioctl(updater->vcpu->vm, KVM_SET_CLOCK, &data);
	} else {
		clock = vcpu_get_clock_guest(updater->vcpu);
		clock.system_time = updater->value;
		clock.tsc_to_system_mul ^= updater->value & GENMASK(17, 0);
		vcpu_set_clock_guest(updater->vcpu, &clock);
	}
	return NULL;
}

static void update_twice_at_once(struct kvm_vcpu **vcpus)
{
	struct updater first = { vcpus[0], random_bits(62) };
	struct updater second = { vcpus[1], random_bits(62) };
	pthread_t thread;

	pthread_create(&thread, NULL, update_clock, &first);
	update_clock(&second);
	pthread_join(thread, NULL);
}

static void test_two_updaters(void)
{
	struct running r = start_vcpus(NR_RUNNING, guest_check_pages);
	typeof(in_force) *shared = guest_copy(r.vm, in_force);
	u64 start = get_raw_ns(), nr_rounds;
	struct kvm_vcpu *spare[2];
	int i;

	for (i = 0; i < 2; i++)
		spare[i] = create_vcpu(r.vm, NR_RUNNING + i, guest_check_pages);

	for (nr_rounds = 0; get_raw_ns() - start < thread_seconds * NSEC_PER_SEC; nr_rounds++) {
		WRITE_ONCE(shared->seq, 2 * nr_rounds + 1);
		wmb();	/* tell the guest before F is replaced */
		update_twice_at_once(spare);
		shared->clock = vcpu_get_clock_guest(spare[nr_rounds % 2]);
		wmb();	/* write the clock before seq */
		WRITE_ONCE(shared->seq, 2 * nr_rounds + 2);
		for (i = 0; i < NR_RUNNING; i++) {
			while (READ_ONCE(r.progress[i]) != 2 * nr_rounds + 2)
				sched_yield();
		}
	}

	TEST_ASSERT(guest_copy(r.vm, hv_page)->sequence, "The Hyper-V page is gone");
	stop_vcpus(&r);
	kvm_vm_free(r.vm);
	ksft_print_msg("%lu rounds\n", nr_rounds);
}

/* The vCPUs have stopped.  All have one clock, and GET returns it. */
static void check_stopped_vcpus(struct running *r)
{
	struct pvclock_vcpu_time_info *page = *guest_copy(r->vm, pages), first, clock;
	u64 first_offset = vcpu_get_tsc_offset(r->vcpus[0]);
	int i;

	first = vcpu_get_clock_guest(r->vcpus[0]);
	for (i = 0; i < r->nr; i++) {
		clock = vcpu_get_clock_guest(r->vcpus[i]);
		TEST_ASSERT(same_clock(&clock, &page[i]), "vCPU %d's page is not what GET returns",
			    i);
		clock.tsc_timestamp += first_offset - vcpu_get_tsc_offset(r->vcpus[i]);
		TEST_ASSERT(same_clock(&clock, &first), "vCPU %d's clock is not vCPU 0's", i);
	}
}

static void set_all_khz(struct running *r, u64 khz)
{
	int i;

	for (i = 0; i < r->nr; i++)
		vcpu_ioctl(r->vcpus[i], KVM_SET_TSC_KHZ, (void *)khz);
	wait_for_readings(r);
}

static void test_rates_and_creation(void)
{
	struct running r = start_vcpus(1, guest_watch_clock_and_exit);
	u64 start = get_raw_ns(), nr_rounds = 0;

	while (get_raw_ns() - start < thread_seconds * NSEC_PER_SEC || r.nr < MAX_VCPUS) {
		set_all_khz(&r, host_khz + host_khz / (1 + nr_rounds % 7));
		if (nr_rounds++ % 2 && r.nr < MAX_VCPUS)
			start_vcpu(&r, guest_watch_clock_and_exit);
		set_all_khz(&r, host_khz);
		if (nr_rounds++ % 2 && r.nr < MAX_VCPUS)
			start_vcpu(&r, guest_watch_clock_and_exit);
	}
	set_all_khz(&r, host_khz);
	stop_vcpus(&r);
	check_stopped_vcpus(&r);
	kvm_vm_free(r.vm);
	ksft_print_msg("%lu changes of all vCPUs' rate\n", nr_rounds);
}

/* --- migrations ----------------------------------------------------------------- */

/* Without memory and a guest. */
static struct kvm_vcpu *create_empty_vm(u64 khz)
{
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm_create_barebones(), 0);

	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	return vcpu;
}

/* Let the TSC go on, and the clock be the same function, at the rate that @to has. */
static void migrate(struct kvm_vcpu *from, struct kvm_vcpu *to)
{
	struct pvclock_vcpu_time_info clock = vcpu_get_clock_guest(from);

	continue_tsc(to, from, random_bits(34));
	vcpu_set_clock_guest(to, &clock);
}

/* To hosts with rates that SET takes for the same one, between two VMs or to a new one. */
static void migrate_at(u64 khz)
{
	struct kvm_vcpu *vcpus[2] = { create_empty_vm(khz), create_empty_vm(khz) };
	struct kvm_vcpu *from, *to;
	struct pvclock_vcpu_time_info first = vcpu_get_clock_guest(vcpus[0]), clock;
	u64 i;

	for (i = 1; i <= nr_migrations; i++) {
		if (i % 100 == 0) {
			kvm_vm_free(vcpus[i % 2]->vm);
			vcpus[i % 2] = create_empty_vm(khz);
		}
		to = vcpus[i % 2];
		from = vcpus[!(i % 2)];
		vcpu_ioctl(to, KVM_SET_TSC_KHZ,
			   (void *)(khz - khz / 5000 + khz * random_below(401) / 1000000));
		migrate(from, to);
		clock = vcpu_get_clock_guest(to);
		TEST_ASSERT(same_clock(&first, &clock), "Migration %lu: F is another one", i);
	}
	kvm_vm_free(vcpus[0]->vm);
	kvm_vm_free(vcpus[1]->vm);
}

static void test_migrations(void)
{
	random_state = walk_seed;
	migrate_at(host_khz);
	if (kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		migrate_at((u64)host_khz * 3 / 7);
		migrate_at((u64)host_khz * 13);
	}
}

/* --- changes of the host -------------------------------------------------------- */

#define CLOCKSOURCES	"/sys/devices/system/clocksource/clocksource0/"

static int realtime_shift;

static void write_word(const char *path, const char *word)
{
	FILE *file = fopen(path, "w");

	TEST_ASSERT(file && fputs(word, file) >= 0 && !fclose(file), "Can't write '%s' to %s",
		    word, path);
}

/* Let CLOCK_REALTIME be off by @shift seconds, 0 restores it. */
static void shift_realtime(int shift)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += shift - realtime_shift;
	TEST_ASSERT(!clock_settime(CLOCK_REALTIME, &ts), "clock_settime() failed");
	realtime_shift = shift;
}

static void restore_host(void)
{
	if (realtime_shift)
		shift_realtime(0);
	write_word(CLOCKSOURCES "current_clocksource", "tsc");
}

/* A vCPU that does not run, for ioctls; a signal keeps its KVM_RUN from entering the guest. */
static struct kvm_vcpu *create_spare_vcpu(struct running *r)
{
	struct kvm_vcpu *spare = create_vcpu(r->vm, r->nr, guest_watch_clock_only);
	struct pvclock_vcpu_time_info clock = vcpu_get_clock_guest(spare);
	struct {
		struct kvm_signal_mask head;
		u8 none[8];
	} mask = { .head.len = sizeof(mask.none) };
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	raise(SIGUSR1);
	vcpu_ioctl(spare, KVM_SET_SIGNAL_MASK, &mask.head);
	set_msr(spare, MSR_KVM_SYSTEM_TIME_NEW, page_msr(r->nr));

	/* No offset from CLOCK_MONOTONIC_RAW that KVM had before explains F, or does later. */
	clock.system_time += 1000 * NSEC_PER_SEC;
	clock.tsc_to_system_mul = min(clock.tsc_to_system_mul * 5001ULL / 5000, 0xffffffffULL);
	vcpu_set_clock_guest(spare, &clock);
	let_pass_ms(1000);
	return spare;
}

/* Let the spare vCPU take a reference. */
static u64 take_reference(struct running *r, struct kvm_vcpu *spare)
{
	vcpu_ioctl(spare, KVM_KVMCLOCK_CTRL, NULL);
	TEST_ASSERT(__vcpu_run(spare) && errno == EINTR, "KVM_RUN was not interrupted");
	return (*guest_copy(r->vm, pages))[r->nr].system_time;
}

/* Wait until the pages of the vCPUs that run are F, or not, with nothing that repairs them. */
static void wait_for_pages(struct running *r, bool stable)
{
	struct pvclock_vcpu_time_info *page = *guest_copy(r->vm, pages);
	int i;

	for (i = 0; i < r->nr; i++) {
		while (!(READ_ONCE(page[i].flags) & PVCLOCK_TSC_STABLE_BIT) == stable)
			sched_yield();
	}
	while (!READ_ONCE(guest_copy(r->vm, hv_page)->sequence) == stable)
		sched_yield();
}

/* The clock runs as CLOCK_MONOTONIC_RAW, however many references are taken. */
static void check_runs_as_raw(struct running *r, struct kvm_vcpu *spare,
			      struct raw_offset *raw)
{
	u64 begin = get_raw_ns(), start, ns;
	int i;

	for (i = 0; get_raw_ns() - begin < NSEC_PER_SEC / 2; i++) {
		start = get_raw_ns();
		ns = i % 2 ? get_clock(r->vm).clock : take_reference(r, spare);
		bound_raw_offset(raw, ns, start, get_raw_ns());
	}
}

/*
 * The clock goes on from F: it does not go back, and steps forward by no more than the
 * time that the switch took, as KVM reads the clock and the TSC one after the other.
 */
static void leave_mode(struct running *r, struct kvm_vcpu *spare, const char *path,
		       const char *word)
{
	struct pvclock_vcpu_time_info clock = vcpu_get_clock_guest(spare);
	u64 offset = vcpu_get_tsc_offset(spare), before, start, end;
	struct kvm_clock_data data;

	before = pvclock_at(&clock, rdtsc() + offset);
	write_word(path, word);
	do {
		start = pvclock_at(&clock, rdtsc() + offset);
		data = get_clock(r->vm);
		end = pvclock_at(&clock, rdtsc() + offset);
	} while (data.flags & KVM_CLOCK_TSC_STABLE);
	TEST_ASSERT(data.clock + (end - before) / 1000 + 3 >= start &&
		    data.clock <= end + (end - before),
		    "Out of the mode the clock is %llu ns, F from %lu to %lu, before %lu",
		    data.clock, start, end, before);

	wait_for_pages(r, false);
	TEST_ASSERT(__vcpu_ioctl(spare, KVM_GET_CLOCK_GUEST, &clock) && errno == ENODATA,
		    "GET out of the mode: errno %d", errno);
	TEST_ASSERT(__vcpu_ioctl(spare, KVM_SET_CLOCK_GUEST, &clock) && errno == ENODATA,
		    "SET out of the mode: errno %d", errno);
}

/*
 * F goes on from CLOCK_MONOTONIC_RAW, and since the switch has deviated from it by less
 * than 500 ppm; or from a vCPU's own clock, if that was ahead.  F and a vCPU's own clock
 * have one rate, and were equal at the switch but for the fractions of ns and, if the
 * shift is negative, of cycles: later, F is up to 2 ns behind.  The pages of the vCPUs
 * that run come back by themselves.
 */
static void enter_mode(struct running *r, struct kvm_vcpu *spare, struct raw_offset *raw)
{
	struct pvclock_vcpu_time_info *page = *guest_copy(r->vm, pages), clock, now;
	u64 begin = get_raw_ns(), offset = vcpu_get_tsc_offset(spare), start, tsc, ns, end;
	struct pvclock_vcpu_time_info own[NR_RUNNING];
	u64 ahead = 0, in_use = 0;
	s64 error;
	int i;

	memcpy(own, page, sizeof(own));
	write_word(CLOCKSOURCES "current_clocksource", "tsc");
	wait_for_pages(r, true);
	clock = page[0];
	start = get_raw_ns();
	tsc = rdtsc() + offset;
	ns = pvclock_at(&clock, tsc);
	end = get_raw_ns();
	for (i = 0; i < NR_RUNNING; i++) {
		ahead = max(ahead, pvclock_at(&own[i], tsc));
		/* Written once: own[i] was in use until F was. */
		if (page[i].version == own[i].version + 2)
			in_use = max(in_use, pvclock_at(&own[i], tsc));
	}
	error = (end - begin) / 2000 + 3;
	TEST_ASSERT((s64)(ns - start) >= raw->min - error &&
		    ((s64)(ns - end) <= raw->max + error || ns <= ahead),
		    "In the mode again, CLOCK_MONOTONIC_RAW's offset is %ld to %ld ns, not %ld to %ld",
		    (s64)(ns - end), (s64)(ns - start), raw->min, raw->max);
	TEST_ASSERT(ns + 2 >= in_use, "In the mode again, the clock is %lu ns behind a vCPU's",
		    in_use - ns);

	shift_realtime(1000);
	shift_realtime(0);
	wait_for_readings(r);
	now = vcpu_get_clock_guest(spare);
	TEST_ASSERT(same_clock(&clock, &now) && same_clock(&page[0], &now),
		    "GET returns another function than the page has");
}

static void test_clocksource(void)
{
	struct running r = start_vcpus(NR_RUNNING, guest_watch_clock_only);
	struct kvm_vcpu *spare = create_spare_vcpu(&r);
	struct raw_offset raw;
	int i;

	atexit(restore_host);
	for (i = 0; i < 3; i++) {
		raw = unknown_raw_offset;
		wait_for_readings(&r);
		leave_mode(&r, spare, CLOCKSOURCES "current_clocksource", other_clocksource);
		check_runs_as_raw(&r, spare, &raw);
		shift_realtime(1000);
		check_runs_as_raw(&r, spare, &raw);
		shift_realtime(0);
		check_runs_as_raw(&r, spare, &raw);
		enter_mode(&r, spare, &raw);
	}
	stop_vcpus(&r);
	kvm_vm_free(r.vm);
}

/*
 * For good: there is no way back but to boot the host.  Let one vCPU run: KVM stops the
 * TSC of a vCPU that waits for a CPU, which hides what the clock loses.
 */
static void test_unstable_tsc(void)
{
	struct running r = start_vcpus(1, guest_watch_clock_only);
	struct kvm_vcpu *spare = create_spare_vcpu(&r);
	struct raw_offset raw = unknown_raw_offset;

	wait_for_readings(&r);
	leave_mode(&r, spare, unstable_file, "1");
	check_runs_as_raw(&r, spare, &raw);
	stop_vcpus(&r);
	kvm_vm_free(r.vm);
}

/* The host's time in suspend, at least, or at most. */
static u64 get_suspended_ns(bool at_most)
{
	clockid_t clocks[2] = { CLOCK_BOOTTIME, CLOCK_MONOTONIC };
	struct timespec ts;
	u64 ns[2];
	int i;

	for (i = 0; i < 2; i++) {
		clock_gettime(clocks[i ^ at_most], &ts);
		ns[i ^ at_most] = timespec_to_ns(ts);
	}
	return ns[0] - ns[1];
}

/* Turn the TSC back by half of what it is, in a suspend that ends at once. */
static void turn_tsc_back(void)
{
	u64 tsc = rdtsc();
	char word[32];

	snprintf(word, sizeof(word), "%lu", tsc / 2);
	write_word(backwards_file, word);
	write_word("/sys/power/state", "disk");
	TEST_ASSERT(rdtsc() < tsc, "The TSC didn't go back");
}

/*
 * The vCPUs' TSCs and the clock don't go back.  The clock is CLOCK_MONOTONIC_RAW, for
 * good, and as it was when the VM was created, as nothing has updated it since.
 */
static void test_backwards_tsc(void)
{
	u64 created = get_raw_ns() + get_suspended_ns(false), start;
	struct pvclock_vm guest = pvclock_create_vm(2, 0);
	struct raw_offset raw = {
		.min = -(get_raw_ns() + get_suspended_ns(true)), .max = -created,
	};
	struct pvclock_reading before[2], after;
	struct pvclock_vcpu_time_info clock;
	struct kvm_clock_data data;
	int i;

	for (i = 0; i < 2; i++)
		before[i] = pvclock_run(&guest, i);
	turn_tsc_back();

	for (i = 0; i < 2; i++) {
		after = pvclock_run(&guest, i);
		TEST_ASSERT(after.tsc >= before[i].tsc, "vCPU %d's TSC goes back by %lu", i,
			    before[i].tsc - after.tsc);
		TEST_ASSERT(after.ns >= before[i].ns, "vCPU %d's clock goes back by %lu ns", i,
			    before[i].ns - after.ns);
		TEST_ASSERT(!(pvclock_page(&guest, i).flags & PVCLOCK_TSC_STABLE_BIT),
			    "vCPU %d's page is still stable", i);
	}
	for (i = 0; i < 100; i++) {
		start = get_raw_ns() + get_suspended_ns(false);
		data = get_clock(guest.vm);
		bound_raw_offset(&raw, data.clock, start, get_raw_ns() + get_suspended_ns(true));
		TEST_ASSERT(!(data.flags & KVM_CLOCK_TSC_STABLE), "The master clock is in use");
	}
	TEST_ASSERT(__vcpu_ioctl(guest.vcpus[0], KVM_GET_CLOCK_GUEST, &clock) &&
		    errno == ENODATA, "GET: errno %d", errno);
	pvclock_free_vm(&guest);
}

/* --- main ------------------------------------------------------------------------ */

static const u64 always = 1;

/* A test that is skipped if *@enabled is 0. */
struct test {
	const char *name;
	void (*run)(void);
	const u64 *enabled;
};

static const struct test tests[] = {
	{ "random walk", test_random_walk, &max_steps },
	{ "two updaters at once", test_two_updaters, &thread_seconds },
	{ "rates and vCPU creation", test_rates_and_creation, &thread_seconds },
	{ "migrations", test_migrations, &nr_migrations },
};

static const struct test unstable_tests[] = {
	{ "TSC found unstable", test_unstable_tsc, &always },
};

static const struct test backwards_tests[] = {
	{ "TSC that went backwards", test_backwards_tsc, &always },
};

static void run_test(const struct test *test)
{
	if (*test->enabled)
		ksft_test_result(run_in_child(test->run), "%s\n", test->name);
	else
		ksft_test_result_skip("%s\n", test->name);
}

static void run_tests(const struct test *tests, int nr)
{
	int i;

	ksft_print_header();
	ksft_set_plan(nr);
	for (i = 0; i < nr; i++)
		run_test(&tests[i]);
	ksft_finished();
}

/* To each clocksource but the TSC and those that count ticks, and back. */
static void run_clocksource_tests(void)
{
	FILE *file = fopen(CLOCKSOURCES "available_clocksource", "r");
	char names[8][64];
	int nr = 0, i;

	TEST_ASSERT(file, "Can't read the available clocksources");
	while (nr < ARRAY_SIZE(names) && fscanf(file, "%63s", names[nr]) == 1) {
		if (strcmp(names[nr], "tsc") && !strstr(names[nr], "jiffies"))
			nr++;
	}
	fclose(file);
	if (!nr)
		ksft_exit_skip("The TSC is the only clocksource\n");

	ksft_print_header();
	ksft_set_plan(nr);
	for (i = 0; i < nr; i++) {
		other_clocksource = names[i];
		run_test(&(struct test){ names[i], test_clocksource, &always });
	}
	ksft_finished();
}

static void usage(const char *name)
{
	printf("Usage: %s [-w steps | -m seconds] [-s seed] [-t seconds] [-n migrations]\n"
	       "       %s -c | -u file | -b file\n"
	       " -w: how many steps the random walk has (default %lu)\n"
	       " -m: how long it goes on, instead\n"
	       " -s: its seed (default: the time)\n"
	       " -t: how long each test with threads goes on (default %lu s)\n"
	       " -n: how many migrations there are at each rate (default %lu)\n"
	       "     0 for -w, -t or -n skips what it is for\n"
	       " -c: change the host's clocksource and CLOCK_REALTIME, and restore them\n"
	       " -u: make the host's TSC unstable by a write to the file, for good\n"
	       " -b: let the host's TSC go back in a suspend by as many cycles as the test\n"
	       "     writes to the file, which is to end that suspend\n",
	       name, name, max_steps, thread_seconds, nr_migrations);
	exit(KSFT_FAIL);
}

static void parse_options(int argc, char *argv[])
{
	int opt;

	walk_seed = get_raw_ns();
	while ((opt = getopt(argc, argv, "w:m:s:t:n:cu:b:")) != -1) {
		switch (opt) {
		case 'w':
			max_steps = atoi_non_negative("Steps", optarg);
			break;
		case 'm':
			walk_seconds = atoi_positive("Seconds", optarg);
			break;
		case 's':
			walk_seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			thread_seconds = atoi_non_negative("Seconds", optarg);
			break;
		case 'n':
			nr_migrations = atoi_non_negative("Migrations", optarg);
			break;
		case 'c':
			change_clocksource = true;
			break;
		case 'u':
			unstable_file = optarg;
			break;
		case 'b':
			backwards_file = optarg;
			break;
		default:
			usage(argv[0]);
		}
	}
}

int main(int argc, char *argv[])
{
	parse_options(argc, argv);

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_CLOCK_GUEST));
	TEST_REQUIRE(sys_clocksource_is_based_on_tsc());
	host_khz = host_tsc_khz();

	if (change_clocksource)
		run_clocksource_tests();
	if (unstable_file)
		run_tests(unstable_tests, ARRAY_SIZE(unstable_tests));
	if (backwards_file)
		run_tests(backwards_tests, ARRAY_SIZE(backwards_tests));
	run_tests(tests, ARRAY_SIZE(tests));
}
