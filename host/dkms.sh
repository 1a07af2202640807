#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# `make dkms`: a Debian package with the series for BASE, which builds KVM's modules for
# each kernel of BASE by DKMS.
#
#	[VERSION=version] host/dkms.sh BASE
#
# Leaves out/BASE/kvm-clock-guest-BASE-dkms_VERSION_all.deb. VERSION is the time of the
# last commit here, if it is not given.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/progress.sh"

main() {
	(($# == 1)) || { echo "usage: host/dkms.sh BASE" >&2; exit 1; }
	base=$1 out=$root/out/$1 name=kvm-clock-guest-$1
	package=$name-dkms dir=$root/out/$1/dkms
	version=${VERSION:-$(TZ=UTC git -C "$root" log -1 --date=format-local:%Y%m%d.%H%M --format=%cd)}
	rm -rf "$dir" "$out/$package"_*.deb
	mkdir -p "$dir/debian/source"
	cd "$dir"
	write_files
	write_debian
	run_step "dkms $base" "$out/log/dkms.log" dpkg-buildpackage -us -uc -b
	rm "$out/${name}_$version"_*.{changes,buildinfo}
	echo "out/$base/${package}_${version}_all.deb"
}

write_files() {
	local file

	"$root/host/series-diff.sh" "$base" >series.diff
	cp "$root/host/kvm-source.sh" .
	for file in dkms.conf pre-build; do
		sed "s/@BASE@/$base/g" "$root/host/dkms/$file" >"$file"
	done
	chmod +x pre-build kvm-source.sh
	mv dkms.conf "debian/$package.dkms"
}

write_debian() {
	local who date

	who=$(git -C "$root" log -1 --format='%cn <%ce>')
	date=$(git -C "$root" log -1 --format=%cD)
	echo '3.0 (native)' >debian/source/format
	cat >debian/control <<-EOT
		Source: $name
		Section: kernel
		Priority: optional
		Maintainer: $who
		Build-Depends: debhelper-compat (= 13), dh-dkms
		Standards-Version: 4.6.2
		Rules-Requires-Root: no

		Package: $package
		Architecture: all
		Depends: linux-source-$base, patch, xz-utils, \${misc:Depends}
		Description: KVM with an exact guest clock for Linux $base (DKMS)
		 KVM's modules (kvm, kvm-amd, kvm-intel) with KVM_GET_CLOCK_GUEST and
		 KVM_SET_CLOCK_GUEST, ioctls that save and restore a guest's kvmclock as a
		 function of its TSC.
		 .
		 DKMS builds them for each installed kernel $base of Debian, from the source
		 in linux-source-$base. Kernels of other versions than that source keep their
		 own modules.
	EOT
	cat >debian/changelog <<-EOT
		$name ($version) unstable; urgency=medium

		  * Generated from the series.

		 -- $who  $date
	EOT
	cat >debian/copyright <<-EOT
		Copyright (C) 1991-2026 The authors of the Linux kernel.

		License: GPL-2, on Debian systems in /usr/share/common-licenses/GPL-2.
	EOT
	cp "$root/host/dkms/rules" debian
	echo "series.diff kvm-source.sh pre-build usr/src/$name-$version" >"debian/$package.install"
}

main "$@"
