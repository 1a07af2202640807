// SPDX-License-Identifier: GPL-2.0
/*
 * Runs QEMU on two emulated hosts, and lets a guest move between them.
 *
 *	hop follow		on host 2, does what host 1 says
 *	hop lead STEP...	on host 1, takes the steps one by one
 *
 * A step is a command for a host, as 1:start or 2:measure:NAME:
 *
 *	hv, off		let QEMUs that are started from now on offer Hyper-V's clock, or
 *			not keep the function of the TSC
 *	start		start a QEMU and the guest
 *	ready		wait until the guest is up
 *	incoming	start a QEMU that waits for the guest
 *	measure:NAME	let the guest say how its clock has moved
 *	pause		stop the guest and let it go on
 *	migrate		migrate the guest to the other host, and end its QEMU
 *	arrived		wait until it runs here
 *	begin		migrate it, but so slowly that it does not end
 *	cancel		end that
 *	failed		or wait until it has ended by itself
 *	kill		kill QEMU
 *	unplug, plug	cut the network, and mend it
 *	take, taken	receive the guest as a file
 *	hand, fetch	send that file, get it from host 2
 *	restore		start a QEMU with the file
 *	cut:N, spoil:N	damage a copy of the file: end it N bytes after the name of the
 *			clock's subsection, or flip a bit there
 *	refused		start a QEMU with that copy: it has to fail, not to run
 *	clocksource:NAME  switch the host's clocksource
 *
 * "move:N" is N times incoming, migrate, arrived and measure, and back. Unless the
 * last step is "stay", host 2 ends, too.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDRESS		"10.0.0.%d"
#define CONTROL_PORT	4000
#define QEMU_PORT	4001
#define FILE_PORT	4002
#define STREAM		"/tmp/stream"
#define BROKEN		"/tmp/broken"
#define LOADER		"/files/ld-linux-x86-64.so.2"
/* Each character of a console takes an emulated CPU long. */
#define GUEST_CMDLINE	"console=ttyS0 quiet panic=-1 noxsave mitigations=off init_on_alloc=0 nokaslr"
#define SUBSECTION	"kvmclock/guest_clock"
#define CLOCKSOURCE	"/sys/devices/system/clocksource/clocksource0/current_clocksource"

/* What comes line by line: QEMU's monitor, the guest's console, the other host. */
struct lines {
	int fd;
	size_t used;
	char text[16384];
	void (*take)(char *line);
};

static void take_qmp(char *line);
static void take_console(char *line);
static void take_control(char *line);

static struct lines qmp = { .fd = -1, .take = take_qmp };
static struct lines console = { .fd = -1, .take = take_console };
static struct lines control = { .fd = -1, .take = take_control };

static int host;			/* 1 or 2 */
static bool hv, off;
static pid_t qemu, helper;

/* What has been said since it was last asked for. */
static char reply[16384], status[40], expected[100], command[1000];
static bool replied, active, ended, resumed, answered, ready, commanded;

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list args;

	printf("hop: ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	if (qemu)
		kill(qemu, SIGKILL);
	exit(1);
}

/* --- lines -------------------------------------------------------------------- */

static void take_qmp(char *line)
{
	char *at;

	if (strstr(line, "\"event\": \"MIGRATION\"") && (at = strstr(line, "\"status\": \"")))
		sscanf(at, "\"status\": \"%39[^\"]", status);
	active = !strcmp(status, "active");
	ended = !strcmp(status, "completed") || !strcmp(status, "failed") ||
		!strcmp(status, "cancelled");
	if (strstr(line, "\"event\": \"RESUME\""))
		resumed = true;
	if (!strncmp(line, "{\"return\"", 9) || !strncmp(line, "{\"error\"", 8)) {
		replied = true;
		strcpy(reply, line);
	}
}

