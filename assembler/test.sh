#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the assembler, on a kernel of a few files, in a temporary directory.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
: >"$work/output"
kst=tools/testing/selftests/kvm

# No settings of the user, no network, no packages.
export HOME=$work/home GIT_CONFIG_NOSYSTEM=1
unset LINUX SIGNOFF XDG_CONFIG_HOME "${!GIT_COMMITTER_@}" "${!GIT_AUTHOR_@}"

# --- what the tests are made of -----------------------------------------------

result() {	# result STATUS NAME: one line, and on failure what the command said
	if [ "$1" = 0 ]; then
		passed=$((passed + 1))
		echo "ok - $2"
	else
		failed=$((failed + 1))
		echo "not ok - $2"
		sed 's/^/#   /' "$work/output"
	fi
}

try() {	# try COMMAND...: runs it, keeps its output, leaves $status
	status=0
	"$@" >"$work/output" 2>&1 </dev/null || status=$?
}

check() {	# check NAME COMMAND...: it is to succeed
	local name=$1
	shift
	try "$@"
	result "$status" "$name"
}

also() {	# also NAME COMMAND...: a look at what the last command left or said
	local name=$1 output
	shift
	output=$(cat "$work/output")
	try "$@"
	echo "$output" >>"$work/output"
	result "$status" "$name"
	echo "$output" >"$work/output"
}

