# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the crash suite and its selection in `make check` share: a group with a small cache, images, and how one case runs.
#
# A case is a role that is killed (or stopped) at a test point in a situation:
#
#   idle      devices are open, nothing is read            open      images of layers that are new are opened and closed
#   cold      layers that are new are read                 close     devices are closed while they are read
#   hot       a few blocks are read again and again        write     a writable device is read, written, discarded, synced
#   evict     more is read than the cache holds            download  a layer is downloaded in the background
#   faulty    the registry breaks off                      after-X   X was killed just before: its successor starts
#
# Every byte that anybody reads is compared. Afterwards all who are not the victim have finished, the group is whole again, and
# the audit finds each frame in one place and no request, job or open slot that nobody owns.
# shellcheck disable=SC2034 # CONF is lib.sh's
C=${C:-build/testpoints}
case $C in /*) ;; *) C=$PWD/$C ;; esac
ORDINARY=${B:-build}
case $ORDINARY in /*) ;; *) ORDINARY=$PWD/$ORDINARY ;; esac
B=$C
. "$(dirname "${BASH_SOURCE[0]}")/../integration/lib.sh"
MKLAYER=$ORDINARY/test/obd-mklayer
POINT=$C/test/obd-testpoint
LOAD=$C/test/obd-crash-load
CONTROL=$WORK/points
FETCHERS=2
LIMIT_MS=${LIMIT_MS:-2000} # until a case counts as one that does not reach its point
PASSED=0
ok() {
	PASSED=$((PASSED + 1))
	echo "ok $NAME: $1"
}
STRUCK='' # points that struck: "point role"
declare -A PASSES=() # "situation point role": passes in a run without a kill

crash_setup() {
	local i
	need_image
	start_blobserver
	"$POINT" create "$CONTROL"
	export OBD_TEST_DISK=16777216:1048576
	CONF[sharedCache]="{sizeMB: 20, indexMB: 16, hugepages: off}"
	CONF[fetchers]=$FETCHERS
	CONF[readaheadKB]=256
	CONF[hangSec]=4
	CONF[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 1}"
	CONF[download]="{enable: true, delay: 0, delayExtra: 0, maxMBps: 0}"
	mkdir "$WORK/fresh"
	cp "${LAYERS[@]}" "$WORK/fresh"
	FRESH=("$WORK"/fresh/*)
	local_config "$WORK/local.json" "${FRESH[@]}"
	remote_config "$WORK/remote.json" crash/image -- "${LAYERS[@]}"
	remote_config "$WORK/down.json" crash/down --dir "$WORK/down" -- "${LAYERS[0]}"
	for i in $(python3 -c 'import json, sys; print(*[low["dir"] for low in json.load(open(sys.argv[1]))["lowers"]])' "$WORK/down.json"); do
		mkdir -p "$i"
	done
	for i in witness victim; do
		"$B/bin/overlaybd-create" "$WORK/$i.data" "$WORK/$i.index" "$(stat -c %s "$RAW")B"
		sed "s#^{#{\"upper\": {\"data\": \"$WORK/$i.data\", \"index\": \"$WORK/$i.index\"},#" \
			"$WORK/remote.json" >"$WORK/$i.json"
	done
}

start_crash_group() { OBD_TEST_POINTS=$CONTROL start_group; }

# ---- situations -------------------------------------------------------------------------------------------------------

SITUATIONS=(idle cold hot evict faulty open close write download)
AFTER=(after-cached after-fetcher after-indexer after-frontend)

# New layers: the same bytes under another time are another identity.
renew() { touch "${FRESH[@]}"; }

prepare() { # SITUATION
	case $1 in
	cold | open) renew ;;
	faulty) faults '[{"kind": "truncate", "bytes": 1000, "count": 4}, {"kind": "status", "status": 503, "count": 4}]' ;;
	download) rm -f "$WORK"/down/*/* ;;
	esac >/dev/null
}

undo() {
	case $1 in
	faulty) faults '[{"kind": "truncate", "bytes": 1000, "count": 4}, {"kind": "status", "status": 503, "count": 4}]' ;;
	esac >/dev/null
}

# What a device does in the situation: sets ACT. NAME: whose writable device.
act_of() { # SITUATION NAME
	case $1 in
	idle) ACT=(idle "$WORK/remote.json" "$RAW") ;;
	cold) ACT=(read "$WORK/local.json" "$RAW") ;;
	hot) ACT=(hot "$WORK/remote.json" "$RAW") ;;
	open) ACT=(open "$WORK/local.json" "$RAW") ;;
	close) ACT=(close "$WORK/remote.json" "$RAW") ;;
	write) ACT=(write "$WORK/$2.json" "$RAW" "$WORK/$2.state") ;;
	download) ACT=(read "$WORK/down.json" "${STEPS[0]}") ;;
	*) ACT=(scan "$WORK/remote.json" "$RAW") ;;
	esac
}

load() { "$LOAD" -r "$RUN" -S "$RANDOM" "$@"; }

