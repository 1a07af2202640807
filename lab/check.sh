#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All tests, for each base that is named: `make check`.
#
#	lab/check.sh BASE...
#
# A step that fails does not stop the others. Every step keeps its output in
# out/check. A step whose last line has "N passed, N failed" counts as that many,
# every other one as one. The sum is the last line. What may skip says so in its
# scenario; a skip anywhere else is a failure.

# shellcheck disable=SC2317 # steps are called by name
set -uo pipefail

lab=$(cd "$(dirname "$0")" && pwd)
root=${lab%/lab}
logs=$root/out/check
passed=0 failed=0 skipped=0
failures=()

main() {
	local base

	(($# > 0)) || { echo "usage: lab/check.sh BASE..." >&2; exit 2; }
	cd "$root" || exit
	mkdir -p "$logs"
	step packages assembler/packages.sh || finish
	step shellcheck check_scripts
	step assembler assembler/test.sh
	for base; do
		check_base "$base"
	done
	finish
}

check_base() {
	local base=$1 source=(step)

	# Debian's default suites have 6.12; a later kernel can be gone from there.
	[[ $base == 6.12 ]] || source=(source_step LINUX)
	"${source[@]}" "$base source" assembler/source.sh "$base" || return
	step "$base tree" assembler/assemble.sh tree "$base" || return
	step "$base round trip" check_round_trip "$base"
	step "$base series" assembler/assemble.sh series "$base"
	step "$base checkpatch" check_patches "$base"
	[[ $base != 6.12 ]] || check_arithmetic "$base"

	step "$base unpatched tree" assembler/before.sh "$base"
	step "$base kernel" lab/build.sh "out/$base/linux" "out/$base" "$base" || return
	step "$base unpatched kernel" lab/build.sh "out/$base/before/linux" "out/$base/before" "$base"
	step "$base selftests" lab/selftests.sh "out/$base/linux" "out/$base"
	step "$base programs" lab/demo/build.sh "$base"
	step "$base sparse and W=1" check_warnings "$base"
	step "$base headers" check_headers "$base"
	step "$base documentation" check_documentation "$base"

	[[ $base != 6.12 ]] || step "the lab itself" lab/test.sh "out/$base"
	step "$base KUnit" lab/run.sh "out/$base" kunit
	step "$base pvclock" lab/run.sh "out/$base" pvclock
	step "$base pvclock, leaving" lab/run.sh "out/$base" pvclock-leave
	step "$base pvclock, unstable TSC" lab/run.sh "out/$base" pvclock-unstable
	step "$base pvclock, scaled TSC" run_both "out/$base" scaling "out/$base" scaling-migration
	step "$base clock selftests" check_clock_selftests "$base" clock-selftests
	step "$base clock selftests, Intel" check_clock_selftests "$base" clock-selftests-intel
	step "$base demo" lab/demo/run.sh "$base"
	[[ $base != 6.12 ]] || check_migration "$base"
}

# A guest that moves there and back. Once, as QEMU and what it needs take a while.
check_migration() {
	source_step QEMU QEMU integrations/qemu/build.sh || return
	step "programs of migrate" lab/migrate/build.sh "$1" || return
	step migration lab/migrate/run.sh "$1" short
}

# On the base whose source can always be had: guest_clock.h is the same for all.
check_arithmetic() {
	step "arithmetic" lab/arithmetic/property.sh "$1"
	step "arithmetic, fuzzed" lab/arithmetic/fuzz.sh "$1"
	step "arithmetic, broken on purpose" lab/arithmetic/mutate.sh "$1"
}

# --- steps ------------------------------------------------------------------

# step NAME COMMAND...
step() {
	local name=$1 log=$logs/${1// /-}.log start=$SECONDS status

	shift
	echo "== $name"
	"$@" 2>&1 </dev/null | tee "$log" | sed -u 's/^/   /'
	status=${PIPESTATUS[0]}
	[[ $status != 3 || ! ${variable-} ]] || { skip "$name" "$log"; return 3; }
	count "$name" "$log" "$status"
	echo "   $name: $( ((status == 0)) && echo passed || echo FAILED), $((SECONDS - start)) s"
	return "$status"
}

count() {
	local sum='([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?'

	(($3 == 0)) || failures+=("$1" "$2")
	if [[ $(tail -n 1 "$2") =~ $sum ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		skipped=$((skipped + ${BASH_REMATCH[4]:-0}))
		(($3 == 0 || BASH_REMATCH[2] > 0)) || failed=$((failed + 1))
	elif (($3 == 0)); then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
}

# source_step VARIABLE NAME COMMAND...: a source that cannot be had, exit status 3, is
# no failure.
source_step() {
	local variable=$1

	step "${@:2}"
}

skip() {
	cat <<-E

	   ************************************************************************
	   SKIPPED: $1, and all that needs it. The source cannot be had from here:
	   see $2. Give it with $variable=dir-or-tarball.
	   ************************************************************************

	E
	skipped=$((skipped + 1))
}

finish() {
	show_failures
	echo
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0 && passed > 0))
	exit
}

# Who sees only the end of the output still sees why.
show_failures() {
	local i

	for ((i = 0; i < ${#failures[@]}; i += 2)); do
		printf '\n%s failed, see %s:\n' "${failures[@]:i:2}"
		tail -n 5 "${failures[i + 1]}" | sed 's/^/   /'
	done
}

# --- what is checked --------------------------------------------------------

check_scripts() {
	shellcheck -x .ci/run assembler/*.sh integrations/*/*.sh lab/*.sh lab/*/*.sh &&
		gcc -std=gnu11 -Wall -Wextra -Werror -fsyntax-only lab/init.c lab/faults/*.c &&
		clang -std=gnu11 -Wall -Wextra -Werror -fsyntax-only lab/init.c lab/faults/*.c
}

# tree and refresh without an edit leave the repository as it was.
check_round_trip() {
	local before after

	before=$(checksums)
	assembler/assemble.sh refresh "$1" || return
	after=$(checksums)
	diff <(echo "$before") <(echo "$after") && echo "nothing changed"
}

checksums() {
	find patches arch include Documentation tools -type f -exec sha256sum {} + 2>/dev/null | sort -k 2
}

# The cover letter has no diff, Signed-off-by is added by people, and a checkpatch
# that is older than the rules for Assisted-by expects another format.
# Debian's python has the modules that checkpatch's helper needs.
check_patches() {
	local mail ignore=FILE_PATH_CHANGES bad=0

	cd "out/$1/linux" || return
	[[ -f Documentation/process/coding-assistants.rst ]] || ignore+=,BAD_SIGN_OFF
	for mail in ../series/*.patch; do
		[[ $mail != */0000-* ]] || continue
		PATH=/usr/bin:$PATH ./scripts/checkpatch.pl --strict --quiet --no-signoff \
			--ignore "$ignore" "$mail" || bad=1
	done
	return "$bad"
}

# sparse and W=1 say nothing about the files of the series that they do not say
# without it.
check_warnings() {
	local files before after

	mapfile -t files < <(git -C "out/$1/linux" diff --name-only --diff-filter=d \
		base series -- 'arch/**.c' 'virt/**.c')
	before=$(warnings "$1/before" "${files[@]}") || return
	after=$(warnings "$1" "${files[@]}") || return
	no_new_lines "$before" "$after" && echo "no new warnings in ${files[*]}"
}

# Both are sorted.
no_new_lines() {
	local new

	mapfile -t new < <(comm -13 <(echo "$1") <(echo "$2"))
	((${#new[@]} == 0)) || { printf 'new: %s\n' "${new[@]}"; return 1; }
}

# warnings TREE FILE...: in the tree itself, as a separate object directory would
# mean a whole kernel. The next build compiles the files once more. The tree
# without the series has no new files. sparse counts locks, but cannot follow
# guard(): later kernels do not let it.
warnings() {
	local tree=out/$1/linux files

	shift
	mapfile -t files < <(cd "$tree" && ls "$@" 2>/dev/null)
	(cd "$tree" && touch "${files[@]}" &&
		make -k LOCALVERSION= C=1 CF=-Wno-context W=1 CONFIG_KVM_WERROR= "${files[@]/%.c/.o}" 2>&1) |
		sed -nE '/warning:|error:|Error /s/:[0-9]+(:[0-9]+)?:/:/p' | sort -u
}

# run_both KERNELDIR SCENARIO KERNELDIR SCENARIO: at once. For emulators that take one
# CPU and that count instructions as time, so that no other work disturbs them.
run_both() {
	local status=0

	lab/run.sh "$1" "$2" &
	lab/run.sh "$3" "$4" || status=$?
	wait $! && return "$status"
}

# check_clock_selftests BASE SCENARIO: the same results without and with the series.
check_clock_selftests() {
	run_both "out/$1/before" "$2" "out/$1" "$2" &&
		lab/compare.sh "out/$1/before/lab/$2" "out/$1/lab/$2"
}

# The header is complete by itself, for C and C++, 64 and 32 bits.
check_headers() {
	local include=out/$1/linux/usr/include program
	local compilers=('gcc -xc' 'gcc -xc -m32' 'clang -xc' 'g++ -xc++' 'clang++ -xc++') compiler

	program='#include <asm/pvclock-abi.h>
		struct pvclock_vcpu_time_info info;
		int size_is_32[sizeof(info) == 32 ? 1 : -1];'
	for compiler in "${compilers[@]}"; do
		# shellcheck disable=SC2086 # a command and its flags
		$compiler -Wall -Wextra -Werror -pedantic -isystem "$include" -fsyntax-only - <<<"$program" || return
		echo "$compiler: ok"
	done
	check_hypercalls "$1"
}

# htmldocs says nothing about the pages on KVM that it does not say without the series.
check_documentation() {
	local before after

	before=$(documentation_warnings "$1/before") || return
	after=$(documentation_warnings "$1") || return
	no_new_lines "$before" "$after" || return
	ls "out/$1/build/documentation/Documentation/output/virt/kvm"/{api,devices/vcpu,x86/guest-clock}.html
}

# documentation_warnings TREE
documentation_warnings() {
	local tree=out/$1/linux build=$root/out/$1/build/documentation

	rm -rf "$build"
	PATH=/usr/bin:$PATH make -C "$tree" O="$build" SPHINXDIRS=virt/kvm htmldocs >"$build.log" 2>&1 ||
		{ echo "htmldocs failed, see $build.log" >&2; return 1; }
	sed -nE '/WARNING|ERROR/ { s/:[0-9]+:/:/; s,^.*/Documentation/,,; p }' "$build.log" | sort -u
}

# scripts/xen-hypercalls.sh reads headers that include pvclock-abi.h, and not as
# the kernel does: a header can bring it errors, or warnings.
check_hypercalls() {
	local tree

	for tree in "$1/before" "$1"; do
		hypercalls "$tree" >"out/$tree/xen-hypercalls.log" 2>&1 || return
	done
	grep -q HYPERCALL "out/$1/xen-hypercalls.log" &&
		diff "out/$1/before/xen-hypercalls.log" "out/$1/xen-hypercalls.log" &&
		echo "xen-hypercalls.sh: the same output as without the series"
}

# The compiler and the paths are those of the kernel's Makefile.
hypercalls() (
	arch=arch/x86/include

	cd "out/$1/linux" || return
	CPP='gcc -E' LINUXINCLUDE="-I$arch -I$arch/generated -Iinclude
		-I$arch/uapi -I$arch/generated/uapi -Iinclude/uapi -Iinclude/generated/uapi
		-include include/linux/compiler-version.h -include include/linux/kconfig.h" \
		sh scripts/xen-hypercalls.sh /dev/stdout include/xen/interface/xen*.h
)

main "$@"