static void take_console(char *line)
{
	line[strcspn(line, "\r")] = '\0';
	printf("%s\n", line);
	if (strstr(line, "guest failed"))
		die("the guest failed");
	ready |= !!strstr(line, "guest ready");
	answered |= *expected && strstr(line, expected);
}

static void take_control(char *line)
{
	snprintf(command, sizeof(command), "%s", line);
	commanded = true;
}

/* False if there is nothing more to come. */
static bool read_lines(struct lines *l)
{
	ssize_t len = read(l->fd, l->text + l->used, sizeof(l->text) - l->used - 1);
	char *end, *line = l->text;

	if (len <= 0)
		return false;
	l->used += len;
	l->text[l->used] = '\0';
	for (; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		l->take(line);
	}
	l->used -= line - l->text;
	memmove(l->text, line, l->used);
	if (l->used == sizeof(l->text) - 1)
		die("a line is too long");
	return true;
}

static void end_lines(struct lines *l)
{
	close(l->fd);
	l->fd = -1;
	l->used = 0;
}

/*
 * Whatever is waited for, the guest's console and the monitor are read. A QEMU may end
 * while it is the other host's turn: that can be what its next command is about.
 */
static void pump_until(const bool *done)
{
	struct lines *all[] = { &qmp, &console, &control };

	while (!*done) {
		struct pollfd fds[3];

		for (int i = 0; i < 3; i++)
			fds[i] = (struct pollfd) { .fd = all[i]->fd, .events = POLLIN };
		if (poll(fds, 3, -1) < 0)
			die("poll: %m");
		for (int i = 0; i < 3; i++) {
			if (!fds[i].revents || read_lines(all[i]))
				continue;
			end_lines(all[i]);
			if (all[i] == &qmp && done != &commanded)
				die("QEMU ended");
			if (all[i] == &control)
				return;
		}
	}
}

/* --- QEMU ---------------------------------------------------------------------- */

static void __attribute__((format(printf, 1, 2))) execute(const char *fmt, ...)
{
	va_list args;

	replied = false;
	va_start(args, fmt);
	vdprintf(qmp.fd, fmt, args);
	va_end(args);
	pump_until(&replied);
	if (!strncmp(reply, "{\"error\"", 8))
		die("QEMU says %s", reply);
}

/* What QEMU gets has numbers that nothing here reaches. */
static void __attribute__((noreturn))
become_qemu(int monitor, int serial, int file, const char *incoming)
{
	char *argv[] = {
		LOADER, "--library-path", "/files",
		"/files/qemu-system-x86_64", "-accel", "kvm",
		"-cpu", hv ? "host,hv-time" : "host", "-smp", "2", "-m", "192M",
		"-M", "microvm,x-option-roms=off,rtc=on,isa-serial=on",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-L", "/files", "-bios", "qboot.rom",
		"-kernel", "/files/guest-bzImage", "-initrd", "/files/guest.gz",
		"-append", hv ? GUEST_CMDLINE " memmap=4K$0x7000000 -- hv" : GUEST_CMDLINE,
		"-chardev", "socket,id=monitor,fd=100", "-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=serial,fd=101", "-serial", "chardev:serial",
		"-trace", "kvmclock_*", NULL, NULL, NULL, NULL, NULL
	};
	char **begin = argv, **end = argv;

	if (access(LOADER, X_OK))
		begin += 3;	/* a static program */
	while (*end)
		end++;
	if (off) {
		*end++ = "-global";
		*end++ = "kvmclock.guest-clock=off";
	}
	if (incoming) {
		*end++ = "-incoming";
		*end++ = (char *)incoming;
	}

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(monitor, 100);
	dup2(serial, 101);
	if (file >= 0)
		dup2(file, 102);
	execv(begin[0], begin);
	printf("hop: cannot run %s: %m\n", begin[0]);
	_exit(127);
}

