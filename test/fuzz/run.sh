#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs fuzzers that `make fuzz` built.
#
#   test/fuzz/run.sh SECONDS JOBS NAME...      each fuzzer for that long, JOBS at a time; 0 seconds: nothing
#
# What they learn stays in build/fuzz/corpus/NAME, what they find in build/fuzz/crashes, what they say in
# build/fuzz/NAME.log. Exit 1 when a fuzzer found something.
set -eu
cd "$(dirname "$0")/../.."

one() {
	seconds=$1 name=$2 rc=0
	corpus=build/fuzz/corpus/$name
	mkdir -p "$corpus" build/fuzz/crashes
	build/fuzz/fuzz_"$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -max_len=262144 -print_final_stats=1 \
		-artifact_prefix="build/fuzz/crashes/$name-" "$corpus" "test/fuzz/corpus/$name" \
		>"build/fuzz/$name.log" 2>&1 || rc=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$name.log")
	if [ $rc = 0 ]; then
		echo "ok fuzz_$name: ${runs:-?} runs in $seconds s, $(find "$corpus" -type f | wc -l) inputs kept"
	else
		echo "not ok fuzz_$name: exit status $rc; see build/fuzz/$name.log"
		grep -aE '^SUMMARY|Test unit written' "build/fuzz/$name.log" || :
		return 1
	fi
}

if [ "$1" = --one ]; then
	one "$2" "$3"
	exit
fi
seconds=$1 jobs=$2
shift 2
if [ "$seconds" = 0 ]; then
	echo "built; FUZZ_SECONDS=600 runs them"
	exit
fi
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 "$0" --one "$seconds"
