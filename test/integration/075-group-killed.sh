#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The supervisor is killed: its processes end by themselves, tgtd's reads wait, and a new group carries on with them.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
local_config "$WORK/local.json" "${LAYERS[@]}"
remote_config "$WORK/remote.json" test/image -- "${LAYERS[@]}"
CONF[sharedCache]="{sizeMB: 24, hugepages: auto}"
CONF[fetchers]=2

all_gone() {
	local pid
	for pid in "$@"; do
		gone "$pid" || return 1
	done
}

load_was_right() {
	local rc=0
	wait "$LOAD" || rc=$?
	cat "$WORK/load.err" "$WORK/load.out"
	return $rc
}

check "the group starts" start_group || exit
start_tgtd
check "LUN over local files" new_lun 1 "$WORK/local.json"
check "LUN over the registry" new_lun 2 "$WORK/remote.json"
check "both get ready" "$ISCSI" wait-ready "$(url 1)" "$(url 2)"

for round in 1 2; do
	"$ISCSI" verify -r "$RAW" -t 6 -R -b 16K -q 16 "$(url 1)" "$(url 2)" >"$WORK/load.out" 2>"$WORK/load.err" &
	LOAD=$!
	sleep 1
	mapfile -t pids < <(group_pids)
	kill -KILL "$SUPERVISOR"
	check "round $round: the group's processes end with it" wait_for 3 all_gone "${pids[@]}"
	check "round $round: a new group starts in the same place" start_group
	check "round $round: no error, no wrong byte" load_was_right
done

mapfile -t pids < <(group_pids)
kill -KILL "$SUPERVISOR"
check "a third time" wait_for 3 all_gone "${pids[@]}"
check "a LUN cannot be made without a group" fails new_lun 3 "$WORK/local.json"
check "a new group starts" start_group
check "then it can" eval 'new_lun 3 "$WORK/remote.json" && verify_lun 3 "$RAW" -b 64K'
check "and the old ones read on" eval 'verify_lun 1 "$RAW" -b 64K && verify_lun 2 "$RAW" -b 64K'
stop_tgtd
check "the group stops" stop_group
