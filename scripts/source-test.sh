#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test source.sh and packages.sh on a kernel of a few files and with a stub for apt, in a
# temporary directory: prove scripts/source-test.sh

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 failed=0
export HOME=$work
unset LINUX QEMU "${!GIT_@}"

main() {
	make_sandbox
	test_given_source
	test_package
	test_qemu
	test_not_debian
	test_packages
	echo "1..$number"
	((failed == 0))
}

# --- what the tests are made of -----------------------------------------------

try() {	# try COMMAND...: run it, keep its output, leave $status
	status=0
	"$@" >"$work/output" 2>&1 </dev/null || status=$?
}

ok() {	# ok NAME COMMAND...: a test that passes if the command does
	local name=$1

	number=$((number + 1))
	if "${@:2}" >"$work/ok" 2>&1; then
		echo "ok $number - $name"
		return
	fi
	echo "not ok $number - $name"
	failed=$((failed + 1))
	sed 's/^/# /' "$work/ok" "$work/output"
}

ended() { echo "# status $status, to be $1"; [[ $status == "$1" ]] && says "${2-}"; }
says() { grep -qF -- "$1" "$work/output"; }
source_of() { try env "${@:2}" scripts/source.sh "$1"; }
empty() { [[ ! $(find "$@" 2>/dev/null) ]]; }
in_tree() { git -C out/6.12/tree "$@"; }

stub() {	# stub NAME BODY: a program that takes the place of the system's
	mkdir -p "$work/stubs"
	printf '#!/bin/bash\n%s\n' "$2" >"$work/stubs/$1"
	chmod +x "$work/stubs/$1"
}

only() {	# only PROGRAM...: a PATH with the stubs and these programs
	local program

	for program in bash env "$@"; do
		[[ -e $work/stubs/$program ]] || ln -s "$(command -v "$program")" "$work/stubs/$program"
	done
	echo "$work/stubs"
}

package() {	# package NAME FILE...: a package of empty files, in $work/archive
	local name=$1 dir=$work/deb file

	mkdir -p "$dir/DEBIAN" "$work/archive"
	for file in "${@:2}"; do
		[[ $file != */ ]] || { mkdir -p "$dir/$file"; continue; }
		mkdir -p "$dir/$(dirname "$file")"
		if [[ $file == *.xz ]]; then xz </dev/null >"$dir/$file"; else echo "$name" >"$dir/$file"; fi
	done
	[[ $name != linux-source* ]] || cp "$work/kernel.tar.xz" "$dir/usr/src/linux-source-6.12.tar.xz"
	printf '%s\n' "Package: $name" Version:\ 6.12.2-1 Architecture:\ all Maintainer:\ x Description:\ x \
		>"$dir/DEBIAN/control"
	dpkg-deb --build "$dir" "$work/archive/$name.deb" >/dev/null 2>&1
	rm -r "$dir"
}

make_sandbox() {
	mkdir -p "$work"/{sandbox/patches/{6.12,qemu-10.0},kernel/kernel,qemu/hw}
	cd "$work"
	printf 'VERSION = 6\nPATCHLEVEL = 12\n' >kernel/Makefile
	echo time >kernel/kernel/time.c
	printf '*.o\n/*\n!/debian/\n' >kernel/.gitignore
	tar -cJf kernel.tar.xz kernel
	echo 10.0.9 >qemu/VERSION
	touch qemu/hw/clock.c
	cp -r "$here" sandbox/scripts
	cd sandbox
	printf '%s\n' 'package linux-source-6.12' 'suite new' 'flavour cloud-amd64' >patches/6.12/base
	printf '%s\n' 'package qemu' 'suite new' >patches/qemu-10.0/base
}

# --- the tests ----------------------------------------------------------------

test_given_source() {
	local tip

	source_of 5.10
	ok "an unknown base" ended 1 patches/5.10/base
	source_of 6.12 LINUX=/nowhere
	ok "LINUX= that does not exist" ended 1 /nowhere
	source_of 6.12 LINUX="$work/qemu"
	ok "LINUX= that is no kernel" ended 1 "not a kernel source"
	ok "nothing is left behind" empty out/6.12 -mindepth 1
	touch "$work/kernel/kernel/time.o"
	source_of 6.12 LINUX="$work/kernel"
	ok "a directory that was built in" ended 0
	ok "build products stay out" empty out/6.12/tree -name '*.o'
	ok "Debian's rule that ignores everything is gone" diff out/6.12/tree/.gitignore <(echo '*.o')
	ok "branch and tag" test "$(in_tree rev-parse base)" = "$(in_tree rev-parse series)"
	tip=$(in_tree rev-parse base)
	source_of 6.12 LINUX="$work/kernel.tar.xz"
	ok "another LINUX= says which one is in use" ended 0 "in use is $work/kernel;"
	rm -r out "$work/kernel/kernel/time.o"
	source_of 6.12 LINUX="$work/kernel.tar.xz"
	ok "a tarball gives the same commit" test "$tip" = "$(in_tree rev-parse base)"
	ok "and no kernel of Debian" empty out/6.12/debian
	rm -r out
}

