#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One image's storm does not starve another's reads: on a slow link that both share, and when the storm gets no answer at all.
. "$(dirname "$0")/lib.sh"

need_image
head -c 2097152 /dev/urandom >"$WORK/other.raw"
"$MKLAYER" --base "$WORK/other.raw" "$WORK/other.tar" || bail "obd-mklayer"
STORM=''

# start_storm LUN: reads all of it in a random order, many at a time
start_storm() {
	"$ISCSI" verify -r "$RAW" -R -q 64 -b 64K -T 0 "$(url "$1")" >"$WORK/storm.out" 2>&1 &
	STORM=$!
	OWN_PIDS+=("$STORM")
}

end_storm() {
	kill "$STORM" 2>/dev/null
	wait "$STORM" 2>/dev/null
	return 0
}

# obd-stat's count of blocks of that urgency, queued or under way, is not zero
stat_shows() {
	"$B/bin/obd-stat" -r "$RUN" --json | python3 -c '
import json, sys
r = json.load(sys.stdin)["requests"]
names = ["demand", "readahead", "prefetch", "download"]
assert list(r["queued_blocks"]) == names and list(r["inflight_blocks"]) == names
sys.exit(r["queued_blocks"][sys.argv[1]] + r["inflight_blocks"][sys.argv[1]] == 0)' "$1"
}

# ---- a slow link: 1 MB/s for both, so the storm takes most of a minute at best --------------------------------------------

mkdir -p "$BLOB_ROOT"
"$B/test/obd-blobserve" -l 20 -p "$WORK/slow.port" "$BLOB_ROOT" >>"$WORK/blobserver.log" 2>&1 </dev/null &
OWN_PIDS+=($!)
wait_for 10 test -s "$WORK/slow.port" || bail "obd-blobserve does not start"
BLOBS=http://127.0.0.1:$(cat "$WORK/slow.port")
remote_config "$WORK/storm.json" test/storm -- "${LAYERS[@]}"
remote_config "$WORK/other.json" test/other -- "$WORK/other.tar"
check "the group starts" start_group || exit
start_tgtd
check "LUNs of two images" eval 'new_lun 1 "$WORK/storm.json" && new_lun 2 "$WORK/other.json"'
check "both open" "$ISCSI" wait-ready "$(url 1)" "$(url 2)"
check "the link becomes slow" curl -sS --fail -o /dev/null "$BLOBS/link?latency_ms=20&rate=1000000"
start_storm 1
check "obd-stat shows what waits" wait_for 20 stat_shows demand
check "the other image is read, one block after the other" verify_lun 2 "$WORK/other.raw" -R -q 1 -b 64K
check "and the storm goes on all the while" alive "$STORM"
check "the link becomes fast again" curl -sS --fail -o /dev/null "$BLOBS/link?latency_ms=0&rate=0"
end_storm
stop_tgtd
check "the group stops" stop_group

# ---- a registry that does not answer for one image ------------------------------------------------------------------------

start_blobserver
remote_config "$WORK/storm.json" test/storm -- "${LAYERS[@]}"
remote_config "$WORK/other.json" test/other -- "$WORK/other.tar"
check "the group starts again" start_group || exit
start_tgtd
check "LUNs of two images" eval 'new_lun 1 "$WORK/storm.json" && new_lun 2 "$WORK/other.json"'
check "both open" "$ISCSI" wait-ready "$(url 1)" "$(url 2)"
check "nothing of one is answered any more" faults '[{"path": "/storm/", "kind": "hang", "seconds": 20}]'
start_storm 1
check "its reads wait" wait_for 20 stat_shows demand
check "the other is read" verify_lun 2 "$WORK/other.raw" -R -q 4 -b 16K
check "while the storm still waits" alive "$STORM"
end_storm
stop_tgtd
check "the group stops" stop_group
