# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the tests about credentials and tokens share. Sourced after lib.sh.
# shellcheck disable=SC2034 # variables for the tests

PASSWORD='correct:horse:battery'
WRONG='wrong-horse'

# start_tokenserver [option...]: sets GATE (its URL), GATE_LOG and TOKEN_LOG.
GATE_LOG=$WORK/gate.jsonl TOKEN_LOG=$WORK/tokens.jsonl
start_tokenserver() {
	mkdir -p "$BLOB_ROOT"
	python3 "$TOOLS/tokenserver.py" "$BLOB_ROOT" --log "$GATE_LOG" --token-log "$TOKEN_LOG" --port-file "$WORK/gate.port" \
		--user "alice:$PASSWORD" "$@" >>"$WORK/tokenserver.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	wait_for 10 test -s "$WORK/gate.port" || bail "tokenserver.py does not start"
	GATE=http://127.0.0.1:$(cat "$WORK/gate.port")
}

control() { curl -sS --fail -X PUT -d "$1" "$GATE/control"; }

# gate_config NAME REPO LAYER...: $WORK/NAME.json
gate_config() {
	local name=$1 repo=$2
	shift 2
	BLOBS=$GATE remote_config "$WORK/$name.json" "$repo" -- "$@"
}

# credentials FILE PASSWORD [USER]
credentials() {
	python3 - "$1.new" "${GATE#*://}" "$2" "${3:-alice}" <<-'END'
		import base64, json, sys
		_, out, host, password, user = sys.argv
		auth = base64.b64encode(f"{user}:{password}".encode()).decode()
		json.dump({"auths": {"https://" + host + "/v2/": {"auth": auth}, host + "/token/other": {"username": "bob",
		          "password": "of another repository"}}}, open(out, "w"))
	END
	mv "$1.new" "$1"
}

# token_requests [FIELD=VALUE]: how many the token service had.
token_requests() {
	python3 - "$TOKEN_LOG" "$@" <<-'END'
		import json, sys
		rows = [json.loads(line) for line in open(sys.argv[1])]
		want = [pair.split("=", 1) for pair in sys.argv[2:]]
		print(sum(all(str(row[k]) == v for k, v in want) for row in rows))
	END
}

# opens NAME LUN: the LUN becomes ready.
opens() { new_lun "$2" "$WORK/$1.json" && "$ISCSI" wait-ready -W 20 "$(url "$2")"; }

# The same in a new group, which tgtd has to find first.
opens_in_new_group() { wait_for 20 new_lun "$2" "$WORK/$1.json" && "$ISCSI" wait-ready -W 20 "$(url "$2")"; }

result_is() { # NAME TEXT
	local have
	wait_for 20 test -s "$WORK/$1.json.result"
	have=$(cat "$WORK/$1.json.result")
	echo "$have"
	[[ $have == *"$2"* ]]
}

refused() { # NAME LUN
	new_lun "$2" "$WORK/$1.json" || return 0
	result_is "$1" "authentication failed at ${GATE#http://}"
}

no_secret_in() {
	local secret file
	for file; do
		for secret in "$PASSWORD" "$WRONG" "$(printf 'alice:%s' "$PASSWORD" | base64)"; do
			! grep -qF -e "$secret" "$file" || { echo "$file holds $secret"; return 1; }
		done
		! grep -E 'Bearer [A-Za-z0-9_-]{20}|Basic [A-Za-z0-9+/]{10}' "$file" || return 1
	done
}
