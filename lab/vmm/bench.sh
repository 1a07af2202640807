#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Count instructions on the unpatched and on the patched kernel, both at a time,
# and print the table. Fails when something could not be counted, and not when
# a goal is missed.
#
#	lab/vmm/bench.sh BASE

set -euo pipefail

lab=$(cd "$(dirname "$0")/.." && pwd)
out=$(dirname "$lab")/out

# The emulator counts, whatever else there is: hardware cannot.
export ACCEL=tcg

main() {
	local unpatched status=0

	(($# == 1)) || { echo "usage: lab/vmm/bench.sh BASE" >&2; exit 2; }
	echo "bench $1: booting both kernels and counting, about 10 s"
	"$lab/run" -b "$1" -k before bench &
	unpatched=$!
	"$lab/run" -b "$1" bench || status=1
	wait "$unpatched" || status=1
	((status == 0)) || exit 1
	mkdir -p "$out/bench"
	"$lab/vmm/bench-table.sh" "$1" "$out/$1/log/bench-before/bench.log" \
		"$out/$1/log/bench/bench.log" | tee "$out/bench/table-$1.txt"
}

main "$@"
