#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Let libFuzzer look for a case that the arithmetic of a base's tree gets wrong,
# for a minute, with sanitizers.
#
#	lab/arithmetic/fuzz.sh BASE
#
# The inputs that it found worth keeping are in out/BASE/arithmetic/corpus, and the
# next run starts with them.

set -euo pipefail

. "$(dirname "$0")/compile.sh"
. "$(dirname "$0")/../libfuzzer.sh"

seconds=60
longest=128	# bytes: a case takes less

main() {
	(($# == 1)) || { echo "usage: lab/arithmetic/fuzz.sh BASE" >&2; exit 2; }
	prepare "$1"
	compile "$out" clang "${fuzzer_flags[@]}" -o "$out/fuzz" "$here/fuzz.c" "${sources[@]}" -lgmp
	run_fuzzer "$out" "$seconds" "$longest"
}

main "$@"
