#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A LUN whose layers lie in a registry: all bytes, fetched only when read, and once.
. "$(dirname "$0")/lib.sh"

need_image
start_registry
start_blobserver
python3 "$TOOLS/ocipush.py" push "$REGISTRY" test/image latest "${LAYERS[@]}" >"$WORK/pushed.json" || bail "push"
python3 "$TOOLS/ocipush.py" write-config "$WORK/registry.json" --from "$WORK/pushed.json" --result "$WORK/registry.json.result"
remote_config "$WORK/blobs.json" test/image -- "${LAYERS[@]}"
total=$(cat "${LAYERS[@]}" | wc -c)

little_was_sent() {
	local sent
	sent=$(bytes_sent)
	echo "$sent of $total bytes"
	[ "$sent" -lt $((total / 4)) ]
}

nothing_is_sent_by() {
	local before
	before=$(bytes_sent method=GET)
	"$@" || return 1
	echo "$(($(bytes_sent method=GET) - before)) bytes"
	[ "$(bytes_sent method=GET)" = "$before" ]
}

CONF[readaheadKB]=0
check "the group starts" start_group || exit
start_tgtd
check "LUN from docker-registry" new_lun 1 "$WORK/registry.json"
check "all bytes, shuffled" verify_lun 1 "$RAW" -R -b 16K
check "the result file says success" grep -qx success "$WORK/registry.json.result"

check "LUN from the blob server" new_lun 2 "$WORK/blobs.json"
check "opening fetches little" eval '"$ISCSI" wait-ready "$(url 2)" && little_was_sent'
check "reading a little fetches little" eval 'verify_lun 2 "$RAW" -l 1M -b 4K && little_was_sent'
check "all bytes" verify_lun 2 "$RAW"
check "the second reading fetches nothing" nothing_is_sent_by verify_lun 2 "$RAW" -R -b 4K -q 32
stop_tgtd
check "the group stops" stop_group
