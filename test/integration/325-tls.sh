#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# TLS with an authority of our own and a client certificate, HTTP/2, and how few connections it takes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

make_certificates() {
	{
		openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=our authority" -keyout "$WORK/ca.key" -out "$WORK/ca.crt"
		for name in server client; do
			openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$WORK/$name.key" -out "$WORK/$name.csr"
			openssl x509 -req -days 2 -in "$WORK/$name.csr" -CA "$WORK/ca.crt" -CAkey "$WORK/ca.key" -CAcreateserial \
				-extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost") -out "$WORK/$name.crt"
		done
	} >/dev/null 2>&1
}

need_big_image 24
CONF[readaheadKB]=0
make_certificates || bail "openssl"
start_tgtd

# ---- TLS --------------------------------------------------------------------------------------------------------------
server tls --tls "$WORK/server.crt,$WORK/server.key" --client-ca "$WORK/ca.crt"
T=127.0.0.1:$(port tls)
CONF[readTimeoutSec]=5
result_says() { wait_for 30 grep -q "$1" "$WORK/big.json.result" || { cat "$WORK/big.json.result" && return 1; }; }
refused_by() { rm -f "$WORK/big.json.result" && ! group_for "https://$T" >/dev/null 2>&1; }
CONF[certConfig]="{certFile: $WORK/client.crt, keyFile: $WORK/client.key}"
check "TLS: an authority that the system does not know is refused" eval 'refused_by && result_says "authentication failed at $T"'
end_group >/dev/null
CONF[registries]="[{host: \"$T\", caFile: \"$WORK/ca.crt\"}]"
check "TLS: opens with caFile and our certificate" group_for "https://$T"
check "TLS: bytes" part 0 8
check "TLS: the server saw our certificate" eval 'at_least 5 tls "row[\"cert\"] == \"client\"" && none tls "row[\"cert\"] != \"client\""'
check "TLS: connections are used again" eval 'echo "$(counter connections) for $(counter http_requests)"; [ $(($(counter connections) * 3)) -lt "$(counter http_requests)" ]'
check "the group stops" end_group
unset 'CONF[certConfig]'
mark tls
check "TLS: without our certificate nothing is had" eval 'refused_by && none tls'
end_group >/dev/null
CONF[readTimeoutSec]=40

# ---- HTTP/2 -----------------------------------------------------------------------------------------------------------
# Debian's registry offers it with TLS.
serve_h2() {
	local port
	port=$(free_port)
	H=127.0.0.1:$port
	mkdir -p "$WORK/registry"
	cat >"$WORK/registry.yml" <<-END
		version: 0.1
		log: {level: error, accesslog: {disabled: false}}
		storage: {filesystem: {rootdirectory: $WORK/registry}}
		http:
		  addr: $H
		  $1
	END
	docker-registry serve "$WORK/registry.yml" >"$WORK/access.txt" 2>>"$WORK/registry.log" </dev/null &
	OWN_PIDS+=($!)
	wait_for 20 curl -sk -o /dev/null --max-time 2 "$2://$H/v2/" || bail "docker-registry does not answer"
}
command -v docker-registry >/dev/null || bail "docker-registry is not installed"
serve_h2 "" http
python3 "$TOOLS/ocipush.py" push "http://$H" test/big latest "$WORK/big.tar" >/dev/null || bail "push"
end_process "${OWN_PIDS[-1]}" 5
serve_h2 "tls: {certificate: $WORK/server.crt, key: $WORK/server.key}" https
CONF[registries]="[{host: \"$H\", caFile: \"$WORK/ca.crt\"}]"
check "HTTP/2: opens" group_for "https://$H"
check "HTTP/2: all bytes, many at once" verify_lun 1 "$BIG" -R -b 64K -q 64
check "HTTP/2: it is spoken" eval 'grep -c "GET /v2/test/big/blobs/.* HTTP/2" "$WORK/access.txt"'
check "HTTP/2: few connections for many requests" \
	eval 'echo "$(counter connections) for $(counter http_requests)"; [ $(($(counter connections) * 10)) -lt "$(counter http_requests)" ]'
check "the group stops" end_group
stop_tgtd
