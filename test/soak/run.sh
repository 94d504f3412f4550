#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Hours of bad luck in minutes: LUNs that share layers are read, written and compared all the time while processes of the group are
# killed and stopped and the registry goes away and comes back. Not one wrong byte and not one error is right.
#
#   MINUTES (10)       how long
#   SOAK_EVENTS        a choice of: kill-fetcher kill-cached kill-indexer stop-fetcher stop-cached stop-indexer kill-group outage
#                      slow broken wrong no-network disk-full (all)
#   SOAK_SEED (1)      the order of events
#   SOAK_READERS (12)  read-only LUNs; every third is local, the others come from a registry
#   SOAK_HANG_SEC (2)  hangSec of the group; a busy machine wants more
#   SOAK_WRITERS (4)   writable ones over the same layers, append-only and sparse in turns
#
# At the end every LUN is read once more, the writable ones are committed and read from a registry, and obd-stat's audit walks the
# segment. Printed are the numbers of events and, per kind, the longest pauses that a reader saw. Exit 1 when anything was wrong.
. "$(dirname "$0")/../integration/lib.sh"

MINUTES=${MINUTES:-10}
RANDOM=${SOAK_SEED:-1}
READERS=${SOAK_READERS:-12}
WRITERS=${SOAK_WRITERS:-4}
read -ra EVENTS <<<"${SOAK_EVENTS:-kill-fetcher kill-cached kill-indexer stop-fetcher stop-cached stop-indexer kill-group outage slow broken wrong no-network disk-full}"
MIXED=$B/test/obd-mixed
PAUSES=$WORK/pauses # lines: event, ms

need_root
need_image
start_blobserver
CONF[sharedCache]="{sizeMB: 48, hugepages: auto}"
CONF[fetchers]=2
CONF[hangSec]=${SOAK_HANG_SEC:-2}
CONF[readTimeoutSec]=300
CONF[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 1}"
export OBD_TEST_DISK=25000000:0 # smaller than the layers: units come and go
bytes=$(stat -c %s "$RAW")

# ---- LUNs -------------------------------------------------------------------------------------------------------------

writer_lun() { echo $((READERS + $1)); }
form_of() { [ $(($1 % 2)) = 1 ] && echo append || echo sparse; }

make_configs() {
	local i files options index
	local_config "$WORK/local.json" "${LAYERS[@]}"
	remote_config "$WORK/remote.json" soak/image -- "${LAYERS[@]}" || return 1
	for ((i = 1; i <= WRITERS; i++)); do
		files=("$WORK/w$i.data") options=() index=''
		if [ "$(form_of $i)" = append ]; then
			files+=("$WORK/w$i.index")
			index=", \"index\": \"$WORK/w$i.index\""
		else
			options=(-s)
		fi
		"$B/bin/overlaybd-create" "${options[@]}" "${files[@]}" "${bytes}B" || return 1
		sed "s#^{#{\"upper\": {\"data\": \"$WORK/w$i.data\"$index},#" "$WORK/remote.json" >"$WORK/w$i.json"
		cp "$RAW" "$WORK/w$i.shadow"
	done
}

luns_come() {
	local i urls=()
	for ((i = 1; i <= READERS; i++)); do
		new_lun "$i" "$WORK/$([ $((i % 3)) = 0 ] && echo local || echo remote).json" || return 1
		urls+=("$(url "$i")")
	done
	for ((i = 1; i <= WRITERS; i++)); do
		new_lun "$(writer_lun $i)" "$WORK/w$i.json" || return 1
		urls+=("$(url "$(writer_lun $i)")")
	done
	"$ISCSI" wait-ready -W 60 "${urls[@]}"
}

# ---- load -------------------------------------------------------------------------------------------------------------

LOAD=()
start_load() { # SECONDS
	local i
	LOAD=()
	for ((i = 1; i <= READERS; i++)); do
		"$ISCSI" verify -r "$RAW" -t "$1" -R -S "$RANDOM" -b 64K -q 2 "$(url "$i")" >"$WORK/r$i.out" 2>"$WORK/r$i.err" &
		LOAD+=($!)
	done
	for ((i = 1; i <= WRITERS; i++)); do
		"$MIXED" -t "$1" -q 8 -S "$RANDOM" "$WORK/w$i.shadow" "$(url "$(writer_lun $i)")" >"$WORK/w$i.out" 2>&1 &
		LOAD+=($!)
	done
}

load_runs() {
	local pid
	for pid in "${LOAD[@]}"; do alive "$pid" || return 1; done
}

load_was_right() {
	local pid rc=0
	for pid in "${LOAD[@]}"; do wait "$pid" || rc=1; done
	[ $rc = 0 ] || tail -n 2 "$WORK"/r*.err "$WORK"/w*.out
	return $rc
}

# ---- events -----------------------------------------------------------------------------------------------------------

victim() { role_pids "$1" | shuf -n 1 --random-source=<(yes "$RANDOM"); }

# One that ended by itself in that moment (the supervisor ends what hangs, on a busy machine too) is struck already.
strike() { # SIGNAL ROLE
	local pid
	pid=$(victim "$2") && { kill "-$1" "$pid" 2>/dev/null || gone "$pid"; }
}

