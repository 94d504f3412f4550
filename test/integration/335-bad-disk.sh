#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2016,SC2034,SC2119,SC2154 # eval expands; lib.sh and disk.sh use and set the rest
# The disk under the disk cache hangs, or fails: readers go on from the network, and it is used again when it is well.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/disk.sh"

CONF[sharedCache]="{sizeMB: 16, hugepages: off}" # most reads are misses
bad_disk "$CACHE"
tier_works() {
	local before
	before=$(counter bytes_disk)
	verify_lun 1 "$RAW" -R -b 64K -q 4 >/dev/null && [ "$(counter bytes_disk)" -gt "$before" ]
}

check "the group starts" bad_group || exit
start_tgtd
check "the LUN" eval 'new_lun 1 "$WORK/image.json" && "$ISCSI" wait-ready -W 20 "$(url 1)"'
check "every byte" verify_lun 1 "$RAW"
settled
check "the tier works" tier_works

mode hang
check "it hangs: every byte" verify_lun 1 "$RAW" -R -b 64K -q 4
check "reads were given up" at_least disk_timeouts "$(counter disk_timeouts)" 1
check "the tier is off" wait_for 20 tier_is off
check "with one warning" test "$(warnings)" = 1
check "no process was replaced" test "$(grep -c "killed\|incarnation 1" "$WORK/group.log")" = 0
check "and again: every byte" verify_lun 1 "$RAW" -R -b 64K -q 4
mode well
check "it is well again: the tier is on" wait_for 60 tier_is on
check "and works" wait_for 30 tier_works

for trouble in eio erofs enospc; do
	mode $trouble
	check "$trouble: every byte" verify_lun 1 "$RAW" -R -b 64K -q 4
	rm -f "$CACHE"/*/*.marks # so that there is something to write
	check "$trouble: every byte, to be written" verify_lun 1 "$RAW" -R -b 64K -q 4
	check "$trouble: it is noticed" wait_for 30 eval '! tier_is on'
	check "$trouble: it is counted" at_least disk_errors "$(counter disk_errors)" 1
	mode well
	check "$trouble: it is well again" wait_for 90 tier_is on
done
check "one warning for each trouble" at_most warnings "$(warnings)" 4
check "every byte at the end" verify_lun 1 "$RAW"
stop_tgtd
check "the group stops" stop_group
