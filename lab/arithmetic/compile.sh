# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the scripts beside it: compile the arithmetic of a base's tree, which is
# the very file that the kernel is built from, as a program.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${here%/lab/arithmetic}
# shellcheck disable=SC2034 # for them
sources=("$here/oracle.c" "$here/checks.c" "$here/cases.c")

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
}

# compile COMPILER [ARGUMENT...]
compile() {
	"$@" -std=gnu11 -Wall -Wextra -Werror -iquote "$tree/arch/x86/kvm" \
		-I "$tree/tools/include" -isystem "$headers"
}