static void start_qemu(const char *incoming, const char *path)
{
	int monitor[2], serial[2], file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, serial) || (path && file < 0))
		die("cannot start QEMU: %m");
	resumed = ready = false;
	*status = '\0';
	qemu = fork();
	if (!qemu)
		become_qemu(monitor[1], serial[1], file, incoming);
	close(monitor[1]);
	close(serial[1]);
	close(file);
	qmp.fd = monitor[0];
	console.fd = serial[0];
}

static void set_up_monitor(void)
{
	execute("{\"execute\": \"qmp_capabilities\"}\n");
	execute("{\"execute\": \"migrate-set-capabilities\", \"arguments\": {\"capabilities\": "
		"[{\"capability\": \"events\", \"state\": true}]}}\n");
}

/* The exit status, as wait() has it. */
static int end_qemu(void)
{
	int result;

	while (console.fd >= 0 && read_lines(&console))
		;
	waitpid(qemu, &result, 0);
	qemu = 0;
	end_lines(&console);
	end_lines(&qmp);
	return result;
}

static void wait_for_end(const char *wanted)
{
	pump_until(&ended);
	if (strcmp(status, wanted))
		die("the migration ended as '%s', not '%s'", status, wanted);
}

static void begin_migration(long bytes_a_second)
{
	*status = '\0';
	active = ended = false;
	execute("{\"execute\": \"migrate-set-parameters\", \"arguments\": "
		"{\"max-bandwidth\": %ld}}\n", bytes_a_second);
	execute("{\"execute\": \"migrate\", \"arguments\": {\"uri\": \"tcp:" ADDRESS ":%d\"}}\n",
		3 - host, QEMU_PORT);
}

/* --- files and the network ------------------------------------------------------ */

static struct sockaddr_in address_of(int which, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	char text[20];

	snprintf(text, sizeof(text), ADDRESS, which);
	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

static void change_interface(unsigned long request, struct ifreq *change)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(change->ifr_name, "eth0");
	if (ioctl(fd, request, change))
		die("eth0: %m");
	close(fd);
}

static void plug(bool in)
{
	struct ifreq change = { .ifr_flags = in ? IFF_UP : 0 };

	change_interface(SIOCSIFFLAGS, &change);
}

static void set_up_network(void)
{
	struct ifreq change = { 0 };

	*(struct sockaddr_in *)&change.ifr_addr = address_of(host, 0);
	change_interface(SIOCSIFADDR, &change);
	plug(true);
}

static int listen_at(int port)
{
	struct sockaddr_in address = address_of(host, port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
		die("cannot listen at port %d: %m", port);
	return fd;
}

/* The other host may still be booting. */
static int connect_to(int which, int port)
{
	struct sockaddr_in address = address_of(which, port);

	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
			return fd;
		close(fd);
		usleep(100000);
	}
}

static void copy(int from, int to)
{
	char buffer[65536];
	ssize_t len;

	while ((len = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, len) != len)
			die("copy: %m");
	if (len < 0)
		die("copy: %m");
}

static int create(const char *path)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		die("%s: %m", path);
	return fd;
}

/* Goes on by itself: the other host has to be told that it can come. */
static void serve_file(int port, bool take)
{
	int listener = listen_at(port), fd;

	helper = fork();
	if (!helper) {
		fd = accept(listener, NULL, NULL);
		if (take)
			copy(fd, create(STREAM));
		else
			copy(open(STREAM, O_RDONLY), fd);
		_exit(0);
	}
	close(listener);
}

/* After the name come four bytes of a version, and the fields. */
static void damage(bool cut, long where)
{
	int from = open(STREAM, O_RDONLY | O_CLOEXEC), to = create(BROKEN);
	off_t size = lseek(from, 0, SEEK_END);
	char *text = malloc(size), *at;

	if (pread(from, text, size, 0) != size)
		die("%s: %m", STREAM);
	at = memmem(text, size, SUBSECTION, strlen(SUBSECTION));
	if (!at)
		die("the file has no %s", SUBSECTION);
	at += strlen(SUBSECTION) + where;
	if (cut)
		size = at - text;
	else
		*at ^= 0x10;
	if (write(to, text, size) != size)
		die("%s: %m", BROKEN);
	close(from);
	close(to);
	free(text);
}

