#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Count instructions on the unpatched and on the patched kernel, both at a time,
# and print the table. Fails when something could not be counted, and not when
# a goal is missed.
#
#	lab/bench/run.sh BASE

set -euo pipefail

lab=$(cd "$(dirname "$0")/.." && pwd)
out=$(dirname "$lab")/out

# The emulator counts, whatever else there is: hardware cannot.
export ACCEL=tcg

main() {
	local unpatched status=0

	(($# == 1)) || { echo "usage: lab/bench/run.sh BASE" >&2; exit 2; }
	echo "bench $1: booting both kernels and counting, about 10 s"
	"$lab/run.sh" "$out/$1/before" bench &
	unpatched=$!
	"$lab/run.sh" "$out/$1" bench || status=1
	wait "$unpatched" || status=1
	((status == 0)) || exit 1
	mkdir -p "$out/bench"
	"$lab/bench/table.sh" "$1" "$out/$1/before/lab/bench/bench.log" \
		"$out/$1/lab/bench/bench.log" | tee "$out/bench/table-$1.txt"
}

main "$@"
