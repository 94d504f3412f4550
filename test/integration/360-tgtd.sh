#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The supervisor owns tgtd: what was attached is there again, as the same devices, after tgtd or the supervisor died or hung.
# shellcheck disable=SC2016 # eval and inner shells expand
. "$(dirname "$0")/lib.sh"

need_root
command -v tgtd >/dev/null || bail "tgtd is not installed"
mkdir -p /usr/lib/tgt/backing-store
need_image
start_blobserver
local_config "$WORK/local.json" "${LAYERS[@]}"
remote_config "$WORK/remote.json" test/image -- "${LAYERS[@]}"
cp "$WORK/local.json" "$WORK/vanishes.json"
cp "$WORK/local.json" "$WORK/removed.json"

TGT_PORT=$(free_port)
CONF[fetchers]=2
CONF[hangSec]=3
CONF[sharedCache]="{sizeMB: 64, hugepages: off}"
LOG=$WORK/group.log
RECORD=$RUN/tgtd.record

# The sanitizer's library must be in tgtd, but not in the supervisor.
cat >"$WORK/tgtd" <<-END
	#!/bin/sh
	exec env LD_PRELOAD="$(tgtd_preload)" ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" /usr/sbin/tgtd "\$@"
END
chmod +x "$WORK/tgtd"
CONF[frontend]="{manage: true, tgtd: $WORK/tgtd, controlPort: 1, portal: \"127.0.0.1:$TGT_PORT\"}"

logged() { [ "$(grep -c -- "$1" "$LOG")" -ge "${2:-1}" ]; }
tgtd_pid() { pgrep -P "$SUPERVISOR" -x tgtd; }
serves() { logged 'tgtd.* serves' "$1"; }

start_managed() {
	write_group_config
	TGT_IPC_SOCKET=$WORK/ipc setsid unshare -m --propagation slave sh -c '
		mount --bind "$1" /usr/lib/tgt/backing-store && exec "$2" -c "$3"' sh \
		"$B/lib" "$B/bin/obd-supervisor" "$WORK/overlaybd.yaml" >>"$WORK/supervisor.log" 2>&1 </dev/null &
	SUPERVISOR=$!
	wait_for 30 group_ready_or_dead
	group_answers >/dev/null 2>&1
}

# Everything that tells one device from another: targets, LUNs, ids, serial numbers, sizes, bindings.
shape() { adm --mode target --op show | grep -vE 'I_T nexus:|Initiator:|Connection:|IP Address:'; }
same_shape() { shape >"$WORK/shape.now" && diff "$WORK/shape" "$WORK/shape.now"; }

kill_tgtd() {
	local before
	before=$(grep -c 'tgtd.* serves' "$LOG")
	kill "-$1" "$(tgtd_pid)" || return 1
	wait_for "${2:-20}" serves $((before + 1))
}

settled() { wait_for 20 same_shape && same_shape; }

load_was_right() {
	local rc=0
	wait "$LOAD" || rc=$?
	cat "$WORK/load.err" "$WORK/load.out"
	return $rc
}

came_back() {
	python3 - "$WORK/load.out" "$1" "$2" <<-'END'
		import json, sys
		row = json.load(open(sys.argv[1]))
		print(row["reconnects"], "reconnects, slowest request", row["max_us"] / 1000, "ms")
		sys.exit(row["reconnects"] < int(sys.argv[2]) or row["max_us"] > float(sys.argv[3]) * 1e6)
	END
}

# ---- a group with a tgtd -------------------------------------------------------------------------------------------------

check "the group starts" start_managed || exit
check "and starts tgtd" wait_for 20 serves 1
check "tgtadm finds it where it always is" tgtd_answers
check "the control socket is root's alone" test "$(stat -c %a "$WORK/ipc.1")" = 600
check "nothing is recorded yet" test ! -e "$RECORD"

check "a target" new_target 1
check "a second one, with an account and a parameter" eval '
	adm --mode target --op new --tid 7 --targetname iqn.2025-01.test:seven &&
	adm --mode account --op new --user joe --password secret &&
	adm --mode account --op bind --tid 7 --user joe &&
	adm --mode target --op update --tid 7 --name MaxBurstLength --value 131072 &&
	adm --mode target --op bind --tid 7 --initiator-name iqn.2025-01.test:ini'
check "LUNs" eval 'new_lun 1 "$WORK/local.json" && new_lun 2 "$WORK/remote.json" && new_lun 3 "$WORK/vanishes.json" && new_lun 4 "$WORK/removed.json" &&
	adm --mode logicalunit --op new --tid 7 --lun 200 --bstype overlaybd --backing-store "$WORK/local.json"'
