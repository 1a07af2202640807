# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the scripts beside it: compile the arithmetic of a base's tree, from the very
# files that the kernel is built from, as a program.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${here%/lab/arithmetic}
# shellcheck disable=SC2034 # for them
sources=("$here"/{oracle,scale,checks,cases}.c)
functions='div_frac kvm_get_time_scale __scale_tsc kvm_scale_tsc kvm_get_pvclock_scale kvm_get_raw_clock_scale'

die() {
	echo "arithmetic: $*" >&2
	exit 2
}

# prepare BASE: set tree, headers, and out, the directory for what is built.
prepare() {
	tree=$root/out/$1/tree headers=$root/out/$1/headers/usr/include out=$root/out/$1/arithmetic
	[[ -f $tree/arch/x86/kvm/guest_clock.h && -d $headers ]] ||
		die "out/$1 has no source with the series, or no headers: make programs BASE=$1"
	mkdir -p "$out"
	extract "$tree/arch/x86/kvm" "$out"
}

# extract FROM TO: the header, and the functions of x86.c that scale.c includes.
extract() {
	local name

	cp "$1/guest_clock.h" "$2"
	for name in $functions; do
		sed -n "/^[a-z].*\<$name(/,/^}/p" "$1/x86.c"
	done >"$2/x86-functions.h"
}

# compile DIR COMPILER [ARGUMENT...]: with what was extracted to DIR.
compile() {
	"${@:2}" -std=gnu11 -Wall -Wextra -Werror -iquote "$1" \
		-I "$tree/tools/include" -isystem "$headers"
}
