#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build what the hosts of `make migrate` take along: the QEMUs of lab/migrate/qemu.sh,
# and the guest, which has Debian's kernel as distributed.
#
#	lab/migrate/build.sh BASE
#
# Leaves out/BASE/migrate/files.

set -euo pipefail

migrate=$(cd "$(dirname "$0")" && pwd)
root=${migrate%/lab/migrate}
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: lab/migrate/build.sh BASE" >&2; exit 2; }
	out=$root/out/$1 qemus=$root/out/qemu-10.0
	inputs=$(fingerprint "$out/tree" "$migrate"/{guest.c,host.sh,build.sh} \
		"$qemus"/*patched/* "$out/stock/bzImage" "$out/stock/modules"/{msr,virtio_blk}.ko)
	if up_to_date "$inputs" "$out/migrate.inputs"; then
		echo "files of migrate $1: up to date"
		return
	fi
	run_step "files of migrate $1" "$out/log/migrate.log" build
	echo "$inputs" >"$out/migrate.inputs"
}

build() {
	local files=$out/migrate/files guest=$out/migrate/guest

	rm -rf "$files" "$guest"
	mkdir -p "$files" "$guest"
	"${CC:-gcc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static -s -pthread \
		-isystem "$out/headers/usr/include" -o "$guest/init" "$migrate/guest.c"
	cp "$out/stock/modules"/{msr,virtio_blk}.ko "$guest"
	(cd "$guest" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$files/guest.gz"
	cp -r "$qemus"/{patched,unpatched} "$migrate/host.sh" "$files"
	cp "$out/stock/bzImage" "$files"
}

main "$@"
