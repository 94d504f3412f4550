#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd-create and overlaybd-resize: new writable layers, file systems in them, other sizes. No group.
. "$(dirname "$0")/lib.sh"

BIN=$B/bin
cd "$WORK" || exit
create() { "$BIN/overlaybd-create" "$@"; }
commit() { "$BIN/overlaybd-commit" "$@"; }

# size_is BYTES FILE [INDEX]
size_is() { "$BIN/overlaybd-info" --json "${@:2}" | grep -q "\"virtual_size\": $1,"; }

uuid=00000051-0000-4000-8000-000000000051
check "append-only" create --uuid $uuid data index 2M
check "the data file is the reference's" sh -c 'head -c 4096 data | sha256sum | grep -q ^"$0"' \
	"$(head -c 4096 <("$BIN/overlaybd-zfile" -x "$TOP/test/data/golden/lsmt/single/sealed.lsmt.z" -) | sha256sum | cut -c1-64)"
check "the index file is the reference's" cmp index <(head -c 4096 "$TOP/test/data/golden/lsmt/single/rw.index")
check "sizes count gigabytes" create g gi 3
check "3 GiB" size_is 3221225472 g gi
check "sizes in bytes" create --bytes b bi 1049088
check "1049088" size_is 1049088 b bi
check "a parent" create -u $uuid p pi 1
check "stands in the layer" sh -c '"$0" p pi | grep -q "parent_uuid.*'$uuid'"' "$BIN/overlaybd-info"
check "sparse, two names" create -s s 64
check "sparse, three names" create -s s2 si 64
check "the index stays empty" sh -c '[ -e si ] && [ ! -s si ]'
check "it takes no room" sh -c '[ "$(du -k s | cut -f1)" -lt 64 ]'
check "size of the sparse one" size_is 68719476736 s

check_fails "existing files are kept" create data index 2M
check_fails "an existing index too" create fresh index 2M
check "without a data file beside it" test ! -e fresh
for bad in 0 -1 1X 100B '' 99999999999T; do
	check_fails "size '$bad'" create n ni "$bad"
done
check_fails "a bad parent" create -u 12 n ni 1
check_fails "no index" create n 1
check "nothing was made" sh -c '[ ! -e n ] && [ ! -e ni ]'

# ---- file systems -------------------------------------------------------------------------------------------------------

if command -v mke2fs >/dev/null || [ -x /sbin/mke2fs ]; then
	PATH=$PATH:/usr/sbin:/sbin
	check "a file system, append-only" create --mkfs --uuid $uuid fd fx 1
	check "again" create --mkfs --uuid $uuid fd2 fx2 1
	check "gives the same bytes" sh -c 'cmp fd fd2 && cmp fx fx2'
	check "a file system, sparse" create -s --mkfs --uuid $uuid fs 1
	check "a file system, raw" create --raw --mkfs fraw 1
	check "e2fsck finds it clean" e2fsck -fn fraw
	check "of 1 GiB" sh -c '[ "$(stat -c %s fraw)" = 1073741824 ]'
	check "commit of the append-only one" commit fd fx fl
	check "commit of the sparse one" commit fs fsl
	"$MKLAYER" --base fraw fml --no-zfile --no-tar
	check "both hold what the raw one does" sh -c 'cmp fl fsl && cmp fl fml'
	check "large devices cost little" create --mkfs hd hi 1024
	check "64 MiB at most" sh -c '[ "$(du -m hd | cut -f1)" -lt 64 ]'
	check_fails "no room for a file system" create --mkfs tiny tinyi 512B
	check "nothing is left of it" sh -c '[ ! -e tiny ] && [ ! -e tinyi ]'
	check "its own uuid" create --raw --mkfs --mkfs-uuid $uuid fu 1
	check "stands in it" sh -c 'dumpe2fs -h fu 2>&1 | grep -q '$uuid
else
	skip "file systems" "mke2fs is not installed"
fi

# ---- resize -------------------------------------------------------------------------------------------------------------

config() { printf '{"lowers": [], "upper": {"data": "%s", "index": "%s"}}' "$WORK/$1" "$2" >"$1.json"; }
resize() { "$BIN/overlaybd-resize" "$@"; }
config data "$WORK/index"
config s ''
check "grow" resize --config data.json --size 5
check "to 5 GiB" size_is 5368709120 data index
check "the index file says so too" size_is 5368709120 index
check_fails "less needs a word" resize --config data.json --size 1M
check "with it" resize --config data.json --size 1M --shrink
check "1 MiB" size_is 1048576 data index
check "a sparse one" resize --config s.json --size 65
check "65 GiB" size_is 69793218560 s
if [ -e fd ]; then
	config fd "$WORK/fx"
	check_fails "not below its data" resize --config fd.json --size 1M --shrink
	check "its size is as it was" size_is 1073741824 fd fx
fi
check_fails "no upper" resize --config /dev/null --size 1
check_fails "no size" resize --config data.json
flock data sleep 3 &
sleep 0.3
check_fails "a layer in use" resize --config data.json --size 7
kill $! 2>/dev/null
