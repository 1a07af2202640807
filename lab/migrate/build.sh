#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build what the hosts of `make migrate` need: the program that runs QEMU, and the
# guest with its kernel.
#
#	lab/migrate/build.sh BASE
#
# Leaves out/BASE/programs/hop, out/BASE/guest/bzImage, and in
# out/BASE/migrate/patched and out/BASE/migrate/unpatched the files that a host
# takes along, for each of the QEMUs of integrations/qemu/build.sh.

set -euo pipefail

migrate=$(cd "$(dirname "$0")" && pwd)
root=${migrate%/lab/migrate}
# shellcheck source=lab/progress.sh
. "$root/lab/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/migrate/build.sh BASE" >&2; exit 2; }
	base=$1 out=$root/out/$1
	"$root/assembler/before.sh" "$base" guest
	"$root/lab/build.sh" "$out/guest/linux" "$out/guest" "$base" "$migrate/guest.config"
	inputs=$(fingerprint "$out/linux" "$migrate"/*.c "$migrate/build.sh" \
		"$root/out/qemu/inputs" "$out/guest/kernel.inputs")
	if up_to_date "$inputs" "$out/migrate.inputs"; then
		echo "programs of migrate $base: up to date"
		return
	fi
	run_step "programs of migrate $base" "$out/log/migrate.log" '' build
	echo "$inputs" >"$out/migrate.inputs"
}

build() {
	local qemu

	make -s -C "$out/linux" headers
	mkdir -p "$out/programs" "$out/migrate/initramfs"
	compile "$out/programs/hop" hop.c
	compile "$out/migrate/initramfs/init" guest.c -pthread
	for qemu in patched unpatched; do
		rm -rf "$out/migrate/$qemu"
		cp -r "$root/out/qemu/$qemu" "$out/migrate"
		cp "$out/guest/bzImage" "$out/migrate/$qemu/guest-bzImage"
		(cd "$out/migrate/initramfs" && find . | cpio -o -H newc -R 0:0 --quiet) |
			gzip -1 >"$out/migrate/$qemu/guest.gz"
	done
}

# compile PROGRAM FILE [FLAG...]
compile() {
	"${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static "${@:3}" \
		-isystem "$out/linux/usr/include" -o "$1.new" "$migrate/$2"
	strip "$1.new"
	mv "$1.new" "$1"
}

main "$@"
