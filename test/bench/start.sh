#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What fetching ahead is worth on a link of 25 Mbit/s and 30 ms, with real mounts through user space (qemu-nbd, nbdfuse, loop):
#
#   1. a start: 150 reads of 16 KiB, one after the other, all over the device: as recorded, with and without their trace
#   2. the start of a service by a shell script, as containers begin: 30 small programs in a chroot on the image, perl with some
#      modules, and the files of /etc: the same
#   3. the start of a large program, Debian's python3 with 36 modules, in a chroot on the image: the same
#   4. find / on an image of 5,000 files: with the file system's metadata fetched first, and without
#
# What a trace can gain is bounded: a start without one takes its round trips and its bytes, with one its bytes at least. So beside
# each ratio stands what it would be if the link did nothing but carry the bytes that were sent with the trace, from the launch on
# and without a pause. The third start is mostly bytes, since the kernel's readahead makes large reads of large files.
#
# Timed is from the launch of the LUN to the end of the command, attaching and mounting included, and for comparison the command
# alone. Each run has a fresh group, and the machine's own page cache holds nothing of the image (other loop device, other file).
# Numbers never fail this script; errors do.   BENCH_ROUNDS (3), BENCH_ONLY (reads script program find)
. "$(dirname "$0")/../integration/lib.sh"

ROUNDS=${BENCH_ROUNDS:-3}
ONLY=${BENCH_ONLY:-reads script program find}
DIR=$TOP/build/test/start-image
RESULTS=$WORK/results
FILES=5000
LINK=3125000 # bytes per second
SCRIPT="id uname date hostname cat ls grep sed awk sort cut tr head tail wc find xargs dirname basename stat env expr tee uniq sha256sum"
SCRIPT="$SCRIPT md5sum gzip tar mktemp readlink"
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

# What the script's programs are made of.
script_files() {
	local p
	for p in sh perl $SCRIPT; do
		p=$(command -v "$p") && echo "$p" && readlink -f "$p" && libraries "$(readlink -f "$p")"
	done | while read -r p; do echo "$p" && readlink -f "$p"; done
	find /usr/lib/x86_64-linux-gnu/perl-base -type f
	find /etc -maxdepth 2 -xdev -type f -readable -size -256k
	echo /etc/alternatives/awk
}

# A root file system of python, what it needs, and other files of this machine: FILES files and about 180 MB of data.
make_image() {
	local tree=$DIR/tree
	[ -e "$DIR/made-2" ] && return
	rm -rf "$DIR"
	mkdir -p "$tree/tmp" "$tree/dev" "$tree/usr/bin" "$tree/usr/lib" "$tree/usr/lib64"
	mknod "$tree/dev/null" c 1 3
	[ -L /lib ] && cp -a /lib /lib64 /bin "$tree/"
	{
		find /usr/bin/python3* /usr/lib/python3.*/ -xdev -type f,l ! -path '*/test/*' ! -path '*-packages/*'
		script_files
		libraries /usr/bin/python3 /usr/lib/python3.*/lib-dynload/*.so
		libraries /usr/bin/python3 /usr/lib/python3.*/lib-dynload/*.so | xargs readlink -f
	} | sort -u >"$DIR/needed"
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
	touch "$DIR/made-2"
}

start_server() {
	mkdir -p "$BLOB_ROOT"
	"$B/test/obd-blobserve" -l 30 -b $LINK -p "$WORK/blobs.port" "$BLOB_ROOT" >>"$WORK/blobserver.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	wait_for 10 test -s "$WORK/blobs.port" || die "obd-blobserve does not start"
	BLOBS=http://127.0.0.1:$(cat "$WORK/blobs.port")
}

sent() { curl -sS --fail "$BLOBS/stats" | python3 -c 'import json, sys; print(json.load(sys.stdin)["bytes"])'; }

program() { chroot "$MOUNTED" /usr/bin/python3 -I -S -W ignore -c "import $MODULES; print('started')" | grep -qx started; }
script() {
	chroot "$MOUNTED" /bin/sh -c "for p in $SCRIPT; do \$p --version; done >/dev/null 2>&1
		cat /etc/*.conf /etc/default/* /etc/pam.d/* /etc/security/* >/dev/null 2>&1
		perl -MPOSIX -MFile::Spec -MIO::Socket -MFile::Temp -e 'print \"started\n\"'" | grep -qx started
}
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

# bound A B TEXT: what the ratio were if B took no more than its bytes take on the link
bound() {
	grep -q "^$1_total " "$RESULTS" || return 0
	awk -v a="$1_total" -v b="$2_mb" -v link=$LINK -v t="$3" '$1 == a { x += $2; n++ } $1 == b { y += $2; m++ }
		END { printf "%-58s %8.2f x   (%.2f s for the bytes)\n", t, x / n / (y / m * 1e6 / link), y / m * 1e3 / link }' "$RESULTS"
}

# pair WITHOUT WITH NAME AHEAD
pair() {
	show "$1_total" s "$3, nothing ahead: from the launch" 1000
	show "$2_total" s "$3, $4: from the launch" 1000
	ratio "$1_total" "$2_total" "  ratio"
	bound "$1" "$2" "  a perfect prefetcher"
	show "$1_alone" s "$3, nothing ahead: the command alone" 1000
	show "$2_alone" s "$3, $4: the command alone" 1000
	ratio "$1_alone" "$2_alone" "  ratio"
	show "$1_mb" MB "  sent without" 1000
	show "$2_mb" MB "  sent with" 1000
}

need_root
can_mount_luns || die "needs /dev/fuse, loop devices, qemu-nbd and nbdfuse"
make_image || die "the image cannot be made"
start_server
for name in plain traced reads scripted; do
	python3 "$TOOLS/ocipush.py" store "$BLOB_ROOT" "$DIR/image.tar" |
		python3 "$TOOLS/ocipush.py" write-config "$WORK/$name.json" --from - --repo-blob-url "$BLOBS/v2/bench/blobs" \
			--result "$WORK/$name.result" || die "ocipush.py"
done
sed -i "s|^{|{\"recordTracePath\": \"$WORK/trace\",|" "$WORK/traced.json"
sed -i "s|^{|{\"recordTracePath\": \"$WORK/trace2\",|" "$WORK/reads.json"
sed -i "s|^{|{\"recordTracePath\": \"$WORK/trace3\",|" "$WORK/scripted.json"

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
wanted script && record script "$WORK/scripted.json" "$WORK/trace3"
for ((round = 1; round <= ROUNDS; round++)); do
	export OBD_METADATA_FIRST=0
	wanted reads && run cold scattered "$WORK/plain.json" && run replayed scattered "$WORK/reads.json"
	wanted script && run bare script "$WORK/plain.json" && run ahead script "$WORK/scripted.json"
	wanted program && run without program "$WORK/plain.json" && run with program "$WORK/traced.json"
	wanted find && run unfed walk "$WORK/plain.json"
	export OBD_METADATA_FIRST=1
	wanted find && run fed walk "$WORK/plain.json"
	wanted program && run both program "$WORK/plain.json"
done

echo "$(cat "$DIR/what"); $(nproc) processors; $ROUNDS rounds"
pair cold replayed "150 reads" "their trace replayed"
pair bare ahead "a script's start" "its trace replayed"
pair without with "python's start" "its trace replayed"
show both_total s "python's start, no trace, metadata first: from the launch" 1000
pair unfed fed "find" "metadata first"
