#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# before.sh BASE: leaves the source without the series, a work tree of its own
# on commit `base`, in out/BASE/before/linux.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 1 ] || { echo "usage: $0 BASE" >&2; exit 1; }
cd "$root/out/$1/linux"

dest=../before/linux
if [ "$(git -C "$dest" rev-parse HEAD 2>/dev/null)" = "$(git rev-parse base)" ]; then
	exit
fi
# What is there is another base's, or was cut off.
rm -rf "$dest"
git worktree prune
mkdir -p "${dest%/*}"
git worktree add --quiet --detach "$dest" base
echo "before $1: ready in out/$1/before/linux after $SECONDS s"
