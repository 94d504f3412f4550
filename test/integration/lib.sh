# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What every integration test needs. A test file sources this, starts what it wants, and calls `check NAME COMMAND...`
# once per fact. Each check prints "ok NAME" or "not ok NAME: reason"; run.sh counts these lines.
#
# Everything lives in $WORK (removed at the end unless OBD_KEEP=1). At the end only processes that were started here are
# ended, by pid. Everything listens on 127.0.0.1.
#
# Set by the caller: B, the build to test (default build; relative to the top of the tree).
# shellcheck disable=SC2034 # variables for the tests

set -u
export LC_ALL=C
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH # Debian's own tools, which install-deps.sh brings, before what a user put in front
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
B=${B:-build}
case $B in /*) ;; *) B=$TOP/$B ;; esac
TOOLS=$TOP/test/tools
ISCSI=$B/test/obd-iscsi
MKLAYER=$B/test/obd-mklayer
NAME=$(basename "$0" .sh)

WORK=$(mktemp -d "${TMPDIR:-/tmp}/obd-test.XXXXXX")
RUN=$WORK/run
FAILED=0
OWN_PIDS=()  # processes to end
OWN_MOUNTS=() # mount points to undo
OWN_LOOPS=()  # loop devices to detach
SUPERVISOR='' TGTD='' TGT_PORT=''
OLD_HUGEPAGES=''

# ---- results ----------------------------------------------------------------------------------------------------------

ok() { echo "ok $NAME: $1"; }

not_ok() {
	FAILED=$((FAILED + 1))
	echo "not ok $NAME: $1${2:+: $2}"
}

# skip WHAT WHY: loud, counted, never silent.
skip() { echo "skip $NAME: $1: $2"; }

skip_all() {
	skip "the whole file" "$1"
	exit 0
}

# bail WHY: the test cannot go on.
bail() {
	not_ok "set-up" "$1"
	exit 1
}

# check NAME COMMAND...: one fact. The command's last line of output is the reason when it fails.
check() {
	local name=$1 out=$WORK/check.out
	shift
	if "$@" >"$out" 2>&1; then
		ok "$name"
	else
		not_ok "$name" "$(tail -n 1 "$out")"
		sed 's/^/    /' "$out" | tail -n 30
		return 1
	fi
}

# check_fails NAME COMMAND...: the command must exit with a status between 1 and 123 (not be missing or crash).
check_fails() {
	local name=$1
	shift
	check "$name" fails "$@"
}

fails() {
	local rc=0
	"$@" || rc=$?
	[ "$rc" -ge 1 ] && [ "$rc" -le 123 ] && return 0
	echo "exit status $rc of: $*"
	return 1
}

# ---- waiting ----------------------------------------------------------------------------------------------------------

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# wait_for SECONDS COMMAND...: until the command succeeds; 1 when it did not in time.
wait_for() {
	local end=$(($(now_ms) + $1 * 1000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_ms)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# A zombie is not alive: not every container's init reaps.
alive() {
	local state
	read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" && [ "$state" != Z ]
}

gone() { ! alive "$1"; }

# end_process PID SECONDS: SIGTERM, and SIGKILL when that was not enough; 1 in the latter case.
end_process() {
	local rc=0
	alive "$1" || return 0
	kill -TERM "$1" 2>/dev/null
	if ! wait_for "$2" gone "$1"; then
		kill -KILL "$1" 2>/dev/null
		rc=1
	fi
	wait "$1" 2>/dev/null
	return $rc
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# ---- the end ----------------------------------------------------------------------------------------------------------

show_logs() {
	local f
	for f in "$WORK"/*.log; do
		[ -s "$f" ] || continue
		echo "---- the end of $(basename "$f")"
		tail -n 40 "$f"
	done
}

cleanup() {
	local rc=$? i p
	trap - EXIT
	if [ "$FAILED" != 0 ] || [ "$rc" != 0 ]; then show_logs; fi
	for ((i = ${#OWN_MOUNTS[@]} - 1; i >= 0; i--)); do
		mountpoint -q "${OWN_MOUNTS[i]}" || continue
		case ${OWN_MOUNTS[i]} in */disk) for p in "${OWN_LOOPS[@]}"; do losetup -d "$p" 2>/dev/null; done ;; esac
		umount "${OWN_MOUNTS[i]}" || umount -l "${OWN_MOUNTS[i]}"
	done
	stop_tgtd
	stop_group >/dev/null
	for i in "${OWN_PIDS[@]}"; do end_process "$i" 2; done
	restore_hugepages
	if [ "${OBD_KEEP:-}" ]; then
		echo "kept $WORK"
	else
		rm -rf "$WORK"
	fi
	[ "$FAILED" = 0 ] || exit 1
	exit "$rc"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM

