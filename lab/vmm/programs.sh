#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the lab's small VMMs with a base's headers, which
# lab/boot/selftests.sh installs: demo, bench, and the
# example of a VMM's code (clock.c) as a 64-bit and a 32-bit program.
#
#	lab/vmm/programs.sh BASE
#
# Leaves out/BASE/bin/NAME. CC=clang builds with another compiler.

set -euo pipefail

vmm=$(cd "$(dirname "$0")" && pwd)
root=${vmm%/lab/vmm}
# shellcheck source=scripts/progress.sh
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/vmm/programs.sh BASE" >&2; exit 2; }
	base=$1 out=$root/out/$1
	mkdir -p "$out/bin"
	inputs=$(fingerprint "$out/tree" "$vmm"/*.[ch] "$vmm/programs.sh")
	if up_to_date "$inputs" "$out/programs.inputs"; then
		echo "programs $base: up to date"
		return
	fi
	run_step "programs $base" "$out/log/programs.log" '' build
	echo "$inputs" >"$out/programs.inputs"
}

build() {
	compile demo "$vmm/demo.c"
	compile example "$vmm/example.c" "$vmm/clock.c"
	compile example32 "$vmm/example.c" "$vmm/clock.c" -m32
	compile bench "$vmm/bench.c"
}

# compile NAME FILE-OR-FLAG...
compile() {
	"${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static \
		-isystem "$out/headers/usr/include" -o "$out/bin/$1.new" "${@:2}" "$vmm/vmm.c"
	mv "$out/bin/$1.new" "$out/bin/$1"
}

main "$@"
