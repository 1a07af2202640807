#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Let libFuzzer look for a saved state that vm_clock.c reads wrongly, with sanitizers.
#
#	lab/vmm/fuzz.sh BASE [SECONDS]
#
# The inputs that it found worth keeping are in out/BASE/vm_clock/corpus, and the next
# run starts with them.

set -euo pipefail

vmm=$(cd "$(dirname "$0")" && pwd)
. "$vmm/../libfuzzer.sh"

longest=300	# bytes: a state of up to 8 vCPUs, and what KVM says to it

main() {
	local out

	(($# >= 1)) || { echo "usage: lab/vmm/fuzz.sh BASE [SECONDS]" >&2; exit 2; }
	out=${vmm%/lab/vmm}/out/$1
	mkdir -p "$out/vm_clock"
	clang "${fuzzer_flags[@]}" -std=gnu11 -Wall -Wextra -Werror -isystem "$out/headers/usr/include" \
		-o "$out/vm_clock/fuzz" "$vmm"/{vm_clock_fuzz,fake_kvm}.c
	write_seeds "$out/vm_clock/corpus"
	run_fuzzer "$out/vm_clock" "${2:-60}" "$longest"
}

# A state of two vCPUs for each outcome, for the repairs to complete: struct kvm_says.
write_seeds() {
	local name

	mkdir -p "$1"
	for name in exact:'\x0f\x03\x05' value:'\x0f\x03\x04' failed:'\x0f\x03'; do
		{ printf %b "${name#*:}"; head -c 300 /dev/zero; } | head -c $((33 + 160 + 2 * 16)) >"$1/${name%%:*}"
	done
}

main "$@"
