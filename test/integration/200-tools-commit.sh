#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd-commit: every form of a committed layer, byte for byte what the reference made of the same files. No group.
. "$(dirname "$0")/lib.sh"

BIN=$B/bin
GOLD=$TOP/test/data/golden
cd "$WORK" || exit

is() { [ "$(sha256sum <"$1")" = "$2  -" ]; }

"$BIN/overlaybd-zfile" -x "$GOLD/lsmt/single/sealed.lsmt.z" sealed || bail "cannot unpack the golden layer"
head -c 382976 sealed >data
cp "$GOLD/lsmt/single/rw.index" index
cp data data.before
commit() { "$BIN/overlaybd-commit" "$@"; }
uuid53=(--uuid 00000053-0000-4000-8000-000000000053)

check "a plain layer is made" commit -m "golden single" --uuid 00000052-0000-4000-8000-000000000052 \
	-p 00000050-0000-4000-8000-000000000050 data index plain
check "it is the reference's" is plain ab7b9f4c84ca9cbca94054f46d71d54f8951b474fa541f36198a85013142992b
check "compressed" commit -z "${uuid53[@]}" data index z
check "it is the reference's" is z 7eff4260e37a1a0a7d6f2b867a92360bd07f9d01b842d8e341f534ba82d83093
check "compressed and wrapped" commit -z -t "${uuid53[@]}" data index zt
check "it is the reference's" cmp zt "$GOLD/tar/commit-z-t.tar"
for threads in 1 3; do
	check "zstd, $threads threads" commit -f -z -t --algorithm zstd --compress_threads $threads "${uuid53[@]}" data index zstd
	check "it is the reference's" cmp zstd "$GOLD/tar/commit-z-t-zstd.tar"
	check "64 KiB blocks, $threads threads" commit -f -z -t --bs 64 --compress_threads $threads "${uuid53[@]}" data index z64
	check "it is the reference's" cmp z64 "$GOLD/tar/commit-z-t-lz4-64k.tar"
done
check "wrapped only" commit -t "${uuid53[@]}" data index t
check "tar finds the member" sh -c 'tar -tf t | grep -x overlaybd.commit'
check "inside is the plain layer" sh -c 'tar -xOf t >inner && "$0" -f '"${uuid53[*]}"' data index plain53 && cmp inner plain53' \
	"$BIN/overlaybd-commit"
check "the sources are as they were" cmp data data.before

digest_fits() { [ "$("$BIN/overlaybd-commit" -f --digest "$@" out)" = "sha256:$(sha256sum <out | cut -c1-64)" ]; }
check "digest of a plain layer" digest_fits data index
check "digest of a compressed one" digest_fits -z data index
check "digest of a wrapped one" digest_fits -z -t data index
check "standard output" sh -c '"$0" -z -t '"${uuid53[*]}"' data index - | cmp - zt' "$BIN/overlaybd-commit"

check "a sealed layer is committed" commit --commit_sealed sealed of-sealed
check "it is the reference's" is of-sealed a62e69e73e7d8e4ffd49a05285cf86f6706c180a74fbd81fd95a7d99d2faa8d5
check "a layer is sealed in place" commit --seal data index
check "and can be committed alone" commit --commit_sealed data of-ours
check "to the same layer" cmp of-ours of-sealed

# What a killed process left.
"$BIN/overlaybd-zfile" -x "$GOLD/lsmt/crash-upper/up.data.z" up.data
cp up.data up.before
check "a torn index is committed" commit up.data "$GOLD/lsmt/crash-upper/up-torn.index" torn
check "and so is a whole one" commit up.data "$GOLD/lsmt/crash-upper/up.index" whole
check "nothing was repaired behind the reader's back" cmp up.data up.before

# ---- refusals -----------------------------------------------------------------------------------------------------------

same_files() { [ "$(ls -A)" = "$1" ]; }
echo precious >mine
before=$(ls -A)
check_fails "an existing file is not replaced" commit up.data "$GOLD/lsmt/crash-upper/up.index" mine
check "it is as it was" grep -qx precious mine
check_fails "a full device" commit up.data "$GOLD/lsmt/crash-upper/up.index" /dev/full
check "the device is still there" test -c /dev/full
check_fails "a directory as output" commit -f up.data "$GOLD/lsmt/crash-upper/up.index" .
check_fails "an output in no directory" commit up.data "$GOLD/lsmt/crash-upper/up.index" nowhere/out
check_fails "no such input" commit nothing "$GOLD/lsmt/crash-upper/up.index" out2
check_fails "files in the wrong order" commit "$GOLD/lsmt/crash-upper/up.index" up.data out2
check_fails "files of two layers" commit up.data index out2
check_fails "a bad uuid" commit --uuid 12 up.data index out2
check_fails "a bad block size" commit -z --bs 5 up.data index out2
check_fails "too few names" commit up.data
check_fails "a layer over an OCI tar" commit --turboOCI up.data index out2
check "nothing was left behind" same_files "$before"
check "-f replaces" commit -f up.data "$GOLD/lsmt/crash-upper/up.index" mine

# A commit that is killed while it writes leaves nothing.
"$BIN/overlaybd-create" --mkfs big bigi 64 || bail "cannot create"
mkdir killed
for delay in 0.001 0.003 0.006 0.01 0.02; do
	timeout -s TERM $delay "$BIN/overlaybd-commit" -z -t big bigi killed/out
	rm -f killed/out
done
check "killed commits leave no temporary file" sh -c '[ -z "$(ls -A killed)" ]'
