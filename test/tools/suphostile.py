#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile peer of obd-supervisor's socket.

  suphostile.py SOCKET ROUNDS [SEED]

Each round connects and does one of: random bytes of a random length; a message of the right shape with random fields; a good
beginning and then nonsense; many descriptors; a connection that says nothing; one that asks and does not read; many
connections at once. Ends with 0 when the socket still takes connections afterwards.
"""
import array
import os
import random
import socket
import struct
import sys

FORMAT = "<IHHIIQ32s448s"
MAGIC = 0x4F42444D
HELLO, STAT = 11, 14


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(0.5)
    sock.connect(path)
    return sock


def message(rng, kind=None, magic=MAGIC, arg=None):
    return struct.pack(FORMAT, magic, rng.randrange(0, 70) if kind is None else kind, rng.choice([0, 1, 5, 6, 65535]),
                       rng.choice([0, 1, 63, 64, 2**32 - 1]), rng.getrandbits(32),
                       rng.choice([0, 1, 2**64 - 1]) if arg is None else arg,
                       rng.choice([b"", b"frames", b"log", b"A" * 32]), rng.choice([b"", b"\xff" * 448, b"x"]))


def send(sock, data, fds=()):
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([data], control, socket.MSG_DONTWAIT)
    except OSError:
        pass


def noise(rng, path, held):
    send(connect(path), rng.randbytes(rng.choice([1, 7, 503, 504, 505, 4096, 60000])))


def fields(rng, path, held):
    sock = connect(path)
    for _ in range(rng.randrange(1, 4)):
        send(sock, message(rng))


def turncoat(rng, path, held):
    sock = connect(path)
    send(sock, message(rng, HELLO, arg=1))
    for _ in range(rng.randrange(1, 20)):
        send(sock, rng.choice([message(rng), rng.randbytes(504), b"x"]))


def descriptors(rng, path, held):
    null = os.open("/dev/null", os.O_RDONLY)
    sock = connect(path)
    for _ in range(3):
        send(sock, message(rng, rng.choice([1, 6, HELLO, STAT])), [null] * rng.choice([1, 2, 17, 250]))
    os.close(null)


def silence(rng, path, held):
    held.append(connect(path))
    if len(held) > 40:
        held.pop(rng.randrange(len(held))).close()


def deaf(rng, path, held):
    sock = connect(path)
    for _ in range(rng.randrange(1, 4)):
        send(sock, message(rng, STAT, arg=1))
    held.append(sock)


def flood(rng, path, held):
    socks = []
    try:
        for _ in range(100):
            socks.append(connect(path))
    except OSError:
        pass
    for sock in socks:
        send(sock, message(rng, rng.choice([HELLO, STAT]), arg=rng.choice([1, 2])))
        sock.close()


def main():
    path, rounds = sys.argv[1], int(sys.argv[2])
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    kinds = [noise, fields, turncoat, descriptors, silence, deaf] * 8 + [flood]
    held, refused = [], 0
    for _ in range(rounds):
        try:
            rng.choice(kinds)(rng, path, held)
        except OSError:
            refused += 1
            while held:
                held.pop().close()
    for sock in held:
        sock.close()
    print(f"{rounds} rounds, {refused} without a connection")


main()