check "one with a serial number of its own" \
	adm --mode logicalunit --op update --tid 1 --lun 2 --params vendor_id=ACME,scsi_sn=serial-2,scsi_id=id-2
check "one that comes and goes" eval 'new_lun 9 "$WORK/local.json" && remove_lun 9'
check "what tgtd refuses is refused" fails new_lun 1 "$WORK/remote.json"
check "all get ready" "$ISCSI" wait-ready "$(url 1)" "$(url 2)" "$(url 3)"
check "the record is root's alone" test "$(stat -c %a "$RECORD")" = 600
check "and has one line per thing" test "$(grep -c ^logicalunit "$RECORD")" = 6
shape >"$WORK/shape"

# ---- death ---------------------------------------------------------------------------------------------------------------

"$ISCSI" verify -r "$RAW" -R -t 6 -b 16K -q 8 -A 60 -k "$(url 1)" "$(url 2)" >"$WORK/load.out" 2>"$WORK/load.err" &
LOAD=$!
sleep 1
for round in 1 2; do
	check "killed, round $round: it serves again" kill_tgtd KILL
	check "round $round: with the same targets, LUNs, names, numbers and sizes" settled
	sleep 1
done
check "a verifying initiator has no error, no wrong byte, and found the same devices" load_was_right
check "its pauses were short" came_back 1 50
grep -o 'serves.*' "$LOG" | sed 's/^/    /'

# ---- hang ----------------------------------------------------------------------------------------------------------------

"$ISCSI" verify -r "$RAW" -R -t 3 -b 16K -q 8 -A 60 -k "$(url 2)" >"$WORK/load.out" 2>"$WORK/load.err" &
LOAD=$!
sleep 1
check "one that is stopped is noticed and replaced" kill_tgtd STOP 40
check "the log says so" logged "is silent for 3 s: killed"
check "the initiator had no error" load_was_right
check "the same devices" settled

# ---- what cannot be made again ----------------------------------------------------------------------------------------------

mv "$WORK/vanishes.json" "$WORK/gone.json"
rm "$WORK/removed.json"
check "two LUNs' configs are gone: the rest is served" eval 'kill_tgtd KILL && verify_lun 1 "$RAW" -b 64K'
check "a line says which it is" logged "LUN 3 of target 1, $WORK/vanishes.json cannot be made again"
mv "$WORK/gone.json" "$WORK/vanishes.json"
check "what is missing can be deleted" remove_lun 4
check "and is forgotten" test "$(grep -c removed.json "$RECORD")" = 0
check "when the config is back, so is the LUN" wait_for 30 logged "LUN 3 of target 1, $WORK/vanishes.json is there again"
sed -i '/LUN: 4$/,/Backing store flags/d' "$WORK/shape"
check "it is the same" settled

# ---- death of the supervisor ------------------------------------------------------------------------------------------------

"$ISCSI" verify -r "$RAW" -R -t 3 -b 16K -q 8 -A 60 -k "$(url 1)" "$(url 2)" >"$WORK/load.out" 2>"$WORK/load.err" &
LOAD=$!
sleep 1
OLD=$(tgtd_pid)
kill -KILL "$SUPERVISOR"
check "the supervisor dies: tgtd goes with it" wait_for 10 gone "$OLD"
serving=$(grep -c 'tgtd.* serves' "$LOG")
check "the next one starts" start_managed
check "its tgtd serves" wait_for 20 serves $((serving + 1))
check "the same devices" settled
check "the initiator had no error" load_was_right

# ---- the record ----------------------------------------------------------------------------------------------------------

check "the group stops, and tgtd with it" eval 'P=$(tgtd_pid) && stop_group && gone $P'
check "its sockets are gone" test ! -e "$WORK/ipc.1" -a ! -e "$RUN/tgtd.1"
sed -i '2s/iqn/nqi/' "$RECORD"
serving=$(grep -c 'tgtd.* serves' "$LOG")
check "with a damaged record the group starts all the same" eval 'start_managed && wait_for 20 serves $((serving + 1))'
check "a line says what to do" logged "tgtd.record: is damaged: devices must be attached anew"
check "nothing was guessed" test "$(adm --mode target --op show | grep -c Target)" = 0
stop_group >/dev/null
start_tgtd
check_fails "a tgtd of somebody else keeps ours from starting" env TGT_IPC_SOCKET="$WORK/ipc" timeout 60 "$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml"
check "which says so" logged "another tgtd runs on this control port"
