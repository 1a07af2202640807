#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run make for a directory of modules, against Debian's kernel.
#
#	[GDB=1] lab/boot/kbuild.sh BASE TREE DIR [MAKE-WORD...]
#
# TREE is out/BASE/tree or another work tree of it, DIR is arch/x86/kvm in TREE or another
# directory. The words are `modules`, or names of objects in DIR (x86.o), and variables
# (W=1, C=2). Objects are in DIR. GDB=1 adds debug information, which takes a third more
# CPU time.
#
# The build directory, out/BASE/build, is the same for all trees: the host's programs
# (modpost, objtool, ...) are built here, as Debian's need Debian's C library; the
# configuration and the generated headers are Debian's, so that every structure has the
# layout that it has in Debian's kernel. What depends on the compiler is as here.
#
# Exit status: 3 without out/BASE/debian, make's for every other failure.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/../.." && pwd)

main() {
	(($# >= 3)) || die "usage: lab/boot/kbuild.sh BASE TREE DIR [MAKE-WORD...]"
	[[ -d $2/arch/x86/kvm ]] || die "$2 is not a kernel source tree"
	base=$1 tree=$(realpath "$2") dir=$(cd "$2" && realpath "$3")
	shift 3
	headers=$root/out/$base/debian/headers
	build=$root/out/$base/build
	[[ -d $headers ]] || {
		echo "kbuild $base: out/$base/debian does not exist, so there is no kernel to" \
			"build modules for; without LINUX= scripts/source.sh gets it" >&2
		exit 3
	}
	set_environment
	inputs=$(cksum "$root/out/$base/source" "$headers/.config" "$root/lab/boot/kbuild.sh"; gcc --version)
	[[ -f $build/inputs && $(<"$build/inputs") == "$inputs" ]] || prepare
	# BTF needs pahole, and its base is not in the headers.
	options=(CONFIG_DEBUG_INFO_BTF_MODULES=)
	[[ ${GDB-} ]] || options+=(CONFIG_DEBUG_INFO=)
	make -C "$tree" O="$build" M="$dir" -j"$(nproc)" "${options[@]}" "${@:-modules}"
}

die() { echo "kbuild: $*" >&2; exit 1; }

set_environment() {
	unset MAKEFLAGS MFLAGS MAKELEVEL
	export CCACHE_DIR=$root/out/cache/ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
}

# olddefconfig drops what this machine's programs cannot do (BTF, Rust, ...), part of
# which changes structures: its .config serves for the host's programs only.
prepare() {
	rm -rf "$build"
	mkdir -p "$build"
	cp "$headers"/{.config,Module.symvers} "$build"
	make -s -C "$tree" O="$build" olddefconfig
	# The program that signs modules needs OpenSSL's headers, and is not needed.
	make -C "$tree" O="$build" -j"$(nproc)" CONFIG_MODULE_SIG_FORMAT= modules_prepare
	cd "$build"
	mv include here
	rm -rf arch/x86/include/generated
	cp -r --no-preserve=mode "$headers/include" .
	cp -r --no-preserve=mode "$headers/arch" "$headers/.config" .
	merge config/auto.conf
	merge generated/autoconf.h
	echo "$inputs" >inputs
}

# merge FILE: Debian's options, but this machine's where they are about the compiler.
merge() {
	local compiler='^(#define )?CONFIG_(CC|GCC|AS|LD|LLD|TOOLS_SUPPORT|TOOLCHAIN|PAHOLE|RUSTC)_'

	{ grep -vE "$compiler" "$headers/include/$1"; grep -E "$compiler" "here/$1"; } >"include/$1"
}

main "$@"
