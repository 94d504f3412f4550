#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs make targets one after the other and adds up what their tests count: Check's "NN%: Checks: N, Failures: N, Errors: N"
# and the lines "N passed, N failed" of all others. A step that counts nothing is one test; one that fails has a failure.
#
#   MAKE=make test/check.sh TARGET...
#
# What was skipped is said again at the end. The last line is "N passed, N failed"; exit 1 on a failure.
set -u
# The steps run alone: forget the jobs of the make that called.
MAKEFLAGS=$(sed -E 's/ ?-j[0-9]*//; s/--jobserver-(auth|fds)=[^ ]*//' <<<"${MAKEFLAGS:-}")
export MAKEFLAGS
log=$(mktemp "${TMPDIR:-/tmp}/obd-check.XXXXXX")
trap 'rm -f "$log"' EXIT
passed=0 failed=0 summary=() skips=''

# totals FILE: "passed failed" of all closing lines in it.
totals() {
	sed -nE \
		-e 's/^[0-9]+%: Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+)$/check \1 \2 \3/p' \
		-e 's/^([a-z0-9_-]+: )?([0-9]+) passed, ([0-9]+) failed(, [0-9]+ skipped)?$/plain \2 \3/p' "$1" |
		awk '$1 == "check" { p += $2 - $3 - $4; f += $3 + $4 } $1 == "plain" { p += $2; f += $3 } END { print p + 0, f + 0 }'
}

for step; do
	echo "==== $step"
	begun=$SECONDS
	"${MAKE:-make}" --no-print-directory -k -j1 "$step" 2>&1 </dev/null | tee "$log"
	rc=${PIPESTATUS[0]}
	read -r p f < <(totals "$log")
	if [ "$rc" != 0 ] && [ "$f" = 0 ]; then
		echo "not ok $step: exit status $rc without a failed test"
		f=1
	elif [ $((p + f)) = 0 ]; then
		p=1
	fi
	skips+=$(grep -E '^(skip|SKIP|skipped:) ' "$log")$'\n'
	summary+=("$(printf '%-20s %5d passed %4d failed %6d s' "$step" "$p" "$f" $((SECONDS - begun)))")
	passed=$((passed + p)) failed=$((failed + f))
done

echo "===="
grep . <<<"$skips"
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
