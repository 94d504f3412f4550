#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Damaged layers, bad configs and lying registries: an open fails with its reason, a read gives the right bytes or an
# error and never wrong bytes, the group stays up, and LUN A beside it all stays right.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
local_config "$WORK/a.json" "${LAYERS[@]}"
bad=$WORK/bad
mkdir -p "$bad"
CONF[readTimeoutSec]=4

a_is_right() { verify_lun 1 "$RAW" -l 2M -b 64K && group_answers >/dev/null && [ "$(group_pids)" = "$MEMBERS" ]; }

# The result file must give a reason: "failed:" and some words.
reason_is_given() {
	local text
	text=$(cat "$1.result" 2>&1)
	echo "resultFile: $text"
	[[ $text == failed:*[a-z]* ]]
}

# refused CONFIG: opening fails, at once or on the LUN, with a reason.
refused() {
	local config=$1 rc=0
	rm -f "$config.result"
	if new_lun 9 "$config"; then
		"$ISCSI" wait-ready -W 20 "$(url 9)"
		[ $? = 2 ] || rc=1
		[ $rc = 0 ] || echo "the LUN became ready"
		remove_lun 9 || rc=1
	fi
	reason_is_given "$config" || rc=1
	return $rc
}

# refused_at_once CONFIG: what needs no network fails the tgtadm call itself.
refused_at_once() {
	rm -f "$1.result"
	if new_lun 9 "$1"; then
		remove_lun 9
		echo "tgtadm succeeded"
		return 1
	fi
	reason_is_given "$1"
}

# config_is NAME TEXT: a config of that text, refused at once. The result file's name is put in where TEXT says RESULT.
config_is() {
	printf '%s' "${2//RESULT/$bad/config.json.result}" >"$bad/config.json"
	check "config: $1" refused_at_once "$bad/config.json"
}

# layer_is NAME FILE: an image of this one layer is refused at once.
layer_is() {
	local_config "$bad/layer.json" "$2"
	check "layer: $1" refused_at_once "$bad/layer.json"
}

# patched FROM OFFSET HEX: a copy of FROM with these bytes at OFFSET (negative: from the end).
patched() {
	python3 - "$1" "$bad/patched" "$2" "$3" <<-'END'
		import sys
		source, target, at, text = sys.argv[1:]
		data, new = bytearray(open(source, "rb").read()), bytes.fromhex(text)
		at = int(at) + (len(data) if int(at) < 0 else 0)
		data[at:at + len(new)] = new
		open(target, "wb").write(data)
	END
	echo "$bad/patched"
}

check "the group starts" start_group || exit
start_tgtd
check "LUN A" new_lun 1 "$WORK/a.json"
check "A: all bytes" verify_lun 1 "$RAW"
MEMBERS=$(group_pids)

# ---- configs ----------------------------------------------------------------------------------------------------------
check_fails "config: no such file" new_lun 9 "$bad/none.json"
check_fails "config: empty" eval ': >"$bad/empty.json"; new_lun 9 "$bad/empty.json"'
check_fails "config: not JSON" eval 'head -c 5000 /dev/urandom >"$bad/noise.json"; new_lun 9 "$bad/noise.json"'
check_fails "config: 100000 brackets" eval 'head -c 100000 /dev/zero | tr "\0" "[" >"$bad/deep.json"; new_lun 9 "$bad/deep.json"'
check_fails "config: a directory" new_lun 9 "$bad"
config_is "no lowers" '{"lowers": [], "resultFile": "RESULT"}'
config_is "lowers is no list" '{"lowers": 7, "resultFile": "RESULT"}'
config_is "a lower without file and digest" '{"lowers": [{}], "resultFile": "RESULT"}'
config_is "a digest without repoBlobUrl" \
	'{"lowers": [{"digest": "sha256:'"$(printf '%064d' 1)"'", "size": 4096}], "resultFile": "RESULT"}'
config_is "a digest that is none" \
	'{"repoBlobUrl": "http://127.0.0.1:1/v2/x/blobs", "lowers": [{"digest": "sha256:../../etc/passwd", "size": 1}], "resultFile": "RESULT"}'
config_is "256 lowers" \
	'{"lowers": ['"$(for _ in $(seq 255); do printf '{"file": "%s"},' "${LAYERS[0]}"; done)"'{"file": "'"${LAYERS[0]}"'"}], "resultFile": "RESULT"}'
check "A is right, nobody died" a_is_right

# ---- local layers -----------------------------------------------------------------------------------------------------
"$MKLAYER" --base "${STEPS[0]}" "$bad/plain.lsmt" --no-zfile --no-tar || bail "obd-mklayer"
"$MKLAYER" --base "${STEPS[0]}" "$bad/plain.zfile" --no-tar || bail "obd-mklayer"
size=$(stat -c %s "$bad/plain.lsmt")

: >"$bad/empty"
head -c 100000 /dev/urandom >"$bad/noise"
head -c $((size / 2)) "$bad/plain.lsmt" >"$bad/cut.lsmt"
head -c $(($(stat -c %s "$bad/plain.zfile") - 100)) "$bad/plain.zfile" >"$bad/cut.zfile"
head -c 100000 "${LAYERS[0]}" >"$bad/cut.tar"
mkfifo "$bad/fifo"
layer_is "no such file" "$bad/none"
layer_is "an empty file" "$bad/empty"
layer_is "noise" "$bad/noise"
layer_is "a directory" "$bad"
layer_is "a FIFO" "$bad/fifo"
layer_is "an endless device" /dev/zero
layer_is "LSMT cut in half" "$bad/cut.lsmt"
layer_is "ZFile without its end" "$bad/cut.zfile"
layer_is "tar cut" "$bad/cut.tar"
layer_is "LSMT magic broken" "$(patched "$bad/plain.lsmt" -4096 00)"
layer_is "LSMT index_size huge" "$(patched "$bad/plain.lsmt" $((-4096 + 40)) ffffffffffffff0f)"
layer_is "LSMT index_offset beyond the file" "$(patched "$bad/plain.lsmt" $((-4096 + 32)) ffffffffffffff7f)"
layer_is "LSMT virtual_size 2^63" "$(patched "$bad/plain.lsmt" $((-4096 + 48)) 0000000000000080)"
layer_is "LSMT first index entry beyond the device" "$(patched "$bad/plain.lsmt" \
	"$(python3 -c 'import struct, sys; print(struct.unpack("<Q", open(sys.argv[1], "rb").read()[-4064:-4056])[0])' "$bad/plain.lsmt")" \
	fffffffffffffd0f)"
