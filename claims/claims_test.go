package claims_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
)

func parse(t *testing.T, text string) claims.Claims {
	t.Helper()
	c, err := claims.Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	return c
}

// GV-08, GS-03, S0-05, S0-10: every shape of a claim, and the bounds of its
// values.
func TestResolveGivesOneOfThreeStates(t *testing.T) {
	t.Parallel()
	many := make([]string, claims.MaxValues+1)
	for i := range many {
		many[i] = fmt.Sprintf("g%d", i)
	}
	tooMany, _ := json.Marshal(map[string]any{"groups": many})
	justFits, _ := json.Marshal(map[string]any{"groups": many[1:]})
	for _, c := range []struct {
		name, json, claim string
		state             claims.State
		values            []string // nil: not compared
	}{
		{"list", `{"groups":["b","a"]}`, "groups", claims.Complete, []string{"b", "a"}},
		{"one string is one value", `{"groups":"a b"}`, "groups", claims.Complete, []string{"a b"}},
		{"empty list", `{"groups":[]}`, "groups", claims.Complete, []string{}},
		{"empty string is no value", `{"groups":""}`, "groups", claims.Complete, []string{}},
		{"empty strings in a list", `{"groups":["","a",""]}`, "groups", claims.Complete, []string{"a"}},
		{"duplicates collapse", `{"groups":["a","b","a"]}`, "groups", claims.Complete, []string{"a", "b"}},
		{"case and blanks stay", `{"groups":["A","a"," a"]}`, "groups", claims.Complete, []string{"A", "a", " a"}},
		{"a name with a dot", `{"a.b":["x"],"a":{"b":["y"]}}`, "a.b", claims.Complete, []string{"x"}},
		{"50000 values", string(justFits), "groups", claims.Complete, nil},
		{"a long value that fits", `{"g":["` + strings.Repeat("x", claims.MaxValueBytes) + `"]}`, "g", claims.Complete, nil},

		{"missing", `{"other":["a"]}`, "groups", claims.Absent, nil},
		{"missing in an empty object", `{}`, "groups", claims.Absent, nil},
		{"another case is another claim", `{"Groups":["a"]}`, "groups", claims.Absent, nil},

		{"null", `{"groups":null}`, "groups", claims.Unknown, nil},
		{"number", `{"groups":1}`, "groups", claims.Unknown, nil},
		{"boolean", `{"groups":true}`, "groups", claims.Unknown, nil},
		{"object", `{"groups":{"a":true}}`, "groups", claims.Unknown, nil},
		{"a number in the list", `{"groups":["a",1]}`, "groups", claims.Unknown, nil},
		{"null in the list", `{"groups":["a",null]}`, "groups", claims.Unknown, nil},
		{"a list in the list", `{"groups":[["a"]]}`, "groups", claims.Unknown, nil},
		{"50001 values", string(tooMany), "groups", claims.Unknown, nil},
		{"a value too long", `{"g":["` + strings.Repeat("x", claims.MaxValueBytes+1) + `"]}`, "g", claims.Unknown, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := parse(t, c.json).Resolve(c.claim)
			if r.State != c.state {
				t.Fatalf("state %v (%s), want %v", r.State, r.Why, c.state)
			}
			if c.values != nil {
				if diff := cmp.Diff(c.values, r.Values); diff != "" {
					t.Errorf("values: %s", diff)
				}
			}
			if (r.State == claims.Unknown) != (r.Why != "") {
				t.Errorf("state %v with why %q", r.State, r.Why)
			}
		})
	}
}

func TestResolveJSONPointer(t *testing.T) {
	t.Parallel()
	const doc = `{"realm_access":{"roles":["r"]},"resource_access":{"a/b":{"roles":["s"]},"m~n":{"roles":["t"]}},
		"list":[{"name":["n0"]},{"name":["n1"]}],"text":"x","null":null,"":{"e":["empty"]}}`
	for _, c := range []struct {
		pointer string
		state   claims.State
		value   string
	}{
		{"/realm_access/roles", claims.Complete, "r"},
		{"/resource_access/a~1b/roles", claims.Complete, "s"},
		{"/resource_access/m~0n/roles", claims.Complete, "t"},
		{"/list/1/name", claims.Complete, "n1"},
		{"//e", claims.Complete, "empty"},
		{"/text", claims.Complete, "x"},
		{"/realm_access/other", claims.Absent, ""},
		{"/missing/roles", claims.Absent, ""},
		{"/list/2/name", claims.Absent, ""},
		{"/realm_access", claims.Unknown, ""}, // an object
		{"/text/roles", claims.Unknown, ""},   // a step through text
		{"/null/roles", claims.Unknown, ""},   // a step through null
		{"/list/01/name", claims.Unknown, ""}, // RFC 6901 section 4: no leading zero
		{"/list/-/name", claims.Unknown, ""},  // past the end
		{"/realm_access/roles/x", claims.Unknown, ""},
	} {
		r := parse(t, doc).Resolve(c.pointer)
		if r.State != c.state || c.value != "" && !slices.Equal(r.Values, []string{c.value}) {
			t.Errorf("%s: %v %q (%s), want %v %q", c.pointer, r.State, r.Values, r.Why, c.state, c.value)
		}
	}
}

