package claims

import "testing"

// What is kept resolves as the whole does, but for values nobody wants.
func TestKeep(t *testing.T) {
	t.Parallel()
	const said = `{"sub":"1","groups":["a","b","",7],"roles":["a","b"],"one":"b","n":7,"yes":true,"gone":null,
		"realm_access":{"roles":["a","b"],"more":1},"deep":{"er":{"roles":["b"]}},"list":[{"roles":["a"]}],"a/b":["a"],"_claim_names":{"x":"y"}}`
	all, err := Parse([]byte(said))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		whole, values []string
		want          string
	}{
		{nil, nil, `{"_claim_names":{"x":"y"}}`},
		{[]string{"sub", "n", "yes", "nothing"}, nil, `{"_claim_names":{"x":"y"},"n":7,"sub":"1","yes":true}`},
		{nil, []string{"roles", "one", "n", "gone", "groups", "nothing"}, `{"_claim_names":{"x":"y"},"gone":null,"groups":null,"n":null,"one":[],"roles":["a"]}`},
		{[]string{"roles"}, []string{"roles"}, `{"_claim_names":{"x":"y"},"roles":["a","b"]}`},
		{nil, []string{"/realm_access/roles", "/deep/er/roles", "/a~1b", "/deep2/x"}, `{"_claim_names":{"x":"y"},"a/b":["a"],"deep":{"er":{"roles":[]}},"realm_access":{"roles":["a"]}}`},
		{[]string{"/realm_access/more"}, []string{"/realm_access/roles"}, `{"_claim_names":{"x":"y"},"realm_access":{"more":1,"roles":["a","b"]}}`},
		{nil, []string{"/list/0/roles", "/n/x", "/realm_access/none"}, `{"_claim_names":{"x":"y"},"list":[{"roles":["a"]}],"n":7,"realm_access":{}}`},
	} {
		kept := all.Keep(c.whole, c.values, func(_, value string) bool { return value == "a" })
		if got, err := kept.MarshalJSON(); err != nil || string(got) != c.want {
			t.Errorf("whole %q, values %q: got %s, %v", c.whole, c.values, got, err)
		}
		for _, name := range append(c.whole, c.values...) {
			if was, is := all.Resolve(name).State, kept.Resolve(name).State; was != is {
				t.Errorf("%s was %s and is %s", name, was, is)
			}
		}
	}
	if got := all.WithIncomplete("cut off").Keep(nil, []string{"nothing"}, nil).Resolve("nothing"); got.State != Unknown {
		t.Errorf("of a statement that was not read whole: %+v", got)
	}
	broken := Stored([]byte("no object"), "")
	if got := broken.Keep(nil, []string{"groups"}, nil).Resolve("groups"); got.State != Unknown {
		t.Errorf("of an unreadable one: %+v", got)
	}
}
