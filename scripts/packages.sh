#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
#	scripts/packages.sh [dkms]
#
# Makes sure that the programs the project needs are installed. On Debian
# missing packages are installed as root or with sudo; everywhere else, and
# with neither, it says what is missing. All there: it does nothing.
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
log=$root/out/log/packages.log

# Debian package, and what proves on another system that it is there: a
# program, a file, a <header>, or an option of gcc or of another compiler.
#
#   bc, bison, flex, libelf-dev, perl, python3: kernel build (libelf: objtool)
#   bochs: emulates Intel's VMX and TSC scaling; bochsbios, isolinux, syslinux-common,
#	vgabios, xorriso: it boots from a CD only
#   busybox-static: make shell
#   ccache: the patched and the unpatched kernel share most objects
#   clang, cppcheck: the code is to be warning-free with both compilers, and cppcheck;
#	libFuzzer
#   dpkg-dev, libfdt-dev, libglib2.0-dev, libpixman-1-dev, ninja-build,
#	pkg-config: QEMU's source package, and its build
#   gcc-multilib: a 32-bit program calls the ioctls in the lab
#   gnuplot-nox: the plot of the demo
#   libc6-dev: also static, for the programs in the lab's initramfs
#   libclang-rt-dev: clang's sanitizers and libFuzzer
#   libgmp-dev: integers of any size, to check the arithmetic against
#   libjansson-dev: kvm-clock reads and writes JSON
#   mandoc: its man page
#   python3-sphinx, python3-yaml: the kernel's htmldocs
#   rsync: the kernel's headers_install
needs='
bc			bc
bison			bison
bochs			bochs
bochsbios		/usr/share/bochs/BIOS-bochs-latest
busybox-static		busybox
ccache			ccache
clang			clang
cppcheck		cppcheck
cpio			cpio
dpkg-dev		dpkg-source
flex			flex
gcc			gcc
gcc-multilib		-m32
git			git
gnuplot-nox		gnuplot
isolinux		/usr/lib/ISOLINUX/isolinux.bin
libc6-dev		-static
libclang-rt-dev		clang:-fsanitize=address
libelf-dev		<gelf.h>
libfdt-dev		<libfdt.h>
libglib2.0-dev		/usr/lib/x86_64-linux-gnu/libglib-2.0.a
libgmp-dev		<gmp.h>
libjansson-dev		<jansson.h>
libpixman-1-dev		/usr/lib/x86_64-linux-gnu/libpixman-1.a
make			make
mandoc			mandoc
ninja-build		ninja
patch			patch
perl			perl
pkg-config		pkg-config
python3			python3
python3-git		python3
python3-ply		python3
python3-sphinx		sphinx-build
python3-yaml		python3
qemu-system-x86		qemu-system-x86_64
rsync			rsync
shellcheck		shellcheck
sparse			sparse
syslinux-common		/usr/lib/syslinux/modules/bios/ldlinux.c32
vgabios			/usr/share/vgabios/vgabios.bin
xorriso			xorriso
xz-utils		xz
'

# For `make dkms` alone.
[ "${1-}" != dkms ] || needs+='
debhelper		dh
dh-dkms			dh_dkms
debootstrap		debootstrap
lintian			lintian
'

die() { echo "packages: $*" >&2; exit 1; }

program=$'#include <stdio.h>\nint main(void) { return puts(""); }'

compiles() {	# compiles PROGRAM-TEXT COMPILER OPTION...
	local text=$1
	shift
	printf '%s\n' "$text" | "$@" -x c -o /dev/null - 2>/dev/null
}

there() {	# there WHAT: without a package manager, is it on this system?
	case $1 in
	/*)	[ -e "$1" ] ;;
	'<'*)	compiles "#include $1" gcc -c ;;
	-*)	compiles "$program" gcc "$1" ;;
	*:-*)	compiles "$program" "${1%%:*}" "${1#*:}" ;;
	*)	command -v "$1" >/dev/null ;;
	esac
}

check_programs() {
	local package what missing=

	while read -r package what; do
		[ -z "$package" ] || there "$what" || missing+=" $what"
	done <<<"$needs"
	[ -z "$missing" ] || die "this is not Debian, and these programs, files, headers (<>) or" \
		"compiler options (-) are missing:$missing"
}

missing_packages() {
	local names

	names=$(awk 'NF { print $1 }' <<<"$needs" | sort)
	# dpkg-query fails when it does not know one of them: part of the answer
	# shellcheck disable=SC2016,SC2086 # dpkg's variables; a list of names
	{ dpkg-query -W -f '${db:Status-Status} ${Package}\n' $names 2>/dev/null || true; } |
		sed -n 's/^installed //p' | sort -u | comm -23 <(echo "$names") -
}

as_root() {	# the words that make a command run as root
	if [ "$(id -u)" = 0 ]; then
		echo env
	elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		echo sudo env
	else
		return 1
	fi
}

install_packages() {	# install_packages WORDS-FOR-ROOT PACKAGE...
	local -a apt
	read -ra apt <<<"$1 DEBIAN_FRONTEND=noninteractive apt-get -q"
	shift
	local -a install=("${apt[@]}" install -y --no-install-recommends "$@")

	# A bare machine has no package lists, an old one has lists of packages
	# that the mirror no longer carries: both fail at once and need an update.
	"${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }
}

main() {
	local missing words

	if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		check_programs
		return
	fi
	missing=$(missing_packages)
	[ -n "$missing" ] || return 0
	missing=${missing//$'\n'/ }

	words=$(as_root) || die "these Debian packages are missing, and this is neither root nor" \
		"can it use sudo: $missing. Have them installed, then start again:
    apt-get install --no-install-recommends $missing"
	mkdir -p "${log%/*}"
	echo "packages: installing $missing"
	# shellcheck disable=SC2086 # a list of names
	install_packages "$words" $missing >"$log" 2>&1 ||
		die "apt-get cannot install $missing; its output is in $log"
	echo "packages: installed in $SECONDS s"
}

main
