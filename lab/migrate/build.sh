#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build what the hosts of `make migrate` need: the program that runs QEMU, and the
# guest, which has Debian's kernel as distributed.
#
#	lab/migrate/build.sh BASE
#
# Leaves out/BASE/bin/hop, and in out/BASE/migrate/patched and out/BASE/migrate/unpatched
# the files that a host takes along, for each of the QEMUs of lab/migrate/qemu.sh.

set -euo pipefail

migrate=$(cd "$(dirname "$0")" && pwd)
root=${migrate%/lab/migrate}
# shellcheck source=scripts/progress.sh
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/migrate/build.sh BASE" >&2; exit 2; }
	base=$1 out=$root/out/$1 qemus=$root/out/qemu-7.2
	inputs=$(fingerprint "$out/tree" "$migrate"/*.c "$migrate/build.sh" \
		"$qemus"/*patched/* "$out/stock/bzImage" "$out/stock/modules/msr.ko")
	if up_to_date "$inputs" "$out/migrate.inputs"; then
		echo "programs of migrate $base: up to date"
		return
	fi
	run_step "programs of migrate $base" "$out/log/migrate.log" '' build
	echo "$inputs" >"$out/migrate.inputs"
}

build() {
	local qemu

	mkdir -p "$out/bin" "$out/migrate/initramfs"
	compile "$out/bin/hop" hop.c
	compile "$out/migrate/initramfs/init" guest.c -pthread
	cp "$out/stock/modules/msr.ko" "$out/migrate/initramfs"
	for qemu in patched unpatched; do
		rm -rf "$out/migrate/$qemu"
		cp -r "$qemus/$qemu" "$out/migrate"
		cp "$out/stock/bzImage" "$out/migrate/$qemu/guest-bzImage"
		(cd "$out/migrate/initramfs" && find . | cpio -o -H newc -R 0:0 --quiet) |
			gzip -1 >"$out/migrate/$qemu/guest.gz"
	done
}

# compile PROGRAM FILE [FLAG...]
compile() {
	"${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static "${@:3}" \
		-isystem "$out/headers/usr/include" -o "$1.new" "$migrate/$2"
	strip "$1.new"
	mv "$1.new" "$1"
}

main "$@"
