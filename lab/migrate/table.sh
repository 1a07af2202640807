#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the table of `make migrate` from what guest and hosts printed, a column a run.
#
#	lab/migrate/table.sh RUN...
#
# RUN is a directory with 1 and 2, the logs of the two hosts, and the file title.

set -euo pipefail

rows=(
	'clock against TSC, a trip, median'	ns	moved	median
	'                           worst'	ns	moved	worst
	'sum over all trips'			ns	sum	last
	'largest step that the guest saw'	ns	step	worst
	'timers fired early by up to'		ns	early	worst
	'CLOCK_MONOTONIC went back'		times	back	worst
	'readings are within'			ns	bracket	worst
	'downtime, median'			ms	downtime median
	'          worst'			ms	downtime worst
)

main() {
	local run i

	(($# > 0)) || { echo "usage: lab/migrate/table.sh RUN..." >&2; exit 2; }
	echo
	echo "A Linux guest with kvm-clock and 2 vCPUs, $(trips "$1") live migrations between two"
	echo "emulated hosts. By the guest's own measurement, but for the downtime."
	echo
	printf '%-43s' ''
	for run; do printf '%12s' "$(sed -n 1p "$run/title")"; done
	printf '\n%-43s' ''
	for run; do printf '%12s' "$(sed -n 2p "$run/title")"; done
	echo
	for ((i = 0; i < ${#rows[@]}; i += 4)); do
		printf '%-36s%7s' "${rows[i]}" "${rows[i + 1]}"
		for run; do printf '%12s' "$(cell "$run" "${rows[@]:i + 2:2}")"; done
		echo
	done
	echo
}

# The lines of both hosts; the trips are numbered, so their order is known.
lines() {
	cat "$1"/*/hop.log
}

trips() {
	lines "$1" | grep -c '^measured [1-9]'
}

# values RUN WORD: what follows the word, a line a trip.
values() {
	lines "$1" | awk -v word="$2" '
		word == "downtime" && $1 == word { print $2 }
		$1 == "measured" && $2 > 0 {
			for (i = 3; i < NF; i++)
				if ($i == word) print $2, $(i + 1)
		}' | sort -n | awk '{ print $NF }'
}

cell() {
	case $3 in
	last)	values "$1" "$2" | tail -n 1 ;;
	worst)	values "$1" "$2" | tr -d - | sort -n | tail -n 1 ;;
	median)	values "$1" "$2" | tr -d - | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' ;;
	esac
}

main "$@"
