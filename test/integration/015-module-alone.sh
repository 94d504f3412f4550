#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The tgt module over a fake client library (test/tgt/fake_client.c): its states, sense data, aborts and removals in the
# distribution's tgtd, without a process group.
. "$(dirname "$0")/lib.sh"

SCSI=$B/test/obd-scsi
BUILT=$B
# A build directory of its own, whose name still tells lib.sh about sanitizers.
B=$WORK/$(basename "$BUILT")
mkdir -p "$B/lib"
cp "$BUILT/test/tgt/bs_overlaybd.so" "$B/lib/" || bail "no module over the fake client: make test-tools"

head -c 8M /dev/urandom >"$WORK/a.raw"
# fake NAME WORD...: an "image config" for the fake client; the raw file is a.raw.
fake() { echo "raw=$WORK/a.raw ${*:2}" >"$WORK/$1"; }
# answers LUN WANTED obd-scsi's arguments...: the first line of its answer begins with WANTED.
answers() {
	local lun=$1 wanted=$2 got
	shift 2
	got=$("$SCSI" "${@:1:$#-1}" "$(url "$lun")" "${@: -1}" 2>&1) || { echo "$got"; return 1; }
	case $got in "$wanted"*) ;; *)
		echo "got: $got; wanted: $wanted"
		return 1
		;;
	esac
}
exported() { [ "$(nm -D --defined-only "$1" | awk '{print $3}')" = register_bs_module ]; }
log_has() { grep -q "$1" "$WORK/tgtd.log"; }

TUR=000000000000
SENSE=030000001200
INQUIRY=120000002400
READCAP10=25000000000000000000
READCAP16=9e100000000000000000000000200000
READ1=28000000000000000100
SYNC=35000000000000000000
WRITE1=2a000000000000000100
LUNS=a00000000000000000400000

check "the module exports one symbol" exported "$B/lib/bs_overlaybd.so"
if [ -e "$BUILT/lib/bs_overlaybd.so" ]; then
	check "and so does the real one" exported "$BUILT/lib/bs_overlaybd.so"
fi
start_tgtd

# ---- ready at once, every read a hit
fake hit
check "a LUN is created" new_lun 1 "$WORK/hit"
check "it is ready" answers 1 good $TUR
check "all bytes" verify_lun 1 "$WORK/a.raw" -b 64K -q 8
check "in pieces of 512 bytes" verify_lun 1 "$WORK/a.raw" -l 1M -b 512 -R
check "READ with a larger buffer says so" answers 1 "good resid 512" -i 1024 $READ1
check "READ with a smaller buffer says so" answers 1 "good resid -256" -i 256 $READ1
check "READ beyond the end" answers 1 "check 05/21/00" -i 512 280000004000000001000
check "SYNCHRONIZE CACHE" answers 1 good $SYNC
head -c 512 "$WORK/a.raw" >"$WORK/block0"
tail -c 512 "$WORK/a.raw" >"$WORK/block9"
check "WRITE is refused" answers 1 "check 07/27/00" -o "$WORK/block0" $WRITE1
check "VERIFY with the right bytes" answers 1 good -o "$WORK/block0" 2f020000000000000100
check "VERIFY with other bytes" answers 1 "check 0e/1d/00" -o "$WORK/block9" 2f020000000000000100
check "VERIFY of one block against many is refused" answers 1 "check 05/24/00" -o "$WORK/block0" 2f060000000000000100
adm --mode logicalunit --op update --tid 1 --lun 1 --params readonly=0
check "WRITE is refused even when the attribute is cleared" answers 1 "check 07/27/00" -o "$WORK/block0" $WRITE1
check "UNMAP is refused on a read-only LUN" eval 'adm --mode logicalunit --op update --tid 1 --lun 1 --params thin_provisioning=1 &&
	printf "\0\26\0\20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0" >"$WORK/unmap" &&
	answers 1 "check 07/27/00" -o "$WORK/unmap" 42000000000000001800'

