// SPDX-License-Identifier: GPL-2.0
/*
 * What KVM_SET_TSC_KHZ and KVM_SET_CLOCK_GUEST would say, from what two hosts have.
 */
#include <stdarg.h>
#include <stdio.h>

#include "host.h"

enum tsc { TSC_NATIVE, TSC_SCALED, TSC_EMULATED, TSC_IMPOSSIBLE };

static enum fit worst;

/* Print a reason, and what to change. */
static void __attribute__((format(printf, 2, 3))) reason(enum fit fit, const char *format, ...)
{
	va_list args;

	if (fit > worst)
		worst = fit;
	fputs("- ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

/* As KVM rounds. */
static uint32_t adjust(uint32_t khz, int64_t ppm)
{
	return khz * (1000000 + ppm) / 1000000;
}

static bool is_tolerated(const struct host *host, uint32_t khz, uint32_t of)
{
	return khz >= adjust(of, -(int64_t)host->tsc_tolerance_ppm) &&
	       khz <= adjust(of, host->tsc_tolerance_ppm);
}

/* Set *@khz, which a VM asks for, to what its TSC really runs at. */
static enum tsc provide(const struct host *host, uint32_t *khz)
{
	if (is_tolerated(host, *khz, host->tsc_khz)) {
		*khz = host->tsc_khz;
		return TSC_NATIVE;
	}
	if (host->tsc_scaling)
		return TSC_SCALED;
	return *khz > host->tsc_khz ? TSC_EMULATED : TSC_IMPOSSIBLE;
}

static void check_host(const struct host *host, enum tsc tsc, uint32_t guest_khz)
{
	if (tsc == TSC_IMPOSSIBLE)
		reason(FIT_IMPOSSIBLE, "%s can't scale its TSC of %u kHz down to %u kHz: create the guest "
			"with a rate that both hosts have, the lower one", host->name, host->tsc_khz,
			guest_khz);
	if (tsc == TSC_EMULATED)
		reason(FIT_VALUE, "%s can't scale its TSC of %u kHz up to %u kHz, and emulates it: create "
			"the guest with a lower rate", host->name, host->tsc_khz, guest_khz);
	if (!host->clock_guest)
		reason(FIT_VALUE, "%s has no KVM_CAP_CLOCK_GUEST: update its kernel", host->name);
	if (!host->master_clock)
		reason(FIT_VALUE, "%s has no master clock, its clocksource is %s: make it tsc, and see in "
			"the kernel's log why it is not", host->name, host->clocksource);
}

static void check_rates(const struct host *b, uint32_t khz_a, uint32_t khz_b)
{
	double ppm = (khz_b / (double)khz_a - 1) * 1000000;

	if (khz_a == khz_b)
		return;
	if (is_tolerated(b, khz_a, khz_b))
		reason(FIT_TOLERANCE, "on %s TSC and clock run %.2f ppm %s, within its tolerance of %u ppm: "
			"no action needed", b->name, ppm < 0 ? -ppm : ppm,
			ppm < 0 ? "slow" : "fast", b->tsc_tolerance_ppm);
	else
		reason(FIT_VALUE, "the TSC runs at %u kHz and on %s at %u kHz, %.0f ppm apart where %u are "
			"tolerated: create the guest with a rate that is scaled on both hosts", khz_a,
			b->name, khz_b, ppm < 0 ? -ppm : ppm, b->tsc_tolerance_ppm);
}

static void note_secure_tsc(const struct host *a, const struct host *b)
{
	if (!a->secure_tsc && !b->secure_tsc)
		return;
	if (a->secure_tsc && b->secure_tsc)
		puts("Guests with Secure TSC: value only, as KVM does not control their TSC.");
	else
		printf("Guests with Secure TSC: impossible, as %s does not support it.\n",
		       a->secure_tsc ? b->name : a->name);
}

enum fit compare_hosts(const struct host *a, const struct host *b, uint32_t guest_khz)
{
	static const char *const words[] = {
		"exact", "exact within the tolerance", "value only", "impossible",
	};
	uint32_t khz_a = guest_khz ? guest_khz : a->tsc_khz, khz_b = khz_a, khz = khz_a;
	enum tsc tsc_a = provide(a, &khz_a), tsc_b = provide(b, &khz_b);

	worst = FIT_EXACT;
	check_host(a, tsc_a, khz);
	check_host(b, tsc_b, khz);
	if (tsc_a < TSC_EMULATED && tsc_b < TSC_EMULATED)
		check_rates(b, khz_a, khz_b);
	if (worst == FIT_EXACT)
		printf("- the TSC runs at %u kHz on both hosts\n", khz_a);
	printf("A guest of %u kHz from %s to %s: %s.\n", khz, a->name, b->name, words[worst]);
	note_secure_tsc(a, b);
	return worst;
}
