// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the guest that is migrated. Its arguments are the clocksource that it has to
 * have, and "hv" if it is to use Hyper-V's clock and timer, too. It does what it is told
 * on its console:
 *
 *	measure			say by which function of the TSC the clock is computed now,
 *				and read it as programs do: a line of JSON, see answer()
 *	write PATH VALUE	as soon as PATH can be written
 *	load MODULE		of its kernel
 *
 * Between the answers, a thread reads the clock all the time, and another one sets
 * timers. The clock is CLOCK_MONOTONIC_RAW, which is the guest's clock less a constant.
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
#define MSR_HV_REFERENCE_COUNT	0x40000020
#define MSR_HV_REFERENCE_TSC	0x40000021
#define MSR_HV_SYNIC_CONTROL	0x40000080
#define MSR_HV_SYNIC_MESSAGES	0x40000083
#define MSR_HV_TIMER0_CONFIG	0x400000b0
#define MSR_HV_TIMER0_COUNT	0x400000b1
#define HV_TIMER_CONFIG		(1 << 16 | 8)	/* messages to SINT 1; enabled by a count */
#define CLOCKSOURCE	"/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define NR_TRIES		2000
#define TIMER_NS		3000000

/* Where the clock is against the first function: nothing contradicts lo to hi. */
struct range {
	int64_t lo, hi;
};

/* What KVM writes to: this program's own pages, which are locked. */
static struct {
	struct {
		volatile uint32_t sequence, reserved;
		volatile uint64_t scale;
		volatile int64_t offset;
	} reference __attribute__((aligned(4096)));
	struct {
		volatile uint32_t type;
		uint32_t header[3], timer[2];
		volatile uint64_t expiration, delivery;
		uint8_t rest[216];
	} messages[16] __attribute__((aligned(4096)));
} shared;

static int kcore;
static bool hv;
static uint64_t xen_vcpu, xen_runstate, per_cpu_offset;	/* the kernel's symbols */
static struct pvclock_vcpu_time_info first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t largest_step, backwards, early, late;

static void __attribute__((noreturn)) die(const char *what)
{
	printf("guest failed: %s: %m\n", what);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

/* --- what the kernel and KVM have -------------------------------------------- */

static uint64_t access_msr(int cpu, uint32_t index, bool write, uint64_t value)
{
	char path[40];
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, write ? O_WRONLY : O_RDONLY);
	if (fd < 0 || (write ? pwrite(fd, &value, 8, index) : pread(fd, &value, 8, index)) != 8)
		die(path);
	close(fd);
	return value;
}

static uint64_t physical(volatile void *address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t page;

	if (pread(fd, &page, 8, (uintptr_t)address / 4096 * 8) != 8)
		die("/proc/self/pagemap");
	close(fd);
	return (page & ((1ULL << 55) - 1)) * 4096 + (uintptr_t)address % 4096;
}

/* Read from /proc/kcore, by the kernel's virtual or by the physical address. */
static void read_kernel(bool by_physical, uint64_t address, void *to, size_t size)
{
	Elf64_Ehdr header;
	Elf64_Phdr part;

	if (pread(kcore, &header, sizeof(header), 0) != sizeof(header))
		die("/proc/kcore");
	for (int i = 0; i < header.e_phnum; i++) {
		if (pread(kcore, &part, sizeof(part), header.e_phoff + i * sizeof(part)) != sizeof(part))
			die("/proc/kcore");
		uint64_t in = address - (by_physical ? part.p_paddr : part.p_vaddr);

		if (part.p_type != PT_LOAD || in >= part.p_memsz)
			continue;
		if (pread(kcore, to, size, part.p_offset + in) != (ssize_t)size)
			die("/proc/kcore");
		return;
	}
	errno = ENXIO;
	die("/proc/kcore");
}

/* The kernel's variable of the CPU. */
static uint64_t per_cpu(uint64_t symbol, int cpu)
{
	uint64_t offset;

	read_kernel(false, per_cpu_offset + cpu * 8, &offset, 8);
	return symbol + offset;
}

