#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Turn the patches of a base into commits of a git tree, and back.
#
#	scripts/series.sh tree BASE	patches/BASE and new files -> branch `series` of out/BASE/tree
#	scripts/series.sh refresh BASE	commits of that branch -> patches/BASE and new files
#	scripts/series.sh mails BASE	commits of that branch -> mails in out/BASE/mails;
#					SIGNOFF=1 adds your Signed-off-by
#	scripts/series.sh base BASE DIR	the source without the series -> DIR, a git worktree
#
# A line of patches/BASE/series is a patch and the new files that its commit adds:
#
#	NAME.patch [PATH | PATH-IN-REPOSITORY:PATH-IN-TREE]...
#
# A patch that another base has, too, is named ../OTHER/NAME.patch. "refresh" keeps
# the reference as long as it gives the same commit, and follows a new number of
# the file; it never makes a reference. Patches keep their new files if
# patches/BASE/base names no kernel.
#
# "refresh" writes a series file anew: of its comments only those at the top stay.
# Renames are stored as a deletion and a new file; mails show them as renames.
# Commits depend on the base and the repository alone: each is committed by its
# author at its author's date. out/BASE/tree/.git/agreed is the commit at which
# tree and repository were last the same, and the checksums of the repository's files.
#
# Exit status: 1 with a message, and nothing changed, for every failure.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
rooms=(arch include Documentation tools)	# where new files are
verb=${1-} base=${2-} tree=$root/out/${2-}/tree

say() { echo "series: $base: $*"; }
die() { say "$*" >&2; exit 1; }
in_tree() { git -C "$tree" -c core.hooksPath=/dev/null "$@"; }

# entries SERIES...: their lines without comments
entries() { sed -sn '/^#/!{/./p}' "$@"; }
# new_files SERIES...: paths of their new files in the repository
new_files() { entries "$@" | awk '{ for (i = 2; i <= NF; i++) { sub(/:.*/, "", $i); print $i } }' | sort -u; }
files_in_rooms() { find "${rooms[@]}" ! -type d 2>/dev/null | sort; }

