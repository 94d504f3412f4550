#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The process group alone: it starts, tells about itself, stops on SIGTERM, and leaves nothing behind.
. "$(dirname "$0")/lib.sh"

stat_is_json() { "$B/bin/obd-stat" -r "$RUN" --json | python3 -m json.tool >/dev/null; }

has_roles() {
	local role
	for role in indexer cached fetcher; do
		[ "$(role_pids $role)" ] || {
			echo "no obd-$role runs"
			return 1
		}
	done
}

second_is_refused() { timeout 10 "$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml"; }

check "the configuration passes --check" eval 'write_group_config; "$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml" --check'
check "--print-config" eval '"$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml" --print-config | grep -q sharedCache'

echo "noSuchKey: 1" >"$WORK/bad.yaml"
check_fails "an unknown key is refused" "$B/bin/obd-supervisor" -c "$WORK/bad.yaml" --check
check "the refusal names the key" eval '"$B/bin/obd-supervisor" -c "$WORK/bad.yaml" --check 2>&1 | grep -q noSuchKey'
echo "ioEngine: 17" >"$WORK/bad.yaml"
check_fails "a value out of range is refused" "$B/bin/obd-supervisor" -c "$WORK/bad.yaml" --check

check "the group starts" start_group || exit
check "every role runs" has_roles
check "obd-stat prints JSON" stat_is_json
check "obd-stat prints for people" "$B/bin/obd-stat" -r "$RUN"
check_fails "a second group in the same directory is refused" second_is_refused
check "the first one does not mind" group_answers
check "SIGTERM stops it within 5 s, nothing is left" stop_group
check_fails "obd-stat says so when no group runs" "$B/bin/obd-stat" -r "$RUN" --json
check "it starts again in the same directory" start_group

# A supervisor that is killed must not leave its children serving a segment that nobody watches.
orphans_end() {
	local members p
	members=$(group_pids)
	kill -KILL "$SUPERVISOR"
	for p in $members; do
		wait_for 5 gone "$p" || {
			echo "still there: $(ps -o pid=,args= -p "$p")"
			return 1
		}
	done
}
check "a killed supervisor takes its children along" orphans_end
check "and the directory can be used again" start_group
check "at the end: stopped, nothing left" stop_group
