#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Tokens of two seconds under load, from several fetchers, one of which dies.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/auth.sh"

need_image
STEP=${STEPS[0]}
start_tokenserver --ttl 2
CRED=$WORK/cred.json
credentials "$CRED" "$PASSWORD"
gate_config one token/one "${LAYERS[0]}"
CONF[credentialConfig]="{mode: file, path: $CRED}"
CONF[fetchers]=4
CONF[sharedCache]="{sizeMB: 16, hugepages: off}" # so that reading fetches, over and over
CONF[readaheadKB]=256
CONF[logConfig]="{logLevel: 0, logPath: $WORK/group.log}"

left_out_of_dumps() { # all of a fetcher's memory, by the filter; the mapping of the tokens by itself too
	local pid
	for pid in $(role_pids fetcher); do
		[ "$((16#$(cat "/proc/$pid/coredump_filter")))" = 0 ] || return 1
		awk '/obd:tokens/ { mine = 1 } mine && /^VmFlags:/ { print; found = / dd/; exit } END { exit !found }' "/proc/$pid/smaps" || return 1
	done
}

only_fetchers_see_tokens() {
	local pid
	for pid in $(role_pids cached) $(role_pids indexer) "$TGTD"; do
		! grep obd:tokens "/proc/$pid/maps" || return 1
	done
}

check "the group starts" start_group || exit
start_tgtd
check "a device" opens one 1
begun=$(now_ms)
"$ISCSI" verify -r "$STEP" -t 15 -R -b 64K -q 16 "$(url 1)" >"$WORK/load.out" 2>"$WORK/load.err" &
LOAD=$!
sleep 4
check "tokens are left out of core dumps" left_out_of_dumps
check "and only fetchers map them" only_fetchers_see_tokens
kill -KILL "$(role_pids fetcher | head -n 1)"
check "15 s of reading: no error, no wrong byte" wait "$LOAD"
expiries=$((($(now_ms) - begun + 1999) / 2000))
given=$(token_requests status=200)
check "$given token requests in $expiries expiries: at most 2 each" test "$given" -le $((2 * expiries))
check "they were renewed" test "$given" -ge 3
"$B/bin/obd-stat" -r "$RUN" --json >"$WORK/stat.txt"
stop_tgtd
check "the group stops" stop_group
check "no secret in logs, results and obd-stat" no_secret_in "$WORK/stat.txt" "$WORK/group.log" "$WORK/supervisor.log" "$WORK/tgtd.log" "$WORK"/*.result
