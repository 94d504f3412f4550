#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare two file trees.

    tree-compare.py LEFT RIGHT [--ignore PATH]... [--ignore-mtime PATH]...

Type, mode, owner, mtime (ns), size, contents, link targets, devices, extended attributes, and which paths are one file.
--ignore leaves a path and all below it out; --ignore-mtime the time of one path (. is the root). Every difference is
printed. Exit: 0 equal, 1 not, 2 usage.
"""
import argparse
import filecmp
import os
import stat
import sys

FIELDS = {"mode": lambda st: oct(st.st_mode), "uid": lambda st: st.st_uid, "gid": lambda st: st.st_gid,
          "mtime": lambda st: st.st_mtime_ns}


def scan(root, ignored):
    """Paths with their lstat, and for each inode with several names the first of its names."""
    found, first = {b".": os.lstat(root)}, {}
    for where, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(dirs + files):
            full = os.path.join(where, name)
            path = os.path.relpath(full, root)
            if path in ignored:
                if name in dirs:
                    dirs.remove(name)
                continue
            found[path] = os.lstat(full)
    for path in sorted(found):
        st = found[path]
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            first.setdefault(st.st_ino, path)
    return found, first


def xattrs_of(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def contents_differ(left, right, a, b):
    if stat.S_ISREG(a.st_mode):
        return a.st_size != b.st_size or not filecmp.cmp(left, right, shallow=False)
    if stat.S_ISLNK(a.st_mode):
        return os.readlink(left) != os.readlink(right)
    if stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
        return a.st_rdev != b.st_rdev
    return False


def compare(left, right, a, b, skip_mtime):
    for name, get in FIELDS.items():
        if get(a) != get(b) and not (skip_mtime and name == "mtime"):
            yield f"{name} is {get(a)} and {get(b)}"
    if stat.S_IFMT(a.st_mode) == stat.S_IFMT(b.st_mode) and contents_differ(left, right, a, b):
        yield "the contents differ"
    if xattrs_of(left) != xattrs_of(right):
        yield f"xattrs are {xattrs_of(left)} and {xattrs_of(right)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("left", type=os.fsencode)
    parser.add_argument("right", type=os.fsencode)
    parser.add_argument("--ignore", type=os.fsencode, action="append", default=[])
    parser.add_argument("--ignore-mtime", type=os.fsencode, action="append", default=[])
    args = parser.parse_args()

    a, a_first = scan(args.left, args.ignore)
    b, b_first = scan(args.right, args.ignore)
    wrong = [f"{os.fsdecode(p)}: only in the {side} tree" for side, x, y in (("left", a, b), ("right", b, a))
             for p in sorted(set(x) - set(y))]
    for path in sorted(set(a) & set(b)):
        left, right = os.path.join(args.left, path), os.path.join(args.right, path)
        what = list(compare(left, right, a[path], b[path], path in args.ignore_mtime))
        if a_first.get(a[path].st_ino) != b_first.get(b[path].st_ino):
            what.append("other hard links")
        wrong += [f"{os.fsdecode(path)}: {w}" for w in what]
    for line in wrong:
        print(line.encode(errors="backslashreplace").decode())
    print(f"{len(a)} paths, {len(wrong)} differences", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