snapshot() {	# everything that a refused command must not have changed
	find . -path ./out -prune -o -type f -printf '%p %m ' -exec sha256sum {} + | sort
	find out/* -maxdepth 1 -path out/log -prune -o -print | sort
	git -C out/6.12/linux show-ref || true
	git -C out/6.12/linux status --porcelain || true
	cat out/6.12/linux/.git/assembled || true
}

refuses() {	# refuses NAME STATUS TEXT COMMAND...: fails so, says TEXT, changes nothing
	local name=$1 expected=$2 text=$3 before
	shift 3
	before=$(snapshot 2>&1)
	try "$@"
	echo "(status $status, to be $expected; to be said: $text)" >>"$work/output"
	if [ "$status" = "$expected" ] && head -n -1 "$work/output" | grep -qF -- "$text" &&
		[ "$before" = "$(snapshot 2>&1)" ]; then
		result 0 "$name"
	else
		result 1 "$name"
	fi
}

says() { grep -F -- "$1" <<<"$output"; }
in_tree() { git -C out/6.12/linux "$@"; }
assemble() { assembler/assemble.sh "$@"; }
commit() { in_tree add -A && in_tree commit -q "$@"; }
times() { find out/6.12/linux -name .git -prune -o -printf '%p %T@\n' | sort; }
repository_sum() { find . -path ./out -prune -o -type f -printf '%p %m ' -exec sha256sum {} + | sort; }

fake_kernel() {	# fake_kernel DIR VERSION PATCHLEVEL
	mkdir -p "$1"/{kernel,arch/x86/kvm,$kst/x86_64}
	printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = 1\n' "$2" "$3" >"$1/Makefile"
	seq 40 >"$1/kernel/time.c"
	seq 100 140 >"$1/arch/x86/kvm/x86.c"
	seq 200 240 >"$1/arch/x86/kvm/old.h"
	echo "TESTS = a" >"$1/$kst/Makefile"
	echo "a" >"$1/$kst/x86_64/a.c"
	printf '*.o\n#\n# Debian packaging\n#\n/*\n!/debian/\n' >"$1/.gitignore"
}

make_template() {	# a repository with two bases, assembled, in the current directory
	local base
	cp -r "$here" assembler
	for base in 6.12 7.3; do
		mkdir -p "patches/$base"
		printf 'kernel %s\npackage linux-source-%s\nsuite -\n' $base $base >"patches/$base/base"
		fake_kernel "$work/kernel-$base" "${base%.*}" "${base#*.}"
		printf '# SPDX-License-Identifier: GPL-2.0\n\n' >"patches/$base/series"
		LINUX=$work/kernel-$base assembler/source.sh $base
		assemble tree $base
	done
	printf 'KVM: x86: A clock\n\nText of the\ncover letter.\n' >patches/cover-letter

	cd out/6.12/linux
	export GIT_AUTHOR_DATE='2024-05-06 07:08:09 +0200'
	sed -i 's/^120$/one hundred and twenty/' arch/x86/kvm/x86.c
	git mv arch/x86/kvm/old.h arch/x86/kvm/new.h
	sed -i '1s/$/ and more/' arch/x86/kvm/new.h
	git commit -qam $'KVM: x86: Change a number and a name with a subject that does not fit into one header line

It is \xc3\xa4 number.\n\nFixes: 123456789abc ("KVM: x86: A number")'
	echo "TESTS += b" >>$kst/Makefile
	echo "b" >$kst/x86_64/b.c
	mkdir -p Documentation
	echo "text" >Documentation/b.rst
	git add -A
	git commit -qm $'KVM: selftests: Add b\n\nIt tests.'
	printf '#!/bin/sh\n' >tools/script
	chmod +x tools/script
	git add -A
	git commit -qm 'KVM: selftests: Add a script'
	unset GIT_AUTHOR_DATE
	cd ../../..
	assemble refresh 6.12
}

sandbox() {	# a fresh copy of the template
	cd "$work"
	rm -rf sandbox
	cp -a template sandbox
	cd sandbox
}

# --- the tests: tree ----------------------------------------------------------

test_template() {
	local series=$work/series
	printf '%s\n' '# SPDX-License-Identifier: GPL-2.0' '' \
		'0001-KVM-x86-Change-a-number-and-a-name-with-a-subject-th.patch' \
		"0002-KVM-selftests-Add-b.patch Documentation/b.rst $kst/x86/b.c:$kst/x86_64/b.c" \
		'0003-KVM-selftests-Add-a-script.patch tools/script' >"$series"
	also "refresh writes the series, with paths of the mainline" diff "$series" patches/6.12/series
	also "a new file is in the repository" diff out/6.12/linux/$kst/x86_64/b.c $kst/x86/b.c
	also "a new file keeps its executable bit" test -x tools/script
	also "a new file is not in the patch" test "$(grep -c '^diff' patches/6.12/0002*)" = 1
	also "a rename is in the patch" grep -q '^rename to arch/x86/kvm/new.h' patches/6.12/0001*
	also "a patch of new files only is empty" test "$(grep -c '^diff' patches/6.12/0003*)" = 0
	also "Debian's rule that ignores everything is gone" grep -qx '\*.o' out/6.12/linux/.gitignore
}

test_round_trip() {
	local before tip
	before=$(repository_sum)
	tip=$(in_tree rev-parse series)
	rm -rf out/6.12/linux
	LINUX=$work/kernel-6.12 assembler/source.sh 6.12 >/dev/null
	check "tree from nothing" assemble tree 6.12
	also "the commits are the same again" test "$tip" = "$(in_tree rev-parse series)"
	also "the work tree is clean" test -z "$(in_tree status --porcelain)"
	check "refresh without an edit" assemble refresh 6.12
	also "it leaves the repository as it was" test "$before" = "$(repository_sum)"
	also "and the commits" test "$tip" = "$(in_tree rev-parse series)"
}

test_no_work() {
	local before
	before=$(times)
	check "tree again" assemble tree 6.12
	also "it says that it is up to date" says "up to date"
	also "it touches nothing" test "$before" = "$(times)"
	echo "c" >>tools/script
	before=$(times | grep -v tools)
	check "tree after a change in the repository" assemble tree 6.12
	also "the change arrives" diff tools/script out/6.12/linux/tools/script
	also "no other file is touched" test "$before" = "$(times | grep -v tools)"
}

test_edits_stay() {
	echo "edit" >>out/6.12/linux/kernel/time.c
	check "tree leaves an edit alone" assemble tree 6.12
	also "it says so" says "changes that are not committed"
	also "the edit is there" grep -q edit out/6.12/linux/kernel/time.c
	echo "c" >>tools/script
	refuses "tree with changes on both sides" 1 tools/script assemble tree 6.12
	commit -m "An edit"
	refuses "tree with a commit and a change" 1 "commits that are not in patches/6.12" assemble tree 6.12
	refuses "refresh over a changed file" 1 tools/script assemble refresh 6.12
	in_tree checkout -q -f -B series refs/assembled
	check "tree after the commit is dropped" assemble tree 6.12
}

# --- the tests: what is wrong in the repository -------------------------------

test_tree_errors() {
	local series=patches/6.12/series first
	first=$(basename patches/6.12/0001*)

	sed -i "s,^0001.*,& $kst/Makefile," $series
	mkdir -p $kst && touch $kst/Makefile
	refuses "a patch that touches a listed new file" 1 "0002-KVM-selftests-Add-b.patch touches $kst/Makefile" \
		assemble tree 6.12
	sandbox
	mkdir include && touch include/lost.h
	refuses "a new file in no series" 1 include/lost.h assemble tree 6.12
	sandbox
	rm tools/script
	refuses "a listed file that does not exist" 1 "series:5: tools/script" assemble tree 6.12
	sandbox
	mkdir -p arch/x86/kvm && echo x >arch/x86/kvm/x86.h
	sed -i 's/^0003.*/& arch\/x86\/kvm\/x86.h:kernel\/time.c/' $series
	refuses "a listed file that the base has" 1 kernel/time.c assemble tree 6.12
	sed -i 's/:kernel\/time.c/:kernel/' $series
	refuses "a listed file that is a directory of the base" 1 "carry kernel," assemble tree 6.12
	sed -i 's/:kernel$/:kernel\/time.c\/x.h/' $series
	refuses "a listed file below a file of the base" 1 "kernel/time.c/x.h" assemble tree 6.12
	sandbox
	mv patches/6.12/0002* "$work/"
	refuses "a patch that is missing" 1 "series:4: patches/6.12/0002-KVM-selftests-Add-b.patch" assemble tree 6.12
	sandbox
	cp "patches/6.12/$first" patches/6.12/0007-more.patch
	refuses "a patch that the series does not name" 1 0007-more.patch assemble tree 6.12
	sandbox
	sed -i 's/^-120$/-121/' "patches/6.12/$first"
	refuses "a patch that does not apply" 1 "patches/6.12/$first does not apply" assemble tree 6.12
	also "the file is named too" says arch/x86/kvm/x86.c
	sandbox
	echo "hello" >"patches/6.12/$first"
	refuses "a patch that is no mail" 1 "$first" assemble tree 6.12
	sandbox
	sed -i 's/^0003.*/& tools\/script/' $series
	refuses "a file that is listed twice" 1 "series:5: tools/script is listed twice" assemble tree 6.12
	sandbox
	echo "$first" >>$series
	refuses "a patch that is listed twice" 1 "$first is listed twice" assemble tree 6.12
	refuses "an unknown base" 1 5.10 assemble tree 5.10
	rm -rf out/6.12/linux
	refuses "a tree without its source" 1 source.sh assemble tree 6.12
}

