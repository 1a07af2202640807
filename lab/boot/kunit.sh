#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run the KUnit tests of the series with the kernel's own kunit.py, in QEMU.
#
#	lab/boot/kunit.sh BASE
#
# The kernel is built in out/BASE/kunit.

set -euo pipefail

boot=$(cd "$(dirname "$0")" && pwd)
root=${boot%/lab/boot}

(($# == 1)) || { echo "usage: lab/boot/kunit.sh BASE" >&2; exit 2; }
cd "$root/out/$1/tree"
# make would take KVM's objects that modules.sh left in the tree.
git clean -fdqX arch/x86/kvm virt
exec tools/testing/kunit/kunit.py run --arch=x86_64 --jobs="$(nproc)" \
	--build_dir="$root/out/$1/kunit" --kunitconfig="$boot/kunit.config"
