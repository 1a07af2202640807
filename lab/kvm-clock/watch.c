// SPDX-License-Identifier: GPL-2.0
/*
 * Follow a VM's clock in an instance of tracefs, by KVM's tracepoints: what a vCPU's
 * page gets is F, as a function of that vCPU's TSC.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <asm/pvclock-abi.h>

#include "host.h"

#define DEBUGFS_KVM	"/sys/kernel/debug/kvm"
#define MAX_VCPUS	4096
#define MAX_LINE	1024

struct clock {
	bool known;
	uint64_t tsc_timestamp;		/* in cycles of the vCPU's TSC */
	uint64_t system_time;		/* in ns */
	uint32_t mul;
	int shift;
	unsigned int flags;
};

static struct clock clocks[MAX_VCPUS];
static char mode[60];			/* as kvm_update_master_clock says it */
static char host_clock[20];
static int process;
static char instance[100];

/* Return a file that is readable once a signal says to end. */
static int catch_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* The reader has gone: fflush() fails. */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static void remove_instance(void)
{
	rmdir(instance);
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", instance, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err(EXIT_ERROR, "%s", path);
	close(fd);
}

/* tracefs may be mounted in one place, or in two. */
static void create_instance(int pid)
{
	static const char *const places[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };

	for (unsigned int i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(instance, sizeof(instance), "%s/instances/kvm-clock.%d.%d", places[i], pid,
			 (int)getpid());
		if (mkdir(instance, 0700) == 0) {
			atexit(remove_instance);
			return;
		}
	}
	err(EXIT_ERROR, "%s: tracefs is needed, mounted, and by root", instance);
}

static void enable_events(void)
{
	char path[200];

	write_file("events/kvm/kvm_pvclock_update/enable", "1");
	write_file("events/kvm/kvm_update_master_clock/enable", "1");
	write_file("events/kvm/kvm_write_tsc_offset/enable", "1");
	snprintf(path, sizeof(path), "%s/events/kvm/kvm_clock_guest", instance);
	if (access(path, F_OK) == 0)
		write_file("events/kvm/kvm_clock_guest/enable", "1");
}

/* What debugfs has of those @names in directory @path, after @title. */
static void print_values(const char *title, const char *path, const char *const *names)
{
	char file_path[600], text[40];
	FILE *file;

	printf("%s:", title);
	for (; *names; names++) {
		snprintf(file_path, sizeof(file_path), "%s/%s", path, *names);
		file = fopen(file_path, "re");
		if (!file)
			continue;
		if (fgets(text, sizeof(text), file))
			printf(" %s %.*s", *names, (int)strcspn(text, "\n"), text);
		fclose(file);
	}
	putchar('\n');
}

static void print_vcpus(const char *vm_path)
{
	static const char *const names[] = { "tsc-offset", "tsc-scaling-ratio", NULL };
	DIR *vcpus = opendir(vm_path);
	struct dirent *vcpu;
	char path[600];

	while (vcpus && (vcpu = readdir(vcpus))) {
		if (strncmp(vcpu->d_name, "vcpu", 4))
			continue;
		snprintf(path, sizeof(path), "%s/%s", vm_path, vcpu->d_name);
		print_values(vcpu->d_name, path, names);
	}
	if (vcpus)
		closedir(vcpus);
}

/* What debugfs has of the process's VMs.  Returns their number. */
static int print_vms(int pid)
{
	/* Of KVM with the series. */
	static const char *const names[] = { "master_clock", "master_clock_switches",
					     "clock_guest_set", "clock_guest_refused", NULL };
	DIR *vms = opendir(DEBUGFS_KVM);
	struct dirent *vm;
	char prefix[20], path[300];
	int nr = 0;

	if (!vms)
		err(EXIT_ERROR, "%s: debugfs is needed, mounted, and by root", DEBUGFS_KVM);
	snprintf(prefix, sizeof(prefix), "%d-", pid);
	while ((vm = readdir(vms))) {
		if (strncmp(vm->d_name, prefix, strlen(prefix)))
			continue;
		nr++;
		snprintf(path, sizeof(path), DEBUGFS_KVM "/%s", vm->d_name);
		print_values(vm->d_name, path, names);
		print_vcpus(path);
	}
	closedir(vms);
	return nr;
}

