#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd-zfile, overlaybd-merge, overlaybd-info: to and fro, and against the reference's files. No group.
. "$(dirname "$0")/lib.sh"

BIN=$B/bin
GOLD=$TOP/test/data/golden
cd "$WORK" || exit
zfile() { "$BIN/overlaybd-zfile" "$@"; }

check "decompress" zfile -x "$GOLD/zfile/lz4-64k.zfile" src
check "an old writer's gives the same" zfile -x "$GOLD/zfile/tgtera-lz4-4k.zfile" src2
check "compare" cmp src src2
check "compress as the reference did" zfile --bs 64 src z64
check "compare" cmp z64 "$GOLD/zfile/lz4-64k.zfile"
for algorithm in lz4 zstd; do
	for kb in 4 8 16 32 64; do
		check "$algorithm, $kb KiB" zfile -f --algorithm $algorithm --bs $kb --compress_threads $((kb % 5)) src z
		check "verify" zfile --verify z
		check "and back" sh -c '"$0" -x z - | cmp - src' "$BIN/overlaybd-zfile"
	done
done
check "wrapped" zfile -t src zt
check "tar sees one member" sh -c '[ "$(tar -tf zt)" = overlaybd.commit ]'
check "and back" sh -c '"$0" -x zt - | cmp - src' "$BIN/overlaybd-zfile"
check "standard input and output" sh -c '"$0" --bs 64 - - <src | cmp - z64' "$BIN/overlaybd-zfile"
check "a pipe into -x" sh -c 'cat zt | "$0" -x - - | cmp - src' "$BIN/overlaybd-zfile"
: >empty
check "nothing at all" zfile empty z0
check "is the reference's" cmp z0 "$GOLD/zfile/lz4-4k-empty.zfile"
check "and back" zfile -x z0 empty2
check "to nothing" test ! -s empty2

before=$(ls -A)
check_fails "an existing file is not replaced" zfile src z64
check_fails "not a ZFile" zfile -x src out
head -c 300000 z64 >short
check_fails "a cut ZFile" zfile -x short out
cp z64 flipped
printf '\377' | dd of=flipped bs=1 seek=250000 conv=notrunc status=none
check_fails "a damaged block" zfile --verify flipped
check_fails "does not become a file" zfile -x flipped out
rm -f short flipped
check_fails "a full device" zfile src /dev/full
check_fails "a full pipe" sh -c '"$0" src - >/dev/full' "$BIN/overlaybd-zfile"
check "nothing was left behind" test "$before" = "$(ls -A)"

# ---- merge --------------------------------------------------------------------------------------------------------------

layers=()
for i in 00 01 02 03 04 05 06 07 08 09 10 11; do
	zfile -x "$GOLD/lsmt/stack12/l$i.lsmt.z" l$i || bail "cannot unpack l$i"
	layers+=("{\"file\": \"$WORK/l$i\"}")
done
(
	IFS=,
	printf '{"repoBlobUrl": "", "lowers": [%s]}' "${layers[*]}" >image.json
)
merge() { "$BIN/overlaybd-merge" "$@"; }
is() { [ "$(sha256sum <"$1" | cut -c1-64)" = "$2" ]; }
check "merge twelve layers" merge --compress=0 image.json m0
check "as the reference did" is m0 bf79347599e78cf0fd8e454747d0d6c303f89c976e1c0e198c6d6e0c332e6639
check "compressed" merge image.json m1
check "as the reference did" is m1 9a35a6d39168b9d1882a61b3f723685d5fff7aa24ce427a49fbe0b5665bb7e11
check "wrapped" merge -t --digest image.json m2
check "inside is the same" sh -c 'tar -xOf m2 | cmp - m1'
check_fails "no such layer" sh -c 'sed s/l07/l77/ image.json >bad.json && "$0" bad.json m3' "$BIN/overlaybd-merge"
check "leaves nothing" test ! -e m3

# ---- info ---------------------------------------------------------------------------------------------------------------

info() { "$BIN/overlaybd-info" "$@"; }
says() {
	info --json "${@:2}" >info.json || return
	python3 -c "import json; o = json.load(open('info.json')); assert ($1), o"
}
check "a blob" says "o['tar']['payload_offset'] == 1536 and o['zfile']['block_bytes'] == 4096 and
	o['lsmt']['uuid'] == '00000053-0000-4000-8000-000000000053' and o['lsmt']['segments'] == 9" "$GOLD/tar/commit-z-t.tar"
check "a layer without wrapping" says "'tar' not in o and 'zfile' not in o and o['lsmt']['virtual_size'] == 2097152" m0
check "a ZFile of something else" says "'lsmt' not in o and o['zfile']['original_bytes'] == 1500007" z64
check "an index file" says "o['lsmt']['records'] == 11" "$GOLD/lsmt/single/rw.index"
check "as text" sh -c '"$0" m1 | grep -q "algorithm *lz4"' "$BIN/overlaybd-info"
check_fails "something else" info src
check_fails "nothing" info nowhere
