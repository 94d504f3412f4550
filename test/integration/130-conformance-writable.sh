#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SCSI conformance of a writable LUN: no test of iscsi-test-cu that writes comes out worse than on tgt's own file LUN with thin
# provisioning, for either form of upper layer. Each suite has a process of its own, so that one's mess does not spoil the next.
. "$(dirname "$0")/lib.sh"

command -v iscsi-test-cu >/dev/null || skip_all "iscsi-test-cu is not installed"
need_image
cp --sparse=always "$RAW" "$WORK/plain.raw"
SUITES=(CompareAndWrite GetLBAStatus Inquiry ModeSense6 OrWrite Prefetch10 Prefetch16 Read16 ReadCapacity16 ReadOnly Unmap Verify10
	Verify16 Write10 Write12 Write16 WriteSame10 WriteSame16 WriteVerify10 WriteVerify12 WriteVerify16 iSCSIResiduals)

# writable OUT DATA [INDEX]: a config with this upper
writable() {
	local_config "$1" "${LAYERS[@]}" && python3 - "$@" <<-'END'
		import json, sys
		config = json.load(open(sys.argv[1]))
		config["upper"] = dict(zip(("data", "index"), sys.argv[2:]))
		json.dump(config, open(sys.argv[1], "w"))
	END
}

# The tool's exit status says whether tests failed, which they do on tgt's own LUN too: only a hang or a crash counts.
run_suites() {
	local rc suite
	: >"$WORK/$2.out"
	for suite in "${SUITES[@]}"; do
		rc=0
		timeout -k 5 120 iscsi-test-cu -v -d -t "ALL.$suite" "$(url "$1")" >>"$WORK/$2.out" 2>&1 || rc=$?
		[ "$rc" -le 1 ] && continue
		echo "iscsi-test-cu -t ALL.$suite ended with $rc"
		return 1
	done
}

plain_lun() {
	adm --mode logicalunit --op new --tid 1 --lun 3 --bstype rdwr --backing-store "$WORK/plain.raw" &&
		adm --mode logicalunit --op update --tid 1 --lun 3 --params thin_provisioning=1
}

make_layers() {
	local bytes
	bytes=$(stat -c %s "$RAW")B
	"$B/bin/overlaybd-create" "$WORK/a.data" "$WORK/a.index" "$bytes" && "$B/bin/overlaybd-create" -s "$WORK/s.data" "$bytes" &&
		writable "$WORK/a.json" "$WORK/a.data" "$WORK/a.index" && writable "$WORK/s.json" "$WORK/s.data"
}

check "layers are made" make_layers || exit
check "the group starts" start_group || exit
start_tgtd
check "overlaybd LUNs" eval 'new_lun 1 "$WORK/a.json" && new_lun 2 "$WORK/s.json" && "$ISCSI" wait-ready "$(url 1)" "$(url 2)"'
check "tgt's own LUN" plain_lun
check "the suites end on tgt's own LUN" run_suites 3 plain
check "append-only: the suites end" run_suites 1 append
check "append-only: no test is worse" "$TOOLS/cu-compare.py" "$WORK/plain.out" "$WORK/append.out"
check "sparse: the suites end" run_suites 2 sparse
check "sparse: no test is worse" "$TOOLS/cu-compare.py" "$WORK/plain.out" "$WORK/sparse.out"
stop_tgtd
check "the group stops" stop_group