/* --- commands -------------------------------------------------------------------- */

static void do_hv(const char *unused)
{
	(void)unused;
	hv = true;
}

static void do_off(const char *unused)
{
	(void)unused;
	off = true;
}

static void do_start(const char *unused)
{
	(void)unused;
	start_qemu(NULL, NULL);
	set_up_monitor();
}

static void do_ready(const char *unused)
{
	(void)unused;
	pump_until(&ready);
}

/* For as long as that takes; the guest must not notice. */
static void do_pause(const char *unused)
{
	(void)unused;
	execute("{\"execute\": \"stop\"}\n");
	execute("{\"execute\": \"cont\"}\n");
}

static void do_incoming(const char *unused)
{
	(void)unused;
	start_qemu("defer", NULL);
	set_up_monitor();
	execute("{\"execute\": \"migrate-incoming\", \"arguments\": "
		"{\"uri\": \"tcp:" ADDRESS ":%d\"}}\n", host, QEMU_PORT);
}

/* QEMU says that the migration is completed before it computes the downtime. */
static int query_downtime(void)
{
	for (int tries = 0; tries < 100; tries++) {
		char *downtime;

		execute("{\"execute\": \"query-migrate\"}\n");
		downtime = strstr(reply, "\"downtime\": ");
		if (downtime && atoi(downtime + 12))
			return atoi(downtime + 12);
		usleep(10000);
	}
	return 0;
}

static void do_migrate(const char *unused)
{
	(void)unused;
	begin_migration(1L << 40);
	wait_for_end("completed");
	printf("downtime %d\n", query_downtime());
	execute("{\"execute\": \"quit\"}\n");
	if (end_qemu())
		die("QEMU failed in the end");
}

static void do_arrived(const char *unused)
{
	(void)unused;
	pump_until(&resumed);
}

static void do_begin(const char *unused)
{
	(void)unused;
	begin_migration(100000);
	pump_until(&active);
}

static void do_cancel(const char *unused)
{
	(void)unused;
	execute("{\"execute\": \"migrate_cancel\"}\n");
	wait_for_end("cancelled");
}

static void do_failed(const char *unused)
{
	(void)unused;
	wait_for_end("failed");
}

static void do_kill(const char *unused)
{
	(void)unused;
	kill(qemu, SIGKILL);
	end_qemu();
}

static void do_measure(const char *name)
{
	snprintf(expected, sizeof(expected), "measured %s ", name);
	answered = false;
	dprintf(console.fd, "measure %s\n", name);
	pump_until(&answered);
}

static void do_unplug(const char *unused)
{
	(void)unused;
	plug(false);
}

static void do_plug(const char *unused)
{
	(void)unused;
	plug(true);
}

static void do_take(const char *unused)
{
	(void)unused;
	serve_file(QEMU_PORT, true);
}

static void do_taken(const char *unused)
{
	int result;

	(void)unused;
	waitpid(helper, &result, 0);
	if (result)
		die("the file did not come");
}

static void do_hand(const char *unused)
{
	(void)unused;
	serve_file(FILE_PORT, false);
}

static void do_fetch(const char *unused)
{
	int from = connect_to(2, FILE_PORT), to = create(STREAM);

	(void)unused;
	copy(from, to);
	close(from);
	close(to);
}

static void do_restore(const char *unused)
{
	(void)unused;
	start_qemu("fd:102", STREAM);
	set_up_monitor();
	pump_until(&resumed);
}

static void do_cut(const char *where)
{
	damage(true, atol(where));
}

static void do_spoil(const char *where)
{
	damage(false, atol(where));
}

