#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test the lab itself: each scenario fault-* goes wrong on purpose, and run.sh
# has to fail, and to say what it was and nothing else.
#
#	lab/test.sh KERNELDIR

set -euo pipefail

lab=$(cd "$(dirname "$0")" && pwd)
bin=$(dirname "$lab")/out/lab/bin

# A scenario and the message that it has to end with. \T is a time stamp.
faults=(
	time-out	'time-out: not done after 10 s'
	clocksource	'after 20 s the clocksource is hpet and not tsc'
	dead-kernel	'silence: nothing on the console for 8 s'
	silence		'silence: nothing on the console for 8 s'
	panic		'kernel panic: \T Kernel panic - not syncing: dumptest'
	oops		'oops: \T BUG: kernel NULL pointer dereference, address: 0000000000000000'
	bug		'oops: \T kernel BUG at drivers/misc/lkdtm/bugs.c:[0-9]+!'
	warn		'kernel warning: \T WARNING: .*lkdtm.*'
	taint		'the kernel is tainted: 0x200'
	lockdep		'lockdep splat: \T WARNING: possible circular locking dependency detected'
	soft-lockup	'soft lockup: \T watchdog: BUG: soft lockup - CPU#[0-9] stuck for [0-9]+s! .*'
	hung-task	'hung task: \T INFO: task fault:[0-9]+ blocked.* for more than [0-9]+ seconds\.'
	hang		'1 of 2 failed: fault hangs: over its limit of 2 s'
	hang-child	'1 of 1 failed: fault hangs: over its limit of 2 s'
	fail		'1 of 2 failed: fault.2 exit 1'
	signal		'1 of 1 failed: fault signal 11'
	skip		'1 of 2 failed: fault.2 must run but skips: on purpose'
	kunit-fail	'1 of 2 failed: fault_fail.fail failed'
	kunit-skip	'1 of 2 failed: fault_skip.skip skips'
	kunit-init	'KUnit suite fault_init: 0 of 1 cases have a result'
	kunit-empty	'kunit_fault has no KUnit suite fault_empty'
	kunit-missing	'kunit_fault has no KUnit suite no_such_suite'
	kunit-taint	'the kernel is tainted: 0x40000'
	all-skip	'nothing passed'
	nothing		'nothing was run'
	power-off	'no verdict: the machine went off before init gave one'
	forge		'no verdict: the machine went off before init gave one'
	no-init		'kernel panic: \T Kernel panic - not syncing: .*'
	emulator	'the emulator failed \(status 1\): .*'
)

# Once more on the backend that is not QEMU: each way for a run to end.
bochs_faults=(
	dead-kernel	'silence: nothing on the console for 8 s'
	panic		'kernel panic: \T Kernel panic - not syncing: dumptest'
	hang		'1 of 2 failed: fault hangs: over its limit of 2 s'
	fail		'1 of 2 failed: fault.2 exit 1'
	emulator	'the emulator failed \(status 2\): .*'
	reboot		'the emulator failed \(status 1\): bochs: ended without a power-off: .*'
)

