#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare a mounted file tree with a manifest.

    golden-manifest.py ROOT MANIFEST.jsonl

The manifest holds one JSON object per line and path: path, type (f d l c b p), mode, uid, gid, mtime (ns), nlink,
size and sha256 of files, link target, rdev, xattrs. Every difference is printed. Exit: 0 equal, 1 not, 2 usage.
"""
import argparse
import hashlib
import json
import os
import stat
import sys

TYPES = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b",
         stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def xattrs_of(path):
    return {name: os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "replace")
            for name in os.listxattr(path, follow_symlinks=False)}


def describe(root, path, want):
    """The actual values of the fields that the manifest names for this path."""
    full = os.path.join(root, path)
    st = os.lstat(full)
    have = {"path": path, "type": TYPES[stat.S_IFMT(st.st_mode)], "mode": oct(stat.S_IMODE(st.st_mode)),
            "uid": st.st_uid, "gid": st.st_gid, "mtime": st.st_mtime_ns, "nlink": st.st_nlink, "size": st.st_size}
    if "sha256" in want and stat.S_ISREG(st.st_mode):
        have["sha256"] = sha256_of(full)
    if stat.S_ISLNK(st.st_mode):
        have["target"] = os.readlink(full)
    if "rdev" in want:
        have["rdev"] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
    if "xattrs" in want:
        have["xattrs"] = xattrs_of(full)
    return have


def walk(root):
    for where, dirs, files in os.walk(root):
        for name in dirs + files:
            yield os.path.relpath(os.path.join(where, name), root)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("manifest")
    args = parser.parse_args()

    with open(args.manifest, encoding="utf-8") as f:
        wanted = {row["path"]: row for row in map(json.loads, f)}
    found = set(walk(args.root))
    wrong = 0
    for path in sorted(found - set(wanted) - {"."}):
        print(f"{path}: not in the manifest")
        wrong += 1
    for path, want in sorted(wanted.items()):
        if path != "." and path not in found:
            print(f"{path}: missing")
            wrong += 1
            continue
        have = describe(args.root, path, want)
        for field, value in want.items():
            if have.get(field) != value:
                print(f"{path}: {field} is {have.get(field)!r}, expected {value!r}")
                wrong += 1
    print(f"{len(wanted)} paths, {wrong} differences", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