# ---- a writable LUN: w.raw is what the fake client writes to
# blocks N FILE: N blocks of random bytes
blocks() { head -c $((512 * $1)) /dev/urandom >"$2"; }
# bytes HEX: as bytes
bytes() {
	local i
	for ((i = 0; i < ${#1}; i += 2)); do printf '%b' "\\x${1:i:2}"; done
}
# same OFFSET FILE: w.raw has the file's bytes at this block
same() { cmp <(tail -c +$(($1 * 512 + 1)) "$WORK/w.raw" | head -c "$(stat -c %s "$2")") "$2"; }
# old FIRST COUNT: w.raw still has a.raw's bytes there
old() { cmp <(tail -c +$(($1 * 512 + 1)) "$WORK/w.raw" | head -c $(($2 * 512))) <(tail -c +$(($1 * 512 + 1)) "$WORK/a.raw" | head -c $(($2 * 512))); }
zeros() { # FIRST COUNT
	cmp <(tail -c +$(($1 * 512 + 1)) "$WORK/w.raw" | head -c $(($2 * 512))) <(head -c $(($2 * 512)) /dev/zero)
}
# put LUN WANTED FILE CDB
put() { answers "$1" "$2" -o "$3" "$4"; }
# unmap_list FILE LBA COUNT [LBA COUNT]...: an UNMAP parameter list
unmap_list() {
	local file=$1 n
	shift
	n=$(($# * 8))
	{
		bytes "$(printf '%04x%04x00000000' $((n + 6)) $n)"
		while [ $# -ge 2 ]; do
			bytes "$(printf '%016x%08x00000000' "$1" "$2")"
			shift 2
		done
	} >"$file"
}
cp "$WORK/a.raw" "$WORK/w.raw"
echo "raw=$WORK/w.raw rw=1 delay_ms=1 mix=2" >"$WORK/rw"
check "a writable LUN is created" new_lun 20 "$WORK/rw"
blocks 1 "$WORK/one"
blocks 8 "$WORK/eight"
check "MODE SENSE: not write-protected, DPOFUA" answers 20 "good resid 157 610010" -i 255 1a083f00ff00
check "READ CAPACITY(16): provisioned thinly, zeros after UNMAP" answers 20 "good 0000000000003fff000002000003c000" -i 32 $READCAP16
check "VPD page B2: UNMAP, WRITE SAME, zeros" answers 20 "good resid 56 00b2000400e402" -i 64 1201b2004000
check "WRITE(10), read back" eval 'put 20 good "$WORK/one" $WRITE1 && same 0 "$WORK/one" &&
	answers 20 "good $(od -An -v -tx1 -N 32 "$WORK/one" | tr -d " \n")" -i 512 $READ1'
check "WRITE(6)" eval 'put 20 good "$WORK/one" 0a0000010100 && same 1 "$WORK/one"'
check "WRITE(12)" eval 'put 20 good "$WORK/eight" aa0000000010000000080000 && same 16 "$WORK/eight"'
check "WRITE(16) with FUA" eval 'put 20 good "$WORK/eight" 8a080000000000000020000000080000 && same 32 "$WORK/eight"'
check "WRITE past the end" put 20 "check 05/21/00" "$WORK/one" 2a000000400000000100
check "WRITE of less than is sent says so, and writes that much" eval 'put 20 "good resid 3584" "$WORK/eight" 2a000000004000000100 &&
	head -c 512 "$WORK/eight" >"$WORK/head" && same 64 "$WORK/head" && old 65 7'
check "WRITE of more than is sent says so" put 20 "good resid -3584" "$WORK/one" 2a000000004800000800
check "WRITE AND VERIFY(10), (12), (16)" eval 'put 20 good "$WORK/eight" 2e020000005000000800 && same 80 "$WORK/eight" &&
	put 20 good "$WORK/eight" ae0000000058000000080000 && same 88 "$WORK/eight" &&
	put 20 good "$WORK/eight" 8e020000000000000060000000080000 && same 96 "$WORK/eight"'
check "SYNCHRONIZE CACHE(10), (16), and at once" eval 'answers 20 good $SYNC && answers 20 good 35020000000000000000 &&
	answers 20 good 91000000000000000000000000000000'
check "VERIFY" eval 'put 20 good "$WORK/one" 2f020000000000000100 && put 20 "check 0e/1d/00" "$WORK/block9" 2f020000000000000100'
check "FORMAT UNIT does nothing" answers 20 good 040000000000

check "UNMAP of two extents" eval 'unmap_list "$WORK/list" 100 4 200 8 && put 20 good "$WORK/list" 42000000000000002800 &&
	zeros 100 4 && zeros 200 8 && old 104 96'
check "UNMAP of nothing" eval 'unmap_list "$WORK/list" && put 20 good "$WORK/list" 42000000000000000800 && answers 20 good 42000000000000000000'
check "UNMAP of no blocks" eval 'unmap_list "$WORK/list" 0 0 && put 20 good "$WORK/list" 42000000000000001800 && same 0 "$WORK/one"'
check "UNMAP past the end does nothing at all" eval 'unmap_list "$WORK/list" 0 1 16380 8 && put 20 "check 05/21/00" "$WORK/list" 42000000000000002800 &&
	same 0 "$WORK/one"'
check "UNMAP of a range that wraps around" eval 'unmap_list "$WORK/list" -1 2 && put 20 "check 05/21/00" "$WORK/list" 42000000000000001800'
check "UNMAP with half a header" eval 'head -c 4 /dev/zero >"$WORK/list" && put 20 "check 05/1a/00" "$WORK/list" 42000000000000000400'
check "UNMAP with ANCHOR is refused" eval 'unmap_list "$WORK/list" 0 1 && put 20 "check 05/24/00" "$WORK/list" 42010000000000001800'

check "WRITE SAME(10): a pattern" eval 'put 20 good "$WORK/one" 41000000012c00000a00 &&
	for _ in 1 2 3 4 5 6 7 8 9 10; do cat "$WORK/one"; done >"$WORK/ten" && same 300 "$WORK/ten" && old 310 10'
check "WRITE SAME(16): a pattern of 3 MiB" eval 'put 20 good "$WORK/one" 93000000000000000800000018000000 && same 2048 "$WORK/one" &&
	same 8191 "$WORK/one" && same 5000 "$WORK/one" && ! same 8192 "$WORK/one"'
head -c 512 /dev/zero >"$WORK/zero"
check "WRITE SAME: zeros" eval 'put 20 good "$WORK/zero" 410000000bb800000a00 && zeros 3000 10'
check "WRITE SAME with UNMAP" eval 'put 20 good "$WORK/zero" 410800000bc200000a00 && zeros 3010 10'
check "WRITE SAME with UNMAP does not look at its data" eval 'put 20 good "$WORK/one" 410800000bcc00000200 && zeros 3020 2'
check "WRITE SAME(16) without data" eval 'answers 20 good 93010000000000000bd60000000a0000 && zeros 3030 10'
check "WRITE SAME to the end" eval 'put 20 good "$WORK/one" 41000000300000000000 && same 12288 "$WORK/one" && same 16383 "$WORK/one"'
check "WRITE SAME with ANCHOR, LBDATA is refused" eval 'put 20 "check 05/24/00" "$WORK/one" 41180000000000000100 &&
	put 20 "check 05/24/00" "$WORK/one" 41020000000000000100'
check "WRITE SAME past the end" put 20 "check 05/21/00" "$WORK/one" 41000000400000000100

check "COMPARE AND WRITE" eval 'put 20 good "$WORK/one" 2a000000019000000100 && blocks 1 "$WORK/two" && cat "$WORK/one" "$WORK/two" >"$WORK/caw" &&
	put 20 good "$WORK/caw" 89000000000000000190000000010000 && same 400 "$WORK/two"'
check "COMPARE AND WRITE of something else" eval 'put 20 "check 0e/1d/00" "$WORK/caw" 89000000000000000190000000010000 && same 400 "$WORK/two"'
check "COMPARE AND WRITE with too little data" put 20 "check 05/24/00" "$WORK/one" 89000000000000000190000000010000
check "COMPARE AND WRITE of more than 128 blocks" eval 'blocks 258 "$WORK/caw" && put 20 "check 05/24/00" "$WORK/caw" 89000000000000000190000000810000'
check "ORWRITE" eval 'put 20 good "$WORK/one" 8b000000000000000190000000010000 &&
	python3 -c "import sys; a, b, c = (open(p, \"rb\").read() for p in sys.argv[1:4]); d = c[400 * 512:401 * 512]; sys.exit(bytes(x | y for x, y in zip(a, b)) != d)" \
		"$WORK/one" "$WORK/two" "$WORK/w.raw"'
adm --mode logicalunit --op update --tid 1 --lun 20 --params readonly=1
check "the administrator's read-only attribute is respected" put 20 "check 07/27/00" "$WORK/one" $WRITE1
adm --mode logicalunit --op update --tid 1 --lun 20 --params readonly=0,thin_provisioning=0
check "so is thin provisioning" eval 'unmap_list "$WORK/list" 0 1 && put 20 "check 05/20/00" "$WORK/list" 42000000000000001800'
check "remove it" remove_lun 20
for pair in 28:07/27/07 30:07/27/00 5:03/0c/00; do
	echo "raw=$WORK/w.raw rw=1 werrno=${pair%%:*}" >"$WORK/rw"
	check "a write that ends with errno ${pair%%:*}" eval 'new_lun 20 "$WORK/rw" && put 20 "check ${pair#*:}" "$WORK/one" $WRITE1 &&
		answers 20 good -i 512 $READ1; remove_lun 20'
done
echo "raw=$WORK/w.raw rw=1 delay_ms=1 hang=1" >"$WORK/rw"
check "ABORT TASK ends a write" eval 'new_lun 20 "$WORK/rw" && answers 20 "status 40" -o "$WORK/one" -a 100 $WRITE1'
check "and one that is held behind another" eval '("$SCSI" -o "$WORK/one" -t 2000 "$(url 20)" 8b000000000000000000000000010000 >/dev/null &
	sleep 0.5; answers 20 "status 40" -o "$WORK/one" -a 100 $WRITE1; rc=$?; wait $!; exit $rc)'
adm --mode logicalunit --op update --tid 1 --lun 20 --params online=0,path="$WORK/hit"
check "a path that is read-only makes the LUN so" eval 'adm --mode logicalunit --op update --tid 1 --lun 20 --params online=1;
	put 20 "check 07/27/00" "$WORK/one" $WRITE1 && answers 20 "good resid 157 610090" -i 255 1a083f00ff00 && remove_lun 20'
echo "raw=$WORK/w.raw rw=1 pending_ms=500" >"$WORK/rw"
check "a writable LUN that opens late" eval 'new_lun 20 "$WORK/rw" && put 20 "check 02/04/01" "$WORK/one" $WRITE1; "$ISCSI" wait-ready "$(url 20)" &&
	put 20 good "$WORK/one" $WRITE1 && same 0 "$WORK/one" && remove_lun 20'
echo "raw=$WORK/w.raw size=$((8 << 40)) rw=1" >"$WORK/rw"
check "WRITE SAME of 6 TiB of zeros" eval 'new_lun 20 "$WORK/rw" --blocksize 4096 && head -c 4096 /dev/zero >"$WORK/zero" &&
	put 20 good "$WORK/zero" 93000000000000000100600000000000 && remove_lun 20'

# ---- misses, and both at once
fake miss delay_ms=3
check "misses: all bytes" eval 'new_lun 2 "$WORK/miss" && verify_lun 2 "$WORK/a.raw" -b 64K -q 32 -R'
check "misses: VERIFY" eval 'answers 2 good -o "$WORK/block0" 2f020000000000000100 &&
	answers 2 "check 0e/1d/00" -o "$WORK/block9" 2f020000000000000100'
fake mixed delay_ms=2 mix=3
check "hits and misses: all bytes, four sessions" eval 'new_lun 3 "$WORK/mixed" && verify_lun 3 "$WORK/a.raw" -b 16K -q 8 -s 4 -R'
for e in 5 74 110; do
	fake bad delay_ms=1 errno=$e
	check "a read that ends with errno $e" eval "new_lun 4 '$WORK/bad' && answers 4 'check 03/11/00' -i 512 $READ1; remove_lun 4"
done

# ---- block sizes and sizes
fake huge size=$(((20 << 40) + 1000))
check "4096-byte blocks and 20 TiB" new_lun 5 "$WORK/huge" --blocksize 4096
check "READ CAPACITY(16) rounds down to whole blocks" answers 5 "good 000000013fffffff00001000" -i 32 $READCAP16
check "READ CAPACITY(10) has no such number" answers 5 "good ffffffff00001000" -i 8 $READCAP10
check "its bytes" verify_lun 5 "$WORK/a.raw" -l 8M -b 64K
check "READ(16) near the end" answers 5 "good 00000000" -i 4096 8800000000013fffffff000000010000
check "READ(16) past it" answers 5 "check 05/21/00" -i 4096 8800000000014000000000000000010000
fake tiny size=511
check_fails "an image smaller than a block is refused" new_lun 6 "$WORK/tiny"

# ---- opening takes its time
fake late pending_ms=1500
check "a LUN that is still opening is created" new_lun 6 "$WORK/late"
check "INQUIRY is answered" answers 6 "good 0000" -i 36 $INQUIRY
check "REPORT LUNS is answered" answers 6 good -i 1024 $LUNS
check "TEST UNIT READY: becoming ready" answers 6 "check 02/04/01" $TUR
check "REQUEST SENSE: becoming ready" answers 6 "good 7000020000" -i 18 $SENSE
check "READ CAPACITY: becoming ready" answers 6 "check 02/04/01" -i 32 $READCAP16
check "READ: becoming ready" answers 6 "check 02/04/01" -i 512 $READ1
check "other LUNs are served meanwhile" answers 1 good -i 512 $READ1
check "it gets ready" "$ISCSI" wait-ready "$(url 6)"
check "with its size and bytes" verify_lun 6 "$WORK/a.raw"
fake later pending_ms=1000
check "an initiator that waits through it reads all bytes" eval 'new_lun 7 "$WORK/later" &&
	verify_lun 7 "$WORK/a.raw" >"$WORK/out" && cat "$WORK/out" && grep -q "\"errors\":0" "$WORK/out" && remove_lun 7'
check "REQUEST SENSE has nothing to say now" answers 6 "good 7000000000" -i 18 $SENSE
fake never pending_ms=1000000
check "removal of a LUN that is still opening" eval 'new_lun 7 "$WORK/never" && answers 7 "check 02/04/01" $TUR && remove_lun 7'

# ---- failures
fake no fail=no_such_layer
check_fails "an open that fails at once fails tgtadm" new_lun 7 "$WORK/no"
check "with the reason in the log" log_has no_such_layer
check_fails "so does a missing config" new_lun 7 "$WORK/nothing-here"
fake late-no pending_ms=300 fail=registry_says_no
check "an open that fails later" eval 'new_lun 7 "$WORK/late-no" && wait_for 5 log_has registry_says_no'
check "hard error: manual intervention required" answers 7 "check 02/04/03" $TUR
check "READ: the same" answers 7 "check 02/04/03" -i 512 $READ1
check "INQUIRY is still answered" answers 7 "good 0000" -i 36 $INQUIRY
check "the failed LUN can be removed" remove_lun 7
fake break break_ms=400
check "a LUN that breaks while it is open" eval 'new_lun 7 "$WORK/break" && answers 7 good -i 512 $READ1 && wait_for 5 log_has "it broke" &&
	answers 7 "check 02/04/03" -i 512 $READ1 && remove_lun 7'
check_fails "no --bsopts" new_lun 7 "$WORK/hit" --bsopts x

# ---- reads that never end
fake hang delay_ms=1 hang=1
check "ABORT TASK ends a read within a second" eval 'new_lun 7 "$WORK/hang" && answers 7 "status 40" -i 512 -a 100 $READ1'
check "LOGICAL UNIT RESET too" answers 7 "status 40" -i 512 -r 100 $READ1
check_fails "a LUN with a read under way is not removed" eval '("$SCSI" -i 512 -t 1500 "$(url 7)" $READ1 >/dev/null & sleep 0.5; remove_lun 7; rc=$?; wait $!; exit $rc)'
check "a connection that goes away during a read" answers 7 closed -i 512 -x 100 $READ1
check "tgtd lives" answers 1 good -i 512 $READ1
# Taking the path away is what ends such reads from the administrator's side.
adm --mode logicalunit --op update --tid 1 --lun 7 --params online=0,path="$WORK/hit"
check "a new path ends them, and is served" answers 7 good -i 512 $READ1
check "then the LUN can be removed" remove_lun 7

# ---- removal under load
removal_under_load() {
	"$ISCSI" randread -t 3 -q 16 -b 4K -k "$(url 3)" >/dev/null 2>&1 &
	for _ in 1 2 3 4 5; do
		new_lun 8 "$WORK/mixed" || return 1
		answers 8 good -i 512 $READ1 || return 1
		wait_for 2 remove_lun 8 || return 1
	done
	remove_lun 3 # refused or not, as it happens
	wait $!
	wait_for 2 remove_lun 3 || ! adm --mode target --op show | grep -q "LUN: 3"
}
check "LUNs come and go under load" removal_under_load
check "tgtd has survived it all" answers 1 good -i 512 $READ1
check "all LUNs can be removed" eval '(for n in 1 2 5 6; do remove_lun $n || exit 1; done)'
check "and one created again" eval 'new_lun 1 "$WORK/hit" && verify_lun 1 "$WORK/a.raw"'
stop_tgtd

export OBD_FAKE_NO_GROUP=1
start_tgtd
check_fails "without a group the LUN is refused" new_lun 1 "$WORK/hit"
check "and the log says why" log_has "no group runs"
