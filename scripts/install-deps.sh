#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what building, testing and the demo need on Debian 12. Run as root; needs no terminal; does nothing when all
# is there already.
#
#   scripts/install-deps.sh           build, tests, demo
#   scripts/install-deps.sh --fuzz    clang and its run-time libraries too (make fuzz)
#   scripts/install-deps.sh --list    print the packages and install nothing
set -eu

build="gcc make pkg-config libcurl4-openssl-dev libssl-dev libaio-dev libyaml-dev liblz4-dev libzstd-dev libjansson-dev
       libarchive-dev libext2fs-dev"
tests="check libsubunit-dev libiscsi-dev libiscsi-bin docker-registry e2fsprogs zstd python3 curl procps util-linux
       iproute2 openssl ca-certificates qemu-utils qemu-block-extra libnbd-bin fuse3"
style="shellcheck clang-format mandoc spin"
packages="$build tgt $tests $style"

for arg; do
	case $arg in
	--fuzz) packages="$packages clang libclang-rt-14-dev" ;;
	--list) list=1 ;;
	*)
		sed -n '3,9s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done
if [ "${list:-}" ]; then
	for p in $packages; do echo "$p"; done
	exit 0
fi

missing=
for p in $packages; do
	# shellcheck disable=SC2016 # the format is dpkg-query's, not the shell's
	case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || :) in
	installed) ;;
	*) missing="$missing $p" ;;
	esac
done
[ "$missing" ] || exit 0

# tgt and docker-registry start a service when they are installed. Nothing here wants one: Debian asks this file first.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

echo "installing:$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! { apt-get -qq update && apt-get -qq install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "install-deps.sh: apt-get failed; the whole log is $log" >&2
	exit 1
fi
rm -f "$log"