# Kills X of after-X by hand, once the load has begun.
kill_by_hand() { # SITUATION
	local role=${1#after-} pid
	case $1 in
	after-frontend)
		load -m 5000 scan "$WORK/remote.json" "$RAW" >/dev/null 2>&1 &
		pid=$!
		sleep 0.2
		kill -KILL $pid
		wait $pid 2>/dev/null
		;;
	after-*)
		sleep 0.1
		kill -KILL "$(role_pids "$role" | head -n 1)"
		;;
	esac
}

# ---- afterwards -------------------------------------------------------------------------------------------------------

# Nobody is a client any more, so whatever is left over is nobody's.
settled() {
	"$TOP/test/crash/quiet.py" "$B/bin/obd-stat" "$RUN" "$FETCHERS" 30 && "$B/bin/obd-stat" -r "$RUN" --audit
}

# ---- one case ---------------------------------------------------------------------------------------------------------

revive_group() {
	wait "$SUPERVISOR" 2>/dev/null
	start_crash_group || { echo "no new group" && return 1; }
}

# It may die when the last client, PID, leaves it, too.
watch_supervisor() { # PID POINT
	while alive "$1"; do "$POINT" wait "$CONTROL" "$2" 100 >/dev/null && break; done
	"$POINT" wait "$CONTROL" "$2" 500 >/dev/null || return 0
	revive_group
}

# strike SITUATION POINT ROLE kill|stop NTH: everything that happens in a case. Prints what went wrong.
strike() {
	local situation=$1 point=$2 role=$3 action=$4 nth=$5 pid rc=0 victim=''
	prepare "$situation"
	"$POINT" arm "$CONTROL" "$point" "$role" "$action" "$nth" || return 1
	if [ "$role" = a ]; then
		act_of "$situation" victim
		OBD_TEST_POINTS=$CONTROL load -m $((LIMIT_MS + 1000)) "${ACT[@]}" >"$WORK/victim.out" 2>&1 &
		victim=$!
	fi
	act_of "$situation" witness
	load -c "$CONTROL" -p "$point" -m "$LIMIT_MS" "${ACT[@]}" >"$WORK/witness.out" 2>"$WORK/witness.err" &
	pid=$!
	kill_by_hand "$situation"
	[ "$role" != s ] || watch_supervisor "$pid" "$point" || rc=1
	wait $pid || { echo "witness: $(tail -n 1 "$WORK/witness.err")" && rc=1; }
	"$POINT" disarm "$CONTROL"
	if [ "$victim" ]; then
		[ "$("$POINT" struck "$CONTROL" "$point")" = 0 ] || kill -KILL $victim 2>/dev/null # a stopped one would stay
		wait $victim
		pid=$?
		[ $pid = 0 ] || [ $pid = 137 ] || { echo "victim: exit status $pid: $(tail -n 1 "$WORK/victim.out")" && rc=1; }
		[ "$situation" != write ] || load check "$WORK/victim.json" "$RAW" "$WORK/victim.state" || rc=1
	fi
	undo "$situation"
	settled || rc=1
	return $rc
}

# One line for one case; 2: the point was not reached this time.
crash_case() { # SITUATION POINT ROLE kill|stop NTH
	local begun out=$WORK/case.out rc=0 pause what="$1: $3 at $2 ($4 at pass $5)"
	begun=$(now_ms)
	strike "$@" >"$out" 2>&1 || rc=1
	if [ "$("$POINT" struck "$CONTROL" "$2")" = 0 ] && [ $rc = 0 ]; then
		echo "   $what: not reached"
		return 2
	fi
	pause=$(sed -n 's/.*pause_ms=\([0-9]*\).*/\1/p' "$WORK/witness.out")
	if [ $rc = 0 ]; then
		STRUCK+="$2 $3"$'\n'
		[ "$4" = stop ] || [ "$1" = faulty ] || echo "$3 ${pause:-0}" >>"$WORK/pauses"
		ok "$what: pause ${pause:-?} ms, case $(($(now_ms) - begun)) ms"
		return 0
	fi
	not_ok "$what" "$(tail -n 1 "$out")"
	sed 's/^/    /' "$out" | tail -n 20
	return 1
}

# ---- what is passed where ---------------------------------------------------------------------------------------------

# Runs a situation without any kill but that of after-X, and notes who passes which points how often.
learn() { # SITUATION
	local name role passes pid
	"$POINT" create "$WORK/fresh-points"
	cp --no-preserve=all "$WORK/fresh-points" "$WORK/zero"
	dd if="$WORK/zero" of="$CONTROL" conv=notrunc status=none # those who have it mapped keep it
	prepare "$1"
	act_of "$1" victim
	OBD_TEST_POINTS=$CONTROL load -m 1500 "${ACT[@]}" >"$WORK/learn.out" 2>&1 &
	pid=$!
	kill_by_hand "$1"
	wait $pid || { cat "$WORK/learn.out" && return 1; }
	undo "$1"
	while read -r name role passes; do
		PASSES["$1 $name $role"]=$passes
	done < <("$POINT" passes "$CONTROL")
	settled
}

nth_of() { # PASSES
	local n=$((1 + $1 / 3))
	echo $((n > 40 ? 40 : n))
}
