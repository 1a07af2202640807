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
#	exact	the clock stayed the same function of the TSC, for the guest and for the
#		hosts, no reading contradicts that, no timer was early, and the guest's
#		kernel does not complain
#	moved	it did not
#	warned	a QEMU said that it could not save or restore the function; else none may
#
# No program may see the clock go back.

set -euo pipefail

# What the guest's kernel says about a clock that it does not trust, or that jumped.
complaints='clocksource: |[Tt]ime.*(jump|backward|went)|TSC.*(unstable|warp)'
complaints+='|soft lockup|rcu.*stall|Call Trace|BUG:|WARNING:'
# Emulated CPUs are slow: one sometimes is, when the other one wants to compare clocks.
slow='clocksource: Watchdog remote CPU [0-9]+ read timed out'

main() {
	local word warned=no

	(($# >= 2)) || { echo "usage: lab/migrate/check.sh RUN TRIPS [WORD...]" >&2; exit 2; }
	run=$1 trips=$2
	cat "$run"/*/hop.log >"$run/lines"
	check_measurements
	for word in "${@:3}"; do
		case $word in
		agree) check_agreement ;;
		exact) check_exact; check_hosts; check_complaints ;;
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

	awk '/^guest ready/ { booted = 1 } booted' "$run/lines" | grep -vE "$slow" |
		grep -E "^\[ *[0-9.]+\].*($complaints)" >"$run/bad" || :
	line=$(head -n 1 "$run/bad")
	[[ ! $line ]] || fail "the guest complains: $line"
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

# Move references to the first period of the TSC: those of one function, see
# guest_clock_renew(), are the same then.
to_first_period() {
	local tsc ns mul shift bits period_ns

	while read -r tsc ns mul shift; do
		bits=$((32 - shift)) period_ns=$mul
		while ((bits > 0 && period_ns % 2 == 0)); do
			bits=$((bits - 1)) period_ns=$((period_ns / 2))
		done
		echo "$((tsc % (1 << bits))) $((ns - (tsc >> bits) * period_ns)) $mul $shift"
	done
}

# What KVM_GET_CLOCK_GUEST said whenever a guest was stopped, on whichever host.
check_hosts() {
	local functions

	functions=$(sed -n 's/^kvmclock_save .* function //p' "$run/lines" | to_first_period | sort -u | wc -l)
	((functions == 1)) || fail "the hosts have seen $functions functions, not 1"
}

check_moved() {
	! grep -qE '^measured [1-9][0-9]* moved 0 ' "$run/lines" ||
		fail "a trip did not move the clock: the measurement cannot be right"
}

check_warning() {
	local warning

	warning=$(grep -m 1 'warning: kvmclock: ' "$run/lines" || :)
	case $1${warning:+ $warning} in
	yes) fail "QEMU does not warn" ;;
	'no '*) fail "QEMU warns: $warning" ;;
	esac
}

main "$@"