static void find_symbols(void)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char name[500];
	uint64_t at;

	while (fscanf(file, "%" SCNx64 " %*c %499s%*[^\n]", &at, name) == 2) {
		if (!strcmp(name, "xen_vcpu"))
			xen_vcpu = at;
		else if (!strcmp(name, "xen_runstate"))
			xen_runstate = at;
		else if (!strcmp(name, "__per_cpu_offset"))
			per_cpu_offset = at;
	}
	fclose(file);
	if (!xen_vcpu || !xen_runstate || !per_cpu_offset)
		die("/proc/kallsyms");
}

/* Xen's struct vcpu_info has the clock behind event channels and CR2. */
static struct pvclock_vcpu_time_info read_page(int cpu)
{
	struct pvclock_vcpu_time_info copy;
	uint64_t at;

	if (xen_vcpu)
		read_kernel(false, per_cpu(xen_vcpu, cpu), &at, 8);
	else
		at = access_msr(cpu, MSR_KVM_SYSTEM_TIME_NEW, false, 0) & ~1ULL;
	read_kernel(!xen_vcpu, xen_vcpu ? at + 32 : at, &copy, sizeof(copy));
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

/* --- the clock ----------------------------------------------------------------- */

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

static void keep_largest(int64_t *largest, int64_t value)
{
	if (value > *largest)
		*largest = value;
}

/* Userspace that is busy with the clock, but leaves something of the host's only CPU. */
static void *read_clock(void *unused)
{
	struct range last = sample();
	int64_t last_ns = now(CLOCK_MONOTONIC);

	(void)unused;
	for (unsigned int i = 1;; i++) {
		struct range this = sample();
		int64_t ns = now(CLOCK_MONOTONIC);

		pthread_mutex_lock(&lock);
		keep_largest(&largest_step, step(last, this));
		backwards += ns < last_ns;
		pthread_mutex_unlock(&lock);
		last = this;
		last_ns = ns;
		if (i % 1000 == 0)
			usleep(1000);
	}
	return NULL;
}

static void timer_fired(int64_t ns_after_its_time)
{
	pthread_mutex_lock(&lock);
	keep_largest(&early, -ns_after_its_time);
	keep_largest(&late, ns_after_its_time);
	pthread_mutex_unlock(&lock);
}

/*
 * KVM leaves a message when the timer fires, with the times of Hyper-V's clock, in units
 * of 100 ns, when it should have and when it did. SINT 1 is masked, as it is after a
 * reset: there is a message, and no interrupt.
 */
static void set_hv_timer(void)
{
	uint64_t count = access_msr(0, MSR_HV_REFERENCE_COUNT, false, 0);

	if (shared.messages[1].type)
		timer_fired((shared.messages[1].delivery - shared.messages[1].expiration) * 100);
	shared.messages[1].type = 0;
	access_msr(0, MSR_HV_TIMER0_COUNT, true, count + TIMER_NS / 200);
}

/* A timer that is set at one TSC value and has fired at another. */
static void *set_timers(void *unused)
{
	const struct timespec t = { .tv_nsec = TIMER_NS };

	(void)unused;
	for (;;) {
		int64_t start;

		if (hv)
			set_hv_timer();
		start = clock_at(&first, rdtsc());
		clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
		timer_fired(clock_at(&first, rdtsc()) - start - TIMER_NS);
	}
	return NULL;
}

/* --- the console ------------------------------------------------------------------ */

/* Reference, multiplier, shift and flags, for each CPU. */
static void answer_functions(void)
{
	for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
		struct pvclock_vcpu_time_info f = function(cpu);

		printf("%s[%" PRIu64 ", %" PRIu64 ", %u, %d, %u]", cpu ? ", " : "",
		       (uint64_t)f.tsc_timestamp, (uint64_t)f.system_time, f.tsc_to_system_mul,
		       f.tsc_shift, f.flags);
	}
}

/* For how long each vCPU has run, waited, slept and been offline; the time that was stolen. */
static void answer_xen(void)
{
	FILE *file = fopen("/proc/stat", "r");
	uint64_t state[6], steal = 0;

	printf(", \"runstate\": [");
	for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
		read_kernel(false, per_cpu(xen_runstate, cpu), state, sizeof(state));
		printf("%s[%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", cpu ? ", " : "",
		       state[2], state[3], state[4], state[5]);
	}
	if (fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %" SCNu64, &steal) != 1)
		die("/proc/stat");
	fclose(file);
	printf("], \"steal\": %" PRIu64, steal);
}

