// SPDX-License-Identifier: GPL-2.0
/*
 * Tell what a host has for the clocks of its guests, whether two hosts fit, and what
 * happens to the clock of a VM.  See kvm-clock.1.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

static void __attribute__((noreturn)) usage(void)
{
	fputs("usage: kvm-clock host [--json]\n"
	      "       kvm-clock compare A.json B.json [--guest-khz N]\n"
	      "       kvm-clock watch PID\n", stderr);
	exit(EXIT_ERROR);
}

static unsigned long parse_number(const char *text, const char *what)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || !value || value > INT32_MAX)
		errx(EXIT_ERROR, "%s '%s' is not a number from 1 to %d", what, text, INT32_MAX);
	return value;
}

static int host_command(int argc, char **argv)
{
	struct host host;

	if (argc > 1 || (argc == 1 && strcmp(argv[0], "--json")))
		usage();
	host_read(&host);
	if (argc)
		host_print_json(&host);
	else
		host_print(&host);
	return 0;
}

static int compare_command(int argc, char **argv)
{
	uint32_t guest_khz = 0;
	struct host a, b;

	if (argc == 4 && !strcmp(argv[2], "--guest-khz"))
		guest_khz = parse_number(argv[3], "the guest's rate in kHz");
	else if (argc != 2)
		usage();
	host_load(argv[0], &a);
	host_load(argv[1], &b);
	return compare_hosts(&a, &b, guest_khz);
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 2)
		usage();
	if (!strcmp(argv[1], "host"))
		status = host_command(argc - 2, argv + 2);
	else if (!strcmp(argv[1], "compare"))
		status = compare_command(argc - 2, argv + 2);
	else if (!strcmp(argv[1], "watch") && argc == 3)
		status = watch(parse_number(argv[2], "the process ID"));
	else
		usage();
	if (fflush(stdout) || ferror(stdout))
		err(EXIT_ERROR, "standard output");
	return status;
}
