#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SCSI conformance: on a read-only overlaybd LUN no test of iscsi-test-cu comes out worse than on tgt's own read-only
# file LUN of the same contents. Nothing destructive is run.
. "$(dirname "$0")/lib.sh"

command -v iscsi-test-cu >/dev/null || skip_all "iscsi-test-cu is not installed"
need_image
local_config "$WORK/image.json" "${LAYERS[@]}"
cp --sparse=always "$RAW" "$WORK/plain.raw"

# The tool's exit status says whether tests failed, which they do on tgt's own LUN too: only a hang or a crash counts.
run_suites() {
	local rc=0
	timeout -k 5 300 iscsi-test-cu -v -t ALL "$(url "$1")" >"$WORK/$2.out" 2>&1 || rc=$?
	[ "$rc" -le 1 ] && grep -q "Run Summary" "$WORK/$2.out" && return
	echo "iscsi-test-cu ended with $rc"
	return 1
}

plain_lun() {
	adm --mode logicalunit --op new --tid 1 --lun 2 --bstype rdwr --backing-store "$WORK/plain.raw" &&
		adm --mode logicalunit --op update --tid 1 --lun 2 --params readonly=1
}

check "the group starts" start_group || exit
start_tgtd
check "overlaybd LUN" new_lun 1 "$WORK/image.json"
check "it gets ready" "$ISCSI" wait-ready "$(url 1)"
check "tgt's own LUN" plain_lun
check "the suites end on tgt's own LUN" run_suites 2 plain
check "the suites end on the overlaybd LUN" run_suites 1 overlaybd
check "no test is worse" "$TOOLS/cu-compare.py" "$WORK/plain.out" "$WORK/overlaybd.out"
check "and the LUN still gives every byte" verify_lun 1 "$RAW"
stop_tgtd
check "the group stops" stop_group
