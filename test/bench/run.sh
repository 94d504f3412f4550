#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Speed of cached reads and of writes, by a private group and a private tgtd on this machine:
#
#   1. the client library alone, against memcpy
#   2. LUNs of one tgtd: overlaybd, tgt's null store (answers without data), tgt's rdwr store on a file in the page cache
#   3. the slowest percent of cached reads of one LUN, alone and while LUNs of a registry that never answers are created
#   4. writes: append-only and sparse uppers, and tgt's rdwr store on a file of the same file system; all of it written before
#
# What is compared runs in turns, round by round, so that a change of the machine's mood meets all of it; printed are medians
# with the least and the greatest. Numbers never fail this script; wrong data and errors do.
#
#   BENCH_ROUNDS (5)  BENCH_SECONDS (1, of each single run)  BENCH_LUNS (32)  BENCH_HUGEPAGES (auto)
#   BENCH_ONLY ("1 2 3 4", sections)  BENCH_WRITE_MB (512, the size of a written LUN)  BENCH_ENGINE (0, ioEngine)
#   BENCH_HOOK (a command that is called as HOOK start|stop CASE CONTENDER around each write run, with TGTD and INDEXER set)
. "$(dirname "$0")/../integration/lib.sh"

ROUNDS=${BENCH_ROUNDS:-5}
SECS=${BENCH_SECONDS:-1}
DEAD_LUNS=${BENCH_LUNS:-32}
WRITE_MB=${BENCH_WRITE_MB:-512}
RESULTS=$WORK/results # lines of: section, case, contender, processor time of tgtd and of the indexer in ms, JSON
CLIENT=$B/bench/obd-bench-client

die() {
	echo "bench: $1" >&2
	FAILED=1
	exit 1
}

# The window of the image that holds the most data, and its length: zeros would flatter us.
densest_window() {
	python3 - "$RAW" $((32 << 20)) <<-'END'
		import sys
		window, part = int(sys.argv[2]), 1 << 16
		with open(sys.argv[1], "rb") as f:
		    data = [p.count(0) < len(p) // 2 for p in iter(lambda: f.read(part), b"")]
		n = min(window // part, len(data))
		best = max(range(len(data) - n + 1), key=lambda i: sum(data[i:i + n]))
		print(best * part, n * part, sum(data[best:best + n]) * 100 // n)
	END
}

wanted() { case " ${BENCH_ONLY:-1 2 3 4} " in *" $1 "*) ;; *) return 1 ;; esac; }

# Processor time of a process so far, in ms: on a busy machine it says more than the clock.
cpu_ms() {
	local fields
	read -ra fields <"/proc/$1/stat"
	echo $(((fields[13] + fields[14]) * 1000 / $(getconf CLK_TCK)))
}

# measure SECTION CASE CONTENDER LUN obd-iscsi's arguments: one run, one line of results.
measure() {
	local section=$1 case=$2 contender=$3 lun=$4 out before ix_before
	shift 4
	before=$(cpu_ms "$TGTD")
	ix_before=$(cpu_ms "$INDEXER")
	out=$("$ISCSI" "$@" "$(url "$lun")" 2>"$WORK/iscsi.err") ||
		die "$contender: $case: $(tail -n 1 "$WORK/iscsi.err") $out"
	echo "$section $case $contender $(($(cpu_ms "$TGTD") - before)) $(($(cpu_ms "$INDEXER") - ix_before)) $out" >>"$RESULTS"
}

# ---- 2: stores --------------------------------------------------------------------------------------------------------

STORES=("overlaybd 1" "null 2" "rdwr 3")

# Each round begins with another store, and every other one goes round the other way.
store_round() {
	local case options store i
	while read -r case options; do
		for ((i = 0; i < 3; i++)); do
			store=${STORES[($1 + i * (1 + $1 % 2)) % 3]}
			# shellcheck disable=SC2086 # options are words
			measure stores "$case" "${store% *}" "${store#* }" $options -o "$OFFSET" -l "$LENGTH" -t "$SECS" -S "$1"
		done
	done <<-'END'
		random_4k_qd32 randread -b 4K -q 32
		random_4k_qd1 randread -b 4K -q 1
		sequential_64k_qd16 seqread -b 64K -q 16
		sequential_256k_qd8 seqread -b 256K -q 8
	END
}

# ---- 3: a registry that never answers ---------------------------------------------------------------------------------

dead_configs() {
	python3 - "$WORK" "$BLOBS" "$DEAD_LUNS" <<-'END'
		import json, sys
		work, blobs, n = sys.argv[1], sys.argv[2].replace("127.0.0.1", "localhost"), int(sys.argv[3])
		for i in range(1, n + 1):
		    lowers = [{"digest": f"sha256:{i:064x}", "size": 1 << 20}]
		    config = {"repoBlobUrl": blobs + "/v2/dead/blobs", "lowers": lowers, "resultFile": f"{work}/dead{i}.result"}
		    json.dump(config, open(f"{work}/dead{i}.json", "w"))
	END
}

# new_other TID LUN STORE FILE
new_other() {
	adm --mode logicalunit --op new --tid "$1" --lun "$2" --bstype "$3" --backing-store "$4"
}

# create_luns STORE: in the background of a measurement; "dead" ones of the registry, or null ones for comparison. They belong
# to another target, since an initiator is told of each new LUN of its own.
create_luns() {
	local i
	sleep 0.2
	for ((i = 1; i <= DEAD_LUNS; i++)); do
		case $1 in
		dead) new_other 2 "$i" overlaybd "$WORK/dead$i.json" || return 1 ;;
		null) new_other 2 "$i" null /dev/null || return 1 ;;
		esac
	done
}

