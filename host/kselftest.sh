#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# `make kselftest`: the series' tests as a tarball of kselftest, for any kernel CI.
#
#	host/kselftest.sh BASE
#
# Leaves out/BASE/kselftest.tar.gz, made by the kernel's own gen_tar of these tests alone,
# static. Unpack it, and run ./run_kselftest.sh.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: host/kselftest.sh BASE" >&2; exit 1; }
	out=$root/out/$1 tree=$root/out/$1/tree
	work=$out/kselftest
	tests=$(cd "$tree/tools/testing/selftests/kvm" && find . -name 'pvclock*_test.c' -printf '%P\n' | sort | sed 's/\.c$//' | paste -sd ' ')
	rm -rf "$work/install"
	run_step "kselftest $1" "$out/log/kselftest.log" build
	install_file "$work/install/kselftest-packages/kselftest.tar.gz" "$out/kselftest.tar.gz"
	echo "out/$1/kselftest.tar.gz: $tests"
}

# ARCH has been called x86_64 and x86 there.
build() {
	local variables=(TARGETS=kvm O="$work" INSTALL_PATH="$work/install" LDFLAGS='-static -s'
		KHDR_INCLUDES="-isystem $out/headers/usr/include") arch

	for arch in x86 x86_64; do
		variables+=("TEST_GEN_PROGS_$arch=$tests" "TEST_GEN_PROGS_EXTENDED_$arch=" "TEST_PROGS_$arch=")
	done
	make -C "$tree/tools/testing/selftests" -j"$(nproc)" "${variables[@]}" gen_tar
}

main "$@"
