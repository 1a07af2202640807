#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the table of `make demo` from what lab/vmm/demo.c printed on both kernels.
#
#	lab/vmm/demo-table.sh UNPATCHED.log PATCHED.log
#
# With --check, fail when the new ioctls leave more than 1 ns, or when a figure
# is missing: a table without figures proves nothing.

set -euo pipefail

main() {
	local check=

	[[ ${1-} != --check ]] || { check=1; shift; }
	(($# == 2)) || { echo "usage: lab/vmm/demo-table.sh [--check] UNPATCHED.log PATCHED.log" >&2; exit 2; }
	print_table "$1" "$2"
	[[ ! $check ]] || check_errors "$2"
}

print_table() {
	cat <<-E

	Error of the guest's clock against its TSC, in ns: median and worst of
	$(trials "$2") trials each. Measured on the booted kernels, under emulation
	unless the hardware could run it.

	                             KVM_SET_CLOCK   clock update of a     KVM_SET_CLOCK_GUEST
	                                             VM that ran for 3 s
	                              median   worst    median   worst    median   worst
	E
	print_rows "unpatched" "$1"
	print_rows "with the series" "$2"
	echo
}

print_rows() {
	local event

	for event in live-update migration; do
		printf '%-15s %-11s  %s  %s  %s\n' "$1" "${event/-/ }" \
			"$(cells "$2" $event KVM_SET_CLOCK)" \
			"$(cells "$2" $event clock-update)" \
			"$(cells "$2" $event KVM_SET_CLOCK_GUEST)"
	done
}

# A result's median and worst, or dashes where the kernel has no such ioctl.
cells() {
	awk -v event="$2" -v method="$3" '
		$1 == "result" && $2 == event && $3 == method { median = $5; worst = $6 }
		END { printf "%8s%8s", median == "" ? "-" : median, worst == "" ? "-" : worst }' "$1"
}

trials() {
	awk '$1 == "result" { print $4; exit }' "$1"
}

check_errors() {
	awk '
		$1 == "result" && $3 == "KVM_SET_CLOCK_GUEST" { n++; if ($6 > 1) bad = bad " " $2 ": " $6 " ns" }
		END {
			if (n != 2) { print "demo: " n + 0 " of 2 results of KVM_SET_CLOCK_GUEST"; exit 1 }
			if (bad) { print "demo: KVM_SET_CLOCK_GUEST is off by more than 1 ns:" bad; exit 1 }
		}' "$1"
}

main "$@"