remove_luns() {
	local i
	for ((i = 1; i <= DEAD_LUNS; i++)); do adm --mode logicalunit --op delete --tid 2 --lun "$i" || return 1; done
}

# While LUNs are created, and for as long as the measurement goes on after that, they wait.
latency_round() {
	local busy creator
	local options=(randread -b 4K -q 4 -o "$OFFSET" -l "$LENGTH" -t "$((SECS * 2))" -S "$1")
	measure latency random_4k_qd4 alone 1 "${options[@]}"
	for busy in null dead; do
		create_luns $busy >"$WORK/create.out" 2>&1 &
		creator=$!
		measure latency random_4k_qd4 "${busy}_luns" 1 "${options[@]}"
		wait $creator || die "creating $busy LUNs: $(tail -n 1 "$WORK/create.out")"
		remove_luns || die "$busy LUNs cannot be removed"
	done
}

# ---- 4: writes --------------------------------------------------------------------------------------------------------

WRITERS=("append 4" "sparse 5" "rdwr 6")

# A LUN for each contender, and what all of them are filled with.
make_writers() {
	local writer name
	head -c "${WRITE_MB}M" /dev/urandom >"$WORK/write.raw" || return 1
	: >"$WORK/write.rdwr" && truncate -s "${WRITE_MB}M" "$WORK/write.rdwr" || return 1
	"$B/bin/overlaybd-create" "$WORK/append.data" "$WORK/append.index" "${WRITE_MB}M" || return 1
	"$B/bin/overlaybd-create" -s "$WORK/sparse.data" "${WRITE_MB}M" || return 1
	echo '{"lowers": [], "upper": {"data": "'"$WORK"'/append.data", "index": "'"$WORK"'/append.index"}}' >"$WORK/append.json"
	echo '{"lowers": [], "upper": {"data": "'"$WORK"'/sparse.data"}}' >"$WORK/sparse.json"
	for writer in "${WRITERS[@]}"; do
		name=${writer% *}
		case $name in
		rdwr) new_other 1 6 rdwr "$WORK/write.rdwr" ;;
		*) new_lun "${writer#* }" "$WORK/$name.json" ;;
		esac || return 1
		"$ISCSI" seqwrite -b 256K -q 8 -t 0 -r "$WORK/write.raw" "$(url "${writer#* }")" >/dev/null || return 1
	done
}

# The file system's own writing is got over with before each run.
write_round() {
	local case options writer i
	while read -r case options; do
		for ((i = 0; i < 3; i++)); do
			writer=${WRITERS[($1 + i * (1 + $1 % 2)) % 3]}
			sync -f "$WORK"
			[ "${BENCH_HOOK:-}" ] && TGTD=$TGTD INDEXER=$INDEXER "$BENCH_HOOK" start "$case" "${writer% *}"
			# shellcheck disable=SC2086 # options are words
			measure writes "$case" "${writer% *}" "${writer#* }" $options -r "$WORK/write.raw" -t "$SECS" -S "$1"
			[ "${BENCH_HOOK:-}" ] && TGTD=$TGTD INDEXER=$INDEXER "$BENCH_HOOK" stop "$case" "${writer% *}"
		done
	done <<-'END'
		random_write_4k_qd32 randwrite -b 4K -q 32
		random_write_4k_qd1 randwrite -b 4K -q 1
		sequential_write_256k_qd8 seqwrite -b 256K -q 8
	END
}

verify_writers() {
	local writer
	for writer in "${WRITERS[@]}"; do
		verify_lun "${writer#* }" "$WORK/write.raw" -b 256K >/dev/null || die "${writer% *}: wrong data after writing"
	done
}

# ---- results ----------------------------------------------------------------------------------------------------------

