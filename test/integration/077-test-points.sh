#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Each process is killed at some points of the shared-memory protocol, and one is stopped: a small choice of what `make
# check-crash` does at all points in all situations.
LIMIT_MS=20000 # each point is reached for sure; a slow machine only takes longer
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../crash/build.sh"
. "$here/../crash/lib.sh"

need_root
crash_setup
check "a group with test points starts" start_crash_group || exit
while read -r situation point role action nth; do
	crash_case "$situation" "$point" "$role" "$action" "$nth" || [ $? != 2 ] || not_ok "$situation: $role at $point" "not reached"
done <<-'END'
	evict frame_filling c kill 3
	evict frame_evicted c kill 2
	evict job_issued c kill 3
	evict fill_unpublished f kill 3
	evict job_done f kill 2
	open image_unpublished i kill 1
	open reply_unpublished i kill 1
	write up_data i kill 5
	write up_record i kill 5
	evict request_posted a kill 3
	open reply_seen a kill 1
	evict sv_welcomed s kill 1
	evict job_taken f stop 3
END
check "the group stops" stop_group
