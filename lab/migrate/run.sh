#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot two hosts, and let a guest move between them with live migrations.
#
#	lab/migrate/run.sh BASE		ten trips each with QEMU as it is, with the
#					patches, and with Debian's kernel on host 2, and
#					a table; then what else can happen
#	lab/migrate/run.sh BASE short	there and back with the patches
#
# The logs of host 1 and 2 of each run are in out/BASE/migrate/log/RUN/1 and 2.

set -euo pipefail

migrate=$(cd "$(dirname "$0")" && pwd)
lab=${migrate%/migrate}

main() {
	case $#${2-} in
	1 | 2short) ;;
	*) echo "usage: lab/migrate/run.sh BASE [short]" >&2; exit 2 ;;
	esac
	base=$1 out=${lab%/lab}/out/$1
	logs=$out/migrate/log
	network=$(mktemp -d)
	trap cleanup EXIT
	if [[ ${2-} ]]; then
		short
	else
		columns
		others
	fi
}

cleanup() {
	[[ ! ${other-} ]] || kill "$other" 2>/dev/null || :
	rm -rf "$network"
}

short() {
	pair short series migrate-1-short series migrate-2
	check short 2 agree exact
	echo "migrate: the clock is the same function of the TSC after two trips"
}

columns() {
	pair unpatched series migrate-1-unpatched series migrate-2-unpatched
	check unpatched 10 agree moved
	title unpatched QEMU ''
	pair patched series migrate-1 series migrate-2
	check patched 10 agree exact
	title patched with patches
	pair fallback series migrate-1 stock migrate-2
	check fallback 10 agree moved warned
	title fallback 'no series' 'on host 2'
	"$migrate/table.sh" "$logs"/{unpatched,patched,fallback}
}

others() {
	pair stock stock migrate-1-unpatched-short stock migrate-2-unpatched
	check stock 2 agree moved
	mixed
	pair file series migrate-1-save series migrate-2 migrate-1-restore
	check file 1 agree exact
	refusals file 6
	pair faults series migrate-1-faults series migrate-2
	check faults 4 agree exact
	pair young series migrate-1-young series migrate-2
	check young 1 agree exact
	pair leave series migrate-1-leave series migrate-2
	check leave 3 warned
	pair hv series migrate-1-hv series migrate-2
	check hv 2 agree exact
	references hv
}

# To a QEMU of the same version without the patches, and back.
mixed() {
	local version

	version=$(<"$out/migrate/unpatched/version")
	if [[ $version != 7.2 ]]; then
		echo "migrate: mixed: skipped: the system's QEMU is $version, not 7.2, and takes no guest of the patched one"
		return
	fi
	pair mixed series migrate-1-off series migrate-2-unpatched
	check mixed 2 agree moved
}

# pair RUN KERNEL1 SCENARIO1 KERNEL2 SCENARIO2 [SCENARIO1]: host 2 is up before host 1
# is switched on, so that their TSCs differ; with another scenario host 1 is booted
# again. Both are told the same TSC rate.
pair() {
	local dir=$logs/$1 start=$SECONDS

	rm -rf "$dir"
	mkdir -p "$dir"
	echo "migrate: $1: booting two hosts"
	boot 2 "$4" "$5" &
	other=$!
	until grep -qs '# run 1 hop' "$dir/2/console.log"; do
		kill -0 "$other" 2>/dev/null || { wait "$other"; fail "$1"; }
		sleep 0.2
	done
	boot 1 "$2" "$3" || fail "$1"
	[[ ! ${6-} ]] || boot 1-again "$2" "$6" || fail "$1"
	wait "$other" || fail "$1"
	other=
	echo "migrate: $1: done, $((SECONDS - start)) s"
}

# boot LOGDIR KERNEL SCENARIO, with the TSC rate that host 2 was told
boot() {
	local options=(-b "$base" -l "$network" -o "$dir/$1")

	[[ $2 == series ]] || options+=(-k "$2")
	[[ $1 == 2 || ! $(<"$dir/2/command") =~ tsc_early_khz=([0-9]+) ]] || options+=(-t "${BASH_REMATCH[1]}")
	"$lab/run" "${options[@]}" "$3"
}

fail() {
	echo "migrate: $1: FAIL: ${2-a host has failed}, logs are in $logs/$1"
	exit 1
}

check() {
	"$migrate/check.sh" "$logs/$1" "${@:2}"
}

# refusals RUN NUMBER: so many damaged files were not taken for a clock.
refusals() {
	(($(grep -c 'kvmclock: the saved function' "$logs/$1/lines") == $2)) ||
		fail "$1" "QEMU did not say $2 times that the function is damaged"
}

# references RUN: the page of Hyper-V's clock is the same after each trip.
references() {
	(($(sed -n 's/^reference [0-9]* sequence [0-9]* //p' "$logs/$1/lines" | sort -u | wc -l) == 1)) ||
		fail "$1" "the reference page of Hyper-V's clock has changed"
}

title() {
	printf '%s\n' "${@:2}" >"$logs/$1/title"
}

main "$@"
