#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two LUNs with common base layers: what the first has read, the second does not fetch again, and no block is fetched
# for both. It holds across repositories of one registry, and not across registries.
. "$(dirname "$0")/lib.sh"

need_image
start_blobserver
remote_config "$WORK/a.json" team-a/image -- "${LAYERS[@]:0:3}"
remote_config "$WORK/b.json" team-b/image -- "${LAYERS[@]}"
remote_config "$WORK/c.json" team-a/image -- "${LAYERS[@]:0:3}"
sed -i 's/127\.0\.0\.1/localhost/' "$WORK/c.json" # another registry by name

digest() { sha256sum <"${LAYERS[$1]}" | cut -d' ' -f1; }

shared_sent() { echo $(($(bytes_sent "digest=$(digest 0)") + $(bytes_sent "digest=$(digest 1)") + $(bytes_sent "digest=$(digest 2)"))); }

# Opening proves the right to the repository by one small request per image: allow a page for each layer.
no_shared_bytes_by() {
	local before after
	before=$(shared_sent)
	"$@" || return 1
	after=$(shared_sent)
	echo "$((after - before)) bytes of shared layers fetched again"
	[ $((after - before)) -le $((3 * 4096)) ]
}

b_asked_for_its_repository() { grep -q '"repo": "team-b/image"' "$BLOB_LOG"; }

many_shared_bytes_by() {
	local before
	before=$(shared_sent)
	"$@" || return 1
	[ $(($(shared_sent) - before)) -gt 1000000 ]
}

check "the group starts" start_group || exit
start_tgtd
check "LUN A over three layers" new_lun 1 "$WORK/a.json"
check "A: all bytes" verify_lun 1 "${STEPS[2]}"
check "A fetched the layers" test "$(shared_sent)" -gt 1000000
open_and_verify_b() { new_lun 2 "$WORK/b.json" && verify_lun 2 "$RAW" -R -b 16K; }
check "LUN B over these and one more: none of the shared is fetched again" no_shared_bytes_by open_and_verify_b
check "B proved its own right to its repository" b_asked_for_its_repository
check "A still right" verify_lun 1 "${STEPS[2]}" -R -b 4K
open_and_verify_c() { new_lun 3 "$WORK/c.json" && verify_lun 3 "${STEPS[2]}" -l 8M; }
check "another registry's layers of the same digest are fetched from there" many_shared_bytes_by open_and_verify_c
check "removing A leaves B right" eval 'remove_lun 1 && verify_lun 2 "$RAW"'
stop_tgtd
check "the group stops" stop_group
