#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the demo on Debian's kernel as distributed and with the series, both at a time, print
# the tables and make the plot. Fails when the new ioctls leave more than 1 ns, or
# anything after live updates in a row.
#
#	lab/vmm/demo.sh BASE
#
# Goes on with 6.12 if BASE's source cannot be had.

set -euo pipefail

lab=$(cd "$(dirname "$0")/.." && pwd)
other=6.12
out=${lab%/lab}/out

main() {
	local status=0

	(($# == 1)) || { echo "usage: lab/vmm/demo.sh BASE" >&2; exit 2; }
	"$lab/build" "$1" modules programs || status=$?
	case $status in
	0)	measure "$1" ;;
	3)	[[ $1 != "$other" ]] || exit 3
		printf '\n*** %s cannot be had from here: going on with %s ***\n\n' "$1" "$other"
		main "$other" ;;
	*)	exit "$status" ;;
	esac
}

measure() {
	local stock logs where='under emulation' status=0

	echo "demo $1: booting both kernels and measuring, about 40 s"
	"$lab/run" -b "$1" -k stock demo &
	stock=$!
	"$lab/run" -b "$1" demo || status=1
	wait "$stock" || status=1
	((status == 0)) || exit 1
	mkdir -p "$out/demo"
	logs=("$out/$1/log/demo-stock/demo.log" "$out/$1/log/demo/demo.log")
	! grep -q -e '-accel kvm' "$out/$1/log/demo/command" || where='on hardware'
	{
		"$lab/vmm/demo-table.sh" --check "${logs[@]}" &&
			"$lab/vmm/demo-drift.sh" "kernel $1, $where" "${logs[@]}" "$out/demo"
	} | tee "$out/demo/table-$1.txt"
}

main "$@"
