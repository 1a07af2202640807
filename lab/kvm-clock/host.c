// SPDX-License-Identifier: GPL-2.0
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <linux/kvm.h>

#include "host.h"
#include "vm_clock.h"

#define CLOCKSOURCE	"/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define TOLERANCE	"/sys/module/kvm/parameters/tsc_tolerance_ppm"
#define FORMAT		1			/* of the JSON */
#define SEV_SECURE_TSC	(1ull << 9)		/* of KVM_X86_SEV_VMSA_FEATURES */

/* The first line of a file, empty if it can't be read. */
static void read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");

	line[0] = '\0';
	if (!file)
		return;
	if (fgets(line, size, file))
		line[strcspn(line, "\n")] = '\0';
	fclose(file);
}

/* Of the first CPU: KVM needs all to be alike. */
static void read_cpu(struct host *host)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[8192], *value;

	while (file && fgets(line, sizeof(line), file) && line[0] != '\n') {
		line[strcspn(line, "\n")] = '\0';
		value = strchr(line, ':');
		if (!value)
			continue;
		value += value[1] ? 2 : 1;
		if (!strncmp(line, "model name", 10))
			snprintf(host->cpu, sizeof(host->cpu), "%.63s", value);
		if (strncmp(line, "flags", 5))
			continue;
		host->constant_tsc = strstr(value, "constant_tsc");
		host->nonstop_tsc = strstr(value, "nonstop_tsc");
	}
	if (file)
		fclose(file);
}

static bool has_secure_tsc(int kvm)
{
	uint64_t features = 0;
#ifdef KVM_X86_SEV_VMSA_FEATURES
	struct kvm_device_attr attr = {
		.group = KVM_X86_GRP_SEV,
		.attr = KVM_X86_SEV_VMSA_FEATURES,
		.addr = (uintptr_t)&features,
	};

	if (ioctl(kvm, KVM_GET_DEVICE_ATTR, &attr) < 0)
		return false;
#else
	(void)kvm;
#endif
	return features & SEV_SECURE_TSC;
}

/* Save the clock of a new VM, and see what restoring it gives. */
static void try_vm(struct host *host, int vm, int vcpu)
{
	uint8_t state[sizeof(struct vm_clock_state) + sizeof(struct vm_clock_vcpu)];
	struct vm_clock_state header;
	struct vm_clock_result result = { .reason = "KVM has no KVM_VCPU_TSC_OFFSET." };

	if (vm_clock_save(vm, &vcpu, 1, state, sizeof(state)) == 0 &&
	    vm_clock_restore(vm, &vcpu, 1, state, sizeof(state), VM_CLOCK_AUTO, &result) == 0) {
		memcpy(&header, state, sizeof(header));
		host->tsc_frac_bits = header.tsc_frac_bits;
		host->vm_exact = result.outcome == VM_CLOCK_EXACT;
	}
	snprintf(host->vm_reason, sizeof(host->vm_reason), "%s", host->clock_guest ? result.reason :
		 "KVM has no KVM_CAP_CLOCK_GUEST.");
}

static void read_kvm(struct host *host)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, khz;
	struct kvm_clock_data clock = { 0 };

	if (kvm < 0)
		err(EXIT_ERROR, "/dev/kvm can't be opened (is KVM loaded, and are you in group kvm?)");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		err(EXIT_ERROR, "KVM_CREATE_VM");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		err(EXIT_ERROR, "KVM_CREATE_VCPU");
	khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);	/* Linux 5.18 and later have it for the VM */
	if (khz < 0 || ioctl(vm, KVM_GET_CLOCK, &clock) < 0)
		err(EXIT_ERROR, "KVM_GET_TSC_KHZ or KVM_GET_CLOCK (is the TSC unstable?)");
	host->tsc_khz = khz;
	host->clock_guest = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) > 0;
	host->tsc_scaling = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;
	/* Without the series, a VM that has not run has none. */
	host->master_clock = host->clock_guest ? !!(clock.flags & KVM_CLOCK_TSC_STABLE) :
			     !strcmp(host->clocksource, "tsc");
	host->secure_tsc = has_secure_tsc(kvm);
	try_vm(host, vm, vcpu);
	close(vcpu);
	close(vm);
	close(kvm);
}

