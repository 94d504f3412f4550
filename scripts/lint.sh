#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What `make lint` runs besides the compiler: each rule prints "ok" or "not ok" with what broke it. A rule whose tool is not
# installed is skipped with a word; with CI=true that is a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C.UTF-8
failed=0 skipped=0

# files PATTERN...: what belongs to the tree and is there, by git, or by find in a tree without git.
files() {
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -- "$@"
	else
		local pattern
		for pattern in "$@"; do find . -path ./build -prune -o -type f -path "*${pattern#\*}" -print; done | sed 's,^\./,,'
	fi | sort -u | while IFS= read -r f; do [ -f "$f" ] && echo "$f"; done
}

# rule NAME TOOL COMMAND...: the command says what is wrong and fails. TOOL - needs none.
rule() {
	local name=$1 tool=$2 out
	shift 2
	if [ "$tool" != - ] && ! command -v "$tool" >/dev/null; then
		if [ "${CI:-}" = true ]; then
			echo "not ok lint: $name: $tool is not installed"
			failed=$((failed + 1))
		else
			echo "SKIP lint: $name: $tool is not installed"
			skipped=$((skipped + 1))
		fi
		return
	fi
	if out=$("$@" 2>&1); then
		echo "ok lint: $name"
	else
		echo "not ok lint: $name"
		head -n 60 <<<"$out" | sed 's/^/    /'
		failed=$((failed + 1))
	fi
}

includes() {
	local list
	mapfile -t list < <(files '*.c' '*.h')
	scripts/check-includes.py "${list[@]}"
}

# Version 14 is what the tree is formatted with.
format_tool=clang-format-14
command -v $format_tool >/dev/null || format_tool=clang-format
format() {
	local list
	mapfile -t list < <(files '*.c' '*.h')
	"$format_tool" --dry-run -Werror "${list[@]}"
}

shell_scripts() {
	files '*.sh' '.ci/*'
}

shells() {
	local list
	mapfile -t list < <(shell_scripts)
	shellcheck -x "${list[@]}"
}

pythons() {
	local f rc=0
	while read -r f; do
		python3 -c 'import ast, sys; ast.parse(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1])' "$f" || rc=1
	done < <(files '*.py')
	return $rc
}

manuals() {
	local list
	mapfile -t list < <(files 'doc/*.[1-9]')
	mandoc -T lint -W warning "${list[@]}"
}

# The licence stands in one of the first three lines of each source.
licences() {
	local f rc=0
	while read -r f; do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: GPL-2.0-or-later' && continue
		echo "$f: no SPDX line"
		rc=1
	done < <(files '*.c' '*.h' '*.sh' '*.py' '*.map' '*.yaml' '*.[1-9]' Makefile '.ci/*' | grep -v '^test/fuzz/corpus/')
	return $rc
}

# Words that a reader elsewhere can make nothing of: places on one developer's machine, and notes to oneself.
words() {
	local list rc
	mapfile -t list < <(files '*' | grep -Ev '^test/(data|fuzz/corpus)/|^LICENSE$')
	grep -nIE '(^|[^A-Za-z0-9_.$}/-])/(w[o]rk|home|root)/[A-Za-z]|[.][.]/s[h]ared|\<(FIXM[E]|XX[X]|TOD[O])\>' -- "${list[@]}"
	rc=$?
	[ $rc = 1 ]
}

blanks() {
	local list rc
	mapfile -t list < <(files '*' | grep -Ev '^test/(data|fuzz/corpus)/|^LICENSE$')
	grep -nIE '[[:blank:]]+$' -- "${list[@]}"
	rc=$?
	[ $rc = 1 ]
}

rule "the include checker finds what it should" python3 scripts/check-includes.py --self-test
rule "includes run downwards" python3 includes
rule "formatting" $format_tool format
rule "shell scripts" shellcheck shells
rule "python scripts parse" python3 pythons
rule "manual pages" mandoc manuals
rule "licence lines" - licences
rule "words" - words
rule "no blanks at the ends of lines" - blanks
[ $skipped = 0 ] || echo "lint: $skipped rules skipped"
[ $failed = 0 ]
