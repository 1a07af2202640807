# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the checks in lab/checks: TAP on standard output.
#
# A check says in its third line whether it is run "Once:", for "Each base:", or "On
# request", and what it checks. Its argument is the base, 7.3 without one.

set -uo pipefail

# shellcheck disable=SC2034 # for the checks
lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${lab%/lab}
base=${1-7.3}
check=${0##*/}
logs=$root/out/check/$base
results=0

cd "$root" || exit
mkdir -p "$logs"

# need WHAT...: build it, see lab/build. What cannot be had skips the check.
need() {
	local log=$logs/$check-build.log status=0

	lab/build "$base" "$@" >"$log" 2>&1 </dev/null || status=$?
	case $status in
	0) return ;;
	3) echo "1..0 # SKIP $(tail -n 1 "$log")" ;;
	*) echo "1..1"; echo "not ok 1 - build $*"; explain "$log" ;;
	esac
	exit
}

# try NAME COMMAND...: a result, and its status
try() {
	local name=$1 log

	shift
	log=$logs/$check-${name//[^A-Za-z0-9.]/-}.log
	if "$@" >"$log" 2>&1 </dev/null; then
		result ok "$name"
	else
		result 'not ok' "$name"
		explain "$log"
		return 1
	fi
}

# result ok|'not ok' NAME
result() {
	results=$((results + 1))
	echo "$1 $results - $2"
}

# The end of a log, as diagnostics.
explain() {
	tail -n 15 "$1" | sed 's/^/# /'
	echo "# the whole log is ${1#"$root/"}"
	echo "# again: make check T=$check BASE=$base"
}

finish() {
	echo "1..$results"
}

# same_results SCENARIO: it passes without and with the series, test by test alike.
same_results() {
	try "$1, stock" results_of "$1" -k stock
	try "$1, with the series" results_of "$1"
	try "the same results" diff "$logs/$check.results-stock" "$logs/$check.results"
}

# results_of SCENARIO [-k KERNEL]: run it, and keep its results without diagnostics.
results_of() {
	local results=$logs/$check.results${3:+-$3} status=0

	lab/run -b "$base" "${@:2}" "$1" >"$results" || status=$?
	cat "$results"
	sed -i '/^#/d' "$results"
	return "$status"
}
