#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test `kvm-clock compare` on pairs of hosts as they are found in fleets, and on input that
# is none. Prints TAP.
#
#	lab/kvm-clock/compare-test.sh KVM-CLOCK

set -uo pipefail

results=0 failures=0

main() {
	(($# == 1)) || { echo "usage: lab/kvm-clock/compare-test.sh KVM-CLOCK" >&2; exit 2; }
	program=$1
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	cd "$dir" || exit
	test_pairs
	test_bad_input
	echo "1..$results"
	exit $((failures > 0))
}

# host NAME [KEY VALUE]...: a host of 2.6 GHz with the series and TSC scaling, changed.
host() {
	local name=$1
	declare -A value=(
		[format]=1 [name]="\"$1\"" [clocksource]='"tsc"' [clock_guest]=true [master_clock]=true
		[tsc_scaling]=true [secure_tsc]=false [tsc_khz]=2600000 [tsc_tolerance_ppm]=250
	)

	shift
	while (($# > 0)); do
		value[$1]=$2
		shift 2
	done
	for key in "${!value[@]}"; do
		echo "\"$key\": ${value[$key]}"
	done | paste -sd , | sed 's/.*/{&}/' >"$name.json"
}

# expect WHAT STATUS REGEX ARGUMENT...: `kvm-clock compare` says so.
expect() {
	local what=$1 status=$2 regex=$3 output got=0

	shift 3
	output=$("$program" compare "$@" 2>&1) || got=$?
	results=$((results + 1))
	if ((got == status)) && grep -qE -- "$regex" <<<"$output"; then
		echo "ok $results - $what"
	else
		failures=$((failures + 1))
		echo "not ok $results - $what: status $got, to be $status"
	fi
	echo "# ${output//$'\n'/$'\n# '}"
}

test_pairs() {
	host A
	host same
	expect "the same host again" 0 'exact\.' A.json same.json

	# KubeVirt gives all nodes of a cluster the lowest rate, which one has natively.
	host fast tsc_khz 2800000
	expect "native to scaled" 0 'A guest of 2600000 kHz from A to fast: exact\.' A.json fast.json --guest-khz 2600000
	expect "scaled to native" 0 'exact\.' fast.json A.json --guest-khz 2600000
	expect "scaled to scaled" 0 'exact\.' fast.json A.json --guest-khz 2000000
	host odd tsc_khz 2599998
	expect "native to scaled, the native rate not round" 1 'on fast TSC and clock run 0\.77 ppm fast' odd.json fast.json --guest-khz 2600000
	expect "scaled to native, the native rate not round" 1 'on odd TSC and clock run 0\.77 ppm slow' fast.json odd.json --guest-khz 2600000

	host next tsc_khz 2600001
	expect "1 kHz apart" 1 'on next TSC and clock run 0\.38 ppm fast' A.json next.json
	expect "1 kHz apart, the other way" 1 'on A TSC and clock run 0\.38 ppm slow' next.json A.json

	# KVM_SET_TSC_KHZ takes each for the guest's rate, but they are 400 ppm apart.
	host low tsc_khz 2599480 tsc_scaling false
	host high tsc_khz 2600520 tsc_scaling false
	expect "each within the tolerance, but not of each other" 2 '400 ppm apart where 250 are tolerated' \
		low.json high.json --guest-khz 2600000
	host wide tsc_khz 2600520 tsc_scaling false tsc_tolerance_ppm 500
	expect "with a larger tolerance" 1 'within its tolerance of 500 ppm' low.json wide.json --guest-khz 2600000

	host slow-native tsc_khz 2400000 tsc_scaling false
	host fast-native tsc_khz 2800000 tsc_scaling false
	expect "faster, and can't scale" 3 "can't scale its TSC of 2800000 kHz down to 2600000 kHz" A.json fast-native.json
	expect "slower, and can't scale" 2 "can't scale its TSC of 2400000 kHz up to 2600000 kHz" A.json slow-native.json
	expect "a rate that the source can't have" 3 "fast-native can't scale" fast-native.json A.json --guest-khz 2600000

	host hpet clocksource '"hpet"' master_clock false
	expect "clocksource hpet" 2 'hpet has no master clock, its clocksource is hpet: make it tsc' A.json hpet.json
	expect "clocksource hpet, on the source" 2 'its clocksource is hpet' hpet.json A.json
	host stock clock_guest false
	expect "without the series" 2 'stock has no KVM_CAP_CLOCK_GUEST: update its kernel' A.json stock.json
	expect "without the series, on the source" 2 'stock has no KVM_CAP_CLOCK_GUEST' stock.json A.json
	host both clock_guest false clocksource '"hpet"' master_clock false tsc_khz 2800000 tsc_scaling false
	expect "the worst counts" 3 'to both: impossible\.' A.json both.json

	host secure secure_tsc true
	expect "Secure TSC on both" 0 'Guests with Secure TSC: value only' secure.json secure.json
	expect "Secure TSC on one" 0 'Guests with Secure TSC: impossible, as A does not support it' secure.json A.json
}

test_bad_input() {
	expect "no file" 4 'nothing-such' A.json nothing-such.json
	echo '{' >cut.json
	expect "no JSON" 4 'is this of .kvm-clock host --json' A.json cut.json
	echo '[]' >list.json
	expect "another JSON" 4 'is this of' A.json list.json
	echo '{"format": 1}' >little.json
	expect "a key is missing" 4 'Object item not found: name' A.json little.json
	host text tsc_khz '"2600000"'
	expect "another type" 4 'Expected integer, got string' A.json text.json
	host zero tsc_khz 0
	expect "a rate of 0" 4 'out of range' A.json zero.json
	host later format 2
	expect "a later format" 4 'use one version of kvm-clock' A.json later.json
	expect "a rate that is none" 4 "'2.6' is not a number" A.json A.json --guest-khz 2.6
	expect "a negative rate" 4 "'-1' is not a number" A.json A.json --guest-khz -1
	expect "too few arguments" 4 '^usage: ' A.json
	expect "an unknown option" 4 '^usage: ' A.json A.json --khz 1
}

main "$@"
