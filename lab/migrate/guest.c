// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the guest that is migrated: asked on its console, it says how its clock
 * has moved against its TSC.
 *
 *	measure NAME
 *
 * takes the function that is in the clock's page now and compares it with the one
 * at the last time, and reads the clock as programs do. A line is the answer, the
 * words of which are explained in answer().
 *
 * Between the answers, a thread reads the clock all the time, and another one sets
 * timers. The clock is CLOCK_MONOTONIC_RAW, which is kvmclock less a constant.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include <asm/pvclock-abi.h>

#define MSR_KVM_SYSTEM_TIME_NEW	0x4b564d01
#define MSR_HV_GUEST_OS_ID	0x40000000
#define MSR_HV_REFERENCE_TSC	0x40000021
#define HV_PAGE			0x7000000	/* memmap= keeps it free */
#define CLOCKSOURCE	"/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define NR_CPUS		2
#define NR_TRIES	2000
#define TIMER_NS	3000000

/* Where the clock is against the first function: nothing contradicts lo to hi. */
struct range {
	int64_t lo, hi;
};

struct hv_reference {
	volatile uint32_t sequence;
	uint32_t reserved;
	volatile uint64_t scale;
	volatile int64_t offset;
};

static off_t pages[NR_CPUS];		/* in /proc/kcore */
static int kcore;
static struct hv_reference *hv_page;
static struct pvclock_vcpu_time_info first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t largest_step, backwards, early;

static void __attribute__((noreturn)) die(const char *what)
{
	printf("guest failed: %s: %m\n", what);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static uint64_t msr(int cpu, uint32_t index, const uint64_t *new)
{
	uint64_t value = 0;
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, new ? O_WRONLY : O_RDONLY);
	if (fd < 0 || (new ? pwrite(fd, new, 8, index) : pread(fd, &value, 8, index)) != 8)
		die(path);
	close(fd);
	return value;
}

/* /dev/mem has no RAM, but what memmap= keeps free. */
static void *map(uint64_t address)
{
	int fd = open("/dev/mem", O_RDWR);
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, address);

	if (page == MAP_FAILED)
		die("/dev/mem");
	close(fd);
	return page;
}

/* Where /proc/kcore has a physical address. */
static off_t find_in_kcore(uint64_t address)
{
	Elf64_Ehdr header;
	Elf64_Phdr part;

	if (pread(kcore, &header, sizeof(header), 0) != sizeof(header))
		die("/proc/kcore");
	for (int i = 0; i < header.e_phnum; i++) {
		if (pread(kcore, &part, sizeof(part), header.e_phoff + i * sizeof(part)) != sizeof(part))
			die("/proc/kcore");
		if (part.p_type == PT_LOAD && address - part.p_paddr < part.p_memsz)
			return part.p_offset + (address - part.p_paddr);
	}
	errno = ENXIO;
	die("/proc/kcore");
}

static struct pvclock_vcpu_time_info read_page(int cpu)
{
	struct pvclock_vcpu_time_info copy;

	if (pread(kcore, &copy, sizeof(copy), pages[cpu]) != sizeof(copy))
		die("/proc/kcore");
	return copy;
}

/* The guest's page is valid while its version is even and stays the same. */
static struct pvclock_vcpu_time_info function(int cpu)
{
	struct pvclock_vcpu_time_info copy, again = read_page(cpu);

	do {
		copy = again;
		again = read_page(cpu);
	} while ((copy.version & 1) || memcmp(&copy, &again, sizeof(copy)));
	return copy;
}

/* The clock at a TSC value. */
static int64_t clock_at(const struct pvclock_vcpu_time_info *f, uint64_t tsc)
{
	uint64_t delta = tsc - f->tsc_timestamp;

	delta = f->tsc_shift < 0 ? delta >> -f->tsc_shift : delta << f->tsc_shift;
	return f->system_time + (uint64_t)((unsigned __int128)delta * f->tsc_to_system_mul >> 32);
}

static uint64_t rdtsc(void)
{
	uint64_t tsc;

	_mm_lfence();
	tsc = __rdtsc();
	_mm_lfence();
	return tsc;
}

static int64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The clock was read at a TSC value between two readings of the TSC. */
static struct range sample(void)
{
	uint64_t before = rdtsc();
	int64_t ns = now(CLOCK_MONOTONIC_RAW);
	uint64_t after = rdtsc();

	return (struct range) { ns - clock_at(&first, after), ns - clock_at(&first, before) };
}

static struct range best_sample(void)
{
	struct range best = { INT64_MIN / 2, INT64_MAX / 2 };

	for (int i = 0; i < NR_TRIES; i++) {
		struct range r = sample();

		if (r.hi - r.lo < best.hi - best.lo)
			best = r;
	}
	return best;
}

/* The least that the clock has moved by, if one reading is in a and one in b. */
static int64_t step(struct range a, struct range b)
{
	if (b.lo > a.hi)
		return b.lo - a.hi;
	return a.lo > b.hi ? a.lo - b.hi : 0;
}

/* Userspace that is busy with the clock. */
static void *read_clock(void *unused)
{
	struct range last = sample();
	int64_t last_ns = now(CLOCK_MONOTONIC);

	(void)unused;
	for (;;) {
		struct range this = sample();
		int64_t ns = now(CLOCK_MONOTONIC);

		pthread_mutex_lock(&lock);
		if (step(last, this) > largest_step)
			largest_step = step(last, this);
		backwards += ns < last_ns;
		pthread_mutex_unlock(&lock);
		last = this;
		last_ns = ns;
	}
	return NULL;
}

