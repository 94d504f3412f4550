#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Put layers into a registry, and write image configs.

    ocipush.py push http://HOST:PORT REPO TAG LAYER...
        Uploads each file as a blob (skipped when it is there), an image config and a manifest.
        Prints {"repoBlobUrl": ..., "lowers": [{"digest": ..., "size": ...}, ...]}.

    ocipush.py store DIR LAYER...
        The same without a registry: links each file into DIR under its digest (for blobserver.py). Prints {"lowers": ...}.

    ocipush.py write-config OUT [LAYER ...] [--from PUSHED.json] [--repo-blob-url URL] [--result FILE] [--dir DIR]
        Writes the image config that a LUN is opened with: lowers from PUSHED.json (the output of push or store; - for
        standard input), then local files, bottom to top. --dir gives each remote layer a directory below DIR.
        --set KEY=JSON adds any other member.

Plain HTTP, no credentials.
"""
import argparse
import hashlib
import http.client
import json
import os
import sys
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return "sha256:" + digest.hexdigest()


class Registry:
    def __init__(self, base):
        where = urllib.parse.urlsplit(base)
        self.connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)

    def call(self, method, path, want, body=b"", headers=None):
        """The answer, which must have a status out of want."""
        headers = dict(headers or {})
        if hasattr(body, "fileno"):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in want:
            sys.exit(f"ocipush.py: {method} {path}: {answer.status} {text[:200]!r}")
        return answer

    def put_blob(self, repo, digest, body):
        if self.call("HEAD", f"/v2/{repo}/blobs/{digest}", (200, 404)).status == 200:
            return
        begun = self.call("POST", f"/v2/{repo}/blobs/uploads/", (202,))
        where = urllib.parse.urlsplit(begun.getheader("Location"))
        query = where.query + ("&" if where.query else "") + "digest=" + digest
        self.call("PUT", f"{where.path}?{query}", (201,), body, {"Content-Type": "application/octet-stream"})

    def put_json(self, repo, value, media_type):
        text = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(text).hexdigest()
        self.put_blob(repo, digest, text)
        return {"mediaType": media_type, "digest": digest, "size": len(text)}


def push(args):
    registry = Registry(args.base)
    layers = []
    for path in args.layers:
        digest = digest_of(path)
        with open(path, "rb") as f:
            registry.put_blob(args.repo, digest, f)
        layers.append({"mediaType": LAYER, "digest": digest, "size": os.path.getsize(path)})
    config = {"architecture": "amd64", "os": "linux",
              "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": registry.put_json(args.repo, config, CONFIG),
                "layers": layers}
    registry.call("PUT", f"/v2/{args.repo}/manifests/{args.tag}", (201,), json.dumps(manifest).encode(),
                  {"Content-Type": MANIFEST})
    print(json.dumps({"repoBlobUrl": f"{args.base}/v2/{args.repo}/blobs",
                      "lowers": [{"digest": layer["digest"], "size": layer["size"]} for layer in layers]}))


def store(args):
    lowers = []
    os.makedirs(args.directory, exist_ok=True)
    for path in args.layers:
        digest = digest_of(path)
        place = os.path.join(args.directory, digest.removeprefix("sha256:"))
        if not os.path.exists(place):
            os.link(path, place)
        lowers.append({"digest": digest, "size": os.path.getsize(path)})
    print(json.dumps({"lowers": lowers}))


def write_config(args):
    config = {}
    if args.pushed:
        with sys.stdin if args.pushed == "-" else open(args.pushed, encoding="utf-8") as f:
            config = json.load(f)
    if args.repo_blob_url:
        config["repoBlobUrl"] = args.repo_blob_url
    lowers = config.setdefault("lowers", [])
    for lower in lowers:
        if args.dir:
            lower["dir"] = os.path.join(args.dir, lower["digest"].removeprefix("sha256:")[:12])
            os.makedirs(lower["dir"], exist_ok=True)
    lowers += [{"file": os.path.abspath(path)} for path in args.layers]
    if args.result:
        config["resultFile"] = os.path.abspath(args.result)
    for pair in args.set:
        key, value = pair.split("=", 1)
        config[key] = json.loads(value)
    with open(args.out, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    p = verbs.add_parser("push")
    p.add_argument("base")
    p.add_argument("repo")
    p.add_argument("tag")
    p.add_argument("layers", nargs="+")
    p.set_defaults(run=push)
    p = verbs.add_parser("store")
    p.add_argument("directory")
    p.add_argument("layers", nargs="+")
    p.set_defaults(run=store)
    p = verbs.add_parser("write-config")
    p.add_argument("out")
    p.add_argument("--from", dest="pushed")
    p.add_argument("--repo-blob-url")
    p.add_argument("--result")
    p.add_argument("--dir")
    p.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    p.add_argument("layers", nargs="*")
    p.set_defaults(run=write_config)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
