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
	in_turn expect 'fault missing' 2 "lab: fault-missing: no program no-such-program in .*" \
		"$lab/run.sh" "$kerneldir" fault-missing
	in_turn expect 'fault word' 2 "lab: .*/fault-word: 'jump' is not a word of scenarios" \
		"$lab/run.sh" "$kerneldir" fault-word
	in_turn expect 'unknown ACCEL' 2 'lab: ACCEL=abacus: only tcg and kvm are known' \
		env ACCEL=abacus "$lab/run.sh" "$kerneldir" fault-fail
	in_turn expect '-n runs nothing' 0 'qemu-system-x86_64 .*' \
		"$lab/run.sh" -n "$kerneldir" fault-fail "$results/dry"
	in_turn test_killed
	wait
}

in_turn() {
	while (($(jobs -rp | wc -l) >= $(nproc))); do
		wait -n || :
	done
	"$@" &
}

test_fault() {
	expect "fault $1" 1 "lab: fault-$1: FAIL: ${2//\\T/\\[ *[0-9.]+\\]}" \
		"$lab/run.sh" "$kerneldir" "fault-$1"
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

# However the runner dies, the emulator dies with it.
test_killed() {
	local logdir=$results/killed runner

	"$lab/run.sh" "$kerneldir" fault-time-out "$logdir" >/dev/null 2>&1 &
	runner=$!
	until [[ -s $logdir/console.log ]]; do sleep 0.1; done
	kill -KILL "$runner"
	wait "$runner" 2>/dev/null || :
	sleep 0.2
	if pgrep -f "file:$logdir/verdict.log" >/dev/null; then
		result 'not ok' 'a killed runner leaves its emulator behind'
	else
		result ok 'a killed runner takes its emulator along'
	fi
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
