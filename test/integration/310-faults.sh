#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A registry with every fault there is, each several times in a row, while an image larger than the cache is read: no error and
# no wrong byte.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

need_big_image 56
CONF[readaheadKB]=0

applied() { curl -sS --fail "$BLOBS/faults" | python3 -c 'import json, sys; print(sum(r["applied"] for r in json.load(sys.stdin)))'; }

check "the group starts" start_group || exit
start_tgtd
check "LUN" new_lun 1 "$WORK/big.json"
check "it is ready" "$ISCSI" wait-ready "$(url 1)"

# ---- each in a row ----------------------------------------------------------------------------------------------------
# Each reads 2 MiB somewhere else, so that nothing is cached.
at=0
survives() {
	local rc=0
	faults "[$1]" || return 1
	verify_lun 1 "$BIG" -o "${at}M" -l 2M -R -b 64K -q 8 || rc=1
	[ "$(applied)" -gt 0 ] || { echo "the fault was never applied" && rc=1; }
	faults '[]' || rc=1
	return $rc
}
in_a_row() {
	check "four times in a row: $1" survives "$2"
	at=$((at + 2))
}
in_a_row "500" '{"kind": "status", "status": 500, "count": 4}'
in_a_row "503 with Retry-After" '{"kind": "status", "status": 503, "count": 4}'
in_a_row "429 with a date" '{"kind": "status", "status": 429, "headers": {"Retry-After": "Fri, 02 Jan 2026 03:04:05 GMT"}, "count": 4}'
in_a_row "408" '{"kind": "status", "status": 408, "count": 4}'
in_a_row "404" '{"kind": "status", "status": 404, "count": 4}'
in_a_row "403" '{"kind": "status", "status": 403, "count": 4}'
in_a_row "416" '{"kind": "status", "status": 416, "count": 4}'
in_a_row "closed" '{"kind": "refuse", "count": 4}'
in_a_row "reset" '{"kind": "reset", "count": 4}'
in_a_row "reset in the body" '{"kind": "reset-body", "bytes": 3000, "count": 4}'
in_a_row "body cut" '{"kind": "truncate", "bytes": 3000, "count": 4}'
in_a_row "body too long" '{"kind": "oversized", "count": 4}'
in_a_row "body hangs" '{"kind": "hang-body", "bytes": 3000, "seconds": 20, "count": 2}'
in_a_row "Content-Range moved" '{"kind": "bad-range", "how": "shift", "count": 4}'
in_a_row "Content-Range short" '{"kind": "bad-range", "how": "short", "count": 4}'
in_a_row "Content-Range of another blob" '{"kind": "bad-range", "how": "total", "count": 4}'
in_a_row "Content-Range garbled" '{"kind": "bad-range", "how": "garbage", "count": 4}'
in_a_row "Content-Range missing" '{"kind": "bad-range", "how": "missing", "count": 4}'
in_a_row "200 for a range" '{"kind": "whole", "count": 4}'
in_a_row "gzip" '{"kind": "gzip", "count": 4}'
in_a_row "chunked" '{"kind": "chunked", "count": 4}'
in_a_row "no length" '{"kind": "no-length", "count": 4}'
in_a_row "wrong byte" '{"kind": "corrupt", "count": 4}'
in_a_row "noise" '{"kind": "garbage", "count": 4}'
in_a_row "no HTTP" '{"kind": "not-http", "count": 4}'
in_a_row "redirected to nowhere" '{"kind": "redirect", "to": "http://127.0.0.1:1", "count": 4}'
faults '[]'
check "obd-stat counts the bytes that the server sent" the_bytes_agree
stop_tgtd
check "the group stops" stop_group