static uint64_t read_function(const struct clock *f, uint64_t tsc)
{
	uint64_t delta = tsc - f->tsc_timestamp;

	delta = f->shift < 0 ? delta >> -f->shift : delta << f->shift;
	return f->system_time + (uint64_t)((unsigned __int128)delta * f->mul >> 32);
}

static double rate_khz(const struct clock *f)
{
	double rate = 1000000.0 * (1ull << 32) / f->mul;

	return f->shift < 0 ? rate * (1ull << -f->shift) : rate / (1ull << f->shift);
}

/* F repeats, up to a constant: moved by whole periods, a reference is of the same F. */
static bool is_whole_periods(const struct clock *f, uint64_t cycles)
{
	int exponent = 32 - __builtin_ctz(f->mul) - f->shift;

	return exponent <= 0 || !(cycles & (((uint64_t)1 << exponent) - 1));
}

static void compare_clocks(const char *when, unsigned int vcpu, const struct clock *old,
			   const struct clock *new)
{
	int64_t moved = read_function(new, new->tsc_timestamp) - read_function(old, new->tsc_timestamp);

	if (!old->known || old->mul != new->mul || old->shift != new->shift)
		printf("%s vCPU %u: F is %" PRIu64 " ns at TSC %" PRIu64 ", TSC rate %.3f kHz "
		       "(mul %#x, shift %d)\n", when, vcpu, new->system_time, new->tsc_timestamp,
		       rate_khz(new), new->mul, new->shift);
	if (old->known && (moved || (old->mul == new->mul && old->shift == new->shift &&
				     !is_whole_periods(new, new->tsc_timestamp - old->tsc_timestamp))))
		printf("%s vCPU %u: F moved by %" PRId64 " ns\n", when, vcpu, moved);
	if (!old->known || (old->flags ^ new->flags) & PVCLOCK_TSC_STABLE_BIT)
		printf("%s vCPU %u: stable bit %s\n", when, vcpu,
		       new->flags & PVCLOCK_TSC_STABLE_BIT ? "set" : "clear");
}

static void take_update(const char *when, const char *text)
{
	struct clock new = { .known = true };
	unsigned int vcpu;

	if (sscanf(text, "vcpu_id %u, pvclock { version %*u, tsc_timestamp %" SCNx64 ", "
		   "system_time %" SCNx64 ", tsc_to_system_mul %x, tsc_shift %d, flags %x",
		   &vcpu, &new.tsc_timestamp, &new.system_time, &new.mul, &new.shift,
		   &new.flags) != 6 || vcpu >= MAX_VCPUS || !new.mul || abs(new.shift) > 31)
		return;
	compare_clocks(when, vcpu, &clocks[vcpu], &new);
	clocks[vcpu] = new;
}

static void take_offset(const char *when, const char *text)
{
	uint64_t old, new;
	unsigned int vcpu;

	if (sscanf(text, "vcpu=%u prev=%" SCNu64 " next=%" SCNu64, &vcpu, &old, &new) != 3 ||
	    vcpu >= MAX_VCPUS || old == new)
		return;
	printf("%s vCPU %u: TSC moved by %" PRId64 " cycles\n", when, vcpu, (int64_t)(new - old));
	/* F follows the TSC: compare it at the new one. */
	clocks[vcpu].tsc_timestamp += new - old;
}

static void take_ioctl(const char *when, const char *text)
{
	unsigned int vcpu;
	char name[4];
	int error;

	if (sscanf(text, "vcpu_id %u %3s error %d", &vcpu, name, &error) != 3)
		return;
	printf("%s vCPU %u: KVM_%s_CLOCK_GUEST: %s\n", when, vcpu,
	       strcmp(name, "set") ? "GET" : "SET",
	       error ? strerrorname_np(-error) ?: "unknown error" : "done");
}

static void take_mode(const char *when, const char *text)
{
	if (!strncmp(text, mode, sizeof(mode) - 1))
		return;
	snprintf(mode, sizeof(mode), "%s", text);
	printf("%s %s master clock mode (%s)\n", when,
	       strstr(text, "masterclock 1") ? "in" : "out of", text);
}

