#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What a group costs that has nothing to do: processor time with no LUN and with 64, and memory per process and per LUN.
#
# The image has three layers of a registry; all LUNs of it are read once, so that the cache is warm. Processor time is that of
# all threads, from /proc/PID/stat. Memory: the resident set, most of which is the shared segment and libraries, and what a
# process has for itself (Private_* of smaps_rollup). Errors fail this script, numbers never do.
#
#   BENCH_SECONDS (30)   how long it looks
#   BENCH_LUNS (64)
. "$(dirname "$0")/../integration/lib.sh"

SECONDS_EACH=${BENCH_SECONDS:-30}
LUNS=${BENCH_LUNS:-64}

die() {
	echo "bench: $1" >&2
	FAILED=1
	exit 1
}

# Ticks of user and system time of all its threads so far. The name, in brackets, has no blank.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
calc() { awk "BEGIN { printf \"%.2f\", $* }"; }
private_kb() { awk '/^Private/ { kb += $2 } END { print kb + 0 }' "/proc/$1/smaps_rollup"; }
processes() { # lines: pid name
	local role
	echo "$SUPERVISOR supervisor"
	for role in cached indexer fetcher; do role_pids $role | sed "s/\$/ $role/"; done
	echo "$TGTD tgtd"
}

# look: sets CPU[pid] (percent of a core), KB[pid]
declare -A CPU KB
look() {
	local pid name hz
	local -A before
	hz=$(getconf CLK_TCK)
	while read -r pid name; do before[$pid]=$(ticks "$pid"); done < <(processes)
	sleep "$SECONDS_EACH"
	while read -r pid name; do
		CPU[$pid]=$(calc "($(ticks "$pid") - ${before[$pid]}) * 100 / $hz / $SECONDS_EACH")
		KB[$pid]=$(private_kb "$pid")
	done < <(processes)
}

declare -A CPU0 KB0
keep_as_first() {
	local pid
	for pid in "${!CPU[@]}"; do CPU0[$pid]=${CPU[$pid]} KB0[$pid]=${KB[$pid]}; done
}

report() {
	local pid name cpu=0 group=0
	printf '%-12s %12s %12s %14s %14s %14s %12s\n' process "CPU, 0 LUNs" "CPU, $LUNS" "KiB, 0 LUNs" "KiB, $LUNS" "KiB per LUN" "RSS, $LUNS"
	while read -r pid name; do
		printf '%-12s %10.2f %% %10.2f %% %14d %14d %14.1f %12d\n' "$name" "${CPU0[$pid]}" "${CPU[$pid]}" "${KB0[$pid]}" "${KB[$pid]}" \
			"$(calc "(${KB[$pid]} - ${KB0[$pid]}) / $LUNS")" "$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")"
		cpu=$(calc "$cpu + ${CPU[$pid]}")
		[ "$name" = tgtd ] || group=$(calc "$group + ${CPU[$pid]}")
	done < <(processes)
	printf 'the group idle with %d LUNs: %.2f %% of a core (goal: under 1), with tgtd %.2f %%\n' "$LUNS" "$group" "$cpu"
}

need_root
need_image
start_blobserver
remote_config "$WORK/image.json" bench/idle -- "${LAYERS[@]}" || die "no image config"
start_group || die "the group does not start"
start_tgtd
sleep 2
look
keep_as_first
for ((i = 1; i <= LUNS; i++)); do
	new_lun "$i" "$WORK/image.json" || die "LUN $i cannot be made"
done
for ((i = 1; i <= LUNS; i++)); do
	"$ISCSI" wait-ready -W 30 "$(url "$i")" || die "LUN $i does not become ready"
done
verify_lun 1 "$RAW" >"$WORK/verify.out" 2>&1 || die "$(tail -n 1 "$WORK/verify.out")"
verify_lun "$LUNS" "$RAW" >"$WORK/verify.out" 2>&1 || die "$(tail -n 1 "$WORK/verify.out")"
sleep 5
look
report
"$B/bin/obd-stat" -r "$RUN" | head -n 20
stop_tgtd
stop_group >/dev/null || die "the group does not stop"
