#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# obd-supervisor with stand-ins for its children: start order, grants, deaths, silence, clients, stop.
. "$(dirname "$0")/lib.sh"

SUP=$B/bin/obd-supervisor
SOCK=$RUN/supervisor.sock
LOG=$WORK/group.log
export FAKE_DIR=$WORK/fake
BIN=$WORK/bin
mkdir -p "$FAKE_DIR" "$BIN"
[ -x "$B/test/fakechild" ] || bail "no fakechild: make test-tools"
for p in obd-cached obd-indexer obd-fetcher; do cp "$B/test/fakechild" "$BIN/$p"; done

CONF[fetchers]=2
CONF[hangSec]=2

client() { python3 "$TOOLS/supclient.py" "$SOCK" "$@"; }
child_log() { cat "$FAKE_DIR/obd-$1.${2:-0}.log" 2>/dev/null; }
logged() { grep -q -- "$1" "$LOG"; }
pid_of() { pgrep -P "$SUPERVISOR" -x "obd-$1" | head -n 1; }
new_pid() { [ "$(pid_of "$1")" ] && [ "$(pid_of "$1")" != "$2" ]; }
is_ready() { [ -S "$SOCK" ]; }
all_running() { [ "$(client stat | grep -c '"state":"running"')" -ge 5 ]; }
has_line() { child_log "$1" "${3:-0}" | grep -qx -- "$2"; }
lacks_line() { ! has_line "$@"; }

