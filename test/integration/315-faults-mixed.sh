#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All faults of a registry at random while an image larger than the cache is read; a registry that is gone for a while, which
# shows at once, and one that stays away, which is a named error.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

need_big_image 24

check "the group starts" start_group || exit
start_tgtd
check "LUN" new_lun 1 "$WORK/big.json"
check "it is ready" "$ISCSI" wait-ready "$(url 1)"

# ---- all at once ------------------------------------------------------------------------------------------------------
everything() {
	python3 - <<-'END'
		import json
		rules = [{"kind": "status", "status": s} for s in (500, 502, 503, 429, 408, 404, 403)]
		rules += [{"kind": "bad-range", "how": h} for h in ("shift", "short", "total", "garbage", "missing")]
		rules += [{"kind": k} for k in ("refuse", "reset", "oversized", "gzip", "chunked", "no-length", "corrupt", "garbage", "not-http")]
		rules += [{"kind": k, "bytes": 5000} for k in ("reset-body", "truncate")]
		rules += [{"kind": "delay", "ms": 50}, {"kind": "whole"}, {"kind": "redirect", "to": "http://127.0.0.1:1"}]
		print(json.dumps([dict(rule, prob=0.15 / 2) if rule["kind"] in ("delay", "chunked") else dict(rule, prob=0.02)
		                  for rule in rules] + [{"kind": "hang-body", "bytes": 100, "seconds": 10, "count": 2, "prob": 0.02}]))
	END
}
check "all faults at random" eval 'faults "$(everything)"'
check "the whole image: no error, no wrong byte" verify_lun 1 "$BIG" -R -b 64K -q 32
check "and opened anew" eval 'remove_lun 1 && new_lun 1 "$WORK/big.json" && verify_lun 1 "$BIG" -o 8M -l 2M'
check "faults were met (obd-stat)" eval 'counter retries; [ "$(counter retries)" -gt 20 ]'
faults '[]'

check "obd-stat counts the bytes that the server sent" the_bytes_agree

at=16
# ---- gone for a while, and gone ---------------------------------------------------------------------------------------
gone_for_a_while() {
	local rc=0 reader
	faults "[$1]" || return 1
	verify_lun 1 "$BIG" -o "${at}M" -l 2M >"$WORK/reader.out" 2>&1 &
	reader=$!
	if ! wait_for 10 registry_is "$2"; then
		registry_is "$2"
		rc=1
	fi
	faults '[]' || rc=1
	wait "$reader" || { cat "$WORK/reader.out" && rc=1; }
	wait_for 10 registry_is ok || { echo "not ok again" && rc=1; }
	at=$(((at + 4) % 24))
	return $rc
}
check "refusing: shows as failing, with its reason and who waits; reads wait" gone_for_a_while '{"kind": "refuse"}' failing
check "saying nothing: shows as silent" gone_for_a_while '{"kind": "hang", "seconds": 4}' silent
check "the table has it" eval '"$B/bin/obd-stat" -r "$RUN" | grep -A2 "^registries" | grep -F "${BLOBS#http://}"'
stop_tgtd
check "the group stops" stop_group

CONF[readTimeoutSec]=3
check "a group with a short readTimeoutSec" start_group || exit
start_tgtd
check "LUN" eval 'new_lun 1 "$WORK/big.json" && "$ISCSI" wait-ready "$(url 1)"'
named_error() {
	local rc=0
	faults '[{"kind": "status", "status": 503}]' || return 1
	verify_lun 1 "$BIG" -o 4M -l 1M || rc=$?
	faults '[]'
	[ $rc = 2 ] || { echo "exit status $rc" && return 1; }
	grep -F "registry ${BLOBS#http://}: timed out after" "$WORK/group.log" | grep -F "HTTP 503"
}
check "gone longer than readTimeoutSec: an error, and its name in the log" named_error
check "and right when it is back" verify_lun 1 "$BIG" -o 4M -l 1M
named_open() {
	local rc=0
	head -c 2097152 /dev/urandom >"$WORK/small.raw"
	"$MKLAYER" --base "$WORK/small.raw" "$WORK/small.tar" && remote_config "$WORK/small.json" test/small -- "$WORK/small.tar" || return 1
	faults '[{"kind": "gzip"}]' && new_lun 2 "$WORK/small.json" && wait_for 40 test -s "$WORK/small.json.result" || rc=1
	faults '[]'
	cat "$WORK/small.json.result"
	[ $rc = 0 ] && grep -q "^failed:.*timed out at ${BLOBS#http://}" "$WORK/small.json.result"
}
check "an open of such a registry: failed:timed out at HOST" named_open
stop_tgtd
check "the group stops again" stop_group
