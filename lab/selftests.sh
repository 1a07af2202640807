#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the KVM selftests that have to do with clocks, statically.
#
#	lab/selftests.sh SRCDIR OUTDIR
#
# Leaves OUTDIR/selftests/NAME; the log is OUTDIR/log/selftests.log, objects are
# in OUTDIR/build. A test that the tree does not have is left out.

set -euo pipefail

lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lab/progress.sh
. "$lab/progress.sh"

# By their names in mainline; an older base's other name follows.
tests=(
	hyperv_clock
	kvm_clock_test
	kvm_pv_test
	nested_tsc_adjust_test:vmx_tsc_adjust_test
	nested_tsc_scaling_test:vmx_nested_tsc_scaling_test
	pvclock_invariants_test
	pvclock_leave_test
	pvclock_migration_test
	pvclock_stress_test
	pvclock_test
	system_counter_offset_test
	tsc_msrs_test
	tsc_scaling_sync
	xen_shinfo_test
)
library_files=25	# what all tests share

main() {
	(($# == 2)) || { echo "usage: lab/selftests.sh SRCDIR OUTDIR" >&2; exit 1; }
	mkdir -p "$2/build/selftests" "$2/selftests"
	out=$(cd "$2" && pwd)
	objects=$out/build/selftests
	cd "$1"
	inputs=$(fingerprint . "$lab/selftests.sh")
	if up_to_date "$inputs" "$out/selftests.inputs"; then
		echo "selftests: up to date"
		return
	fi
	rm -f "$out/selftests.inputs"
	find_tests
	run_step selftests "$out/log/selftests.log" "$((library_files + ${#targets[@]}))" build
	install_results
	echo "$inputs" >"$out/selftests.inputs"
}

# Sets targets, what to make below $objects, and names, the same as mainline
# calls them.
find_tests() {
	local test name dir

	targets=() names=()
	for test in "${tests[@]}"; do
		for name in "${test%:*}" "${test#*:}"; do
			for dir in x86/ x86_64/ ''; do
				[[ -f tools/testing/selftests/kvm/$dir$name.c ]] || continue
				targets+=("$dir$name") names+=("${test%:*}")
				break 2
			done
		done
	done
}

build() {
	make headers
	make -j"$(nproc)" -C tools/testing/selftests/kvm OUTPUT="$objects" \
		LDFLAGS=-static "${targets[@]/#/$objects/}"
}

install_results() {
	local i

	for ((i = 0; i < ${#targets[@]}; i++)); do
		cmp -s "$objects/${targets[i]}" "$out/selftests/${names[i]}" && continue
		cp "$objects/${targets[i]}" "$out/selftests/${names[i]}.new"
		mv "$out/selftests/${names[i]}.new" "$out/selftests/${names[i]}"
	done
}

main "$@"
