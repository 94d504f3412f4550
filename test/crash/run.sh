#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Kills each process at each point of the shared-memory protocol in each situation, and demands that all others live.
#
#   CASES     only cases whose name ("situation point role") matches this extended regular expression
#   B, C      the build whose test tools are used, and the one with test points (build, build/testpoints)
#
# One line per case. A point that no situation reaches, or that never struck, is a failure. Closes with the pauses that readers
# saw, per role, and "N passed, N failed".
. "$(dirname "$0")/lib.sh"

CASES=${CASES:-.}
: >"$WORK/pauses"
need_root
crash_setup
check "a group with test points starts" start_crash_group || exit
for situation in "${SITUATIONS[@]}" "${AFTER[@]}"; do
	check "what is passed when: $situation" eval 'learn "$situation"' || exit
done

# In base situations whatever is passed there; after-X is for what only a successor or a witness of a death passes.
base=$(for key in "${!PASSES[@]}"; do case $key in after-*) ;; *) echo "${key#* }" ;; esac done | sort -u)
plan() {
	local situation key
	for situation in "${SITUATIONS[@]}" "${AFTER[@]}"; do
		for key in "${!PASSES[@]}"; do
			[ "${key%% *}" = "$situation" ] || continue
			case $situation in after-*) grep -qx "${key#* }" <<<"$base" && continue ;; esac
			[[ $key =~ $CASES ]] && echo "$key $(nth_of "${PASSES[$key]}")"
		done | sort
	done
}

while read -r situation point role nth <&9; do
	rc=0
	crash_case "$situation" "$point" "$role" kill "$nth" || rc=$?
	[ $rc != 2 ] || crash_case "$situation" "$point" "$role" kill 1
done 9< <(plan)

if [ "$CASES" = . ]; then
	while read -r point roles where; do
		for role in $(fold -w 1 <<<"$roles"); do
			grep -qx "$point $role" <<<"$STRUCK" || not_ok "$role at $point" "never struck ($where)"
		done
	done < <("$POINT" list)
fi
sort -k1,1 -k2,2n "$WORK/pauses" | awk '
	{ v[$1, ++n[$1]] = $2 }
	END { for (e in n) printf "pause behind a death of %s: %4d times, p50 %5d ms, p99 %5d ms, max %5d ms\n", e, n[e],
		v[e, int((n[e] + 1) / 2)], v[e, int(n[e] * 0.99 + 0.999)], v[e, n[e]] }' | sort
check "the group stops" stop_group
echo "$PASSED passed, $FAILED failed"
