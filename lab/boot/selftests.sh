#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the KVM selftests that have to do with clocks, statically.
#
#	lab/boot/selftests.sh BASE
#
# Leaves out/BASE/bin/NAME, and the UAPI headers in out/BASE/headers/usr/include. The log
# is out/BASE/log/selftests.log, objects are in out/BASE/selftests. A test that the tree
# does not have is left out.

set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/scripts/progress.sh"

# By their names in mainline; an older base's other name follows.
tests=(
	hyperv_clock
	kvm_clock_test
	kvm_pv_test
	nested_tsc_adjust_test:vmx_tsc_adjust_test
	nested_tsc_scaling_test:vmx_nested_tsc_scaling_test
	pvclock_nested_test
	pvclock_stress_test
	pvclock_test
	system_counter_offset_test
	tsc_msrs_test
	tsc_scaling_sync
	xen_shinfo_test
)

main() {
	(($# == 1)) || { echo "usage: lab/boot/selftests.sh BASE" >&2; exit 1; }
	out=$root/out/$1 objects=$root/out/$1/selftests
	mkdir -p "$objects" "$out/bin"
	cd "$out/tree"
	inputs=$(fingerprint . "$root/lab/boot/selftests.sh")
	if up_to_date "$inputs" "$out/selftests.inputs"; then
		echo "selftests $1: up to date"
		return
	fi
	rm -f "$out/selftests.inputs"
	find_tests
	run_step "selftests $1" "$out/log/selftests.log" build
	install_results
	echo "$inputs" >"$out/selftests.inputs"
}

# Set targets, what to make below $objects, and names, the same as mainline
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
	make O="$out/headers" headers
	make -j"$(nproc)" -C tools/testing/selftests/kvm OUTPUT="$objects" \
		KHDR_INCLUDES="-isystem $out/headers/usr/include" LDFLAGS=-static "${targets[@]/#/$objects/}"
}

install_results() {
	local i

	for ((i = 0; i < ${#targets[@]}; i++)); do
		install_file "$objects/${targets[i]}" "$out/bin/${names[i]}"
	done
}

main "$@"
