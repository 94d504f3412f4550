#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The main job, start to end, on this machine alone: two images in a local registry become two iSCSI LUNs; every byte is
# read and compared; the layers that they share are fetched once. Run as root on Debian 12. Installs what is missing, and
# removes all else that it made, but build/.
#
#   sudo ./scripts/demo.sh        OBD_KEEP=1 keeps the working directory
set -u
cd "$(dirname "$0")/.." || exit 1
if [ "$(id -u)" != 0 ]; then
	echo "demo.sh: run me as root (packages, tgtd, a private mount namespace): sudo $0" >&2
	exit 1
fi

if [ -t 1 ]; then bold=$(tput bold 2>/dev/null) plain=$(tput sgr0 2>/dev/null); else bold='' plain=''; fi
part() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '   %s\n' "$@"; }
die() {
	echo "demo.sh: $1" >&2
	exit 1
}

# quietly COMMAND...: its output is shown only when it fails.
quietly() {
	local log
	log=$(mktemp)
	"$@" >"$log" 2>&1 </dev/null && rm -f "$log" && return
	tail -n 40 "$log" >&2
	rm -f "$log"
	die "failed: $*"
}

begun=$SECONDS
part "1. Install what is missing, and build"
scripts/install-deps.sh || die "installation failed"
quietly make -j"$(nproc)" all test-tools
say "built into build/ ($((SECONDS - begun)) s): $(cd build/bin && echo obd-*), lib/bs_overlaybd.so"

# Processes, registry and clean-up are those of the integration tests.
had_module_dir=''
[ -d /usr/lib/tgt/backing-store ] && had_module_dir=yes
B=build
# shellcheck source=test/integration/lib.sh
. test/integration/lib.sh

at_end() {
	local rc=$?
	stop_tgtd
	[ "$had_module_dir" ] || rmdir /usr/lib/tgt/backing-store /usr/lib/tgt 2>/dev/null
	[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-0}" build
	(exit $rc)
	cleanup
}
trap at_end EXIT

# step WHAT COMMAND...
step() {
	local what=$1
	shift
	"$@" >"$WORK/step.out" 2>&1 && return
	FAILED=1
	tail -n 20 "$WORK/step.out" >&2
	die "$what failed"
}

json() { python3 -c 'import json, sys; v = json.load(sys.stdin); print(eval(sys.argv[1], {"v": v}))' "$1"; }
fetched() { "$B/bin/obd-stat" -r "$RUN" --json | json 'v["counters"]["total"]["bytes_fetched"]'; }
mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
size_of() { cat "$@" | wc -c; }

# verify TEXT LUN RAW [options]: reads and compares all of it, and says how fast that was.
verify() {
	local text=$1
	shift
	step "$text" verify_lun "$@"
	say "$(printf '%-48s' "$text") $(json '"%6.2f s, %6.0f MB/s, %d reads" % (v["secs"], v["ops"] * v["bs"] / v["secs"] / 1e6, v["ops"])' \
		<"$WORK/step.out")"
}

part "2. Two images, and a registry"
need_image
say "ext4 file systems of this machine's own files, $(mib "$(stat -c %s "$RAW")") each, in layers of different codecs:"
for i in 0 1 2 3; do say "  layer $i: $(mib "$(stat -c %s "${LAYERS[i]}")")"; done
say "image A is layers 0 to 2, image B is layers 0 to 3"
start_registry
push() { # NAME LAYER...: an image config for what the registry has now
	local name=$1
	shift
	python3 "$TOOLS/ocipush.py" push "$REGISTRY" "demo/$name" latest "$@" >"$WORK/$name.pushed" &&
		python3 "$TOOLS/ocipush.py" write-config "$WORK/$name.json" --from "$WORK/$name.pushed" --result "$WORK/$name.result"
}
step "push A" push a "${LAYERS[@]:0:3}"
step "push B" push b "${LAYERS[@]}"
say "pushed to $REGISTRY (docker-registry) as demo/a and demo/b"

part "3. The process group, and tgtd with the module"
CONF[sharedCache]="{sizeMB: 512, hugepages: auto}"
start_group || die "the group does not start: $(tail -n 3 "$WORK/supervisor.log" "$WORK/group.log" 2>/dev/null)"
say "obd-supervisor runs as pid $SUPERVISOR with $(pgrep -P "$SUPERVISOR" -l | awk '{ n[$2]++ } END { for (p in n) printf "%s x%d ", p, n[p] }')"
say "huge pages: $("$B/bin/obd-stat" -r "$RUN" --json | json '"in use" if v["cache"]["hugepages"] else "not used (vm.nr_hugepages is too small; that is slower, not wrong)"')"
start_tgtd
say "tgtd runs as pid $TGTD on port $TGT_PORT, in a mount namespace of its own"

part "4. LUN 1 is image A: read all of it, and compare"
attach() { # LUN CONFIG: until it is ready
	new_lun "$1" "$2" && "$ISCSI" wait-ready "$(url "$1")"
}
before=$(fetched)
attach_ms=$(now_ms)
step "attach A" attach 1 "$WORK/a.json"
say "attached and ready in $(($(now_ms) - attach_ms)) ms with $(mib $(($(fetched) - before))) of $(mib "$(size_of "${LAYERS[@]:0:3}")") fetched"
verify "first read (from the registry)" 1 "${STEPS[2]}"
verify "second read (from the shared cache)" 1 "${STEPS[2]}"
verify "the same, 4 KiB in random order, 32 at a time" 1 "${STEPS[2]}" -R -b 4K -q 32
after_a=$(fetched)
say "fetched so far: $(mib $((after_a - before)))"

part "5. LUN 2 is image B: it shares three of its four layers with A"
step "attach B" attach 2 "$WORK/b.json"
verify "first read" 2 "$RAW"
delta=$(($(fetched) - after_a))
own=$(size_of "${LAYERS[3]}")
say "fetched for B: $(mib $delta); B's own layer has $(mib "$own"), those it shares with A have $(mib "$(size_of "${LAYERS[@]:0:3}")")"
# Opening asks for a page of each layer to prove the right to B's repository; the last block may be asked for twice.
if [ "$delta" -gt $((own + 4 * 4096 + 65536)) ]; then
	FAILED=1
	die "more was fetched for B than its own layer"
fi
say "so none of the shared layers was fetched again"
step "copy" "$ISCSI" copy -w "$WORK/copy.raw" "$(url 2)"
step "e2fsck" e2fsck -fn "$WORK/copy.raw"
say "e2fsck on a copy of LUN 2: clean"

part "6. What obd-stat says"
"$B/bin/obd-stat" -r "$RUN" | sed 's/^/   /'

part "7. Clean up"
stop_tgtd
step "stop" stop_group
say "group and tgtd ended, nothing is left but build/ (whole demo: $((SECONDS - begun)) s)"
echo
echo "Every byte of both LUNs was right."
