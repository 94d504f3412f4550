#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Background download: a layer comes into its directory while its LUN is read, is checked, and is read from there from then on;
# whatever is killed meanwhile. What cannot be had, or stored, or is wrong, costs a warning and no read.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver

CONF[sharedCache]="{sizeMB: 24, hugepages: auto}"
CONF[fetchers]=2
CONF[readaheadKB]=256
CONF[download]="{enable: true, delay: 0, delayExtra: 0, maxMBps: 0, tryCnt: 2, blockSize: 131072}"

# image NAME LAYER [write-config's options]: a config with one layer, which goes to $WORK/dirs/NAME/<digest>.
image() {
	local name=$1 layer=$2
	shift 2
	mkdir -p "$WORK/dirs/$name"
	remote_config "$WORK/$name.json" "test/$name" --dir "$WORK/dirs/$name" "$@" -- "$layer"
}

# down NAME FIELD: of the first download below $WORK/dirs/NAME; nothing when there is none.
down() {
	"$B/bin/obd-stat" -r "$RUN" --json | python3 -c '
import json, sys
rows = [d for d in json.load(sys.stdin)["downloads"] if d["dir"].startswith(sys.argv[1] + "/")]
print(rows[0].get(sys.argv[2], "") if rows else "")' "$WORK/dirs/$1" "$2"
}

counter() {
	"$B/bin/obd-stat" -r "$RUN" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["counters"]["total"][sys.argv[1]])' "$1"
}

is() { # EXPECTED COMMAND...: the command prints that
	local want=$1 got
	shift
	got=$("$@")
	[ "$got" = "$want" ] && return 0
	echo "$*: $got, not $want"
	return 1
}

