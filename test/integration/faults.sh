# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests of faults and routes share: an image that is larger than the cache, and what obd-stat says.
# shellcheck disable=SC2034,SC2154 # variables of lib.sh

BIG=$WORK/big.raw

# need_big_image MIB: so much noise and repetition as $BIG, one layer on the blob server, $WORK/big.json; a cache of 16 MiB.
need_big_image() {
	start_blobserver
	python3 -c '
import random, sys
noise = random.Random(310)
with open(sys.argv[1], "wb") as f:
    for mib in range(int(sys.argv[2])):
        f.write(noise.randbytes(1 << 19) + noise.randbytes(1 << 9) * (1 << 10))' "$BIG" "$1"
	"$MKLAYER" --base "$BIG" "$WORK/big.tar" || bail "obd-mklayer"
	remote_config "$WORK/big.json" test/big -- "$WORK/big.tar"
	CONF[sharedCache]="{sizeMB: 16, hugepages: off}"
	CONF[cacheConfig]="{cacheSizeGB: 0}"
	CONF[readTimeoutSec]=40
	CONF[fetchers]=2
}

stat_json() { "$B/bin/obd-stat" -r "$RUN" --json >"$WORK/stat.json"; }

# counter NAME: over the whole group.
counter() {
	stat_json && python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["counters"]["total"][sys.argv[2]])' \
		"$WORK/stat.json" "$1"
}

# registry_is STATE [HOST]: obd-stat says so, with a reason and somebody who waits unless it is ok.
registry_is() {
	stat_json || return 1
	python3 - "$WORK/stat.json" "$1" "${2:-${BLOBS#http://}}" <<-'END'
		import json, sys
		(row,) = [r for r in json.load(open(sys.argv[1]))["registries"] if r["host"] == sys.argv[3]]
		print(row)
		good = row["state"] == sys.argv[2]
		if sys.argv[2] != "ok":
		    good = good and row["since_ms"] >= 0 and row["waiting_requests"] > 0 and row["oldest_age_ms"] > 0
		if sys.argv[2] == "failing":
		    good = good and row["last_error"] and row["last_errno"]
		sys.exit(not good)
	END
}

# What the server sent and what obd-stat counts, within 1 %. Of a body that was given up on the way the server knows what was
# acknowledged and what it had handed out. The log is written after the answer has come, so wait for it.
bytes_agree() {
	local got
	got=$(counter bytes_fetched) || return 1
	python3 - "$BLOB_LOG" "$got" <<-'END'
		import json, sys
		rows = [row for row in map(json.loads, open(sys.argv[1])) if row["method"] == "GET"]
		sent, handed, got = sum(r["sent"] for r in rows), sum(r["handed"] for r in rows), int(sys.argv[2])
		print(f"{sent} to {handed} bytes sent, {got} counted")
		sys.exit(not sent * 0.99 <= got <= handed * 1.01)
	END
}
the_bytes_agree() { wait_for 10 bytes_agree || bytes_agree; }

# ---- several servers ----------------------------------------------------------------------------------------------------

# server NAME [options]: another blob server with the same blobs; its log is NAME.jsonl, its port in NAME.port.
server() {
	local name=$1
	shift
	python3 "$TOOLS/blobserver.py" "$BLOB_ROOT" --log "$WORK/$name.jsonl" --port-file "$WORK/$name.port" "$@" \
		>>"$WORK/$name.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	wait_for 20 test -s "$WORK/$name.port" || bail "blobserver.py ($name) does not start"
}
port() { cat "$WORK/$1.port"; }
tell() { curl -sS --fail -X PUT -d "$2" "http://127.0.0.1:$(port "$1")/faults"; } # NAME FAULTS

# asked NAME [PYTHON]: how many requests of its log, after the mark, are so; `row` is the line.
asked() {
	python3 - "$WORK/$1.jsonl" "${2:-True}" "$(cat "$WORK/$1.mark" 2>/dev/null || echo 0)" <<-'END'
		import json, sys
		rows = [json.loads(line) for line in open(sys.argv[1])][int(sys.argv[3]):]
		print(sum(1 for row in rows if eval(sys.argv[2], {"row": row})))
	END
}
mark() { for name in "$@"; do wc -l <"$WORK/$name.jsonl" >"$WORK/$name.mark"; done; }

# at_least N NAME [PYTHON], none NAME [PYTHON]
at_least() { [ "$(asked "${@:2}")" -ge "$1" ] || { echo "$(asked "${@:2}") of $(asked "$2") requests" && return 1; }; }
none() { [ "$(asked "$@")" = 0 ] || { echo "$(asked "$@") requests" && return 1; }; }

# group_for URL-OF-REGISTRY: a new group and LUN 1 from there; counters begin at 0.
group_for() {
	sed "s#\"repoBlobUrl\": \"[^\"]*\"#\"repoBlobUrl\": \"$1/v2/test/big/blobs\"#" "$WORK/big.json" >"$WORK/one.json"
	start_group && wait_for 20 new_lun 1 "$WORK/one.json" && "$ISCSI" wait-ready "$(url 1)"
}
part() { verify_lun 1 "$BIG" -o "$1M" -l "${2:-2}M" -b 64K -q 8; } # MIB [MIB]
end_group() {
	remove_lun 1
	stop_group
}
