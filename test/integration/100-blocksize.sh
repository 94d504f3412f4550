#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Logical blocks of 512 and of 4096 bytes: the size is right and so is every byte.
. "$(dirname "$0")/lib.sh"

need_image
local_config "$WORK/image.json" "${LAYERS[@]}"

size_is() {
	local answer
	answer=$("$ISCSI" readcap "$(url "$1")")
	echo "$answer"
	[[ $answer == *"\"bytes\":$(stat -c %s "$RAW"),\"block\":$2}"* ]]
}

check "the group starts" start_group || exit
start_tgtd
check "LUN with blocks of 512 bytes" new_lun 1 "$WORK/image.json" --blocksize 512
check "LUN with blocks of 4096 bytes" new_lun 2 "$WORK/image.json" --blocksize 4096
check "512: size" size_is 1 512
check "4096: size" size_is 2 4096
check "512: all bytes" verify_lun 1 "$RAW" -b 64K
check "512: requests of one block" verify_lun 1 "$RAW" -l 2M -b 512 -R
check "4096: all bytes" verify_lun 2 "$RAW" -b 64K
check "4096: requests of one block" verify_lun 2 "$RAW" -b 4K -R -q 32
check "both at once" "$ISCSI" verify -r "$RAW" -b 16K "$(url 1)" "$(url 2)"
stop_tgtd
check "the group stops" stop_group