void host_read(struct host *host)
{
	struct utsname name;
	char text[32];

	*host = (struct host){ 0 };
	if (uname(&name) == 0) {
		memcpy(host->name, name.nodename, sizeof(host->name) - 1);
		memcpy(host->kernel, name.release, sizeof(host->kernel) - 1);
	}
	read_cpu(host);
	read_line(CLOCKSOURCE, host->clocksource, sizeof(host->clocksource));
	read_line(TOLERANCE, text, sizeof(text));
	host->tsc_tolerance_ppm = *text ? strtoul(text, NULL, 10) : 250;
	read_kvm(host);
}

static const char *yes_no(bool value)
{
	return value ? "yes" : "no";
}

void host_print(const struct host *host)
{
	printf("host                 %s, %s\n", host->name, host->cpu);
	printf("kernel               %s\n", host->kernel);
	printf("KVM_CAP_CLOCK_GUEST  %s\n", yes_no(host->clock_guest));
	printf("master clock         %s\n", yes_no(host->master_clock));
	printf("clocksource          %s\n", host->clocksource);
	printf("TSC                  %u kHz, constant: %s, invariant: %s\n", host->tsc_khz,
	       yes_no(host->constant_tsc), yes_no(host->constant_tsc && host->nonstop_tsc));
	printf("TSC scaling          %s", yes_no(host->tsc_scaling));
	printf(host->tsc_frac_bits ? ", %u fraction bits\n" : "\n", host->tsc_frac_bits);
	printf("tolerance            %u ppm\n", host->tsc_tolerance_ppm);
	printf("Secure TSC           %s\n", yes_no(host->secure_tsc));
	printf("a VM here gets       %s: %s\n", host->vm_exact ? "an exact clock" : "a value only",
	       host->vm_reason);
}

void host_print_json(const struct host *host)
{
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:i, s:i, s:i, s:s}",
		"format", FORMAT, "name", host->name, "kernel", host->kernel, "cpu", host->cpu,
		"clocksource", host->clocksource, "clock_guest", host->clock_guest,
		"master_clock", host->master_clock, "constant_tsc", host->constant_tsc,
		"nonstop_tsc", host->nonstop_tsc, "tsc_scaling", host->tsc_scaling,
		"secure_tsc", host->secure_tsc, "vm_exact", host->vm_exact,
		"tsc_khz", (int)host->tsc_khz, "tsc_frac_bits", (int)host->tsc_frac_bits,
		"tsc_tolerance_ppm", (int)host->tsc_tolerance_ppm, "vm_reason", host->vm_reason);

	if (!json || json_dumpf(json, stdout, JSON_INDENT(2)) < 0)
		errx(EXIT_ERROR, "the JSON can't be written");
	putchar('\n');
	json_decref(json);
}

void host_load(const char *path, struct host *host)
{
	const char *name, *clocksource;
	int clock_guest, master_clock, scaling, secure, khz, ppm, format;
	json_error_t error;
	json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);

	if (!json)
		errx(EXIT_ERROR, "%s:%d: %s: is this of `kvm-clock host --json`?", path, error.line,
		     error.text);
	if (json_unpack_ex(json, &error, 0, "{s:i, s:s, s:s, s:b, s:b, s:b, s:b, s:i, s:i}",
			   "format", &format, "name", &name, "clocksource", &clocksource,
			   "clock_guest", &clock_guest, "master_clock", &master_clock,
			   "tsc_scaling", &scaling, "secure_tsc", &secure, "tsc_khz", &khz,
			   "tsc_tolerance_ppm", &ppm) < 0)
		errx(EXIT_ERROR, "%s: %s: is this of `kvm-clock host --json`?", path, error.text);
	if (format != FORMAT)
		errx(EXIT_ERROR, "%s: format %d is not %d: use one version of kvm-clock on both hosts",
		     path, format, FORMAT);
	if (khz <= 0 || ppm < 0 || ppm > 1000000)
		errx(EXIT_ERROR, "%s: tsc_khz %d or tsc_tolerance_ppm %d is out of range", path, khz, ppm);
	*host = (struct host){
		.clock_guest = clock_guest,
		.master_clock = master_clock,
		.tsc_scaling = scaling,
		.secure_tsc = secure,
		.tsc_khz = khz,
		.tsc_tolerance_ppm = ppm,
	};
	snprintf(host->name, sizeof(host->name), "%s", name);
	snprintf(host->clocksource, sizeof(host->clocksource), "%s", clocksource);
	json_decref(json);
}
