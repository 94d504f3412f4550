#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Speaks to obd-supervisor's socket as a frontend, as obd-stat, or as nobody should.

  supclient.py SOCKET hello [SECONDS]   attach, print the answers, check the protections, stay attached
  supclient.py SOCKET many N            attach N times, print the ids; the connections end together
  supclient.py SOCKET stat              print what obd-stat is told
  supclient.py SOCKET old               HELLO of another protocol version
  supclient.py SOCKET garbage|short|fds|twice|ready   be hostile, print how it ends

OBD_TEST_UID=N makes it user N before it connects.
"""
import array
import mmap
import os
import socket
import struct
import sys
import time

FORMAT = "<IHHIIQ32s448s"
TYPES = ("- DEPOSIT SETTING READY HEARTBEAT CLIENT_GONE GRANT GRANTS_DONE CLIENT_UP CLIENT_DOWN REAPED HELLO WELCOME "
         "REFUSED STAT PROC STAT_DONE CLIENTS_KNOWN").split()
WRITE = 1


def message(kind, arg=1, magic=0x4F42444D):
    return struct.pack(FORMAT, magic, TYPES.index(kind), 0, 0, 0, arg, b"", b"")


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(8)
    sock.connect(path)
    return sock


def receive(sock):
    """One message as (type, index, flags, arg, name, text, fd), or None at the end."""
    fds = array.array("i")
    try:
        data, control, _, _ = sock.recvmsg(1024, socket.CMSG_SPACE(16))
    except ConnectionResetError:
        return None
    if not data:
        return None
    for level, kind, body in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(body[:len(body) - len(body) % fds.itemsize])
    _, kind, _, index, flags, arg, name, text = struct.unpack(FORMAT, data)
    return TYPES[kind], index, flags, arg, name.rstrip(b"\0").decode(), text.rstrip(b"\0").decode(), fds[0] if fds else -1


def protection(fd, flags):
    """"" when fd can be mapped exactly as flags say, else a complaint."""
    can_write = True
    length = min(os.fstat(fd).st_size, 2 << 20)  # of huge pages at least one
    try:
        mmap.mmap(fd, length, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
    except PermissionError:
        can_write = False
    mmap.mmap(fd, length, prot=mmap.PROT_READ).close()
    return "" if can_write == bool(flags & WRITE) else " WRONG-PROTECTION"


def show_until(sock, last):
    while True:
        got = receive(sock)
        if got is None:
            print("closed")
            return None
        kind, index, flags, arg, name, text, fd = got
        if kind == "GRANT":
            bell = name.startswith("doorbell:")
            print("grant", name, index, "rw" if flags & WRITE else "ro", end="")
            print("" if bell else protection(fd, flags))
            os.close(fd)
        else:
            print(kind, index, arg, text)
        if kind in last:
            return got


def main():
    path, action = sys.argv[1:3]
    if "OBD_TEST_UID" in os.environ:
        os.setgroups([])
        os.setuid(int(os.environ["OBD_TEST_UID"]))
    if action == "many":
        socks = []
        for _ in range(int(sys.argv[3])):
            socks.append(connect(path))
            socks[-1].send(message("HELLO"))
            while (got := receive(socks[-1])) and got[0] not in ("WELCOME", "REFUSED"):
                os.close(got[6])
            print(got[0], got[1], got[5])
        return
    sock = connect(path)
    if action == "hello":
        sock.send(message("HELLO"))
        show_until(sock, ("WELCOME", "REFUSED"))
        sys.stdout.flush()
        time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
    elif action == "stat":
        sock.send(message("STAT"))
        if show_until(sock, ("STAT_DONE",)):
            show_until(sock, ())
    elif action == "old":
        sock.send(message("HELLO", arg=77))
        show_until(sock, ())
    else:
        if action == "garbage":
            sock.send(message("HELLO", magic=1))
        elif action == "short":
            sock.send(b"x")
        elif action == "fds":
            sock.sendmsg([message("HELLO")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 5).tobytes())])
        elif action == "ready":
            sock.send(message("READY"))
        elif action == "twice":
            sock.send(message("HELLO"))
            sock.send(message("HELLO"))
        show_until(sock, ())


main()
