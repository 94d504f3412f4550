#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A blob server that can be told to misbehave.

    blobserver.py DIR --log LOG.jsonl [--port N] [--port-file FILE] [--seed N]
                  [--tls CERT,KEY [--client-ca CA]] [--sign-key KEY [--sign-ttl S] [--require-sig]]

Serves GET and HEAD of /v2/<repo>/blobs/sha256:<hex> from DIR/<hex>, HTTP/1.1 with keep-alive and ranges, on 127.0.0.1. A prefix
that ends in an address (/p2p/http://HOST/v2/..., or the whole address as HTTP proxies get it) is taken off.
Each finished request is one JSON line of the log: t, repo, digest, range (as asked), first, sent (body bytes that the other
side's kernel took for sure), handed (that we gave our kernel), status, fault, conn (a number per connection), via (the prefix), auth (was there an Authorization), agent,
cert (common name of the client's certificate).

With --require-sig it is an object storage: it takes only addresses that a server with the same --sign-key has redirected to
(?exp=..&sig=..), 403 when they are wrong or too old, and 400 when there is an Authorization as well.

Faults: PUT /faults with a JSON list replaces all of them, GET /faults shows them with their counts. The first one that
matches a request is applied.
    "path": "regex"         only requests whose path matches (default all)
    "range": true           only requests with a Range header
    "skip": N, "count": N   let N matches through first; apply at most N times
    "prob": P               apply with that probability, else look at the next rule
  and one of
    "kind": "hang"          read the request, never answer ("seconds": N then close; default for ever)
            "refuse"        close the connection without an answer
            "reset"         the same with a TCP reset
            "delay"         answer rightly after "ms"
            "status"        answer "status" with "headers" (401 with a Basic challenge, 429 and 503 with Retry-After: 1)
            "redirect"      307 to the base address "to" and the same path, signed if there is a key, with "headers"
            "truncate"      the right header, "bytes" of the body, then close
            "corrupt"       flip the bits of the blob's byte at "offset" whenever a body holds it (default: in the middle
                            of the body)
            "garbage"       the right header over a body of noise
            "hang-body"     the right header, "bytes" of the body, then nothing for "seconds"
            "reset-body"    the right header, "bytes" of the body, then a TCP reset
            "oversized"     a chunked body that is longer than the header says
            "bad-range"     a Content-Range that is not what was asked for; "how": shift, short, total, missing, garbage
            "gzip"          the body compressed, whatever encoding was asked for
            "chunked"       the right body in chunks, without Content-Length
            "no-length"     the right body, ended by closing the connection
            "whole"         200 and the whole blob, whatever range was asked for
            "not-http"      bytes that are no HTTP answer
            "slow"          the body at "bytes_per_s"
"""
import argparse
import fcntl
import gzip
import hashlib
import hmac
import itertools
import json
import os
import random
import re
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOB = re.compile(r"^/v2/(?P<repo>.+)/blobs/sha256:(?P<hex>[0-9a-f]{64})$")
RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
PREFIX = re.compile(r"^(?P<via>(?:/[^:]*/)?https?://[^/]+)(?P<path>/.*)$")
SEND_BYTES = 256 * 1024


class Faults:
    def __init__(self, seed):
        self.lock = threading.Lock()
        self.rules = []
        self.random = random.Random(seed)

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
                if self.random.random() >= rule.get("prob", 1):
                    continue
                rule["applied"] += 1
                return dict(rule)
        return {"kind": None}


class Close(Exception):
    """End the connection now."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address, args, log):
        super().__init__(address, Handler)
        # Small segments are acknowledged at once, so that the log knows what was taken of a body that was given up.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.root = args.root
        self.args = args
        self.log = log
        self.tls = None
        if args.tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*args.tls.split(","))
            if args.client_ca:
                self.tls.load_verify_locations(args.client_ca)
                self.tls.verify_mode = ssl.CERT_REQUIRED
        self.log_lock = threading.Lock()
        self.faults = Faults(args.seed)
        self.connection_numbers = itertools.count(1)

    def finish_request(self, request, client_address):
        if self.tls:
            request.settimeout(30)
            request = self.tls.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)
        if self.tls:
            request.close()

    def sign(self, path, end):
        return hmac.new(self.args.sign_key.encode(), f"{path} {end}".encode(), hashlib.sha256).hexdigest()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, Close)):
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
        self.via = None
        prefixed = PREFIX.match(self.path)
        if prefixed:
            self.via, self.path = prefixed["via"], prefixed["path"]
        asked = self.headers.get("Range")
        self.fault = self.server.faults.pick(self.path, asked is not None)
        try:
            self.serve_blob(asked)
        except (Close, OSError):
            self.close_connection = True
        finally:
            self.handed = self.sent
            self.sent = max(0, self.sent - self.not_taken())
            self.record(asked)
        return None

    do_HEAD = do_GET

    def not_taken(self):
        """Bytes in our socket that the other side never took, once it has taken all or gone away."""
        if not self.fault["kind"] or self.server.tls or self.connection.fileno() < 0:
            return 0
        watch = select.poll()
        watch.register(self.connection, 0)
        for _ in range(200):
            left = struct.unpack("i", fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
            if left == 0 or watch.poll(10):
                return left
        return 0

    def common_name(self):
        cert = self.connection.getpeercert() if self.server.tls else None
        return next((v for part in (cert or {}).get("subject", ()) for k, v in part if k == "commonName"), None)

    def record(self, asked):
        match = BLOB.match(self.path.split("?")[0])
        line = json.dumps({"t": round(time.time(), 4), "repo": match and match["repo"], "digest": match and match["hex"],
                           "method": self.command, "range": asked, "first": self.first, "sent": self.sent, "handed": self.handed,
                           "status": self.status, "fault": self.fault["kind"], "conn": self.number, "via": self.via,
                           "auth": "Authorization" in self.headers, "agent": self.headers.get("User-Agent"),
                           "cert": self.common_name()})
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
            if "headers" in self.fault:
                self.answer(status, self.fault["headers"], b"told to fail\n")
                return True
            extra = {401: {"WWW-Authenticate": 'Basic realm="test"'}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
            self.answer(status, extra.get(status, {}), b"told to fail\n")
            return True
        if kind == "redirect":
            where = self.fault["to"] + self.path
            if self.server.args.sign_key:
                end = f"{time.time() + self.server.args.sign_ttl:.3f}"
                where += f"?exp={end}&sig={self.server.sign(self.path, end)}"
            self.answer(307, dict(self.fault.get("headers", {}), Location=where))
            return True
        return False

    def misses_signature(self):
        """As object storages do: True when it has answered."""
        path, _, query = self.path.partition("?")
        given = dict(pair.partition("=")[::2] for pair in query.split("&"))
        if "Authorization" in self.headers:
            self.answer(400, body=b"<Error><Code>InvalidArgument</Code></Error>\n")
        elif not hmac.compare_digest(given.get("sig", ""), self.server.sign(path, given.get("exp", ""))):
            self.answer(403, body=b"<Error><Code>AccessDenied</Code></Error>\n")
        elif float(given["exp"]) < time.time():
            self.answer(403, body=b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>\n")
        else:
            return False
        return True

    def serve_blob(self, asked):
        if self.misbehave_early():
            return
        if self.server.args.require_sig and self.misses_signature():
            return
        match = BLOB.match(self.path.split("?")[0])
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
        kind = self.fault["kind"]
        self.status = 206 if part else 200
        self.send_response(self.status)
        ranges = {"shift": f"bytes {first + 512}-{last + 512}/{size + 512}", "short": f"bytes {first}-{last - 1}/{size}",
                  "total": f"bytes {first}-{last}/{size * 2}", "garbage": "bytes zz-/", "missing": None}
        text = ranges[self.fault.get("how", "shift")] if kind == "bad-range" else f"bytes {first}-{last}/{size}"
        if part and text:
            self.send_header("Content-Range", text)
        if kind == "no-length":
            self.send_header("Connection", "close")
        elif kind in ("chunked", "oversized"):
            self.send_header("Transfer-Encoding", "chunked")
        elif kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        else:
            self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        if kind != "gzip":
            self.end_headers()

    def send_bytes(self, data):
        """Counts what went out even when the rest does not."""
        view = memoryview(data)
        while view:
            n = self.connection.send(view)
            self.sent += n
            view = view[n:]

    def send_framed(self, f, length):
        kind = self.fault["kind"]
        body = f.read(length)
        if kind == "gzip":
            body = gzip.compress(body, 1)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.send_bytes(body)
            return
        if kind == "oversized":
            body += b"more than was asked for " * 100
        for at in range(0, len(body), SEND_BYTES):
            chunk = body[at:at + SEND_BYTES]
            self.connection.sendall(b"%x\r\n" % len(chunk))
            self.send_bytes(chunk)
            self.connection.sendall(b"\r\n")
        self.connection.sendall(b"0\r\n\r\n")

    def stop_body(self):
        kind = self.fault["kind"]
        if kind == "hang-body":
            time.sleep(self.fault.get("seconds", 1 << 30))
        if kind == "reset-body":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Close

    def send_body(self, f, first, length):
        kind = self.fault["kind"]
        limit = min(length, self.fault.get("bytes", 0)) if kind in ("truncate", "hang-body", "reset-body") else length
        f.seek(first)
        if kind in ("gzip", "chunked", "oversized"):
            self.send_framed(f, length)
            return
        while self.sent < limit:
            chunk = bytearray(f.read(min(SEND_BYTES, limit - self.sent)))
            at = first + self.sent
            if kind == "garbage":
                chunk = random.Random(at).randbytes(len(chunk))
            elif kind == "corrupt":
                bad = self.fault.get("offset", first + length // 2)
                if at <= bad < at + len(chunk):
                    chunk[bad - at] ^= 0xFF
            elif kind == "slow":
                time.sleep(len(chunk) / self.fault["bytes_per_s"])
            self.send_bytes(chunk)
        if limit < length:
            self.stop_body()
        if kind == "no-length":
            self.close_connection = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls")
    parser.add_argument("--client-ca")
    parser.add_argument("--sign-key", default="")
    parser.add_argument("--sign-ttl", type=float, default=60)
    parser.add_argument("--require-sig", action="store_true")
    args = parser.parse_args()
    with open(args.log, "a", buffering=1, encoding="utf-8") as log:
        server = Server(("127.0.0.1", args.port), args, log)
        if args.port_file:
            with open(args.port_file + ".new", "w", encoding="ascii") as f:
                f.write(f"{server.server_address[1]}\n")
            os.rename(args.port_file + ".new", args.port_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
