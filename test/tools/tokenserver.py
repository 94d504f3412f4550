#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A registry that wants to see who asks, and the token service that it names.

    tokenserver.py DIR --log LOG.jsonl --token-log LOG.jsonl --port-file FILE [--ttl SECONDS] [--user NAME:PASSWORD]...
                   [--jwt-key KEY --jwt-cert CERT]

Blobs are blobserver.py's, faults included. What a repository wants is the first part of its name:
    basic/…     Basic, one of the users
    token/…     Bearer, a token for that repository from /token; users may have one
    open/…      Bearer, and everybody may have a token
    public/…    nothing
    forbidden/… a token like token/…, and then 403 all the same
    silent/…    Basic, but 403 without a challenge is the answer to those who show nothing
/token gives tokens as text without meaning, or as JWT signed by KEY (RS256, for docker-registry) with service and scope as asked.
GET /token is one line of the token log: t, user, scope, status.

PUT /control changes what is in force, a JSON object with any of
    "users": {NAME: PASSWORD}   in place of all of them
    "ttl": SECONDS              of tokens given from now on
    "revoke": true              all tokens given so far
    "token_status": STATUS      what /token answers instead of a token; 0: a token
"""
import argparse
import base64
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import blobserver  # noqa: E402


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """JWTs as docker-registry checks them: the certificate goes along."""

    def __init__(self, key, cert):
        self.key = key
        der = subprocess.run(["openssl", "x509", "-in", cert, "-outform", "DER"], check=True, capture_output=True).stdout
        self.header = b64url(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}).encode())

    def token(self, user, service, repo, ttl):
        now = int(time.time())
        claims = {"iss": "tokenserver", "sub": user, "aud": service, "exp": now + ttl, "nbf": now - 5, "iat": now,
                  "jti": secrets.token_hex(8), "access": [{"type": "repository", "name": repo, "actions": ["pull"]}]}
        text = self.header + "." + b64url(json.dumps(claims).encode())
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), check=True,
                                capture_output=True).stdout
        return text + "." + b64url(signed)


class State:
    def __init__(self, args):
        self.lock = threading.Lock()
        self.users = dict(pair.split(":", 1) for pair in args.user)
        self.ttl = args.ttl
        self.tokens = {}  # token -> (repo, end)
        self.token_status = 0
        self.signer = Signer(args.jwt_key, args.jwt_cert) if args.jwt_key else None
        self.log = open(args.token_log, "a", buffering=1, encoding="utf-8")

    def change(self, wanted):
        with self.lock:
            self.users = wanted.get("users", self.users)
            self.ttl = wanted.get("ttl", self.ttl)
            self.token_status = wanted.get("token_status", self.token_status)
            if wanted.get("revoke"):
                self.tokens.clear()

    def user_of(self, header):
        """The user whom a Basic header proves; None: there is no header; "": it proves nothing."""
        if not header:
            return None
        scheme, _, text = header.partition(" ")
        try:
            name, _, password = base64.b64decode(text).decode().partition(":")
        except ValueError:
            return ""
        with self.lock:
            return name if scheme == "Basic" and self.users.get(name) == password else ""

    def give(self, user, service, repo):
        if self.signer:
            return self.signer.token(user or "", service, repo, self.ttl)
        token = secrets.token_urlsafe(30)
        with self.lock:
            self.tokens[token] = (repo, time.monotonic() + self.ttl)
        return token

    def is_good(self, header, repo):
        scheme, _, token = (header or "").partition(" ")
        with self.lock:
            known = self.tokens.get(token, (None, 0))
        return scheme == "Bearer" and known[0] == repo and time.monotonic() < known[1]


class Handler(blobserver.Handler):
    def do_PUT(self):
        if self.path != "/control":
            return super().do_PUT()
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.sent = 0
        self.server.state.change(json.loads(text))
        return self.answer(204)

    def do_GET(self):
        if self.path.startswith("/token?"):
            self.sent = 0
            return self.serve_token()
        return super().do_GET()

    do_HEAD = do_GET

    def serve_token(self):
        state = self.server.state
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        scope = query.get("scope", [""])[0]
        repo = scope.split(":")[1] if scope.count(":") == 2 else ""
        user = state.user_of(self.headers.get("Authorization"))
        status = state.token_status or (200 if user or (user is None and repo.startswith("open/")) else 401)
        state.log.write(json.dumps({"t": round(time.time(), 3), "user": user, "scope": scope, "status": status}) + "\n")
        if status != 200:
            return self.answer(status, body=b'{"errors":[]}\n')
        text = {"token": state.give(user, query.get("service", [""])[0], repo), "expires_in": state.ttl,
                "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        return self.answer(200, {"Content-Type": "application/json"}, json.dumps(text).encode())

    def is_welcome(self, repo):
        """Answers those who are not."""
        state, kind, header = self.server.state, repo.split("/")[0], self.headers.get("Authorization")
        if kind == "public":
            return True
        if kind in ("basic", "silent"):
            if state.user_of(header):
                return True
            challenge = {} if kind == "silent" and not header else {"WWW-Authenticate": 'Basic realm="the test, all of it"'}
            self.answer(401 if challenge else 403, challenge, b"{}\n")
            return False
        if state.is_good(header, repo):
            if kind == "forbidden":
                self.answer(403, body=b"{}\n")
            return kind != "forbidden"
        where = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        self.answer(401, {"WWW-Authenticate": f'Bearer realm="{where}",service="test service",scope="repository:{repo}:pull"'},
                    b"{}\n")
        return False

    def serve_blob(self, asked):
        match = blobserver.BLOB.match(self.path)
        if match and not self.is_welcome(match["repo"]):
            return
        super().serve_blob(asked)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--log", required=True)
    parser.add_argument("--token-log", required=True)
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--ttl", type=int, default=60)
    parser.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD")
    parser.add_argument("--jwt-key")
    parser.add_argument("--jwt-cert")
    parser.set_defaults(seed=1, tls=None, client_ca=None, sign_key="", sign_ttl=60, require_sig=False)  # blobserver.py's
    args = parser.parse_args()
    with open(args.log, "a", buffering=1, encoding="utf-8") as log:
        server = blobserver.Server(("127.0.0.1", 0), args, log)
        server.RequestHandlerClass = Handler
        server.state = State(args)
        with open(args.port_file + ".new", "w", encoding="ascii") as f:
            f.write(f"{server.server_address[1]}\n")
        os.rename(args.port_file + ".new", args.port_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
