#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the lab's own programs with a base's headers and selftest library, which
# lab/boot/selftests.sh installs: demo, bench, facts, kvm-clock with its test, and the tests
# of vm_clock.c that run in the lab, as 64-bit and 32-bit programs.
#
#	lab/vmm/programs.sh BASE
#
# Leaves out/BASE/bin/NAME.

set -euo pipefail

vmm=$(cd "$(dirname "$0")" && pwd)
root=${vmm%/lab/vmm}
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/vmm/programs.sh BASE" >&2; exit 2; }
	base=$1 out=$root/out/$1
	mkdir -p "$out/bin"
	inputs=$(fingerprint "$out/tree" "$vmm"/*.[ch] "$root"/lab/kvm-clock/*.[ch] "$vmm/programs.sh")
	if up_to_date "$inputs" "$out/programs.inputs"; then
		echo "programs $base: up to date"
		return
	fi
	run_step "programs $base" "$out/log/programs.log" build
	echo "$inputs" >"$out/programs.inputs"
}

# run_step asks for its status, so a failure does not end the script by itself.
build() {
	compile demo "$vmm"/{demo,vm_clock,vmm}.c &&
	compile vm_clock_test "$vmm"/{vm_clock_test,vmm}.c -Wl,--wrap=ioctl &&
	compile vm_clock_test32 "$vmm"/{vm_clock_test,vmm}.c -Wl,--wrap=ioctl -m32 &&
	compile vm_clock_unit_test32 "$vmm"/{vm_clock_unit_test,fake_kvm}.c -m32 &&
	compile bench "$vmm"/{bench,vmm}.c &&
	compile facts "$vmm"/{facts,vmm}.c &&
	compile kvm-clock "$root"/lab/kvm-clock/{kvm-clock,host,compare,watch}.c "$vmm/vm_clock.c" -ljansson &&
	compile kvm-clock-test "$root/lab/kvm-clock/lab-test.c" "$vmm/vmm.c" &&
	compile_selftest vm_clock_selftest "$vmm/vm_clock_selftest.c" "$vmm/vm_clock.c"
}

# compile NAME FILE-OR-FLAG...
compile() {
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static \
		-isystem "$out/headers/usr/include" -iquote "$vmm" -o "$out/bin/$1.new" "${@:2}" &&
		mv "$out/bin/$1.new" "$out/bin/$1"
}

# compile_selftest NAME FILE...: with the library of KVM's selftests, as they are compiled.
compile_selftest() {
	local kvm=$out/tree/tools/testing/selftests/kvm include objects

	include=$(cd "$kvm/include" && ls -d x86 x86_64 2>/dev/null)
	mapfile -t objects < <(find "$out/selftests/lib" -name '*.o')
	gcc -std=gnu11 -O2 -g -Wall -Werror -static -DCONFIG_64BIT -march=x86-64-v2 \
		-U_FORTIFY_SOURCE -fno-builtin-mem{cmp,cpy,set} -fno-stack-protector -fno-PIE -no-pie -fno-strict-aliasing \
		-I"$out"/tree/tools/{include,arch/x86/include} -I"$kvm"/{include,"include/$include",..,../rseq} \
		-isystem "$out/headers/usr/include" -iquote "$vmm" -pthread -o "$out/bin/$1.new" "${@:2}" "${objects[@]}" &&
		mv "$out/bin/$1.new" "$out/bin/$1"
}

main "$@"
