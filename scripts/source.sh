#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Get the source of BASE, and of a kernel from Debian also its image, headers and
# modules, all of one version.
#
#	[LINUX=dir-or-tarball] [QEMU=dir-or-tarball] scripts/source.sh BASE
#
# Leaves out/BASE/tree, a git tree with one commit, tag `base`, branch `series`; and
# out/BASE/debian: vmlinuz, headers/, modules/*.ko. All comes from out/cache/BASE, the
# packages of an earlier run, else from Debian: patches/BASE/base names the package of
# the source and its suite (- for the system's). LINUX gives a kernel's source, QEMU
# the source of a QEMU: then there is no out/BASE/debian.
#
# Exit status: 3 when the source cannot be had, 1 for every other failure.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/apt.sh"

# The modules that the lab loads, and what they need.
modules=(kvm kvm-amd kvm-intel irqbypass msr virtio_blk virtio_net net_failover failover)

main() {
	(($# == 1)) || die "usage: [LINUX=dir-or-tarball] [QEMU=dir-or-tarball] scripts/source.sh BASE"
	base=$1
	set_variables
	# git's own variables (in a hook, say) would lead it to another repository
	# shellcheck disable=SC2046 # a list of names
	unset $(git rev-parse --local-env-vars)
	! complete || return 0
	trap 'rm -rf "$out"/{tree,debian}.tmp "$packages.tmp"' EXIT
	mkdir -p "${packages%/*}" "$out" "${log%/*}"
	: >"$log"
	rm -rf "$out"/{tree,debian}.tmp "$packages.tmp"
	[[ $given || -d $packages ]] || download
	mkdir "$out/tree.tmp"
	cd "$out/tree.tmp"
	get_source
	check_version
	import
	cd "$root"
	if [[ ! $given && $kind == kernel ]]; then
		extract_binaries
		mv "$out/debian.tmp" "$out/debian"
	fi
	echo "$origin" >"$out/source"
	mv "$out/tree.tmp" "$out/tree"
	say "ready in out/$base/tree after $SECONDS s"
}

set_variables() {
	local variable

	[[ -f $root/patches/$base/base ]] || die "unknown base: patches/$base/base does not exist"
	kind=kernel variable=LINUX
	[[ $base != qemu-* ]] || kind=QEMU variable=QEMU
	hint="give the source with $variable=dir-or-tarball"
	given=${!variable-}
	[[ ! $given || -e $given ]] || die "$variable=$given does not exist"
	[[ ! $given ]] || given=$(realpath "$given")
	out=$root/out/$base
	packages=$root/out/cache/$base
	apt_state=$packages.tmp/apt	# apt.sh's
	log=$root/out/log/source-$base.log
	add=-f		# how git add treats ignored files: a tarball holds none to leave out
}

say() { echo "source $base: $*"; }
die() { echo "source${base:+ $base}: $*" >&2; exit 1; }
cannot_be_had() { say "$*" >&2; exit 3; }

logged() {	# logged COMMAND...: a failure says where to read about it
	"$@" >>"$log" 2>&1 || die "failed: $1 ${2-}; its output is in $log"
}

# True if there is nothing to do.
complete() {
	local origin

	if [[ ! -d $out/tree ]]; then
		[[ ! -d $out/debian ]] || die "out/$base/debian without out/$base/tree: delete it"
		return 1
	fi
	git --git-dir="$out/tree/.git" rev-parse -q --verify refs/tags/base >/dev/null 2>&1 ||
		die "out/$base/tree has no base commit: delete it"
	origin=$(cat "$out/source" 2>/dev/null || echo unknown)
	[[ ! $given || $given == "$origin" ]] ||
		say "the source in use is $origin; to use $given delete out/$base first"
}

# --- Debian's packages --------------------------------------------------------

# Leave the packages in out/cache/BASE.
download() {
	local deb=deb

	{ command -v apt-get && command -v apt-cache && command -v dpkg-deb; } >/dev/null ||
		cannot_be_had "this is not Debian: $hint"
	say "downloading from Debian"
	[[ $kind == kernel ]] || deb="deb-src"
	mkdir "$packages.tmp"
	cd "$packages.tmp"
	with_suite "$deb" "$(value_of suite)" "fetch_$kind" >>"$log" 2>&1 ||
		cannot_be_had "Debian's $(value_of package) cannot be had from here; apt's output is in" \
			"$log. Offline or not Debian: $hint"
	cd "$root"
	rm -r "$apt_state"
	mv "$packages.tmp" "$packages"
}

fetch_QEMU() {
	private_apt source --download-only "$(value_of package)"
}

fetch_kernel() {
	local -a set

	read -ra set < <(newest_set) && private_apt download "${set[@]}"
}

# The newest version of which the package lists have source, headers and image (from 7.3
# on in two parts: binary and modules), as words PACKAGE=VERSION.
newest_set() {
	local source flavour
	source=$(value_of package) flavour=$(value_of flavour)

	private_cache pkgnames linux- |
		grep -E "^($source|linux-(headers|image|binary|modules)-[^-+]*[+][^-]*-$flavour)\$" |
		xargs -r apt-cache "${private[@]}" madison |
		awk '{
			kind = $1
			sub(/^linux-/, "", kind)
			sub(/-.*/, "", kind)
			versions[$3]
			have[$3, kind] = $1 "=" $3
		}
		END {
			for (v in versions) {
				image = have[v, "image"]
				if (have[v, "binary"] && have[v, "modules"])
					image = have[v, "binary"] " " have[v, "modules"]
				if (have[v, "source"] && have[v, "headers"] && image)
					print v, have[v, "source"], have[v, "headers"], image
			}
		}' | sort -V | tail -n 1 | cut -d' ' -f2- | tee /dev/stderr
}

# Leave in debian.tmp what the lab needs of image and headers.
extract_binaries() {
	local package module

	say "unpacking image, headers and modules"
	mkdir -p "$out/debian.tmp/modules"
	cd "$out/debian.tmp"
	for package in "$packages"/linux-[!s]*.deb; do
		logged dpkg-deb -x "$package" all
	done
	mv "$(found 'vmlinuz*')" vmlinuz
	for module in "${modules[@]}"; do
		xz -dcf "$(found "$module.ko*")" >"modules/$module.ko"
	done
	mv all/usr/src/linux-headers-* headers
	rm -r all headers/{scripts,tools,vmlinux}
}

found() {	# found PATTERN: the file of that name in the packages
	find all -type f -name "$1" | grep . || die "Debian's packages have no $1; they are in $packages"
}

# --- from the source to a git commit ------------------------------------------

get_source() {	# fills the current directory
	say "unpacking the source"
	if [[ ! $given ]]; then
		origin=$(find "$packages" -name 'linux-source-*.deb' -o -name '*.dsc')
		[[ $origin ]] || die "out/cache/$base does not have the source: delete it"
		origin=${origin##*/}
		logged "unpack_$kind"
	elif [[ -d $given ]]; then
		origin=$given
		copy_tree "$given"
	else
		origin=$given
		logged unpack "$given"
	fi
}

unpack() {	# unpack TARBALL; xz: several threads, where it can
	XZ_DEFAULTS=-T0 tar -xf "$1" --strip-components=1
}

unpack_kernel() {
	dpkg-deb --fsys-tarfile "$packages"/linux-source-*.deb |
		tar -xO --wildcards './usr/src/linux-source-*.tar.xz' | xz -dcT0 | tar -x --strip-components=1
}

unpack_QEMU() {
	rmdir "$PWD"
	dpkg-source --no-check --no-copy -x "$packages"/*.dsc "$PWD"
	cd "$PWD"
}

copy_tree() {	# copy_tree DIR: its source files, without .git and build products
	if [[ $kind == kernel && $(git -C "$1" rev-parse --show-cdup 2>/dev/null || echo no) == "" ]]; then
		git -C "$1" archive HEAD | logged tar -x
	else
		logged cp -a --reflink=auto "$1/." .
		find . -name .git -prune -exec rm -rf {} +	# of submodules, too
		add=.
	fi
}

check_version() {
	local version

	if [[ $kind == QEMU ]]; then
		[[ -f VERSION && -d hw ]] || die "$origin is not QEMU's source"
		version=qemu-$(cut -d. -f1,2 VERSION)
	else
		[[ -f Makefile ]] || die "$origin is not a kernel source: it has no Makefile"
		version=$(awk '$1 == "VERSION" { v = $3 } $1 == "PATCHLEVEL" { print v "." $3; exit }' Makefile)
	fi
	[[ $version == "$base" ]] || die "$origin is $kind ${version:-of unknown version}, not $base"
}

import() {	# makes the current directory a git tree with the commit `base`
	local date='2000-01-01T00:00:00 +0000' message="Linux $base" commit
	local -x GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
	local -x GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL='<>' GIT_AUTHOR_DATE=$date
	local -x GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL='<>' GIT_COMMITTER_DATE=$date

	say "importing into git"
	[[ $kind == kernel ]] || message="QEMU ${base#qemu-}"
	# Debian's tarball ignores all but its own directory; people who add a
	# file here would never see it in git status.
	[[ ! -f .gitignore ]] || sed -i -e '\,^/\*$,d' -e '\,^!/debian/$,d' .gitignore
	logged git init -q --template= -b series
	git config gc.auto 0	# no collection in the background, ever
	git config maintenance.auto false
	# One pack instead of 86,000 files (what a big file threshold of one byte
	# does): 0.3 GB instead of 1.4, and every later checkout is quicker.
	logged git -c core.fsync=none -c core.compression=1 -c core.bigFileThreshold=1 add -A "$add"
	git clean -fdxq
	commit=$(git commit-tree "$(git write-tree)" -m "$message")
	git update-ref refs/heads/series "$commit"
	git update-ref refs/tags/base "$commit"
}

main "$@"
