#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Images that existing overlaybd tools wrote, served from local files and from a registry.
. "$(dirname "$0")/lib.sh"

need_golden
start_blobserver
cd "$GOLDEN" || exit

check "the group starts" start_group || exit
start_tgtd

# matches LUN EXPECTED: compares with expected.raw, a sha256 file or a list of windows.
matches() {
	local lun=$1 expected=$2 offset length sum
	case $expected in
	*windows.txt)
		while read -r offset length sum; do
			"$ISCSI" verify -x "$sum" -o "$offset" -l "$length" -b 4K "$(url "$lun")" || return 1
		done <"$expected"
		;;
	*.raw) verify_lun "$lun" "$expected" -b 4K ;;
	*) "$ISCSI" verify -x "$(cut -d' ' -f1 "$expected")" -b 256K "$(url "$lun")" ;;
	esac
}

# served NAME EXPECTED CONFIG
served() {
	local rc=0
	new_lun 1 "$3" || return 1
	matches 1 "$2" || rc=1
	[ "$(cat "$3.result")" = success ] || {
		echo "resultFile: $(cat "$3.result" 2>&1)"
		rc=1
	}
	remove_lun 1 || rc=1
	return $rc
}

# image NAME EXPECTED LAYER...: from local files, then from the registry.
image() {
	local name=$1 expected=$2 config
	shift 2
	config=$WORK/$(echo "$name" | tr / -)
	local_config "$config-local.json" "$@"
	check "$name, local" served "$name" "$expected" "$config-local.json"
	remote_config "$config-remote.json" "golden/${name//[^a-z0-9]/-}" -- "$@"
	check "$name, registry" served "$name" "$expected" "$config-remote.json"
}

for f in lsmt/single/*.lsmt tar/*; do image "$f" lsmt/single/expected.raw "$f"; done
for f in merge/merged*; do image "$f" merge/expected.raw "$f"; done
for set in stack2 stack3 stack12 stack40 grow nonzero-start idx256 idx257; do
	image "lsmt/$set" "lsmt/$set/expected.raw" lsmt/$set/*.lsmt
done
image lsmt/empty lsmt/empty/expected.sha256 lsmt/empty/l0.lsmt
image lsmt/bigdiscard lsmt/bigdiscard/windows.txt lsmt/bigdiscard/l0.lsmt lsmt/bigdiscard/l1.lsmt
image ext4/mkfs ext4/mkfs.sha256 ext4/mkfs-l?.lsmt.tar

# The file systems as a user sees them: a copy through the LUN, mounted.
tree_matches() {
	local config=$1 manifest=$2 bytes=$3 copy
	copy=$(mktemp "$WORK/copy.XXXXXX") # a file of its own: earlier ones are still mounted
	new_lun 2 "$config" && "$ISCSI" copy -w "$copy" -l "$bytes" -b 256K "$(url 2)" && remove_lun 2 || return 1
	truncate -s "$4" "$copy"
	mount_image "$copy" || {
		echo "cannot loop-mount"
		return 1
	}
	"$TOOLS/golden-manifest.py" "$MOUNTED" "$manifest"
}

can_mount() {
	truncate -s 1M "$WORK/probe.raw" && mkfs.ext4 -qF "$WORK/probe.raw" >/dev/null 2>&1 && mount_image "$WORK/probe.raw"
}

if can_mount; then
	check "ext4/mkfs: every path" tree_matches "$WORK/ext4-mkfs-remote.json" ext4/mkfs.manifest.jsonl 1G 1G
	zstd -dq --rm ext4/base64g-l0-ext4_64.lsmt.zst
	remote_config "$WORK/base64g.json" golden/base64g -- ext4/base64g-l0-ext4_64.lsmt ext4/base64g-l?.lsmt.tar
	check "ext4/base64g: every path" tree_matches "$WORK/base64g.json" ext4/base64g.manifest.jsonl 2G 64G
else
	skip "the ext4 trees" "this machine cannot loop-mount"
fi

stop_tgtd
check "the group stops" stop_group
