#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the KUnit tests of the series: the kernel's own kunit.py builds a kernel with them
# and judges what it prints.
#
#	lab/boot/kunit.sh BASE
#
# The kernel is built in out/BASE/kunit. It is booted here, as kunit.py prefers a /dev/kvm
# that can be opened, whether it works or not.

set -euo pipefail

boot=$(cd "$(dirname "$0")" && pwd)
root=${boot%/lab/boot}

(($# == 1)) || { echo "usage: lab/boot/kunit.sh BASE" >&2; exit 2; }
cd "$root/out/$1/tree"
build=$root/out/$1/kunit
# make would take KVM's objects that modules.sh left in the tree.
git clean -fdqX arch/x86/kvm virt
tools/testing/kunit/kunit.py build --arch=x86_64 --jobs="$(nproc)" \
	--build_dir="$build" --kunitconfig="$boot/kunit.config"
timeout 300 qemu-system-x86_64 -accel "${ACCEL:-tcg}" -nodefaults -m 1G -no-reboot -display none \
	-serial stdio -bios qboot.rom -kernel "$build/arch/x86/boot/bzImage" \
	-append 'kunit.enable=1 console=ttyS0 kunit_shutdown=reboot' </dev/null |
	tools/testing/kunit/kunit.py parse
