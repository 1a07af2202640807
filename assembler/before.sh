#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# before.sh BASE [NAME]: leaves the source without the series, a work tree of its
# own on commit `base`, in out/BASE/before/linux or out/BASE/NAME/linux.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 1 ] || [ $# = 2 ] || { echo "usage: $0 BASE [NAME]" >&2; exit 1; }
name=${2-before}
cd "$root/out/$1/linux"

dest=../$name/linux
if [ "$(git -C "$dest" rev-parse HEAD 2>/dev/null)" = "$(git rev-parse base)" ]; then
	exit
fi
# What is there is another base's, or was cut off.
rm -rf "$dest"
git worktree prune
mkdir -p "${dest%/*}"
git worktree add --quiet --detach "$dest" base
echo "$name $1: ready in out/$1/$name/linux after $SECONDS s"
