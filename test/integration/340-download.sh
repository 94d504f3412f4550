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

image one "${LAYERS[0]}"
check "the group starts" start_group || exit
start_tgtd

check "a LUN whose layer is to be downloaded" new_lun 1 "$WORK/one.json"
check "it is read while the layer comes" verify_lun 1 "${STEPS[0]}"
check "the layer is read from its directory" wait_for 30 is local down one state
check "the file is the layer" arrived one "${LAYERS[0]}"
