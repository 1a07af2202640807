# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For scripts that get Debian's packages, of other suites than the system's too: all of
# apt's state is in $apt_state, the system's configuration only tells the mirrors.
# shellcheck disable=SC2154 # apt_state, root and base are the caller's

value_of() {	# value_of KEY: from patches/BASE/base
	awk -v key="$1" '$1 == key { print $2; exit }' "$root/patches/$base/base"
}

system_codename() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

keyring_of() {	# keyring_of URI FILE:NUMBER: the keys that the system trusts for it
	local uri=${1%/} file=${2%:*} keyring
	case $file in
	*.sources)	keyring=$(awk -v RS= -v uri="$uri" 'index($0, uri)' "$file" |
				sed -n 's/^Signed-By:[[:space:]]*//Ip') ;;
	*)		keyring=$(grep -F "$uri" "$file" | sed -n 's/.*signed-by=\([^] ]*\).*/\1/p') ;;
	esac
	keyring=$(sed -n '/^\//{p;q}' <<<"$keyring")
	echo "${keyring:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

# apt-get with a state of its own in $apt_state: nothing of the system's changes.
# APT::Sandbox: root's apt would warn that its unprivileged user cannot write there.
private_apt() {
	apt-get -q "${private[@]}" "$@"
}

private_cache() {
	apt-cache "${private[@]}" "$@"
}

set_private() {	# set_private OPTION...: what the two above start with
	mkdir -p "$apt_state/lists/partial" "$apt_state/archives/partial"
	private=(-o APT::Sandbox::User=root -o Acquire::Languages=none
		-o Dir::State::lists="$apt_state/lists" -o Dir::Cache="$apt_state" "$@")
}

# The mirrors of Debian's main archive in the system's apt configuration: a line
# "URI file:number" each. apt knows what is what only from package lists.
debian_mirrors() {
	# shellcheck disable=SC2016 # apt's variables
	local targets=(indextargets --format '$(ORIGIN)/$(LABEL)/$(COMPONENT) $(REPO_URI) $(SOURCESENTRY)')
	{
		apt-get "${targets[@]}" 'Created-By: Packages' | grep . || {
			private_apt update >&2
			private_apt "${targets[@]}" 'Created-By: Packages'
		}
	} | sed -n 's,^Debian/Debian/main ,,p' | sort -u
}

# with_suite DEB SUITE COMMAND...: COMMAND uses private_apt with fresh lists of SUITE, a
# suite that the system need not have, or - for those that it has. DEB is deb or deb-src.
# A list that cannot be had is no failure: COMMAND sees what it needs.
with_suite() {
	local deb=$1 suite=$2 list=$apt_state/sources.list uri entry

	shift 2
	set_private
	if [[ $suite == - ]]; then
		private_apt update || :
		"$@"
		return
	fi
	while read -r uri entry; do
		set_private -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=-
		echo "$deb [signed-by=$(keyring_of "$uri" "$entry")] $uri $suite main" | tee "$list"
		private_apt update || :
		"$@" && return
	done < <(debian_mirrors)
	return 1
}
