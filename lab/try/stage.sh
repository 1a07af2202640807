#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Leave in out/BASE/try what the scenarios of host/try take along: the bundle, the
# distribution's modules as modprobe finds them, and lab/try/cases.
#
#	lab/try/stage.sh BASE [MODULES-DIR]
#
# MODULES-DIR has the modules with the series; without it, they are those of `make modules`.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/../.." && pwd)

main() {
	local base=$1 out=$root/out/$1 stock release module

	stock=$out/stock/modules
	release=$(modules_release "$stock/kvm.ko")
	"$root/host/bundle.sh" "$base" "$release" "${2-$out/modules}" "$out/try/bundle"
	mkdir -p "$out/try/lib/modules/$release"
	for module in irqbypass kvm kvm-amd; do
		strip --strip-debug -o "$out/try/lib/modules/$release/$module.ko" "$stock/$module.ko"
	done
	cat >"$out/try/lib/modules/$release/modules.dep" <<-EOT
		irqbypass.ko:
		kvm.ko: irqbypass.ko
		kvm-amd.ko: kvm.ko irqbypass.ko
	EOT
	sed "s/vermagic=./vermagic=9/" "$out/try/bundle/modules/kvm.ko" >"$out/try/other-vermagic.ko"
	cp "$root/lab/try/cases" "$out/try"
}

modules_release() {
	tr '\0' '\n' <"$1" | sed -n 's/^vermagic=\([^ ]*\).*/\1/p'
}

main "$@"
