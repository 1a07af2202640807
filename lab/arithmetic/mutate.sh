#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test the checks of the arithmetic: break guest_clock.h of a base's tree in every
# way below, and each time one of the checks has to fail.
#
#	lab/arithmetic/mutate.sh BASE
#
# Prints TAP. The broken headers are left in out/BASE/arithmetic/mutants.

set -euo pipefail

# shellcheck source=lab/arithmetic/compile.sh
. "$(dirname "$0")/compile.sh"

seed=1
cases=100000

# A name and the sed script that breaks the header so.
mutants=(
	# guest_clock_read
	delta-32-bits		's/u64 delta/u32 delta/'
	delta-signed		's/u64 delta/s64 delta/'
	delta-negated		's/tsc - clock->tsc_timestamp;/clock->tsc_timestamp - tsc;/'
	shift-ignored		's/shift < 0)/shift < -31)/; s/delta <<= .*/;/'
	shift-right-one-less	's/delta >>= -clock->tsc_shift/& - 1/'
	shift-right-one-more	's/delta >>= -clock->tsc_shift/& + 1/'
	shift-left-one-less	's/delta <<= clock->tsc_shift/& - (clock->tsc_shift > 0)/'
	shift-after-product	's/delta >>= -clock->tsc_shift/delta >>= 0/; s/mul >> 32/& >> (clock->tsc_shift < 0 ? -clock->tsc_shift : 0)/'
	product-64-bits		's/([_a-z ]*128)delta/delta/'
	product-signed		's/([_a-z ]*128)delta/(__int128)(s64)delta/'
	round-up		's/mul >> 32/mul + 0xffffffff >> 32/'
	round-to-nearest	's/mul >> 32/mul + 0x80000000 >> 32/'
	low-half-dropped	's/([_a-z ]*128)delta \* \(clock->tsc_to_system_mul\) >> 32/(delta >> 32) * \1/'
	time-ignored		's/return clock->system_time +/return/'
	# guest_clock_set_rate
	time-not-moved		'/clock->system_time = /d'
	reference-not-moved	'/clock->tsc_timestamp = tsc;/d'
	reference-moved-first	'/clock->system_time = guest/{h;d}; /clock->tsc_timestamp = tsc;/G'
	mul-not-set		'/clock->tsc_to_system_mul = mul;/d'
	shift-not-set		'/clock->tsc_shift = shift;/d'
	# guest_clock_is_valid
	mul-not-checked		's/return clock->tsc_to_system_mul &&/return/'
	low-shift-not-checked	'/clock->tsc_shift >= -/d'
	high-shift-not-checked	'/clock->tsc_shift <= /d'
	low-shift-excluded	's/tsc_shift >= -GUEST/tsc_shift > -GUEST/'
	high-shift-excluded	's/tsc_shift <= GUEST/tsc_shift < GUEST/'
	largest-shift-32	's/\(MAX_SHIFT.*\)31/\132/'
	flags-not-checked	'/clock->flags/d'
	flag-not-allowed	's/ & ~PVCLOCK_TSC_STABLE_BIT//'
	another-flag-allowed	's/~PVCLOCK_TSC_STABLE_BIT/~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED)/'
	pad0-not-checked	's/!clock->pad0 && //'
	pad-not-checked-first	's/!clock->pad\[0\] && //'
	pad-not-checked-last	's/ && !clock->pad\[1\]//'
	# guest_clock_has_rate
	rate-shifted		's/<<= 32 - /<<= 31 - /'
	rate-64-bits		's/[_a-z ]*128 scaled/u64 scaled/'
	least-not-checked	's/scaled_khz >= .*/1 \&\&/'
	least-excluded		's/scaled_khz >= /scaled_khz > /'
	least-32-bits		's/(u64)min_khz/min_khz/'
	greatest-not-checked	's/scaled_khz < .*/1;/'
	greatest-included-twice	's/scaled_khz < /scaled_khz <= /'
	greatest-not-whole	's/((u64)max_khz + 1)/(u64)max_khz/'
	greatest-32-bits	's/((u64)max_khz + 1)/(max_khz + 1)/'
	bounds-swapped-inside	's/(u64)min_khz/(u64)MAX_khz/; s/(u64)max_khz/(u64)min_khz/; s/MAX_khz/max_khz/'
	# guest_clock_restore
	rate-not-checked	's/!guest_clock_has_rate(.*))/0)/'
	bounds-swapped		's/(clock, min_khz, max_khz)/(clock, max_khz, min_khz)/'
	ahead-not-checked	's/(s64)(tsc - clock->tsc_timestamp) < 0/0/'
	ahead-not-wrapped	's/(s64)(tsc - clock->tsc_timestamp) < 0/tsc < clock->tsc_timestamp/'
	ahead-without-farthest	's/(s64)(tsc - clock->tsc_timestamp) < 0/(s64)(clock->tsc_timestamp - tsc) > 0/'
	ahead-32-bits		's/(s64)(tsc - clock/(s32)(tsc - clock/'
	at-the-tsc-is-ahead	's/\(tsc_timestamp) <\) 0/\1= 0/'
	another-error		's/return -ERANGE/return -EINVAL/'
	no-error		's/return -ERANGE/return 0/'
	changed-on-error	's/return -ERANGE/return clock->version++, -ERANGE/'
	moved-before-error	's/if ((s64)/guest_clock_set_rate(clock, clock->tsc_timestamp, mul, shift);\n\t&/'
	ahead-at-equal-rate	's/if ((s64)/if (clock->tsc_to_system_mul != mul \&\& (s64)/'
	ahead-at-other-rate	's/if ((s64)/if (clock->tsc_to_system_mul == mul \&\& (s64)/'
	always-moved		's/if (clock->tsc_to_system_mul == mul .*)/if (0)/'
	never-moved		's/if (clock->tsc_to_system_mul == mul .*)/if (1)/'
	moved-at-equal-rate	's/\treturn 0/\treturn guest_clock_set_rate(clock, tsc, mul, shift), 0/'
	kept-at-other-rate	'/^\tguest_clock_set_rate(clock/d'
	equal-rate-not-enough	's/clock->tsc_shift == shift/& \&\& guest_clock_has_rate(clock, min_khz, max_khz)/'
	mul-not-compared	's/clock->tsc_to_system_mul == mul && //'
	shift-not-compared	's/ && clock->tsc_shift == shift//'
	one-equal-is-enough	's/== mul &&/== mul ||/'
	version-lost		's/return 0/return clock->version = 0, 0/'
)

