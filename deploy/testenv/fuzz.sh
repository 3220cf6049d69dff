#!/usr/bin/env bash
# Runs every fuzz target of the module for a moment, as many at a time as there
# are processors, each on one. Each begins with the inputs that stand in the
# tree: going over all that former runs found may take the moment by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
go=${GO:-go}
export time=${1:-5s} built
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

target() {
	local package=$1 dir=$2 target=$3 out
	cd "$dir" # where its corpus is
	run() {
		out=$(GOMAXPROCS=1 "$built/${package//\//_}" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" \
			-test.fuzzminimizetime 20x -test.parallel 1 -test.fuzzcachedir "$built/cache/$package" 2>&1 </dev/null)
	}
	# At the end of its time the fuzzer may mistake its own deadline for a
	# failure (golang.org/issue/48591); a real one names its input.
	if ! run && ! { grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input' <<<"$out" && run; }; then
		printf '%s %s\n%s\n' "$package" "$target" "$out"
		return 255 # xargs starts no other
	fi
	printf 'ok  \t%s\t%s\t%s\n' "$package" "$target" "$(printf '%s\n' "$out" | awk '/execs:/ { for (i = 1; i < NF; i++) if ($i == "execs:") n = $(i + 1) } END { print n + 0 " inputs" }')"
}
export -f target

"$go" list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}
{{end}}' ./... | while read -r package dir file; do
	sed -n "s,^func \(Fuzz[A-Za-z0-9_]*\)(.*,$package $dir \1,p" "$dir/$file"
done >"$built/targets"
cut -d' ' -f1 "$built/targets" | sort -u | while read -r package; do
	"$go" test -c -fuzz . -o "$built/${package//\//_}" "$package"
done
xargs -P "$(nproc)" -L 1 bash -c 'set -euo pipefail; target "$@"' fuzz <"$built/targets"
