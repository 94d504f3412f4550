#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Random bytes over everything that one role may write, while a group works: no other process crashes. Data may be wrong and
# reads may fail then, since that role's word is what they are made of; a fresh group must be sound.
# shellcheck disable=SC2016,SC2034,SC2154 # eval expands; lib.sh uses and sets the rest
. "$(dirname "$0")/lib.sh"

need_root
need_image
start_blobserver
local_config "$WORK/local.json" "${LAYERS[@]}"
remote_config "$WORK/remote.json" test/image -- "${LAYERS[@]}"
CONF[fetchers]=2
CONF[hangSec]=5
CONF[sharedCache]="{sizeMB: 24, hugepages: off}"
CONF[readTimeoutSec]=10
LOG=$WORK/group.log
SEED=${OBD_SEED:-1}

# Deaths by a signal that a process brings upon itself, of others than ROLE.
crashes_of_others() { grep -E 'ended: killed by signal (4|6|7|8|11)' "$LOG" | grep -v "obd-$1"; }
no_other_crashed() { ! crashes_of_others "$1"; }

member() { if [ "$1" = frontend ]; then echo "$TGTD"; else role_pids "$1" | head -n 1; fi; }

mad() { # ROLE
	local role=$1 load p
	rm -f "$LOG"
	check "$role: the group starts" start_group || return
	start_tgtd
	check "$role: LUNs" eval 'new_lun 1 "$WORK/local.json" && new_lun 2 "$WORK/remote.json" &&
		"$ISCSI" wait-ready "$(url 1)" "$(url 2)"'
	timeout 60 "$ISCSI" randread -t 4 -b 16K -q 16 -k -T 5 "$(url 1)" "$(url 2)" >"$WORK/load.log" 2>&1 &
	load=$!
	sleep 0.3
	check "$role: goes mad" python3 "$TOOLS/segscribble.py" "$SUPERVISOR" "$(member "$role")" 3 "$SEED"
	wait "$load"
	check "$role: no other process of the group crashed" no_other_crashed "$role"
	[ "$role" = frontend ] || check "$role: tgtd lives" alive "$TGTD"
	check "$role: the supervisor lives" alive "$SUPERVISOR"
	timeout 20 "$B/bin/obd-stat" -r "$RUN" --json >/dev/null 2>"$WORK/stat.err"
	check "$role: obd-stat ends by itself" test $? -lt 124
	kill -KILL "$TGTD" 2>/dev/null
	wait "$TGTD" 2>/dev/null
	TGTD=''
	stop_group >/dev/null
}

for role in cached indexer fetcher frontend; do mad "$role"; done

check "a fresh group starts" start_group
start_tgtd
check "and is sound" eval 'new_lun 1 "$WORK/local.json" && new_lun 2 "$WORK/remote.json" && verify_lun 1 "$RAW" && verify_lun 2 "$RAW"'
check "so is its segment" "$B/bin/obd-stat" -r "$RUN" --audit
stop_tgtd
check "it stops" stop_group
