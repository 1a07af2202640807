#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Put together what host/try needs on a machine that runs the kernel RELEASE.
#
#	host/bundle.sh BASE RELEASE MODULES-DIR DIR
#
# The programs are those of `make programs`. Leaves DIR, which can be copied to the machine.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
programs=(facts demo pvclock_test pvclock_stress_test)

main() {
	(($# == 4)) || { echo "usage: host/bundle.sh BASE RELEASE MODULES-DIR DIR" >&2; exit 1; }
	base=$1 release=$2 modules=$3 dir=$4
	rm -rf "$dir" "$dir.new"
	mkdir -p "$dir.new"/{bin,modules}
	cd "$dir.new"
	for program in "${programs[@]}"; do
		strip -o "bin/$program" "$root/out/$base/bin/$program"
	done
	for module in kvm kvm-amd kvm-intel; do
		strip --strip-debug -o "modules/$module.ko" "$modules/$module.ko"
	done
	cp "$root"/host/try "$root/lab/vmm/demo.awk" .
	echo "$release" >release
	echo "for $base, $(git -C "$root" describe --always --dirty --abbrev=12)" >about
	cd "$root"
	mv "$dir.new" "$dir"
}

main "$@"
