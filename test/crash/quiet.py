#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits until a group is whole and quiet, with nobody using it, and nothing is left over from those who used it.

    quiet.py OBD-STAT RUNTIMEDIR FETCHERS SECONDS

Prints what is not as it should be, and exits 1, when it does not come to that in time.
"""
import json
import subprocess
import sys
import time


def faults(st, fetchers):
    roles = [p["role"] for p in st["processes"] if p["state"] == "running"]
    want = {"cached": 1, "indexer": 1, "fetcher": fetchers, "frontend": 0}
    for role, n in want.items():
        if roles.count(role) != n:
            yield f"{roles.count(role)} processes obd-{role} run, not {n}"
    requests, opens = st["requests"], st["opens"]
    for name in ("in_flight", "waiting", "backoff_blocks"):
        if requests[name]:
            yield f"requests {name}: {requests[name]}"
    for name in ("queued_blocks", "inflight_blocks"):
        if any(requests[name].values()):
            yield f"{name}: {requests[name]}"
    if opens["held"] or opens["pending"]:
        yield f"opens: {opens}"
    if st["cache"]["frames"]["impossible"] or st["catalog"]["bad_entries"]:
        yield "impossible frames or catalog entries"
    for image in st["images"]:
        if image["references"]:
            yield f"image {image['slot']}: {image['references']} references"
    for host in st["registries"]:
        if host["jobs"]:
            yield f"registry {host['host']}: {host['jobs']} jobs"
    for down in st["downloads"]:
        yield f"download {down['dir']}: {down['state']}"
    for name in ("protocol_errors", "io_errors"):
        if st["counters"]["total"][name]:
            yield f"{name}: {st['counters']['total'][name]}"


def main():
    stat, run, fetchers, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    while True:
        shown = subprocess.run([stat, "-r", run, "--json"], capture_output=True, text=True)
        try:
            found = list(faults(json.loads(shown.stdout), int(fetchers)))
        except (ValueError, KeyError) as e:
            found = [f"obd-stat: {shown.stderr.strip() or repr(e)}"]
        if not found:
            return
        if time.monotonic() > end:
            print("\n".join(found))
            sys.exit(1)
        time.sleep(0.03)


main()
