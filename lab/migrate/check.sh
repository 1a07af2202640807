#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Check what a guest said that has moved.
#
#	lab/migrate/check.sh RUN TRIPS [WORD...]
#
# RUN is a directory with 1 and 2, the logs of the two hosts. With each WORD:
#
#	agree	what the guest reads and the function in its page agree
#	exact	the clock stayed the same function of the TSC, no reading contradicts
#		that, and no timer was early
#	moved	it did not
#	warned	a QEMU said that it could not save or restore the function; else none may
#
# The guest's kernel may not complain, and no program may see the clock go back.

set -euo pipefail

# What the guest's kernel says about a clock that it does not trust, or that jumped,
# after it was booted: under emulation it sometimes takes a CPU for too slow then.
complaints='clocksource: |[Tt]ime.*(jump|backward|went)|soft lockup|rcu.*stall|hrtimer: interrupt|TSC.*(unstable|warp)|Call Trace|BUG:|WARNING:'

main() {
	local word warned=no

	(($# >= 2)) || { echo "usage: lab/migrate/check.sh RUN TRIPS [WORD...]" >&2; exit 2; }
	run=$1 trips=$2
	cat "$run"/*/hop.log >"$run/lines"
	check_measurements
	check_complaints
	for word in "${@:3}"; do
		case $word in
		agree) check_agreement ;;
		exact) check_exact ;;
		moved) check_moved ;;
		warned) warned=yes ;;
		*) fail "'$word' is nothing to check" ;;
		esac
	done
	check_warning "$warned"
}

fail() {
	echo "migrate: ${run##*/}: FAIL: $*"
	echo "migrate: ${run##*/}: logs are in $run"
	exit 1
}

check_measurements() {
	awk -v trips="$trips" '
		$1 != "measured" { next }
		{ seen[$2] = 1 }
		/ back [1-9]/ { print "CLOCK_MONOTONIC went back on trip " $2 }
		END {
			for (i = 0; i <= trips; i++)
				if (!(i in seen)) print "no measurement after trip " i
		}' "$run/lines" >"$run/bad"
	none_bad
}

none_bad() {
	[[ ! -s $run/bad ]] || fail "$(head -n 1 "$run/bad")"
}

# Whatever the clock does: both are a measurement of it.
check_agreement() {
	awk '$1 == "measured" {
		for (i = 3; i < NF; i++) {
			if ($i == "sum") sum = $(i + 1)
			if ($i == "reads") { low = $(i + 1); high = $(i + 2) }
		}
		if (low > sum || high < sum)
			print "after trip " $2 " the clock reads " low " to " high " ns, the function says " sum
	}' "$run/lines" >"$run/bad"
	none_bad
}

check_complaints() {
	local line

	line=$(sed '/^\[/{1,/^guest ready/d}' "$run/lines" | grep -E -m 1 "^\[ *[0-9.]+\].*($complaints)") || return 0
	fail "the guest complains: $line"
}

check_exact() {
	awk '$1 == "measured" {
		for (i = 3; i < NF; i++)
			if ($i ~ /^(moved|ever|sum|cpus|step|early)$/ && $(i + 1) != 0)
				print "after trip " $2 ": " $i " " $(i + 1)
		if ($NF % 2 != 1)
			print "after trip " $2 ": no PVCLOCK_TSC_STABLE_BIT"
	}' "$run/lines" >"$run/bad"
	none_bad
}

check_moved() {
	! grep -qE '^measured [1-9][0-9]* moved 0 ' "$run/lines" ||
		fail "a trip did not move the clock: the measurement cannot be right"
}

check_warning() {
	local found=no

	! grep -q 'warning: kvmclock: ' "$run/lines" || found=yes
	[[ $found == "$1" ]] || fail "QEMU $([[ $1 == yes ]] && echo 'does not warn' || echo "warns: $(grep -m 1 'warning: kvmclock: ' "$run/lines")")"
}

main "$@"
