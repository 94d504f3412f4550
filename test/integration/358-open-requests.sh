#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# How many requests an open costs: a head and a tail of each layer at once, the block under the device's first sectors, and
# nothing else; not more on a link where bytes queue. (330-disk.sh: with metadata on disk it is a single one.)
. "$(dirname "$0")/lib.sh"

export OBD_METADATA_FIRST=0 # what is fetched ahead is no part of an open

requests() { server requests; }

# opened LUN CONFIG: until the open's result is there
opened() {
	rm -f "$2.result"
	new_lun "$1" "$2" && wait_for 30 grep -qx success "$2.result"
}

# costs MOST LUN CONFIG: the open asks the registry at most so often
costs() {
	local before n
	before=$(requests)
	opened "$2" "$3" || { echo "the image does not open" && return 1; }
	n=$(($(requests) - before))
	echo "$n requests"
	[ "$n" -le "$1" ]
}

need_image
start_blobserve
n=${#LAYERS[@]}
remote_config "$WORK/all.json" all -- "${LAYERS[@]}"
remote_config "$WORK/lowest.json" lowest -- "${LAYERS[0]}"
start_group || bail "the group does not start"
start_tgtd
check "an open asks for head and tail of each layer, and for what warms the device" costs $((2 * n + 2)) 1 "$WORK/all.json"
check "the device has the right bytes" verify_lun 1 "$RAW"
remove_lun 1

stop_tgtd
stop_group >/dev/null
start_group || bail "the group does not start again"
start_tgtd
check "the lowest layer alone opens" opened 1 "$WORK/lowest.json"
link 5 12000000
check "a link is filled" verify_lun 1 "${STEPS[0]}"
remove_lun 1
sleep 3 # until nobody else is said to wait for this host
check "nor does an open on a narrow link take more" costs $((2 * n)) 1 "$WORK/all.json"
link 0 0
