#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build QEMU with the patches, as a static program, and collect Debian's QEMU of the same
# version, the one without them.
#
#	[QEMU=dir-or-tarball] lab/migrate/qemu.sh
#
# Leaves out/qemu-10.0/patched, built from out/qemu-10.0/tree as it is, and
# out/qemu-10.0/unpatched: each has qemu-system-x86_64 and the firmware that a guest
# needs, the second one also the libraries with their loader, and version. The source is
# scripts/source.sh's; Debian's QEMU, and the meson that the build wants, are packages that
# are unpacked and not installed. The logs are in out/qemu-10.0/log.
#
# Exit status: 3 when source or packages cannot be had, 1 for every other failure.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=${here%/lab/migrate}
base='qemu-10.0'
out=$root/out/$base
packages=$root/out/cache/$base-binaries
apt_state=$packages.tmp/apt	# apt.sh's
. "$root/scripts/progress.sh"
. "$root/scripts/apt.sh"

# Debian's packages, and what a guest on microvm or q35 needs of their files.
binaries=(qemu-system-x86 qemu-system-data seabios meson)
firmware=(qemu/qboot.rom qemu/linuxboot_dma.bin qemu/kvmvapic.bin qemu/pvh.bin seabios/bios-256k.bin)
# Half of the CPU time that a build with all devices and -O2 takes.
options=(
	--static --disable-pie --target-list=x86_64-softmmu
	--without-default-features --without-default-devices --enable-kvm --disable-tcg
	--enable-trace-backends=log --disable-docs --disable-tools --disable-install-blobs
	--disable-debug-info --disable-werror --extra-cflags=-O1
)

main() {
	(($# == 0)) || { echo "usage: [QEMU=dir-or-tarball] lab/migrate/qemu.sh" >&2; exit 1; }
	mkdir -p "$out/log"
	exec 8>"$out/lock"
	flock 8
	[[ -d $packages ]] || download
	unpack_debian
	"$root/scripts/source.sh" "$base"
	"$root/scripts/series.sh" tree "$base"
	inputs=$(fingerprint "$out/tree" "$here/qemu.sh" "$here/qemu.mak")
	if up_to_date "$inputs" "$out/qemu.inputs"; then
		echo "QEMU with the patches: up to date"
		return
	fi
	rm -f "$out/qemu.inputs"
	set_environment
	configure
	run_step "QEMU with the patches" "$out/log/build.log" \
		ninja -j "$(nproc)" -C "$out/build" qemu-system-x86_64
	install_patched
	echo "$inputs" >"$out/qemu.inputs"
}

die() {
	echo "QEMU: $*" >&2
	exit 1
}

# --- Debian's QEMU --------------------------------------------------------------

# Leave the packages in out/cache. Debian 12 has QEMU 10.0 among its backports.
download() {
	local suite=- log=$out/log/download.log

	[[ $(system_codename) != bookworm ]] || suite=bookworm-backports
	echo "QEMU: downloading Debian's QEMU"
	rm -rf "$packages.tmp"
	mkdir -p "$packages.tmp"
	(cd "$packages.tmp" && with_suite deb "$suite" private_apt download "${binaries[@]}") >"$log" 2>&1 || {
		echo "QEMU: Debian's ${binaries[*]} of ${suite/#-/this system} cannot be had from here;" \
			"apt's output is in $log" >&2
		exit 3
	}
	rm -r "$apt_state"
	mv "$packages.tmp" "$packages"
}

# Leave out/qemu-10.0/binaries, the files of the packages, and unpatched.
unpack_debian() {
	local package inputs debian=$out/binaries qemu=$out/binaries/usr/bin/qemu-system-x86_64 version missing

	inputs=$(cksum "$packages"/*.deb "$here/qemu.sh")
	! up_to_date "$inputs" "$out/unpatched.inputs" || return 0
	rm -rf "$debian" "$out/unpatched" "$out/unpatched.inputs"
	for package in "$packages"/*.deb; do
		dpkg-deb -x "$package" "$debian"
	done
	version=$("$qemu" --version | sed -n '1s/.* version \([0-9]*\.[0-9]*\).*/\1/p')
	missing=$(ldd "$qemu" | awk '/not found/ { print $1 }' | xargs)
	[[ ! $missing ]] || die "Debian's QEMU lacks $missing: apt-get install qemu-system-x86 brings them"
	[[ qemu-$version == "$base" ]] ||
		die "the packages in $packages have QEMU ${version:-of unknown version}, not ${base#qemu-}"
	mkdir "$out/unpatched"
	# The loader goes along, as the lab's machines have none.
	ldd "$qemu" | grep -o '/[^ ]*' | xargs cp -Lt "$out/unpatched" "$qemu"
	cp "${firmware[@]/#/$debian/usr/share/}" "$out/unpatched"
	echo "$version" >"$out/unpatched/version"
	echo "$inputs" >"$out/unpatched.inputs"
}

# --- the patched one ------------------------------------------------------------

# QEMU's scripts need Debian's python, whatever else is installed.
set_environment() {
	export PATH=/usr/bin:$PATH CCACHE_DIR=$root/out/cache/ccache
	export PYTHONPATH=$out/binaries/usr/lib/python3/dist-packages
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
	PATH=$out/binaries/usr/bin:$PATH
}

# ninja configures again where the tree has changed.
configure() {
	local log=$out/log/configure.log devices inputs

	inputs=$(cksum "$here/qemu.sh" "$here/qemu.mak")
	! up_to_date "$inputs" "$out/build/configured" || return 0
	devices=$(realpath --relative-to="$out/tree/configs/devices/x86_64-softmmu" "$here/qemu")
	rm -rf "$out/build"
	mkdir "$out/build"
	(cd "$out/build" && ../tree/configure "${options[@]}" --with-devices-x86_64="$devices") \
		>"$log" 2>&1 </dev/null || step_failed "QEMU: configure" "$log"
	# What a git tree gets by default would override --disable-werror the next time.
	sed -i '/^werror = true$/d' "$out/build/config-meson.cross"
	echo "$inputs" >"$out/build/configured"
}

install_patched() {
	mkdir -p "$out/patched"
	cp "${firmware[@]/#/$out/binaries/usr/share/}" "$out/patched"
	strip -o "$out/patched/qemu.new" "$out/build/qemu-system-x86_64"
	mv "$out/patched/qemu.new" "$out/patched/qemu-system-x86_64"
}

main "$@"
