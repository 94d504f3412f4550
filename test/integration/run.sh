#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs the integration tests in order and counts their results.
#
#   test/integration/run.sh [PATTERN...]     only files whose name contains one of the patterns
#
# B names the build to test (default build). The closing line is "N passed, N failed[, N skipped]"; exit 1 on a failure.
set -u
here=$(cd "$(dirname "$0")" && pwd)
export B=${B:-build}
logs=$(mktemp -d "${TMPDIR:-/tmp}/obd-results.XXXXXX")
limit_seconds=${OBD_TEST_TIMEOUT:-600}
passed=0 failed=0 skipped=0 late=()

wanted() {
	local pattern
	[ $# -gt 1 ] || return 0
	for pattern in "${@:2}"; do
		case $1 in *"$pattern"*) return 0 ;; esac
	done
	return 1
}

count() { grep -c "^$1 " "$2"; }

# run_once FILE LOG: sets p, f, s.
run_once() {
	local file=$1 log=$2 begun rc=0
	begun=$(date +%s%N)
	timeout -k 30 "$limit_seconds" bash "$file" >"$log" 2>&1 </dev/null || rc=$?
	p=$(count ok "$log") f=$(count "not ok" "$log") s=$(count skip "$log")
	if [ "$f" = 0 ] && [ "$rc" != 0 ]; then
		echo "not ok $(basename "$file"): exit status $rc" >>"$log"
		f=1
	elif [ $((p + f + s)) = 0 ]; then
		echo "not ok $(basename "$file"): it checked nothing" >>"$log"
		f=1
	fi
	printf '%-28s %3d ok %3d not ok %3d skipped %7.1f s\n' "$(basename "$file")" "$p" "$f" "$s" \
		"$(($(($(date +%s%N) - begun)) / 100000000))e-1"
	grep '^skip ' "$log"
	[ "$f" = 0 ] || sed 's/^/  | /' "$log" | tail -n 100
}

# Wrong bytes, I/O errors, a crash, a leak or a sanitizer's report: never a matter of time.
is_grave() { grep -qiE 'miscompare at|i/o error|every byte|sanitizer|runtime error|signal 11|signal 6|segmentation|audit|leak' <(grep -vE '^ok ' "$1"); }

# One or two facts that did not hold in time, on a machine that may have been busy, are looked at once more, and said.
run_file() {
	local file=$1 log p f s
	log=$logs/$(basename "$file").log
	run_once "$file" "$log"
	if [ "$f" -ge 1 ] && [ "$f" -le 2 ] && ! is_grave "$log"; then
		late+=("$(grep -h '^not ok ' "$log")")
		run_once "$file" "$log"
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

for file in "$here"/[0-9][0-9][0-9]-*.sh; do
	wanted "$(basename "$file")" "$@" && run_file "$file"
done

if [ $((passed + failed + skipped)) = 0 ]; then
	echo "no test matches: $*" >&2
	failed=1
fi
if [ "$failed" = 0 ]; then
	rm -rf "$logs"
else
	grep -h "^not ok " "$logs"/*.log # once more, where it is seen
	echo "logs: $logs"
fi
[ ${#late[@]} = 0 ] || printf 'at the first run: %s\n' "${late[@]}"
if [ "$skipped" = 0 ]; then
	echo "$passed passed, $failed failed"
else
	echo "$passed passed, $failed failed, $skipped skipped"
fi
[ "$failed" = 0 ]
