#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A LUN over local layer files gives every byte of the image, whichever way the files are read.
. "$(dirname "$0")/lib.sh"

need_image
local_config "$WORK/image.json" "${LAYERS[@]}"
local_config "$WORK/base.json" "${LAYERS[0]}"

result_is_success() { [ "$(cat "$WORK/image.json.result")" = success ]; }

is_read_only() { adm --mode target --op show | grep -A 30 "LUN: 1" | grep -q "Readonly: Yes"; }

for engine in 0 1 2; do
	CONF[ioEngine]=$engine
	check "ioEngine $engine: the group starts" start_group || exit
	start_tgtd
	check "ioEngine $engine: LUN over four layers" new_lun 1 "$WORK/image.json"
	check "ioEngine $engine: it gets ready" "$ISCSI" wait-ready "$(url 1)"
	check "ioEngine $engine: all bytes, in order" verify_lun 1 "$RAW"
	check "ioEngine $engine: all bytes, shuffled in 4 KiB" verify_lun 1 "$RAW" -R -b 4K -q 32
	check "ioEngine $engine: LUN over the base layer" new_lun 2 "$WORK/base.json"
	check "ioEngine $engine: all its bytes" verify_lun 2 "${STEPS[0]}" -b 128K
	if [ $engine = 0 ]; then
		check "the result file says success" result_is_success
		check "the LUN is read-only" is_read_only
		check "requests of 512 bytes and of 1 MiB" eval 'verify_lun 1 "$RAW" -l 1M -b 512 && verify_lun 1 "$RAW" -b 1M -q 4'
		check "four sessions at once" verify_lun 1 "$RAW" -s 4 -q 8 -b 32K -R
		check "removing a LUN" remove_lun 2
		check "the other one still works" verify_lun 1 "$RAW"
		check "and the number can be used again" eval 'new_lun 2 "$WORK/base.json" && verify_lun 2 "${STEPS[0]}"'
	fi
	stop_tgtd
	check "ioEngine $engine: the group stops" stop_group
done
