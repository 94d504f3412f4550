#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Writable layers against those of existing tools. Lists of operations played through a LUN and committed give their very layers;
# the writable layers that they left (closed, crashed, torn, sparse) are served and committed with the right content.
. "$(dirname "$0")/lib.sh"

OPS=$B/test/obd-ops
GOLD=$WORK/golden-ops
BIN=$B/bin
mkdir "$GOLD"
zstd -dcq "$TOP/test/data/golden-ops.tar.zst" | tar -xf - -C "$GOLD" || bail "cannot unpack golden-ops.tar.zst"
cd "$WORK" || exit

# upper_config OUT LOWER-or-'' DATA [INDEX]: none of the paths has a character that JSON minds
upper_config() {
	local lower=${2:+"{\"file\": \"$2\"}"} index=${4:+", \"index\": \"$4\""}
	echo "{\"lowers\": [$lower], \"upper\": {\"data\": \"$3\"$index}, \"resultFile\": \"$1.result\"}" >"$1"
}

lun_with() { new_lun 1 "$1" && "$ISCSI" wait-ready "$(url 1)"; }

# replayed NAME BYTES UUID PARENT SHA256 MESSAGE: the list becomes a layer, whose bytes are the reference's.
replayed() {
	local name=$1 bytes=$2 uuid=$3 parent=$4 sum=$5 message=$6 options=(--uuid "$3") got
	[ "$parent" = 00000000-0000-0000-0000-000000000000 ] || options+=(-p "$parent")
	[ "$message" = - ] || options+=(-m "$message")
	rm -f data index layer
	"$BIN/overlaybd-create" data index "${bytes}B" && upper_config "$WORK/ops.json" '' "$WORK/data" "$WORK/index" || return 1
	lun_with "$WORK/ops.json" && "$OPS" "$GOLD/$name.ops" "$(url 1)" && remove_lun 1 || return 1
	"$BIN/overlaybd-commit" "${options[@]}" data index layer || return 1
	got=$(sha256sum <layer)
	[ "${got%% *}" = "$sum" ] && return 0
	echo "$name: SHA-256 of the layer is ${got%% *}, not $sum"
	return 1
}

# The layers of a set, all in one fact.
set_replayed() {
	local set=$1 n=0 name bytes uuid parent message sum
	while IFS=$'\t' read -r name bytes uuid parent message sum; do
		case $name in "$set" | "$set"/*) ;; *) continue ;; esac
		replayed "$name" "$bytes" "$uuid" "$parent" "$sum" "$message" || return 1
		n=$((n + 1))
	done <"$GOLD/layers.tsv"
	[ "$n" -gt 0 ]
}

# What the LUN of a config holds, as SHA-256.
content() { "$ISCSI" copy -w content.raw "$(url 1)" >/dev/null && sha256sum <content.raw | cut -c1-64; }

# holds CONFIG SHA256
holds() {
	local got
	lun_with "$1" && got=$(content) && remove_lun 1 || return 1
	rm -f content.raw
	[ "$got" = "$2" ] && return 0
	echo "content is $got, not $2"
	return 1
}

lower_of() { [ ! -e "$GOLD/uppers/$1/lower.lsmt" ] || echo "$GOLD/uppers/$1/lower.lsmt"; }

# served_and_committed KIND SHA256: from the upper, from its commit over the same lower layer, and from that compressed.
served_and_committed() {
	local kind=$1 sum=$2 dir=$GOLD/uppers/$1 files lower layers=()
	files=("$dir/data")
	[ ! -e "$dir/index" ] || files+=("$dir/index")
	lower=$(lower_of "$kind")
	[ ! "$lower" ] || layers=("$lower")
	upper_config "$WORK/$kind.json" "$lower" "${files[@]}" && holds "$WORK/$kind.json" "$sum" || return 1
	"$BIN/overlaybd-commit" -f "${files[@]}" "$WORK/$kind.lsmt" && local_config "$WORK/$kind-c.json" "${layers[@]}" "$WORK/$kind.lsmt" &&
		holds "$WORK/$kind-c.json" "$sum" || return 1
	"$BIN/overlaybd-commit" -f -z -t "${files[@]}" "$WORK/$kind.tar" && local_config "$WORK/$kind-z.json" "${layers[@]}" "$WORK/$kind.tar" &&
		holds "$WORK/$kind-z.json" "$sum"
}

# The torn index lacks the last six operations: the same list without them says what the rest must be.
torn_sum() {
	head -n -6 "$GOLD/uppers/crash/up.ops" >short.ops
	rm -f data index
	"$BIN/overlaybd-create" data index 2097152B >&2 && upper_config "$WORK/short.json" "$(lower_of torn)" "$WORK/data" "$WORK/index" &&
		lun_with "$WORK/short.json" >&2 && "$OPS" short.ops "$(url 1)" >&2 && content && remove_lun 1 >&2
}

check "the group starts" start_group || exit
start_tgtd
for set in single stack2 stack3 stack12 stack40 grow nonzero-start empty idx256 idx257 bigdiscard sparse-upper crash-upper; do
	check "$set: the operations give the reference's layers, byte for byte" set_replayed "$set"
done
for kind in single crash tgtd-crash sparse; do
	check "an upper of existing tools: $kind" served_and_committed "$kind" "$(cat "$GOLD/uppers/$kind/expected.sha256")"
done
check "an index torn in a record" served_and_committed torn "$(torn_sum)"
stop_tgtd
check "the group stops" stop_group
