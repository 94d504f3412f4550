#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Registries that want to see who asks: Basic, tokens, refusals, a credential file that changes, and what must never be seen.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/auth.sh"

need_image
LAYER=${LAYERS[0]} STEP=${STEPS[0]}
start_tokenserver --ttl 60
CRED=$WORK/cred.json
CONF[credentialConfig]="{mode: file, path: $CRED}"
CONF[readTimeoutSec]=20
CONF[fetchers]=4
CONF[logConfig]="{logLevel: 0, logPath: $WORK/group.log}"
for repo in basic token open public forbidden silent; do gate_config $repo $repo/image "$LAYER"; done
check "the group starts without a credential file" start_group || exit
start_tgtd

check "anonymous" opens public 1
check "an anonymous token" opens open 2
check "Basic without a credential is refused" refused basic 3
check "a token without a credential is refused" refused token 3
credentials "$CRED" "$WRONG"
check "a wrong password for Basic is refused" refused basic 3
check "a wrong password for the token service is refused" refused token 3

# The old reason must not be what an image hears that is opened right after the file was changed.
credentials "$CRED" "$PASSWORD"
rm -f "$WORK"/{basic,token}.json.result
check "the changed file is used at once: token" opens token 4
check "the changed file is used at once: Basic" opens basic 5
check "the result says success" result_is token success
check "a registry that asks for nothing and refuses gets the credential" opens silent 6
check "all bytes by token" verify_lun 4 "$STEP"
check "all bytes by Basic" verify_lun 5 "$STEP" -R -b 16K

# shellcheck disable=SC2034 # the check's command reads it
before=$(token_requests status=200)
check "403 in spite of a token is refused" refused forbidden 7
check "after one new token, not a loop" eval 'echo "$(($(token_requests status=200) - before))"; [ "$(($(token_requests status=200) - before))" -le 2 ]'

# A token that is taken back while its devices are in use.
gate_config fresh token/fresh "${LAYERS[1]}"
check "another repository" opens fresh 8
control '{"revoke": true}'
check "revoked tokens are replaced without an error" "$ISCSI" seqread -t 10 -n 60 "$(url 8)"
stop_tgtd
check "the group stops" stop_group
check "no secret in logs and results" no_secret_in "$WORK/group.log" "$WORK/supervisor.log" "$WORK/tgtd.log" "$WORK"/*.result
