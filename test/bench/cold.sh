#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Speed of reads that are not cached, by a private group and a blob server behind a link that can be made slow:
#
#   1. open to ready, in round trips of 10 ms: cold, and with what an earlier group left on disk
#   2. 64 KiB reads in order at queue depth 1, 10 ms per answer
#   3. 4 KiB reads at random at queue depth 32, 10 ms per answer: against 32 reads per 10 ms, and what is fetched per missed block
#   4. 25 Mbit/s and 30 ms: one image's reads alone, and while another image is read from end to end on the same link
#   5. bytes of the registry by obd-stat and by the server
#
# Numbers never fail this script; wrong data and errors do.   BENCH_ROUNDS (3)  BENCH_SECONDS (10, of each part of 4)
. "$(dirname "$0")/../integration/lib.sh"

ROUNDS=${BENCH_ROUNDS:-3}
SECS=${BENCH_SECONDS:-10}
COLD=$B/bench/obd-bench-cold
DIR=$TOP/build/test/cold-images
RESULTS=$WORK/results

die() {
	echo "bench: $1" >&2
	FAILED=1
	exit 1
}

# Two images of three layers whose data compresses to half, made once.
make_images() {
	[ -e "$DIR/done" ] && return
	rm -rf "$DIR"
	mkdir -p "$DIR"
	python3 - "$DIR" <<-'END' || return 1
		import os, random, shutil, sys
		def fill(path, mib, seed):
		    r = random.Random(seed)
		    with open(path, "wb") as f:
		        for _ in range(mib):
		            noise = r.randbytes(1 << 19)
		            f.write(b"".join(noise[i:i + 2048] + bytes(2048) for i in range(0, 1 << 19, 2048)))
		def change(old, new, blocks, seed):
		    r = random.Random(seed)
		    shutil.copyfile(old, new)
		    with open(new, "r+b") as f:
		        for block in [0] + r.sample(range(1, os.path.getsize(old) >> 16), blocks):
		            f.seek(block << 16)
		            f.write(r.randbytes(1 << 15) + bytes(1 << 15))
		for name, mib in ("a", 512), ("b", 64):
		    path = sys.argv[1] + "/" + name
		    fill(path + "0.raw", mib, mib)
		    change(path + "0.raw", path + "1.raw", mib // 5, 1)
		    change(path + "1.raw", path + "2.raw", mib // 10, 2)
	END
	local i
	for i in a b; do
		"$MKLAYER" --base "$DIR/${i}0.raw" "$DIR/${i}0.tar" && "$MKLAYER" --diff "$DIR/${i}0.raw" "$DIR/${i}1.raw" "$DIR/${i}1.tar" &&
			"$MKLAYER" --diff "$DIR/${i}1.raw" "$DIR/${i}2.raw" "$DIR/${i}2.tar" || return 1
		rm -f "$DIR/${i}0.raw" "$DIR/${i}1.raw"
	done
	touch "$DIR/done"
}

# counter ROLE NAME: of obd-stat
counter() {
	"$B/bin/obd-stat" -r "$RUN" --json |
		python3 -c 'import json, sys; print(json.load(sys.stdin)["counters"][sys.argv[1]][sys.argv[2]])' "$1" "$2"
}

# cold IMAGE OPTIONS: one run of the client, one JSON object
cold() {
	local image=$1
	shift
	"$COLD" -r "$RUN" -R "$DIR/${image}2.raw" "$@" "$WORK/$image.json" 2>"$WORK/cold.err" || die "$(cat "$WORK/cold.err")"
}

# field NAME <JSON
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

fresh_group() {
	stop_group >/dev/null || die "the group does not stop"
	start_group || die "the group does not start"
}

# show NAME UNIT: median, least and greatest of the numbers on standard input
show() {
	python3 -c '
import sys
v = sorted(map(float, sys.stdin.read().split()))
print(f"{sys.argv[1]:<58} {v[len(v) // 2]:9.2f} {sys.argv[2]}  ({v[0]:.2f} ... {v[-1]:.2f})")' "$1" "$2"
}

# values NAME: what was noted under it
note() { echo "$1 $2" >>"$RESULTS"; }
values() { awk -v name="$1" '$1 == name { print $2 }' "$RESULTS"; }

# ---- parts ------------------------------------------------------------------------------------------------------------

# Connections are there already, as on a host that runs for a while: another image was opened before.
open_round() {
	link 10 0
	fresh_group
	cold b open >/dev/null
	note open_cold "$(cold a open | field open_ms)"
}

warm_open_round() {
	fresh_group
	cold b open >/dev/null
	note open_warm "$(cold a open | field open_ms)"
}

sequential_round() {
	link 10 0
	fresh_group
	note sequential "$(cold a -t 60 seq | field mb_per_s)"
}

random_round() {
	local filled asked
	link 10 0
	fresh_group
	cold a open >/dev/null
	filled=$(counter fetcher fills) asked=$(counter cached requests)
	cold a -q 32 -n 6000 -S "$1" random >"$WORK/out"
	filled=$(($(counter fetcher fills) - filled)) asked=$(($(counter cached requests) - asked))
	note random_iops "$(field iops <"$WORK/out")"
	note random_p50 "$(field p50_ms <"$WORK/out")"
	note random_kib "$(python3 -c "print(64 * $filled / $asked)")"
}

fairness_round() {
	local scan
	link 30 3125000
	fresh_group
	note alone "$(cold b -t "$SECS" -S "$1" random | field p95_ms)"
	fresh_group
	"$COLD" -r "$RUN" -R "$DIR/a2.raw" -t $((SECS + 6)) seq "$WORK/a.json" >"$WORK/scan.out" 2>"$WORK/scan.err" &
	scan=$!
	sleep 4
	note beside "$(cold b -t "$SECS" -S "$1" random | field p95_ms)"
	wait "$scan" || die "the scan: $(cat "$WORK/scan.err")"
	note scan "$(field mb_per_s <"$WORK/scan.out")"
}

bytes_round() {
	local before sent
	link 0 0
	stop_group >/dev/null
	before=$(server bytes)
	start_group || die "the group does not start"
	cold b -t 30 seq >/dev/null
	cold a -q 32 -n 500 random >/dev/null
	sent=$(($(server bytes) - before))
	sleep 1
	note bytes "$(python3 -c "print($(counter fetcher bytes_fetched) / $sent)")"
}

set_hugepages 256 || echo "no huge pages: frames cost page faults when they are used first"
make_images || die "images cannot be made"
start_blobserve
for image in a b; do
	python3 "$TOOLS/ocipush.py" store "$BLOB_ROOT" "$DIR/$image"?.tar |
		python3 "$TOOLS/ocipush.py" write-config "$WORK/$image.json" --from - --repo-blob-url "$BLOBS/v2/bench/blobs" \
			--result "$WORK/$image.result" || die "ocipush.py"
done
for ((round = 1; round <= ROUNDS; round++)); do
	open_round
	sequential_round
	random_round "$round"
	fairness_round "$round"
done
CONF[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 1}"
open_round
for ((round = 1; round <= ROUNDS; round++)); do warm_open_round; done
CONF[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 0}"
bytes_round

values open_cold | awk '{ print $1 / 10 }' | show "open to ready, cold" "round trips of 10 ms"
values open_warm | awk '{ print $1 / 10 }' | show "open to ready, metadata on disk" "round trips of 10 ms"
values sequential | show "64 KiB in order, depth 1, 10 ms" "MB/s"
values random_iops | awk '{ print $1 / 3200 }' | show "4 KiB at random, depth 32, 10 ms" "of 3200/s"
values random_p50 | show "  median" "ms"
values random_kib | show "  fetched per missed block" "KiB"
values alone | show "25 Mbit/s, 30 ms: p95 of 4 KiB reads alone" "ms"
values beside | show "  beside a scan of another image" "ms"
paste <(values alone) <(values beside) | awk '{ print $2 / $1 }' | show "  ratio" ""
values scan | show "  the scan meanwhile" "MB/s"
values bytes | show "bytes by obd-stat, of those the server sent" ""