/* No answer is waited for, as QEMU may have ended before. */
static void do_refused(const char *unused)
{
	int result;

	(void)unused;
	start_qemu("fd:102", BROKEN);
	dprintf(qmp.fd, "{\"execute\": \"qmp_capabilities\"}\n");
	while (!resumed && read_lines(&qmp))
		;
	if (resumed)
		die("QEMU runs the guest");
	result = end_qemu();
	if (!WIFEXITED(result) || WEXITSTATUS(result) != 1)
		die("QEMU ended with status %#x", result);
	printf("refused\n");
}

static void do_clocksource(const char *name)
{
	int fd = open(CLOCKSOURCE, O_WRONLY | O_CLOEXEC);

	if (write(fd, name, strlen(name)) < 0)
		die("cannot switch to clocksource %s: %m", name);
	close(fd);
}

static const struct {
	const char *name;
	void (*obey)(const char *argument);
} commands[] = {
	{ "hv", do_hv }, { "off", do_off }, { "start", do_start }, { "ready", do_ready },
	{ "incoming", do_incoming }, { "measure", do_measure }, { "pause", do_pause },
	{ "migrate", do_migrate }, { "arrived", do_arrived }, { "begin", do_begin }, { "cancel", do_cancel }, { "failed", do_failed },
	{ "kill", do_kill }, { "unplug", do_unplug }, { "plug", do_plug },
	{ "take", do_take }, { "taken", do_taken }, { "hand", do_hand }, { "fetch", do_fetch },
	{ "restore", do_restore }, { "cut", do_cut }, { "spoil", do_spoil },
	{ "refused", do_refused }, { "clocksource", do_clocksource },
};

static void obey(char *what)
{
	char *argument = strchr(what, ':');

	if (argument)
		*argument++ = '\0';
	else
		argument = "";
	printf("host %d: %s %s\n", host, what, argument);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (!strcmp(what, commands[i].name)) {
			commands[i].obey(argument);
			return;
		}
	}
	die("'%s' is no command", what);
}

/* A host that does not answer has failed, and said why on its own console. */
static void __attribute__((format(printf, 2, 3))) tell(int which, const char *fmt, ...)
{
	char what[1000];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	if (which == host) {
		obey(what);
		return;
	}
	commanded = false;
	dprintf(control.fd, "%s\n", what);
	pump_until(&commanded);
	if (!commanded || strcmp(command, "done"))
		die("host %d has failed", which);
}

static void move(int times)
{
	for (int i = 1, from = 1; i <= times; i++, from = 3 - from) {
		tell(3 - from, "incoming");
		tell(from, "migrate");
		tell(3 - from, "arrived");
		tell(3 - from, "measure:%d", i);
	}
}

static void lead(char **steps)
{
	host = 1;
	set_up_network();
	control.fd = connect_to(2, CONTROL_PORT);
	for (; *steps && strcmp(*steps, "stay"); steps++) {
		if (!strncmp(*steps, "move:", 5))
			move(atoi(*steps + 5));
		else
			tell(**steps - '0', "%s", *steps + 2);
	}
	if (qemu)
		do_kill("");
	dprintf(control.fd, "%s\n", *steps ? "stay" : "end");
}

static void follow(void)
{
	int listener;

	host = 2;
	set_up_network();
	listener = listen_at(CONTROL_PORT);
	for (;;) {
		if (control.fd < 0)
			control.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		commanded = false;
		pump_until(&commanded);
		if (!commanded)
			die("host 1 has failed");
		if (!strcmp(command, "end"))
			break;
		if (!strcmp(command, "stay")) {
			end_lines(&control);
			continue;
		}
		obey(command);
		dprintf(control.fd, "done\n");
	}
	if (qemu)
		do_kill("");
}

int main(int argc, char **argv)
{
	setlinebuf(stdout);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "follow"))
		follow();
	else if (argc > 2 && !strcmp(argv[1], "lead"))
		lead(argv + 2);
	else
		die("usage: hop follow, or hop lead STEP...");
}
