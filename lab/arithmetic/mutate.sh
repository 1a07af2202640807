#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test the checks of the arithmetic: break guest_clock.h or x86.c of a base's tree in
# every way below, and each time one of the checks has to fail.
#
#	lab/arithmetic/mutate.sh BASE
#
# Prints TAP. What is broken is left in out/BASE/arithmetic/mutants.

set -euo pipefail

. "$(dirname "$0")/compile.sh"

seed=1
cases=100000

# A name and the sed script that breaks both files so.
mutants=(
	# guest_clock_read
	read-delta-32-bits	'/_read(/,/^}/s/u64 delta/u32 delta/'
	read-delta-signed	'/_read(/,/^}/s/u64 delta/s64 delta/'
	read-delta-negated	'/_read(/,/^}/s/tsc - clock->tsc_timestamp/clock->tsc_timestamp - tsc/'
	read-shift-ignored	's/delta <<= clock->tsc_shift/delta <<= 0/'
	read-shift-right-less	's/delta >>= -clock->tsc_shift/& - 1/'
	read-shift-right-more	's/delta >>= -clock->tsc_shift/& + 1/'
	read-shift-after	's/delta >>= -clock->tsc_shift/delta >>= 0/; s/_mul, 32)/& >> (clock->tsc_shift < 0 ? -clock->tsc_shift : 0)/'
	read-product-64-bits	's/mul_u64_u32_shr(delta, \(.*\), 32)/(delta * \1 >> 32)/'
	read-product-31-bits	's/_mul, 32)/_mul, 31)/'
	read-round-up		's/mul_u64_u32_shr(.*)/& + 1/'
	read-time-ignored	's/return clock->system_time +/return/'
	# guest_clock_renew
	renew-nothing		's/if ((s64)periods < 0)/if (1)/'
	renew-ahead		's/if ((s64)periods < 0)/if (0)/'
	renew-ahead-32-bits	's/(s64)periods < 0/(s32)periods < 0/'
	renew-half-a-period	's/\(exponent = 32\)/\1 - 1/'
	renew-two-periods	's/\(exponent = 32\)/\1 + 1/'
	renew-at-the-tsc	's/periods << max(exponent, 0)/tsc - clock->tsc_timestamp/'
	renew-zeros-ignored	's/zeros = __ffs(.*);/zeros = 0;/'
	renew-zeros-not-in-ns	's/period_ns = clock->tsc_to_system_mul >> zeros/period_ns = clock->tsc_to_system_mul/'
	renew-shift-ignored	's/32 - zeros - clock->tsc_shift/32 - zeros/'
	renew-shift-negated	's/32 - zeros - clock->tsc_shift/32 - zeros + clock->tsc_shift/'
	renew-exponent-0-apart	's/exponent >= 0/exponent > 0/; s/period_ns <<= -exponent/& + !exponent/'
	renew-negative-ignored	's/period_ns <<= -exponent/;/'
	renew-periods-32-bits	's/+= periods \* period_ns/+= (u32)periods * period_ns/'
	renew-one-period	's/+= periods \* period_ns/+= period_ns/'
	renew-time-not-moved	'/system_time += periods/d'
	renew-only-time		'/tsc_timestamp += periods/d'
	renew-max-dropped	's/max(exponent, 0)/(exponent \& 31)/'
	renew-mul-reduced	's/clock->tsc_timestamp += periods/clock->tsc_to_system_mul >>= zeros, &/'
	renew-version-lost	's/clock->tsc_timestamp += periods/clock->version = 0, &/'
	renew-flags-lost	's/clock->tsc_timestamp += periods/clock->flags = 0, &/'
	# guest_clock_is_valid
	valid-mul-not-checked	's/return clock->tsc_to_system_mul >> 31 &&/return/'
	valid-mul-not-normal	's/return clock->tsc_to_system_mul >> 31 &&/return clock->tsc_to_system_mul >> 30 \&\&/'
	valid-low-not-checked	'/clock->tsc_shift >= -/d'
	valid-high-not-checked	'/clock->tsc_shift <= /d'
	valid-low-excluded	's/tsc_shift >= -GUEST/tsc_shift > -GUEST/'
	valid-high-excluded	's/tsc_shift <= GUEST/tsc_shift < GUEST/'
	valid-shift-32		's/\(MAX_SHIFT.*\)31/\132/'
	valid-flags-not-checked	'/clock->flags/d'
	valid-flag-not-allowed	's/ & ~PVCLOCK_TSC_STABLE_BIT//'
	valid-flag-allowed	's/~PVCLOCK_TSC_STABLE_BIT/~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED)/'
	valid-pad0-not-checked	's/!clock->pad0 && //'
	valid-pad-first		's/ && !clock->pad\[0\]//'
	valid-pad-last		's/ && !clock->pad\[1\]//'
	# guest_clock_has_rate
	rate-fast-not-refused	's/tsc_shift < -12/tsc_shift < -31/'
	rate-fast-refused	's/tsc_shift < -12/tsc_shift < -11/'
	rate-shifted		's/<<= 32 - /<<= 31 - /'
	rate-least-not-checked	's/scaled_khz >= .*/1 \&\&/'
	rate-least-excluded	's/scaled_khz >= /scaled_khz > /'
	rate-least-32-bits	's/(u64)min_khz/min_khz/'
	rate-greatest-no-check	's/scaled_khz < .*/1;/'
	rate-greatest-included	's/scaled_khz < /scaled_khz <= /'
	rate-greatest-not-whole	's/((u64)max_khz + 1)/(u64)max_khz/'
	rate-greatest-32-bits	's/((u64)max_khz + 1)/(max_khz + 1)/'
	# guest_clock_check
	check-rate-not-checked	's/!guest_clock_has_rate(.*))/0)/'
	check-bounds-swapped	's/(clock, min_khz, max_khz)/(clock, max_khz, min_khz)/'
	check-age-not-checked	's/delta > GUEST_CLOCK_MAX_AGE/0/'
	check-age-one-more	's/delta > GUEST_CLOCK_MAX_AGE/delta > GUEST_CLOCK_MAX_AGE + 1/'
	check-age-one-less	's/delta > GUEST_CLOCK_MAX_AGE/delta >= GUEST_CLOCK_MAX_AGE/'
	check-age-signed	's/delta > GUEST_CLOCK_MAX_AGE/(s64)delta > (s64)GUEST_CLOCK_MAX_AGE/'
	check-age-half		's/BIT_ULL(62)/BIT_ULL(61)/'
	check-no-overflow	's/clock->tsc_shift > 0 && delta >> (.*))$/0)/'
	check-overflow-one-more	's/delta >> (64 - clock/delta >> (63 - clock/'
	check-overflow-one-less	's/delta >> (64 - clock->tsc_shift)/(clock->tsc_shift > 1 ? delta >> (65 - clock->tsc_shift) : 0)/'
	check-value-not-checked	's/(s64)guest_clock_read(clock, tsc) < 0/0/'
	check-value-32-bits	's/(s64)guest_clock_read/(s32)guest_clock_read/'
	check-another-error	's/? -ERANGE/? -EINVAL/'
	check-no-error		's/return -ERANGE/return 0/'
	# kvm_get_pvclock_scale, kvm_scale_tsc
	scale-whole-hz		's/khz \* 1000ULL << 16/khz * 1000ULL/; s/NSEC_PER_SEC << 16/NSEC_PER_SEC/'
	scale-whole-khz		's/u64 hz = .*/u64 hz = kvm_scale_tsc(khz, ratio) * 1000 << 16;/'
	scale-one-side		's/(u64)NSEC_PER_SEC << 16/(u64)NSEC_PER_SEC << 15/'
	scale-ratio-ignored	's/if (ratio != kvm_caps.default_tsc_scaling_ratio)/if (0)/'
	scale-frac-bits		's/kvm_caps.tsc_scaling_ratio_frac_bits)/48)/'
	scale-31-bits		's/tps64 & 0xffffffff00000000ULL/tps64 \& 0xffffffff80000000ULL/; s/tps32 = (uint32_t)tps64/&/'
	scale-shift-not-counted	's/shift--;/;/'
	scale-shift-apart	's/pshift = shift/& + 1/'
	scale-product-64-bits	's/mul_u64_u64_shr(tsc, ratio, \(.*\));/tsc * ratio >> \1;/'
	# kvm_get_raw_clock_scale
	raw-two-not-taken	'/pmultiplier -= 2/d'
	raw-one-taken		's/pmultiplier -= 2/pmultiplier -= 1/'
	raw-two-added		's/pmultiplier -= 2/pmultiplier += 2/'
	raw-four-taken		's/pmultiplier -= 2/pmultiplier -= 4/'
	raw-ratio-ignored	's/kvm_scale_tsc(1ULL << (raw.shift + 16), ratio)/(1ULL << (raw.shift + 16))/'
	raw-shift-ignored	's/raw.shift + 16/16/'
	raw-no-fraction		's/raw.shift + 16/raw.shift/; s/(u64)raw.mult << 16/(u64)raw.mult/'
)

