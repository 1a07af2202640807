#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# assemble.sh tree|refresh|series BASE
#
#   tree     patches/BASE and the new files -> commits on branch `series` of the
#            git tree out/BASE/linux (which source.sh made)
#   refresh  the commits of that branch -> patches/BASE and the new files
#   series   the commits of that branch -> mails in out/BASE/series
#
# A line of patches/BASE/series is a patch and the new files that its commit
# carries: `0003-foo.patch [file ...]`, where file is the path in this repository
# and in the kernel, or `path-in-repository:path-in-kernel`.
#
# In the tree, refs/assembled is the commit on which it and the repository agree,
# .git/assembled the list of what that was made of. Commits depend on the base
# and the repository alone: they are the same wherever they are made.
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "$0")/.." && pwd)
new_dirs='arch include Documentation tools'	# where new kernel files may be
declare -a patches=()		# the patches, in order
declare -A carries=()		# patch: the files on its line
declare -A repo_path=()		# path in the kernel of a new file: path in the repository
declare -A line_of=() note_of=()	# lines and comments of the series as they were written

say() { echo "$command $base: $*"; }
die() { say "$*" >&2; exit 1; }

# The user's settings must not change what is written: main hides the global
# ones, and this overrules those of the tree.
git() {
	command git -c diff.algorithm=myers -c diff.noprefix=false -c diff.mnemonicPrefix=false \
		-c diff.context=3 -c diff.interHunkContext=0 -c diff.renameLimit=0 -c core.quotePath=true \
		-c format.signOff=false -c format.notes=false -c mailinfo.scissors=false "$@"
}

# --- the repository -----------------------------------------------------------

