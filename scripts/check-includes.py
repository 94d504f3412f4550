#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may include whom.

    check-includes.py [FILE...]    checks these C files, or all that git knows; exit 1 when one breaks a rule
    check-includes.py --self-test  shows that each rule can fail

A room may include itself and what the table below gives it. Tests may include everything, but they too name headers by
their path from the top of the tree. Some libraries belong to one room.
"""
import os
import re
import subprocess
import sys

LIBRARY = ["common/base", "common/config", "common/format", "common/daemon", "shmcache"]
MAY_INCLUDE = {
    "common/base": [],
    "common/config": ["common/base"],
    "common/format": ["common/base"],
    "common/daemon": ["common/base", "common/config"],
    "shmcache": ["common/base", "common/format", "common/daemon"],
    "frontend/client": ["common/base", "common/format", "common/daemon", "shmcache"],
    # programs: no one of them includes another
    "frontend/tgt": ["common/base", "common/format", "common/daemon", "frontend/client"],
    "shmcache/cached": LIBRARY,
    "indexer": LIBRARY,
    "fetcher": LIBRARY,
    "tools": LIBRARY,
    "supervisor": ["common/base", "common/config", "common/daemon"],
}
# header of a library -> the places that may include it
BELONGS_TO = [
    (re.compile(r"curl/"), ["fetcher/http"]),
    (re.compile(r"openssl/"), ["fetcher", "tools"]),
    (re.compile(r"(lz4|zstd)"), ["common/format"]),
    (re.compile(r"yaml\.h"), ["common/config"]),
    (re.compile(r"jansson\.h"), ["common/config", "tools", "fetcher/auth"]),
    (re.compile(r"(lib)?aio\.h"), ["fetcher", "indexer"]),
    (re.compile(r"stdatomic\.h"), ["common/base"]),
    (re.compile(r"check\.h|iscsi/"), []),
    (re.compile(r"frontend/tgt/tgt_abi\.h"), ["frontend/tgt"]),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def below(path, folder):
    return path.startswith(folder + "/")


def room_of(path):
    """The room with the longest name that the path lies in; None outside of all rooms."""
    return max((room for room in MAY_INCLUDE if below(path, room)), key=len, default=None)


def judge(path, quoted, name, exists=os.path.exists):
    """What is wrong with this include, or None."""
    if below(path, "test"):
        return None
    room = room_of(path)
    if room is None:
        return "lies in no room that scripts/check-includes.py knows"
    for header, places in BELONGS_TO:
        if header.match(name) and not any(below(path, place) for place in places):
            return "only " + " and ".join(places or ["tests"]) + " may include it"
    if not quoted:
        return None
    if not exists(name):
        return "is not a path from the top of the tree"
    if below(name, "test"):
        return "only tests include tests' headers"
    target = room_of(name)
    if target != room and target not in MAY_INCLUDE[room]:
        return f"{room} may not include {target}"
    return None


def check_file(path):
    bad = 0
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            found = INCLUDE.match(line)
            reason = found and judge(path, found[1] == '"', found[2])
            if reason:
                print(f"{path}:{number}: {found[2]}: {reason}")
                bad += 1
    return bad


SELF_TEST = [  # file, included as, whether that is right
    ("common/base/log.c", '"common/base/log.h"', True),
    ("common/base/log.c", '"common/config/config.h"', False),
    ("common/format/zfile.c", '"common/config/config.h"', False),
    ("common/format/zfile.c", "<lz4.h>", True),
    ("fetcher/decode.c", "<lz4.h>", False),
    ("shmcache/reader.c", "<zstd.h>", False),
    ("fetcher/http/http.c", "<curl/curl.h>", True),
    ("fetcher/local.c", "<curl/curl.h>", False),
    ("indexer/image.c", '"fetcher/fetcher.h"', False),
    ("indexer/image.c", '"shmcache/catalog.h"', True),
    ("indexer/image.c", '"shmcache/cached/cached.h"', False),
    ("shmcache/reader.c", '"shmcache/cached/cached.h"', False),
    ("shmcache/cached/evict.c", '"shmcache/layout.h"', True),
    ("shmcache/reader.c", '"frontend/client/client.h"', False),
    ("supervisor/group.c", '"shmcache/layout.h"', False),
    ("supervisor/group.c", '"common/daemon/loop.h"', True),
    ("frontend/tgt/lun.h", '"frontend/tgt/tgt_abi.h"', True),
    ("frontend/client/io.c", '"frontend/tgt/tgt_abi.h"', False),
    ("frontend/tgt/io.c", '"shmcache/reader.h"', False),
    ("tools/stat.c", '"supervisor/supervisor.h"', False),
    ("indexer/image.c", '"internal.h"', False),
    ("indexer/image.c", '"test/tools/latency.h"', False),
    ("indexer/image.c", "<jansson.h>", False),
    ("shmcache/ring.h", "<stdatomic.h>", False),
    ("supervisor/group.c", "<errno.h>", True),
    ("nowhere/a.c", "<errno.h>", False),
    ("test/unit/check_a.c", '"supervisor/supervisor.h"', True),
]


def self_test():
    wrong = 0
    for path, name, right in SELF_TEST:
        found = INCLUDE.match("#include " + name)
        reason = judge(path, found[1] == '"', found[2], exists=lambda header: "/" in header)
        if (reason is None) != right:
            print(f"check-includes.py: {path} includes {name}: {reason or 'nothing said'}")
            wrong += 1
    print(f"check-includes.py --self-test: {len(SELF_TEST) - wrong} passed, {wrong} failed")
    return wrong


def main():
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test() != 0)
    files = sys.argv[1:]
    if not files:
        files = subprocess.run(["git", "ls-files", "*.c", "*.h"], check=True, capture_output=True, text=True).stdout.split()
    sys.exit(sum(check_file(path) for path in files) != 0)


if __name__ == "__main__":
    main()