// OI-15, GS-04: a marker says that the groups are elsewhere; they are neither
// absent nor complete then.
func TestOverageMarkersAreUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, json, claim string
		state             claims.State
	}{
		{"_claim_names", `{"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://x.example"}}}`, "groups", claims.Unknown},
		{"_claim_names by pointer", `{"_claim_names":{"groups":"src1"}}`, "/groups", claims.Unknown},
		{"_claim_names of another claim", `{"_claim_names":{"roles":"src1"},"groups":["a"]}`, "groups", claims.Complete},
		{"_claim_names that is no object", `{"_claim_names":"groups","groups":["a"]}`, "groups", claims.Unknown},
		{"a marker beside values", `{"_claim_names":{"groups":"src1"},"groups":["a"]}`, "groups", claims.Unknown},
		{"hasgroups", `{"hasgroups":true}`, "groups", claims.Unknown},
		{"hasgroups as text", `{"hasgroups":"true"}`, "groups", claims.Unknown},
		{"hasgroups false", `{"hasgroups":false}`, "groups", claims.Absent},
		{"hasgroups and another claim", `{"hasgroups":true,"roles":["a"]}`, "roles", claims.Complete},
		{"groups.link", `{"groups.link":["https://x.example"]}`, "groups", claims.Unknown},
		{"no marker", `{"groups":["a"]}`, "groups", claims.Complete},
	} {
		if r := parse(t, c.json).Resolve(c.claim); r.State != c.state {
			t.Errorf("%s: %v, want %v", c.name, r.State, c.state)
		}
	}
}

// OI-07, GV-03: what two readers could read differently, and what is no UTF-8.
func TestParseRefusesWhatCanBeReadInTwoWays(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n) }
	for _, c := range []struct {
		name, json string
		ok         bool
	}{
		{"an object", `{"sub":"a","groups":["b"]}`, true},
		{"the same key in two objects", `{"a":{"x":1},"b":{"x":1}}`, true},
		{"a key twice", `{"sub":"a","sub":"b"}`, false},
		{"a key twice by escape", `{"sub":"a","\u0073ub":"b"}`, false},
		{"keys that differ in case only", `{"sub":"a","SUB":"b"}`, false},
		{"a key twice, nested", `{"a":{"x":1,"x":2}}`, false},
		{"a key twice, in a list", `{"a":[{"x":1,"x":2}]}`, false},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", false},
		{"invalid UTF-8 in a key", "{\"\xc3\":1}", false},
		{"32 levels", deep(32), true},
		{"34 levels", deep(34), false},
		{"trailing data", `{} {}`, false},
		{"trailing white space", "{} \n", true},
		{"a list", `[]`, false},
		{"text", `"a"`, false},
		{"null", `null`, false},
		{"nothing", ``, false},
		{"cut off", `{"a":`, false},
		{"a key that is no text", `{1:2}`, false},
	} {
		if _, err := claims.Parse([]byte(c.json)); (err == nil) != c.ok {
			t.Errorf("%s: error %v, want ok %v", c.name, err, c.ok)
		}
	}
}

// GS-05: what could not be asked is not known to be absent.
func TestIncompleteClaimsAreNeverAbsent(t *testing.T) {
	t.Parallel()
	c := parse(t, `{"groups":["a"]}`)
	if got := c.Resolve("roles").State; got != claims.Absent {
		t.Fatalf("control: %v", got)
	}
	c = c.WithIncomplete("userinfo did not answer: timeout")
	if got := c.Resolve("roles"); got.State != claims.Unknown || got.Why != "userinfo did not answer: timeout" {
		t.Errorf("missing claim of an incomplete statement: %+v", got)
	}
	if got := c.Resolve("groups").State; got != claims.Complete {
		t.Errorf("stated claim of an incomplete statement: %v", got)
	}
}

func TestFillKeepsWhatTheIDTokenSays(t *testing.T) {
	t.Parallel()
	got := parse(t, `{"groups":["id"],"n":{"a":"id"},"null":null}`).
		Fill(parse(t, `{"groups":["ui"],"n":{"a":"ui","b":"ui"},"null":["ui"],"email":"ui"}`))
	want := `{"email":"ui","groups":["id"],"n":{"a":"id","b":"ui"},"null":null}`
	if text, _ := got.MarshalJSON(); string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

func TestFillFromEarlierLeavesOldMarkersBehind(t *testing.T) {
	t.Parallel()
	earlier := parse(t, `{"hasgroups":true,"_claim_names":{"groups":"s","roles":"s"},"email":"old"}`)
	got := parse(t, `{"groups":["now"]}`).FillFromEarlier(earlier)
	for claim, want := range map[string]claims.State{"groups": claims.Complete, "roles": claims.Unknown, "email": claims.Complete} {
		if r := got.Resolve(claim); r.State != want {
			t.Errorf("%s: %v (%s), want %v", claim, r.State, r.Why, want)
		}
	}
	if r := parse(t, `{}`).FillFromEarlier(earlier).Resolve("groups"); r.State != claims.Unknown {
		t.Errorf("a refresh that says nothing: %v, want unknown as before", r.State)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"groups": true, "/a/b": true, "/a~1b": true, "/a~0": true, "a~b": true, "https://example.com/groups": true,
		"": false, "/a~": false, "/a~2": false,
	} {
		if err := claims.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %v", name, err, ok)
		}
	}
}

