#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A credential service.

    credserver.py CREDENTIALS.json --log LOG.jsonl (--unix SOCKET | --port-file FILE [--cert CERT --key KEY --client-ca CA])
                  [--delay SECONDS]

Answers GET …?remote_url=URL with {"success": true, "traceId": …, "data": CREDENTIALS}. With --cert it speaks TLS, and with
--client-ca it talks to those only who show a certificate of that authority. Each request is one line of the log: path, url.
"""
import argparse
import http.server
import json
import os
import socketserver
import ssl
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "client"

    def do_GET(self):
        args = self.server.args
        where = urllib.parse.urlsplit(self.path)
        url = urllib.parse.parse_qs(where.query).get("remote_url", [""])[0]
        with open(args.log, "a", encoding="utf-8") as log:
            log.write(json.dumps({"path": where.path, "url": url}) + "\n")
        time.sleep(args.delay)
        with open(args.credentials, encoding="utf-8") as f:
            data = json.load(f)
        text = json.dumps({"success": bool(url), "traceId": "trace", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("credentials")
    parser.add_argument("--log", required=True)
    parser.add_argument("--unix")
    parser.add_argument("--port-file")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca")
    parser.add_argument("--delay", type=float, default=0)
    args = parser.parse_args()
    if args.unix:
        server = UnixServer(args.unix, Handler)
    else:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.args = args
    if args.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
        if args.client_ca:
            context.load_verify_locations(args.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    if args.port_file:
        with open(args.port_file + ".new", "w", encoding="ascii") as f:
            f.write(f"{server.server_address[1]}\n")
        os.rename(args.port_file + ".new", args.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
