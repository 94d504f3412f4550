#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# 32 LUNs of one image, read cold at once without readahead: each byte is fetched once.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
remote_config "$WORK/image.json" test/image -- "${LAYERS[@]}"
luns=32
urls=()
for ((i = 1; i <= luns; i++)); do urls+=("iscsi://127.0.0.1:PORT/iqn.2025-01.test:t1/$i"); done

open_all() {
	local i
	for ((i = 1; i <= luns; i++)); do new_lun "$i" "$WORK/image.json" || return 1; done
	"$ISCSI" wait-ready "${urls[@]}"
}

# Of what was sent, how much is there twice? Bytes sent over distinct bytes, for ranges of the same blob.
sent_once() {
	python3 - "$BLOB_LOG" <<-'END'
		import collections, json, sys
		ranges, sent = collections.defaultdict(list), 0
		for row in map(json.loads, open(sys.argv[1])):
		    if row["first"] is not None and row["sent"]:
		        ranges[row["digest"]].append((row["first"], row["first"] + row["sent"]))
		        sent += row["sent"]
		distinct = 0
		for pieces in ranges.values():
		    end = 0
		    for first, last in sorted(pieces):
		        distinct += max(0, last - max(first, end))
		        end = max(end, last)
		ratio = sent / max(1, distinct)
		print(f"{sent} bytes sent, {distinct} distinct, ratio {ratio:.4f}")
		sys.exit(not 0 < ratio <= 1.02)
	END
}

CONF[readaheadKB]=0
check "the group starts" start_group || exit
start_tgtd
urls=("${urls[@]/PORT/$TGT_PORT}")
check "$luns LUNs of one image" open_all
check "all read it at once" "$ISCSI" verify -r "$RAW" -q 4 -b 64K "${urls[@]}"
check "no byte was fetched twice" sent_once
check "once more in another order, from the cache" "$ISCSI" verify -r "$RAW" -q 2 -b 32K -R "${urls[@]}"
check "still no byte was fetched twice" sent_once
stop_tgtd
check "the group stops" stop_group