read_series() {	# read_series REPOSITORY
	local where=patches/$base/series n=0 first=first note='' line rest name file
	local -a files
	local -A seen=()

	patches=() carries=() repo_path=() line_of=() note_of=()
	[ -f "$1/$where" ] || die "$where does not exist"
	while IFS= read -r line || [ -n "$line" ]; do
		n=$((n + 1))
		case $line in '#'* | '') note+=$line$'\n'; continue ;; esac
		read -r name rest <<<"$line"
		read -ra files <<<"$rest"
		[ -f "$1/patches/$base/$name" ] || die "$where:$n: patches/$base/$name does not exist"
		[[ ! -v carries[$name] ]] || die "$where:$n: $name is listed twice"
		for file in "${files[@]}"; do
			[ -f "$1/${file%%:*}" ] || die "$where:$n: ${file%%:*} does not exist in the repository"
			[[ ! -v seen[${file%%:*}] && ! -v repo_path[${file#*:}] ]] ||
				die "$where:$n: ${file%%:*} is listed twice"
			seen[${file%%:*}]=1 repo_path[${file#*:}]=${file%%:*}
		done
		patches+=("$name") carries[$name]=${files[*]}
		line_of["$name${files[*]/#/ }"]=$line
		# comments go with their patch, whatever its number; those at the top stay there
		note_of[${first:-${name#*-}}]=$note first='' note=''
	done <"$1/$where"
	note_of[${first:-last}]=$note
}

files_in() {	# files_in SERIES-FILE...: the repository's files that they list
	awk '!/^#/ { for (i = 2; i <= NF; i++) { sub(/:.*/, "", $i); print $i } }' "$@" | sort -u
}

check_repository() {	# what is in no series, or in a patch as well
	local name path line files
	for path in "$root/patches/$base"/*.patch; do
		name=${path##*/}
		[ ! -e "$path" ] || [[ -v carries[$name] ]] ||
			die "patches/$base/series does not name $name, which is beside it"
	done
	files=$(cd "$root" && for path in $new_dirs; do [ ! -e "$path" ] || find "$path" ! -type d; done |
		sort | comm -23 - <(files_in patches/*/series))
	[ -z "$files" ] || die "no line of a series carries ${files//$'\n'/, }"
	for name in "${patches[@]}"; do
		while read -r line; do
			for path in "${!repo_path[@]}"; do
				[[ "$line " != *" "[ab]"/$path "* ]] || die "patches/$base/$name touches $path," \
					"which is a new file: edit ${repo_path[$path]} instead"
			done
		done < <(grep '^diff --git ' "$root/patches/$base/$name")
	done
}

inputs() (	# what a tree is made of, as a list to compare
	echo "$(git rev-parse base) out/$base/linux"
	cd "$root"
	set -- "patches/$base/series" "${patches[@]/#/patches/$base/}" "${repo_path[@]}"
	sha256sum "$@" | sort -k 2
	find "$@" -perm /100 -printf 'x %p\n' | sort
)

changed_inputs() {	# the files that changed since the tree was made
	[ -f .git/assembled ] || { echo "patches/$base"; return; }
	{ inputs | diff .git/assembled - || true; } | sed -n 's/^[<>] [^ ]* *//p' | sort -u | xargs
}

# --- from the repository to commits -------------------------------------------

header() { sed -n "s/^$1: //p" "$tmp/info"; }

add_commit() {	# add_commit REPOSITORY PATCH: from $tip and the index to a new $tip
	local name=$2 file new mode blob
	git mailinfo -b "$tmp/body" "$tmp/diff" <"$1/patches/$base/$name" >"$tmp/info" || true
	[[ $(header Author) && $(header Date) && $(header Subject) ]] ||
		die "patches/$base/$name is not a mail with From, Date and Subject"
	# the patch of a commit that only adds new files is empty
	if grep -q '^diff --git ' "$tmp/diff"; then
		git apply --cached --whitespace=nowarn "$tmp/diff" 2>"$tmp/error" ||
			die "patches/$base/$name does not apply:"$'\n'"$(cat "$tmp/error")"
	fi
	for file in ${carries[$name]}; do
		new=${file#*:} file=$1/${file%%:*}
		[ -z "$(git ls-files -- ":(top,literal)$new")" ] ||
			die "patches/$base/series: $name is to carry $new, which the base (or an earlier patch) has"
		mode=$([ -x "$file" ] && echo 100755 || echo 100644)
		blob=$(git hash-object -w --no-filters "$file")
		git update-index --add --cacheinfo "$mode,$blob,$new" 2>"$tmp/error" ||
			die "patches/$base/series: $new cannot be added: $(cat "$tmp/error")"
	done
	{ header Subject; echo; cat "$tmp/body"; } | git stripspace >"$tmp/message"
	tip=$(GIT_AUTHOR_NAME=$(header Author) GIT_AUTHOR_EMAIL=$(header Email) GIT_AUTHOR_DATE=$(header Date) \
		GIT_COMMITTER_NAME=$(header Author) GIT_COMMITTER_EMAIL=$(header Email) \
		GIT_COMMITTER_DATE=$(header Date) git commit-tree "$(git write-tree)" -p "$tip" -F "$tmp/message")
}

build() {	# build REPOSITORY: its commits up to $tip, without a look at the work tree
	local -x GIT_INDEX_FILE=$tmp/index
	local name
	tip=$(git rev-parse base)
	git read-tree "$tip"
	for name in "${patches[@]}"; do
		add_commit "$1" "$name"
	done
}

edits() {	# what the tree has that the repository has not
	if [ "$(git symbolic-ref -q HEAD)" != refs/heads/series ]; then
		echo "another branch checked out than series, or a rebase under way"
	elif [ -n "$(git status --porcelain --untracked-files=no)" ]; then
		echo "changes that are not committed"
	elif [ "$(git rev-parse series)" != "$(git rev-parse refs/assembled)" ]; then
		echo "commits that are not in patches/$base"
	fi
}

agree_on() {	# agree_on COMMIT: repository and tree are the same now
	git update-ref refs/assembled "$1"
	inputs >"$tmp/assembled"
	mv "$tmp/assembled" .git/assembled
}

both_changed() {	# both_changed EDITS INPUTS: neither may be overwritten
	die "out/$base/linux has $1, but since it was made these have changed: $2.
To keep both, set the latter aside (git stash), make refresh BASE=$base, and merge (git stash pop).
To drop the tree's: git -C out/$base/linux checkout -f -B series refs/assembled"
}

tree() {
	local edits changed
	read_series "$root"
	check_repository
	edits=$(edits)
	changed=$(changed_inputs)
	if [ -z "$changed" ]; then
		say "up to date${edits:+; out/$base/linux has $edits, which stay}"
		return
	fi
	[ -z "$edits" ] || both_changed "$edits" "$changed"
	build "$root"
	git checkout -q -B series "$tip"	# writes only the files that differ
	agree_on "$tip"
	say "${#patches[@]} patches on branch series of out/$base/linux ($SECONDS s)"
}

# --- from commits to the repository -------------------------------------------

format_patch() {
	git format-patch -M --no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/ \
		--abbrev=12 --zero-commit --no-signature --no-base --no-thread --no-attach --always "$@"
}

repo_path_of() {	# repo_path_of KERNEL-PATH: where the repository has, or is to have, it
	local old=tools/testing/selftests/kvm/x86_64/ path=$1
	[ "${path#"$old"}" = "$path" ] || path=tools/testing/selftests/kvm/x86/${path#"$old"}
	echo "${repo_path[$1]-$path}"
}

stage_file() {	# stage_file MODE BLOB KERNEL-PATH
	local path
	path=$(repo_path_of "$3")
	[[ " $new_dirs " == *" ${path%%/*} "* ]] || die "$3: new files belong below ${new_dirs// /, }"
	[[ $1 == 100* ]] || die "$3 is new and not a regular file"
	[ ! -e "$tmp/stage/$path" ] || die "two new files are $path in the repository, one of them $3"
	mkdir -p "$tmp/stage/${path%/*}"
	git cat-file blob "$2" >"$tmp/stage/$path"
	chmod "${1#100}" "$tmp/stage/$path"
}

without() {	# without COMMIT FILE...: the same commit without these files
	local -x GIT_INDEX_FILE=$tmp/index
	local commit=$1 tree
	shift
	git read-tree "$commit"
	printf '%s\0' "$@" | git update-index -z --force-remove --stdin
	tree=$(git write-tree)
	git cat-file commit "$commit" | sed "1s/.*/tree $tree/" | git hash-object -t commit -w --stdin
}

stage_commit() {	# stage_commit COMMIT NUMBER: its mail, new files and series line
	local commit=$1 fields mode blob status path line name
	local -A added=()
	while IFS= read -r -d '' fields; do
		read -r _ mode _ blob status <<<"$fields"
		IFS= read -r -d '' path
		[[ ! -v carried[$path] ]] || die "commit $(git show -s --format='%h ("%s")' "$commit") changes $path," \
			"which an earlier commit adds: squash the change into that one (git rebase -i)"
		# a rename has a second path, which is no new file: it goes into the patch
		[[ $status != R* ]] || IFS= read -r -d '' _
		[ "$status" != A ] || added[$path]=1
		[ "$status" != A ] || stage_file "$mode" "$blob" "$path"
	done < <(git diff-tree -r -M -z --abbrev=40 --no-commit-id "$commit")

	[ ${#added[@]} = 0 ] || commit=$(without "$commit" "${!added[@]}")
	line=$(format_patch -1 --start-number "$2" -o "$tmp/stage/patches/$base" "$commit")
	line=${line##*/} name=${line##*/}
	for path in "${listed[@]}" $(printf '%s\n' "${!added[@]}" | sort); do
		[[ -v added[$path] ]] || continue
		unset "added[$path]"
		carried[$path]=1
		line+=" $(repo_path_of "$path")"
		[ "${line##* }" = "$path" ] || line+=:$path
	done
	printf '%s%s\n' "${note_of[${name#*-}]-}" "${line_of[$line]-$line}" >>"$tmp/lines"
}

check_stage() {	# the staged mails and files give the very commits that they come from
	local format='%T %an <%ae> %ad%n%s%n%b' old new
	read_series "$tmp/stage"
	build "$tmp/stage"
	while read -r old new; do
		[ "$(git show -s --date=raw --format="$format" "$old")" = \
			"$(git show -s --date=raw --format="$format" "$new")" ] ||
			die "commit $(git show -s --format='%h ("%s")' "$old") does not survive as a mail: has its" \
				"message a line that starts with ---, diff or From:?"
	done < <(paste -d ' ' <(git rev-list --reverse base..series) <(git rev-list --reverse "base..$tip"))
}

others() {	# others FILE: the other bases that carry it
	local base_file
	for base_file in "$root"/patches/*/series; do
		[ "$base_file" = "$root/patches/$base/series" ] || ! files_in "$base_file" | grep -xF "$1" >/dev/null ||
			basename "${base_file%/series}"
	done | xargs
}

same() {	# same FILE FILE: contents and executable bit
	cmp -s "$1" "$2" && [ "$(find "$1" "$2" -perm /100 | wc -l)" != 1 ]
}

install_stage() {	# install_stage OLD-FILE...: only what differs is written
	local file also n=0
	for file in $(find "$tmp/stage" -type f -printf '%P\n' | sort) "$@"; do
		! same "$tmp/stage/$file" "$root/$file" || continue
		also=$(others "$file")
		if [ -e "$tmp/stage/$file" ]; then
			mkdir -p "$root/${file%/*}"
			cp -p "$tmp/stage/$file" "$tmp/new"
			mv "$tmp/new" "$root/$file"
			say "wrote $file${also:+, which $also has too: make its tree again}"
		elif [ -z "$also" ]; then
			rm "$root/$file"
			(cd "$root" && rmdir -p --ignore-fail-on-non-empty "${file%/*}")
			say "removed $file"
		else
			continue
		fi
		n=$((n + 1))
	done
	[ $n != 0 ] || say "nothing to write"
}

refresh() {
	local edits changed commit name file stray n=0
	local -a listed=()	# new files in the order of the old series
	local -A carried=()	# new files of the commits so far
	read_series "$root"
	local -a old=("${patches[@]/#/patches/$base/}" "${repo_path[@]}")
	edits=$(edits)
	changed=$(changed_inputs)
	[[ -z $edits || $edits = commits* ]] || die "out/$base/linux has $edits. Finish them first:" \
		"git commit --amend, or git commit --fixup=COMMIT and git rebase -i --autosquash base"
	[ -z "$changed" ] || [ -z "$edits" ] || both_changed "$edits" "$changed"
	[ -z "$changed" ] || die "since out/$base/linux was made these have changed: $changed:" \
		"make tree BASE=$base first"
	git merge-base --is-ancestor base series || die "branch series does not start at tag base any more"
	[ -z "$(git rev-list --merges base..series)" ] || die "merges do not fit into a series: git rebase base"

	for name in "${patches[@]}"; do
		for file in ${carries[$name]}; do listed+=("${file#*:}"); done
	done
	mkdir -p "$tmp/stage/patches/$base"
	for commit in $(git rev-list --reverse base..series); do
		n=$((n + 1))
		stage_commit "$commit" $n
	done
	{ printf %s "${note_of[first]-}"; cat "$tmp/lines"; printf %s "${note_of[last]-}"; } \
		>"$tmp/stage/patches/$base/series"
	check_stage
	install_stage "${old[@]}"
	# shellcheck disable=SC2086 # a list of directories
	stray=$(git ls-files --others --exclude-standard -- $new_dirs | xargs)
	[ -z "$stray" ] || say "in no commit and so left out: $stray"
	# the same trees; the committer is now the author, as everywhere else
	git update-ref refs/heads/series "$tip"
	read_series "$root"
	agree_on "$tip"
}

# --- from commits to mails ----------------------------------------------------

series() {
	local cover=$root/patches/cover-letter
	local -a signoff=() mails
	read_series "$root"
	[ -z "$(edits)$(changed_inputs)" ] ||
		die "out/$base/linux and the repository differ: make tree or make refresh first"
	[ ${#patches[@]} != 0 ] || die "patches/$base/series names no patch"
	[ -s "$cover" ] || die "patches/cover-letter does not exist: a line with the subject, an empty one, the text"
	if [ "${SIGNOFF-}" = 1 ]; then
		[ -n "$identity" ] || die "SIGNOFF=1 signs with your git identity, and there is none:" \
			"git config --global user.name NAME, and user.email ADDRESS"
		signoff=(--signoff)
	fi
	# a cover letter has to be from somebody
	[ -n "$identity" ] || identity=$(git log -1 --format='%an <%ae>' series)
	export GIT_COMMITTER_NAME=${identity%% <*} GIT_COMMITTER_EMAIL=${identity##*<}
	GIT_COMMITTER_EMAIL=${GIT_COMMITTER_EMAIL%%>*}

	git config branch.series.description "$(cat "$cover")"	# where git takes the cover letter from
	format_patch --cover-letter --cover-from-description=subject -o "$tmp/series" \
		"${signoff[@]}" base..series >/dev/null
	rm -rf "$root/out/$base/series"
	mv "$tmp/series" "$root/out/$base/series"
	mails=("$root/out/$base/series"/*.patch)
	say "${#mails[@]} mails in out/$base/series"
}

main() {
	local linux
	command=${1-} base=${2-} linux=$root/out/${2-}/linux
	[[ $# = 2 && $command =~ ^(tree|refresh|series)$ ]] || {
		echo "usage: $0 tree|refresh|series BASE" >&2
		exit 1
	}
	[ -f "$root/patches/$base/base" ] || die "unknown base: patches/$base/base does not exist"
	# git's own variables (in a hook, say) would lead it to another repository
	# shellcheck disable=SC2046 # a list of names
	unset $(git rev-parse --local-env-vars)
	git --git-dir="$linux/.git" rev-parse -q --verify base >/dev/null 2>&1 ||
		die "out/$base/linux is not there: run assembler/source.sh $base"
	cd "$linux"
	identity=$(git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT 2>/dev/null || true)
	export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
	tmp=$(mktemp -d "$root/out/$base/assemble.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	: >"$tmp/lines"
	git rev-parse -q --verify refs/assembled >/dev/null || git update-ref refs/assembled base
	"$command"
}

main "$@"
