#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck disable=SC2016,SC2034,SC2154 # eval expands; lib.sh uses and sets the rest
# A local layer's disk hangs: its readers wait, those of other layers do not, and nothing is replaced.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/faults.sh"

need_big_image 24
LOCAL=$WORK/disk
mkdir "$LOCAL"
cp "$WORK/big.tar" "$LOCAL/"
local_config "$WORK/local.json" "$LOCAL/big.tar"
bad_disk "$LOCAL"

check "the group starts" bad_group || exit
start_tgtd
check "a local LUN, and one of a registry" eval 'new_lun 1 "$WORK/local.json" && new_lun 2 "$WORK/big.json"'
check "they are ready" eval '"$ISCSI" wait-ready "$(url 1)" && "$ISCSI" wait-ready "$(url 2)"'
check "the local one" verify_lun 1 "$BIG" -l 4M

mode hang
verify_lun 1 "$BIG" -o 4M -l 16M -R -b 64K -q 16 >"$WORK/reader.out" 2>&1 &
READER=$!
check "somebody waits for the disk" wait_for 30 eval '[ "$(counter err_io)" -gt 0 ]'
check "the registry's is read meanwhile" verify_lun 2 "$BIG" -R -b 64K -q 8
check "whoever waits, waits" alive "$READER"
mode well
check "it is well again: every byte" eval 'wait "$READER" || { cat "$WORK/reader.out"; false; }'
check "no process was replaced" test "$(grep -c "killed\|incarnation 1" "$WORK/group.log")" = 0
stop_tgtd
check "the group stops" stop_group
