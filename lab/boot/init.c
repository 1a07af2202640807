// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the lab: loads KVM, runs the programs of /scenario, each with its
 * own time limit, says what came of them, and powers off.
 *
 * Everything readable goes to the console through /dev/kmsg, because records
 * of the kernel's log never mix within a line: results as KTAP, and a line of
 * the output of program K as "# K: LINE" ("# K+ PART" as long as it goes on).
 *
 * The verdict goes to a serial port of its own, as the very last thing. A run
 * that dies on the way has none, whatever the console says.
 *
 * /scenario has the words of lab/boot/scenarios, of which module, needs, run
 * and shell are for init, and
 *	spare-cpu-0		run no program on CPU 0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define VERDICT_PORT	"/dev/ttyS1"
#define CLOCKSOURCE	"/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define CLOCK_DEADLINE	20		/* seconds; it takes about one */
#define EXIT_SKIP	4		/* of kselftest */
#define OVER_LIMIT	-1		/* no wait status looks so */
/* Modules that are built here are neither signed nor part of the kernel's tree. */
#define TAINT_MODULES	(1UL << 12 | 1UL << 13)
#define MAX_ITEMS	64
#define MAX_WORDS	32
#define MAX_TEXT	800		/* bytes in a record of the kernel's log */

static struct program {
	char name[100];
	int seconds;
	bool may_skip;
	char *argv[MAX_WORDS];
} programs[MAX_ITEMS];
static unsigned int nr_programs;

static const char *modules[MAX_ITEMS];
static unsigned int nr_modules;
static bool spare_cpu_0;
static bool needs_scaling;
static bool shell;

static int kmsg = -1;
static unsigned int passed, failed, skipped;
static volatile sig_atomic_t over_limit;

/*
 * Write each record with one write(): stdio fails on /dev/kmsg, which cannot seek as
 * stdio wants. The kernel holds back a record without a newline until the next one.
 */
static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	char text[MAX_TEXT + 100];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (len >= (int)sizeof(text))
		len = sizeof(text) - 1;
	text[len++] = '\n';
	if (write(kmsg, text, len) < 0)
		kmsg = -1;
}

static void verdict(bool pass, const char *reason)
{
	int port = open(VERDICT_PORT, O_WRONLY | O_NOCTTY | O_CLOEXEC);

	dprintf(port, "verdict: %s %u passed, %u failed, %u skipped%s%s\n",
		pass ? "pass" : "fail", passed, failed, skipped,
		*reason ? ": " : "", reason);
	tcdrain(port);
}

static void __attribute__((noreturn)) power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	char reason[200];
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	say("lab: %s", reason);
	verdict(false, reason);
	power_off();
}

static void mount_one(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL))
		die("cannot mount %s on %s: %m", type, where);
}

static void mount_filesystems(void)
{
	mount_one("devtmpfs", "/dev");
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	mount_one("debugfs", "/sys/kernel/debug");
	mount_one("devpts", "/dev/pts");
	mount_one("tmpfs", "/tmp");
}

/* A program's second run is called PROGRAM.2. */
static void name_program(struct program *p, const char *name)
{
	unsigned int run = 1;

	for (struct program *other = programs; other < p; other++)
		run += !strcmp(other->argv[0] + strlen("/bin/"), name);
	if (run == 1)
		snprintf(p->name, sizeof(p->name), "%s", name);
	else
		snprintf(p->name, sizeof(p->name), "%s.%u", name, run);
}

/* run SECONDS [may-skip] PROGRAM [ARGUMENT...] */
static void add_program(char **words, unsigned int nr)
{
	struct program *p = &programs[nr_programs++];
	unsigned int at = 2;

	p->seconds = atoi(words[1]);
	p->may_skip = nr > 3 && !strcmp(words[2], "may-skip");
	at += p->may_skip;
	memcpy(p->argv, words + at, (nr - at) * sizeof(*words));
	if (asprintf(&p->argv[0], "/bin/%s", words[at]) < 0)
		die("out of memory");
	name_program(p, words[at]);
}

