#!/usr/bin/env bash
# Runs every fuzz target of the module for a moment, one after the other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
time=${1:-5s}
go=${GO:-go}

# "go test -list" prints the targets of a package, then "ok PACKAGE".
"$go" test -list '^Fuzz' ./... | awk '/^Fuzz/ { t[n++] = $1 } /^ok/ { for (i = 0; i < n; i++) print $2, t[i]; n = 0 }' |
while read -r package target; do
	run() { out=$("$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x -parallel 2 "$package" 2>&1 </dev/null); }
	# At the end of its time the fuzzer may mistake its own deadline for a
	# failure (golang.org/issue/48591); a real one names its input.
	if ! run && ! { grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input' <<<"$out" && run; }; then
		printf '%s\n' "$out"
		exit 1
	fi
	printf 'ok  \t%s\t%s\t%s\n' "$package" "$target" "$(printf '%s\n' "$out" | awk '/execs:/ { for (i = 1; i < NF; i++) if ($i == "execs:") n = $(i + 1) } END { print n + 0 " inputs" }')"
done
