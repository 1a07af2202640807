#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build a minimal QEMU without and with the patches, as static programs.
#
#	[QEMU=dir-or-tarball] integrations/qemu/build.sh
#
# Leaves out/qemu/unpatched and out/qemu/patched, each with qemu-system-x86_64 and
# the firmware that a guest needs. The source is QEMU, else out/cache/qemu_*, the
# source package of an earlier run, else Debian's, which the file base names. The
# logs are in out/qemu/log.
#
# Exit status: 3 when the source cannot be had, 1 for every other failure.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/integrations/qemu}
cache=$root/out/cache
out=$root/out/qemu
# shellcheck source=assembler/apt.sh
. "$root/assembler/apt.sh"
# shellcheck source=lab/progress.sh
. "$root/lab/progress.sh"

firmware=/usr/share/qemu/qboot.rom	# microvm's
all_files=1330		# that a build from nothing compiles, about
options=(
	--meson=/usr/bin/meson --static --target-list=x86_64-softmmu
	--without-default-features --enable-kvm --disable-tcg --enable-trace-backends=log
	--disable-docs --disable-tools --disable-install-blobs --disable-debug-info
	--disable-werror
)

main() {
	[[ ! ${QEMU-} || -e $QEMU ]] || die "QEMU=$QEMU does not exist"
	mkdir -p "$cache" "$out/log"
	[[ ${QEMU-} || $(package) ]] || download
	inputs=$(echo "${QEMU:-$(package)}"; cksum "$here"/*.patch "$here/build.sh")
	if up_to_date "$inputs" "$out/inputs"; then
		echo "QEMU: up to date"
		return
	fi
	rm -rf "$out/inputs" "$out/src"
	get_source
	set_environment
	cd "$out/src"
	logged configure configure_qemu
	run_step QEMU "$out/log/unpatched.log" "$all_files" ninja -C build qemu-system-x86_64
	install_qemu unpatched
	logged patch apply_patches
	run_step "QEMU with the patches" "$out/log/patched.log" '' ninja -C build qemu-system-x86_64
	install_qemu patched
	echo "$inputs" >"$out/inputs"
}

die() {
	echo "QEMU: $*" >&2
	exit 1
}

cannot_be_had() {
	echo "QEMU: $*" >&2
	exit 3
}

# logged LOG COMMAND...
logged() {
	local log=$out/log/$1.log

	"${@:2}" >"$log" 2>&1 </dev/null || step_failed "QEMU: $1" "$log"
}

package() {
	find "$cache" -maxdepth 1 -name 'qemu_*.dsc' | sort -V | tail -n 1
}

value_of() {
	awk -v key="$1" '$1 == key { print $2; exit }' "$here/base"
}

# The .dsc, which lists the other files, appears last.
download() {
	command -v apt-get >/dev/null ||
		cannot_be_had "this is not Debian: give QEMU's source with QEMU=dir-or-tarball"
	echo "QEMU: downloading Debian's source package (about 25 MB)"
	rm -rf "$cache/qemu.tmp"
	mkdir "$cache/qemu.tmp"
	cd "$cache/qemu.tmp"
	fetch_from deb-src "$(value_of package)" "$(value_of suite)" source --download-only \
		>"$out/log/download.log" 2>&1 ||
		cannot_be_had "Debian's source package cannot be had from here, see" \
			"$out/log/download.log. Give QEMU's source with QEMU=dir-or-tarball"
	mv qemu_*.tar.* "$cache"
	mv qemu_*.dsc "$cache"
	cd "$root"
	rmdir "$cache/qemu.tmp"
}

get_source() {
	if [[ ! ${QEMU-} ]]; then
		logged source dpkg-source --no-check -x "$(package)" "$out/src"
	elif [[ -d $QEMU ]]; then
		logged source cp -a --reflink=auto "$QEMU" "$out/src"
		rm -rf "$out/src/build"
	else
		mkdir "$out/src"
		logged source tar -xf "$QEMU" -C "$out/src" --strip-components=1
	fi
	[[ -f $out/src/hw/i386/kvm/clock.c ]] || die "${QEMU-$(package)} is not QEMU's source"
}

# QEMU's scripts need Debian's python, whatever else is installed.
set_environment() {
	export PATH=/usr/bin:$PATH CCACHE_DIR=$cache/ccache
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
}

configure_qemu() {
	mkdir build
	(cd build && ../configure "${options[@]}")
}

# Some lines of context differ in other versions than the one in base.
apply_patches() {
	local patch

	for patch in "$here"/*.patch; do
		echo "${patch##*/}"
		patch -p1 -F3 -f --no-backup-if-mismatch <"$patch" || return
	done
}

install_qemu() {
	mkdir -p "$out/$1"
	cp "$firmware" "$out/$1"
	strip -o "$out/$1/qemu.new" build/qemu-system-x86_64
	mv "$out/$1/qemu.new" "$out/$1/qemu-system-x86_64"
}

main "$@"
