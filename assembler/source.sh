#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# source.sh BASE: leaves the pristine source of kernel BASE in out/BASE/linux,
# a git tree with one commit, tag `base`. In this order the source comes from
#
#   LINUX=dir-or-tarball in the environment,
#   out/cache/linux-source-BASE*, the tarball of an earlier run,
#   the Debian package that patches/BASE/base names.
#
# Exit status: 3 when the source cannot be had, 1 for every other failure.
set -euo pipefail
export LC_ALL=C

[ $# = 1 ] || { echo "usage: [LINUX=dir-or-tarball] $0 BASE" >&2; exit 1; }
base=$1
root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/out/cache
dest=$root/out/$base/linux
log=$root/out/log/source-$base.log
origin=		# where the source came from, for people to read
add=-f		# how git add treats ignored files: a tarball holds none to leave out
# shellcheck source=assembler/apt.sh
. "$root/assembler/apt.sh"

say() { echo "source $base: $*"; }
step() { say "$* ($SECONDS s)"; }
die() { say "$*" >&2; exit 1; }
cannot_be_had() { say "$*" >&2; exit 3; }

value_of() {	# value_of KEY: from patches/BASE/base
	awk -v key="$1" '$1 == key { print $2; exit }' "$root/patches/$base/base"
}

logged() {	# logged COMMAND...: a failure says where to read about it
	"$@" >>"$log" 2>&1 || die "failed: $1 ${2-}; its output is in $log"
}

# --- Debian's package ---------------------------------------------------------

fetch() {	# fetch PACKAGE SUITE: leaves the package in the current directory
	local package=$1 suite=$2

	if [ "$suite" = - ]; then
		apt-get -q -o APT::Sandbox::User=root download "$package" && return
		# the system's lists are missing or too old: use lists of our own
		private_apt update
		private_apt download "$package"
		return
	fi
	fetch_from deb "$package" "$suite" download
}

download() {	# leaves the tarball of Debian's package in the cache
	local package suite deb tarball version
	package=$(value_of package) suite=$(value_of suite)
	{ command -v apt-get && command -v dpkg-deb; } >/dev/null ||
		cannot_be_had "this is not Debian: give the kernel source with LINUX=dir-or-tarball"

	rm -rf "$cache/$base.tmp"
	mkdir -p "$cache/$base.tmp"
	cd "$cache/$base.tmp"
	step "1/3 downloading Debian's $package (about 150 MB)"
	# on a terminal apt shows how far it is
	if [ -t 1 ]; then fetch "$package" "$suite"; else fetch "$package" "$suite" >>"$log" 2>&1; fi ||
		cannot_be_had "Debian's $package cannot be had from here$([ -t 1 ] || echo "; apt's output is in $log")." \
			"Offline or not Debian: give the kernel source with LINUX=dir-or-tarball"
	deb=$(echo "$package"_*.deb)
	version=$(dpkg-deb -f "$deb" Version)
	dpkg-deb --fsys-tarfile "$deb" | tar -x --strip-components=3 --wildcards './usr/src/linux-source-*.tar.*'
	tarball=$(echo linux-source-*.tar.*)
	mv "$tarball" "$cache/linux-source-${base}_${version#*:}.tar.${tarball##*.tar.}"
	cd "$root"
	rm -r "$cache/$base.tmp"
}

# --- from the source to a git commit ------------------------------------------

cached() { find "$cache/" -maxdepth 1 -name "linux-source-${base}[_.]*" | sort -V | tail -n 1; }

unpack() {	# unpack TARBALL
	step "2/3 unpacking ${1##*/}"
	# xz: several threads, where it can
	XZ_DEFAULTS=-T0 logged tar -xf "$1" --strip-components=1
}

copy_tree() {	# copy_tree DIR: its source files, without .git and build products
	step "2/3 copying $1"
	if [ "$(git -C "$1" rev-parse --show-cdup 2>/dev/null || echo no)" = "" ]; then
		git -C "$1" archive HEAD | logged tar -x
	else
		logged cp -a --reflink=auto "$1/." .
		rm -rf .git
		add=.
	fi
}

get_source() {	# fills the current directory
	local tarball
	if [ -n "${LINUX-}" ]; then
		origin=$LINUX
		if [ -d "$LINUX" ]; then copy_tree "$LINUX"; else unpack "$LINUX"; fi
		return
	fi
	tarball=$(cached)
	if [ -z "$tarball" ]; then
		(download)
		tarball=$(cached)
	fi
	origin=${tarball##*/}
	unpack "$tarball"
}

check_version() {
	local version
	[ -f Makefile ] || die "$origin is not a kernel source: it has no Makefile"
	version=$(awk '$1 == "VERSION" { v = $3 } $1 == "PATCHLEVEL" { print v "." $3; exit }' Makefile)
	[ "$version" = "$base" ] || die "$origin is kernel ${version:-of unknown version}, not $base"
}

import() {	# makes the current directory a git tree with the commit `base`
	local date='2000-01-01T00:00:00 +0000' commit
	local -x GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
	local -x GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL='<>' GIT_AUTHOR_DATE=$date
	local -x GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL='<>' GIT_COMMITTER_DATE=$date

	step "3/3 importing into git"
	# Debian's tarball ignores all but its own directory; people who add a
	# file here would never see it in git status.
	[ ! -f .gitignore ] || sed -i -e '\,^/\*$,d' -e '\,^!/debian/$,d' .gitignore
	logged git init -q --template= -b series
	git config gc.auto 0	# no collection in the background, ever
	git config maintenance.auto false
	# One pack instead of 86,000 files (what a big file threshold of one byte
	# does): 0.3 GB instead of 1.4, and every later checkout is quicker.
	logged git -c core.fsync=none -c core.compression=1 -c core.bigFileThreshold=1 add -A "$add"
	git clean -fdxq
	commit=$(git commit-tree "$(git write-tree)" -m "Linux $base")
	git update-ref refs/heads/series "$commit"
	git update-ref refs/tags/base "$commit"
}

main() {
	[ -f "$root/patches/$base/base" ] || die "unknown base: patches/$base/base does not exist"
	# git's own variables (in a hook, say) would lead it to another repository
	# shellcheck disable=SC2046 # a list of names
	unset $(git rev-parse --local-env-vars)

	if [ -n "${LINUX-}" ]; then
		[ -e "$LINUX" ] || die "LINUX=$LINUX does not exist"
		LINUX=$(realpath "$LINUX")
	fi
	if git --git-dir="$dest/.git" rev-parse -q --verify refs/tags/base >/dev/null 2>&1; then
		origin=$(cat "$root/out/$base/source" 2>/dev/null || echo unknown)
		[ -z "${LINUX-}" ] || [ "$LINUX" = "$origin" ] ||
			say "the source in use is $origin; to use $LINUX delete out/$base first"
		return
	fi
	[ ! -e "$dest" ] || die "out/$base/linux exists and has no base commit: delete it"

	mkdir -p "$cache" "${log%/*}" "${dest%/*}"
	: >"$log"
	rm -rf "$dest.tmp"
	trap 'rm -rf "$dest.tmp" "$cache/$base.tmp"' EXIT
	mkdir "$dest.tmp"
	cd "$dest.tmp"
	get_source
	check_version
	import
	echo "$origin" >"$root/out/$base/source"
	mv "$dest.tmp" "$dest"
	say "ready in out/$base/linux after $SECONDS s"
}

main