main() {
	(($# == 1)) || { echo "usage: lab/arithmetic/mutate.sh BASE" >&2; exit 2; }
	prepare "$1"
	mutated=$out/mutants
	rm -rf "$mutated"
	mkdir "$mutated"
	build_the_rest
	check_original
	run_all
	check_checks
	summary
}

# Only checks.c and scale.c include what is broken.
build_the_rest() {
	local file

	for file in oracle cases property; do
		compile "$out" gcc -O1 -c -o "$mutated/$file.o" "$here/$file.c"
	done
}

# build DIR: the program with the files that are there, whatever they have unused now.
build() {
	compile "$1" gcc -O1 -w -o "$1/property" "$here"/{checks,scale}.c \
		"$mutated"/{oracle,cases,property}.o -lgmp >"$1/build.log" 2>&1
}

# Else a check that always fails would catch everything.
check_original() {
	local dir=$mutated/none

	mkdir "$dir"
	cp "$out"/{guest_clock,x86-functions}.h "$dir"
	build "$dir" || die "the files do not compile: see $dir/build.log"
	"$dir/property" $seed $cases >"$dir/log" || die "the files as they are fail: see $dir/log"
}

# One at a time on each CPU.
run_all() {
	local i

	for ((i = 0; i < ${#mutants[@]}; i += 2)); do
		while (($(jobs -rp | wc -l) >= $(nproc))); do
			wait -n || :
		done
		try "${mutants[i]}" "${mutants[i + 1]}" &
	done
	wait
}

# try NAME SED-SCRIPT
try() {
	local dir=$mutated/$1 status=0 caught file

	mkdir "$dir"
	for file in guest_clock.h x86-functions.h; do
		sed "$2" "$out/$file" >"$dir/$file"
	done
	if cmp -s {"$out","$dir"}/guest_clock.h && cmp -s {"$out","$dir"}/x86-functions.h; then
		result 'not ok' "$1: changes nothing"
	elif ! build "$dir"; then
		result 'not ok' "$1: does not compile: see $dir/build.log"
	else
		timeout 60 "$dir/property" $seed $cases >"$dir/log" 2>&1 || status=$?
		caught=$(sed -n 's/^FAIL: //p' "$dir/log" | head -n 1)
		if ((status == 1)) && [[ $caught ]]; then
			result ok "$1: caught by $caught"
		else
			result 'not ok' "$1: survives (exit status $status): see $dir"
		fi
	fi
}

result() {
	echo "$1 - $2" | tee -a "$mutated/list"
}

# No check is idle: each was the first that noticed something.
check_checks() {
	local check

	sed -n 's/^check: \(.*\): .*/\1/p' "$mutated/none/log" | while read -r check; do
		grep -q "caught by $check$" "$mutated/list" ||
			result 'not ok' "check $check: catches nothing"
	done
}

summary() {
	local passed failed

	passed=$(grep -c '^ok ' "$mutated/list" || :)
	failed=$(grep -c '^not ok ' "$mutated/list" || :)
	echo "1..$((passed + failed))"
	((failed == 0 && passed == ${#mutants[@]} / 2))
}

main "$@"