# --- the tests: refresh -------------------------------------------------------

test_refresh() {
	local before
	sed -i 's/^30$/thirty/' out/6.12/linux/kernel/time.c
	refuses "refresh with changes that are not committed" 1 "git commit --amend" assemble refresh 6.12
	commit --amend --no-edit
	check "refresh after an edit in an upstream file" assemble refresh 6.12
	also "the edit is in the patch" grep -qx '+thirty' patches/6.12/0003*
	also "no other patch is written" test "$(grep -c wrote "$work/output")" = 1

	echo "# more" >>out/6.12/linux/tools/script
	commit --amend --no-edit
	check "refresh after an edit in a new file" assemble refresh 6.12
	also "the edit is in the file" grep -qx '# more' tools/script
	also "only the file is written" test "$(grep -c wrote "$work/output")" = 1

	echo "c" >out/6.12/linux/$kst/x86_64/c.c
	assemble refresh 6.12 >"$work/output"
	also "a file that is in no commit is named" says "left out: $kst/x86_64/c.c"
	commit -m "KVM: selftests: Add c"
	check "refresh after a new commit with a new file" assemble refresh 6.12
	also "the file is where mainline has it" test -f $kst/x86/c.c
	also "the series names both paths" grep -q "^0004-KVM-selftests-Add-c.patch $kst/x86/c.c:$kst/x86_64/c.c$" \
		patches/6.12/series
	before=$(repository_sum)
	check "tree agrees with what refresh wrote" assemble tree 6.12
	also "it has nothing to do" says "up to date"
	rm out/6.12/linux/.git/assembled
	check "tree once more from the repository" assemble tree 6.12
	check "refresh once more" assemble refresh 6.12
	also "round trip of all edits" test "$before" = "$(repository_sum)"
}

