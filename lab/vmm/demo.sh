#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the demo on Debian's kernel as distributed and with the series, both at a time, print
# the tables and make the plot. Fails when the new ioctls leave anything but 0 ns.
#
#	lab/vmm/demo.sh BASE
#
# Leaves out/demo/drift.svg, and what it is made of in drift.dat. Goes on with 6.12 if BASE's
# source cannot be had.

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
		echo "kernel $1, $where:"
		awk -f "$lab/vmm/demo.awk" "${logs[@]}"
	} | tee "$out/demo/table-$1.txt"
	plot "kernel $1, $where"
}

# plot WHAT-WAS-MEASURED: the number of restores and the error, without and with the series
plot() {
	paste <(restores "${logs[0]}") <(restores "${logs[1]}") >"$out/demo/drift.dat"
	gnuplot -c "$lab/vmm/drift.gnuplot" "$1" "$out/demo"/drift.{dat,svg}
	echo "All of them, as a plot: out/demo/drift.svg"
}

restores() {
	sed -n 's/^restore [A-Z_]* //p' "$1"
}

main "$@"
