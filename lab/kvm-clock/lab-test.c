// SPDX-License-Identifier: GPL-2.0
/*
 * Let kvm-clock watch a VM, change its clock in each way, and expect kvm-clock to say
 * so.  Also time `kvm-clock host`.  Prints TAP.
 *
 *	kvm-clock-test [stock]
 *
 * With "stock", KVM is one without the series.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "vmm.h"

#define CLOCKSOURCES	"/sys/devices/system/clocksource/clocksource0/"

static unsigned int results, failures;
static FILE *watcher;
static bool stock;
static int commands;		/* to the VM's process */

static void check(bool ok, const char *what)
{
	printf("%s %u - %s\n", ok ? "ok" : "not ok", ++results, what);
	fflush(stdout);
	failures += !ok;
}

/* --- the VM's process -------------------------------------------------------------- */

static void set_clocksource(const char *name)
{
	int fd = open(CLOCKSOURCES "current_clocksource", O_WRONLY | O_CLOEXEC);

	if (write(fd, name, strlen(name)) < 0)
		err(1, "clocksource %s", name);
	close(fd);
}

/* By a second, less what passes until then. */
static void move_clock(struct vmm *vmm)
{
	struct kvm_clock_data clock = { 0 };

	must_ioctl(vmm->vm, KVM_GET_CLOCK, &clock);
	clock.flags = 0;
	clock.clock += 1000000000;
	must_ioctl(vmm->vm, KVM_SET_CLOCK, &clock);
}

/* Restore the clock as it is, or one of another rate. */
static void restore_clock(struct vmm *vmm, bool other_rate)
{
	struct pvclock_vcpu_time_info clock;

	must_ioctl(vmm->vcpu, KVM_GET_CLOCK_GUEST, &clock);
	if (other_rate)
		clock.tsc_to_system_mul ^= 1u << 30;
	if (ioctl(vmm->vcpu, KVM_SET_CLOCK_GUEST, &clock) < 0 && !(other_rate && errno == ERANGE))
		err(1, "KVM_SET_CLOCK_GUEST");
}

static void run_command(struct vmm *vmm, char command)
{
	switch (command) {
	case 'c': move_clock(vmm); break;
	case 'o': vmm_set_tsc_offset(vmm, vmm_get_tsc_offset(vmm) + 1000000); break;
	case 's': restore_clock(vmm, false); break;
	case 'r': restore_clock(vmm, true); break;
	/* Another vCPU with another TSC: the stable bit goes. */
	case 'v': {
		int vcpu = must_ioctl(vmm->vm, KVM_CREATE_VCPU, (void *)1);
		struct vmm other = { .vcpu = vcpu };

		vmm_set_tsc_offset(&other, vmm_get_tsc_offset(vmm) + 5000000000);
		break;
	}
	/* As a guest that boots: nothing moves with the series. */
	case 'm':
		vmm_guest_enables_clock(vmm, 1);
		vmm_guest_enables_clock(vmm, 0);
		break;
	case 'a': set_clocksource("acpi_pm"); break;
	case 't': set_clocksource("tsc"); break;
	}
	vmm_read_guest_tsc(vmm);
}

static void __attribute__((noreturn)) run_vm(int from, int to)
{
	struct pollfd commands = { .fd = from, .events = POLLIN };
	struct vmm vmm = vmm_create();
	char command;

	vmm_guest_enables_clock(&vmm, 0);
	vmm_read_guest_tsc(&vmm);
	dprintf(to, "k");
	for (;;) {
		/* Updates that are requested later take effect when the vCPU runs. */
		while (poll(&commands, 1, 10) == 0)
			vmm_read_guest_tsc(&vmm);
		if (read(from, &command, 1) != 1)
			exit(0);
		run_command(&vmm, command);
		dprintf(to, "k");
	}
}

/* --- the test ---------------------------------------------------------------------- */

static int done;	/* from the VM's process */

static void command(char c)
{
	if (write(commands, &c, 1) != 1 || read(done, &c, 1) != 1)
		err(1, "the VM's process");
}

/*
 * Read what kvm-clock says until a line has @text, and return what follows, or NULL.  The
 * scenario limits the time.
 */
static const char *says(const char *text)
{
	static char line[1000];
	const char *at;

	while (fgets(line, sizeof(line), watcher)) {
		printf("# %s", line);
		at = strstr(line, text);
		if (at)
			return at + strlen(text);
	}
	return NULL;
}

/* Less than a second, as the clock runs between reading and setting it. */
static bool says_moved(void)
{
	const char *ns = says("F moved by ");

	return ns && atoll(ns) > 0 && atoll(ns) <= 1000000000;
}

static pid_t start_vm(void)
{
	int to_vm[2], from_vm[2];
	pid_t pid;
	char c;

	if (pipe(to_vm) || pipe(from_vm))
		err(1, "pipe");
	pid = fork();
	if (!pid) {
		close(to_vm[1]);
		run_vm(to_vm[0], from_vm[1]);
	}
	close(to_vm[0]);
	close(from_vm[1]);
	commands = to_vm[1];
	done = from_vm[0];
	if (read(done, &c, 1) != 1)
		err(1, "the VM's process");
	return pid;
}

