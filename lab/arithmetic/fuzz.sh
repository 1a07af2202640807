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

# shellcheck source=lab/arithmetic/compile.sh
. "$(dirname "$0")/compile.sh"

seconds=60
longest=128	# bytes: a case takes less

main() {
	(($# == 1)) || { echo "usage: lab/arithmetic/fuzz.sh BASE" >&2; exit 2; }
	prepare "$1"
	log=$out/fuzz.log
	mkdir -p "$out/corpus"
	compile "$out" clang -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-o "$out/fuzz" "$here/fuzz.c" "${sources[@]}" -lgmp
	echo "fuzz: $seconds s; the log is $log"
	fuzz || failed
	summary
}

# It says how far it is whenever the number of cases has doubled.
fuzz() {
	"$out/fuzz" -max_total_time=$seconds -max_len=$longest -artifact_prefix="$out/" "$out/corpus" 2>&1 |
		tee "$log" | { grep --line-buffered -E '^#.*(INITED|pulse|DONE)|^[a-z]+: .* times$' || :; }
}

failed() {
	local input

	input=$(sed -n 's/.*Test unit written to //p' "$log")
	grep -A 3 '^FAIL: ' "$log" || grep 'SUMMARY: ' "$log" || tail -n 20 "$log"
	[[ ! $input ]] || echo "fuzz: once more: $out/fuzz $input"
	echo "0 passed, 1 failed"
	exit 1
}

# Each check, outcome and edge was reached.
summary() {
	local passed failed

	passed=$(grep -c ': [1-9][0-9]* times$' "$log" || :)
	failed=$(grep -c ': 0 times$' "$log" || :)
	echo "$passed passed, $failed failed"
	((passed > 0 && failed == 0))
}

main "$@"
