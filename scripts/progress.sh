# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For scripts that build: run a long step, say every ten seconds how far it is,
# keep what it prints, and show the errors when it fails.

# run_step STEP LOG COMMAND...
run_step() {
	local step=$1 log=$2 start=$SECONDS status=0 reporter

	shift 2
	# The flags of the make that called are not for the make that is called: a
	# silent one has no progress to report.
	unset MAKEFLAGS MFLAGS MAKELEVEL
	mkdir -p "$(dirname "$log")"
	: >"$log"
	report_progress "$step" "$log" &
	reporter=$!
	"$@" >"$log" 2>&1 </dev/null || status=$?
	kill "$reporter" 2>/dev/null || :
	wait "$reporter" 2>/dev/null || :
	((status == 0)) || step_failed "$step" "$log"
	echo "$step: done, $(compiled "$log") files in $((SECONDS - start)) s"
}

report_progress() {
	local step=$1 log=$2 start=$SECONDS

	# A reporter whose script was killed ends by itself; its sleep must not
	# hold the script's output open.
	while sleep 10 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		echo "$step: $(compiled "$log") files, $((SECONDS - start)) s"
	done
}

# make, gcc and ninja name a file a line.
compiled() {
	grep -cE '^ +(CC|AS|HOSTCC) |^gcc .* -c |^\[[0-9]+/[0-9]+\] Compiling ' "$1" || :
}

step_failed() {
	echo "$1: FAILED" >&2
	{ grep -E 'error:|Error [0-9]|undefined reference|No rule to make' "$2" || tail -n 20 "$2"; } | tail -n 20 >&2
	echo "$1: the whole log is $2" >&2
	exit 1
}

# fingerprint TREE FILE...: what is built from the git tree with these files. As
# long as it stays the same, there is nothing to build.
fingerprint() {
	local tree=$1

	shift
	git -C "$tree" rev-parse HEAD
	git -C "$tree" diff HEAD | cksum
	git -C "$tree" status --porcelain | cksum
	cksum "$@"
}

# up_to_date FINGERPRINT FILE: whether FILE has that fingerprint.
up_to_date() {
	[[ -f $2 && $(<"$2") == "$1" ]]
}

# install_file FILE DESTINATION: it appears whole or not at all; an equal one keeps its date.
install_file() {
	! cmp -s "$1" "$2" || return 0
	cp "$1" "$2.new"
	mv "$2.new" "$2"
}