# ---- the process group ------------------------------------------------------------------------------------------------

# The global configuration: one top-level key each, in YAML's flow style. Tests change it before start_group.
declare -A CONF=(
	[runtimeDir]="$RUN"
	[logConfig]="{logLevel: 1, logPath: $WORK/group.log}"
	[ioEngine]=0
	[sharedCache]="{sizeMB: 256, hugepages: auto}"
	[readTimeoutSec]=60
	[cacheConfig]="{cacheDir: $WORK/cache, cacheSizeGB: 0}" # no disk tier unless a test is about it
)

write_group_config() {
	local key
	mkdir -p "$RUN"
	for key in "${!CONF[@]}"; do echo "$key: ${CONF[$key]}"; done | sort >"$WORK/overlaybd.yaml"
}

group_answers() { [ -S "$RUN/supervisor.sock" ] && "$B/bin/obd-stat" -r "$RUN" --json; }

group_ready_or_dead() { group_answers || gone "$SUPERVISOR"; }

start_group() {
	write_group_config
	setsid "$B/bin/obd-supervisor" -c "$WORK/overlaybd.yaml" >>"$WORK/supervisor.log" 2>&1 </dev/null &
	SUPERVISOR=$!
	wait_for 30 group_ready_or_dead
	group_answers >/dev/null 2>&1
}

# role_pids ROLE: the pids of the group's processes of that role (indexer, cached, fetcher).
role_pids() { pgrep -P "$SUPERVISOR" -x "obd-$1"; }

# The supervisor's children, and whatever else runs in its session; not the holder of descriptors, which outlives them for a while.
group_pids() { { pgrep -P "$SUPERVISOR"; pgrep -s "$SUPERVISOR"; } | grep -vxF -- "$(holder_pid)" | sort -un; }
holder_pid() { pgrep -P "$SUPERVISOR" -x obd-fdstore || echo none; }

# Prints how long it took in ms. 1: it did not end within 5 s by itself, or left a process behind.
stop_group() {
	local rc=0 begun p members
	[ "$SUPERVISOR" ] || return 0
	begun=$(now_ms)
	members=$(group_pids)
	end_process "$SUPERVISOR" 5 || rc=1
	echo "$(($(now_ms) - begun)) ms"
	for p in $members; do
		wait_for 1 gone "$p" && continue
		echo "left behind: $(ps -o pid=,args= -p "$p")"
		kill -KILL "$p" 2>/dev/null
		rc=1
	done
	SUPERVISOR=''
	return $rc
}

# ---- tgtd -------------------------------------------------------------------------------------------------------------

# The sanitizer's run-time library must be in tgtd before a module that was built with it.
tgtd_preload() {
	case $B in
	*san-*address*) gcc -print-file-name=libasan.so ;;
	*san-*thread*) gcc -print-file-name=libtsan.so ;;
	esac
}

need_root() { [ "$(id -u)" = 0 ] || skip_all "needs root for a private mount namespace"; }

adm() { TGT_IPC_SOCKET=$WORK/ipc tgtadm -C 1 --lld iscsi "$@"; }

tgtd_answers() { adm --mode sys --op show; }

tgtd_ready_or_dead() { tgtd_answers || gone "$TGTD"; }