layer_is "ZFile trailer digest broken" "$(patched "$bad/plain.zfile" $((-512 + 60)) ff)"
layer_is "ZFile jump table broken" "$(patched "$bad/plain.zfile" -1024 ffffffff)"
check "A is right, nobody died" a_is_right

# A damaged block is found when it is read: an error there, and the rest is right.
damaged_block_is_an_error() {
	local rc=0
	local_config "$bad/layer.json" "$(patched "$bad/plain.zfile" 3000000 "$(printf 'a5%.0s' $(seq 64))")"
	new_lun 9 "$bad/layer.json" || return 1
	"$ISCSI" verify -k -r "${STEPS[0]}" -b 4K "$(url 9)"
	[ $? = 2 ] || rc=1
	remove_lun 9 && return $rc
}
check "layer: a damaged block reads as an error, never as wrong bytes" damaged_block_is_an_error
check "A is right, nobody died" a_is_right

# ---- the registry -----------------------------------------------------------------------------------------------------
# Each case has a layer of its own, so that nothing is cached.
number=0
fresh_layer() {
	number=$((number + 1))
	{
		head -c 1500000 /dev/urandom
		head -c 900000 /dev/urandom | base64 -w 0
	} | head -c 2097152 >"$WORK/fresh.raw"
	"$MKLAYER" --base "$WORK/fresh.raw" "$WORK/fresh.tar" && remote_config "$WORK/fresh.json" "fresh$number" -- "$WORK/fresh.tar"
}

# answers_with FAULT WANTED...: opens and reads a fresh image while the server does FAULT; the exit status of the
# verification must be one of WANTED. Afterwards, with the server well again, a new open gives every byte.
answers_with() {
	local rc=0 got=0
	fresh_layer && faults "[$1]" || return 1
	if new_lun 9 "$WORK/fresh.json"; then
		"$ISCSI" verify -k -r "$WORK/fresh.raw" -W 30 -b 64K -q 32 "$(url 9)" || got=$?
		remove_lun 9 || rc=1
	else
		got=2
	fi
	faults '[]'
	case " ${*:2} " in
	*" $got "*) ;;
	*)
		echo "exit status $got, expected one of: ${*:2}"
		rc=1
		;;
	esac
	if ! { new_lun 9 "$WORK/fresh.json" && verify_lun 9 "$WORK/fresh.raw"; }; then
		echo "not right when the server was well again"
		rc=1
	fi
	remove_lun 9 || rc=1
	return $rc
}

check "registry: 404" answers_with '{"kind": "status", "status": 404}' 2
check "registry: 403" answers_with '{"kind": "status", "status": 403}' 2
check "registry: 401" answers_with '{"kind": "status", "status": 401}' 2
check "registry: 500 for a while" answers_with '{"kind": "status", "status": 500, "count": 3}' 0
check "registry: 503 for a while" answers_with '{"kind": "status", "status": 503, "count": 2}' 0
check "registry: 500 for ever" answers_with '{"kind": "status", "status": 500}' 2
check "registry: connections closed for a while" answers_with '{"kind": "refuse", "count": 3}' 0
check "registry: connections reset for a while" answers_with '{"kind": "reset", "count": 3}' 0
check "registry: bodies cut for a while" answers_with '{"kind": "truncate", "bytes": 700, "count": 3}' 0
check "registry: bodies cut for ever" answers_with '{"kind": "truncate", "bytes": 700}' 2
check "registry: no HTTP at all" answers_with '{"kind": "not-http"}' 2
check "registry: noise in the right frame, once" answers_with '{"kind": "garbage", "skip": 4, "count": 1}' 0 2
check "registry: noise in the right frame, for ever" answers_with '{"kind": "garbage"}' 2
check "registry: noise after the open" answers_with '{"kind": "garbage", "skip": 4}' 2
check "registry: one wrong byte, once" answers_with '{"kind": "corrupt", "offset": 700000, "count": 4}' 0 2
check "registry: one wrong byte, for ever" answers_with '{"kind": "corrupt", "offset": 700000}' 2
check "registry: Content-Range of another range" answers_with '{"kind": "bad-range"}' 2
check "registry: ranges ignored" answers_with '{"kind": "whole"}' 0 2
check "registry: slow to answer" answers_with '{"kind": "delay", "ms": 200, "count": 30}' 0
check "A is right, nobody died" a_is_right

# A blob that is longer or shorter than the config says, and one that is not what its digest says.
size_is_wrong() {
	fresh_layer || return 1
	sed -i "s/\"size\": [0-9]*/\"size\": $1/" "$WORK/fresh.json"
	refused "$WORK/fresh.json"
}
check "registry: the blob is shorter than the config says" size_is_wrong 900000000
check "registry: the blob is longer than the config says" size_is_wrong 100000
check "A: all bytes, nobody died" eval 'verify_lun 1 "$RAW" -R -b 32K && a_is_right'

stop_tgtd
check "the group stops" stop_group
