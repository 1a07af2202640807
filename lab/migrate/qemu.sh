#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build QEMU with the patches, as a static program, and collect the system's QEMU, the
# one without them.
#
#	[QEMU=dir-or-tarball] lab/migrate/qemu.sh
#
# Leaves out/qemu-7.2/patched, built from out/qemu-7.2/tree as it is, and
# out/qemu-7.2/unpatched: each has qemu-system-x86_64, the firmware that a guest needs, and
# the second one the libraries with their loader. scripts/source.sh gets the source. The
# logs are in out/qemu-7.2/log.
#
# Exit status: 3 when the source cannot be had, 1 for every other failure.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/lab/migrate}
base='qemu-7.2'
out=$root/out/$base
# shellcheck source=scripts/progress.sh
. "$root/scripts/progress.sh"

firmware=/usr/share/qemu/qboot.rom	# microvm's
all_files=893				# that a build from nothing compiles, about
# Half of the CPU time that a build with all devices and -O2 takes.
options=(
	--meson=/usr/bin/meson --static --disable-pie --target-list=x86_64-softmmu
	--without-default-features --without-default-devices --enable-kvm --disable-tcg
	--enable-trace-backends=log --disable-docs --disable-tools --disable-install-blobs
	--disable-debug-info --disable-werror --extra-cflags=-O1
)

main() {
	(($# == 0)) || { echo "usage: [QEMU=dir-or-tarball] lab/migrate/qemu.sh" >&2; exit 1; }
	mkdir -p "$out/log"
	exec 8>"$out/lock"
	flock 8
	collect_unpatched
	"$root/scripts/source.sh" "$base"
	"$root/scripts/series.sh" tree "$base"
	inputs=$(fingerprint "$out/tree" "$here/qemu.sh" "$here/microvm.mak")
	if up_to_date "$inputs" "$out/qemu.inputs"; then
		echo "QEMU with the patches: up to date"
		return
	fi
	rm -f "$out/qemu.inputs"
	set_environment
	configure
	run_step "QEMU with the patches" "$out/log/build.log" "$files" ninja -C "$out/build" qemu-system-x86_64
	install_patched
	echo "$inputs" >"$out/qemu.inputs"
}

die() {
	echo "QEMU: $*" >&2
	exit 1
}

# Its loader goes along, as the lab's machines have none.
collect_unpatched() {
	local qemu version

	qemu=$(command -v qemu-system-x86_64) || die "qemu-system-x86_64 is missing: apt-get install qemu-system-x86"
	[[ -f $firmware ]] || die "$firmware is missing: apt-get install qemu-system-data"
	version=$("$qemu" --version | sed -n '1s/.* version \([0-9]*\.[0-9]*\).*/\1/p')
	[[ qemu-$version == "$base" ]] ||
		echo "QEMU: the one without the patches is the system's, $version; the patched one is ${base#qemu-}"
	! cmp -s "$qemu" "$out/unpatched/qemu-system-x86_64" || return 0
	rm -rf "$out"/unpatched{,.new}
	mkdir "$out/unpatched.new"
	ldd "$qemu" | grep -o '/[^ ]*' | xargs cp -Lt "$out/unpatched.new" "$qemu" "$firmware"
	echo "$version" >"$out/unpatched.new/version"
	mv "$out"/unpatched{.new,}
}

# QEMU's scripts need Debian's python, whatever else is installed.
set_environment() {
	export PATH=/usr/bin:$PATH CCACHE_DIR=$root/out/cache/ccache
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
}

# Set files to how many there are to compile, if that is known. ninja configures again
# where the tree has changed.
configure() {
	local log=$out/log/configure.log devices inputs

	files=
	inputs=$(cksum "$here/qemu.sh" "$here/microvm.mak")
	! up_to_date "$inputs" "$out/build/configured" || return 0
	files=$all_files
	devices=$(realpath --relative-to="$out/tree/configs/devices/x86_64-softmmu" "$here/microvm")
	rm -rf "$out/build"
	mkdir "$out/build"
	(cd "$out/build" && ../tree/configure "${options[@]}" --with-devices-x86_64="$devices") \
		>"$log" 2>&1 </dev/null || step_failed "QEMU: configure" "$log"
	echo "$inputs" >"$out/build/configured"
}

install_patched() {
	mkdir -p "$out/patched"
	cp "$firmware" "$out/patched"
	strip -o "$out/patched/qemu.new" "$out/build/qemu-system-x86_64"
	mv "$out/patched/qemu.new" "$out/patched/qemu-system-x86_64"
}

main "$@"
