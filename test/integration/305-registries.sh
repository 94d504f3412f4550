#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The real docker-registry in all its moods: plain, TLS with an authority of our own, Basic, and tokens of 60 s signed for it.
# A whole image is read from each, and what obd-stat counts is what the registry's own access log says.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/auth.sh"

# serve_registry NAME SCHEME [yaml line...]: sets REGISTRY and ACCESS, the log of its requests.
serve_registry() {
	local name=$1 scheme=$2 port
	shift 2
	port=$(free_port)
	REGISTRY=$scheme://127.0.0.1:$port ACCESS=$WORK/access-$name.txt
	{
		echo "version: 0.1"
		echo "log: {level: error, accesslog: {disabled: false}}"
		echo "storage: {filesystem: {rootdirectory: $WORK/registry}}"
		echo "http:"
		echo "  addr: 127.0.0.1:$port"
		printf '%s\n' "$@"
	} >"$WORK/registry-$name.yml"
	docker-registry serve "$WORK/registry-$name.yml" >"$ACCESS" 2>"$WORK/registry-$name.log" </dev/null &
	OWN_PIDS+=($!)
	wait_for 20 curl -sk -o /dev/null --max-time 2 "$REGISTRY/v2/" || bail "docker-registry ($name) does not answer"
}

make_certificate() { # NAME [openssl options]: $WORK/NAME.{key,crt}
	local name=$1
	shift
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name" -keyout "$WORK/$name.key" -out "$WORK/$name.crt" "$@" \
		>/dev/null 2>&1 || bail "openssl"
}

# counts_agree: requests and body bytes of blobs, obd-stat's and the access log's.
counts_agree() {
	"$B/bin/obd-stat" -r "$RUN" --json >"$WORK/stat.json" || return 1
	python3 - "$WORK/stat.json" "$ACCESS" <<-'END'
		import json, re, sys

		stat = json.load(open(sys.argv[1]))["counters"]["total"]
		line = re.compile(r'"GET /v2/.+/blobs/\S+ HTTP/[0-9.]+" (\d+) (\d+)')
		rows = [m for m in map(line.search, open(sys.argv[2])) if m]
		requests, sent = len(rows), sum(int(m[2]) for m in rows)
		ours, fetched = stat["http_requests"], stat["bytes_fetched"]
		print(f"requests: {ours}, the registry says {requests}; bytes: {fetched}, the registry says {sent}")
		sys.exit(not (requests and abs(ours - requests) <= requests / 100 and abs(fetched - sent) <= sent / 100))
	END
}

# read_all NAME: a new group, whose counters begin at 0, reads the image from $REGISTRY.
read_all() {
	local name=$1
	python3 "$TOOLS/ocipush.py" write-config "$WORK/$name.json" --from "$WORK/pushed.json" \
		--repo-blob-url "$REGISTRY/v2/team/image/blobs" --result "$WORK/$name.json.result"
	check "$name: the group starts" start_group
	check "$name: opens" eval 'wait_for 20 new_lun 1 "$WORK/'"$name"'.json" && "$ISCSI" wait-ready -W 20 "$(url 1)"'
	check "$name: all bytes" verify_lun 1 "$RAW" -b 256K
	check "$name: the result says success" grep -qx success "$WORK/$name.json.result"
	check "$name: obd-stat counts what the registry counts" eval 'wait_for 5 counts_agree || counts_agree'
	remove_lun 1
	check "$name: the group stops" stop_group
}

need_image
command -v docker-registry >/dev/null || bail "docker-registry is not installed"
mkdir -p "$WORK/registry"
CRED=$WORK/cred.json
CONF[credentialConfig]="{path: $CRED}"
CONF[readTimeoutSec]=20
CONF[logConfig]="{logLevel: 0, logPath: $WORK/group.log}"

serve_registry plain http
python3 "$TOOLS/ocipush.py" push "$REGISTRY" team/image latest "${LAYERS[@]}" >"$WORK/pushed.json" || bail "push"
end_process "${OWN_PIDS[-1]}" 5
serve_registry plain http # a new log
start_tgtd
read_all plain

make_certificate registry -addext subjectAltName=IP:127.0.0.1
tls=("  tls:" "    certificate: $WORK/registry.crt" "    key: $WORK/registry.key")
serve_registry tls https "${tls[@]}"
CONF[registries]="[{host: '${REGISTRY#https://}', caFile: $WORK/registry.crt}]"
read_all tls

# docker-registry knows bcrypt only; perl's crypt has it.
# shellcheck disable=SC2016 # perl expands
PASSWORD=$PASSWORD perl -e 'print "alice:", crypt($ENV{PASSWORD}, q($2b$05$abcdefghijklmnopqrstuu)), "\n"' >"$WORK/htpasswd"
grep -q '^alice:\$2b\$' "$WORK/htpasswd" || bail "this crypt(3) has no bcrypt"
serve_registry basic https "${tls[@]}" "auth:" "  htpasswd:" "    realm: of the test" "    path: $WORK/htpasswd"
CONF[registries]="[{host: '${REGISTRY#https://}', caFile: $WORK/registry.crt}]"
GATE=$REGISTRY credentials "$CRED" "$PASSWORD"
read_all basic

make_certificate signer
start_tokenserver --ttl 60 --jwt-key "$WORK/signer.key" --jwt-cert "$WORK/signer.crt"
serve_registry token http "auth:" "  token:" "    realm: $GATE/token" "    service: the registry" "    issuer: tokenserver" \
	"    rootcertbundle: $WORK/signer.crt"
CONF[registries]="[]"
GATE=$REGISTRY credentials "$CRED" "$PASSWORD"
read_all token
check "token: few requests for tokens" test "$(token_requests status=200)" -le 2

stop_tgtd
check "no secret in logs and results" no_secret_in "$WORK/group.log" "$WORK/supervisor.log" "$WORK/tgtd.log" "$WORK"/*.result
