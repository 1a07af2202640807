#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compare the arithmetic of a base's tree with exact integers: all edges, and random
# cases, a share on each CPU; with another compiler and with UBSan fewer.
#
#	lab/arithmetic/property.sh BASE [CASES]
#
# SEED=number repeats a run; without it, each run has other cases. The programs
# are left in out/BASE/arithmetic.

set -euo pipefail

. "$(dirname "$0")/compile.sh"

few=1000000

main() {
	local seed=${SEED:-$EPOCHSECONDS} cases=${2:-40000000} cpus i pids=() status=0

	(($# >= 1)) || { echo "usage: lab/arithmetic/property.sh BASE [CASES]" >&2; exit 2; }
	prepare "$1"
	build property-ubsan clang -fsanitize=undefined -fno-sanitize-recover=all
	build property-clang clang
	build property gcc
	run property-ubsan "$seed" $few
	run property-clang "$seed" $few
	cpus=$(nproc)
	for ((i = 0; i < cpus; i++)); do
		run property "$seed" $((cases / cpus)) $((i * (cases / cpus))) &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || status=1
	done
	return $status
}

# build NAME COMPILER [FLAG...]
build() {
	compile "$out" "${@:2}" -O2 -o "$out/$1" "$here/property.c" "${sources[@]}" -lgmp
}

# run NAME SEED CASES [FIRST]: print what fails, or the last line.
run() {
	local log=$out/$1-${4-0}.log

	"$out/$1" "${@:2}" >"$log" 2>&1 || { cat "$log"; exit 1; }
	echo "$1: $(tail -n 1 "$log")"
}

main "$@"