/*
 *	functions	in the CPUs' pages
 *	tsc		now
 *	reads		the clock less the first function: between these two
 *	step		the largest step between two readings since the last answer, as far
 *			as their uncertainty does not explain it
 *	back		how often CLOCK_MONOTONIC went back
 *	early, late	by how much a timer fired before or after its time in TSC cycles
 *	reference	of Hyper-V's page: sequence, scale, offset
 */
static void answer(void)
{
	struct range r = best_sample();

	printf("measured {\"functions\": [");
	answer_functions();
	pthread_mutex_lock(&lock);
	printf("], \"tsc\": %" PRIu64 ", \"reads\": [%" PRId64 ", %" PRId64 "], \"step\": %" PRId64
	       ", \"back\": %" PRId64 ", \"early\": %" PRId64 ", \"late\": %" PRId64,
	       rdtsc(), r.lo, r.hi, largest_step, backwards, early, late);
	largest_step = backwards = early = late = 0;
	pthread_mutex_unlock(&lock);
	if (xen_vcpu)
		answer_xen();
	if (hv)
		printf(", \"reference\": [%u, %" PRIu64 ", %" PRId64 "]", shared.reference.sequence,
		       shared.reference.scale, shared.reference.offset);
	printf("}\n");
}

static void write_file(const char *path, const char *value)
{
	int fd;

	while ((fd = open(path, O_WRONLY)) < 0 || write(fd, value, strlen(value)) < 0) {
		close(fd);
		usleep(100000);
	}
	close(fd);
}

static void load(const char *module, const char *options)
{
	int fd = open(module, O_RDONLY);

	if (syscall(SYS_finit_module, fd, options, 0))
		die(module);
	close(fd);
}

static void run_command(const char *line)
{
	char path[100], value[20];

	if (!strcmp(line, "measure\n"))
		answer();
	else if (sscanf(line, "write %99s %19s", path, value) == 2)
		write_file(path, value);
	else if (sscanf(line, "load %99s", path) == 1)
		load(path, "");
}

/* --- the start ---------------------------------------------------------------------- */

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

/* The TSC becomes the clocksource a while after the boot. */
static void wait_for_clocksource(const char *wanted)
{
	char name[20] = "";

	while (strcmp(name, wanted)) {
		FILE *file = fopen(CLOCKSOURCE, "r");

		if (!file || fscanf(file, "%19s", name) != 1)
			die(CLOCKSOURCE);
		fclose(file);
		usleep(20000);
	}
}

static void use_hv(void)
{
	hv = true;
	access_msr(0, MSR_HV_GUEST_OS_ID, true, 1);
	access_msr(0, MSR_HV_REFERENCE_TSC, true, physical(&shared.reference) | 1);
	access_msr(0, MSR_HV_SYNIC_CONTROL, true, 1);
	access_msr(0, MSR_HV_SYNIC_MESSAGES, true, physical(shared.messages) | 1);
	access_msr(0, MSR_HV_TIMER0_CONFIG, true, HV_TIMER_CONFIG);
}

/* The kernel puts arguments that it does not know before ours. */
int main(int argc, char **argv)
{
	bool want_hv = !strcmp(argv[argc - 1], "hv");
	const char *clocksource = argv[argc - 1 - want_hv];
	char line[200];

	setlinebuf(stdout);
	mount_one("devtmpfs", "/dev");
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	if (mlockall(MCL_CURRENT))
		die("mlockall");
	wait_for_clocksource(clocksource);
	/* Without allow_writes the kernel complains about each write. */
	load("/msr.ko", "allow_writes=on");
	kcore = open("/proc/kcore", O_RDONLY);
	if (!strcmp(clocksource, "xen"))
		find_symbols();
	if (want_hv)
		use_hv();
	first = function(0);
	start(read_clock, 1);
	start(set_timers, 0);
	klogctl(8, NULL, 7);	/* from now on all messages are on the console */
	printf("guest ready\n");
	while (fgets(line, sizeof(line), stdin))
		run_command(line);
	die("the console ended");
}
