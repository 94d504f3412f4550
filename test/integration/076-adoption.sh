#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2016,SC2034 # eval expands; lib.sh uses the rest
# A supervisor that is killed leaves its segment to the next one, with all that is cached. One that is not whole, not ours or not
# wanted any more is not used.
. "$(dirname "$0")/lib.sh"

need_root
need_image
start_blobserver
remote_config "$WORK/image.json" test/image -- "${LAYERS[@]}"
CONF[sharedCache]="{sizeMB: 256, hugepages: off}"
CONF[fetchers]=2

TAKEN="the cache of the group before is taken over"
forget_requests() { : >"$BLOB_LOG"; }
logged() { grep -q -- "$1" "$WORK/group.log"; }
# All but nothing was fetched: a byte to see whether a layer is still there, and blocks of which only a part was in the cache.
hardly_asked() {
	python3 -c 'import json, sys; print(sum(json.loads(line)["sent"] for line in sys.stdin))' <"$BLOB_LOG" >"$WORK/sent"
	echo "$(cat "$WORK/sent") bytes were fetched"
	[ "$(cat "$WORK/sent")" -le 500000 ]
}
kill_supervisor() {
	kill -KILL "$SUPERVISOR"
	wait "$SUPERVISOR" 2>/dev/null
	SUPERVISOR=''
}
again() {
	: >"$WORK/group.log"
	start_group && "$ISCSI" wait-ready -W 20 "$(url 1)" && verify_lun 1 "$RAW"
}
holder() { pgrep -P "$SUPERVISOR" -x obd-fdstore; }
audited() { "$B/bin/obd-stat" -r "$RUN" --audit; }
another_holder() { [ "$(holder)" ] && [ "$(holder)" != "$1" ]; }

check "the group starts" start_group || exit
start_tgtd
check "a LUN" eval 'new_lun 1 "$WORK/image.json" && "$ISCSI" wait-ready -W 20 "$(url 1)"'
check "every byte" verify_lun 1 "$RAW"

# ---- what was cached is cached ----------------------------------------------------------------------------------------------

forget_requests
kill_supervisor
check "killed: the next group serves every byte" again
check "it took the cache over" logged "$TAKEN"
check "the registry was not asked again" hardly_asked
check "the segment is right" audited

stopped=$(role_pids fetcher | head -n 1)
kill -STOP "$stopped"
kill_supervisor
check "killed while a fetcher is stopped: every byte" again
check "the stopped one was ended first" gone "$stopped"
check "and the cache taken over" logged "$TAKEN"

# tgtd does not notice that the group is another one before it runs again: its area and indexes must wait for it
kill -STOP "$TGTD"
kill_supervisor
: >"$WORK/group.log"
check "killed while tgtd is stopped: the next group starts" start_group
check "and takes the cache over" logged "$TAKEN"
check "its client is still known" eval '"$B/bin/obd-stat" -r "$RUN" --json | grep -q "\"pid\": *$TGTD\b"'
kill -CONT "$TGTD"
check "it comes back: every byte" verify_lun 1 "$RAW"
check "without asking the registry" hardly_asked
check "the segment is right" audited

# ---- the holder -------------------------------------------------------------------------------------------------------------

old=$(holder)
kill -KILL "$old"
check "a holder that is killed is replaced" wait_for 5 another_holder "$old"
kill_supervisor
check "killed after that: every byte" again
check "the cache was taken over" logged "$TAKEN"

old=$(holder)
kill -KILL "$old" "$SUPERVISOR"
wait "$SUPERVISOR" 2>/dev/null
SUPERVISOR=''
check "killed with its holder: every byte" again
check "from a new cache" fails logged "$TAKEN"

# ---- a segment that is no good ----------------------------------------------------------------------------------------------

spoil() { # REGION
	local fd
	for fd in /proc/"$(holder)"/fd/*; do
		case $(readlink "$fd") in *obd:"$1"*) head -c 4096 /dev/zero 1<>"$fd" && return ;; esac
	done
	return 1
}
check "cached's own notes are spoilt" spoil table
kill_supervisor
check "spoilt: every byte" again
check "the segment is right" audited

CONF[readaheadKB]=1024
kill_supervisor
check "another configuration: every byte" again
check "from a new cache, with a line" logged "made with another configuration"

stop_tgtd
pid=$(holder)
check "the group stops" stop_group
check "and its holder" gone "$pid"
check "nothing is left to take over" test ! -e "$RUN/fdstore.sock"
