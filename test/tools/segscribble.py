#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes random bytes over what one role of a living group may write, as that role would if it went mad.

  segscribble.py SUPERVISOR_PID PID SECONDS [SEED]

What process PID of the group has mapped for writing is found among the supervisor's descriptors.
"""
import mmap
import os
import random
import sys
import time

MAP_LIMIT = 64 << 20


def writable(pid):
    """Inodes of the memory that a process has mapped for writing."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as f:
        rows = [line.split() for line in f if "/memfd:" in line]
    return {int(row[4]) for row in rows if row[1].startswith("rw")}


def regions(supervisor, member):
    wanted = writable(member)
    for fd in os.listdir(f"/proc/{supervisor}/fd"):
        path = f"/proc/{supervisor}/fd/{fd}"
        try:
            link, inode = os.readlink(path), os.stat(path).st_ino
        except OSError:
            continue
        if link.startswith("/memfd:") and inode in wanted:
            wanted.discard(inode)
            with open(path, "r+b", buffering=0) as f:
                size = min(os.fstat(f.fileno()).st_size, MAP_LIMIT)
                yield link.split()[0][7:], mmap.mmap(f.fileno(), size)


def scribble(rng, area):
    """Bits, words and stretches; more often near the beginning, where rows and heads are."""
    for _ in range(200):
        at = int(len(area) * rng.random() ** rng.choice([1, 3, 8]))
        kind = rng.randrange(4)
        if kind == 0:
            data = bytes([area[at] ^ 1 << rng.randrange(8)])
        elif kind == 1:
            at &= ~7
            data = rng.choice([0, 1, 2**64 - 1, 2**63, rng.getrandbits(64), rng.getrandbits(16)]).to_bytes(8, "little")
        elif kind == 2:
            data = rng.randbytes(rng.choice([4, 8, 64, 512]))
        else:
            data = bytes([rng.choice([0, 255])]) * rng.choice([8, 64, 4096])
        end = min(at + len(data), len(area))
        area[at:end] = data[:end - at]


def main():
    supervisor, member, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    areas = list(regions(supervisor, member))
    print("writes", " ".join(sorted(name for name, _ in areas)))
    if not areas:
        sys.exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scribble(rng, rng.choice(areas)[1])
        time.sleep(0.002)


main()