/*
 * When the host's clock changes, a worker updates all VMs, and the tracepoint does not
 * name them.
 */
static void take_host_clock(const char *when, const char *text)
{
	char clock[sizeof(host_clock)];

	if (sscanf(text, "masterclock %*d hostclock %19s", clock) != 1 || !strcmp(clock, host_clock))
		return;
	snprintf(host_clock, sizeof(host_clock), "%s", clock);
	printf("%s the host's clock is %s: %s\n", when, clock, strcmp(clock, "none") ?
	       "in master clock mode if all TSCs of the VM have one rate" :
	       "out of master clock mode");
	mode[0] = '\0';
}

/* TASK-PID [CPU] FLAGS SECONDS: EVENT: TEXT, of all processes */
static void take_line(char *line)
{
	static const struct {
		const char *name;
		void (*take)(const char *when, const char *text);
		bool is_ours;
	} events[] = {
		{ ": kvm_pvclock_update: ", take_update, true },
		{ ": kvm_write_tsc_offset: ", take_offset, true },
		{ ": kvm_clock_guest: ", take_ioctl, true },
		{ ": kvm_update_master_clock: ", take_mode, true },
		{ ": kvm_update_master_clock: ", take_host_clock, false },
	};
	char path[60], *cpu = strstr(line, " ["), *dash, *at, *when;
	bool is_ours;

	if (strstr(line, "LOST") && strstr(line, "EVENTS"))
		printf("- %s: the next lines may report earlier changes\n", line);
	if (!cpu)
		return;
	*cpu = '\0';
	dash = strrchr(line, '-');
	snprintf(path, sizeof(path), "/proc/%d/task/%d", process, dash ? atoi(dash + 1) : 0);
	is_ours = access(path, F_OK) == 0;
	if (!is_ours && !strstr(line, "kworker/"))
		return;

	for (unsigned int i = 0; i < sizeof(events) / sizeof(*events); i++) {
		at = strstr(cpu + 1, events[i].name);
		if (!at || events[i].is_ours != is_ours)
			continue;
		*at = '\0';
		when = strrchr(cpu + 1, ' ');
		events[i].take(when ? when + 1 : cpu + 1, at + strlen(events[i].name));
		return;
	}
}

/* Returns false if there is nothing to read for now. */
static bool take_lines(int pipe)
{
	static char text[65536];
	static size_t used;
	ssize_t nr = read(pipe, text + used, sizeof(text) - 1 - used);
	char *line = text, *end;

	if (nr <= 0)
		return false;
	used += nr;
	text[used] = '\0';
	while ((end = strchr(line, '\n'))) {
		*end = '\0';
		take_line(line);
		line = end + 1;
	}
	used -= line - text;
	memmove(text, line, used);
	if (used > MAX_LINE)
		used = 0;
	return true;
}

int watch(int pid)
{
	enum { PIPE, PROCESS, SIGNALS };
	struct pollfd fds[] = {
		[PIPE] = { .events = POLLIN },
		[PROCESS] = { .events = POLLIN },
		[SIGNALS] = { .events = POLLIN },
	};
	char path[200];

	fds[PROCESS].fd = syscall(SYS_pidfd_open, pid, 0);
	if (fds[PROCESS].fd < 0)
		err(EXIT_ERROR, "process %d", pid);
	if (!print_vms(pid))
		errx(EXIT_ERROR, "process %d has no VM: it is the one that created the VM, see "
		     DEBUGFS_KVM, pid);
	fds[SIGNALS].fd = catch_signals();
	create_instance(pid);
	process = pid;
	enable_events();
	snprintf(path, sizeof(path), "%s/trace_pipe", instance);
	fds[PIPE].fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fds[PIPE].fd < 0)
		err(EXIT_ERROR, "%s", path);
	puts("watching: a change is reported when the vCPU runs next");

	do {
		if (fflush(stdout))
			break;
		poll(fds, 3, -1);
		take_lines(fds[PIPE].fd);
	} while (!fds[PROCESS].revents && !fds[SIGNALS].revents);

	while (fds[PROCESS].revents && take_lines(fds[PIPE].fd))
		;
	fflush(stdout);
	close(fds[PIPE].fd);
	return 0;
}
