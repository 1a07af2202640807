#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compare the arithmetic of a base's tree with exact integers: all edges, and 10^8
# random cases; with another compiler and with UBSan fewer.
#
#	lab/arithmetic/property.sh BASE
#
# SEED=number repeats a run; without it, each run has other cases. The programs
# are left in out/BASE/arithmetic.

set -euo pipefail

# shellcheck source=lab/arithmetic/compile.sh
. "$(dirname "$0")/compile.sh"

few=1000000
many=100000000

main() {
	local seed=${SEED:-$EPOCHSECONDS}

	(($# == 1)) || { echo "usage: lab/arithmetic/property.sh BASE" >&2; exit 2; }
	prepare "$1"
	build property-ubsan clang -fsanitize=undefined -fno-sanitize-recover=all
	build property-clang clang
	build property gcc
	check_few property-ubsan "$seed"
	check_few property-clang "$seed"
	"$out/property" "$seed" $many
}

# build NAME COMPILER [FLAG...]
build() {
	local name=$1

	shift
	compile "$@" -O2 -o "$out/$name" "$here/property.c" "${sources[@]}" -lgmp
}

# check_few NAME SEED
check_few() {
	local log=$out/$1.log

	"$out/$1" "$2" $few >"$log" 2>&1 || { cat "$log"; exit 1; }
	echo "$1: $(tail -n 1 "$log")"
}

main "$@"
