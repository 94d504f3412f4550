#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A disk that hangs under one device holds up that device and nothing else, whichever way files are written; and when it comes
# back, what waited is carried out.
. "$(dirname "$0")/lib.sh"

SCSI=$B/test/obd-scsi
ICE=$WORK/ice
FROZEN=''

need_root
command -v fsfreeze >/dev/null || bail "fsfreeze is not installed"
modprobe loop 2>/dev/null

thaw() {
	[ "$FROZEN" ] && fsfreeze -u "$ICE"
	FROZEN=''
}

# The disk is thawed before anything else is undone, or nothing that waits for it can end.
thaw_and_clean() {
	local rc=$?
	thaw
	(exit "$rc")
	cleanup
}
trap thaw_and_clean EXIT

freeze() { fsfreeze -f "$ICE" && FROZEN=1; }

# upper NAME DIR [-s]: a layer in DIR and a config $WORK/NAME.json
upper() {
	local name=$1 dir=$2 files=("$2/$1.data")
	[ "${3:-}" ] || files+=("$2/$1.index")
	"$B/bin/overlaybd-create" ${3:+"$3"} "${files[@]}" 64M || return 1
	python3 - "$WORK/$name.json" "${files[@]}" <<-'END'
		import json, sys
		upper = dict(zip(("data", "index"), sys.argv[2:]))
		json.dump({"lowers": [], "upper": upper, "resultFile": sys.argv[1] + ".result"}, open(sys.argv[1], "w"))
	END
}

scsi() { # LUN WANTED obd-scsi's arguments...
	local got lun=$1 wanted=$2
	shift 2
	got=$("$SCSI" "${@:1:$#-1}" "$(url "$lun")" "${@: -1}" 2>&1)
	case $got in "$wanted"*) ;; *)
		echo "got: $got; wanted: $wanted"
		return 1
		;;
	esac
}

write_at() { scsi "$1" good -t 30000 -o "$WORK/block" "$(printf '2a00%08x00%04x00' "$2" 128)"; }

# Some writes to the frozen device, which cannot end yet.
storm() {
	local i
	WAITING=()
	for i in 1 2; do
		for lun in "$@"; do
			("$SCSI" -t 120000 -o "$WORK/block" "$(url "$lun")" "$(printf '2a08%08x00%04x00' $((i * 128)) 128)" \
				>"$WORK/storm.$lun.$i" 2>&1) &
			WAITING+=($!)
		done
	done
	sleep 1
}

storm_waits() {
	local pid
	for pid in "${WAITING[@]}"; do alive "$pid" || return 1; done
}

storm_ends() {
	local pid rc=0
	for pid in "${WAITING[@]}"; do wait "$pid" || rc=1; done
	[ "$(cat "$WORK"/storm.* | grep -c '^good')" = "${#WAITING[@]}" ] || rc=1
	cat "$WORK"/storm.*
	return $rc
}

others_go_on() {
	local i
	for i in 1 2 3 4; do write_at 3 $((i * 256)) || return 1; done
	scsi 3 good -t 30000 35000000000000000000 && scsi 3 good -t 30000 -i 65536 28000000010000008000
}

# Opening and closing others goes on, and the indexer is the one that it was: nobody took it for dead.
others_come_and_go() {
	new_lun 4 "$WORK/later.json" && write_at 4 0 && remove_lun 4 && new_lun 4 "$WORK/later.json" && remove_lun 4 &&
		[ "$(role_pids indexer)" = "$INDEXER" ]
}

head -c 65536 /dev/urandom >"$WORK/block"
truncate -s 256M "$WORK/ice.img"
mkdir "$ICE"
mkfs.ext4 -q -F "$WORK/ice.img" || bail "mkfs.ext4 failed"
mount -o loop "$WORK/ice.img" "$ICE" 2>"$WORK/mount.err" || skip_all "no loop mount: $(cat "$WORK/mount.err")"
OWN_MOUNTS+=("$ICE")
start_tgtd
for engine in 0 1 2; do
	CONF[ioEngine]=$engine
	CONF[hangSec]=10
	check "engine $engine: layers" eval \
		'upper ice1$engine "$ICE" && upper ice2$engine "$ICE" -s && upper warm$engine "$WORK" && rm -f "$WORK"/later.* && upper later "$WORK"' || exit
	check "engine $engine: the group starts" start_group || exit
	INDEXER=$(role_pids indexer)
	check "engine $engine: LUNs" eval \
		'new_lun 1 "$WORK/ice1$engine.json" && new_lun 2 "$WORK/ice2$engine.json" && new_lun 3 "$WORK/warm$engine.json"' || exit
	check "engine $engine: all can be written" eval 'write_at 1 0 && write_at 2 0 && write_at 3 0'
	check "engine $engine: the disk freezes" freeze || exit
	storm 1 2
	check "engine $engine: others are written, synced and read" others_go_on
	check "engine $engine: others come and go" others_come_and_go
	check "engine $engine: writes to the frozen disk wait" storm_waits
	check "engine $engine: the disk thaws" thaw
	check "engine $engine: then they are carried out" storm_ends
	check "engine $engine: and it goes on" eval 'write_at 1 512 && write_at 2 512'
	check "engine $engine: LUNs go" eval 'remove_lun 1 && remove_lun 2 && remove_lun 3'
	stop_group >/dev/null
done
stop_tgtd
