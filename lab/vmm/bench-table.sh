#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the table of `make bench` from what lab/vmm/bench.c printed on both
# kernels. Fails when a figure is missing, and not when a goal is missed.
#
#	lab/vmm/bench-table.sh BASE UNPATCHED.log PATCHED.log

set -euo pipefail

sizes=(1 8 64 256)
old_calls=(KVM_RUN First-KVM_RUN KVM_GET_TSC_KHZ KVM_SET_TSC_KHZ KVM_GET_CLOCK KVM_SET_CLOCK)
new_calls=(KVM_GET_CLOCK_GUEST KVM_SET_CLOCK_GUEST)
declare -A counts	# of instructions: KERNEL.CALL.VCPUS

main() {
	(($# == 3)) || { echo "usage: lab/vmm/bench-table.sh BASE UNPATCHED.log PATCHED.log" >&2; exit 2; }
	read_counts unpatched "$2" "${old_calls[@]}"
	read_counts patched "$3" "${old_calls[@]}" "${new_calls[@]}"
	print_counts "$1"
	print_goals
}

# read_counts KERNEL LOG CALL...: the calls have to be there
read_counts() {
	local kernel=$1 log=$2 word call size count

	shift 2
	while read -r word call size count; do
		# Of what is measured twice and need not be the same, take the lower one.
		[[ $word != count || ${counts["$kernel.$call.$size"]-$count} -lt $count ]] ||
			counts["$kernel.$call.$size"]=$count
	done <"$log"
	for call; do
		for size in "${sizes[@]}"; do
			[[ ${counts["$kernel.$call.$size"]-} || $call.$size == First-KVM_RUN.1 ]] ||
				{ echo "bench: $log has no figure of $call with $size vCPUs" >&2; exit 1; }
		done
	done
}

print_counts() {
	local call

	cat <<-E

	Instructions per call, from userspace to userspace, on kernel $1: counted by the
	emulator that ran it (QEMU's TCG), the median of many calls, and the same in two
	measurements; First-KVM_RUN is a mean, the lower of two. They are no times, and say
	nothing about hardware.

	E
	printf '%38s%8s%8s%8s%8s\n' 'vCPUs:' "${sizes[@]}"
	for call in "${old_calls[@]}"; do
		print_row 'unpatched' unpatched "$call"
		print_row 'with the series' patched "$call"
	done
	for call in "${new_calls[@]}"; do
		print_row 'with the series' patched "$call"
	done
}

# print_row NAME KERNEL CALL
print_row() {
	local size

	printf '%-17s%-21s' "$1" "$3"
	for size in "${sizes[@]}"; do
		printf '%8s' "${counts["$2.$3.$size"]--}"
	done
	echo
}

# What a call may cost at most, for each size in per cent of another call.
print_goals() {
	printf '\n%-40s%8s%10s%10s\n' '' 'vCPUs' 'ratio' 'at most'
	compare KVM_GET_CLOCK_GUEST patched KVM_GET_TSC_KHZ 105 105 105 105
	compare KVM_SET_CLOCK_GUEST unpatched KVM_SET_CLOCK 110 102 100 100
	compare KVM_SET_TSC_KHZ unpatched KVM_SET_TSC_KHZ - - - -
	compare KVM_RUN unpatched KVM_RUN 100 100 100 100
	compare First-KVM_RUN unpatched First-KVM_RUN - - - 60
	echo
}

# compare CALL KERNEL OTHER-CALL GOAL...: with the other call on KERNEL
# The ratio is rounded up: one just above its goal must not look as if it were it.
compare() {
	local name="$1 / $3" goals=("${@:4}") i size count other ratio verdict

	[[ $2 == patched ]] || name+=" $2"
	for ((i = 0; i < ${#sizes[@]}; i++)); do
		size=${sizes[i]}
		[[ ${counts["patched.$1.$size"]-} ]] || continue
		count=${counts["patched.$1.$size"]} other=${counts["$2.$3.$size"]}
		ratio=$(((count * 10000 - 1) / other + 1))
		verdict='       -'
		[[ ${goals[i]} == - ]] || verdict=$(judge "$ratio" "${goals[i]}")
		printf '%-40s%8d%10s  %s\n' "$name" "$size" "$(decimal "$ratio" 4)" "$verdict"
	done
}

judge() {
	printf '%8s  %s' "$(decimal "$2" 2)" "$( (($1 <= $2 * 100)) && echo reached || echo missed)"
}

# decimal NUMBER DIGITS: 12345 with 4 digits is 1.2345
decimal() {
	printf '%d.%0*d' $(($1 / 10 ** $2)) "$2" $(($1 % 10 ** $2))
}

main "$@"
