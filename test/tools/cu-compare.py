#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare two outputs of iscsi-test-cu -v.

    cu-compare.py BASE.out OTHER.out

Prints every test whose outcome differs. Exit 1 when a test is worse in OTHER: it failed or is missing where BASE has it
passed or skipped; or when BASE holds no tests at all.
"""
import re
import sys

SUITE = re.compile(r"^Suite: (\S+)")
TEST = re.compile(r"^  Test: (\S+) \.\.\.(.*)")
NOTE = re.compile(r"\[(SKIPPED|FAILED)\] *(.*)")


def outcomes(path):
    """{suite.test: (PASS | SKIP | FAIL | NONE, the first reason)}; a test that never ended has NONE."""
    found, suite, name = {}, "", None
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if match := SUITE.match(line):
                suite, name = match[1], None
                continue
            if match := TEST.match(line):
                name = f"{suite}.{match[1]}"
                found[name] = ("NONE", "")
                line = match[2]
            if name is None:
                continue
            state, reason = found[name]
            if (note := NOTE.search(line)) and not reason:
                reason = f"{note[1]}: {note[2].strip()}"
            if state == "NONE" and line.strip() == "passed":
                state = "SKIP" if reason.startswith("SKIPPED") else "PASS"
            elif state == "NONE" and line.strip() == "FAILED":
                state = "FAIL"
            found[name] = (state, reason)
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    base, other = outcomes(sys.argv[1]), outcomes(sys.argv[2])
    worse = 0
    for name in sorted(base.keys() | other.keys()):
        was, now = base.get(name, ("NONE", ""))[0], other.get(name, ("NONE", ""))
        if was == now[0]:
            continue
        is_worse = now[0] in ("FAIL", "NONE")
        worse += is_worse
        print(f"{'WORSE' if is_worse else 'differs'}: {name}: {was} -> {now[0]} ({now[1]})")
    states = [state for state, _ in other.values()]
    print(f"{len(states)} tests: " + ", ".join(f"{states.count(s)} {s}" for s in ("PASS", "SKIP", "FAIL", "NONE"))
          + f"; {worse} worse")
    return 1 if worse or not base else 0


if __name__ == "__main__":
    sys.exit(main())
