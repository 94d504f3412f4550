#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2016,SC2034,SC2119,SC2154 # eval expands; lib.sh and disk.sh use and set the rest
# The disk cache: what was fetched is there after a restart; what is damaged is found; two groups do not share one; an image opens
# with one request, or none when its registry is gone, but not when that refuses.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/disk.sh"

# ---- cold, and after a restart ----------------------------------------------------------------------------------------------

check "the group starts" up || exit
check "cold: every byte" verify_lun 1 "$RAW"
settled
check "the tier is on" tier_is on
check "nothing was dropped" at_most disk_dropped "$(counter disk_dropped)" 0
check "cacheDir is nobody else's" test "$(stat -c %a "$CACHE")" = 700
check "obd-stat knows its size" at_least used_bytes "$(tier used_bytes)" $((blob_bytes / 2))

down >/dev/null
forget_requests
check "after a restart the image opens" up
check "with one request" test "$(requests)" = 1
check "that transfers no metadata" at_most "bytes sent" "$(bytes_sent)" 1
check "warm: every byte" verify_lun 1 "$RAW"
check "almost nothing was fetched" at_most bytes_sent "$(bytes_sent)" $((blob_bytes / 50))
check "it came from the disk" at_least bytes_disk "$(counter bytes_disk)" $((blob_bytes / 2))

# ---- another group ----------------------------------------------------------------------------------------------------------

second_group() {
	sed "s|^runtimeDir:.*|runtimeDir: $WORK/run2|; s|group.log|group2.log|" "$WORK/overlaybd.yaml" >"$WORK/second.yaml"
	timeout 20 "$B/bin/obd-supervisor" -c "$WORK/second.yaml" "$@" >"$WORK/second.out" 2>&1
}
check_fails "a second group on the directory is refused" second_group
check "in one clear line" test "$(cat "$WORK/second.out")" = "obd-supervisor: cacheDir $CACHE: another group uses it"
check_fails "--check says so too" second_group --check
check "--check of the group itself is fine" "$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml" --check

# ---- bit rot and garbage ----------------------------------------------------------------------------------------------------

check "the group ends" down
python3 - "$CACHE" <<-'END'
	import glob, os, sys
	for path in glob.glob(sys.argv[1] + "/*/*.data"):
	    with open(path, "r+b") as f:
	        for at in range(10000, os.path.getsize(path), 1 << 20):
	            f.seek(at)
	            byte = f.read(1)[0]
	            f.seek(at)
	            f.write(bytes([byte ^ 0x40]))
	marks = sorted(glob.glob(sys.argv[1] + "/*/*.marks"), key=os.path.getsize)
	with open(marks[-1], "r+b") as f:  # marks that make no sense
	    f.seek(4096 + 32 * 20)
	    f.write(os.urandom(32 * 50))
	with open(marks[-2], "r+b") as f:  # another version
	    f.seek(8)
	    f.write(b"\x02")
	os.truncate(marks[0], 4200)
END
forget_requests
check "the group starts on damaged files" up
check "damaged: every byte" verify_lun 1 "$RAW"
check "the damage was counted" at_least disk_corrupt "$(counter disk_corrupt)" 10
check "what was damaged was fetched" at_least bytes_sent "$(bytes_sent)" 200000
check "the rest was not" at_most bytes_sent "$(bytes_sent)" $((blob_bytes * 3 / 4))
settled
forget_requests
check "the group starts once more" restart
check "mended: every byte" verify_lun 1 "$RAW"
check "almost nothing was fetched again" at_most bytes_sent "$(bytes_sent)" $((blob_bytes / 50))
check "and no damage is left" at_most disk_corrupt "$(counter disk_corrupt)" 0

# ---- offline ----------------------------------------------------------------------------------------------------------------

down >/dev/null
kill -KILL "$BLOBSERVER"
wait "$BLOBSERVER" 2>/dev/null
check "without its registry the image opens" up
check "with a warning" grep -q "warning: $WORK/image.json: opened from the disk cache" "$WORK/group.log"
check "offline: every byte" verify_lun 1 "$RAW"
down >/dev/null
CONF[offlineOpen]=false
CONF[readTimeoutSec]=2
check "offlineOpen: false: the group starts" start_group
start_tgtd
check "and the image does not open" eval 'new_lun 1 "$WORK/image.json" && ! "$ISCSI" wait-ready -W 20 "$(url 1)"'
check "the result says why" wait_for 20 grep -q "timed out at 127.0.0.1" "$WORK/image.json.result"
down >/dev/null
unset "CONF[offlineOpen]"
CONF[readTimeoutSec]=30

# The same address, as the cache belongs to it.
python3 "$TOOLS/blobserver.py" "$BLOB_ROOT" --log "$BLOB_LOG" --port "${BLOBS##*:}" --port-file "$WORK/again.port" \
	>>"$WORK/blobserver.log" 2>&1 </dev/null &
BLOBSERVER=$!
OWN_PIDS+=("$BLOBSERVER")
check "the registry is back" wait_for 10 answers_http "$BLOBS/"
faults '[{"path": "/test/image/", "kind": "status", "status": 403}]'
check "refused: the group starts" start_group
start_tgtd
check "a registry that refuses is obeyed" eval 'new_lun 1 "$WORK/image.json" && ! "$ISCSI" wait-ready -W 20 "$(url 1)"'
check "the result says so" wait_for 20 grep -q "authentication failed at 127.0.0.1" "$WORK/image.json.result"
faults '[]'
stop_tgtd
check "the group stops" stop_group
