#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# `make try`: build KVM's modules with the series for the running kernel, and test them on
# this machine with host/try.
#
#	[RELEASE=uname-r] [LINUX=tarball] host/try.sh
#
# RELEASE builds for another machine: its kernel's `uname -r`. out/try/RELEASE is then to be
# copied there, and its program try to be run as root. LINUX is the source of that kernel,
# of just its version, instead of Debian's.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/progress.sh"
. "$root/scripts/apt.sh"

main() {
	release=${RELEASE:-$(uname -r)}
	dir=$root/out/try/$release
	source=$root/out/try/source-$release
	cd "$root"
	find_base
	[[ ${RELEASE-} ]] || check_this_machine
	get_headers
	lab/build "$base" tree programs
	get_source
	run_step "modules $release" "$root/out/try/log/$release.log" build
	host/bundle.sh "$base" "$release" "$source/arch/x86/kvm" "$dir"
	if [[ ${RELEASE-} ]]; then
		echo "try: copy out/try/$release to the machine, and run its program try as root"
	else
		as_root "$dir/try"
	fi
}

die() { echo "try: $*" >&2; exit 2; }

as_root() {
	if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

find_base() {
	local bases

	base=$(cut -d. -f1,2 <<<"${release%%[-+]*}")
	bases=$(grep -l '^kernel ' patches/*/base | cut -d/ -f2 | sort -V | paste -sd ' ')
	[[ " $bases " == *" $base "* ]] ||
		die "the series is for Linux ${bases// / and }, not for $release. Install one of them, and boot it:" \
			"apt-get install linux-image-6.12-amd64 (Debian 12: from bookworm-security; Debian 13: linux-image-amd64)"
	[[ $release == *-amd64 && $release != *-rt-amd64 ]] ||
		die "$release is not Debian's kernel of flavour amd64 or cloud-amd64: apt-get install linux-image-$base-amd64, and boot it"
}

# Before the long build, what host/try would refuse after it.
check_this_machine() {
	mkdir -p "$dir"
	cp host/try "$dir"
	echo "$release" >"$dir/release"
	as_root "$dir/try" check
}

get_headers() {
	headers=/lib/modules/$release/build
	[[ ! -e $headers/Makefile ]] || return 0
	echo "try: installing linux-headers-$release"
	mkdir -p out/try/log
	as_root apt-get install -y --no-install-recommends "linux-headers-$release" >out/try/log/headers.log 2>&1 ||
		die "linux-headers-$release cannot be installed; apt's output is in out/try/log/headers.log. If the" \
			"archive has a newer kernel only: apt-get install linux-image-$base-amd64, and boot it"
}

# Leave the source in out/try: the lab's if it is of that version, else Debian's.
get_source() {
	local tarball=$root/out/try/linux.tar wanted=${release%%[-+]*}

	rm -rf "$source" "$tarball"
	host/series-diff.sh "$base" >out/try/series.diff
	if [[ ${LINUX-} ]]; then
		tarball=$LINUX
	elif [[ $(cat "out/$base/source") == linux-source-"$base"_"$wanted"-* ]]; then
		git -C "out/$base/tree" archive -o "$tarball" base Makefile arch/x86 virt/kvm include
	else
		download
	fi
	host/kvm-source.sh "$tarball" out/try/series.diff "$release" "$source"
}

# Debian's source of the version of the headers.
download() {
	local version

	version=$(dpkg-query -W -f '${Version}' "linux-headers-$release")
	apt_state=$root/out/try/apt
	mkdir -p out/try/debs
	(cd out/try/debs && with_suite deb "$(value_of suite)" private_apt download "linux-source-$base=$version") >out/try/log/source.log 2>&1 ||
		die "Debian has no linux-source-$base of version $version any more; apt's output is in out/try/log/source.log." \
			"Upgrade the kernel (apt-get install linux-image-$base-amd64) and boot it, or give its source with LINUX=tarball"
	dpkg-deb --fsys-tarfile "out/try/debs/linux-source-${base}_$version"_all.deb |
		tar -xO --wildcards './usr/src/linux-source-*.tar.xz' | xz -dc >"$tarball"
}

build() {
	make -C "$headers" M="$source/arch/x86/kvm" -j"$(nproc)" CONFIG_DEBUG_INFO_BTF_MODULES= CONFIG_DEBUG_INFO= modules
}

main "$@"
