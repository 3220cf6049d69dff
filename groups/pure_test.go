package groups

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
)

// statement is what a source says in a test; js is one JSON object.
func statement(t testing.TB, source, js string) *claims.Identity {
	t.Helper()
	c, err := claims.Parse([]byte(js))
	if err != nil {
		t.Fatalf("claims %s: %v", js, err)
	}
	return &claims.Identity{Source: source, Subject: "s1", Claims: c}
}

// ruleset compiles rules and names those without an id r0, r1, ...
func ruleset(t testing.TB, rules ...Rule) *Rules {
	t.Helper()
	out, err := Compile(named(rules))
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return out
}

func named(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		if rules[i].ID == "" {
			rules[i].ID = fmt.Sprintf("r%d", i)
		}
	}
	return rules
}

// keep reads groups of source s with when_absent: keep.
func keep() SourcePolicy {
	return SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: claims.Keep}
}

// granted lists the groups a statement grants, in order and once each.
func granted(w *Wanted) string { return strings.Join(wantedNames(w), " ") }

// checkGrants checks that a statement of s grants exactly these groups.
func checkGrants(t *testing.T, rules *Rules, js, want string) {
	t.Helper()
	if got := granted(rules.Apply(statement(t, "s", js), keep())); got != want {
		t.Errorf("claims %s grant %q, want %q", js, got, want)
	}
}

// allocated is how much memory was handed out so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
