#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2016,SC2034,SC2119,SC2154 # eval expands; lib.sh and disk.sh use and set the rest
# The disk cache in trouble: kill -9 of each role while it fills, a bound that is smaller than the image, a full disk, no room to
# leave free, no directory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/disk.sh"

# ---- kill -9 while it fills -------------------------------------------------------------------------------------------------

check "empty: the group starts" up
"$ISCSI" verify -r "$RAW" -R -b 64K -q 8 "$(url 1)" >"$WORK/fill.out" 2>&1 &
READER=$!
for role in fetcher cached indexer fetcher; do
	sleep 0.2
	role_pids $role | head -n 1 | xargs -r kill -KILL
done
check "kill -9 of each role while it fills: every byte" wait "$READER"
wait_for 30 group_answers
check "and all is well afterwards" eval 'restart && verify_lun 1 "$RAW"'
check "no damage" at_most disk_corrupt "$(counter disk_corrupt)" 0
down >/dev/null

# ---- a small cache ----------------------------------------------------------------------------------------------------------

disk_bytes() { du -s --block-size=1 "$CACHE" | cut -f 1; }
rm -rf "$CACHE"
CONF[sharedCache]="{sizeMB: 16, hugepages: off}"
export OBD_TEST_DISK=8000000:0
check "small: the group starts" up
check "small: every byte" verify_lun 1 "$RAW"
check "small: every byte, at random" verify_lun 1 "$RAW" -R -b 64K -q 4
# What is read in one go may not fit between two looks at the usage; what is read again and again does.
evicts() { verify_lun 1 "$RAW" -R -b 64K -q 4 >/dev/null && [ "$(counter disk_evictions)" -gt 0 ]; }
check "units are evicted" wait_for 30 evicts
check "the bound holds" wait_for 10 eval '[ "$(disk_bytes)" -le 8100000 ]'
check "no damage came of it" at_most disk_corrupt "$(counter disk_corrupt)" 5
check "the tier is on all the same" wait_for 10 tier_is on
down >/dev/null

# ---- a disk that is full, and one that is read-only ------------------------------------------------------------------------

export OBD_TEST_DISK=4000000000:0
rm -rf "$CACHE"
mkdir "$CACHE"
if mount -t tmpfs -o size=6m tmpfs "$CACHE"; then
	OWN_MOUNTS+=("$CACHE")
	: >"$WORK/group.log"
	check "a disk of 6 MiB: the group starts" up
	check "full: every byte" verify_lun 1 "$RAW"
	settled
	check "full: every byte again" verify_lun 1 "$RAW" -R -b 64K -q 4
	check "what did not fit was dropped" at_least disk_dropped "$(counter disk_dropped)" 10
	check "at most one warning" at_most warnings "$(warnings)" 1
	down >/dev/null
	export OBD_TEST_DISK=4000000000:1073741824
	: >"$WORK/group.log"
	check "less than 1 GiB is free: the group starts" up
	check "nothing is added then" tier_is read-only
	check "one warning" test "$(warnings)" = 1
	check "every byte" verify_lun 1 "$RAW"
	down >/dev/null
	umount "$CACHE"
	unset "OWN_MOUNTS[-1]"
else
	skip "full and read-only disks" "no tmpfs can be mounted here"
fi
unset OBD_TEST_DISK

# ---- no directory -----------------------------------------------------------------------------------------------------------

echo file >"$WORK/file"
CONF[cacheConfig]="{cacheDir: $WORK/file/cache, cacheSizeGB: 4}"
: >"$WORK/group.log"
check "a directory that cannot be: the group starts" up
check "there is a warning" grep -q "warning: cacheDir $WORK/file/cache: Not a directory" "$WORK/group.log"
check "the tier is off" tier_is off
check "without a tier: every byte" verify_lun 1 "$RAW"
stop_tgtd
check "the group stops" stop_group