test_refresh_order() {
	sed -i 's/^0003/# about the script\n&/' patches/6.12/series
	assemble tree 6.12 >/dev/null
	in_tree reset -q --hard base
	in_tree -c core.editor=true cherry-pick refs/assembled refs/assembled~2 refs/assembled~1 >/dev/null 2>&1
	check "refresh after commits changed places" assemble refresh 6.12
	also "the series has the new order and the comment" \
		test "$(sed -n '3,4p' patches/6.12/series)" = $'# about the script\n0001-KVM-selftests-Add-a-script.patch tools/script'
	also "old patches are gone" test "$(find patches/6.12 -name '*.patch' | wc -l)" = 3
	in_tree reset -q --hard HEAD~
	check "refresh after a commit was dropped" assemble refresh 6.12
	also "its new file is gone" test ! -e $kst
	also "its empty directories too" test ! -e Documentation
}

test_refresh_errors() {
	echo "c" >>out/6.12/linux/$kst/x86_64/b.c
	commit -m "Change b"
	refuses "a commit that changes a new file of another" 1 "$kst/x86_64/b.c" assemble refresh 6.12
	sandbox
	echo "c" >out/6.12/linux/kernel/c.c
	commit -m "A file in another directory"
	refuses "a new file outside the repository's directories" 1 kernel/c.c assemble refresh 6.12
	sandbox
	ln -s c out/6.12/linux/tools/link
	commit -m "A link"
	refuses "a new file that is a link" 1 tools/link assemble refresh 6.12
	sandbox
	echo "c" >>out/6.12/linux/kernel/time.c
	commit -m $'A message\n\nthat has\n---\nin it'
	refuses "a message that a mail cannot carry" 1 "A message" assemble refresh 6.12
	sandbox
	in_tree checkout -q --detach
	refuses "another branch checked out" 1 "branch" assemble refresh 6.12
}

test_other_base() {
	echo "7.3" >out/7.3/linux/tools/script
	mkdir -p out/7.3/linux/$kst/x86
	echo "b" >out/7.3/linux/$kst/x86/b.c
	git -C out/7.3/linux add -A
	git -C out/7.3/linux commit -qm "KVM: selftests: Add a script"
	check "refresh of a file that the other base has too" assemble refresh 7.3
	also "it says whose tree is old now" says "tools/script, which 6.12 has too"
	also "the file is carried without a mapping" grep -q " tools/script $kst/x86/b.c\$" patches/7.3/series
	check "tree of the other base" assemble tree 6.12
	also "it has the change" grep -qx 7.3 out/6.12/linux/tools/script
	in_tree reset -q --hard HEAD~
	check "refresh without the commit" assemble refresh 6.12
	also "the other base's file stays" test -f tools/script
}

test_settings() {
	local before
	before=$(repository_sum)
	git config --global diff.noprefix true
	git config --global format.signOff true
	git config --global apply.whitespace fix
	git config --global core.abbrev 30
	in_tree config diff.noprefix true
	in_tree config format.signOff true
	in_tree config diff.algorithm patience
	rm out/6.12/linux/.git/assembled
	check "tree with unusual settings" assemble tree 6.12
	check "refresh with unusual settings" assemble refresh 6.12
	also "they change nothing" test "$before" = "$(repository_sum)"
	cp "$work/gitconfig" "$HOME/.gitconfig"
}

# --- the tests: series --------------------------------------------------------

test_series() {
	local dir=out/6.12/series
	check "series" assemble series 6.12
	also "it says how many mails" says "4 mails in out/6.12/series"
	also "the cover letter has subject and text" grep -qzP 'Subject: \[PATCH 0/3\] KVM: x86: A clock\n(.*\n)*\nText of the\ncover letter.\n' $dir/0000*
	also "a mail has its new files" grep -q "^diff --git a/$kst/x86_64/b.c" $dir/0002*
	also "no Signed-off-by is invented" test -z "$(grep -h Signed-off-by $dir/*)"
	git init -q --template= "$work/am" 2>/dev/null
	cp -r "$work/kernel-6.12/." "$work/am"
	git -C "$work/am" add -A -f
	git -C "$work/am" commit -qm base
	check "git am takes the mails" git -C "$work/am" am -q "$PWD/$dir"/000[123]*
	also "and they give the tree's files" diff -r -x .git -x .gitignore "$work/am" out/6.12/linux
	check "series with SIGNOFF=1" env SIGNOFF=1 assembler/assemble.sh series 6.12
	also "it signs every patch" test "$(grep -l '^Signed-off-by: Tester <tester@example.org>$' $dir/000[123]* | wc -l)" = 3
	rm "$HOME/.gitconfig"
	refuses "SIGNOFF=1 without an identity" 1 user.name env SIGNOFF=1 assembler/assemble.sh series 6.12
	check "series without an identity" assemble series 6.12
	cp "$work/gitconfig" "$HOME/.gitconfig"
	echo "c" >>out/6.12/linux/kernel/time.c
	refuses "series of edits that no patch has" 1 "make refresh" assemble series 6.12
	in_tree checkout -q .
	rm patches/cover-letter
	refuses "series without a cover letter" 1 patches/cover-letter assemble series 6.12
}

