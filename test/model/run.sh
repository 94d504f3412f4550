#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs spin over the models of this folder: every model must hold, every mutant of it must be caught.
#
#   run.sh [-q] [-k] [MODEL...]      -q: without what is marked slow   -k: a failure's trail is shown
#
# What there is to run stands in the comment at the head of each model, one line each:
#
#   check  MODE [slow] [-D...]       MODE ends: assertions, and no run stops where it must not
#                                         progress: no run goes round in a circle
#   mutant NAME [slow] MODE-OR-KIND  -DMUTANT_NAME; KIND is what spin must say: "invalid end state", "assertion violated" or
#                                    "non-progress cycle"
#
# One line per run with states, depth and seconds. The last one is "N passed, N failed"; exit 1 on a failure.
set -u
cd "$(dirname "$0")" || exit 1
quick='' keep='' passed=0 failed=0
while getopts qk opt; do
	case $opt in
	q) quick=1 ;;
	k) keep=1 ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- *.pml
if ! command -v spin >/dev/null; then
	echo "skip model: spin: it is not installed (scripts/install-deps.sh)"
	[ "${CI:-}" != true ]
	exit
fi
CC=${CC:-gcc}
dir=$(mktemp -d "${TMPDIR:-/tmp}/obd-model.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cp ./*.pml "$dir"
cd "$dir" || exit 1

# verify MODEL MODE DEFINES...: leaves spin's words in `out`. Fails when nothing could be verified.
verify() {
	local model=$1 mode=$2 flags run
	shift 2
	case $mode in
	progress) flags='-O1 -DNP' run='-l' ;;
	*) flags='-O1 -DSAFETY' run='' ;;
	esac
	case $* in
	*-DMUTANT_*) flags="$flags -O0" run="$run -w18" ;; # found at once: what takes time is the compiler
	esac
	rm -f pan pan.* ./*.trail
	spin -a "$@" "$model.pml" >out 2>&1 || return 1
	# shellcheck disable=SC2086 # words
	"$CC" -w $flags -DMEMLIM=1500 -DVECTORSZ=2048 -o pan pan.c >>out 2>&1 || return 1
	# shellcheck disable=SC2086
	timeout 300 ./pan $run -m200000 >out 2>&1
}

number() {
	sed -nE "s/$1/\\1/p" out | head -n 1
}

# say good|bad TEXT
say() {
	local states depth took
	states=$(number '^ *([0-9e+.]+) states, stored.*')
	depth=$(number '.*depth reached ([0-9]+).*')
	took=$(number '.*elapsed time ([0-9.e-]+) seconds')
	printf '%-6s %-58s %9s states  depth %5s  %6s s\n' "$1" "$2" "${states:--}" "${depth:--}" "${took:--}"
	if [ "$1" = ok ]; then
		passed=$((passed + 1))
		return
	fi
	failed=$((failed + 1))
	sed 's/^/    /' out | head -n 20
}

# Complete means: nothing was cut off.
complete() {
	grep -q 'errors: 0' out && ! grep -qE 'too small|reached -DMEMLIM|out of memory|Search not completed|search was truncated' out
}

for model in $(basename -s .pml "$@"); do
	[ "$model" != mem ] || continue
	while read -r what first rest; do
		case $rest in
		slow*)
			[ ! "$quick" ] || continue
			rest=${rest#slow}
			;;
		esac
		rest=${rest# }
		if [ "$what" = check ]; then
			# shellcheck disable=SC2086
			if verify "$model" "$first" $rest && complete; then say ok "$model $first $rest"; else say 'not ok' "$model $first $rest"; fi
		else
			mode=ends
			[ "$rest" != 'non-progress cycle' ] || mode=progress
			verify "$model" "$mode" "-DMUTANT_$first"
			if grep -q "^pan:1: $rest" out; then say ok "$model caught $first: $rest"; else say 'not ok' "$model caught $first: $rest"; fi
		fi
		# shellcheck disable=SC2086
		[ ! "$keep" ] || [ ! -e "$model.pml.trail" ] || [ "$what" = mutant ] || spin -t -p -g $rest "$model.pml" | tail -n 200
	done < <(sed -nE '/\*\//q; s/^ \* +(check|mutant) +/\1 /p' <(tail -n +2 "$model.pml"))
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
