#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A real root file system's life: mkfs on a writable LUN, files of this machine untarred into it through a mount, fsck, discard,
# commit, and the layer served from a registry: the same files.
. "$(dirname "$0")/lib.sh"

need_root
can_mount_luns || skip_all "needs /dev/fuse, loop devices, qemu-nbd and nbdfuse"
BIN=$B/bin
BYTES=1073741824

# What a small installation has: some packages' files, as the package manager lists them, with /etc and the links of the root.
source_tree() {
	local package
	for package in base-files base-passwd bash coreutils dpkg e2fsprogs grep hostname libc6 libc-bin ncurses-base ncurses-bin \
		perl-base sed tar util-linux login passwd; do
		dpkg -L "$package" 2>/dev/null
	done | sed -E 's#^/##; s#^(bin|sbin|lib|lib64)/#usr/\1/#' >"$WORK/files"
	find etc usr/share/perl5 usr/share/i18n -xdev \( -type f -o -type l -o -type d \) >>"$WORK/files"
	sed -E ':up; p; s#/[^/]+$##; t up' "$WORK/files" | sort -u | while read -r f; do
		[ ! -e "$f" ] && [ ! -L "$f" ] || echo "$f"
	done >"$WORK/files.sorted"
}

make_source() (
	cd / && source_tree && tar --xattrs --no-recursion -cf "$WORK/root.tar" --warning=no-file-changed -T "$WORK/files.sorted"
	mkdir "$WORK/source" && tar --xattrs --delay-directory-restore -xpf "$WORK/root.tar" -C "$WORK/source" && [ "$(find "$WORK/source" | wc -l)" -gt 2000 ]
)

make_layer() {
	"$BIN/overlaybd-create" "$WORK/data" "$WORK/index" "${BYTES}B" &&
		echo "{\"lowers\": [], \"upper\": {\"data\": \"$WORK/data\", \"index\": \"$WORK/index\"}, \"resultFile\": \"$WORK/result\"}" \
			>"$WORK/upper.json"
}

mkfs_on_lun() { mount_lun 1 rw unmounted && mkfs.ext4 -qF "$DEVICE" && unmount_lun; }

fill() {
	mount_lun 1 rw || return 1
	tar --xattrs --delay-directory-restore -xpf "$WORK/root.tar" -C "$MOUNTED" && head -c 16M /dev/urandom >"$MOUNTED/gone" && sync -f "$MOUNTED" || return 1
	unmount_lun
}

fsck_on_lun() {
	mount_lun 1 ro unmounted && e2fsck -fn "$DEVICE" || return 1
	unmount_lun
}

discards() { # what the device has been told to discard, as obd-stat counts it
	"$BIN/obd-stat" -r "$RUN" --json | python3 -c '
import json, sys
print(sum(p["counters"].get("discards", 0) for p in json.load(sys.stdin)["processes"] if "counters" in p))'
}

trimmed() {
	local before
	before=$(discards)
	mount_lun 1 rw || return 1
	rm "$MOUNTED/gone" && sync -f "$MOUNTED" && fstrim -v "$MOUNTED" && unmount_lun || return 1
	[ "$(discards)" -gt "$before" ]
}

# The discarded file's bytes are not in the layer any more.
committed() {
	"$BIN/overlaybd-commit" -z -t "$WORK/data" "$WORK/index" "$WORK/layer.tar" &&
		[ "$(stat -c %s "$WORK/layer.tar")" -lt $(($(stat -c %s "$WORK/root.tar") + (8 << 20))) ]
}

same_files() { # LUN [tree-compare's options]
	local rc=0
	mount_lun "$1" ro || return 1
	"$TOOLS/tree-compare.py" "$WORK/source" "$MOUNTED" --ignore lost+found --ignore-mtime . "${@:2}" || rc=1
	unmount_lun || rc=1
	return $rc
}

check "some thousand files of this machine" make_source || exit
check "an empty layer" make_layer || exit
check "the group starts" start_group || exit
start_blobserver
start_tgtd
check "a LUN over it" eval 'new_lun 1 "$WORK/upper.json" && "$ISCSI" wait-ready "$(url 1)"'
check "mkfs.ext4" mkfs_on_lun || exit
check "mount, untar, unmount" fill
check "e2fsck finds nothing" fsck_on_lun
check "the same files" same_files 1 --ignore gone
check "a file is removed and its room discarded" trimmed
check "e2fsck finds nothing" fsck_on_lun
check "the LUN goes" remove_lun 1
check "commit: compressed, wrapped, without what was discarded" committed
remote_config "$WORK/remote.json" test/root -- "$WORK/layer.tar"
check "a read-only LUN from the registry" eval 'new_lun 2 "$WORK/remote.json" && "$ISCSI" wait-ready "$(url 2)"'
check "the same files" same_files 2
check "they were fetched" test "$(bytes_sent status=206)" -gt 1000000
stop_tgtd
check "the group stops" stop_group