/* Words that are not for init have been checked by lab/run. */
static void take_line(char *line)
{
	char *words[MAX_WORDS] = { NULL };
	unsigned int nr = 0;

	for (char *word = strtok(line, " \t\n"); word; word = strtok(NULL, " \t\n"))
		if (nr < MAX_WORDS - 1)
			words[nr++] = word;

	if (!nr)
		return;
	if (!strcmp(words[0], "module") && nr_modules < MAX_ITEMS)
		modules[nr_modules++] = words[1];
	else if (!strcmp(words[0], "spare-cpu-0"))
		spare_cpu_0 = true;
	else if (!strcmp(words[0], "shell"))
		shell = true;
	else if (!strcmp(words[0], "run") && nr > 2 && nr_programs < MAX_ITEMS)
		add_program(words, nr);
	else if (!strcmp(words[0], "needs"))
		for (unsigned int i = 1; i < nr; i++)
			needs_scaling |= !strcmp(words[i], "scaling");
}

static void read_scenario(void)
{
	FILE *file = fopen("/scenario", "re");
	char line[1024];

	if (!file)
		die("/scenario: %m");
	while (fgets(line, sizeof(line), file))
		take_line(strdup(line));	/* kept: the words point into it */
	fclose(file);
}

/* The file's first bytes, up to the end of the line; empty if unreadable. */
static const char *first_line(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	static char line[100];
	ssize_t len = read(fd, line, sizeof(line) - 1);

	close(fd);
	line[len > 0 ? len : 0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static unsigned long taint(void)
{
	return strtoul(first_line("/proc/sys/kernel/tainted"), NULL, 10);
}

/*
 * KVM takes over the TSC's frequency when it is loaded, so it has to be the
 * refined one: the kernel refines it before it switches from tsc-early to tsc.
 * sysfs does not say when, so look again and again.
 */
static void wait_for_tsc(void)
{
	for (int i = 0; i < CLOCK_DEADLINE * 50; i++) {
		if (!strcmp(first_line(CLOCKSOURCE), "tsc"))
			return;
		usleep(20000);
	}
	die("after %d s the clocksource is %s and not tsc", CLOCK_DEADLINE,
	    first_line(CLOCKSOURCE));
}

static void load_module(const char *name)
{
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "/modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (syscall(SYS_finit_module, fd, "", 0))
		die("cannot load %s: %m", path);
	close(fd);
}

static bool cpu_has(const char *flag)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	bool found = false;
	char line[8192];

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "flags", 5))
			continue;
		for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
			found |= !strcmp(word, flag);
	}
	if (file)
		fclose(file);
	return found;
}

static void load_modules(void)
{
	load_module("irqbypass");
	load_module("kvm");
	if (cpu_has("svm"))
		load_module("kvm-amd");
	else if (cpu_has("vmx"))
		load_module("kvm-intel");
	else
		die("the CPU has neither svm nor vmx");
	for (unsigned int i = 0; i < nr_modules; i++)
		load_module(modules[i]);
}

/* A test that finds no scaling leaves out what needs it, and passes. */
static void require_scaling(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TSC_CONTROL) <= 0)
		die("KVM cannot scale the TSC");
	close(kvm);
}

/* For all that init starts from now on. */
static void leave_cpu_0(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		die("cannot get the CPUs: %m");
	CPU_CLR(0, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("cannot leave CPU 0: %m");
}

static void __attribute__((noreturn)) become(struct program *p, const char *terminal)
{
	struct termios raw;

	setsid();
	dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
	dup2(open(terminal, O_RDWR | O_NOCTTY | O_CLOEXEC), STDOUT_FILENO);
	dup2(STDOUT_FILENO, STDERR_FILENO);
	tcgetattr(STDOUT_FILENO, &raw);
	cfmakeraw(&raw);
	tcsetattr(STDOUT_FILENO, TCSANOW, &raw);
	execv(p->argv[0], p->argv);
	fprintf(stderr, "cannot run %s: %m\n", p->argv[0]);
	_exit(127);
}

/*
 * Returns the program's output, which comes through a terminal and not through
 * a pipe: so it arrives line by line, also the last line before a hang.
 */
static FILE *start(struct program *p, pid_t *pid)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (master < 0 || unlockpt(master))
		die("/dev/ptmx: %m");
	*pid = fork();
	if (!*pid)
		become(p, ptsname(master));
	if (*pid < 0)
		die("cannot start %s: %m", p->name);
	return fdopen(master, "r");
}

