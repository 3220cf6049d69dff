package groups_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// exactRules compiles n rules for values v0, v1, ...
func exactRules(t testing.TB, n int) *groups.Rules {
	t.Helper()
	rules := make([]groups.Rule, n)
	for i := range rules {
		rules[i] = valueRule(fmt.Sprintf("r%d", i), "s", fmt.Sprintf("v%d", i), fmt.Sprintf("g%d", i))
	}
	out, err := groups.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// values are n of them; with ten rules or more, ten of them hit.
func values(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("v%d", i)
		if i >= 10 {
			out[i] = fmt.Sprintf("miss%d", i)
		}
	}
	return out
}

var benchPolicy = groups.SourcePolicy{Source: "s", Claims: []string{"groups"}, WhenAbsent: claims.Keep}

// TestTenThousandRulesCostAsMuchAsTen: an exact rule is one lookup in a map,
// however many there are. The best of several rounds is compared, since a
// busy machine only ever makes a round slower.
func TestTenThousandRulesCostAsMuchAsTen(t *testing.T) { // alone: it measures time
	id := identity(t, "s", "1", 0, groupsOf("alice", values(20)...))
	few, many := exactRules(t, 10), exactRules(t, 10_000)
	allocs := func(r *groups.Rules) float64 {
		return testing.AllocsPerRun(100, func() { r.Apply(id, benchPolicy) })
	}
	if a, b := allocs(few), allocs(many); b > a {
		t.Errorf("10,000 rules allocate %v times, 10 rules %v times", b, a)
	}
	const limit = 1.5
	best := [2]time.Duration{time.Hour, time.Hour}
	for round := 0; round < 200; round++ {
		for i, r := range []*groups.Rules{few, many} {
			begin := time.Now()
			for range 50 {
				r.Apply(id, benchPolicy)
			}
			best[i] = min(best[i], time.Since(begin))
		}
		if round > 20 && float64(best[1]) < limit*float64(best[0]) {
			return
		}
	}
	t.Errorf("10,000 rules cost %v, 10 rules %v: more than %v times", best[1]/50, best[0]/50, limit)
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		for _, v := range []int{20, 2000} {
			b.Run(fmt.Sprintf("rules=%d/values=%d", n, v), func(b *testing.B) {
				rules := exactRules(b, n)
				id := identity(b, "s", "1", 0, groupsOf("alice", values(v)...))
				b.ReportAllocs()
				for b.Loop() {
					rules.Apply(id, benchPolicy)
				}
			})
		}
	}
}

func BenchmarkApplyDN(b *testing.B) {
	var rules []groups.Rule
	var stated []string
	for i := range 10_000 {
		rules = append(rules, groups.Rule{ID: fmt.Sprint(i), Source: "s", Claim: "groups", DN: fmt.Sprintf("CN=g%d,OU=Groups,DC=example,DC=com", i), Group: "g"})
	}
	for i := range 20 {
		stated = append(stated, fmt.Sprintf("cn=g%d, ou=groups, dc=example, dc=com", i))
	}
	compiled, err := groups.Compile(rules)
	if err != nil {
		b.Fatal(err)
	}
	id := identity(b, "s", "1", 0, groupsOf("alice", stated...))
	b.ReportAllocs()
	for b.Loop() {
		compiled.Apply(id, benchPolicy)
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		exactRules(b, 10_000)
	}
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

// BenchmarkUnchangedSync is the sync of a statement that says what the last
// one said: it reads one row and writes nothing.
func BenchmarkUnchangedSync(b *testing.B) {
	for _, n := range []int{20, 2000} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			h := newHouse(b)
			id := identity(b, "s", "1", 0, groupsOf("alice", names("g", n)...))
			h.sync(id)
			b.ReportAllocs()
			for b.Loop() {
				if h.sync(id).Change != nil {
					b.Fatal("it did something")
				}
			}
		})
	}
}

// BenchmarkLogin is a whole sign-in with a session of a person whose groups
// are as they were.
func BenchmarkLogin(b *testing.B) {
	for _, n := range []int{20, 2000} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			h := newHouse(b)
			js := groupsOf("alice", names("g", n)...)
			h.mustLogin("s", "1", 0, js)
			id := identity(b, "s", "1", 0, js)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.login(id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFirstSync is a new user's first login, into groups that are there
// and into groups that are not.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{20, 2000} {
		for _, fresh := range []bool{false, true} {
			b.Run(fmt.Sprintf("groups=%d/new=%v", n, fresh), func(b *testing.B) {
				h := newHouse(b)
				h.mustLogin("s", "0", 0, groupsOf("first", names("g", n)...))
				b.ReportAllocs()
				for i := 1; b.Loop(); i++ {
					b.StopTimer()
					prefix := "g"
					if fresh {
						prefix = fmt.Sprintf("n%d-", i)
					}
					id := identity(b, "s", fmt.Sprint(i), 0, groupsOf(fmt.Sprintf("user%d", i), names(prefix, n)...))
					b.StartTimer()
					if _, err := h.login(id); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkPlan plans a rule change over GROUPGATE_BENCH_USERS users with 20
// values each, all of whom it would change.
func BenchmarkPlan(b *testing.B) {
	users := 2000
	if s := os.Getenv("GROUPGATE_BENCH_USERS"); s != "" {
		var err error
		if users, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	h := newHouse(b, stored)
	h.crowd(users, 20)
	h.putRule(valueRule("r1", "s", "v1", "eng"))
	for name, rules := range map[string][]groups.Rule{
		"all change":  {valueRule("r2", "s", "v2", "ops")},
		"none change": {valueRule("r1", "s", "v1", "eng"), valueRule("r3", "s", "nobody", "x")},
	} {
		b.Run(fmt.Sprintf("users=%d/%s", users, name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.dir.PlanRules(b.Context(), rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
