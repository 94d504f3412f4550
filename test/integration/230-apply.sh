#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# overlaybd-apply: layer tars become file systems that e2fsck likes and that hold what the tars say.
. "$(dirname "$0")/lib.sh"

APPLY=$B/bin/overlaybd-apply
need_golden
cd "$WORK" || exit
for n in 1 2 3; do zstd -dcq "$TOP/test/data/apply/src-l$n.tar.zst" >"src-l$n.tar" || bail "cannot unpack src-l$n"; done

can_mount() {
	truncate -s 1M probe.raw && mkfs.ext4 -qF probe.raw >/dev/null 2>&1 && mount_image "$WORK/probe.raw"
}
MOUNTS=''
if can_mount; then MOUNTS=1; else skip "comparing mounted trees" "this machine cannot loop-mount"; fi

new_raw() { rm -f "$1" && truncate -s "$2" "$1"; }

clean() { e2fsck -fn "$1" 2>&1; }

# tree_is RAW COMMAND...: the command with the place where RAW is mounted in {}.
tree_is() {
	local raw=$1 rc=0 arg args=()
	shift
	[ "$MOUNTS" ] || return 0
	# Loop devices are few, and others want them too.
	wait_for 30 mount_image "$WORK/$raw" || {
		echo "cannot loop-mount $raw"
		return 1
	}
	for arg; do args+=("${arg/\{\}/$MOUNTED}"); done
	"${args[@]}" || rc=1
	umount "$MOUNTED" && unset 'OWN_MOUNTS[-1]'
	return $rc
}

same_tree() { tree_is "$1" "$TOOLS/tree-compare.py" '{}' "$2" --ignore lost+found "${@:3}"; }

# refused PATTERN COMMAND...: fails with one line that has the pattern in it.
refused() {
	local pattern=$1
	shift
	fails "$@" 2>message >/dev/null || { cat message; return 1; }
	if [ "$(wc -l <message)" != 1 ] || ! grep -q -- "$pattern" message; then
		cat message
		return 1
	fi
}

# ---- small layers, made here -------------------------------------------------------------------------------------------

# make_tar OUT: reads Python statements that call add(name, data, **fields).
make_tar() {
	python3 -c '
import io, sys, tarfile
tar = tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT)
DIR, LINK, SYM = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
def add(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1600000000
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))
exec(sys.stdin.read())
tar.close()' "$1"
}

make_tar base.tar <<'END'
add("keep/me", b"1"); add("d/lower", b"2"); add("d/sub/lower", b"3"); add("gone", b"4"); add("target", b"5")
add("link", type=SYM, linkname="d"); add("was-dir/x", b"6"); add("was-file", b"7"); add("redeclared/kept", b"8", mode=0o600)
for i in range(3000): add("many/name-%d" % i, b"%d" % i)
END
make_tar top.tar <<'END'
add("d/early", b"a"); add("d/sub/early", b"b"); add("d/.wh..wh..opq"); add("d/late", b"c")
add(".wh.gone"); add("hard", type=LINK, linkname="target"); add("../../outside", b"e"); add("/absolute", b"f")
add("link/through", b"g"); add("was-dir", b"h"); add("was-file", type=DIR, mode=0o755); add("was-file/x", b"i")
add("redeclared", type=DIR, mode=0o711, uid=70000, gid=3000000); add("twice", b"first"); add("twice", b"second")
for i in range(0, 3000, 3): add("many/.wh.name-%d" % i)
for i in range(500): add("many/new-%d" % i)
add("x", b"x", pax_headers={"SCHILY.xattr.user.a": "b", "SCHILY.xattr.user.long": "v" * 3000, "SCHILY.xattr.trusted.t": "1"})
END

