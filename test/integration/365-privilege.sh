#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Rights: fetchers run as a user of their own, may read what only root may, and write to the disk cache and the layers'
# directories; nobody keeps what it need not. Enemies on the socket harm nobody.
# shellcheck disable=SC2016 # eval and inner shells expand
. "$(dirname "$0")/lib.sh"

need_root
need_image
start_blobserver
chmod 0755 "$WORK"
LOG=$WORK/group.log
SOCK=$RUN/supervisor.sock
CONF[fetchers]=2
CONF[sharedCache]="{sizeMB: 32, hugepages: off}"

logged() { [ "$(grep -c -- "$1" "$LOG")" -ge "${2:-1}" ]; }
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
all_of() { # ROLE FIELD VALUE
	local p
	for p in $(role_pids "$1"); do
		[ "$(status_of "$p" "$2")" = "$3" ] || { echo "$1 $p: $2 is $(status_of "$p" "$2")"; return 1; }
	done
}
ptrace=$(case $B in *san-*address*) echo 524288 ;; *) echo 0 ;; esac) # LeakSanitizer needs it
caps() { printf '%016x' $(($1 | ptrace)); }
secured() { all_of "$1" NoNewPrivs 1 && all_of "$1" Seccomp 2 && all_of "$1" CapEff "$(caps "$2")" && all_of "$1" CapBnd "$(caps "$2")"; }

# ---- without a user for fetchers ------------------------------------------------------------------------------------------