main() {
	(($# == 1)) || { echo "usage: lab/arithmetic/mutate.sh BASE" >&2; exit 2; }
	prepare "$1"
	header=$tree/arch/x86/kvm/guest_clock.h
	rm -rf "$out/mutants"
	mkdir "$out/mutants"
	build_the_rest
	check_original
	run_all
	check_checks
	summary
}

# Only checks.c includes the header.
build_the_rest() {
	local file

	for file in oracle cases property; do
		compile gcc -O1 -c -o "$out/mutants/$file.o" "$here/$file.c"
	done
}

# build DIR: the program with the header that is there, whatever it has unused now.
build() {
	compile gcc -O1 -w -iquote "$1" -o "$1/property" "$here/checks.c" \
		"$out"/mutants/{oracle,cases,property}.o -lgmp >"$1/build.log" 2>&1
}

# Else a check that always fails would catch everything.
check_original() {
	mkdir "$out/mutants/none"
	cp "$header" "$out/mutants/none"
	build "$out/mutants/none" || die "the header does not compile: see $out/mutants/none/build.log"
	"$out/mutants/none/property" $seed $cases >"$out/mutants/none/log" ||
		die "the header as it is fails: see $out/mutants/none/log"
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
	local dir=$out/mutants/$1 status=0 caught

	mkdir "$dir"
	sed "$2" "$header" >"$dir/guest_clock.h"
	if cmp -s "$header" "$dir/guest_clock.h"; then
		result 'not ok' "$1: changes nothing in the header"
	elif ! build "$dir"; then
		result 'not ok' "$1: does not compile: see $dir/build.log"
	else
		"$dir/property" $seed $cases >"$dir/log" 2>&1 || status=$?
		caught=$(sed -n 's/^FAIL: //p' "$dir/log" | head -n 1)
		if ((status == 1)) && [[ $caught ]]; then
			result ok "$1: caught by $caught"
		else
			result 'not ok' "$1: survives (exit status $status): see $dir"
		fi
	fi
}

result() {
	echo "$1 - $2" | tee -a "$out/mutants/list"
}

# No check is idle: each was the first that noticed something.
check_checks() {
	local check

	sed -n 's/^check: \(.*\): .*/\1/p' "$out/mutants/none/log" | while read -r check; do
		grep -q "caught by $check$" "$out/mutants/list" ||
			result 'not ok' "check $check: catches nothing"
	done
}

summary() {
	local passed failed

	passed=$(grep -c '^ok ' "$out/mutants/list" || :)
	failed=$(grep -c '^not ok ' "$out/mutants/list" || :)
	echo "1..$((passed + failed))"
	((failed == 0 && passed == ${#mutants[@]} / 2))
}

main "$@"
