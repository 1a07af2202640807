#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the demo on the unpatched and on the patched kernel, both at a time, print
# the tables and make the plot. Fails when the new ioctls leave more than 1 ns, or
# anything after live updates in a row.
#
#	lab/demo/run.sh BASE

set -euo pipefail

lab=$(cd "$(dirname "$0")/.." && pwd)
out=$(dirname "$lab")/out

main() {
	local unpatched logs where='under emulation' status=0

	(($# == 1)) || { echo "usage: lab/demo/run.sh BASE" >&2; exit 2; }
	echo "demo $1: booting both kernels and measuring, about 40 s"
	"$lab/run.sh" "$out/$1/before" demo &
	unpatched=$!
	"$lab/run.sh" "$out/$1" demo || status=1
	wait "$unpatched" || status=1
	((status == 0)) || exit 1
	mkdir -p "$out/demo"
	logs=("$out/$1/before/lab/demo/demo.log" "$out/$1/lab/demo/demo.log")
	! grep -q -e '-accel kvm' "$out/$1/lab/demo/command" || where='on hardware'
	{
		"$lab/demo/table.sh" --check "${logs[@]}" &&
			"$lab/demo/drift.sh" "kernel $1, $where" "${logs[@]}" "$out/demo"
	} | tee "$out/demo/table-$1.txt"
}

main "$@"
