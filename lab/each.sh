#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build and test after each patch of the series: every patch has to build on its
# own and leave the results of the base's own tests as they are.
#
#	lab/each.sh BASE
#
# Uses a work tree of its own, out/BASE/each/linux. The tests are those of the
# finished series, without the series' own: these need all of it.

set -euo pipefail

lab=$(cd "$(dirname "$0")" && pwd)

main() {
	local out dir commit n=0 total

	(($# == 1)) || { echo "usage: lab/each.sh BASE" >&2; exit 2; }
	out=${lab%/lab}/out/$1
	dir=$out/each
	[[ -d $dir/linux ]] || git -C "$out/linux" worktree add --quiet --detach "$dir/linux" base
	ln -sfn ../selftests "$dir/selftests"
	total=$(git -C "$out/linux" rev-list --count base..series)

	for commit in base $(git -C "$out/linux" rev-list --reverse base..series); do
		git -C "$dir/linux" checkout --quiet --detach "$commit"
		echo "each $1: $n of $total: $(git -C "$dir/linux" log -1 --format=%s)"
		"$lab/build.sh" "$dir/linux" "$dir" "$1"
		"$lab/run.sh" "$dir" clock-selftests "$dir/lab/$n"
		((n == 0)) || "$lab/compare.sh" "$dir/lab/0" "$dir/lab/$n"
		n=$((n + 1))
	done
	echo "$total passed, 0 failed"
}

main "$@"
