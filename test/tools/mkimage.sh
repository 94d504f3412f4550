#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Makes a small real image out of this machine's own files, without network or mounts: an ext4 file system that grows
# in four steps, and a layer for each.
#
#   mkimage.sh DIR MKLAYER     DIR/step0.raw … step3.raw, DIR/layer0.tar … layer3.tar; does nothing when they are there
#
# Layers differ in form on purpose: lz4 and zstd, 4 and 64 KiB blocks, one uncompressed.
set -euo pipefail
dir=$1 mklayer=$2
image_mb=192
[ -e "$dir/done" ] && exit 0
rm -rf "$dir"
mkdir -p "$dir"

# take TREE MEGABYTES PATH...: copies regular files below the paths, in the order of their names, up to that sum.
take() {
	local tree=$1 limit=$(($2 * 1024 * 1024))
	shift 2
	{ find "$@" -xdev -type f -readable -size -16M -printf '%s %p\n' 2>/dev/null || :; } | grep -v '["\\]' | LC_ALL=C sort -k2 |
		awk -v limit="$limit" '(sum += $1) <= limit { sub(/^[0-9]+ /, ""); print }' >"$dir/list"
	tar -cPf - -T "$dir/list" | tar -xf - -C "$tree" 2>/dev/null
}

# add RAW TREE: puts the files of TREE into the file system in RAW.
add() {
	local raw=$1 tree=$2
	{
		(cd "$tree" && find . -mindepth 1 -type d | LC_ALL=C sort | sed 's/^\.\(.*\)/mkdir "\1"/')
		(cd "$tree" && find . -type f | LC_ALL=C sort | sed "s|^\.\(.*\)|write \"$tree\1\" \"\1\"|")
	} >"$dir/commands"
	debugfs -w -f "$dir/commands" "$raw" >"$dir/debugfs.log" 2>&1
}

export E2FSPROGS_FAKE_TIME=1700000000
tree=$dir/tree
mkdir -p "$tree"
take "$tree" 40 /usr/bin
truncate -s ${image_mb}M "$dir/step0.raw"
mkfs.ext4 -q -F -U 5d6f6a3c-0b1e-4c53-9a43-2b1d3c4e5f60 -E hash_seed=5d6f6a3c-0b1e-4c53-9a43-2b1d3c4e5f61,lazy_itable_init=0 \
	-O ^has_journal -b 4096 -d "$tree" "$dir/step0.raw"

step() { # N MEGABYTES PATH...: step N out of the one before
	local n=$1
	cp --sparse=always "$dir/step$((n - 1)).raw" "$dir/step$n.raw"
	rm -rf "$tree"
	mkdir -p "$tree"
	take "$tree" "${@:2}"
	add "$dir/step$n.raw" "$tree"
}
step 1 12 /usr/share/doc
step 2 16 /usr/lib/python3 /usr/share/perl
step 3 4 /etc

# The last step also removes a file that a lower layer holds.
victim=$(debugfs -R 'ls -p /usr/bin' "$dir/step3.raw" 2>/dev/null | awk -F/ '$6 ~ /^[a-z]/ { print $6; exit }')
debugfs -w -R "rm /usr/bin/$victim" "$dir/step3.raw" >>"$dir/debugfs.log" 2>&1

"$mklayer" --base "$dir/step0.raw" "$dir/layer0.tar" --algorithm lz4 --bs 4
"$mklayer" --diff "$dir/step0.raw" "$dir/step1.raw" "$dir/layer1.tar" --algorithm zstd --bs 64
"$mklayer" --diff "$dir/step1.raw" "$dir/step2.raw" "$dir/layer2.tar" --no-zfile
"$mklayer" --diff "$dir/step2.raw" "$dir/step3.raw" "$dir/layer3.tar" --algorithm lz4 --bs 64
rm -rf "$tree" "$dir/commands" "$dir/list"
touch "$dir/done"