CONF[fetcherUser]=no-such-user-$$
check "the group starts without the user" start_group || exit
check "and says what to do, once" test "$(grep -c "user no-such-user-$$ does not exist" "$LOG")" = 1
check "cached keeps two capabilities" secured cached 6
check "indexer keeps five" secured indexer 31
check "fetchers keep two" secured fetcher 6
open_regions() {
	local fd
	for fd in "/proc/$SUPERVISOR/fd"/*; do
		case $(readlink "$fd") in /memfd:*) stat -L -c %a "$fd" ;; esac
	done | sort -u
}
check "no region can be opened again by another user" test "$(open_regions)" = 600
stop_group >/dev/null

# ---- with one -------------------------------------------------------------------------------------------------------------

# A user database of our own, seen by the group only.
USER=obdfetch
cp /etc/passwd "$WORK/passwd"
echo "$USER:x:64123:64123::/nonexistent:/usr/sbin/nologin" >>"$WORK/passwd"
CONF[fetcherUser]=$USER
mkdir "$WORK/layers" "$WORK/elsewhere" "$WORK/layers/download" "$WORK/secret"
CONF[layerDirs]="[$WORK/layers]"
CONF[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 1}"
CONF[download]="{enable: true, delay: 0, delayExtra: 0}"
CONF[credentialConfig]="{path: $WORK/secret/cred.json}"
cp "${LAYERS[@]}" "$WORK/layers"
cp "${LAYERS[@]}" "$WORK/elsewhere"
echo '{"auths": {}}' >"$WORK/secret/cred.json"
chmod 0600 "$WORK/layers"/* "$WORK/elsewhere"/* "$WORK/secret/cred.json"
chmod 0700 "$WORK/layers" "$WORK/layers/download" "$WORK/secret"
local_config "$WORK/local.json" "$WORK/layers"/*.tar
local_config "$WORK/elsewhere.json" "$WORK/elsewhere"/*.tar
remote_config "$WORK/remote.json" test/image -- "${LAYERS[@]}"
python3 - "$WORK/remote.json" "$WORK/layers/download" <<-'END'
	import json, os, sys
	config = json.load(open(sys.argv[1]))
	for n, lower in enumerate(config["lowers"]):
	    lower["dir"] = f"{sys.argv[2]}/{n}"
	    os.mkdir(lower["dir"], 0o700)
	json.dump(config, open(sys.argv[1], "w"))
END

start_with_user() {
	write_group_config
	setsid unshare -m --propagation slave sh -c 'mount --bind "$1" /etc/passwd && exec "$2" -c "$3"' sh \
		"$WORK/passwd" "$B/bin/obd-supervisor" "$WORK/overlaybd.yaml" >>"$WORK/supervisor.log" 2>&1 </dev/null &
	SUPERVISOR=$!
	wait_for 30 group_ready_or_dead
	group_answers >/dev/null 2>&1
}

downloaded() { [ "$(find "$WORK/layers/download" -name overlaybd.commit | wc -l)" = ${#LAYERS[@]} ]; }

check "the group starts with the user" start_with_user || exit
check "fetchers are that user" all_of fetcher Uid "64123	64123	64123	64123"
check "in no other group" all_of fetcher Groups ""
LANDLOCK=$(grep -c "has no landlock" "$LOG")
if [ "$LANDLOCK" = 0 ]; then
	check "with two capabilities, held to the directories" secured fetcher 6
else
	skip "layerDirs" "this kernel has no landlock"
	check "with one capability" secured fetcher 4
fi
check "the disk cache is theirs" test "$(stat -c %u "$WORK/cache")" = 64123
start_tgtd
check "a LUN over layers that are root's alone" eval 'new_lun 1 "$WORK/local.json" && verify_lun 1 "$RAW"'
check "a LUN over the registry" eval 'new_lun 2 "$WORK/remote.json" && verify_lun 2 "$RAW"'
check "it is in the disk cache" wait_for 10 eval '[ "$(find "$WORK/cache" -type f -size +100k | wc -l)" -ge 1 ]'
check "and nothing there is root's but the lock" eval '[ -z "$(find "$WORK/cache" -type f -uid 0 ! -name .lock)" ]'
if [ "$LANDLOCK" = 0 ]; then
	check "layers come down into root's directories" wait_for 30 downloaded
	check "layers elsewhere are not read" fails eval 'new_lun 3 "$WORK/elsewhere.json" &&
		"$ISCSI" wait-ready -W 20 "$(url 3)" && verify_lun 3 "$RAW" -b 64K'
	check "the reason says so" eval 'grep -q "may not be read" "$WORK/elsewhere.json.result"'
fi
mv "$LOG" "$WORK/group.log.1"
kill -HUP "$SUPERVISOR"
check "the log moves" wait_for 10 test -e "$LOG"
no_old_log() {
	local fd
	for fd in "/proc/$(role_pids fetcher | head -n 1)/fd"/*; do
		case $(readlink "$fd") in */group.log.1) return 1 ;; esac
	done
}
check "for fetchers too" wait_for 10 no_old_log
stop_tgtd
check "the group stops" stop_group
CONF[fetcherUser]='""'
check "when fetchers are root again" start_group
check "the disk cache is root's again" eval '[ -z "$(find "$WORK/cache" ! -uid 0)" ]'

# ---- enemies on the socket --------------------------------------------------------------------------------------------------

fds() { find "/proc/$SUPERVISOR/fd" -type l | wc -l; }
rss() { awk '/^VmRSS/ {print $2}' "/proc/$SUPERVISOR/status"; }
alive_and_small() {
	echo "$(fds) descriptors (before: $FDS), $(rss) kB (before: $RSS)"
	alive "$SUPERVISOR" && [ "$(fds)" -le $((FDS + 2)) ] && [ "$(rss)" -le $((RSS + 32768)) ]
}
FDS=$(fds) RSS=$(rss) CHILDREN=$(role_pids 'cached|obd-indexer|obd-fetcher')
check "a user without rights is refused" eval '! OBD_TEST_UID=65534 python3 "$TOOLS/supclient.py" "$SOCK" stat 2>/dev/null | grep -q PROC'
check "random messages, sizes, descriptors, halves and floods" python3 "$TOOLS/suphostile.py" "$SOCK" 1500 "${OBD_SEED:-1}"
check "the supervisor lives, and has no more than before" wait_for 20 alive_and_small
check "so do its processes" test "$(role_pids 'cached|obd-indexer|obd-fetcher')" = "$CHILDREN"
check "and it serves" eval '"$B/bin/obd-stat" -r "$RUN" --audit >/dev/null'
check "the group stops at the end" stop_group
