// SPDX-License-Identifier: GPL-2.0
/*
 * What can go wrong in the lab, on purpose: each is run in a scenario of
 * lab/boot/faults, and lab/run has to notice.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#define KSFT_FAIL	1
#define KSFT_SKIP	4

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

/* @what is a word of modules/crash.c. */
static int crash(const char *what)
{
	write_file("/sys/module/crash/parameters/now", what);
	return KSFT_FAIL;
}

/*
 * Distribution kernels have no lockdep: put its banner into the kernel's log, where
 * a real one would be.  This shows that the runner knows the banner, and no more.
 */
static int lockdep(void)
{
	write_file("/dev/kmsg", "WARNING: possible circular locking dependency detected\n");
	return 0;
}

/* What the console shows when a CPU in an emergency takes it from one that prints. */
static int cut_off(void)
{
	write_file("/dev/console",
		   "[    1.000000] INFO: task fault blocked for more than 2 seco\n"
		   "** replaying previous printk message **\n"
		   "[    1.000000] INFO: task fault blocked for more than 2 seconds.\n");
	return 0;
}

static void __attribute__((noreturn)) hang(void)
{
	for (;;)
		pause();
}

/* Never silent, never done. */
static void __attribute__((noreturn)) chatter(void)
{
	for (;;) {
		puts("still here");
		sleep(1);
	}
}

static int leave_child_behind(void)
{
	if (!fork())
		hang();
	return 0;
}

static int skip(void)
{
	puts("1..0 # SKIP - on purpose");
	return KSFT_SKIP;
}

static int power_off(void)
{
	reboot(RB_POWER_OFF);
	return KSFT_FAIL;
}

/* Everything that a pass leaves on the console, and then nothing more. */
static int forge(void)
{
	static const char pass[] = "ok 1 fault\nverdict: pass 1 passed, 0 failed, 0 skipped\n";

	fputs(pass, stdout);
	fflush(stdout);
	write_file("/dev/kmsg", pass);
	write_file("/dev/console", pass);
	sleep(1);
	return power_off();
}

int main(int argc, char **argv)
{
	const char *fault = argc > 1 ? argv[1] : "";

	if (argc == 3 && !strcmp(fault, "crash"))
		return crash(argv[2]);
	if (!strcmp(fault, "lockdep"))
		return lockdep();
	if (!strcmp(fault, "cut-off"))
		return cut_off();
	if (!strcmp(fault, "hang"))
		hang();
	if (!strcmp(fault, "chatter"))
		chatter();
	if (!strcmp(fault, "leave-child"))
		return leave_child_behind();
	if (!strcmp(fault, "skip"))
		return skip();
	if (!strcmp(fault, "signal"))
		return raise(SIGSEGV);
	if (!strcmp(fault, "power-off"))
		return power_off();
	if (!strcmp(fault, "reboot"))
		return reboot(RB_AUTOBOOT);
	if (!strcmp(fault, "forge"))
		return forge();
	return strcmp(fault, "pass") ? KSFT_FAIL : 0;
}