check_repository() (	# check_repository DIR
	local series=patches/$base/series name files file found
	cd "$1"
	[[ -f $series ]] || die "$series is missing"
	found=$(entries "$series" | tr -s ' \t:' '\n' | sort | uniq -d | xargs)
	[[ ! $found ]] || die "$series lists $found twice"
	while read -r name files; do
		[[ -f patches/$base/$name ]] || die "$series names $name, which is missing"
		for file in $files; do
			[[ -f ${file%%:*} ]] || die "$series names ${file%%:*}, which is missing"
			[[ " ${rooms[*]} " == *" ${file%%/*} "* ]] ||
				die "$series names ${file%%:*}: new files belong below ${rooms[*]}"
		done
	done < <(entries "$series")
	found=$(comm -13 <(entries "$series" | cut -d ' ' -f 1 | sort) \
		<(find "patches/$base" -name '*.patch' -printf '%P\n' | sort) | xargs)
	[[ ! $found ]] || die "$series does not name $found"
	found=$(comm -13 <(new_files patches/*/series) <(files_in_rooms) | xargs)
	[[ ! $found ]] || die "no series names the new file $found: add it to the line of its patch"
)

# What the tree is made of.
inputs() (
	in_tree rev-parse base
	cd "$root/patches/$base"
	# shellcheck disable=SC2046 # a list of names
	set -- series $(entries series | cut -d ' ' -f 1) $(new_files series | sed 's,^,../../,')
	sha256sum "$@"
	find "$@" -perm /100 -printf 'executable  %p\n'
)

# What changed in the repository since the tree was made.
changed() {
	[[ -f $tree/.git/agreed ]] || { echo "patches/$base"; return; }
	{ diff <(sed 1d "$tree/.git/agreed") <(inputs) || true; } |
		sed -n 's/^[<>] [^ ]* *//p' | sed 's,^\.\./\.\./,,' | sort -u | xargs
}

# What the tree has and the repository has not.
edits() {
	if [[ $(in_tree symbolic-ref -q HEAD) != refs/heads/series ]]; then
		echo "another branch than series checked out, or a rebase under way"
	elif [[ $(in_tree status --porcelain --untracked-files=no) ]]; then
		echo "uncommitted changes"
	elif [[ $(in_tree rev-parse series) != $(sed -n 1p "$tree/.git/agreed" 2>/dev/null || in_tree rev-parse base) ]]; then
		echo "commits that patches/$base does not have"
	fi
}

both_changed() {	# both_changed EDITS CHANGED
	die "out/$base/tree has $1, and since it was made the repository changed: $2.
To keep both: git stash in the repository, refresh, git stash pop.
To drop the tree's: git -C out/$base/tree checkout -f -B series $(sed -n 1p "$tree/.git/agreed" 2>/dev/null || echo base)"
}

# Work in a clone without settings, hooks and, as far as possible, files.
clone() {
	git clone -q --shared --no-checkout --template= -b series "$tree" "$tmp/clone"
	cd "$tmp/clone"
}

# agree: make the clone's HEAD the branch series; repository and tree are the same now
agree() {
	in_tree fetch -q "$tmp/clone" HEAD
	if in_tree diff --quiet series FETCH_HEAD; then
		in_tree update-ref refs/heads/series FETCH_HEAD
	else
		in_tree checkout -q -B series FETCH_HEAD
	fi
	{ in_tree rev-parse series; inputs; } >"$tmp/agreed"
	mv "$tmp/agreed" "$tree/.git/agreed"
}

add_commit() {	# add_commit DIR PATCH [FILE]...
	local dir=$1 patch=$2 info file path mode
	local -x GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
	info=$(git mailinfo /dev/null /dev/null <"$dir/patches/$base/$patch" 2>/dev/null || true)
	GIT_COMMITTER_NAME=$(sed -n 's/^Author: //p' <<<"$info")
	GIT_COMMITTER_EMAIL=$(sed -n 's/^Email: //p' <<<"$info")
	GIT_COMMITTER_DATE=$(sed -n 's/^Date: //p' <<<"$info")
	git am -q --empty=keep --keep-non-patch --keep-cr "$dir/patches/$base/$patch" >"$tmp/log" 2>&1 </dev/null ||
		die "patches/$base/$patch does not apply:"$'\n'"$(grep -E '^(error|fatal|Patch format)' "$tmp/log")"
	shift 2
	for file; do
		path=${file#*:} file=$dir/${file%%:*} mode=100644
		[[ ! -x $file ]] || mode=100755
		! git cat-file -e "HEAD:$path" 2>/dev/null ||
			die "patches/$base/$patch is to add $path, which the base or an earlier patch has"
		git update-index --add --cacheinfo "$mode,$(git hash-object -w --no-filters "$file"),$path" ||
			die "patches/$base/$patch cannot add $path"
	done
	[[ $# = 0 ]] || git commit -q --amend --no-edit --allow-empty
}

# build DIR: commit DIR's series in the clone, which then has the files that patches change
build() {
	local patch files
	git update-ref --no-deref HEAD base
	git read-tree base
	while read -r patch files; do
		# shellcheck disable=SC2086 # a list of names
		add_commit "$1" "$patch" $files
	done < <(entries "$1/patches/$base/series")
}

tree() {
	local changed edits
	check_repository "$root"
	changed=$(changed)
	[[ $changed ]] || { say "out/$base/tree is up to date"; return; }
	edits=$(edits)
	[[ ! $edits ]] || both_changed "$edits" "$changed"
	clone
	build "$root"
	agree
	say "$(in_tree rev-list --count base..series) patches are on branch series of out/$base/tree"
}

# stage: in $stage, what the repository is to be; $stage has a copy of it
stage() {
	local series=patches/$base/series commit mail line patch files file path mode blob status also
	local -A in_repository=() reference=() added=()
	local filter=--diff-filter=a
	grep -q '^kernel ' "$root/patches/$base/base" || filter=
	while read -r patch files; do
		[[ $patch != ../* ]] || reference[${patch#*-}]=$patch
		for file in $files; do in_repository[${file#*:}]=${file%%:*}; done
	done < <(entries "$root/$series")

	rm "$stage/patches/$base"/*.patch 2>/dev/null || true
	also=$(cd "$root/patches" && find . -name series ! -path "./$base/*" -exec cat {} +)
	for file in $(new_files "$root/$series"); do
		grep -qF "$file" <<<"$also" || rm "$stage/$file"
	done
	sed -n '/^\(#\|$\)/!q;p' "$root/$series" >"$stage/$series"
	git format-patch -q --no-numbered --no-renames $filter --always --zero-commit --abbrev=12 \
		--no-signature -o "$stage/patches/$base" base..series
	while read -r commit mail; do
		line=${mail##*/} patch=${reference[${line#*-}]-}
		if [[ $patch ]] && same_commit "$commit" "$mail" "$stage/patches/$base/$patch"; then
			rm "$mail"
			line=$patch
		elif [[ $patch ]]; then
			say "$patch gives another commit: patches/$base gets a file of its own"
		fi
		while read -r _ mode _ blob status path; do
			[[ ! ${added[$path]-} ]] || die "commit $(git show -s --format='%h ("%s")' "$commit") changes" \
				"$path, which an earlier one adds: squash them (git rebase -i base)"
			[[ $filter && $status = A ]] || continue
			file=${in_repository[$path]-${path/#tools\/testing\/selftests\/kvm\/x86_64\//tools/testing/selftests/kvm/x86/}}
			[[ $mode = 100* ]] || die "$path is new and not a regular file"
			added[$path]=1
			mkdir -p "$stage/${file%/*}"
			git cat-file blob "$blob" >"$stage/$file"
			chmod "${mode#100}" "$stage/$file"
			line+=" $file"
			[[ $file = "$path" ]] || line+=:$path
		done < <(git diff-tree -r --no-renames --no-commit-id "$commit")
		echo "$line" >>"$stage/$series"
	done < <(paste -d ' ' <(git rev-list --reverse base..series) <(ls "$stage/patches/$base"/*.patch))
	renumber
}

# same_commit COMMIT MAIL REFERENCE: both mails have the same message and give COMMIT
same_commit() {
	local -x GIT_INDEX_FILE=$tmp/index
	cmp -s <(sed '/^---$/q' "$2") <(sed '/^---$/q' "$3") && git read-tree "$1~" &&
		git apply --cached --allow-empty "$3" 2>/dev/null &&
		git diff-index --cached --quiet --no-renames --diff-filter=d "$1"
}

# In the other bases' series, follow patches that have another number now.
renumber() {
	local old new
	for old in "$root/patches/$base"/*.patch; do
		[[ -e $old ]] || continue
		old=${old##*/}
		new=$(find "$stage/patches/$base" -name "????-${old#*-}" -printf '%f\n' | sort | head -n 1)
		[[ ! $new || $new = "$old" ]] || sed -i "s,^\.\./$base/$old\>,../$base/$new," "$stage/patches"/*/series
	done
}

# Verify that every commit survives the way through a mail: some messages do not.
check_build() {
	local old new format='%T %an <%ae> %ad%n%B'
	while read -r old new; do
		[[ $(git show -s --format="$format" "$old") = "$(git show -s --format="$format" "$new")" ]] ||
			die "commit $(git show -s --format='%h ("%s")' "$old") does not survive as a mail:" \
				"has its message a line that starts with ---, diff or From?"
	done < <(paste -d ' ' <(git rev-list --reverse base..series) <(git rev-list --reverse base..HEAD))
}

same_file() { cmp -s "$1" "$2" && [[ $(find "$1" "$2" -perm /100 | wc -l) != 1 ]]; }

# Write what differs, each file by a rename.
install_stage() {
	local file others
	cd "$root"
	for file in $({ find patches -type f; files_in_rooms; cd "$stage"; find . -type f -printf '%P\n'; } | sort -u); do
		! same_file "$stage/$file" "$file" 2>/dev/null || continue
		others=$(grep -lF -- "${file#patches/}" patches/*/series | grep -v "^patches/$base/" | xargs || true)
		if [[ -e $stage/$file ]]; then
			mkdir -p "${file%/*}"
			mv "$stage/$file" "$file"
			say "wrote $file${others:+, which $others names, too}"
		else
			rm "$file"
			rmdir -p --ignore-fail-on-non-empty "${file%/*}"
			say "removed $file${others:+, which $others names, too}"
		fi
	done
}

refresh() {
	local edits changed room
	check_repository "$root"
	edits=$(edits) changed=$(changed)
	[[ ! $edits || $edits = commits* ]] || die "out/$base/tree has $edits: finish first" \
		"(git commit --amend, or git commit --fixup=COMMIT and git rebase -i --autosquash base)"
	[[ ! $changed ]] || die "the repository changed: $changed: make the tree first"
	in_tree merge-base --is-ancestor base series || die "branch series does not start at tag base"
	[[ ! $(in_tree rev-list --merges base..series) ]] || die "a series cannot have merges: git rebase base"
	mkdir "$stage"
	for room in patches "${rooms[@]}"; do
		[[ ! -e $root/$room ]] || cp -a "$root/$room" "$stage"
	done
	clone
	stage
	check_repository "$stage"
	build "$stage"
	check_build
	install_stage
	agree
	say "$(in_tree rev-list --count base..series) commits are in patches/$base"
}

mails() {
	local cover=$root/patches/$base/cover-letter signoff=
	[[ -f $cover ]] || cover=$root/patches/7.3/cover-letter
	check_repository "$root"
	[[ ! $(edits)$(changed) ]] || die "out/$base/tree and the repository differ: tree or refresh first"
	[[ -s $cover ]] || die "${cover#"$root/"} is missing: a subject, an empty line, the text"
	if [[ ${SIGNOFF-} = 1 ]]; then
		[[ $identity ]] || die "SIGNOFF=1 signs with your git identity, and there is none:" \
			"git config --global user.name NAME, and user.email ADDRESS"
		signoff=--signoff
	fi
	clone
	[[ $identity ]] || identity=$(git log -1 --format='%an <%ae>' series)	# for the cover letter
	identity=${identity%>*}
	export GIT_COMMITTER_NAME=${identity%% <*} GIT_COMMITTER_EMAIL=${identity#*<}
	git config branch.series.description "$(cat "$cover")"
	git format-patch -q -M --cover-letter --cover-from-description=subject $signoff -o "$tmp/mails" base..series
	rm -rf "$root/out/$base/mails"
	mv "$tmp/mails" "$root/out/$base/mails"
	say "$(find "$root/out/$base/mails" -name '*.patch' | wc -l) mails are in out/$base/mails"
}

base() {	# base DIR
	[[ ! -e $1 || $(git -C "$1" rev-parse HEAD) != $(in_tree rev-parse base) ]] || return 0
	[[ ! -e $1 ]] || die "$1 exists and is not the base: delete it"
	in_tree worktree prune
	in_tree worktree add -q --detach "$(realpath -m "$1")" base
}

main() {
	[[ $# = 2 && $verb =~ ^(tree|refresh|mails)$ || $# = 3 && $verb = base ]] || {
		echo "usage: $0 tree|refresh|mails BASE, or base BASE DIR" >&2
		exit 1
	}
	[[ $base && -f $root/patches/$base/base ]] || die "unknown base: patches/$base/base does not exist"
	# shellcheck disable=SC2046 # a list of names; in a hook they lead to another repository
	unset $(git rev-parse --local-env-vars)
	[[ -d $tree/.git ]] || die "out/$base/tree is missing: run scripts/source.sh $base"
	identity=$(git -c user.useConfigOnly=true -C "$root" var GIT_COMMITTER_IDENT 2>/dev/null || true)
	tmp=$(mktemp -d "$root/out/$base/series.XXXXXX") stage=$tmp/stage
	trap 'rm -rf "$tmp"' EXIT
	# The user's settings and attributes must not change what is written.
	export HOME=$tmp GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1
	unset XDG_CONFIG_HOME
	"$verb" "${@:3}"
}

main "$@"
