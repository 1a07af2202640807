#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot a kernel in the lab, run a scenario on it, and judge what happened.
#
#	lab/run.sh [-n] KERNELDIR SCENARIO [LOGDIR]
#
# KERNELDIR has bzImage and modules/ (out/6.12, or out/6.12/before for the
# unpatched kernel). SCENARIO is a file in lab/scenarios:
#
#	needs WORD...		what the backend must have: amd or intel (the CPU),
#				scaling (of the TSC, by hardware)
#	cpus 2			CPUs for the programs, which need as many. Without this
#				line they get two, or one where there is only one
#	memory 1G		its memory
#	time counted		time is the number of instructions, not the host's: slower,
#				but nothing depends on how busy the host is. For tests
#				that compare times; emulators can do it, hardware cannot
#	cmdline WORD...		more words for the kernel's command line
#	timeout 120		seconds for everything, from power-on to power-off
#	silence 60		seconds that the console may say nothing
#	clocksource hpet	what to switch to once KVM is loaded
#	module NAME		another module to load after KVM
#	network N		plug the machine into a network of two, as number 1 or 2;
#				both are run with the same directory in NETWORK
#	files DIR		take what is in DIR along, as /files; DIR is in KERNELDIR or
#				the directory above it
#	kunit MODULE SUITE	a suite of KUnit that MODULE has; load kunit before
#	run 60 [may-skip] PROGRAM [ARGUMENT...]
#
# A program has the seconds that its line gives. It is looked for in selftests
# and programs of KERNELDIR and of the directory above it (the unpatched kernel
# runs the same ones), and in out/lab/bin. Exit status 0 is a pass; 4 is a skip,
# which is a failure unless the line allows it. Each case of a KUnit suite counts
# like a program; one that skips is a failure.
#
# LOGDIR (KERNELDIR/lab/SCENARIO) keeps console.log, verdict.log, emulator.log,
# PROGRAM.log (what the program printed; PROGRAM.2.log is its second run), and
# the command with its initramfs. -n prints the command instead of running it.
#
# Exit status: 0 pass, 1 fail, 2 the run could not be started.
#
# The first backend that can run the scenario does: kvm, hardware that can do nested
# virtualization; tcg, QEMU's emulation of AMD; bochs, an emulation of Intel with TSC
# scaling, and one CPU. ACCEL=kvm|tcg|bochs picks one.

set -euo pipefail

lab=$(cd "$(dirname "$0")" && pwd)
out=$(dirname "$lab")/out/lab

# What the kernel says when something is wrong: a name and a pattern. The first
# that matches names the failure, so what is more specific comes first.
badness=(
	'lockdep splat'	'WARNING: (possible .* detected|inconsistent lock|bad (un)?lock|held lock|lock held|.*locks held|suspicious RCU|.*-safe -> .*-unsafe|Nested lock)|BUG: (Invalid wait context|.*held lock|MAX_LOCK)'
	'soft lockup'	'BUG: soft lockup'
	'hard lockup'	'[Hh]ard LOCKUP'
	'hung task'	'INFO: task .* blocked'
	'RCU stall'	'rcu.*(detected|self-detected) .*stall|rcu.*kthread starved'
	'oops'		'Oops: |BUG: unable to handle|BUG: kernel NULL|kernel BUG at|PANIC: '
	'kernel bug'	'BUG: |UBSAN: |KASAN: '
	'kernel warning' 'WARNING: '
	'kernel panic'	'Kernel panic - not syncing'
	'stack trace'	'\[ cut here \]|Call Trace:'
)

# What scenarios can need, and some backends do not have.
declare -A things=(
	[amd]='AMD CPU' [intel]='Intel CPU' [scaling]='TSC scaling' [smp]='second CPU'
	[network]='network'
)

# shellcheck disable=SC2054 # a word has a comma
common_cmdline=(
	console=ttyS0,115200 printk.devkmsg=on tsc=reliable
	panic=-1 oops=panic panic_on_warn=1
	watchdog_thresh=30 sysctl.kernel.softlockup_panic=1
	sysctl.kernel.hung_task_panic=1 sysctl.kernel.hung_task_timeout_secs=60
	rcupdate.rcu_cpu_stall_timeout=60
)

