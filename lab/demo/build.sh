#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the programs of the demo and of the benchmark with the headers of a
# base's tree: demo, bench, and the example of README.md as a 64-bit and a 32-bit
# program.
#
#	lab/demo/build.sh BASE
#
# Leaves out/BASE/programs/NAME. CC=clang builds with another compiler.

set -euo pipefail

demo=$(cd "$(dirname "$0")" && pwd)
root=${demo%/lab/demo}
bench=$root/lab/bench
# shellcheck source=lab/progress.sh
. "$root/lab/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/demo/build.sh BASE" >&2; exit 2; }
	base=$1 out=$root/out/$1
	mkdir -p "$out/programs"
	inputs=$(fingerprint "$out/linux" "$demo"/*.[ch] "$bench"/*.c "$demo/build.sh" "$root/README.md")
	if up_to_date "$inputs" "$out/programs.inputs"; then
		echo "programs $base: up to date"
		return
	fi
	run_step "programs $base" "$out/log/programs.log" '' build
	echo "$inputs" >"$out/programs.inputs"
}

build() {
	make -s -C "$out/linux" headers
	extract_example >"$out/programs/readme-example.h"
	compile demo "$demo/demo.c"
	compile example "$demo/example.c"
	compile example32 "$demo/example.c" -m32
	compile bench "$bench/bench.c"
}

# The block of C in README.md is the example's only copy.
# shellcheck disable=SC2016 # no expansions, Markdown
extract_example() {
	sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '/^```/d'
}

# compile NAME FILE [FLAG...]
compile() {
	local name=$1 file=$2

	shift 2
	"${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static "$@" \
		-isystem "$out/linux/usr/include" -I "$demo" -I "$out/programs" \
		-o "$out/programs/$name.new" "$file" "$demo/vmm.c"
	mv "$out/programs/$name.new" "$out/programs/$name"
}

main "$@"