test_package() {
	local path=$PATH modules=lib/modules/6.12.2+deb13-cloud-amd64/kernel module
	local -a files=()

	stub apt-get 'exit 100'
	PATH=$work/stubs:$PATH
	source_of 6.12
	ok "a package that cannot be had" ended 3 LINUX=
	ok "it is named" says linux-source-6.12
	ok "nothing is left behind" empty out/6.12 out/cache -mindepth 1

	for module in kvm kvm-amd kvm-intel irqbypass msr virtio_blk virtio_net net_failover failover; do
		files+=("$modules/$module.ko.xz")
	done
	package linux-source-6.12 usr/src/
	package linux-image-6.12.2+deb13-cloud-amd64 boot/vmlinuz-6.12.2 "${files[@]}"
	package linux-headers-6.12.2+deb13-cloud-amd64 usr/src/linux-headers-6.12.2/{.config,scripts,tools,vmlinux}
	echo "deb [signed-by=/keys/debian.gpg] http://mirror/debian some main" >"$work/sources.list"
	# shellcheck disable=SC2016 # the stub's variables
	stub apt-get 'case " $* " in
		*" indextargets "*) echo "Debian/Debian/main http://mirror/debian/ '"$work"'/sources.list:1" ;;
		*" update "*) cp apt/sources.list '"$work"'/used.list ;;
		*" download "*) for p; do [[ $p != *=6.12.2-1 ]] || cp '"$work"'/archive/${p%%=*}.deb .; done ;;
	esac'
	# The newest source has no headers yet.
	# shellcheck disable=SC2016 # the stub's variables
	stub apt-cache 'case " $* " in
		*" pkgnames "*) printf "%s\n" linux-source-6.12 linux-{image,headers}-6.12.{1,2,3}+deb13-cloud-amd64 linux-image-6.12-cloud-amd64 ;;
		*" madison "*) for v in 1 2 3; do for p in source-6.12 {image,headers}-6.12.$v+deb13-cloud-amd64; do
			[[ $p = headers-6.12.3+* ]] || echo "linux-$p | 6.12.$v-1 | http://mirror/debian"; done; done ;;
	esac'
	source_of 6.12
	ok "packages of Debian" ended 0
	ok "mirror and keys are the system's" \
		diff "$work/used.list" <(echo "deb [signed-by=/keys/debian.gpg] http://mirror/debian/ new main")
	ok "image and all modules are there" test -s out/6.12/debian/vmlinuz -a -f out/6.12/debian/modules/failover.ko
	ok "of the headers what is needed" diff <(ls -A out/6.12/debian/headers) <(echo .config)
	ok "apt's state is gone" empty out/cache -name 'apt*'

	stub apt-get 'exit 100'
	rm -r out/6.12
	source_of 6.12
	ok "offline from the cache" test "$status" = 0 -a -d out/6.12/debian
	source_of 6.12
	ok "again: nothing to do, nothing said" empty "$work/output" -size +0
	rm -r out/6.12 out/cache/6.12/linux-image*
	source_of 6.12
	ok "a cache that is not complete" ended 1 "have no vmlinuz"
	ok "nothing is left behind" empty out/6.12 -mindepth 1
	rm -r out
	PATH=$path
}

test_qemu() {
	source_of qemu-10.0 QEMU="$work/kernel"
	ok "QEMU= that is no QEMU" ended 1 "not QEMU's source"
	source_of qemu-10.0 QEMU="$work/qemu"
	ok "QEMU's source" test "$status" = 0 -a -f out/qemu-10.0/tree/hw/clock.c
	rm -r out "$work/stubs"
}

test_not_debian() {
	mkdir "$work/stubs"
	try env PATH="$(only dirname awk git rm mkdir)" scripts/source.sh 6.12
	ok "not Debian" ended 3 LINUX=
}

test_packages() {
	local path

	stub apt-get "echo \"\$*\" >>$work/calls; [[ -e $work/updated || \$2 == update ]] || exit 100; touch $work/updated"
	# shellcheck disable=SC2016 # the stub's variables
	stub dpkg-query 'shift 3; for p; do [[ $p == flex ]] || echo "installed $p"; done'
	stub id 'echo 1000'
	path=$(only awk sed sort comm mkdir touch dirname)
	try env PATH="$path" scripts/packages.sh
	ok "neither root nor sudo" ended 1 "apt-get install --no-install-recommends flex"
	# shellcheck disable=SC2016 # the stub's variables
	stub sudo '[[ $1 == -n ]] || exec "$@"'
	try env PATH="$path" scripts/packages.sh
	ok "sudo that asks for no password is used" ended 0
	ok "lists are fetched when they are missing" grep -q update "$work/calls"
	ok "what is missing is installed, no more" grep -qx -- "-q install -y --no-install-recommends flex" "$work/calls"
	stub apt-get 'echo "no such package"; exit 100'
	try env PATH="$path" scripts/packages.sh
	ok "apt-get fails" ended 1 "its output is in"
	stub dpkg-query 'shift 3; printf "installed %s\n" "$@"'
	try env PATH="$path" scripts/packages.sh
	ok "nothing missing: nothing done, nothing said" empty "$work/output" -size +0
	rm "$work/stubs/apt-get" "$work/stubs/dpkg-query"
	stub gcc 'exit 1'
	try env PATH="$path" scripts/packages.sh
	ok "not Debian and programs missing" ended 1 " bc "
	ok "headers are named" says "<gelf.h>"
}

main