main() {
	local dry_run=

	[[ ${1-} != -n ]] || { dry_run=1; shift; }
	(($# == 2 || $# == 3)) || die "usage: lab/run.sh [-n] KERNELDIR SCENARIO [LOGDIR]"
	kerneldir=$1 scenario=$2 logdir=${3-$1/lab/$2}
	[[ -f $kerneldir/bzImage ]] || die "$kerneldir/bzImage is missing: build the kernel first"

	read_scenario "$lab/scenarios/$scenario"
	select_backend
	"backend_$backend"
	mkdir -p "$logdir"
	[[ $dry_run ]] || rm -f "$logdir"/*.log
	make_initramfs
	if [[ $dry_run ]]; then
		show_command
		return
	fi
	boot
	extract_outputs
	judge
}

die() {
	echo "lab: $*" >&2
	exit 2
}

# --- the scenario -----------------------------------------------------------

read_scenario() {
	local key rest

	[[ -f $1 ]] || die "$1: no such scenario"
	cpus=2 needs='' network='' files='' memory=1G time=real timeout=300 silence=60 cmdline='' runs=0 suites=0
	modules=() programs=() for_init=()
	while read -r key rest; do
		case $key in
		'' | '#'*) ;;
		needs) read_needs "$rest" ;;
		cpus) cpus=$rest; [[ $rest == 1 ]] || needs+=' smp' ;;
		network) network=$rest needs+=' network'
			[[ -d ${NETWORK-} ]] || die "$1: NETWORK has to name a directory" ;;
		files | memory | time | timeout | silence | cmdline) printf -v "$key" %s "$rest" ;;
		clocksource) for_init+=("clocksource $rest") ;;
		module) modules+=("$rest") for_init+=("module $rest") ;;
		kunit) modules+=("${rest%% *}") for_init+=("kunit $rest") suites=$((suites + 1)) ;;
		run) read_run "$rest" ;;
		*) die "$1: '$key' is not a word of scenarios" ;;
		esac
	done <"$1"
}

read_needs() {
	local word

	for word in $1; do
		[[ ${things[$word]-} ]] || die "$scenario: '$word' is nothing that a backend can have"
		needs+=" $word"
		[[ $word != scaling ]] || for_init+=("needs-scaling")
	done
}

read_run() {
	local words skip=must-run name n=1

	read -ra words <<<"$1"
	[[ ${words[1]-} != may-skip ]] || { skip=may-skip; words=("${words[0]}" "${words[@]:2}"); }
	((${#words[@]} > 1)) || die "$scenario: 'run $1' names no program"
	name=${words[1]}
	while [[ ${for_init[*]-} == *"run $name "* ]]; do
		name=${words[1]}.$((++n))
	done
	programs+=("${words[1]}")
	for_init+=("run $name ${words[0]} $skip /bin/${words[*]:1}")
	runs=$((runs + 1))
}

# --- backends: one function each, which sets emulator to a command that has the
# console on its standard output and writes the second serial port to
# verdict.log ----------------------------------------------------------------

select_backend() {
	local reason reasons=''

	[[ ${ACCEL-} =~ ^(kvm|tcg|bochs|)$ ]] || die "ACCEL=$ACCEL: only kvm, tcg and bochs are known"
	for backend in ${ACCEL:-kvm tcg bochs}; do
		reason=$(why_not)
		[[ $reason ]] || return 0
		reasons+="${reasons:+; }$backend $reason"
	done
	die "$scenario cannot be run${ACCEL:+ with ACCEL=$ACCEL}: $reasons"
}

# Why the backend cannot run the scenario; nothing if it can.
why_not() {
	local has word

	case $backend in
	kvm)	nested_kvm || { echo 'needs svm or vmx in /proc/cpuinfo, and /dev/kvm readable and writable'; return; }
		has="smp network $(hardware_has)" ;;
	tcg)	has='smp network amd' ;;
	bochs)	has='intel scaling' ;;
	esac
	for word in $needs; do
		[[ " $has " == *" $word "* ]] || { echo "has no ${things[$word]}"; return; }
	done
}

hardware_has() {
	grep -owE 'svm|vmx|tsc_scale|tsc_scaling' /proc/cpuinfo | sort -u |
		sed 's/svm/amd/; s/vmx/intel/; s/tsc_.*/scaling/' | paste -sd ' '
}

nested_kvm() {
	grep -qwE '^flags.*(svm|vmx)' /proc/cpuinfo && (: <>/dev/kvm) 2>/dev/null
}

backend_tcg() {
	if [[ $time == counted ]]; then
		tsc_khz=1000000
		qemu -accel tcg,thread=single -icount shift=1,sleep=off -cpu EPYC,+svm,+npt
	else
		spare_cpu_0
		qemu -accel tcg,thread=multi -cpu EPYC,+svm,+npt
	fi
}

# Whichever CPU restores its FPU, QEMU clears a bit of CPU 0's hflags2 then, without
# a lock (cpu_clear_ignne() in target/i386/tcg, seen in 7.2). VMRUN and #VMEXIT
# write that word, too: CPU 0 can lose that it takes interrupts, or which page
# tables it uses. So it runs no guests.
spare_cpu_0() {
	cpus=$((cpus + 1))
	for_init+=("spare-cpu-0")
}

backend_kvm() {
	qemu -accel kvm -cpu host,migratable=no,+invtsc
}

# Early in the boot the kernel often measures the TSC's rate wrongly when the
# machine is busy, and then keeps the wrong rate: tell it. QEMU's TSC runs at
# the rate of this machine's.
qemu() {
	local plug=()

	[[ ${tsc_khz-} ]] || { build tsc_khz; tsc_khz=$("$out/tsc_khz"); }
	[[ ! $network ]] || plug=(-device 'virtio-net-pci,netdev=network,romfile='
		-netdev "dgram,id=network,local.type=unix,local.path=$NETWORK/$network,remote.type=unix,remote.path=$NETWORK/$((3 - network))")
	emulator=(qemu-system-x86_64 "$@" -smp "$cpus" -m "$memory"
		-nodefaults -no-user-config -display none -no-reboot "${plug[@]}"
		-serial stdio -serial "file:$logdir/verdict.log"
		-kernel "$kerneldir/bzImage" -initrd "$logdir/initramfs.gz"
		-append "${common_cmdline[*]} tsc_early_khz=$tsc_khz${cmdline:+ $cmdline}")
}

# It has one CPU, and a guest that has interrupts disabled keeps it: an interrupt of
# the host does not end VMX non-root mode then, as it should. Tasks wait that long:
# in tsc_scaling_sync for twenty vCPUs of 5 s each.
bochs_cmdline=(rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.hung_task_timeout_secs=300)

backend_bochs() {
	local words

	read -ra words <<<"$cmdline"
	emulator=("$lab/bochs.sh" "$kerneldir/bzImage" "$logdir/initramfs.gz" "$memory" "$logdir"
		"${common_cmdline[@]}" "${bochs_cmdline[@]}" "${words[@]}")
}

show_command() {
	printf '%q ' "${emulator[@]}"
	echo
}

# --- the machine's files ----------------------------------------------------

make_initramfs() {
	stage=$(mktemp -d)
	trap cleanup EXIT
	build init
	fill_stage
	(cd "$stage" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$logdir/initramfs.gz"
}

cleanup() {
	[[ ! ${pid-} ]] || kill -KILL "$pid" 2>/dev/null || :
	rm -rf "$stage"
}

fill_stage() {
	local name program from

	mkdir "$stage/bin" "$stage/modules"
	strip -o "$stage/init" "$out/init"
	for name in irqbypass kvm kvm-amd kvm-intel "${modules[@]}"; do
		cp "$kerneldir/modules/$name.ko" "$stage/modules" 2>/dev/null ||
			die "$kerneldir/modules/$name.ko is missing: build the kernel first"
	done
	for name in "${programs[@]}"; do
		program=$(find_program "$name")
		strip -o "$stage/bin/$name" "$program"
	done
	if [[ $files ]]; then
		from=$(find_files)
		cp -rL "$from" "$stage/files"
	fi
	printf '%s\n' "${for_init[@]}" >"$stage/scenario"
}

find_files() {
	local dir

	for dir in "$kerneldir"/{.,..}; do
		[[ ! -d $dir/$files ]] || { echo "$dir/$files"; return; }
	done
	die "$scenario: no $files in $kerneldir or the directory above it: build it first"
}

find_program() {
	local dir

	for dir in "$kerneldir"/{.,..}/{selftests,programs} "$out/bin"; do
		[[ ! -x $dir/$1 ]] || { echo "$dir/$1"; return; }
	done
	die "$scenario: no program $1 in selftests or programs of $kerneldir or the directory above it: build it first"
}

# Several runs may come here at once: each builds its own, one stays.
build() {
	local new

	[[ ! $out/$1 -nt $lab/$1.c ]] || return 0
	mkdir -p "$out"
	new=$(mktemp "$out/$1.XXXXXX")
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -o "$new" "$lab/$1.c" ||
		die "cannot build lab/$1.c"
	mv "$new" "$out/$1"
}

# --- the run ----------------------------------------------------------------

# Sets ending to how it ended: power-off, silence or time-out.
boot() {
	local start=$EPOCHREALTIME deadline=$((SECONDS + timeout)) wait line console status

	: >"$logdir/verdict.log"
	show_command >"$logdir/command"
	# The emulator dies with this script, however this script dies.
	exec {console}< <(exec setpriv --pdeathsig KILL "${emulator[@]}" </dev/null 2>"$logdir/emulator.log")
	pid=$!
	while wait=$((deadline - SECONDS)); do
		((wait > 0)) || { ending='time-out'; break; }
		((wait < silence)) || wait=$silence
		status=0
		IFS= read -r -t "$wait" -u "$console" line || status=$?
		[[ ! $line ]] || printf '%s\n' "${line%$'\r'}"
		((status <= 128)) || { ending=silence; ((SECONDS < deadline)) || ending='time-out'; break; }
		((status == 0)) || { ending=power-off; break; }
	done >"$logdir/console.log"
	exec {console}<&-
	[[ $ending == power-off ]] || kill -KILL "$pid" 2>/dev/null || :
	emulator_status=0
	wait "$pid" 2>/dev/null || emulator_status=$?
	pid=
	took=$(((${EPOCHREALTIME/./} - ${start/./}) / 100000))
	took=$((took / 10)).$((took % 10))
}

# What each program printed, as it printed it.
extract_outputs() {
	awk -v dir="$logdir" '
		!sub(/^\[ *[0-9.]+\] # /, "") { next }
		$1 == "run" { log_of[$2] = dir "/" $3 ".log"; printf "" >log_of[$2]; next }
		match($0, /^[0-9]+[:+] /) {
			k = substr($0, 1, RLENGTH - 2)
			if (k in log_of)
				printf "%s%s", substr($0, RLENGTH + 1),
				       substr($0, RLENGTH - 1, 1) == ":" ? "\n" : "" >log_of[k]
		}' "$logdir/console.log"
}

# --- the judgement ----------------------------------------------------------

fail() {
	echo "lab: $scenario: FAIL: $*"
	echo "lab: $scenario: logs are in $logdir"
	exit 1
}

judge() {
	check_console
	case $ending in
	silence) fail "silence: nothing on the console for $silence s" ;;
	time-out) fail "time-out: not done after $timeout s" ;;
	esac
	((emulator_status == 0)) || fail "the emulator failed (status $emulator_status): $(tail -n 1 "$logdir/emulator.log")"
	check_verdict
	echo "lab: $scenario: pass ($backend): ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped, $took s"
}

# Programs may print what they like: their lines are not the kernel's.
check_console() {
	local i line kernel

	kernel=$(grep -vE '^\[ *[0-9.]+\] (# [0-9]+[:+]|(not )?ok [0-9]+) ' "$logdir/console.log" || :)
	for ((i = 0; i < ${#badness[@]}; i += 2)); do
		line=$(grep -m 1 -E "${badness[i + 1]}" <<<"$kernel") || continue
		fail "${badness[i]}: $line"
	done
}

check_verdict() {
	local verdict total

	verdict=$(tr -d '\r' <"$logdir/verdict.log")
	[[ $verdict ]] || fail "no verdict: the machine went off before init gave one"
	[[ $verdict =~ ^verdict:\ (pass|fail)\ ([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped(:\ (.*))?$ ]] ||
		fail "malformed verdict: $verdict"
	counts=("${BASH_REMATCH[@]:2:3}")
	[[ ! ${BASH_REMATCH[6]} ]] || fail "${BASH_REMATCH[6]}"
	total=$((counts[0] + counts[1] + counts[2]))
	((counts[1] == 0)) || fail_tests "$total"
	# How many cases a suite has is for init to know and to check.
	((suites ? total > runs : total == runs)) || fail "$total of $runs programs were run"
	[[ ${BASH_REMATCH[1]} == pass ]] || fail "the verdict is fail, without a reason"
}

fail_tests() {
	fail "${counts[1]} of $1 failed: $(sed -nE 's/^\[ *[0-9.]+\] not ok [0-9]+ ([^ ]+) #/\1/p' "$logdir/console.log" |
		paste -sd ';' | sed 's/;/; /g')"
}

main "$@"
