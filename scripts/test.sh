#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what is missing, builds with warnings as errors, and runs every test: lint, unit tests, fuzz inputs, integration
# tests; then all but integration under the sanitizers. Run as root on Debian 12. Nothing is asked.
#
#   sudo ./scripts/test.sh        NO_SANITIZERS=1 leaves the last part out
#
# The last line is "N passed, N failed"; exit 1 on a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ "$(id -u)" != 0 ]; then
	echo "test.sh: run me as root (packages, tgtd, a private mount namespace): sudo $0" >&2
	exit 1
fi
exec </dev/null
export LC_ALL=C
log=$(mktemp "${TMPDIR:-/tmp}/obd-test-sh.XXXXXX")
trap 'rm -f "$log"; [ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-0}" build 2>/dev/null' EXIT
passed=0 failed=0 summary=()
jobs=$(nproc)

# part NAME COMMAND...: a command whose own last line may be "N passed, N failed". One without is a single test.
part() {
	local name=$1 rc p f closing begun=$SECONDS
	shift
	echo
	echo "######## $name: $*"
	"$@" 2>&1 | tee "$log"
	rc=${PIPESTATUS[0]}
	# make may say one more line behind the count of a test that failed
	closing=$(tail -n 3 "$log" | grep -E '^[0-9]+ passed, [0-9]+ failed$' | tail -n 1)
	if [ "$closing" ]; then
		read -r p _ f _ <<<"$closing"
	else
		p=$((rc == 0)) f=$((rc != 0))
	fi
	[ "$rc" = 0 ] || [ "$f" != 0 ] || f=1
	summary+=("$(printf '%-28s %5d passed %4d failed %6d s' "$name" "$p" "$f" $((SECONDS - begun)))")
	passed=$((passed + p)) failed=$((failed + f))
	return "$rc"
}

finish() {
	echo
	echo "########"
	printf '%s\n' "${summary[@]}"
	echo "$passed passed, $failed failed"
	[ $failed = 0 ]
	exit
}

part "install" scripts/install-deps.sh || finish
part "build" make -j"$jobs" WERROR=1 all test-tools || finish
part "lint" make lint
part "tests" make -j"$jobs" WERROR=1 check
if [ -z "${NO_SANITIZERS:-}" ]; then
	part "address and undefined" make -j"$jobs" SAN=address,undefined check-quick
	part "thread" make -j"$jobs" SAN=thread check-quick
fi
finish