# arrived NAME LAYER: the file is there and is the layer.
arrived() { cmp "$WORK/dirs/$1"/*/overlaybd.commit "$2"; }

at_least() { # NUMBER COMMAND...: the command prints that or more
	local want=$1 got
	shift
	got=$("$@")
	[ "${got:-0}" -ge "$want" ] && return 0
	echo "$*: $got, not $want or more"
	return 1
}

at_most() {
	local want=$1 got
	shift
	got=$("$@")
	[ "${got:-0}" -le "$want" ] && return 0
	echo "$*: $got, more than $want"
	return 1
}

# one_lun NAME: a LUN of that image, its number in LUN.
LUN=0
one_lun() {
	LUN=$((LUN + 1))
	new_lun $LUN "$WORK/$1.json" && "$ISCSI" wait-ready "$(url $LUN)"
}

blob_bytes() { stat -c %s "$1"; }

# small NAME: a layer of 3 MiB that does not compress.
small() {
	head -c 3M /dev/urandom >"$WORK/$1.raw"
	"$MKLAYER" --base "$WORK/$1.raw" "$WORK/$1.tar" --algorithm lz4 --bs 4 || bail "obd-mklayer fails"
}

for name in a b c d e f; do small $name; done
size=$(blob_bytes "$WORK/a.tar")

image real "${LAYERS[0]}"
image shared1 "$WORK/a.tar"
image shared2 "$WORK/a.tar"
image off "$WORK/b.tar" --set 'download={"enable": false}'
image late "$WORK/c.tar" --set 'download={"delay": 3}'
image bad "$WORK/d.tar"
image nodir "$WORK/e.tar"
image full "$WORK/f.tar"

# ---- the layer comes, and is read from its directory ----------------------------------------------------------------------

check "the group starts" start_group || exit
start_tgtd
check "a LUN whose layer is to be downloaded" one_lun real
check "it is read while the layer comes" verify_lun 1 "${STEPS[0]}"
check "the layer is read from its directory" wait_for 30 is local down real state
check "the file is the layer" arrived real "${LAYERS[0]}"
check "nothing else is left in the directory" test "$(ls -A "$WORK"/dirs/real/*)" = overlaybd.commit
faults '[{"path": "test/real/", "kind": "refuse"}]'
check "the registry has gone: the LUN reads on" verify_lun 1 "${STEPS[0]}"
check "no read went to the registry" is 0 counter download_fallbacks
before=$(bytes_sent repo=test/real)
check "another LUN opens without the registry" one_lun real
check "it reads the file as well" verify_lun 2 "${STEPS[0]}" -l 16M
check "the registry sent nothing for it" is "$before" bytes_sent repo=test/real
faults '[]'
rm "$WORK"/dirs/real/*/overlaybd.commit
check "the file has gone: the LUN reads from the registry" verify_lun 1 "${STEPS[0]}" -l 48M
check "which is counted" at_least 1 counter download_fallbacks

# ---- who wants what --------------------------------------------------------------------------------------------------------

check "an image without downloads" one_lun off
check "an image whose download waits" one_lun late
begun=$(now_ms)
check "it is shown to wait" wait_for 5 is waiting down late state
check "two images of one blob" eval 'one_lun shared1 && one_lun shared2'
check "both directories get it" wait_for 30 eval 'is local down shared1 state && is local down shared2 state'
check "the files are the layer" eval 'arrived shared1 "$WORK/a.tar" && arrived shared2 "$WORK/a.tar"'
check "it was sent once" at_most $((size * 5 / 4)) bytes_sent "digest=$(sha256sum "$WORK/a.tar" | cut -d ' ' -f 1)"
check "the other's time comes" wait_for 30 is local down late state
check "not before it was due" test $(($(now_ms) - begun)) -ge 2500
check "the first has no download" is "" down off state
check "and no file" test ! -e "$WORK"/dirs/off/*/overlaybd.commit
check "obd-stat's table has them" eval '"$B/bin/obd-stat" -r "$RUN" | grep -q "dirs/shared1/.*"'

# ---- what goes wrong -------------------------------------------------------------------------------------------------------

faults '[{"path": "test/bad/", "kind": "corrupt", "offset": 2000000}]'
check "a registry that sends a wrong byte" one_lun bad
check "the digest tells" wait_for 30 at_least 1 counter download_mismatches
check "there is no file" test ! -e "$WORK"/dirs/bad/*/overlaybd.commit
check "the log has it" grep -q "error: download of .*is not what the digest says" "$WORK/group.log"
faults '[]'
check "right bytes on the second try" wait_for 30 is local down bad state
check "the LUN is right" verify_lun $LUN "$WORK/d.raw" -l 3M
rmdir "$WORK"/dirs/nodir/*
full=$(echo "$WORK"/dirs/full/*)
check "a directory that is full" mount -t tmpfs -o size=1m none "$full"
OWN_MOUNTS+=("$full")
check "LUNs over both" eval 'one_lun nodir && one_lun full'
check "a missing directory is given up after tryCnt" wait_for 30 is failed down nodir state
check "it says why" eval 'down nodir reason | grep -q "No such file or directory"'
check "a full directory is tried again" wait_for 30 at_least 1 down full tries
check "it says why, too" eval 'down full reason | grep -q "No space left on device"'
mount -o remount,size=64m "$full"
check "with room it succeeds, or was given up by then" wait_for 30 eval 'is local down full state || is failed down full state'
check "failures are counted" at_least 4 counter download_errors
check "the LUNs are right all the same" eval 'verify_lun $((LUN - 1)) "$WORK/e.raw" -l 3M && verify_lun $LUN "$WORK/f.raw" -l 3M'

# ---- deaths ----------------------------------------------------------------------------------------------------------------

all_gone() {
	local pid
	for pid in "$@"; do gone "$pid" || return 1; done
}

kill_role() {
	local pid
	for pid in $(role_pids "$1"); do kill -KILL "$pid" && wait_for 5 gone "$pid"; done
}

got_to() { wait_for 30 at_least "$1" down slow done_bytes; }

image slow "${LAYERS[0]}" --set 'download={"maxMBps": 2}'
begun=$(now_ms)
check "a slow download begins" one_lun slow
check "a fetcher is killed" eval 'got_to 1000000 && kill_role fetcher'
check "cached is killed" eval 'got_to 4000000 && kill_role cached'
check "the indexer is killed" eval 'got_to 8000000 && kill_role indexer'
check "its LUN goes, and the download with it" eval 'got_to 10000000 && remove_lun $LUN && wait_for 10 is "" down slow state'
check "the partial file stays" test -s "$WORK"/dirs/slow/*/.overlaybd.download
LUN=$((LUN - 1))
check "the LUN comes again" one_lun slow
check "it goes on" got_to 13000000
check "maxMBps held" test $(($(now_ms) - begun)) -ge 3000
sed -i 's/"maxMBps": 2/"maxMBps": 0/' "$WORK/slow.json"
mapfile -t pids < <(group_pids)
kill -KILL "$SUPERVISOR"
check "the whole group is killed" wait_for 5 all_gone "${pids[@]}"
check "a new group starts" start_group
check "the download is finished" wait_for 40 is local down slow state
check "the file is the layer" arrived slow "${LAYERS[0]}"
check "little was sent twice" at_most $(($(blob_bytes "${LAYERS[0]}") * 13 / 10)) bytes_sent repo=test/slow
check "the LUN is right" verify_lun $LUN "${STEPS[0]}" -l 16M
stop_tgtd
check "the group stops" stop_group
