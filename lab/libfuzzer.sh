# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the scripts that fuzz: run a program of libFuzzer's, which prints `NAME: N times` at
# its end for each thing that it has to reach.

# Sanitizers, too, and each of their findings ends the program.
# shellcheck disable=SC2034 # for them
fuzzer_flags=(-O1 -g '-fsanitize=fuzzer,address,undefined' -fno-sanitize-recover=all)

# run_fuzzer DIR SECONDS LONGEST: DIR/fuzz, on inputs of LONGEST bytes at most. The inputs
# that it found worth keeping are in DIR/corpus, and the next run starts with them.
run_fuzzer() {
	local dir=$1 log=$1/fuzz.log

	mkdir -p "$dir/corpus"
	echo "fuzz: $2 s; the log is $log"
	# It says how far it is whenever the number of cases has doubled.
	"$dir/fuzz" -max_total_time="$2" -max_len="$3" -artifact_prefix="$dir/" "$dir/corpus" 2>&1 |
		tee "$log" | { grep --line-buffered -E '^#.*(INITED|pulse|DONE)|^[a-z ]+: .* times$' || :; } ||
		fuzzer_failed "$dir" "$log"
	fuzzer_summary "$log"
}

fuzzer_failed() {
	local input

	input=$(sed -n 's/.*Test unit written to //p' "$2")
	grep -A 3 '^FAIL: ' "$2" || grep 'SUMMARY: ' "$2" || tail -n 20 "$2"
	[[ ! $input ]] || echo "fuzz: once more: $1/fuzz $input"
	echo "0 passed, 1 failed"
	exit 1
}

# Each check, outcome and edge was reached.
fuzzer_summary() {
	local passed failed

	passed=$(grep -c ': [1-9][0-9]* times$' "$1" || :)
	failed=$(grep -c ': 0 times$' "$1" || :)
	echo "$passed passed, $failed failed"
	((passed > 0 && failed == 0))
}