/* A timer that is set at one TSC value and has fired at another. */
static void *set_timers(void *unused)
{
	const struct timespec t = { .tv_nsec = TIMER_NS };

	(void)unused;
	for (;;) {
		int64_t start = clock_at(&first, rdtsc()), missing;

		clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
		missing = start + TIMER_NS - clock_at(&first, rdtsc());
		pthread_mutex_lock(&lock);
		if (missing > early)
			early = missing;
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/*
 * By how much two functions differ, at TSC values from now to days ahead: the
 * difference that is farthest from 0.
 */
static int64_t difference(const struct pvclock_vcpu_time_info *a,
			  const struct pvclock_vcpu_time_info *b, uint64_t tsc, int days)
{
	int64_t worst = 0;

	for (uint64_t ahead = 0; ahead < (days ? 1ULL << 48 : 1); ahead = ahead * 3 + 1) {
		int64_t d = clock_at(b, tsc + ahead) - clock_at(a, tsc + ahead);

		if (llabs(d) > llabs(worst))
			worst = d;
	}
	return worst;
}

/*
 *	moved		by how much the clock moved against the TSC since the last
 *			answer, by the function, at the TSC of now
 *	ever		the same, and at TSC values up to days ahead
 *	sum		moved, since the first answer
 *	cpus		by how much the two vCPUs' functions differ
 *	reads		the reading since the first one: not less, and not more than
 *	bracket		is how far these two are apart in one reading
 *	step		the largest step between two readings since the last answer,
 *			where step is what no bracket explains
 *	back		how often CLOCK_MONOTONIC went back
 *	early		by how much a timer fired before its time in TSC cycles
 */
static void answer(const char *name)
{
	static struct pvclock_vcpu_time_info last;
	static struct range origin;
	struct pvclock_vcpu_time_info f = function(0), other = function(1);
	struct range r = best_sample();
	uint64_t tsc = rdtsc();

	if (!last.tsc_to_system_mul) {
		last = f;
		origin = r;
	}
	pthread_mutex_lock(&lock);
	printf("measured %s moved %" PRId64 " ever %" PRId64 " sum %" PRId64 " cpus %" PRId64
	       " reads %" PRId64 " %" PRId64 " bracket %" PRId64 " step %" PRId64
	       " back %" PRId64 " early %" PRId64 " function %" PRIu64 " %" PRIu64 " %u %d %u\n",
	       name, difference(&last, &f, tsc, 0), difference(&last, &f, tsc, 1),
	       difference(&first, &f, tsc, 0), difference(&f, &other, tsc, 1),
	       r.lo - origin.hi, r.hi - origin.lo, r.hi - r.lo, largest_step, backwards, early,
	       (uint64_t)f.tsc_timestamp, (uint64_t)f.system_time, f.tsc_to_system_mul,
	       f.tsc_shift, f.flags);
	largest_step = backwards = early = 0;
	pthread_mutex_unlock(&lock);
	last = f;
}

/* The page from which Windows computes its clock. */
static void answer_hv(const char *name)
{
	printf("reference %s sequence %u scale %" PRIu64 " offset %" PRId64 "\n", name,
	       hv_page->sequence, hv_page->scale, hv_page->offset);
}

static void start(void *(*thread)(void *), int cpu)
{
	pthread_attr_t attributes;
	cpu_set_t cpus;
	pthread_t id;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	pthread_attr_init(&attributes);
	pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	if (pthread_create(&id, &attributes, thread, NULL))
		die("pthread_create");
}

static void mount_one(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL))
		die(where);
}

/* Without allow_writes the kernel complains about each write. */
static void load_msr(void)
{
	int fd = open("/msr.ko", O_RDONLY);

	if (syscall(SYS_finit_module, fd, "allow_writes=on", 0))
		die("/msr.ko");
	close(fd);
}

static void check_clocksource(void)
{
	char name[20] = "";
	FILE *file = fopen(CLOCKSOURCE, "r");

	if (!file || fscanf(file, "%19s", name) != 1 || strcmp(name, "kvm-clock"))
		die("the clocksource is not kvm-clock");
	fclose(file);
}

static void use_hv(void)
{
	uint64_t id = 1, page = HV_PAGE | 1;

	hv_page = map(HV_PAGE);
	msr(0, MSR_HV_GUEST_OS_ID, &id);
	msr(0, MSR_HV_REFERENCE_TSC, &page);
}

int main(int argc, char **argv)
{
	char line[200], name[100];

	setlinebuf(stdout);
	mount_one("devtmpfs", "/dev");
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	check_clocksource();
	load_msr();
	kcore = open("/proc/kcore", O_RDONLY);
	for (int cpu = 0; cpu < NR_CPUS; cpu++)
		pages[cpu] = find_in_kcore(msr(cpu, MSR_KVM_SYSTEM_TIME_NEW, NULL) & ~1ULL);
	if (!strcmp(argv[argc - 1], "hv"))
		use_hv();
	first = function(0);
	start(read_clock, 1);
	start(set_timers, 0);
	klogctl(8, NULL, 7);	/* from now on all messages are on the console */
	printf("guest ready\n");
	while (fgets(line, sizeof(line), stdin))
		if (sscanf(line, "measure %99s", name) == 1) {
			if (hv_page)
				answer_hv(name);
			answer(name);
		}
	die("the console ended");
}
