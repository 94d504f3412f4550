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

# What the server sent and what obd-stat counts, within 1 %. The log is written after the answer has come, so wait for it.
bytes_agree() {
	local sent got
	sent=$(bytes_sent method=GET) got=$(counter bytes_fetched)
	echo "$sent bytes sent, $got counted"
	[ "$(((sent - got) * 100))" -le "$sent" ] && [ "$(((got - sent) * 100))" -le "$sent" ]
}
the_bytes_agree() { wait_for 10 bytes_agree || bytes_agree; }
