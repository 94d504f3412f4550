#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kill -9 of each process of the group while LUNs are verified: no I/O error, no wrong byte, and a new process each time.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
local_config "$WORK/local.json" "${LAYERS[@]}"
remote_config "$WORK/remote.json" test/image -- "${LAYERS[@]}"

# A cache smaller than the image, so that misses never end.
CONF[sharedCache]="{sizeMB: 24, hugepages: auto}"
CONF[fetchers]=2
CONF[readaheadKB]=256

start_load() { # SECONDS
	"$ISCSI" verify -r "$RAW" -t "$1" -R -b 16K -q 16 "$(url 1)" "$(url 2)" >"$WORK/load.out" 2>"$WORK/load.err" &
	LOAD=$!
}

load_was_right() {
	local rc=0
	wait "$LOAD" || rc=$?
	cat "$WORK/load.err" "$WORK/load.out"
	return $rc
}

# No command waited longer than MS.
slowest_at_most() {
	python3 - "$WORK/load.out" "$1" <<-'END'
		import json, sys
		slowest = json.load(open(sys.argv[1]))["max_us"] / 1000
		print(f"the slowest command took {slowest:.0f} ms")
		sys.exit(slowest > float(sys.argv[2]))
	END
}

as_many_again() { [ "$(role_pids "$1" | wc -l)" = "$2" ] && group_answers; }

# kill_role ROLE: kills each process of that role once and waits for its successor.
kill_role() {
	local role=$1 pid count
	count=$(role_pids "$role" | wc -l)
	[ "$count" -gt 0 ] || {
		echo "no obd-$role runs"
		return 1
	}
	for pid in $(role_pids "$role"); do
		kill -KILL "$pid"
		wait_for 5 gone "$pid"
		wait_for 5 as_many_again "$role" "$count" || {
			echo "after killing obd-$role $pid: $(role_pids "$role" | wc -l) of $count run"
			return 1
		}
	done
}

kill_role_often() {
	local i
	for ((i = 0; i < $2; i++)); do
		kill_role "$1" || return 1
		sleep 0.7
	done
}

check "the group starts" start_group || exit
start_tgtd
check "LUN over local files" new_lun 1 "$WORK/local.json"
check "LUN over the registry" new_lun 2 "$WORK/remote.json"
check "both get ready" "$ISCSI" wait-ready "$(url 1)" "$(url 2)"

for role in fetcher cached indexer; do
	start_load 6
	sleep 0.5
	check "obd-$role is killed again and again, and replaced" kill_role_often $role 4
	check "$role killed: no error, no wrong byte" load_was_right
	check "$role killed: no command waited 5 s" slowest_at_most 5000
done

start_load 6
check "all of them, one after the other" eval 'kill_role indexer && kill_role cached && kill_role fetcher && kill_role indexer'
check "all killed: no error, no wrong byte" load_was_right
check "a LUN opens after all this" eval 'new_lun 3 "$WORK/remote.json" && verify_lun 3 "$RAW" -b 64K'

# A process that is stopped looks like one that hangs: it is killed and replaced after hangSec.
stop_tgtd
check "the group stops" stop_group
CONF[hangSec]=2
check "the group starts with hangSec 2" start_group
start_tgtd
check "LUN over local files" new_lun 1 "$WORK/local.json"
check "LUN over the registry" new_lun 2 "$WORK/remote.json"
check "both get ready" "$ISCSI" wait-ready "$(url 1)" "$(url 2)"
for role in fetcher cached indexer; do
	start_load 6
	sleep 0.5
	victim=$(role_pids $role | head -n 1)
	kill -STOP "$victim"
	check "a stopped obd-$role is killed" wait_for 7 gone "$victim"
	check "$role stopped: no error, no wrong byte" load_was_right
done
stop_tgtd
check "the group stops again" stop_group