# --- the tests: source.sh and packages.sh -------------------------------------

stub() {	# stub NAME BODY: a program that takes the place of the system's
	mkdir -p "$work/stubs"
	printf '#!/bin/bash\n%s\n' "$2" >"$work/stubs/$1"
	chmod +x "$work/stubs/$1"
}

programs() {	# programs NAME...: a PATH with the stubs and these programs only
	local name
	mkdir -p "$work/stubs"
	for name in bash env "$@"; do
		[ -e "$work/stubs/$name" ] || ln -s "$(command -v "$name")" "$work/stubs/$name"
	done
	echo "$work/stubs"
}

with_path() {	# with_path PATH COMMAND...
	local -x PATH=$1
	shift
	"$@"
}

test_source() {
	local tip
	tip=$(in_tree rev-parse base)
	rm -rf out
	tar -cJf "$work/kernel.tar.xz" -C "$work" kernel-6.12
	refuses "LINUX= that does not exist" 1 /nowhere env LINUX=/nowhere assembler/source.sh 6.12
	check "source from a tarball" env LINUX="$work/kernel.tar.xz" assembler/source.sh 6.12
	also "the commit does not depend on the way" test "$tip" = "$(in_tree rev-parse base)"
	check "source again" assembler/source.sh 6.12
	also "it has nothing to do" test -z "$(cat "$work/output")"
	check "source with another LINUX=" env LINUX="$work/kernel-6.12" assembler/source.sh 6.12
	also "it says which one is in use" says "$work/kernel.tar.xz"
	rm -rf out
	git init -q -b main "$work/kernel-6.12"
	git -C "$work/kernel-6.12" add -A -f
	git -C "$work/kernel-6.12" commit -qm kernel
	echo "edit" >"$work/kernel-6.12/edit.c"
	check "source from a git checkout" env LINUX="$work/kernel-6.12" assembler/source.sh 6.12
	also "only what is committed counts" test "$tip" = "$(in_tree rev-parse base)"
	rm -rf out "$work/kernel-6.12/edit.c" "$work/kernel-6.12/.git"
	touch "$work/kernel-6.12/kernel/time.o"
	check "source from a directory that was built in" env LINUX="$work/kernel-6.12" assembler/source.sh 6.12
	also "build products stay out" test ! -e out/6.12/linux/kernel/time.o
	rm -rf out "$work/kernel-6.12/kernel/time.o"
	try env LINUX="$work/kernel-7.3" assembler/source.sh 6.12
	also "a source of another version" test "$status" = 1
	also "both versions are named" says "is kernel 7.3, not 6.12"
	also "nothing is left behind" test -z "$(ls out/6.12)"
}

