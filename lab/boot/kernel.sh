#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build a kernel from the source, for debugging: without JUMP_LABEL, so that QEMU can run
# it with a thread for each CPU.
#
#	lab/boot/kernel.sh BASE [debug|kasan|kcsan]
#
# Leaves out/BASE/debug/bzImage, config and modules/*.ko (or in kasan, kcsan); the log is
# log/kernel.log there. The configuration is lab/boot/kernel.config over allnoconfig,
# followed by lab/boot/kernel-BASE.config and kernel-kasan.config or kernel-kcsan.config
# where there is one.

set -euo pipefail

boot=$(cd "$(dirname "$0")" && pwd)
root=${boot%/lab/boot}
. "$root/scripts/progress.sh"

modules=(virt/lib/irqbypass.ko arch/x86/kvm/{kvm,kvm-amd,kvm-intel}.ko)

main() {
	[[ $# -ge 1 && ${2-debug} =~ ^(debug|kasan|kcsan)$ ]] ||
		die "usage: lab/boot/kernel.sh BASE [debug|kasan|kcsan]"
	base=$1 flavour=${2-debug} name="kernel $1 ${2-debug}" tree=$root/out/$1/tree
	out=$root/out/$base/$flavour
	build=$out/build
	mkdir -p "$build" "$out/log"
	inputs=$(fingerprint "$tree" "$boot"/kernel* "$boot"/modules/*)
	if up_to_date "$inputs" "$out/kernel.inputs"; then
		echo "$name: up to date"
		return
	fi
	rm -f "$out/kernel.inputs"
	set_environment
	# make would take KVM's objects that modules.sh left in the tree.
	git -C "$tree" clean -fdqX arch/x86/kvm virt
	configure
	run_step "$name" "$out/log/kernel.log" build
	install_results
	echo "$inputs" >"$out/kernel.inputs"
}

die() {
	echo "kernel: $*" >&2
	exit 1
}

# Everything that would make two builds of the same source differ is pinned.
# LOCALVERSION, though empty, keeps git's "+" out of the release.
set_environment() {
	export LOCALVERSION='' KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP=1970-01-01
	export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab
	export CCACHE_DIR=$root/out/cache/ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
	# By way of PATH, so that a make by hand in the tree compiles nothing anew.
	[[ ! -d /usr/lib/ccache ]] || PATH=/usr/lib/ccache:$PATH
}

# .config is replaced only when it changes: make looks at its date.
configure() {
	local log=$out/log/config.log fragment=$out/fragment file

	for file in "$boot"/kernel{,-"$base",-"$flavour"}.config; do
		[[ ! -f $file ]] || cat "$file"
	done | last_of_each >"$fragment"
	make -C "$tree" O="$build" KCONFIG_CONFIG=.config.new KCONFIG_ALLCONFIG="$fragment" allnoconfig \
		>"$log" 2>&1 </dev/null || step_failed "configuration $base" "$log"
	check_config "$fragment"
	cmp -s "$build/.config.new" "$build/.config" || mv "$build/.config.new" "$build/.config"
}

# last_of_each: of the lines about an option the last one
last_of_each() {
	awk 'match($0, /^(# )?CONFIG_[A-Z0-9_]+[= ]/) { option = $0; gsub(/^# |[= ].*/, "", option); line[option] = $0 }
		END { for (option in line) print line[option] }'
}

check_config() {
	local line option missing=()

	while read -r line; do
		option=${line#\# } option=${option%%[= ]*}
		case $line in
		CONFIG_*=*) grep -qxF "$line" "$build/.config.new" || missing+=("$line") ;;
		'# CONFIG_'*' is not set') ! grep -q "^$option=" "$build/.config.new" || missing+=("$line") ;;
		esac
	done <"$1"
	((${#missing[@]} == 0)) || {
		printf 'kernel: asked for but not in the final .config: %s\n' "${missing[@]}" >&2
		die "unknown in $base, or a dependency is not set"
	}
}

build() {
	make -C "$tree" O="$build" -j"$(nproc)" bzImage modules || return
	mkdir -p "$build/lab-modules"
	cp -u "$boot"/modules/* "$build/lab-modules"
	make -C "$tree" O="$build" M="$build/lab-modules" modules
}

install_results() {
	local module

	mkdir -p "$out/modules"
	install_file "$build/arch/x86/boot/bzImage" "$out/bzImage"
	install_file "$build/.config" "$out/config"
	for module in "${modules[@]/#/$build/}" "$build"/lab-modules/*.ko; do
		install_file "$module" "$out/modules/${module##*/}"
	done
}

main "$@"