main() {
	(($# == 1)) || { echo "usage: lab/test.sh KERNELDIR" >&2; exit 2; }
	kerneldir=$1
	results=$(mktemp -d)
	trap 'rm -rf "$results"' EXIT
	build_fault
	build_kunit_fault
	run_all
	summary
}

build_fault() {
	[[ ! $bin/fault -nt $lab/faults/fault.c ]] || return 0
	mkdir -p "$bin"
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -o "$results/fault" "$lab/faults/fault.c"
	mv "$results/fault" "$bin/fault"
}

# A module is of the kernel that it is built with.
build_kunit_fault() {
	cp -r "$lab/faults/kunit" "$results"
	make -s -C "$kerneldir/linux" M="$results/kunit" modules
	cp "$results/kunit/kunit_fault.ko" "$kerneldir/modules"
}

# One at a time on each CPU; they wait more than they compute.
run_all() {
	local i

	for ((i = 0; i < ${#faults[@]}; i += 2)); do
		in_turn test_fault "${faults[i]}" "${faults[i + 1]}"
	done
	for ((i = 0; i < ${#bochs_faults[@]}; i += 2)); do
		ACCEL=bochs in_turn test_fault "${bochs_faults[i]}" "${bochs_faults[i + 1]}"
	done
	in_turn expect 'fault missing' 2 "lab: fault-missing: no program no-such-program in .*" \
		"$lab/run.sh" "$kerneldir" fault-missing
	in_turn expect 'fault word' 2 "lab: .*/fault-word: 'jump' is not a word of scenarios" \
		"$lab/run.sh" "$kerneldir" fault-word
	in_turn expect 'fault files' 2 "lab: fault-files: no no/such/directory in .*" \
		"$lab/run.sh" "$kerneldir" fault-files
	in_turn expect 'network without a directory' 2 "lab: .*/migrate-2: NETWORK has to name a directory" \
		env -u NETWORK "$lab/run.sh" "$kerneldir" migrate-2
	in_turn expect 'unknown ACCEL' 2 'lab: ACCEL=abacus: only kvm, tcg and bochs are known' \
		env ACCEL=abacus "$lab/run.sh" "$kerneldir" fault-fail
	test_needs
	in_turn expect '-n runs nothing' 0 'qemu-system-x86_64 .*' \
		"$lab/run.sh" -n "$kerneldir" fault-fail "$results/dry"
	in_turn test_killed
	ACCEL=bochs in_turn test_killed
	in_turn test_unscaled
	wait
}

in_turn() {
	while (($(jobs -rp | wc -l) >= $(nproc))); do
		wait -n || :
	done
	"$@" &
}

test_fault() {
	expect "fault $1${ACCEL:+ ($ACCEL)}" 1 "lab: fault-$1: FAIL: ${2//\\T/\\[ *[0-9.]+\\]}" \
		"$lab/run.sh" "$kerneldir" "fault-$1" "$kerneldir/lab/fault-$1${ACCEL:+-$ACCEL}"
}

# What cannot run where it was to run, or nowhere, and why.
test_needs() {
	in_turn expect 'needs: an unknown word' 2 "lab: fault-need: 'luck' is nothing that a backend can have" \
		"$lab/run.sh" "$kerneldir" fault-need
	in_turn expect 'needs: nowhere' 2 \
		'lab: fault-nowhere cannot be run: kvm (needs|has no) .*; tcg has no TSC scaling; bochs has no AMD CPU' \
		"$lab/run.sh" "$kerneldir" fault-nowhere
	in_turn expect 'needs: scaling, not with QEMU' 2 \
		'lab: scaling cannot be run with ACCEL=tcg: tcg has no TSC scaling' \
		env ACCEL=tcg "$lab/run.sh" "$kerneldir" scaling
	in_turn expect 'needs: several CPUs, not with Bochs' 2 \
		'lab: pvclock cannot be run with ACCEL=bochs: bochs has no second CPU' \
		env ACCEL=bochs "$lab/run.sh" "$kerneldir" pvclock
	in_turn expect 'needs: scaling, on the first that has it' 0 '(qemu-system-x86_64 -accel kvm|.*/bochs.sh) .*' \
		"$lab/run.sh" -n "$kerneldir" scaling "$results/scaling"
}

# expect NAME STATUS FIRST-LINE COMMAND...
expect() {
	local name=$1 status=$2 pattern=$3 got=0 output

	shift 3
	output=$("$@" 2>&1) || got=$?
	output=${output%%$'\n'*}
	if ((got == status)) && [[ $output =~ ^$pattern$ ]]; then
		result ok "$name: ${output#lab: *: }"
	else
		result 'not ok' "$name: exit status $got, not $status, or another message: $output"
	fi
}

# However the runner dies, all that it started dies with it. The machine says nothing
# more then: an emulator may also die of a console that nobody hears.
test_killed() {
	local logdir=$results/killed-${ACCEL-} runner tries=0

	"$lab/run.sh" "$kerneldir" fault-dead-kernel "$logdir" >/dev/null 2>&1 &
	runner=$!
	until grep -qs HARDLOCKUP "$logdir/console.log"; do
		kill -0 "$runner" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$runner" 2>/dev/null ||
		{ result 'not ok' "a runner ends before it can be killed${ACCEL:+ ($ACCEL)}"; return; }
	wait "$runner" 2>/dev/null || :
	while pgrep -f "$logdir/" >/dev/null && ((tries++ < 50)); do sleep 0.1; done
	if pgrep -f "$logdir/" >/dev/null; then
		result 'not ok' "a killed runner leaves its emulator behind${ACCEL:+ ($ACCEL)}"
	else
		result ok "a killed runner takes its emulator along${ACCEL:+ ($ACCEL)}"
	fi
}

# Where KVM cannot scale the TSC after all, a scenario that needs it runs nothing:
# the initramfs for the one emulator, booted on the other.
test_unscaled() {
	local dir=$results/unscaled command

	command=$(ACCEL=tcg "$lab/run.sh" -n "$kerneldir" fault-fail "$dir") || :
	ACCEL=bochs "$lab/run.sh" -n "$kerneldir" scaling "$dir" >/dev/null || :
	eval "timeout 60 $command" >/dev/null 2>&1 </dev/null || :
	expect 'needs: scaling, which KVM does not have' 0 \
		'verdict: fail 0 passed, 0 failed, 0 skipped: KVM cannot scale the TSC' \
		sed 's/\r$//' "$dir/verdict.log"
}

result() {
	echo "$1 - $2" | tee -a "$results/list"
}

summary() {
	local passed failed

	passed=$(grep -c '^ok ' "$results/list" || :)
	failed=$(grep -c '^not ok ' "$results/list" || :)
	echo "$passed passed, $failed failed"
	((passed > 0 && failed == 0))
}

main "$@"
