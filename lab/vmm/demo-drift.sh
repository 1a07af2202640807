#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Show how the errors of live updates in a row add up, from what lab/vmm/demo.c
# printed on both kernels: a table of some, and a plot of all.
#
#	lab/vmm/demo-drift.sh WHAT-WAS-MEASURED UNPATCHED.log PATCHED.log DIR
#
# Leaves DIR/drift.svg, and what it is made of in DIR/drift.dat. Fails when the
# new ioctls leave any error, or when a figure is missing.

set -euo pipefail

vmm=$(cd "$(dirname "$0")" && pwd)
hops=100	# HOPS of demo.c

main() {
	(($# == 4)) || { echo "usage: lab/vmm/demo-drift.sh WHAT-WAS-MEASURED UNPATCHED.log PATCHED.log DIR" >&2; exit 2; }
	old=$(errors KVM_SET_CLOCK "$2")
	new=$(errors KVM_SET_CLOCK_GUEST "$3")
	data=$4/drift.dat plot=$4/drift.svg
	print_data >"$data.new"
	gnuplot -c "$vmm/drift.gnuplot" "$1" "$data.new" "$plot.new"
	mv "$data.new" "$data"
	mv "$plot.new" "$plot"
	print_table
	check_errors
}

# errors METHOD LOG: a line for each live update, its number and the error after it
errors() {
	awk -v method="$1" -v last="$hops" '
		$1 == "hop" && $2 == method && $3 == n + 1 { n = $3; print $3, $4 }
		END { if (n != last) { print "demo: " FILENAME ": " n + 0 " of " last " errors of " method >"/dev/stderr"; exit 1 } }' "$2"
}

print_data() {
	echo "# live updates, error with KVM_SET_CLOCK, error with KVM_SET_CLOCK_GUEST in ns"
	paste -d ' ' <(echo "$old") <(cut -d ' ' -f 2 <<<"$new")
}

print_table() {
	cat <<-E
	Error after so many live updates in a row, each into a new VM, in ns:

	                                               1        10       100
	unpatched       KVM_SET_CLOCK          $(cells "$old")
	with the series KVM_SET_CLOCK_GUEST    $(cells "$new")

	All of them, as a plot: ${plot#"$PWD/"}

	E
}

cells() {
	awk '{ error[$1] = $2 } END { printf "%9d %9d %9d", error[1], error[10], error[100] }' <<<"$1"
}

# The restored function is the one that was saved: the error is 0, however often.
check_errors() {
	awk '$2 != 0 { print "demo: after " $1 " live updates KVM_SET_CLOCK_GUEST is off by " $2 " ns"; exit 1 }' <<<"$new"
}

main "$@"