# What the two make, by ordinary tools. Names that leave the root and opaque directories are nothing for GNU tar.
expected_tree() (
	mkdir -p expected && cd expected || return
	tar -xpf ../base.tar && rm -rf d/lower d/sub/lower gone was-dir was-file &&
		tar --xattrs --xattrs-include='*' --keep-directory-symlink --exclude='.wh.*' --exclude='../*' --exclude='/*' -xpPf ../top.tar || return
	for ((i = 0; i < 3000; i += 3)); do rm "many/name-$i"; done
	printf e >outside && printf f >absolute && touch -d @1600000000 outside absolute
	# Parents that no entry declares.
	find . -type d ! -path ./redeclared ! -path ./was-file -exec touch -d @0 {} +
	touch -d @1600000000 redeclared was-file
)

apply_two() {
	new_raw "$1" 1G && "$APPLY" base.tar "$1" --raw --mkfs && clean "$1" && "$APPLY" top.tar "$1" --raw && clean "$1"
}

check "two layers, and e2fsck after each" apply_two two.raw
if [ "$(id -u)" = 0 ]; then
	check "the tree that they should make can be made with tar" expected_tree
	check "both make that tree" same_tree two.raw "$WORK/expected" --ignore-mtime .
else
	skip "the tree of two layers" "not root"
fi
check "the same again: the same bytes" eval 'apply_two again.raw >/dev/null && cmp two.raw again.raw'
rm -rf again.raw expected

compressed() {
	new_raw gz.raw 1G && new_raw zst.raw 1G || return
	gzip -c base.tar | "$APPLY" - gz.raw --raw --mkfs && zstd -qc base.tar >base.tar.zst &&
		"$APPLY" base.tar.zst zst.raw --raw --mkfs && cmp gz.raw zst.raw
}
check "gzip from standard input and zstd from a file" compressed

digests() {
	gzip -nc top.tar >top.tar.gz
	"$APPLY" top.tar.gz gz.raw --raw --checksum >sums || return
	[ "$(cat sums)" = "tar sha256:$(sha256sum <top.tar.gz | cut -d' ' -f1)
diff-id sha256:$(sha256sum <top.tar | cut -d' ' -f1)" ] || { cat sums; return 1; }
}
check "--checksum prints what sha256sum does" digests
check "e2fsck agrees" clean gz.raw
rm -f gz.raw zst.raw again.raw two.raw

# Sizes, and what lies around the data: not all of the 5 GiB.
same_holes() {
	[ "$(stat -c %s "$1/file" "$1/empty")" = "$(stat -c %s "$2/file" "$2/empty")" ] && cmp "$1/empty" "$2/empty" &&
		cmp -n 1M "$1/file" "$2/file" && cmp -i 3999M -n 100M "$1/file" "$2/file" && cmp -i 3814M -n 2M "$1/file" "$2/file"
}

sparse() {
	local form
	mkdir -p holes && truncate -s 5G holes/file && truncate -s 1M holes/empty &&
		printf a | dd of=holes/file bs=1 seek=123456 conv=notrunc status=none &&
		printf b | dd of=holes/file bs=1 seek=4000000001 conv=notrunc status=none || return
	for form in gnu 0.0 0.1 1.0; do
		case $form in
		gnu) tar --format=gnu -S -cf holes.tar holes ;;
		*) tar --format=posix --sparse-version=$form -S -cf holes.tar holes ;;
		esac
		new_raw holes.raw 64M && "$APPLY" holes.tar holes.raw --raw --mkfs && clean holes.raw || return
		tree_is holes.raw same_holes '{}/holes' holes || return
	done
}
check "sparse files of four kinds" sparse
rm -rf holes*

# ---- layers on layers --------------------------------------------------------------------------------------------------

# The tool that wrote the manifest took a file's whole seconds from the ustar header where the pax header had more.
with_pax_times() {
	python3 -c '
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if row["path"] == "a/mtime":
        row["mtime"] = 1500000000123456789
    print(json.dumps(row))' "$1"
}

golden_in_turn() {
	local n mkfs=--mkfs
	new_raw golden.raw 1G
	for n in 1 2 3; do
		"$APPLY" "src-l$n.tar" golden.raw --raw $mkfs && clean golden.raw || return
		mkfs=
	done
	with_pax_times "$GOLDEN/ext4/mkfs.manifest.jsonl" >manifest.jsonl
	tree_is golden.raw "$TOOLS/golden-manifest.py" '{}' manifest.jsonl
}
check "three layers that existing tools were given make the tree that they made" golden_in_turn
rm -f golden.raw

