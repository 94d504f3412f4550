#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Traces: recorded, ended by the lock file or by the device's end, carried over a death of the indexer, replayed before anybody
# reads; what is no trace is a warning. Without one, the file system's metadata is fetched first.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
mkdir "$WORK/t" "$WORK/accel"
TRACE=$WORK/t/trace
READS=(randread -b 16K -q 1 -n 60 -S 7 -l 64M)

# config NAME [KEY=JSON]...: a remote image's config with further members.
config() {
	local name=$1
	shift
	remote_config "$WORK/$name.json" "test/$name" -- "${LAYERS[@]}"
	python3 - "$WORK/$name.json" "$@" <<-'END'
		import json, sys
		config = json.load(open(sys.argv[1]))
		for pair in sys.argv[2:]:
		    key, value = pair.split("=", 1)
		    config[key] = config["lowers"] + json.loads(value) if key == "lowers" else json.loads(value)
		json.dump(config, open(sys.argv[1], "w"))
	END
}

config plain
config traced "recordTracePath=\"$TRACE\""
config accel accelerationLayer=true "lowers=[{\"dir\": \"$WORK/accel\"}]"
config both accelerationLayer=true "recordTracePath=\"$TRACE\"" "lowers=[{\"dir\": \"$WORK/accel\"}]"

# trace_is MIN MAX: the trace file is right byte by byte and has so many records; by a reader that shares nothing with ours.
trace_is() {
	python3 - "$TRACE" "$1" "$2" <<-'END'
		import struct, sys
		data = open(sys.argv[1], "rb").read()
		magic, pad1, size, checksum, pad2 = struct.unpack_from("<IIQII", data)
		crc = 0
		for byte in data[24:]:
		    crc ^= byte
		    for _ in range(8):
		        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
		records = list(struct.iter_unpack("<c3sIQQ", data[24:]))
		print(f"{len(records)} records, {sum(r[3] for r in records)} bytes")
		assert (magic, pad1, pad2, size, checksum) == (3270449184, 0, 0, len(data) - 24, crc), "header"
		assert int(sys.argv[2]) <= len(records) <= int(sys.argv[3]), "number of records"
		assert all(r[0] == b"R" and r[1] == b"\0\0\0" and r[2] < 4 and 0 < r[3] <= 1 << 20 for r in records), "a record"
		blocks = [(r[2], b) for r in records for b in range(r[4] >> 16, (r[4] + r[3] - 1 >> 16) + 1)]
		assert len(set(blocks)) == len(blocks), "a block twice"
	END
}