# A private tgtd that sees our build as its module directory. Its target 1 is ready for LUNs.
start_tgtd() {
	need_root
	command -v tgtd >/dev/null || bail "tgtd is not installed"
	mkdir -p /usr/lib/tgt/backing-store
	TGT_PORT=$(free_port)
	# shellcheck disable=SC2016 # the inner shell expands
	TGT_IPC_SOCKET=$WORK/ipc OVERLAYBD_RUNTIME_DIR=$RUN PRELOAD=$(tgtd_preload) MODULES=$B/lib PORT=$TGT_PORT \
		setsid unshare -m --propagation slave sh -c '
			mount --bind "$MODULES" /usr/lib/tgt/backing-store || exit 1
			exec env LD_PRELOAD="$PRELOAD" ASAN_OPTIONS="detect_leaks=0:$ASAN_OPTIONS" \
				tgtd -f -C 1 --iscsi "portal=127.0.0.1:$PORT"' >>"$WORK/tgtd.log" 2>&1 </dev/null &
	TGTD=$!
	wait_for 10 tgtd_ready_or_dead
	tgtd_answers >/dev/null 2>&1 || bail "tgtd does not run: $(tail -n 1 "$WORK/tgtd.log")"
	new_target 1
}

stop_tgtd() {
	[ "$TGTD" ] || return 0
	if alive "$TGTD"; then
		adm --mode target --op delete --force --tid 1 >/dev/null 2>&1
		adm --mode sys --op delete >/dev/null 2>&1
		wait_for 3 gone "$TGTD"
	fi
	end_process "$TGTD" 1
	TGTD=''
}

# new_target TID
new_target() {
	adm --mode target --op new --tid "$1" --targetname "iqn.2025-01.test:t$1" &&
		adm --mode target --op bind --tid "$1" --initiator-address ALL
}

# new_lun LUN CONFIG [tgtadm's further options]: an overlaybd LUN of target 1.
new_lun() {
	local lun=$1 config=$2
	shift 2
	adm --mode logicalunit --op new --tid 1 --lun "$lun" --bstype overlaybd --backing-store "$config" "$@"
}

remove_lun() { adm --mode logicalunit --op delete --tid 1 --lun "$1"; }

url() { echo "iscsi://127.0.0.1:$TGT_PORT/iqn.2025-01.test:t${2:-1}/$1"; }

# verify_lun LUN REFERENCE.raw [obd-iscsi options]
verify_lun() {
	local lun=$1 reference=$2
	shift 2
	"$ISCSI" verify -r "$reference" "$@" "$(url "$lun")"
}

# ---- registries -------------------------------------------------------------------------------------------------------

answers_http() { curl -s -o /dev/null --max-time 2 "$1"; }

# Debian's registry, plain HTTP: sets REGISTRY.
start_registry() {
	local port
	command -v docker-registry >/dev/null || bail "docker-registry is not installed"
	port=$(free_port)
	mkdir -p "$WORK/registry"
	cat >"$WORK/registry.yml" <<-END
		version: 0.1
		log: {level: warn, accesslog: {disabled: true}}
		storage:
		  filesystem: {rootdirectory: $WORK/registry}
		http: {addr: "127.0.0.1:$port"}
	END
	docker-registry serve "$WORK/registry.yml" >>"$WORK/registry.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	REGISTRY=http://127.0.0.1:$port
	wait_for 10 answers_http "$REGISTRY/v2/" || bail "docker-registry does not answer"
}

# Our own blob server: sets BLOBS (its URL) and BLOB_LOG. Layers get there by `ocipush.py store $BLOB_ROOT`.
BLOB_ROOT=$WORK/blobs
BLOB_LOG=$WORK/blobs.jsonl
start_blobserver() {
	mkdir -p "$BLOB_ROOT"
	rm -f "$WORK/blobs.port"
	python3 "$TOOLS/blobserver.py" "$BLOB_ROOT" --log "$BLOB_LOG" --port-file "$WORK/blobs.port" \
		>>"$WORK/blobserver.log" 2>&1 </dev/null &
	BLOBSERVER=$!
	OWN_PIDS+=("$BLOBSERVER")
	wait_for 10 test -s "$WORK/blobs.port" || bail "blobserver.py does not start"
	BLOBS=http://127.0.0.1:$(cat "$WORK/blobs.port")
}

