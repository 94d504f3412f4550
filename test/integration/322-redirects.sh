#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A registry that sends us to an object storage with signed addresses: they are remembered, and the storage sees no credential.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

need_big_image 24
CONF[readaheadKB]=0
start_tgtd

# ---- redirects --------------------------------------------------------------------------------------------------------
server store --sign-key k --require-sig
server signer --sign-key k --sign-ttl 5
tell signer "[{\"kind\": \"status\", \"status\": 401, \"count\": 1}, {\"kind\": \"redirect\", \"to\": \"http://127.0.0.1:$(port store)\"}]"
printf '{"auths": {"127.0.0.1:%s": {"username": "u", "password": "p"}}}' "$(port signer)" >"$WORK/cred.json"
CONF[credentialConfig]="{path: $WORK/cred.json}"
CONF[fetchers]=1
check "redirects: opens" group_for "http://127.0.0.1:$(port signer)"
check "redirects: all bytes" verify_lun 1 "$BIG" -R -b 64K -q 8
few_are_asked() {
	echo "$(asked signer) at the registry, $(asked store) at the storage"
	[ "$(asked store)" -gt 50 ] && [ $(($(asked signer) * 3)) -lt "$(asked store)" ]
}
check "redirects: where one led is remembered" few_are_asked
check "redirects: the registry got our credential" at_least 1 signer 'row["auth"]'
check "redirects: the storage did not" none store 'row["auth"]'
check "redirects: it has seen no address that was too old or unsigned" none store 'row["status"] == 400'
mark signer
check "redirects: an address that has expired is resolved again" eval 'sleep 5; part 0 8 && at_least 1 signer "row[\"status\"] == 307"'
tell store '[{"kind": "status", "status": 403, "count": 3}]'
mark signer
check "redirects: so is one that is refused" eval 'part 10 8 && at_least 1 signer "row[\"status\"] == 307"'
check "redirects: obd-stat counts them" eval '[ "$(counter redirects)" -gt 0 ] && [ "$(counter redirect_hits)" -gt "$(counter redirects)" ]'
check "the group stops" end_group
unset 'CONF[credentialConfig]'
stop_tgtd