// claimValue draws a JSON value; text lists are frequent.
func claimValue(depth int) *rapid.Generator[any] {
	text := rapid.Map(rapid.SampledFrom([]string{"", "a", "b", "A", "ž", "a,b", " a", "/", "~0"}), func(s string) any { return s })
	scalar := rapid.OneOf(text, rapid.Just(any(nil)), rapid.Just(any(true)), rapid.Just(any(json.Number("1"))))
	if depth == 0 {
		return scalar
	}
	list := rapid.Map(rapid.SliceOfN(text, 0, 5), func(l []any) any { return l })
	mixed := rapid.Map(rapid.SliceOfN(claimValue(depth-1), 0, 3), func(l []any) any { return l })
	object := rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"x", "y", "z/", "m~n"}), claimValue(depth-1), 0, 3), func(m map[string]any) any { return m })
	return rapid.OneOf(scalar, list, list, mixed, object)
}

func drawClaims(t *rapid.T, label string) (claims.Claims, map[string]any) {
	m := rapid.MapOfN(rapid.SampledFrom([]string{"groups", "roles", "email", "n"}), claimValue(2), 0, 4).Draw(t, label)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c, err := claims.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	return c, m
}

func TestPropertyResolution(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, m := drawClaims(t, "claims")
		for _, name := range []string{"groups", "roles", "missing"} {
			r := c.Resolve(name)
			_, there := m[name]
			if (r.State == claims.Absent) == there {
				t.Fatalf("%s: state %v, but there: %v", name, r.State, there)
			}
			if r.State != claims.Complete && len(r.Values) > 0 {
				t.Fatalf("%s: %v with values", name, r.State)
			}
			if slices.Contains(r.Values, "") {
				t.Fatalf("%s: an empty value", name)
			}
			for i, v := range r.Values {
				if slices.Contains(r.Values[:i], v) {
					t.Fatalf("%s: %q twice", name, v)
				}
			}
			if byPointer := c.Resolve("/" + name); !cmp.Equal(r, byPointer) {
				t.Fatalf("%s: by name %+v, by pointer %+v", name, r, byPointer)
			}
		}
	})
}

// What was read is what is written and read again, which is how last-seen
// claims are kept.
func TestPropertyClaimsSurviveStorage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c, m := drawClaims(t, "claims")
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again claims.Claims
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		for name := range m {
			if a, b := c.Resolve(name), again.Resolve(name); !cmp.Equal(a, b) {
				t.Fatalf("%s: %+v, after storage %+v", name, a, b)
			}
		}
	})
}

func TestPropertyFillOnlyAdds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, am := drawClaims(t, "a")
		b, _ := drawClaims(t, "b")
		both := a.Fill(b)
		for name := range am {
			if r := a.Resolve(name); r.State == claims.Complete && !cmp.Equal(r, both.Resolve(name)) {
				t.Fatalf("%s changed from %+v to %+v", name, r, both.Resolve(name))
			}
		}
		for _, name := range b.Names() {
			if both.Resolve(name).State == claims.Absent {
				t.Fatalf("%s got lost", name)
			}
		}
	})
}

// TestStoredClaimsComeBackAsTheyWere, and bytes that are none are unknown,
// never absent: absence may take memberships away.
func TestStoredClaimsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	c, err := claims.Parse([]byte(`{"groups":["b","a"],"n":12345678901234567890,"x":{"y":"<&>"}}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	back := claims.Stored(raw, "why")
	again, err := back.MarshalJSON()
	if err != nil || string(again) != string(raw) || back.Incomplete() != "why" {
		t.Errorf("%s came back as %s (%v)", raw, again, err)
	}
	if n, ok := back.Scalar("n"); !ok || n != "12345678901234567890" {
		t.Errorf("a long number came back as %q", n)
	}
	if got := back.Resolve("groups"); got.State != claims.Complete || len(got.Values) != 2 || got.Values[0] != "b" {
		t.Errorf("groups came back as %+v", got)
	}
	for _, broken := range []string{"", "{", "[]", "null", `{"groups":`} {
		s := claims.Stored([]byte(broken), "")
		if got := s.Resolve("groups"); got.State != claims.Unknown {
			t.Errorf("stored %q: groups are %s", broken, got.State)
		}
		if got := (claims.Claims{}).FillFromEarlier(s).Resolve("groups"); got.State != claims.Unknown {
			t.Errorf("a refresh over stored %q: groups are %s", broken, got.State)
		}
	}
}