upper_config() {
	printf '{"lowers": [%s], "upper": {"data": "%s", "index": "%s"}}' "$2" "$WORK/$1.data" "$WORK/$1.index" >"$1.json"
}

# A layer is applied, committed, and the next one goes on top of it.
layer_by_layer() {
	local name=$1 lowers='' mkfs=--mkfs n out
	for n in base top; do
		"$B/bin/overlaybd-create" "$name-$n.data" "$name-$n.index" 1 && upper_config "$name-$n" "$lowers" || return
		"$APPLY" $n.tar "$name-$n.json" $mkfs || return
		mkfs=
		out=$WORK/$name-$n.lsmt
		"$B/bin/overlaybd-commit" -z -t "$name-$n.data" "$name-$n.index" "$out" || return
		lowers=${lowers:+$lowers, }"{\"file\": \"$out\"}"
	done
}
check "into upper layers, committed one after the other" layer_by_layer one
check "once more" layer_by_layer other
check "the same tars give the same layers" eval 'cmp one-base.lsmt other-base.lsmt && cmp one-top.lsmt other-top.lsmt'

read_only() {
	echo "{\"lowers\": [{\"file\": \"$WORK/one-base.lsmt\"}, {\"file\": \"$WORK/one-top.lsmt\"}]}" >read.json
	refused 'no upper layer' "$APPLY" base.tar read.json
}
check "an image without an upper layer is refused" read_only

on_golden_layer() {
	local lower="{\"file\": \"$GOLDEN/ext4/mkfs-l1.lsmt.tar\"}"
	"$B/bin/overlaybd-create" g.data g.index 1 && upper_config g "$lower" || return
	"$APPLY" src-l2.tar g.json && "$APPLY" src-l3.tar g.json
}
check "onto a layer that existing tools wrote" on_golden_layer

# ---- what must fail ----------------------------------------------------------------------------------------------------

bad_tar() { make_tar bad.tar && new_raw bad.raw 64M && refused "$1" "$APPLY" bad.tar bad.raw --raw --mkfs; }
check "a name that is only a whiteout's prefix" bad_tar 'a/.wh.: .*whiteout' <<<'add("a/.wh.")'
check "something below a whiteout" bad_tar 'whiteout' <<<'add(".wh.a/b")'
check "a component that is too long" bad_tar '256 bytes' <<<'add("n" * 256)'
check "a hard link to nothing" bad_tar 'h: hard link to no/thing: no such' <<<'add("h", type=LINK, linkname="no/thing")'
check "attributes that do not fit" bad_tar 'x: .*user.b.* fit' <<<'add("x", pax_headers={"SCHILY.xattr.user.b": "v" * 5000})'
check "an access list that is none" bad_tar 'access list' <<<'add("x", pax_headers={"SCHILY.xattr.system.posix_acl_access": "abc"})'
check "a loop of symbolic links" bad_tar 'symbolic links' <<<'add("l", type=SYM, linkname="l"); add("l/x")'
check "a file system that is full" bad_tar 'big: .*no space' <<<'add("ok", b"x"); add("big", b"x" * (80 << 20))'
full_says_so() { refused 'did not finish' "$APPLY" base.tar bad.raw --raw; }
check "a later run sees that this one did not finish" full_says_so

head -c 100000 base.tar >cut.tar
head -c 20000 /dev/urandom >noise.tar
gzip -c base.tar | head -c 10000 >cut.tar.gz
: >none.tar
damaged() { new_raw bad.raw 64M && refused "$1" "$APPLY" "$1" bad.raw --raw --mkfs; }
for f in cut.tar noise.tar cut.tar.gz none.tar missing.tar; do check "$f is refused" damaged $f; done
new_raw empty.raw 64M
check "an image without a file system is refused" refused 'file system' "$APPLY" base.tar empty.raw --raw
check_fails "wrong arguments" "$APPLY" base.tar