static pid_t start_watcher(pid_t vm)
{
	int output[2];
	char text[20];
	pid_t pid;

	if (pipe2(output, O_CLOEXEC))
		err(1, "pipe");
	snprintf(text, sizeof(text), "%d", vm);
	pid = fork();
	if (!pid) {
		dup2(output[1], STDOUT_FILENO);
		close(commands);
		execl("/bin/kvm-clock", "kvm-clock", "watch", text, NULL);
		_exit(127);
	}
	close(output[1]);
	watcher = fdopen(output[0], "r");
	return pid;
}

static bool says_statistics(const char *expected)
{
	const char *said = says("master_clock ");

	return said && !strcmp(said, expected);
}

/* What another one says first: the mode was left and entered, one SET and one refusal. */
static void test_statistics(pid_t vm)
{
	FILE *first = watcher;
	pid_t pid = start_watcher(vm);

	check(says_statistics("1 master_clock_switches 3 clock_guest_set 1 clock_guest_refused 1\n"),
	      "the VM's statistics have counted that");
	kill(pid, SIGTERM);
	check(!says("no such line"), "kvm-clock ends at a signal");
	waitpid(pid, NULL, 0);
	fclose(watcher);
	watcher = first;
}

static void test_unread(pid_t vm)
{
	static const char *const places[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	FILE *first = watcher;
	pid_t pid = start_watcher(vm);
	int status, left = 0;
	char path[100];

	says("watching");
	fclose(watcher);
	watcher = first;
	command('c');
	command('c');
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status),
	      "kvm-clock ends when nobody reads what it says");
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/instances/kvm-clock.%d.%d", places[i], vm, pid);
		left += access(path, F_OK) == 0;
	}
	check(!left, "and leaves no instance of tracefs");
}

static void test_watch(void)
{
	pid_t vm = start_vm(), pid = start_watcher(vm);
	int status;

	if (!stock)
		check(says_statistics("1 master_clock_switches 1 clock_guest_set 0 clock_guest_refused 0\n"),
		      "the VM's statistics are said first");
	check(says("tsc-offset"), "what debugfs has of a vCPU is said");
	check(says("watching"), "kvm-clock watches");
	command('c');
	check(says("F is "), "F is said, at the first update that is seen");
	check(says("stable bit set"), "and the stable bit");
	command('c');
	check(says_moved(), "KVM_SET_CLOCK moves F ahead");
	test_unread(vm);
	command('o');
	check(says("TSC moved by 1000000 cycles"), "the TSC is moved");
	/* Without the series, a new vCPU's TSC is not looked at, and the mode does not come back. */
	if (!stock) {
		command('s');
		check(says("KVM_GET_CLOCK_GUEST: done"), "the clock is saved");
		check(says("KVM_SET_CLOCK_GUEST: done"), "and restored");
		command('r');
		check(says("KVM_SET_CLOCK_GUEST: ERANGE"), "a clock of another rate is refused");
		command('v');
		check(says("stable bit clear"), "TSCs that differ clear the stable bit");
	}
	command('a');
	check(says("out of master clock mode"), "another clocksource ends the mode");
	command('t');
	if (!stock) {
		check(says("in master clock mode"), "the TSC begins it");
		test_statistics(vm);
	}
	close(commands);
	waitpid(vm, NULL, 0);
	check(!says("no such line"), "kvm-clock ends with the VM's process");
	check(waitpid(pid, &status, 0) == pid && !status, "and succeeds");
}

static uint64_t ns_of(struct timeval time)
{
	return time.tv_sec * 1000000000ull + time.tv_usec * 1000ull;
}

/* The best of some: what else runs here only adds to it. */
static void time_host(void)
{
	uint64_t best = UINT64_MAX, best_cpu = UINT64_MAX, ns;

	for (int i = 0; i < 5; i++) {
		struct timespec begin, end;
		struct rusage usage;
		int status;
		pid_t pid;

		clock_gettime(CLOCK_MONOTONIC, &begin);
		pid = fork();
		if (!pid) {
			dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
			execl("/bin/kvm-clock", "kvm-clock", "host", NULL);
			_exit(127);
		}
		wait4(pid, &status, 0, &usage);
		clock_gettime(CLOCK_MONOTONIC, &end);
		check(!status, "kvm-clock host succeeds");
		ns = (end.tv_sec - begin.tv_sec) * 1000000000ull + end.tv_nsec - begin.tv_nsec;
		best = ns < best ? ns : best;
		ns = ns_of(usage.ru_utime) + ns_of(usage.ru_stime);
		best_cpu = ns < best_cpu ? ns : best_cpu;
	}
	printf("# kvm-clock host takes %" PRIu64 " us, %" PRIu64 " us of CPU time\n", best / 1000,
	       best_cpu / 1000);
}

int main(int argc, char **argv)
{
	stock = argc > 1 && !strcmp(argv[1], "stock");
	signal(SIGPIPE, SIG_IGN);
	test_watch();
	time_host();
	printf("1..%u\n", results);
	return failures != 0;
}