static void say_line(unsigned int k, const char *line)
{
	for (; strlen(line) > MAX_TEXT; line += MAX_TEXT)
		say("# %u+ %.*s", k, MAX_TEXT, line);
	say("# %u: %s", k, line);
}

static void limit_reached(int signal)
{
	(void)signal;
	over_limit = 1;
}

/* The first at the limit; the others in case that one came before a read. */
static void set_limit(int seconds)
{
	struct itimerval limit = {
		.it_value.tv_sec = seconds,
		.it_interval.tv_sec = seconds ? 1 : 0,
	};
	struct sigaction interrupt = { .sa_handler = limit_reached };

	over_limit = 0;
	sigaction(SIGALRM, &interrupt, NULL);
	setitimer(ITIMER_REAL, &limit, NULL);
}

static const char *skip_reason(const char *line)
{
	const char *mark = strstr(line, "SKIP");

	return mark ? mark + strspn(mark, "SKIP -:") : line;
}

static void report(unsigned int k, struct program *p, int status, const char *last)
{
	bool skip = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP;

	if (!status) {
		say("ok %u %s", k, p->name);
		passed++;
		return;
	}
	if (skip && p->may_skip) {
		say("ok %u %s # SKIP %s", k, p->name, skip_reason(last));
		skipped++;
		return;
	}
	failed++;
	if (status == OVER_LIMIT)
		say("not ok %u %s # timed out after %d s", k, p->name, p->seconds);
	else if (skip)
		say("not ok %u %s # skipped, but must run: %s", k, p->name, skip_reason(last));
	else if (WIFSIGNALED(status))
		say("not ok %u %s # signal %d", k, p->name, WTERMSIG(status));
	else
		say("not ok %u %s # exit %d", k, p->name, WEXITSTATUS(status));
}

static void run_program(unsigned int k, struct program *p)
{
	char *line = strdup("");
	size_t size = 1;
	FILE *output;
	int status;
	pid_t pid;

	say("# run %u %s", k, p->name);
	output = start(p, &pid);
	set_limit(p->seconds);
	while (!over_limit && getline(&line, &size, output) > 0) {
		line[strcspn(line, "\n")] = '\0';
		say_line(k, line);
	}
	if (over_limit || waitpid(pid, &status, 0) != pid)
		status = OVER_LIMIT;
	set_limit(0);
	report(k, p, status, line);
	free(line);
	fclose(output);
}

/* Nothing that a program has started outlives it. */
static void kill_all(void)
{
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void run_programs(void)
{
	say("KTAP version 1");
	say("1..%u", nr_programs);
	for (unsigned int k = 1; k <= nr_programs; k++) {
		run_program(k, &programs[k - 1]);
		kill_all();
	}
}

/* On the console, until it ends. */
static void run_shell(void)
{
	pid_t pid = fork();

	if (!pid) {
		int console = open("/dev/ttyS0", O_RDWR);

		setsid();
		ioctl(console, TIOCSCTTY, 1);
		for (int fd = 0; fd < 3; fd++)
			dup2(console, fd);
		setenv("PATH", "/bin", 1);
		execl("/bin/sh", "sh", NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void judge(unsigned long allowed_taint)
{
	unsigned long bad = taint() & ~allowed_taint;
	char reason[100];

	if (bad) {
		snprintf(reason, sizeof(reason), "the kernel is tainted: %#lx", bad);
		verdict(false, reason);
	} else if (!passed && !failed)
		verdict(false, skipped ? "nothing passed" : "nothing was run");
	else
		verdict(!failed, "");
}

int main(void)
{
	unsigned long taint_before;

	mount_filesystems();
	say("lab: init");
	read_scenario();
	taint_before = taint();
	wait_for_tsc();
	load_modules();
	if (needs_scaling)
		require_scaling();
	if (spare_cpu_0)
		leave_cpu_0();
	if (shell)
		run_shell();
	run_programs();
	judge(taint_before | TAINT_MODULES);
	power_off();
}
