#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# LUNs whose image has an upper layer, both forms: random writes, discards and syncs against a shadow, through kill -9 of every
# process and of the whole group, through aborts, and after each way of opening the layer again.
. "$(dirname "$0")/lib.sh"

MIXED=$B/test/obd-mixed
SCSI=$B/test/obd-scsi
SECONDS_EACH=${OBD_MIXED_SECONDS:-3}
FORMS=(append sparse)

need_image
local_config "$WORK/lower.json" "${LAYERS[@]}"
bytes=$(stat -c %s "$RAW")

# with_upper FORM: an empty upper over the lowers, and a shadow of what the LUN holds
with_upper() {
	local form=$1 files=("$WORK/$1.data")
	[ "$form" = sparse ] || files+=("$WORK/$form.index")
	local options=()
	[ "$form" = append ] || options=(-s)
	"$B/bin/overlaybd-create" "${options[@]}" "${files[@]}" "${bytes}B" || return 1
	cp "$RAW" "$WORK/$form.shadow"
	python3 - "$WORK/lower.json" "$WORK/$form.json" "${files[@]}" <<-'END'
		import json, sys
		config = json.load(open(sys.argv[1]))
		config["upper"] = dict(zip(("data", "index"), sys.argv[3:]))
		config["resultFile"] = sys.argv[2] + ".result"
		json.dump(config, open(sys.argv[2], "w"))
	END
}

lun_of() { case $1 in append) echo 1 ;; *) echo 2 ;; esac; }
mixed() { "$MIXED" -t "$2" "${@:3}" "$WORK/$1.shadow" "$(url "$(lun_of "$1")")"; }
right() { verify_lun "$(lun_of "$1")" "$WORK/$1.shadow"; }
both_right() { right append && right sparse; }
luns_come() { new_lun 1 "$WORK/append.json" && new_lun 2 "$WORK/sparse.json" && "$ISCSI" wait-ready "$(url 1)" "$(url 2)"; }
luns_go() { remove_lun 1 && remove_lun 2; }
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

# while_mixed WHAT...: both LUNs are at work for some seconds while WHAT is done again and again.
while_mixed() {
	local rc=0 pids=() form until
	for form in "${FORMS[@]}"; do
		mixed "$form" $((SECONDS_EACH + 5)) >"$WORK/mixed.$form" 2>&1 &
		pids+=($!)
	done
	until=$(($(now_ms) + (SECONDS_EACH + 3) * 1000))
	while [ "$(now_ms)" -lt "$until" ]; do
		sleep 0.9
		"$@" || rc=1
	done
	for form in "${pids[@]}"; do wait "$form" || rc=1; done
	cat "$WORK"/mixed.*
	return $rc
}

kill_role() { role_pids "$1" | head -n 1 | xargs -r kill -KILL; }

kill_group() {
	kill -KILL "$SUPERVISOR"
	wait "$SUPERVISOR" 2>/dev/null
	SUPERVISOR=''
	sleep 0.3
	start_group
}

# A cache that cannot hold the image, so that reads of the lower layers go on missing.
CONF[sharedCache]="{sizeMB: 24, hugepages: auto}"
CONF[fetchers]=2
for form in "${FORMS[@]}"; do
	check "$form: a layer is made" with_upper "$form" || exit
done
check "the group starts" start_group || exit
start_tgtd
check "LUNs over both forms" luns_come
check "they hold the lower layers' bytes" both_right
for form in "${FORMS[@]}"; do
	check "$form: random commands" mixed "$form" "$SECONDS_EACH"
	check "$form: small ones, many at once" mixed "$form" "$SECONDS_EACH" -b 8192 -q 100 -S 7
	check "$form: large ones" mixed "$form" "$SECONDS_EACH" -b 4194304 -q 8 -S 8
	check "$form: all bytes" right "$form"
	check "$form: all bytes, in pieces of 1 MiB, shuffled" verify_lun "$(lun_of "$form")" "$WORK/$form.shadow" -R -b 1M
done
check "LUNs go and come" eval 'luns_go && luns_come'
check "all bytes" both_right

for role in indexer cached fetcher; do
	check "kill -9 of obd-$role again and again: no error, no wrong byte" while_mixed kill_role "$role"
	check "then all bytes" both_right
done
check "kill -9 of the whole group again and again: the same" while_mixed kill_group
check "then all bytes" both_right

# An aborted write may still be carried out, but a later one of the same blocks is not overtaken, whoever dies in between.
head -c 65536 /dev/urandom >"$WORK/first"
head -c 65536 /dev/urandom >"$WORK/second"
abort_and_write() {
	local lun=$1 form=$2 indexer rc=0
	indexer=$(role_pids indexer)
	kill -STOP "$indexer"
	scsi "$lun" "status 40" -o "$WORK/first" -a 100 2a000000100000008000 || rc=1
	("$SCSI" -t 20000 -o "$WORK/second" "$(url "$lun")" 2a000000100000008000 >"$WORK/second.out") &
	sleep 0.3
	kill -KILL "$indexer"
	wait $!
	grep -q good "$WORK/second.out" || rc=1
	dd if="$WORK/second" of="$WORK/$form.shadow" bs=512 seek=4096 conv=notrunc status=none
	return $rc
}
check "append: an abort, a write, and a death" abort_and_write 1 append
check "sparse: an abort, a write, and a death" abort_and_write 2 sparse
check "the later write stands" both_right

# A full disk: the write says so, what was there stays, reading and other LUNs go on.
full_disk() {
	local i
	mkdir "$WORK/small"
	mount -t tmpfs -o size=4m tmpfs "$WORK/small" || return 1
	OWN_MOUNTS+=("$WORK/small")
	"$B/bin/overlaybd-create" "$WORK/small/data" "$WORK/small/index" 64M || return 1
	echo "{\"lowers\": [], \"upper\": {\"data\": \"$WORK/small/data\", \"index\": \"$WORK/small/index\"}}" >"$WORK/small.json"
	new_lun 3 "$WORK/small.json" --blocksize 4096 || return 1
	for ((i = 0; i < 32; i++)); do
		scsi 3 good -o "$WORK/first" "$(printf '2a00%08x00001000' $((i * 16)))" || return 1
	done
	for ((; i < 80; i++)); do
		scsi 3 "check 07/27/07" -o "$WORK/first" "$(printf '2a00%08x00001000' $((i * 16)))" && break
	done
	[ "$i" -lt 80 ] || return 1
	scsi 3 good -i 65536 28000000000000001000 && right append && remove_lun 3 && new_lun 3 "$WORK/small.json" --blocksize 4096 || return 1
	head -c 4096 "$WORK/first" >"$WORK/block"
	scsi 3 good -o "$WORK/block" 2f020000000000000100 && remove_lun 3
}
check "a full disk: SPACE ALLOCATION FAILED, and what was written is kept" full_disk
check_fails "a second LUN over the same upper is refused" new_lun 3 "$WORK/append.json"
check "the first goes on" both_right

tgtd_dies() {
	kill -KILL "$TGTD"
	wait "$TGTD" 2>/dev/null
	TGTD=''
	start_tgtd && luns_come
}
check "tgtd dies, another one opens the layers" tgtd_dies
check "all bytes" both_right
check "LUNs go" luns_go
check "the group ends" stop_group
check "a new group opens the layers" eval 'start_group && luns_come'
check "all bytes once more" both_right
check "and they can be written again" eval 'mixed append 1 && mixed sparse 1 && both_right'
stop_tgtd
stop_group >/dev/null
