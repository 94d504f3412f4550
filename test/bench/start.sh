#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What fetching ahead is worth on a link of 25 Mbit/s and 30 ms, with real mounts through user space (qemu-nbd, nbdfuse, loop):
#
#   1. a start: 150 reads of 16 KiB, one after the other, all over the device: as recorded, with and without their trace
#   2. a program's start (Debian's python3 with many modules, in a chroot on the image): the same
#   3. find / on an image of 5,000 files: with the file system's metadata fetched first, and without
#
# What a trace can gain is bounded: a start without one takes its round trips and its bytes, with one its bytes. The first is mostly
# round trips, the second half of each, since the kernel's readahead makes large reads of a program's files.
#
# Timed is from the launch of the LUN to the end of the command, attaching and mounting included, and for comparison the command
# alone. Each run has a fresh group, and the machine's own page cache holds nothing of the image (other loop device, other file).
# Numbers never fail this script; errors do.   BENCH_ROUNDS (3), BENCH_ONLY (reads program find)
. "$(dirname "$0")/../integration/lib.sh"

ROUNDS=${BENCH_ROUNDS:-3}
ONLY=${BENCH_ONLY:-reads program find}
DIR=$TOP/build/test/start-image
RESULTS=$WORK/results
FILES=5000
MODULES=argparse,asyncio,concurrent.futures,csv,ctypes,decimal,difflib,email.mime.multipart,ftplib,hashlib,html.parser,http.server,imaplib,json
MODULES=$MODULES,logging.config,mailbox,multiprocessing,optparse,pdb,pickle,plistlib,pydoc,sqlite3,ssl,statistics,tarfile,telnetlib,tempfile
MODULES=$MODULES,unittest.mock,urllib.request,uuid,xml.dom.minidom,xmlrpc.client,zipfile

die() {
	echo "bench: $1" >&2
	FAILED=1
	exit 1
}

# libraries FILE...: what they load, and the files themselves
libraries() { ldd "$@" 2>/dev/null | grep -o '/[^ :]*' | sort -u; }