# faults JSON: replaces the blob server's faults ([] for none).
faults() { curl -sS --fail -X PUT -d "$1" "$BLOBS/faults"; }

# The one whose link can be made slow and narrow (obd-blobserve): sets BLOBS.
start_blobserve() {
	mkdir -p "$BLOB_ROOT"
	"$B/test/obd-blobserve" -p "$WORK/blobs.port" "$BLOB_ROOT" >>"$WORK/blobserver.log" 2>&1 </dev/null &
	OWN_PIDS+=($!)
	wait_for 10 test -s "$WORK/blobs.port" || bail "obd-blobserve does not start"
	BLOBS=http://127.0.0.1:$(cat "$WORK/blobs.port")
}

# link MS BYTES_PER_S: its latency per answer, and its rate (0: none)
link() { curl -sS --fail -o /dev/null "$BLOBS/link?latency_ms=$1&rate=$2" || bail "the server does not answer"; }

# server FIELD: requests or bytes so far
server() { curl -sS --fail "$BLOBS/stats" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# remote_config OUT REPO [write-config's options] -- LAYER...: a config whose layers come from the blob server.
remote_config() {
	local out=$1 repo=$2 options=()
	shift 2
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	python3 "$TOOLS/ocipush.py" store "$BLOB_ROOT" "$@" |
		python3 "$TOOLS/ocipush.py" write-config "$out" --from - --repo-blob-url "$BLOBS/v2/$repo/blobs" \
			--result "$out.result" "${options[@]}"
}

# local_config OUT LAYER...
local_config() {
	local out=$1
	shift
	python3 "$TOOLS/ocipush.py" write-config "$out" "$@" --result "$out.result"
}

# bytes_sent [FIELD=VALUE]...: the body bytes that the blob server's log has for requests with these fields.
bytes_sent() {
	python3 - "$BLOB_LOG" "$@" <<-'END'
		import json, sys
		want = [pair.split("=", 1) for pair in sys.argv[2:]]
		rows = map(json.loads, open(sys.argv[1]))
		print(sum(row["sent"] for row in rows if all(str(row[k]) == v for k, v in want)))
	END
}

# ---- images -----------------------------------------------------------------------------------------------------------

# A small real image, made once for all variants of the build: sets LAYERS (bottom to top), STEPS (the raw image after each
# layer) and RAW (the last of them).
need_image() {
	local dir=$TOP/build/test/image
	if ! flock "$TOP/build" "$TOOLS/mkimage.sh" "$dir" "$MKLAYER" >"$WORK/mkimage.log" 2>&1; then
		bail "mkimage.sh: $(tail -n 1 "$WORK/mkimage.log")"
	fi
	LAYERS=("$dir"/layer?.tar)
	STEPS=("$dir"/step?.raw)
	RAW=${STEPS[-1]}
}

# The images that existing tools wrote: sets GOLDEN.
need_golden() {
	GOLDEN=$WORK/golden
	mkdir -p "$GOLDEN"
	zstd -dcq "$TOP/test/data/golden-images.tar.zst" | tar -xf - -C "$GOLDEN" || bail "cannot unpack golden-images.tar.zst"
}

# ---- disks that misbehave ---------------------------------------------------------------------------------------------

# bad_disk DIR: bad_group will start a group for which that directory is on a disk that does as `mode` says (baddisk.c).
bad_disk() {
	case $B in *san-*) skip_all "another library in LD_PRELOAD does not go with sanitizers" ;; esac
	MODE=$WORK/mode
	mode well
	export OBD_BADDISK_PREFIX=$1 OBD_BADDISK_MODE=$MODE
}

mode() { echo "$1" >"$MODE.new" && mv "$MODE.new" "$MODE"; }

