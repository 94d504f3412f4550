#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Credentials from a service, by its three ways. Each group is a new one, so that nothing is known of the registry.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/auth.sh"

need_image
LAYER=${LAYERS[0]} STEP=${STEPS[0]}
start_tokenserver --ttl 60
CONF[readTimeoutSec]=20
CONF[logConfig]="{logLevel: 0, logPath: $WORK/group.log}"
gate_config token token/image "$LAYER"
gate_config basic basic/image "$LAYER"
gate_config fresh token/fresh "${LAYERS[1]}"
credentials "$WORK/service.json" "$PASSWORD"
start_credserver() { # NAME [option...]: sets CREDLOG
	local name=$1
	shift
	CREDLOG=$WORK/cred-$name.jsonl
	python3 "$TOOLS/credserver.py" "$WORK/service.json" --log "$CREDLOG" "$@" >>"$WORK/credserver.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
}

make_certificate() { # NAME [openssl options]: $WORK/NAME.{key,crt}
	local name=$1
	shift
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name" -keyout "$WORK/$name.key" -out "$WORK/$name.crt" "$@" \
		>/dev/null 2>&1 || bail "openssl"
}

with_service() { # NAME LUN CONFIG: a group with that credentialConfig opens token.json and basic.json
	CONF[credentialConfig]=$3
	rm -f "$WORK"/{token,basic}.json.result
	check "mode $1: the group starts" start_group
	check "mode $1: a token" opens_in_new_group token "$2"
	check "mode $1: Basic" opens basic $(($2 + 1))
	check "mode $1: all bytes" verify_lun "$2" "$STEP" -l 16M
	check "mode $1: the service was told the blob" grep -q "\"url\": \"$GATE/v2/token/image/blobs/sha256:" "$CREDLOG"
	remove_lun "$2"
	remove_lun $(($2 + 1))
}

start_tgtd
start_credserver uds --unix "$WORK/cred.sock"
wait_for 10 test -S "$WORK/cred.sock"
with_service uds 11 "{mode: uds, path: $WORK/cred.sock, timeout: 5}"
check "mode uds: at /auth" grep -q '"path": "/auth"' "$CREDLOG"
check "the group stops" stop_group

start_credserver http --port-file "$WORK/cred-http.port"
wait_for 10 test -s "$WORK/cred-http.port"
with_service http 11 "{mode: http, path: 'http://127.0.0.1:$(cat "$WORK/cred-http.port")/who', timeout: 5}"
check "a refused credential of a service is asked for again" eval '
	control "{\"users\": {\"alice\": \"new\"}, \"revoke\": true}"
	credentials "$WORK/service.json" new
	rm -f "$WORK/fresh.json.result"
	opens fresh 13'
remove_lun 13
control "{\"users\": {\"alice\": \"$PASSWORD\"}}"
credentials "$WORK/service.json" "$PASSWORD"
check "the group stops" stop_group

make_certificate service -addext subjectAltName=IP:127.0.0.1
make_certificate node
start_credserver https --port-file "$WORK/cred-https.port" --cert "$WORK/service.crt" --key "$WORK/service.key" \
	--client-ca "$WORK/node.crt"
wait_for 10 test -s "$WORK/cred-https.port"
https="mode: https, path: 'https://127.0.0.1:$(cat "$WORK/cred-https.port")/who', timeout: 5"
certificate="client_cert_path: $WORK/node.crt, client_key_path: $WORK/node.key"
with_service https 11 "{$https, $certificate, server_ca_path: $WORK/service.crt}"
check "the group stops" stop_group
CONF[credentialConfig]="{$https, $certificate, server_ca_path: $WORK/node.crt}"
check "a service with another authority's certificate: the group starts" start_group
rm -f "$WORK"/token.json.result
wait_for 20 new_lun 11 "$WORK/token.json"
check "is not believed" result_is token failed:
stop_tgtd
check "the group stops" stop_group
check "no secret in logs and results" no_secret_in "$WORK/group.log" "$WORK/supervisor.log" "$WORK/tgtd.log" "$WORK"/*.result
