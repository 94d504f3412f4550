#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A layer that every fetcher dies of: its image fails with a reason, and all others are read on.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../crash/build.sh"
. "$here/../crash/lib.sh"

need_root
crash_setup
mkdir "$WORK/bad"
cp "${LAYERS[@]}" "$WORK/bad"
BAD=("$WORK"/bad/*)
local_config "$WORK/bad.json" "${BAD[@]}"

poison() { "$POINT" arm "$CONTROL" job_begun f kill 0 "${BAD[0]}"; }

refused_layers() { "$B/bin/obd-stat" -r "$RUN" --json | grep -c '"refused_ms"'; }

# The image's open or reads fail, and soon.
bad_fails() { fails load -m 100 -w 60000 "$1" "$WORK/bad.json" "$RAW"; }

start_witnesses() {
	load -m "$1" scan "$WORK/remote.json" "$RAW" >"$WORK/w1.out" 2>&1 &
	W1=$!
	load -m "$1" read "$WORK/local.json" "$RAW" >"$WORK/w2.out" 2>&1 &
	W2=$!
}

witnesses_right() {
	local rc=0
	wait $W1 || { cat "$WORK/w1.out" && rc=1; }
	wait $W2 || { cat "$WORK/w2.out" && rc=1; }
	return $rc
}

check "a group with test points starts" start_crash_group || exit
poison
start_witnesses 4000
check "an image with a layer that fetchers die of is not opened" bad_fails read
check "its result file says why" grep -q "failed:layer 0.*fetchers died of it" "$WORK/bad.json.result"
check "what was beside it is right" witnesses_right
struck=$("$POINT" struck "$CONTROL" job_begun)
check "fetchers died $struck times, and no more" test "$struck" -lt 30
check "another image opens and reads" load -m 100 read "$WORK/local.json" "$RAW"
"$POINT" disarm "$CONTROL"
check "nothing is left over" settled

# The same when the image is open already: its reads fail, the others' do not.
check "a new group starts" eval 'stop_group && start_crash_group'
load -m 20000 read "$WORK/bad.json" "$RAW" >"$WORK/bad.out" 2>&1 &
READER=$!
wait_for 20 eval '[ "$("$POINT" passes "$CONTROL" | wc -l)" -gt 0 ]'
poison
start_witnesses 3000
check "a reader of a layer that became bad gets an error" fails wait $READER
check "the layer is shown as refused" test "$(refused_layers)" = 1
check "the others do not" witnesses_right
"$POINT" disarm "$CONTROL"
check "the group stops" stop_group
