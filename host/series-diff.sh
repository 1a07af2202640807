#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Print the part of the series for BASE that KVM's modules are built of, for
# host/kvm-source.sh.
#
#	host/series-diff.sh BASE

set -euo pipefail

(($# == 1)) || { echo "usage: host/series-diff.sh BASE" >&2; exit 1; }
cd "$(dirname "$0")/../out/$1/tree"
git diff --no-renames base series -- arch/x86/{kvm,include} virt/kvm include
