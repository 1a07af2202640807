#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Leave in DIR the source of KVM's modules with the series, to be built against the headers
# of the kernel RELEASE, as those have no source.
#
#	kvm-source.sh TARBALL SERIES.diff RELEASE DIR
#
# TARBALL is the kernel's source, of just that version. Then
#
#	make -C /lib/modules/RELEASE/build M=DIR/arch/x86/kvm CONFIG_DEBUG_INFO_BTF_MODULES= modules
#
# leaves kvm.ko, kvm-amd.ko and kvm-intel.ko in DIR/arch/x86/kvm. (BTF needs pahole.)

set -euo pipefail
export LC_ALL=C

main() {
	(($# == 4)) || die "usage: kvm-source.sh TARBALL SERIES.diff RELEASE DIR"
	tarball=$(realpath "$1") series=$(realpath "$2") release=$3 dir=$4
	mkdir -p "$dir"
	cd "$dir"
	mapfile -t headers < <(sed -n 's,^--- a/\(.*include/.*\.h\)$,\1,p' "$series")
	extract
	check_version
	patch -s -p1 -F0 <"$series" ||
		die "the series does not apply to the KVM of $(version): use a kernel that is of the series' base"
	use_own_headers
}

die() { echo "kvm-source: $*" >&2; exit 1; }

# Debian's tarball begins with linux-source-X.Y/, git's with ./ or nothing.
extract() {
	local file patterns=()

	for file in Makefile arch/x86/kvm virt/kvm "${headers[@]}"; do
		patterns+=("$file" "linux-*/$file")
	done
	# tar fails for the names that are not there; what is needed is checked below.
	XZ_DEFAULTS=-T0 tar -xf "$tarball" --wildcards --no-wildcards-match-slash \
		--transform='s,^linux-[^/]*/,,' "${patterns[@]}" 2>/dev/null || :
	[[ -f Makefile && -d arch/x86/kvm && -d virt/kvm ]] || die "$tarball is not a kernel's source"
}

version() {
	awk '$1 ~ /^(VERSION|PATCHLEVEL|SUBLEVEL)$/ { printf "%s%s", dot, $3; dot = "." } /^NAME/ { exit }' Makefile
}

check_version() {
	local wanted=${release%%[-+]*}

	[[ $(version) == "$wanted" ]] ||
		die "$tarball is Linux $(version), but the kernel $release needs the source of $wanted"
}

# Before those of the kernel. The trace headers are looked for from include/trace.
use_own_headers() {
	rm Makefile
	mkdir -p include/trace
	# shellcheck disable=SC2016 # make's variables
	sed -i -e 's,\$(srctree)/arch/x86/kvm,$(src),' -e 's,\$(srctree)/virt/kvm,$(src)/../../../virt/kvm,' \
		-e '1i own := $(src)/../../..\nLINUXINCLUDE := $(addprefix -I$(own)/,arch/x86/include arch/x86/include/uapi include include/uapi include/trace) $(LINUXINCLUDE)' \
		arch/x86/kvm/Makefile
}

main "$@"
