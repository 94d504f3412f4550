#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A registry that takes connections and never answers: 32 LUNs of it neither stall tgtd nor a LUN whose blocks are cached.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
remote_config "$WORK/good.json" test/image -- "${LAYERS[@]}"
faults '[{"path": "/dead/", "kind": "hang"}]'
luns=32
for ((i = 1; i <= luns; i++)); do
	# A layer list of its own for each, so that no two share the wait.
	python3 - "$WORK/good.json" "$WORK/dead$i.json" "$BLOBS" "$i" <<-'END'
		import json, sys
		config = json.load(open(sys.argv[1]))
		config["repoBlobUrl"] = sys.argv[3].replace("127.0.0.1", "localhost") + "/v2/dead/blobs"
		config["lowers"] = [{"digest": f"sha256:{int(sys.argv[4]):064x}", "size": 1 << 20}]
		config["resultFile"] = sys.argv[2] + ".result"
		json.dump(config, open(sys.argv[2], "w"))
	END
done

SLOWEST_MS=0
create_dead_luns() {
	local i begun took
	for ((i = 1; i <= luns; i++)); do
		begun=$(now_ms)
		new_lun $((10 + i)) "$WORK/dead$i.json" || return 1
		took=$(($(now_ms) - begun))
		[ $took -le $SLOWEST_MS ] || SLOWEST_MS=$took
	done
}

becoming_ready() {
	local answer
	answer=$("$ISCSI" wait-ready -W 1 "$(url 11)" 2>&1)
	echo "$answer"
	[[ $answer == *"not ready after"* ]]
}

load_was_right() {
	local rc=0
	wait "$LOAD" || rc=$?
	cat "$WORK/load.err" "$WORK/load.out"
	return $rc
}

slowest_read_ms_below() {
	python3 - "$WORK/load.out" "$1" <<-'END'
		import json, sys
		slowest = json.load(open(sys.argv[1]))["max_us"] / 1000
		print(f"the slowest read took {slowest:.0f} ms")
		sys.exit(slowest >= float(sys.argv[2]))
	END
}

remove_dead_luns() {
	local i
	for ((i = 1; i <= luns; i++)); do remove_lun $((10 + i)) || return 1; done
}

CONF[readTimeoutSec]=300
check "the group starts" start_group || exit
start_tgtd
check "LUN A" new_lun 1 "$WORK/good.json"
check "A: all bytes, now cached" verify_lun 1 "$RAW"

"$ISCSI" verify -r "$RAW" -t 8 -R -b 16K -q 4 "$(url 1)" >"$WORK/load.out" 2>"$WORK/load.err" &
LOAD=$!
check "$luns LUNs of the dead registry are created" create_dead_luns
check "no tgtadm call took a second (slowest: $SLOWEST_MS ms)" test "$SLOWEST_MS" -lt 1000
check "such a LUN answers: becoming ready" becoming_ready
check "A meanwhile: no error, no wrong byte" load_was_right
check "A meanwhile: no read took a second" slowest_read_ms_below 1000

# A new LUN of the good registry must not wait behind the dead ones either.
begun=$(now_ms)
check "LUN B of the good registry opens" eval 'new_lun 2 "$WORK/good.json" && "$ISCSI" wait-ready -W 10 "$(url 2)"'
check "within 3 s" test $(($(now_ms) - begun)) -lt 3000
head -c 4194304 /dev/urandom >"$WORK/fresh.raw"
check "a fresh layer is made" "$MKLAYER" --base "$WORK/fresh.raw" "$WORK/fresh.tar"
remote_config "$WORK/fresh.json" test/fresh -- "$WORK/fresh.tar"
check "an uncached LUN of the good registry is read" eval 'new_lun 3 "$WORK/fresh.json" && verify_lun 3 "$WORK/fresh.raw"'

check "the dead LUNs are removed" remove_dead_luns
check "A still right" verify_lun 1 "$RAW" -R -b 4K -q 32
stop_tgtd
check "the group stops within 5 s" stop_group
