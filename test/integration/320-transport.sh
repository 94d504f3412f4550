#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The ways to a blob: mirrors with failover and return, a peer-to-peer proxy with fallback, an HTTP proxy.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

need_big_image 24
CONF[readaheadKB]=0
CONF[userAgent]="the-tests/1"
for name in registry first second; do server $name; done
R=127.0.0.1:$(port registry)
start_tgtd

# ---- mirrors ----------------------------------------------------------------------------------------------------------
CONF[registries]="[{host: \"$R\", mirrors: [\"127.0.0.1:$(port first)\", \"http://127.0.0.1:$(port second)/some/\"]}]"
check "mirrors: opens" group_for "http://$R"
check "mirrors: the first is read" eval 'part 0 && at_least 5 first && none registry && none second'
check "mirrors: they see our userAgent" none first 'row["agent"] != "the-tests/1"'
tell first '[{"kind": "status", "status": 503}]'
tell second '[{"kind": "status", "status": 404}]'
mark first second registry
check "mirrors: both fail, the registry is read" eval 'part 2 && at_least 5 registry "row[\"status\"] == 206"'
tell second '[]'
check "mirrors: the second one comes back" wait_for 40 eval 'part $((RANDOM % 20)) && at_least 1 second "row[\"status\"] in (206, 404) and row[\"fault\"] is None"'
tell first '[]'
mark first
first_is_back() { part $((RANDOM % 20)) && at_least 1 first 'row["status"] == 206'; }
check "mirrors: and the first one" wait_for 60 first_is_back
mark first registry
check "mirrors: it is read alone again" eval 'part 20 4 && at_least 1 first && none registry'
tell first '[{"kind": "corrupt"}]'
check "mirrors: what it damages comes from the next" part 4 8
check "mirrors: the damage was met" eval '[ "$(counter err_corrupt)" -gt 0 ] && [ "$(counter failovers)" -gt 0 ]'
check "the group stops" end_group

# ---- peer to peer -----------------------------------------------------------------------------------------------------
CONF[registries]='[]'
CONF[p2pConfig]="{enable: true, address: \"http://127.0.0.1:$(port first)/accel\"}"
tell first '[]'
mark first registry
check "p2p: opens" group_for "http://$R"
check "p2p: everything goes by the proxy, with the registry's address behind its own" \
	eval 'part 0 4 && at_least 5 first "row[\"via\"] == \"/accel/http://$R\"" && none registry'
tell first '[{"kind": "reset"}]'
check "p2p: without it the registry is read" eval 'part 8 4 && at_least 5 registry'
check "the group stops" end_group
unset 'CONF[p2pConfig]'

# ---- an HTTP proxy, and plain HTTP where it is allowed ----------------------------------------------------------------
CONF[registries]='[{host: "registry.invalid", insecure: true}]'
mark second
tell second '[]'
http_proxy=http://127.0.0.1:$(port second)
export http_proxy
check "proxy: opens what only the proxy knows" group_for "http://registry.invalid"
check "proxy: bytes, by their whole address" eval 'part 0 4 && at_least 5 second "row[\"via\"] == \"http://registry.invalid\""'
check "the group stops" end_group
unset http_proxy
stop_tgtd