bad_group() {
	export LD_PRELOAD=$B/test/baddisk.so
	start_group
	local rc=$?
	unset LD_PRELOAD
	return $rc
}

# ---- machine ----------------------------------------------------------------------------------------------------------

# set_hugepages N: asks for a pool of N pages; undone at the end. 1 when the kernel did not give them.
set_hugepages() {
	local knob=/proc/sys/vm/nr_hugepages
	[ -w $knob ] || return 1
	[ "$OLD_HUGEPAGES" ] || OLD_HUGEPAGES=$(cat $knob)
	echo "$1" >$knob && [ "$(cat $knob)" -ge "$1" ]
}

restore_hugepages() {
	[ "$OLD_HUGEPAGES" ] && echo "$OLD_HUGEPAGES" >/proc/sys/vm/nr_hugepages
	OLD_HUGEPAGES=''
}

# mount_image RAW: mounts a copy-free read-only view; sets MOUNTED. 1 when this machine cannot.
mount_image() {
	MOUNTED=$(mktemp -d "$WORK/mnt.XXXXXX")
	mount -o ro,loop,noload "$1" "$MOUNTED" || return 1
	OWN_MOUNTS+=("$MOUNTED")
}

# mount_lun LUN ro|rw [mount's options]: a LUN's file system mounted here through user space: qemu's iSCSI client, NBD, a loop
# device. Sets MOUNTED and DEVICE. 1 when this machine cannot; see can_mount_luns. unmount_lun undoes the last one.
LUN_MOUNTS=0
mount_lun() {
	local lun=$1 mode=$2 dir=$WORK/lun-mount.$LUN_MOUNTS readonly=() pid
	shift 2
	[ "$mode" = rw ] || readonly=(-r)
	mkdir -p "$dir/mnt"
	: >"$dir/disk"
	setsid qemu-nbd "${readonly[@]}" --persistent --shared=8 --discard=unmap --cache=none --socket="$dir/nbd" --image-opts \
		"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=127.0.0.1:$TGT_PORT,file.target=iqn.2025-01.test:t1,file.lun=$lun" \
		>>"$WORK/mount.log" 2>&1 </dev/null &
	echo $! >"$dir/pids"
	OWN_PIDS+=($!)
	wait_for 10 test -S "$dir/nbd" || return 1
	setsid nbdfuse "${readonly[@]}" "$dir/disk" "nbd+unix:///?socket=$dir/nbd" >>"$WORK/mount.log" 2>&1 </dev/null &
	pid=$!
	echo $pid >>"$dir/pids"
	OWN_PIDS+=("$pid")
	wait_for 10 test -s "$dir/disk" || return 1
	OWN_MOUNTS+=("$dir/disk")
	DEVICE=$(losetup -f --show --direct-io=on "${readonly[@]}" "$dir/disk") || return 1
	OWN_LOOPS+=("$DEVICE")
	LUN_MOUNTS=$((LUN_MOUNTS + 1))
	MOUNTED=$dir/mnt
	[ "${1:-}" = unmounted ] && return 0
	mount -o "$mode${1:+,$1}" "$DEVICE" "$MOUNTED" || return 1
	OWN_MOUNTS+=("$MOUNTED")
}

unmount_lun() {
	local dir=$WORK/lun-mount.$((LUN_MOUNTS - 1)) p rc=0
	LUN_MOUNTS=$((LUN_MOUNTS - 1))
	if mountpoint -q "$dir/mnt"; then
		wait_for 60 umount "$dir/mnt" || { echo "cannot unmount $dir/mnt" && return 1; }
	fi
	losetup -d "$DEVICE"
	wait_for 60 umount "$dir/disk" || { echo "cannot unmount $dir/disk" && return 1; }
	while read -r p; do end_process "$p" 60 || rc=1; done <"$dir/pids"
	rm -rf "$dir"
	return $rc
}

can_mount_luns() { [ -c /dev/fuse ] && losetup -f >/dev/null 2>&1 && command -v qemu-nbd nbdfuse >/dev/null; }