kill_group() {
	kill -KILL "$SUPERVISOR"
	wait "$SUPERVISOR" 2>/dev/null
	SUPERVISOR=''
	start_group
}

# The disk tier lies on a disk of its own where one can be mounted.
mount_cache() {
	mkdir -p "$WORK/cache"
	if mount -t tmpfs -o size=32m tmpfs "$WORK/cache"; then OWN_MOUNTS+=("$WORK/cache"); else skip "disk-full" "no tmpfs can be mounted here"; fi
}

# Somebody else fills that disk for a while.
fill_disk() {
	mountpoint -q "$WORK/cache" || return 0
	dd if=/dev/zero of="$WORK/cache/somebody-elses" bs=1M 2>/dev/null
	sleep 3
	rm -f "$WORK/cache/somebody-elses"
}

# event NAME: makes it happen and undoes what must be undone.
event() {
	local role=${1#*-}
	case $1 in
	kill-group) kill_group ;;
	kill-*) strike KILL "$role" ;;
	stop-*) strike STOP "$role" ;;
	outage) faults '[{"kind": "refuse"}]' && sleep 4 && faults '[]' ;;
	slow) faults '[{"kind": "delay", "ms": 400}]' && sleep 3 && faults '[]' ;;
	broken) faults '[{"kind": "truncate", "bytes": 1000, "count": 6}, {"kind": "status", "status": 503, "count": 6}]' && sleep 2 && faults '[]' ;;
	wrong) faults '[{"kind": "corrupt", "count": 8}, {"kind": "garbage", "count": 4}]' && sleep 2 && faults '[]' ;;
	no-network) faults '[{"kind": "hang-body", "bytes": 5000, "prob": 0.5}, {"kind": "hang"}]' && sleep 5 && faults '[]' ;;
	disk-full) fill_disk ;;
	*) bail "no such event: $1" ;;
	esac
}

# How long one small read waits that begins just when the event happens: its block is not in the cache for sure, nor is it cold.
pause_of() {
	local begun
	begun=$(now_ms)
	event "$1" || return 1
	"$ISCSI" randread -n 8 -q 1 -b 4K -S "$RANDOM" "$(url $((1 + RANDOM % READERS)))" >/dev/null || return 1
	echo "$1 $(($(now_ms) - begun))" >>"$PAUSES"
}

report() {
	sort -k1,1 -k2,2n "$PAUSES" | awk '
		{ v[$1, ++n[$1]] = $2 }
		END { for (e in n) printf "%-14s %4d times, event and 8 reads behind it: p50 %6d ms  p99 %6d ms  max %6d ms\n", e, n[e],
			v[e, int((n[e] + 1) / 2)], v[e, int(n[e] * 0.99 + 0.999)], v[e, n[e]] }' | sort
}

trouble() {
	local until=$(($(now_ms) + MINUTES * 60000)) name
	while [ "$(now_ms)" -lt "$until" ]; do
		load_runs || {
			echo "a reader or writer ended early"
			return 1
		}
		name=${EVENTS[RANDOM % ${#EVENTS[@]}]}
		pause_of "$name" || {
			echo "after $name: no group, or a read that failed"
			return 1
		}
		sleep $((1 + RANDOM % 3))
	done
}

# ---- the end ----------------------------------------------------------------------------------------------------------

all_right() {
	local i
	for ((i = 1; i <= READERS; i++)); do verify_lun "$i" "$RAW" || return 1; done
	for ((i = 1; i <= WRITERS; i++)); do verify_lun "$(writer_lun $i)" "$WORK/w$i.shadow" || return 1; done
}

committed_right() {
	local i files
	for ((i = 1; i <= WRITERS; i++)); do
		remove_lun "$(writer_lun $i)" || return 1
		files=("$WORK/w$i.data")
		[ "$(form_of $i)" = sparse ] || files+=("$WORK/w$i.index")
		"$B/bin/overlaybd-commit" -z -t "${files[@]}" "$WORK/w$i.layer" || return 1
		remote_config "$WORK/c$i.json" soak/committed -- "${LAYERS[@]}" "$WORK/w$i.layer" &&
			new_lun 50 "$WORK/c$i.json" && verify_lun 50 "$WORK/w$i.shadow" && remove_lun 50 || return 1
	done
}

audited() { "$B/bin/obd-stat" -r "$RUN" --audit; }

: >"$PAUSES"
check "layers and configs" make_configs || exit
mount_cache
check "the group starts" start_group || exit
start_tgtd
check "$READERS readers' and $WRITERS writers' LUNs" luns_come || exit
start_load $((MINUTES * 60 + 5))
check "$MINUTES minutes of ${EVENTS[*]}" trouble
faults '[]'
check "no reader and no writer saw an error or a wrong byte" load_was_right
check "all bytes of all LUNs" all_right
check "the audit of the segment" audited
check "the writable ones, committed and served from a registry" committed_right
report
stop_tgtd
check "the group stops" stop_group