print_results() {
	python3 - "$RESULTS" <<-'END'
		import collections, json, statistics, sys

		runs = collections.defaultdict(lambda: collections.defaultdict(list))
		for line in open(sys.argv[1]):
		    section, case, contender, tgtd_ms, indexer_ms, text = line.split(" ", 5)
		    run = json.loads(text)
		    run["cpu_us"] = int(tgtd_ms) * 1000 / max(run["ops"], 1)
		    run["indexer_us"] = int(indexer_ms) * 1000 / max(run["ops"], 1)
		    runs[section, case][contender].append(run)

		def spread(values, form):
		    return f"{statistics.median(values):{form}} ({min(values):{form}} …{max(values):{form}})"

		def ratios(a, b, field):
		    """round by round, so that neighbours in time are compared"""
		    each = [x[field] / y[field] for x, y in zip(a, b) if y[field]]
		    return spread(each, "5.2f") if each else "-"

		for (section, case), by in runs.items():
		    field = "p99_us" if section == "latency" else "MBps" if case.startswith("seq") else "iops"
		    print(f"\n{case}: {field}, the 99th percentile, processor time per request of tgtd and of the indexer")
		    for name in ("overlaybd", "append", "sparse", "null", "rdwr", "alone", "null_luns", "dead_luns"):
		        if name in by:
		            p99 = statistics.median(run["p99_us"] for run in by[name])
		            cpu = statistics.median(run["cpu_us"] for run in by[name])
		            ix = statistics.median(run["indexer_us"] for run in by[name])
		            values = spread([run[field] for run in by[name]], "8.0f")
		            print(f"  {name:<10} {values:<32} p99 {p99:6.0f} us  cpu {cpu:6.1f} + {ix:5.1f} us")
		    for other, goal in (("null", 0.8), ("rdwr", 1.0)):
		        if section == "stores":
		            speed = ratios(by["overlaybd"], by[other], field)
		            cost = ratios(by["overlaybd"], by[other], "cpu_us")
		            print(f"  overlaybd / {other}: speed {speed}, goal {goal}; processor time {cost}")
		    for name in ("append", "sparse"):
		        if section == "writes":
		            print(f"  {name} / rdwr: {ratios(by[name], by['rdwr'], field)}, goal 0.9")
		    for other in ("null_luns", "dead_luns"):
		        if section == "latency":
		            print(f"  {other} / alone: {ratios(by[other], by['alone'], field)}, goal 2.0 at most")
	END
}

# ---- the run ----------------------------------------------------------------------------------------------------------

need_image
read -r OFFSET LENGTH SHARE <<<"$(densest_window)"
start_blobserver
remote_config "$WORK/a.json" bench/image -- "${LAYERS[@]}"
faults '[{"path": "/dead/", "kind": "hang"}]'
dead_configs
cp "$RAW" "$WORK/rdwr.raw" && cat "$WORK/rdwr.raw" >/dev/null

CONF[sharedCache]="{sizeMB: 512, hugepages: ${BENCH_HUGEPAGES:-auto}}"
CONF[readTimeoutSec]=300
CONF[ioEngine]=${BENCH_ENGINE:-0}
start_group || die "the group does not start: $(tail -n 1 "$WORK/supervisor.log")"
INDEXER=$(role_pids indexer)
start_tgtd
new_lun 1 "$WORK/a.json" || die "no overlaybd LUN"
new_target 2 || die "no second target"
new_other 1 2 null /dev/null || die "no null LUN"
new_other 1 3 rdwr "$WORK/rdwr.raw" || die "no rdwr LUN"
for round in 1 2; do verify_lun 1 "$RAW" -R -b 64K >/dev/null || die "overlaybd: wrong data"; done
verify_lun 3 "$RAW" >/dev/null || die "rdwr: wrong data"

echo "$(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $ROUNDS rounds of $SECS s, $((LENGTH >> 20)) MiB of which $SHARE % hold data"
if wanted 1; then
	echo
	echo "the client library alone"
	"$CLIENT" -r "$RUN" -R "$RAW" -t "$((SECS * 4))" "$WORK/a.json" || die "the client library: wrong data, or none"
fi

for ((round = 1; round <= ROUNDS; round++)); do wanted 2 && store_round "$round"; done
for ((round = 1; round <= ROUNDS; round++)); do wanted 3 && latency_round "$round"; done
if wanted 4; then
	make_writers || die "no writable LUNs"
	for ((round = 1; round <= ROUNDS; round++)); do write_round "$round"; done
	verify_writers
fi
if [ -s "$RESULTS" ]; then print_results; fi

verify_lun 1 "$RAW" -R -b 16K >/dev/null || die "overlaybd: wrong data at the end"
"$B/bin/obd-stat" -r "$RUN" --audit || die "the cache has faults"