# A root file system of python, what it needs, and other files of this machine: FILES files and about 180 MB of data.
make_image() {
	local tree=$DIR/tree
	[ -e "$DIR/done" ] && return
	rm -rf "$DIR"
	mkdir -p "$tree/tmp" "$tree/usr/bin" "$tree/usr/lib" "$tree/usr/lib64"
	[ -L /lib ] && cp -a /lib /lib64 /bin "$tree/"
	{
		find /usr/bin/python3* /usr/lib/python3.*/ -xdev -type f,l ! -path '*/test/*' ! -path '*-packages/*'
		libraries /usr/bin/python3 /usr/lib/python3.*/lib-dynload/*.so
		libraries /usr/bin/python3 /usr/lib/python3.*/lib-dynload/*.so | xargs readlink -f
	} >"$DIR/needed"
	{ find /usr/lib/python3 /usr/share/perl /etc /usr/lib/x86_64-linux-gnu /usr/bin /usr/sbin -xdev -type f -readable -size -3M || :; } |
		shuf --random-source=/usr/bin/python3 | grep -vxFf "$DIR/needed" >"$DIR/others"
	tar -cPf - -T "$DIR/needed" 2>/dev/null | tar -xf - -C "$tree" 2>/dev/null
	find "$tree" -type f | wc -l >"$DIR/count"
	xargs -a "$DIR/others" -d '\n' stat -c '%s %n' | awk -v n=$((FILES - $(cat "$DIR/count"))) -v bytes=$((130 << 20)) '
		i < n && (sum + $1 < bytes * (i + 1) / n || $1 < 8192) { i++; sum += $1; sub(/^[0-9]+ /, ""); print }' >"$DIR/list"
	tar -cPf - -T "$DIR/list" 2>/dev/null | tar -xf - -C "$tree" 2>/dev/null
	truncate -s 320M "$DIR/image.raw"
	mkfs.ext4 -q -F -O ^has_journal -b 4096 -d "$tree" "$DIR/image.raw" || return 1
	"$MKLAYER" --base "$DIR/image.raw" "$DIR/image.tar" || return 1
	echo "$(find "$tree" -type f | wc -l) files, $(find "$tree" -type d | wc -l) directories, $(du -sm "$tree" | cut -f1) MB" >"$DIR/what"
	rm -rf "$tree" "$DIR/image.raw"
	touch "$DIR/done"
}

start_server() {
	mkdir -p "$BLOB_ROOT"
	"$B/test/obd-blobserve" -l 30 -b 3125000 -p "$WORK/blobs.port" "$BLOB_ROOT" >>"$WORK/blobserver.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	wait_for 10 test -s "$WORK/blobs.port" || die "obd-blobserve does not start"
	BLOBS=http://127.0.0.1:$(cat "$WORK/blobs.port")
}

sent() { curl -sS --fail "$BLOBS/stats" | python3 -c 'import json, sys; print(json.load(sys.stdin)["bytes"])'; }

program() { chroot "$MOUNTED" /usr/bin/python3 -I -S -W ignore -c "import $MODULES; print('started')" | grep -qx started; }
walk() { [ "$(find "$MOUNTED" -xdev -type f | wc -l)" -ge $((FILES - 200)) ]; }

# 150 reads where the data is
scattered() { "$ISCSI" randread -b 16K -q 1 -n 150 -S 5 -l 180M "$(url 1)" >/dev/null; }

# run NAME COMMAND CONFIG: notes NAME_total and NAME_alone in ms, and NAME_mb
run() {
	local name=$1 command=$2 config=$3 begun mounted before ended
	stop_tgtd
	stop_group >/dev/null
	start_group || die "the group does not start"
	start_tgtd
	before=$(sent)
	begun=$(now_ms)
	new_lun 1 "$config" >/dev/null || die "no LUN"
	"$ISCSI" wait-ready "$(url 1)" || die "not ready"
	[ "$command" = scattered ] || mount_lun 1 ro noload || die "it cannot be mounted: $(tail -n 1 "$WORK/mount.log")"
	mounted=$(now_ms)
	$command || die "$command failed"
	ended=$(now_ms)
	echo "${name}_total $((ended - begun))
${name}_alone $((ended - mounted))
${name}_mb $((($(sent) - before) / 1000))" >>"$RESULTS"
	grep -h prefetched "$WORK/group.log" | tail -n 1 | sed "s/.*: prefetched/    $name: prefetched/"
	[ "$command" = scattered ] || unmount_lun || die "it cannot be unmounted"
}

# show NAME UNIT TEXT DIVISOR
show() {
	grep -q "^$1 " "$RESULTS" || return 0
	awk -v n="$1" -v d="$4" '$1 == n { print $2 / d }' "$RESULTS" | sort -n | awk -v t="$3" -v u="$2" '
		{ v[NR] = $1 } END { printf "%-58s %8.2f %-3s (%.2f ... %.2f)\n", t, v[int((NR + 1) / 2)], u, v[1], v[NR] }'
}

# ratio A B TEXT: round by round
ratio() {
	grep -q "^$1 " "$RESULTS" || return 0
	paste -d' ' <(awk -v n="$1" '$1 == n { print $2 }' "$RESULTS") <(awk -v n="$2" '$1 == n { print $2 }' "$RESULTS") |
		awk '{ print $1 / $2 }' | sort -n | awk -v t="$3" '
		{ v[NR] = $1 } END { printf "%-58s %8.2f x   (%.2f ... %.2f), goal 3\n", t, v[int((NR + 1) / 2)], v[1], v[NR] }'
}

need_root
can_mount_luns || die "needs /dev/fuse, loop devices, qemu-nbd and nbdfuse"
make_image || die "the image cannot be made"
start_server
for name in plain traced reads; do
	python3 "$TOOLS/ocipush.py" store "$BLOB_ROOT" "$DIR/image.tar" |
		python3 "$TOOLS/ocipush.py" write-config "$WORK/$name.json" --from - --repo-blob-url "$BLOBS/v2/bench/blobs" \
			--result "$WORK/$name.result" || die "ocipush.py"
done
sed -i "s|^{|{\"recordTracePath\": \"$WORK/trace\",|" "$WORK/traced.json"
sed -i "s|^{|{\"recordTracePath\": \"$WORK/trace2\",|" "$WORK/reads.json"

# record COMMAND CONFIG TRACE
record() {
	: >"$3"
	run recorded "$1" "$2"
	rm -f "$3.lock"
	wait_for 20 test -e "$3.ok" || die "there is no trace"
}
wanted() { [[ " $ONLY " == *" $1 "* ]]; }

export OBD_METADATA_FIRST=0
wanted program && record program "$WORK/traced.json" "$WORK/trace"
wanted reads && record scattered "$WORK/reads.json" "$WORK/trace2"
for ((round = 1; round <= ROUNDS; round++)); do
	export OBD_METADATA_FIRST=0
	wanted reads && run cold scattered "$WORK/plain.json" && run replayed scattered "$WORK/reads.json"
	wanted program && run without program "$WORK/plain.json" && run with program "$WORK/traced.json"
	wanted find && run unfed walk "$WORK/plain.json"
	export OBD_METADATA_FIRST=1
	wanted find && run fed walk "$WORK/plain.json"
	wanted program && run both program "$WORK/plain.json"
done

echo "$(cat "$DIR/what"); $(nproc) processors; $ROUNDS rounds"
show cold_total s "150 reads, nothing ahead: from the launch" 1000
show replayed_total s "150 reads, their trace replayed: from the launch" 1000
ratio cold_total replayed_total "  ratio"
show cold_alone s "150 reads, nothing ahead: the reads alone" 1000
show replayed_alone s "150 reads, their trace replayed: the reads alone" 1000
ratio cold_alone replayed_alone "  ratio"
show cold_mb MB "sent without" 1000
show replayed_mb MB "sent with the trace" 1000
show without_total s "start, nothing ahead: from the launch" 1000
show with_total s "start, its trace replayed: from the launch" 1000
ratio without_total with_total "  ratio"
show without_alone s "start, nothing ahead: the command alone" 1000
show with_alone s "start, its trace replayed: the command alone" 1000
ratio without_alone with_alone "  ratio"
show both_total s "start, no trace, metadata first: from the launch" 1000
show without_mb MB "sent without" 1000
show with_mb MB "sent with the trace" 1000
show unfed_total s "find, nothing ahead: from the launch" 1000
show fed_total s "find, metadata first: from the launch" 1000
ratio unfed_total fed_total "  ratio"
show unfed_alone s "find, nothing ahead: the command alone" 1000
show fed_alone s "find, metadata first: the command alone" 1000
ratio unfed_alone fed_alone "  ratio"
show unfed_mb MB "sent without" 1000
show fed_mb MB "sent with metadata first" 1000
