#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A blob server that can be told to misbehave.

    blobserver.py DIR --log LOG.jsonl [--port N] [--port-file FILE]

Serves GET and HEAD of /v2/<repo>/blobs/sha256:<hex> from DIR/<hex>, HTTP/1.1 with keep-alive and ranges, on 127.0.0.1.
Each finished request is one JSON line of the log: t, repo, digest, range (as asked), first, sent (body bytes), status,
fault, conn (a number per connection).

Faults: PUT /faults with a JSON list replaces all of them, GET /faults shows them with their counts. The first one that
matches a request is applied.
    "path": "regex"         only requests whose path matches (default all)
    "range": true           only requests with a Range header
    "skip": N, "count": N   let N matches through first; apply at most N times
  and one of
    "kind": "hang"          read the request, never answer ("seconds": N then close; default for ever)
            "refuse"        close the connection without an answer
            "reset"         the same with a TCP reset
            "delay"         answer rightly after "ms"
            "status"        answer "status" (401 with a Basic challenge, 429 and 503 with Retry-After: 1)
            "truncate"      the right header, "bytes" of the body, then close
            "corrupt"       flip the bits of the blob's byte at "offset" whenever a body holds it (default: the first byte)
            "garbage"       the right header over a body of noise
            "bad-range"     a Content-Range that is not what was asked for
            "whole"         200 and the whole blob, whatever range was asked for
            "not-http"      bytes that are no HTTP answer
            "slow"          the body at "bytes_per_s"
"""
import argparse
import itertools
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOB = re.compile(r"^/v2/(?P<repo>.+)/blobs/sha256:(?P<hex>[0-9a-f]{64})$")
RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
SEND_BYTES = 256 * 1024


class Faults:
    def __init__(self):
        self.lock = threading.Lock()
        self.rules = []

    def replace(self, rules):
        with self.lock:
            self.rules = [dict(rule, seen=0, applied=0) for rule in rules]

    def pick(self, path, has_range):
        with self.lock:
            for rule in self.rules:
                if not re.search(rule.get("path", ""), path) or (rule.get("range") and not has_range):
                    continue
                rule["seen"] += 1
                if rule["seen"] <= rule.get("skip", 0) or rule["applied"] >= rule.get("count", 1 << 60):
                    continue
                rule["applied"] += 1
                return dict(rule)
        return {"kind": None}


class Close(Exception):
    """End the connection now."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address, root, log):
        super().__init__(address, Handler)
        self.root = root
        self.log = log
        self.log_lock = threading.Lock()
        self.faults = Faults()
        self.connection_numbers = itertools.count(1)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, Close)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.number = next(self.server.connection_numbers)

    def log_message(self, *_):
        pass

    def answer(self, status, headers=(), body=b""):
        self.status = status
        self.send_response(status)
        headers = dict(headers)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.sent += len(body)

    def do_PUT(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.sent = 0
        if self.path != "/faults":
            return self.answer(404)
        try:
            self.server.faults.replace(json.loads(text))
        except (ValueError, TypeError) as why:
            return self.answer(400, body=str(why).encode())
        return self.answer(204)

    def do_GET(self):
        self.sent = 0
        if self.path == "/faults":
            with self.server.faults.lock:
                text = json.dumps(self.server.faults.rules).encode()
            return self.answer(200, body=text)
        if self.path in ("/v2", "/v2/"):
            return self.answer(200)
        self.status = 0
        self.first = None
        asked = self.headers.get("Range")
        self.fault = self.server.faults.pick(self.path, asked is not None)
        try:
            self.serve_blob(asked)
        except (Close, ConnectionError, TimeoutError):
            self.close_connection = True
        finally:
            self.record(asked)
        return None

    do_HEAD = do_GET

    def record(self, asked):
        match = BLOB.match(self.path)
        line = json.dumps({"t": round(time.time(), 4), "repo": match and match["repo"], "digest": match and match["hex"],
                           "method": self.command, "range": asked, "first": self.first, "sent": self.sent,
                           "status": self.status, "fault": self.fault["kind"], "conn": self.number})
        with self.server.log_lock:
            self.server.log.write(line + "\n")

    def misbehave_early(self):
        """Faults that take the place of an answer. True when one has answered."""
        kind = self.fault["kind"]
        if kind == "hang":
            time.sleep(self.fault.get("seconds", 1 << 30))
            raise Close
        if kind == "refuse":
            raise Close
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Close
        if kind == "not-http":
            self.wfile.write(b"\x16\x03\x01 this is not the protocol you are looking for\r\n\r\n")
            raise Close
        if kind == "delay":
            time.sleep(self.fault.get("ms", 100) / 1000)
        if kind == "status":
            status = self.fault["status"]
            extra = {401: {"WWW-Authenticate": 'Basic realm="test"'}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
            self.answer(status, extra.get(status, {}), b"told to fail\n")
            return True
        return False

    def serve_blob(self, asked):
        if self.misbehave_early():
            return
        match = BLOB.match(self.path)
        path = os.path.join(self.server.root, match["hex"]) if match else None
        if not path or not os.path.exists(path):
            self.answer(404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}\n')
            return
        size = os.path.getsize(path)
        part = None if self.fault["kind"] == "whole" else self.parse_range(asked, size)
        if part == "unsatisfiable":
            self.answer(416, {"Content-Range": f"bytes */{size}"})
            return
        first, last = part or (0, size - 1)
        self.first = first
        self.send_head(part, first, last, size)
        if self.command != "HEAD":
            with open(path, "rb") as f:
                self.send_body(f, first, last - first + 1)

    @staticmethod
    def parse_range(asked, size):
        """(first, last), None for the whole blob, or "unsatisfiable"."""
        match = RANGE.match(asked or "")
        if not match or match.groups() == ("", ""):
            return None
        low, high = match.groups()
        first = int(low) if low else max(0, size - int(high))
        last = min(int(high), size - 1) if low and high else size - 1
        return (first, last) if first < size and first <= last else "unsatisfiable"

    def send_head(self, part, first, last, size):
        self.status = 206 if part else 200
        self.send_response(self.status)
        if part and self.fault["kind"] == "bad-range":
            self.send_header("Content-Range", f"bytes {first + 512}-{last + 512}/{size + 512}")
        elif part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def send_body(self, f, first, length):
        kind = self.fault["kind"]
        limit = min(length, self.fault.get("bytes", 0)) if kind == "truncate" else length
        f.seek(first)
        while self.sent < limit:
            chunk = bytearray(f.read(min(SEND_BYTES, limit - self.sent)))
            at = first + self.sent
            if kind == "garbage":
                chunk = random.Random(at).randbytes(len(chunk))
            elif kind == "corrupt":
                bad = self.fault.get("offset", first)
                if at <= bad < at + len(chunk):
                    chunk[bad - at] ^= 0xFF
            elif kind == "slow":
                time.sleep(len(chunk) / self.fault["bytes_per_s"])
            self.wfile.write(chunk)
            self.sent += len(chunk)
        if limit < length:
            raise Close


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    args = parser.parse_args()
    with open(args.log, "a", buffering=1, encoding="utf-8") as log:
        server = Server(("127.0.0.1", args.port), args.root, log)
        if args.port_file:
            with open(args.port_file + ".new", "w", encoding="ascii") as f:
                f.write(f"{server.server_address[1]}\n")
            os.rename(args.port_file + ".new", args.port_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