test_package() {
	local path
	rm -rf out deb
	stub apt-get 'exit 100'
	try with_path "$work/stubs:$PATH" assembler/source.sh 6.12
	also "a source that cannot be had: status 3" test "$status" = 3
	also "the message names the package" says linux-source-6.12

	mkdir -p deb/DEBIAN deb/usr/src
	printf 'Package: linux-source-6.12\nVersion: 6.12.1-1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' \
		>deb/DEBIAN/control
	cp "$work/kernel.tar.xz" deb/usr/src/linux-source-6.12.tar.xz
	dpkg-deb --build deb "$work/fake.deb" >/dev/null
	rm -r deb
	sed -i 's/suite -/suite new-suite/' patches/6.12/base
	cat >"$work/sources.list" <<-END
		deb [signed-by=/keys/other.gpg] http://other.example/debian some main
		deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.example/debian some main
	END
	stub apt-get 'case " $* " in
	*" indextargets "*)	echo "Debian/Debian/main http://mirror.example/debian/ '"$work"'/sources.list:2" ;;
	*" download "*)		cp '"$work"'/fake.deb linux-source-6.12_6.12.1-1_all.deb ;;
	*" install "*)		exit 1 ;;
	esac'
	check "source from Debian's package" with_path "$work/stubs:$PATH" assembler/source.sh 6.12
	also "the private apt state has the mirror and keys of the system" \
		grep -qxF "deb [signed-by=/keys/debian.gpg] http://mirror.example/debian/ new-suite main" out/cache/apt/sources.list
	printf 'Types: deb\nURIs: http://other.example/debian\nSigned-By: /keys/other.gpg\n\n# main\nTypes: deb\nURIs: http://mirror.example/debian\nSigned-By: /keys/new.gpg\n' \
		>"$work/debian.sources"
	sed -i "s,$work/sources.list:2,$work/debian.sources:2," "$work/stubs/apt-get"
	rm -r out
	check "the same with a deb822 configuration" with_path "$work/stubs:$PATH" assembler/source.sh 6.12
	also "the keys are found there too" grep -qF "signed-by=/keys/new.gpg" out/cache/apt/sources.list
	also "the tarball is kept" test -f out/cache/linux-source-6.12_6.12.1-1.tar.xz
	stub apt-get 'exit 100'
	rm -rf out/6.12
	check "source offline from the cache" with_path "$work/stubs:$PATH" assembler/source.sh 6.12
	rm -rf out "$work/stubs"
	path=$(programs dirname awk sed git cat find sort tail rm mkdir)
	try with_path "$path" assembler/source.sh 6.12
	also "not Debian: status 3" test "$status" = 3
	also "LINUX= is named" says LINUX=
	rm -rf "$work/stubs"
}

test_packages() {
	local path
	stub apt-get "echo \"\$*\" >>$work/apt-calls; [ -e $work/updated ] || [ \"\$2\" = update ] || exit 100; touch $work/updated"
	# shellcheck disable=SC2016 # variables of the stub
	stub dpkg-query 'shift 3; for p; do [ "$p" = flex ] || echo "installed $p"; done'
	stub id 'echo 1000'
	path=$(programs dirname awk sed sort comm mkdir touch)
	try with_path "$path" assembler/packages.sh
	also "neither root nor sudo: fails" test "$status" = 1
	also "it names package and command" says "apt-get install --no-install-recommends flex"
	# shellcheck disable=SC2016 # variables of the stub
	stub sudo '[ "$1" = -n ] || exec "$@"'
	check "sudo that asks for no password is used" with_path "$path" assembler/packages.sh
	also "lists are fetched when they are missing" grep -q update "$work/apt-calls"
	also "only what is missing is installed" grep -qx -- "-q install -y --no-install-recommends flex" "$work/apt-calls"
	rm "$work/apt-calls" "$work/updated"
	stub id 'echo 0'
	stub apt-get 'echo "no such package"; exit 100'
	try with_path "$path" assembler/packages.sh
	also "root and apt-get fails: fails" test "$status" = 1
	also "the log is named and kept" grep -q "no such package" "$(sed -n 's/.*its output is in //p' "$work/output")"
	stub dpkg-query 'shift 3; printf "installed %s\n" "$@"'
	check "nothing missing: nothing is done" with_path "$path" assembler/packages.sh
	also "and nothing said" test -z "$(cat "$work/output")"
	rm "$work/stubs/apt-get" "$work/stubs/dpkg-query"
	stub gcc 'exit 1'
	try with_path "$path" assembler/packages.sh
	also "not Debian and programs missing: fails" test "$status" = 1
	also "they are named" says " bc "
	also "headers are named" says "<gelf.h>"
}

main() {
	local test
	mkdir -p "$HOME" "$work/template"
	git config --global user.name Tester
	git config --global user.email tester@example.org
	cp "$HOME/.gitconfig" "$work/gitconfig"
	cd "$work/template"
	check "a repository with two bases" make_template
	[ $failed = 0 ] || exit
	for test in template round_trip no_work edits_stay tree_errors refresh refresh_order refresh_errors \
		other_base settings series source package packages; do
		sandbox
		"test_$test"
	done
	echo "$passed passed, $failed failed"
	[ $failed = 0 ]
}

main