logged() { grep -q "$1" "$WORK/group.log"; }
requests() { wc -l <"$BLOB_LOG"; }
no_request_since() { echo "$(($(requests) - $1)) new requests" && [ "$(requests)" = "$1" ]; }
counter() { "$B/bin/obd-stat" -r "$RUN" --json | python3 -c '
import json, sys
def find(v):
    if isinstance(v, dict):
        return sum(x if k == sys.argv[1] and isinstance(x, int) else find(x) for k, x in v.items())
    return sum(map(find, v)) if isinstance(v, list) else 0
print(find(json.load(sys.stdin)))' "$1"; }

# Body bytes that the server sent from line $1 of its log on.
sent_since() { tail -n +$(($1 + 1)) "$BLOB_LOG" | python3 -c 'import json, sys; print(sum(json.loads(l)["sent"] for l in sys.stdin))'; }
less_than() { echo "$1 bytes" && [ "$1" -lt "$2" ]; }

# fresh: a group with an empty cache and an empty log, and a tgtd.
fresh() {
	stop_tgtd
	stop_group >/dev/null
	rm -f "$WORK/group.log"
	start_group && start_tgtd
}

attach() { new_lun 1 "$WORK/$1.json" && "$ISCSI" wait-ready "$(url 1)"; }
reads() { "$ISCSI" "${READS[@]}" "$(url 1)"; }
ended() { wait_for 10 test -e "$TRACE.ok" && [ ! -e "$TRACE.lock" ] && [ ! -e "$TRACE.part" ]; }
begin_trace() { rm -f "$TRACE" "$TRACE".* && : >"$TRACE"; }

CONF[readaheadKB]=0

# ---- recording

begin_trace
check "the group starts" fresh || exit
check "an image with an empty trace" attach traced
check "a lock file says that it records" test -e "$TRACE.lock" -a ! -s "$TRACE" -a ! -e "$TRACE.ok"
check "reads of a program that starts" reads
kill -KILL "$(role_pids indexer)"
check "the indexer is killed, and the device reads on" "$ISCSI" randread -b 16K -q 1 -n 20 -S 8 -l 64M "$(url 1)"
rm "$TRACE.lock"
check "without the lock file the recording ends" ended
check "the trace is right and holds both" trace_is 50 240
# 80 reads of 16 KiB, out to pages; whole blocks of 64 KiB would be more than twice that
trace_bytes() { python3 -c 'import struct, sys; print(sum(r[3] for r in struct.iter_unpack("<c3sIQQ", open(sys.argv[1], "rb").read()[24:])))' "$TRACE"; }
check "it names what was read and no more" less_than "$(trace_bytes)" 2000000
check "a client told of each block about once" test "$(counter touches)" -le 400 -a "$(counter touches_dropped)" = 0
cp "$TRACE" "$WORK/accel/trace"

# ---- replay

check "another group, with nothing cached" fresh || exit
before_replay=$(requests)
check "the same image again" attach traced
check "it records no more" test ! -e "$TRACE.lock"
check "the trace is replayed" wait_for 20 logged "prefetched the trace"
check "and no more is fetched than what was read, and for opening" less_than "$(sent_since "$before_replay")" 2500000
mark=$(requests)
check "the same reads" reads
check "found everything in the cache" no_request_since "$mark"
check "no file-system metadata was asked for besides" fails logged "file-system metadata"
check "the device is right" verify_lun 1 "$RAW" -b 64K -q 8

# ---- what is no trace

remove_lun 1
rm -f "$TRACE".*
head -c 3000 /dev/urandom >"$TRACE"
check "garbage: the image opens" attach traced
check "with a warning" logged "warning: .*/traced.json: the trace .* is not used: trace: magic"
remove_lun 1
head -c 100 "$WORK/accel/trace" >"$TRACE"
check "a torn trace: the image opens" attach traced
check "with a warning too" logged "is not used: trace: data_size"
check "nothing was made beside them" test ! -e "$TRACE.lock" -a ! -e "$TRACE.ok"
check "and the result says success" grep -qx success "$WORK/traced.json.result"
remove_lun 1

# ---- the end of the device is the end of the recording

begin_trace
check "a recording" attach traced
check "of some reads" reads
check "its device goes" remove_lun 1
check "and leaves a whole trace" ended
check "which is right" trace_is 40 200

# ---- an acceleration layer carries the trace of the layers below

check "an image with such a layer opens" attach accel
check "its trace is replayed" wait_for 20 logged "accel.json: prefetched the trace"
check "the device is that of the layers below" verify_lun 1 "$RAW" -b 64K -q 8 -l 64M
remove_lun 1
check_fails "it cannot be recorded" new_lun 1 "$WORK/both.json"
check "which the result says" grep -q "failed:.*recordTracePath" "$WORK/both.json.result"

# ---- demand comes first, and no more than asked for at once

rm -f "$TRACE".*
cp "$WORK/accel/trace" "$TRACE"
CONF[prefetchConfig]='{concurrency: 1}'
check "a group that replays one by one" fresh || exit
faults '[{"kind": "delay", "ms": 100, "path": "/traced/"}]'
check "it opens" attach traced
check "a read outside of the trace" "$ISCSI" randread -b 4K -q 1 -n 2 -S 99 -o 160M -l 32M "$(url 1)"
check "was answered while the replay went on" fails logged "prefetched the trace"
mark=$(requests)
at_once() { # what came within one delay of each other, of what was asked for ahead
	python3 - "$BLOB_LOG" "$1" <<-'END'
		import json, sys
		rows = [json.loads(line) for line in open(sys.argv[1])][int(sys.argv[2]):]
		times = sorted(row["t"] for row in rows)
		gaps = sorted(b - a for a, b in zip(times, times[1:]))
		print(f"{len(gaps)} gaps, the median {gaps[len(gaps) // 2]:.3f} s")
		sys.exit(not (len(gaps) >= 5 and gaps[len(gaps) // 2] > 0.05))
	END
}
more_requests() { [ "$(requests)" -gt $((mark + 8)) ]; }
wait_for 20 more_requests
check "one request at a time" at_once "$mark"
check "the device goes in the middle of it" remove_lun 1
faults '[]'
unset 'CONF[prefetchConfig]'

# ---- metadata

# Some blocks of directories, in bytes of the device.
directory_blocks() {
	debugfs -R 'ls -p /usr/share/doc' "$RAW" 2>/dev/null | awk -F/ '$3 ~ /^04/ { print $2 }' | head -n 400 |
		sed 's/.*/blocks <&>/' >"$WORK/blocks.cmd"
	debugfs -f "$WORK/blocks.cmd" "$RAW" 2>/dev/null | grep -v debugfs | tr -s ' ' '\n' | grep -x '[0-9]\+' | shuf -n 12 --random-source="$RAW"
}
read_directories() {
	local block n=0
	for block in $(directory_blocks); do
		"$ISCSI" verify -r "$RAW" -b 4K -q 1 -o $((block * 4096)) -l 4096 "$(url 1)" || return 1
		n=$((n + 1))
	done
	echo "$n blocks"
	[ $n -ge 5 ]
}

check "a group for an image without trace" fresh || exit
check "it opens" attach plain
check "a partition scan: LBA 0 and the super block" "$ISCSI" verify -r "$RAW" -b 4K -q 1 -l 8192 "$(url 1)"
frontend_misses() { "$B/bin/obd-stat" -r "$RUN" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["counters"]["frontend"]["misses"])'; }
check "they were in the cache before the LUN was ready" test "$(frontend_misses)" = 0
check "its file system's metadata comes by itself" wait_for 20 logged "prefetched file-system metadata"
mark=$(requests)
check "directories" read_directories
check "are in the cache before anybody reads them" no_request_since "$mark"
check "much is not" fails test "$(counter prefetch_asked)" -gt 1500
check "the cache is sound" "$B/bin/obd-stat" -r "$RUN" --audit
stop_tgtd
check "the group stops" stop_group