# start [MARK]: a mark that lies in FAKE_DIR before the first child looks for it
start() {
	rm -f "$LOG" "$FAKE_DIR"/*
	[ $# = 0 ] || touch "$FAKE_DIR/$1"
	write_group_config
	"$SUP" -c "$WORK/overlaybd.yaml" --bindir "$BIN" >"$WORK/supervisor.log" 2>&1 </dev/null &
	SUPERVISOR=$!
}

start_ready() {
	start
	wait_for 5 logged "ready: $SOCK" || bail "the group does not start"
}

stop_within() {
	local begun
	begun=$(now_ms)
	kill -TERM "$SUPERVISOR"
	wait "$SUPERVISOR"
	STOP_STATUS=$?
	SUPERVISOR=''
	STOP_MS=$(($(now_ms) - begun))
	echo "status $STOP_STATUS after $STOP_MS ms"
	[ "$STOP_MS" -le "$1" ] && [ "$STOP_STATUS" = 0 ]
}

nothing_left() { ! pgrep -f "^$BIN/obd-"; }

# ---- command line and configuration ---------------------------------------------------------------------------------

exits() {
	local want=$1 rc=0
	shift
	"$@" || rc=$?
	echo "exit status $rc"
	[ $rc = "$want" ]
}

says() {
	local text=$1
	shift
	"$@" 2>&1 | grep -F -- "$text"
}

write_group_config
CFG=$WORK/overlaybd.yaml
check "--version" exits 0 "$SUP" --version
check "--help" exits 0 "$SUP" --help
check "a wrong option is usage" exits 2 "$SUP" --nonsense
check "an argument is usage" exits 2 "$SUP" -c "$CFG" word
check "--check says ok" says "ok" "$SUP" -c "$CFG" --bindir "$BIN" --check
check "--check starts nothing" test ! -e "$RUN/supervisor.lock"
check "--check misses programs" says "$WORK/none/obd-cached: No such file" "$SUP" -c "$CFG" --bindir "$WORK/none" --check
check "--check fails then" exits 1 "$SUP" -c "$CFG" --bindir "$WORK/none" --check
check "a missing file is one line" says "$WORK/none.yaml" "$SUP" -c "$WORK/none.yaml"
check "and exit 1" exits 1 "$SUP" -c "$WORK/none.yaml"
echo "hangSec: 0" >"$WORK/bad.yaml"
check "a bad value names the key" says "hangSec" "$SUP" -c "$WORK/bad.yaml" --check
echo "colour: blue" >"$WORK/bad.yaml"
check "an unknown key names the line" says "bad.yaml:1" "$SUP" -c "$WORK/bad.yaml" --check
check "an unknown key ends the start" exits 1 "$SUP" -c "$WORK/bad.yaml"
echo "runtimeDir: $WORK/none/run" >"$WORK/bad.yaml"
check "an impossible runtimeDir" says "runtimeDir $WORK/none/run: cannot be made" "$SUP" -c "$WORK/bad.yaml" --bindir "$BIN" --check
malformed() { # YAML LINE: --check refuses it with one line, "FILE:LINE", and exit 1
	local rc=0
	echo "$1" >"$WORK/bad.yaml"
	"$SUP" -c "$WORK/bad.yaml" --bindir "$BIN" --check >"$WORK/malformed.out" 2>&1 || rc=$?
	cat "$WORK/malformed.out"
	[ $rc = 1 ] && [ "$(wc -l <"$WORK/malformed.out")" = 1 ] && grep -qF "bad.yaml:1: $2" "$WORK/malformed.out"
}
check "a malformed mirror" malformed 'registries: [{host: a, mirrors: ["htp://m"]}]' \
	'registries[0].mirrors: "htp://m": the scheme is not allowed; expected HOST or HOST:PORT or http(s)://HOST[:PORT][/PATH]'
check "a malformed registry" malformed 'registries: [{host: "a:99999"}]' \
	'registries[0].host: "a:99999": the port is not in 1..65535; expected HOST or HOST:PORT'
check "a malformed p2p address" malformed 'p2pConfig: {enable: true, address: "localhost 9731"}' \
	'p2pConfig.address: "localhost 9731": no scheme; expected http(s)://HOST[:PORT][/PATH]'
check "a malformed credential service" malformed 'credentialConfig: {mode: https, path: /cred.json}' \
	'credentialConfig.path: "/cred.json": no scheme; expected https://HOST[:PORT][/PATH]'
"$SUP" -c "$CFG" --print-config >"$WORK/printed.yaml"
check "--print-config prints the effective value" grep -q "hangSec: 2" "$WORK/printed.yaml"
check "what it prints is a configuration" exits 0 "$SUP" -c "$WORK/printed.yaml" --bindir "$BIN" --check
check "a child started by hand is usage" exits 2 "$BIN/obd-cached"

# ---- start ----------------------------------------------------------------------------------------------------------

rm -rf "$RUN"
CONF[runtimeDir]=$RUN
start_ready
check "runtimeDir has mode 0755" test "$(stat -c %a "$RUN")" = 755
check "the socket has mode 0660" test "$(stat -c %a "$SOCK")" = 660
check "the pid file" test "$(cat "$RUN/supervisor.pid")" = "$SUPERVISOR"
check "the log says ready" logged "ready: $SOCK"
check "cached was ready before the others started" \
	sh -c "awk '/obd-cached.*is ready/ {ok = 1} /obd-(indexer|fetcher).*started/ && !ok {exit 1}' '$LOG'"
check "first cached gets no region" lacks_line cached "0 grant table 0 rw"
check "indexer writes the catalog" has_line indexer "0 grant catalog 0 rw"
check "indexer writes the index" has_line indexer "0 grant index 0 rw"
check "indexer reads frames" has_line indexer "0 grant frames 0 ro"
check "indexer owns client area 0" has_line indexer "0 grant client 0 rw"
check "fetcher 1 writes frames" has_line fetcher "0 grant frames 0 rw" 1
check "fetcher 1 owns its area" has_line fetcher "0 grant fetcher 1 rw" 1
check "fetcher 1 has no other area" lacks_line fetcher "0 grant fetcher 0 rw" 1
check "fetcher has no recency" sh -c "! grep -q recency '$FAKE_DIR/obd-fetcher.1.log'"
wait_for 2 has_line cached "0 up frontend 0 0"
check "cached is told of client 0" has_line cached "0 up frontend 0 0"
check "and reads its area" has_line cached "0 grant client 0 ro"
check "every protection is as told" sh -c "! grep -h WRONG '$FAKE_DIR'/*.log"

start2() { "$SUP" -c "$CFG" --bindir "$BIN"; }
check "a second group is refused" says "another obd-supervisor runs here" start2
check "with exit 1" exits 1 start2
check "and the first goes on" all_running

# ---- clients --------------------------------------------------------------------------------------------------------

python3 "$TOOLS/supclient.py" "$SOCK" hello 30 >"$WORK/hello.out" &
HELLO=$!
OWN_PIDS+=("$HELLO")
wait_for 5 grep -q WELCOME "$WORK/hello.out"
check "a frontend is welcome as client 1" grep -qx "WELCOME 1 1 " "$WORK/hello.out"
check "it writes its area" grep -qx "grant client 1 rw" "$WORK/hello.out"
check "it reads frames" grep -qx "grant frames 0 ro" "$WORK/hello.out"
check "it writes recency" grep -qx "grant recency 0 rw" "$WORK/hello.out"
check "it has no fetcher's area" sh -c "! grep -q 'grant .*fetcher' '$WORK/hello.out'"
check "its protections are as told" sh -c "! grep WRONG '$WORK/hello.out'"
wait_for 2 has_line indexer "0 up frontend 1 1"
check "cached learns of it" has_line cached "0 up frontend 1 1"
check "indexer learns of it" has_line indexer "0 up frontend 1 1"
check "indexer reads its area" has_line indexer "0 grant client 1 ro"
check "obd-stat sees six processes and it" test "$(client stat | grep -c ^PROC)" = 6
check "stat gives everything read-only" sh -c "! python3 '$TOOLS/supclient.py' '$SOCK' stat | grep -E ' rw|WRONG|doorbell'"
check "stat ends with the connection" sh -c "python3 '$TOOLS/supclient.py' '$SOCK' stat | tail -n 1 | grep -x closed"
kill "$HELLO"
wait "$HELLO" 2>/dev/null
wait_for 2 has_line cached "0 down frontend 1 1"
check "its end is told to cached" has_line cached "0 down frontend 1 1"
check "its end is told to the indexer" wait_for 2 has_line indexer "0 down frontend 1 1"
sleep 0.2
check "the id is used again" says "WELCOME 1 2" client hello

for how in garbage short fds ready twice; do
	check "hostile ($how): that connection ends" sh -c "timeout 5 python3 '$TOOLS/supclient.py' '$SOCK' $how | tail -n 1 | grep -x closed"
done
check "another version is refused with a word" says "REFUSED 0 0 its protocol version" client old
sleep 0.3
check "63 clients fit" test "$(client many 63 | grep -c WELCOME)" = 63
sleep 0.3
check "the 64th is refused" says "REFUSED 0 all client ids are taken" client many 64
sleep 0.3
touch "$FAKE_DIR/keep-clients.obd-indexer"
check "an id that a server still holds" says "WELCOME 1 " client hello
sleep 0.3
check "is not given out" says "WELCOME 2 " client hello
old=$(pid_of indexer)
kill -KILL "$old"
wait_for 3 new_pid indexer "$old"
rm "$FAKE_DIR/keep-clients.obd-indexer"
wait_for 3 all_running
check "a server's death lets go of it" says "WELCOME 1 " client hello
check "the group still runs" all_running

if [ "$(id -u)" = 0 ]; then
	chmod 755 "$WORK" # the way to the socket must be open, or nothing is tested
	chmod 666 "$SOCK"
	OBD_TEST_UID=65534 client hello >"$WORK/nobody.out" 2>&1
	check "another user is not welcome" sh -c "! grep -q WELCOME '$WORK/nobody.out'"
	check "and it is logged" logged "connection of user 65534" || cat "$WORK/nobody.out"
	chmod 660 "$SOCK"
else
	skip "another user" "needs root"
fi

# ---- deaths ---------------------------------------------------------------------------------------------------------

old=$(pid_of fetcher)
kill -KILL "$old"
check "a dead fetcher is back within 1 s" wait_for 1 new_pid fetcher "$old"
check "its death is logged" logged "obd-fetcher .*killed by signal 9"
check "cached is told REAPED" wait_for 1 sh -c "grep -q '^0 reaped fetcher [01] 0' '$FAKE_DIR/obd-cached.0.log'"

old=$(pid_of indexer)
kill -KILL "$old"
check "a dead indexer is back" wait_for 2 new_pid indexer "$old"
check "cached dropped its area first" has_line cached "0 down frontend 0 1"
check "and has the new one" has_line cached "0 up frontend 0 2"
check "and the indexer owns it" wait_for 2 has_line indexer "2 grant client 0 rw"

python3 "$TOOLS/supclient.py" "$SOCK" hello 30 >"$WORK/hello2.out" &
HELLO=$!
OWN_PIDS+=("$HELLO")
wait_for 5 grep -q WELCOME "$WORK/hello2.out"
old=$(pid_of cached)
kill -KILL "$old"
check "a dead cached is back" wait_for 2 new_pid cached "$old"
check "it gets its regions again" wait_for 2 has_line cached "1 grant table 0 rw"
check "the others read-only" has_line cached "1 grant frames 0 ro"
check "it learns of the client that stayed" wait_for 2 has_line cached "1 up frontend $(awk '/WELCOME/ {print $2, $3}' "$WORK/hello2.out")"
check "and of client 0" has_line cached "1 up frontend 0 2"
check "and of the dead fetcher" sh -c "grep -q '^1 reaped fetcher [01] 0' '$FAKE_DIR/obd-cached.0.log'"
check "the indexer is told" wait_for 1 has_line indexer "2 reaped cached 0 0"
check "the socket stayed" is_ready
wait_for 3 all_running
kill "$HELLO"
wait "$HELLO" 2>/dev/null
check "the new cached hears of the client's end" wait_for 2 has_line cached "1 down frontend $(awk '/WELCOME/ {print $2, $3}' "$WORK/hello2.out")"

# ---- back-off, silence, bad manners ---------------------------------------------------------------------------------

touch "$FAKE_DIR/die-start.obd-indexer"
kill -KILL "$(pid_of indexer)"
starts() { child_log indexer | grep -c ' start$'; }
# 0, 0.1, 0.2, 0.4, 0.8, 1, 1 s ...: 5 or 6 starts in 3 s, beside the 2 or 3 above
check "it is started again and again" wait_for 15 eval '[ "$(starts)" -ge 5 ]'
starts=$(starts) begun=$(now_ms)
sleep 3
more=$(($(starts) - starts)) took=$(($(now_ms) - begun))
check "restarts are spaced ($more starts in $took ms)" test "$more" -le $((2 + took / 400))
check "it shows in stat" sh -c "python3 '$TOOLS/supclient.py' '$SOCK' stat | grep indexer | grep 'exit status 3'"
check "a client may come meanwhile" says WELCOME client hello
rm "$FAKE_DIR/die-start.obd-indexer"
check "it recovers" wait_for 8 all_running

old=$(pid_of fetcher)
kill -STOP "$old"
check "a silent child is replaced" wait_for 5 gone "$old"
check "and it is logged" logged "obd-fetcher .*is silent for 2 s: killed"
check "and in stat" sh -c "python3 '$TOOLS/supclient.py' '$SOCK' stat | grep 'killed: silent'"
check "and started again" wait_for 8 all_running

old=$(pid_of fetcher)
touch "$FAKE_DIR/rude.obd-fetcher"
check "a malformed packet ends the child" wait_for 4 gone "$old"
rm "$FAKE_DIR/rude.obd-fetcher"
check "and it is logged" logged "obd-fetcher .*malformed packet: killed"
check "and started again" wait_for 8 all_running

old=$(pid_of cached)
kill -STOP "$SUPERVISOR"
sleep 4
kill -CONT "$SUPERVISOR"
sleep 1
check "a stopped supervisor kills nobody when it goes on" alive "$old"
check "all run" all_running

mv "$LOG" "$LOG.1"
kill -HUP "$SUPERVISOR"
check "SIGHUP opens the log again" wait_for 2 test -e "$LOG"
cat "$LOG.1" >>"$LOG"
check "all run on" all_running

# ---- stop -----------------------------------------------------------------------------------------------------------

python3 "$TOOLS/supclient.py" "$SOCK" hello 30 >"$WORK/hello3.out" &
OWN_PIDS+=($!)
wait_for 5 grep -q WELCOME "$WORK/hello3.out"
check "it stops" stop_within 2000
check "no process is left" nothing_left
check "no socket is left" test ! -e "$SOCK" -a ! -e "$RUN/supervisor.pid"

start_ready
touch "$FAKE_DIR/deaf.obd-fetcher"
check "it stops with a deaf child in 5 s" stop_within 5000
check "no process is left then" nothing_left

start_ready
{ kill -KILL "$SUPERVISOR" && wait "$SUPERVISOR"; } 2>/dev/null
check "the group ends with the supervisor" wait_for 20 nothing_left
check "it leaves its socket" test -e "$SOCK"
start_ready
check "the next group takes over" all_running
check "the regions too" logged "the cache of the group before is taken over"
check "cached is another incarnation" has_line cached "1 grant table 0 rw"
kill -KILL "$SUPERVISOR"
wait "$SUPERVISOR" 2>/dev/null
wait_for 20 nothing_left
start die-adopted.obd-cached
check "cached dies over them: a new group comes up" wait_for 10 logged "ready: $SOCK"
check "and it is logged" logged "obd-cached dies over the cache of the group before (exit status 3): a new one is made"
check "with new regions" has_line cached "0 start"
check "all run" all_running
holder=$(pgrep -P "$SUPERVISOR" -x obd-fdstore)
check "it stops as well" stop_within 2000
check "and nothing is kept" eval "gone $holder && [ ! -e $RUN/fdstore.sock ]"

# ---- a group that cannot start --------------------------------------------------------------------------------------

for how in die-start incomplete; do
	start "$how.obd-cached"
	check "$how: it gives up" wait_for 20 gone "$SUPERVISOR" || kill "$SUPERVISOR"
	wait "$SUPERVISOR"
	rc=$?
	check "$how: with exit 1" test $rc = 1
	SUPERVISOR=''
	check "$how: with a line" logged "obd-cached died 5 times before the group was ready"
	check "$how: no socket" test ! -e "$SOCK"
	rm -f "$FAKE_DIR/$how.obd-cached"
done
check "the line says what is missing" logged "ready without having deposited geometry"
