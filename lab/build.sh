#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the lab's kernel in its source tree, and the modules in lab/modules.
#
#	lab/build.sh SRCDIR OUTDIR BASE [CONFIG]
#
# Leaves OUTDIR/bzImage and OUTDIR/modules/*.ko; the log is
# OUTDIR/log/kernel.log. The configuration is lab/kernel.config over
# allnoconfig, followed by lab/kernel-BASE.config where there is one, and by the
# series' KUnit tests where the tree has them. With CONFIG, it is that file over
# allnoconfig, and OUTDIR/bzImage is all: a kernel for guests.
# ccache, when it is installed, keeps its objects in out/cache/ccache: a second
# tree that is nearly the same is built mostly from there.

set -euo pipefail

lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lab/progress.sh
. "$lab/progress.sh"

modules=(
	virt/lib/irqbypass.ko
	arch/x86/kvm/kvm.ko
	arch/x86/kvm/kvm-amd.ko
	arch/x86/kvm/kvm-intel.ko
	drivers/misc/lkdtm/lkdtm.ko
	lib/kunit/kunit.ko
)
kunit_test=arch/x86/kvm/tests/guest_clock_kunit
lab_modules=(tsc_unstable.ko)
all_files=1260		# that a build from nothing compiles, about
guest_files=800		# the same for guests

main() {
	(($# == 3 || $# == 4)) || die "usage: lab/build.sh SRCDIR OUTDIR BASE [CONFIG]"
	[[ -f $1/Kbuild ]] || die "$1 is not a kernel source tree"
	mkdir -p "$2"
	out=$(cd "$2" && pwd)
	base=$3 guest=${4:+$(realpath "$4")} name="kernel $3"
	configs=("$lab"/kernel*.config "$lab"/modules/*)
	[[ ! $guest ]] || name="guest's kernel $3" configs=("$guest") all_files=$guest_files
	cd "$1"
	inputs=$(fingerprint . "$lab/build.sh" "${configs[@]}")
	if up_to_date "$inputs" "$out/kernel.inputs"; then
		echo "$name: up to date"
		return
	fi
	rm -f "$out/kernel.inputs"
	set_environment
	configure
	run_step "$name" "$out/log/kernel.log" "$(files_to_compile)" build
	install_results
	echo "$inputs" >"$out/kernel.inputs"
}

die() {
	echo "lab: $*" >&2
	exit 1
}

# Everything that would make two builds of the same source differ is pinned.
# LOCALVERSION, though empty, keeps git's "+" out of the release.
set_environment() {
	export LOCALVERSION='' KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP=1970-01-01
	export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab
	export CCACHE_DIR=${lab%/*}/out/cache/ccache CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
	# By way of PATH, so that a make by hand in the tree compiles nothing anew.
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
}

# .config is replaced only when it changes: make looks at its date.
configure() {
	local log=$out/log/config.log

	mkdir -p "$out/log"
	fragment=$(mktemp)
	trap 'rm -f "$fragment" .config.lab' EXIT
	wanted_options >"$fragment"
	make KCONFIG_CONFIG=.config.lab KCONFIG_ALLCONFIG="$fragment" allnoconfig \
		>"$log" 2>&1 </dev/null || step_failed "configuration $base" "$log"
	check_config "$fragment"
	cmp -s .config.lab .config || mv .config.lab .config
}

wanted_options() {
	if [[ $guest ]]; then
		cat "$guest"
		return
	fi
	cat "$lab/kernel.config"
	[[ ! -f $lab/kernel-$base.config ]] || cat "$lab/kernel-$base.config"
	[[ ! -f $kunit_test.c ]] || echo CONFIG_KVM_GUEST_CLOCK_KUNIT_TEST=m
}

check_config() {
	local line option missing=()

	while read -r line; do
		option=${line#\# } option=${option%%[= ]*}
		case $line in
		CONFIG_*=*) grep -qxF "$line" .config.lab || missing+=("$line") ;;
		'# CONFIG_'*' is not set') ! grep -q "^$option=" .config.lab || missing+=("$line") ;;
		esac
	done <"$1"
	((${#missing[@]} == 0)) || {
		printf 'lab: asked for but not in the final .config: %s\n' "${missing[@]}" >&2
		die "unknown in $base, or something that it depends on is not set"
	}
}

# Unknown when the tree was built before: make alone knows what changed.
files_to_compile() {
	[[ -f vmlinux ]] || echo "$((all_files - $(find . -name '*.o' ! -name '*.mod.o' | wc -l)))"
}

build() {
	[[ ! $guest ]] || { make -j"$(nproc)" bzImage; return; }
	make -j"$(nproc)" bzImage modules || return
	mkdir -p "$out/build/modules"
	cp "$lab"/modules/* "$out/build/modules"
	make M="$out/build/modules" modules
}

# Each file appears whole or not at all, and an equal one keeps its date.
install_results() {
	local file

	install_file arch/x86/boot/bzImage "$out/bzImage"
	[[ ! $guest ]] || return 0
	[[ ! -f $kunit_test.c ]] || modules+=("$kunit_test.ko")
	mkdir -p "$out/modules"
	for file in "${modules[@]}"; do
		install_file "$file" "$out/modules/${file##*/}"
	done
	for file in "${lab_modules[@]}"; do
		install_file "$out/build/modules/$file" "$out/modules/$file"
	done
}

install_file() {
	! cmp -s "$1" "$2" || return 0
	cp "$1" "$2.new"
	mv "$2.new" "$2"
}

main "$@"
