# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests of the disk cache share: an image, a group with a disk cache, questions to obd-stat. Sourced after lib.sh.
# shellcheck disable=SC2034,SC2154 # variables for the tests, and of lib.sh

CACHE=$WORK/cache
# An image of its own, small enough to be read often: half of each page is noise. One layer of each kind.
python3 - "$WORK" <<-'END'
	import os, random, sys
	pages = [os.urandom(2048) + bytes(2048) for _ in range(6144)]
	for step in range(3):
	    with open(f"{sys.argv[1]}/step{step}.raw", "wb") as f:
	        f.writelines(pages)
	    at = random.Random(step).randrange(3000)
	    pages[at:at + 1500] = [os.urandom(2048) + bytes(2048) for _ in range(1500)]
END
RAW=$WORK/step2.raw
LAYERS=("$WORK"/layer0.tar "$WORK"/layer1.tar "$WORK"/layer2.tar)
{ "$MKLAYER" --base "$WORK/step0.raw" "${LAYERS[0]}" --algorithm lz4 --bs 4 &&
	"$MKLAYER" --diff "$WORK/step0.raw" "$WORK/step1.raw" "${LAYERS[1]}" --algorithm zstd --bs 64 &&
	"$MKLAYER" --diff "$WORK/step1.raw" "$WORK/step2.raw" "${LAYERS[2]}" --no-zfile; } >"$WORK/mklayer.log" 2>&1 || bail "obd-mklayer"
start_blobserver
remote_config "$WORK/image.json" test/image -- "${LAYERS[@]}"
CONF[cacheConfig]="{cacheDir: $CACHE, cacheSizeGB: 4}"
CONF[fetchers]=2
CONF[readTimeoutSec]=30


counter() { "$B/bin/obd-stat" -r "$RUN" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["counters"]["total"][sys.argv[1]])' "$1"; }
tier() { "$B/bin/obd-stat" -r "$RUN" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["disk"][sys.argv[1]])' "$1"; }
tier_is() { [ "$(tier state)" = "$1" ]; }
warnings() { grep -c "warning: disk cache" "$WORK/group.log"; }
requests() { wc -l <"$BLOB_LOG"; }
forget_requests() { : >"$BLOB_LOG"; }

# Everything that waits has been written: nothing was added for a while.
settled() {
	local before now=-1
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		before=$now
		now=$(counter disk_bytes_written)
		[ "$now" = "$before" ] && return
		sleep 0.3
	done
}

up() {
	start_group || return 1
	start_tgtd
	new_lun 1 "$WORK/image.json" && "$ISCSI" wait-ready -W 20 "$(url 1)"
}

down() {
	stop_tgtd
	stop_group
}

restart() { down && up; }

# at_most WHAT VALUE BOUND
at_most() {
	echo "$1: $2, at most $3 expected"
	[ "$2" -le "$3" ]
}

at_least() {
	echo "$1: $2, at least $3 expected"
	[ "$2" -ge "$3" ]
}

blob_bytes=$(cat "${LAYERS[@]}" | wc -c)
