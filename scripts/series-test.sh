#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Test series.sh on trees of a few files, in a temporary directory.
#
#	prove scripts/series-test.sh
#
# Exit status: 0 when every test passes, else 1.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work/home GIT_CONFIG_NOSYSTEM=1
unset SIGNOFF XDG_CONFIG_HOME "${!GIT_COMMITTER_@}" "${!GIT_AUTHOR_@}"
kst=tools/testing/selftests/kvm
count=0 failed=0 output=''

# ok NAME COMMAND...: one test; $output is what a command said last
ok() {
	local name=$1
	shift
	count=$((count + 1))
	if "$@" >"$work/log" 2>&1 </dev/null; then
		echo "ok $count - $name"
	else
		failed=1
		echo "not ok $count - $name"
		{ cat "$work/log"; echo "$output"; } | sed 's/^/# /'
	fi
	[[ $1 != series ]] || output=$(cat "$work/log")
}

series() { scripts/series.sh "$@"; }
says() { grep -F -- "$1" <<<"$output"; }
in_tree() { git -C out/6.12/tree "$@"; }
commit() { in_tree add -A && in_tree commit -q "$@"; }
repository() { { find arch include Documentation tools patches -type f -printf '%p %m ' -exec sha256sum {} + 2>/dev/null || true; } | sort; }
times() { find out/6.12/tree -name .git -prune -o -printf '%p %T@\n'; }
state() {
	repository
	find out/* -maxdepth 1
	in_tree show-ref
	in_tree status --porcelain
	cat out/6.12/tree/.git/agreed
}

fails() {	# fails TEXT COMMAND...: with status 1, says TEXT, changes nothing
	local text=$1 before status=0
	shift
	before=$(state 2>&1)
	output=$("$@" 2>&1) || status=$?
	echo "status $status, to say: $text"
	[[ $status = 1 && $before = "$(state 2>&1)" ]] && says "$text"
}

make_tree() {	# make_tree BASE
	local tree=out/$1/tree
	mkdir -p "$tree"/{kernel,arch/x86/kvm,$kst/x86_64}
	seq 40 >"$tree/kernel/time.c"
	seq 100 140 >"$tree/arch/x86/kvm/x86.c"
	seq 200 240 >"$tree/arch/x86/kvm/old.h"
	echo "TESTS = a" >"$tree/$kst/Makefile"
	git -C "$tree" init -q --template= -b series
	git -C "$tree" add -A
	git -C "$tree" commit -qm base
	git -C "$tree" tag base
}

template() {
	local base
	mkdir -p scripts patches/{6.12,7.3,qemu-10.0}
	cp "$here/series.sh" scripts
	for base in 6.12 7.3 qemu-10.0; do
		echo "# SPDX-License-Identifier: GPL-2.0" >patches/$base/series
		echo "kernel $base" >patches/$base/base
		make_tree $base
	done
	echo "package qemu" >patches/qemu-10.0/base
	printf 'A clock\n\nText of the\ncover letter.\n' >patches/7.3/cover-letter
	for base in 6.12 7.3 qemu-10.0; do series tree $base; done
	export GIT_AUTHOR_DATE='2024-05-06 07:08:09 +0200'
	sed -i 's/^120$/hundred/' out/6.12/tree/arch/x86/kvm/x86.c
	in_tree mv arch/x86/kvm/old.h arch/x86/kvm/new.h
	commit -m $'KVM: Change a number and a name with a subject that does not fit into a header line\n\nIt is \xc3\xa4 number.'
	echo "TESTS += b" >>out/6.12/tree/$kst/Makefile
	echo "b" >out/6.12/tree/$kst/x86_64/b.c
	commit -m $'KVM: selftests: Add b\n\nIt tests.'
	printf '#!/bin/sh\n' >out/6.12/tree/tools/script
	chmod +x out/6.12/tree/tools/script
	commit -m 'KVM: selftests: Add a script'
	unset GIT_AUTHOR_DATE
	series refresh 6.12
}

sandbox() {
	cd "$work"
	rm -rf sandbox
	cp -a template sandbox
	cd sandbox
}

rebuild() { rm -f out/6.12/tree/.git/agreed; in_tree checkout -q -B series base; series tree 6.12; }

test_round_trip() {
	local before tip series
	series=$(printf '%s\n' '# SPDX-License-Identifier: GPL-2.0' \
		'0001-KVM-Change-a-number-and-a-name-with-a-subject-that-d.patch arch/x86/kvm/new.h' \
		"0002-KVM-selftests-Add-b.patch $kst/x86/b.c:$kst/x86_64/b.c" \
		'0003-KVM-selftests-Add-a-script.patch tools/script')
	ok "refresh writes the series" diff <(echo "$series") patches/6.12/series
	ok "new files are in the repository, not in the patch" test -x tools/script -a \
		-f arch/x86/kvm/new.h -a "$(grep -c ^diff patches/6.12/0002*)" = 1
	before=$(repository) tip=$(in_tree rev-parse series)
	ok "tree from nothing" rebuild
	ok "it gives the same commits" test "$tip" = "$(in_tree rev-parse series)"
	ok "the work tree is clean" test -z "$(in_tree status --porcelain)"
	ok "refresh without an edit" series refresh 6.12
	ok "it leaves the repository as it was" test "$before" = "$(repository)"
	before=$(times)
	ok "tree again" series tree 6.12
	ok "it is up to date" says "up to date"
	ok "no file is touched" test "$before" = "$(times)"
}

test_tree_errors() {
	local list=patches/6.12/series first
	first=$(cd patches/6.12 && echo 0001*)
	mkdir include && touch include/lost.h
	ok "a new file in no series" fails include/lost.h series tree 6.12
	sandbox
	rm tools/script
	ok "a new file that is missing" fails "names tools/script, which is missing" series tree 6.12
	sandbox
	sed -i 's,^0003.*,& arch/x86/kvm/new.h:kernel/time.c,; s, arch/x86/kvm/new.h$,,' $list
	ok "a new file that the base has" fails "add kernel/time.c, which the base" series tree 6.12
	sed -i 's,:kernel/time.c,:kernel/time.c/x,' $list
	ok "a new file below a file" fails "cannot add kernel/time.c/x" series tree 6.12
	sandbox
	sed -i 's,^0003.*,& patches/6.12/base,' $list
	ok "a new file in another directory" fails "new files belong below" series tree 6.12
	sandbox
	rm patches/6.12/0002*
	ok "a patch that is missing" fails "names 0002-KVM-selftests-Add-b.patch, which is missing" series tree 6.12
	sandbox
	cp "patches/6.12/$first" patches/6.12/0007-more.patch
	ok "a patch in no series" fails "does not name 0007-more.patch" series tree 6.12
	sandbox
	sed -i 's/^-120$/-121/' "patches/6.12/$first"
	ok "a patch that does not apply" fails "$first does not apply" series tree 6.12
	ok "its file is named" says arch/x86/kvm/x86.c
	echo hello >"patches/6.12/$first"
	ok "a patch that is no mail" fails "$first does not apply" series tree 6.12
	sandbox
	echo "$first" >>$list
	ok "a patch that is listed twice" fails "lists $first twice" series tree 6.12
	sandbox
	sed -i 's,^0003.*,& tools/script,' $list
	ok "a new file that is listed twice" fails "lists tools/script twice" series tree 6.12
	ok "an unknown base" fails "unknown base: patches/5.10/base" series tree 5.10
	rm -rf out/7.3/tree
	ok "a tree that is missing" fails "run scripts/source.sh 7.3" series tree 7.3
}

test_both_sides() {
	echo edit >>out/6.12/tree/kernel/time.c
	ok "tree with an edit in the tree alone" series tree 6.12
	ok "the edit stays" grep -q edit out/6.12/tree/kernel/time.c
	ok "refresh with uncommitted changes" fails "uncommitted changes" series refresh 6.12
	ok "mails of edits that no patch has" fails "tree or refresh first" series mails 6.12
	echo "# more" >>tools/script
	ok "tree with uncommitted changes and a changed file" fails tools/script series tree 6.12
	commit -m edit
	ok "tree with a commit and a changed file" fails "commits that patches/6.12 does not have" series tree 6.12
	ok "refresh with a commit and a changed file" fails tools/script series refresh 6.12
	in_tree reset -q --hard HEAD~
	ok "refresh with a changed file" fails "make the tree first" series refresh 6.12
	ok "tree with a changed file" series tree 6.12
	ok "the change arrives" diff tools/script out/6.12/tree/tools/script
}

test_refresh() {
	sed -i 's/^30$/thirty/' out/6.12/tree/kernel/time.c
	commit --amend --no-edit
	ok "refresh after an edit" series refresh 6.12
	ok "the edit is in the patch, and no other is written" test \
		"$(grep -lx '+thirty' patches/6.12/0003*)" -a "$(grep -c wrote <<<"$output")" = 1
	in_tree reset -q --hard HEAD~2
	ok "refresh after commits were dropped" series refresh 6.12
	ok "their patches, new files and empty directories are gone" test ! -e tools -a "$(find patches/6.12 -name '*.patch' | wc -l)" = 1
	ok "tree agrees" series tree 6.12
	ok "and has nothing to do" says "up to date"
}

test_refresh_errors() {
	echo "c" >>out/6.12/tree/$kst/x86_64/b.c
	commit -m "Change b"
	ok "a commit that changes a new file of another" fails "squash" series refresh 6.12
	sandbox
	echo "c" >out/6.12/tree/kernel/c.c
	commit -m "A file"
	ok "a commit with a new file in another directory" fails "kernel/c.c: new files belong below" series refresh 6.12
	sandbox
	ln -s c out/6.12/tree/tools/link
	commit -m "A link"
	ok "a new file that is a link" fails "not a regular file" series refresh 6.12
	sandbox
	echo "c" >>out/6.12/tree/kernel/time.c
	commit -m $'A message\n\nthat has\n---\nin it'
	ok "a message that a mail cannot carry" fails "A message" series refresh 6.12
	sandbox
	in_tree checkout -q --detach
	ok "another branch" fails "another branch" series refresh 6.12
	sandbox
	in_tree checkout -q --orphan other
	commit -m other
	in_tree branch -qM series
	ok "a branch that does not start at base" fails "does not start at tag base" series refresh 6.12
	sandbox
	in_tree checkout -q -b other base
	in_tree commit -q --allow-empty -m other
	in_tree checkout -q series
	in_tree merge -q -m merge other
	ok "a merge" fails "merges" series refresh 6.12
}

test_references() {
	local before
	cp out/6.12/tree/tools/script out/7.3/tree/tools
	sed -i 's/^20$/twenty/' out/7.3/tree/kernel/time.c
	git -C out/7.3/tree add -A
	git -C out/7.3/tree commit -qm "KVM: selftests: Add a script"
	series refresh 7.3 >/dev/null
	rm patches/6.12/0003*
	sed -i 's,^0003,../7.3/0001,' patches/6.12/series
	before=$(repository)
	ok "tree with a patch of another base" series tree 6.12
	ok "it has the patch" grep -q twenty out/6.12/tree/kernel/time.c
	ok "refresh with a patch of another base" series refresh 6.12
	ok "it keeps the reference" test "$before" = "$(repository)"

	git -C out/7.3/tree reset -q --hard base
	sed -i 1d out/7.3/tree/arch/x86/kvm/x86.c
	git -C out/7.3/tree commit -qam "KVM: First"
	git -C out/7.3/tree -c core.editor=true cherry-pick "series@{2}" >/dev/null
	ok "refresh that gives the other patch a new number" series refresh 7.3
	ok "it says who names it" says "which patches/6.12/series names, too"
	ok "the reference follows" grep -q '^\.\./7.3/0002-KVM-selftests-Add-a-script.patch tools/script$' patches/6.12/series
	series tree 6.12 >/dev/null
	sed -i 's/^10$/ten/' out/6.12/tree/kernel/time.c
	commit --amend --no-edit
	ok "refresh after an edit in a patch of another base" series refresh 6.12
	ok "it says so" says "gives another commit"
	ok "the base has its own patch" grep -qx +ten patches/6.12/0003-KVM-selftests-Add-a-script.patch
	ok "the other base keeps its" grep -q "^0002.* tools/script" patches/7.3/series
}

test_qemu() {
	echo new >out/qemu-10.0/tree/kernel/new.c
	git -C out/qemu-10.0/tree add -A
	git -C out/qemu-10.0/tree commit -qm "hw: Add a file"
	ok "refresh of what is no kernel" series refresh qemu-10.0
	ok "the new file stays in the patch" grep -qx +new patches/qemu-10.0/0001-hw-Add-a-file.patch
	ok "mails without a cover letter of its own have 7.3's" series mails qemu-10.0
}

test_settings() {
	local before tip setting
	before=$(repository) tip=$(in_tree rev-parse series)
	mkdir -p "$HOME/.config/git" "$work/hooks"
	echo '* -diff' >"$HOME/.config/git/attributes"
	printf '#!/bin/sh\nexit 1\n' | tee "$work/hooks/pre-applypatch" >"$work/hooks/prepare-commit-msg"
	chmod +x "$work/hooks"/*
	for setting in diff.noprefix=true format.signOff=true apply.whitespace=fix core.abbrev=30 am.messageId=true \
		commit.gpgSign=true diff.algorithm=patience core.hooksPath="$work/hooks" format.numbered=true; do
		git config --global "${setting%%=*}" "${setting#*=}"
		in_tree config "${setting%%=*}" "${setting#*=}"
	done
	ok "tree with unusual settings" rebuild
	ok "refresh with unusual settings" series refresh 6.12
	ok "they change nothing" test "$before$tip" = "$(repository)$(in_tree rev-parse series)"
	rm -r "$HOME/.config"
	cp "$work/gitconfig" "$HOME/.gitconfig"
}

test_mails() {
	local mails=out/6.12/mails
	ok "mails" series mails 6.12
	ok "the cover letter has subject and text" grep -qzP 'Subject: \[PATCH 0/3\] A clock\n(.*\n)*\nText of the\ncover letter.\n' $mails/0000*
	ok "new files and renames are in the mails" grep -q "^rename to arch/x86/kvm/new.h" $mails/0001*
	ok "no Signed-off-by is invented" test -z "$(grep -h Signed-off-by $mails/*)"
	git clone -q -b series out/6.12/tree am
	git -C am reset -q --hard base
	ok "git am takes the mails" git -C am am -q "$PWD/$mails"/000[123]*
	ok "they give the tree" test "$(git -C am rev-parse 'HEAD^{tree}')" = "$(in_tree rev-parse 'series^{tree}')"
	SIGNOFF=1 ok "mails with SIGNOFF=1" series mails 6.12
	ok "each patch is signed" test "$(grep -l '^Signed-off-by: Tester <tester@example.org>$' $mails/* | wc -l)" = 3
	rm "$HOME/.gitconfig"
	SIGNOFF=1 ok "SIGNOFF=1 without an identity" fails user.name series mails 6.12
	ok "mails without an identity" series mails 6.12
	cp "$work/gitconfig" "$HOME/.gitconfig"
	rm patches/7.3/cover-letter
	ok "mails without a cover letter" fails cover-letter series mails 6.12
}

test_base() {
	ok "base" series base 6.12 "$work/before"
	ok "it is the source without the series" diff "$work/before/kernel" out/6.12/tree/kernel
	ok "base again" series base 6.12 "$work/before"
	ok "base over something else" fails "delete it" series base 6.12 patches
}

main() {
	local test
	mkdir -p "$HOME" "$work/template"
	git config --global user.name Tester
	git config --global user.email tester@example.org
	cp "$HOME/.gitconfig" "$work/gitconfig"
	cd "$work/template"
	template >/dev/null
	for test in round_trip tree_errors both_sides refresh refresh_errors references qemu settings mails base; do
		sandbox
		"test_$test"
	done
	echo "1..$count"
	return "$failed"
}

main
