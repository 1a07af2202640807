# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For scripts that get Debian's packages of other suites than the system's: all of
# apt's state is in $cache, the system's configuration only tells the mirrors.
# shellcheck disable=SC2154 # cache is the caller's

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

# apt-get with a state of its own: nothing of the system's changes. APT::Sandbox:
# root's apt would warn that its unprivileged user cannot write here.
private_apt() {
	mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
	apt-get -q -o APT::Sandbox::User=root -o Acquire::Languages=none \
		-o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" "$@"
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

# fetch_from DEB PACKAGE SUITE COMMAND...: with the lists of a suite that the system does
# not use. DEB is deb or deb-src, COMMAND what apt-get does with the package.
fetch_from() {
	local deb=$1 package=$2 suite=$3 uri entry
	local -a options=(-o Dir::Etc::sourcelist="$cache/apt/sources.list" -o Dir::Etc::sourceparts=-)

	shift 3
	mkdir -p "$cache/apt"
	while read -r uri entry; do
		echo "$deb [signed-by=$(keyring_of "$uri" "$entry")] $uri $suite main" >"$cache/apt/sources.list"
		cat "$cache/apt/sources.list"
		private_apt "${options[@]}" update &&
			private_apt "${options[@]}" "$@" "$package" && return
	done < <(debian_mirrors)
	return 1
}
