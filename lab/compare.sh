#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compare two runs of a scenario: the same tests have to have the same results.
#
#	lab/compare.sh BEFORE_LOGDIR AFTER_LOGDIR

set -euo pipefail

main() {
	local differences

	(($# == 2)) || { echo "usage: lab/compare.sh BEFORE_LOGDIR AFTER_LOGDIR" >&2; exit 2; }
	before=$(results "$1")
	after=$(results "$2")
	if differences=$(diff <(echo "$before") <(echo "$after") | sed -n 's/^</  before:/p; s/^>/  after: /p') &&
		[[ ! $differences ]]; then
		echo "lab: the same $(wc -l <<<"$before") results before and after"
		return
	fi
	printf 'lab: the results differ:\n%s\n' "$differences"
	exit 1
}

# "NAME pass", "NAME fail" or "NAME skip", a line for each test that was run.
results() {
	local list

	list=$(sed -nE 's/\r$//
		s/^\[ *[0-9.]+\] ok [0-9]+ ([^ ]+) # SKIP.*/\1 skip/p; t
		s/^\[ *[0-9.]+\] ok [0-9]+ ([^ ]+)$/\1 pass/p; t
		s/^\[ *[0-9.]+\] not ok [0-9]+ ([^ ]+) .*/\1 fail/p' "$1/console.log")
	[[ $list ]] || { echo "lab: $1/console.log has no results: the run failed before its first test" >&2; exit 2; }
	echo "$list"
}

main "$@"
