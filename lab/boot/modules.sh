#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build KVM's modules for Debian's kernel.
#
#	[GDB=1] lab/boot/modules.sh [-b] BASE
#
# From out/BASE/tree as it is, leave out/BASE/bzImage and out/BASE/modules/*.ko, and all
# as distributed in out/BASE/stock. With -b, build those of the tag base; then everything
# is in out/BASE/before. GDB=1 adds debug information. The log is log/modules.log in
# out/BASE or out/BASE/before.
#
# Exit status: 3 without out/BASE/debian, 1 for every other failure.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/scripts/progress.sh"

built=(kvm kvm-amd kvm-intel)

main() {
	local name inputs

	before=
	[[ ${1-} != -b ]] || { before=1; shift; }
	(($# == 1)) || die "usage: lab/boot/modules.sh [-b] BASE"
	base=$1
	out=$root/out/$base tree=$root/out/$base/tree debian=$root/out/$base/debian
	name="modules $base"
	[[ -d $tree ]] || die "out/$base/tree does not exist: scripts/source.sh $base gets it"
	[[ -d $debian ]] || {
		echo "modules $base: out/$base/debian does not exist: the source in use was given" \
			"with LINUX=; delete out/$base for Debian's" >&2
		exit 3
	}
	if [[ $before ]]; then
		out+=/before name+=" before"
		tree=$out/tree
		"$root/scripts/series.sh" base "$base" "$tree"
	fi
	inputs=$(fingerprint "$tree" "${out%/before}/source" "$root"/lab/boot/{modules,kbuild}.sh \
		"$root"/lab/boot/modules/*; echo "${GDB-}")
	if up_to_date "$inputs" "$out/modules.inputs"; then
		echo "$name: up to date"
		return
	fi
	rm -f "$out/modules.inputs"
	run_step "$name" "$out/log/modules.log" build
	check_modules
	install_all
	echo "$inputs" >"$out/modules.inputs"
}

die() { echo "modules: $*" >&2; exit 1; }

build() {
	"$root/lab/boot/kbuild.sh" "$base" "$tree" arch/x86/kvm || return
	mkdir -p "$out/lab-modules"
	cp -u "$root"/lab/boot/modules/* "$out/lab-modules"
	"$root/lab/boot/kbuild.sh" "$base" "$tree" "$out/lab-modules"
}

# --- is it what Debian's kernel takes? ----------------------------------------

check_modules() {
	local module

	for module in "${built[@]}"; do
		check_same "$module" vermagic
		check_same "$module" module_size
	done
	[[ ! $before ]] || check_exports
}

# check_same MODULE FUNCTION: it prints the same of Debian's module and of ours.
check_same() {
	local debians ours

	debians=$("$2" "$debian/modules/$1.ko") ours=$("$2" "$tree/arch/x86/kvm/$1.ko")
	[[ $debians == "$ours" ]] ||
		die "$base: $1.ko does not fit Debian's kernel: $2 is '$ours', Debian's '$debians'"
}

vermagic() {
	grep -azo 'vermagic=.*' "$1" | tr -d '\0'
}

module_size() {	# sizeof(struct module)
	readelf -SW "$1" | sed -n 's/.* \.gnu\.linkonce\.this_module *PROGBITS *[^ ]* *[^ ]* \([^ ]*\).*/\1/p'
}

# The checksum of an exported symbol, where there are any, covers all types that its
# declaration leads to, of the whole kernel: the unpatched source must have Debian's.
check_exports() {
	local differ

	differ=$(comm -3 <(exports "$debian/headers") <(exports "$tree/arch/x86/kvm"))
	[[ ! $differ ]] || die "$base: types differ from those in Debian's kernel, by the checksums of" \
		"$(awk '{ print $1 }' <<<"$differ" | sort -u | wc -l) exported symbols in $tree/arch/x86/kvm/Module.symvers"
}

exports() {	# exports DIR: KVM's, with checksums
	awk '$3 ~ "arch/x86/kvm/|^kvm" { print $2, $1 }' "$1/Module.symvers" | sort
}

# --- what the lab takes ------------------------------------------------------

install_all() {
	local module

	mkdir -p "$out/modules"
	install_file "$debian/vmlinuz" "$out/bzImage"
	for module in "$debian"/modules/*.ko; do
		module=${module##*/}
		[[ " ${built[*]} " == *" ${module%.ko} "* ]] || install_file "$debian/modules/$module" "$out/modules/$module"
	done
	for module in "${built[@]}"; do
		install_file "$tree/arch/x86/kvm/$module.ko" "$out/modules/$module.ko"
	done
	for module in "$out"/lab-modules/*.ko; do
		install_file "$module" "$out/modules/${module##*/}"
	done
	[[ ! $before ]] || return 0
	mkdir -p "$out/stock/modules"
	install_file "$debian/vmlinuz" "$out/stock/bzImage"
	for module in "$debian"/modules/*.ko "$out"/lab-modules/*.ko; do
		install_file "$module" "$out/stock/modules/${module##*/}"
	done
}

main "$@"
