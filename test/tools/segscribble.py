#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes random bytes over what one role of a living group may write, as that role would if it went mad.

  segscribble.py SUPERVISOR_PID ROLE SECONDS [SEED]

ROLE: cached, indexer, fetcher, frontend. The regions are found among the supervisor's descriptors.
"""
import mmap
import os
import random
import re
import sys
import time

REGIONS = {
    "cached": ["obd:table"],
    "indexer": ["obd:catalog", "obd:index", "obd:upread"],
    "fetcher": ["obd:frames", "obd:fills", "obd:tokens", "obd:fetcher"],
    "frontend": ["overlaybd-client", "obd:recency"],
}
MAP_LIMIT = 64 << 20


def regions(pid, names):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            link = os.readlink(path)
        except OSError:
            continue
        match = re.match(r"/memfd:([^ ]*)", link)
        if match and any(match.group(1).startswith(name) for name in names):
            with open(path, "r+b", buffering=0) as f:
                size = min(os.fstat(f.fileno()).st_size, MAP_LIMIT)
                yield match.group(1), mmap.mmap(f.fileno(), size)


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
    pid, role, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    areas = list(regions(pid, REGIONS[role]))
    print(role, "writes", " ".join(sorted(name for name, _ in areas)))
    if not areas:
        sys.exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scribble(rng, rng.choice(areas)[1])
        time.sleep(0.002)


main()
