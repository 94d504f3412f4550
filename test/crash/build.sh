# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by tests that want the build with test points: sets C, and builds it if `make check` has not.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
B=${B:-build}
case $B in /*) ;; *) B=$top/$B ;; esac
san=${B##*san-}
[ "$san" != "$B" ] || san=''
# shellcheck disable=SC2034 # lib.sh's
C=$top/build/testpoints${san:+/san-$san}
env -u MAKEFLAGS -u MAKELEVEL -u B make -s -C "$top" TESTPOINTS=1 SAN="${san//-/,}" crash-tools >/dev/null || {
	echo "not ok $(basename "$0" .sh): the build with test points"
	exit 1
}
