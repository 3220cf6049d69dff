package claims_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/groupgate/groupgate/claims"
)

// What Each names, Resolve finds with the same values; nothing else is named.
func TestEachNamesWhatResolveFinds(t *testing.T) {
	t.Parallel()
	c, err := claims.Parse([]byte(`{"sub":"s1","groups":["a","b","a",""],"empty":[],"n":7,"null":null,"mixed":["a",1],
		"realm_access":{"roles":["admin"],"x/y~z":"v"},"resource_access":{"app":{"roles":["r"]}},
		"/odd":"o","http://schemas.example.com/group":"g","a":{"b":{"c":{"d":{"e":{"f":"deep"}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	c.Each(func(name string, values []string) { got[name] = values })
	want := []string{
		"/realm_access/roles", "/realm_access/x~1y~0z", "/resource_access/app/roles",
		"/~1odd", "empty", "groups", "http://schemas.example.com/group", "sub",
	}
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("names\n%q, want\n%q", names, want)
	}
	for name, values := range got {
		if r := c.Resolve(name); r.State != claims.Complete || !slices.Equal(r.Values, values) {
			t.Errorf("%s: %q, Resolve says %+v", name, values, r)
		}
	}
	if !slices.Equal(got["groups"], []string{"a", "b"}) {
		t.Errorf("groups %q", got["groups"])
	}
	over, err := claims.Parse([]byte(`{"groups":["a"],"roles":["r"],"hasgroups":true}`))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	over.Each(func(name string, _ []string) { names = append(names, name) })
	if !slices.Equal(names, []string{"roles"}) {
		t.Errorf("with an overage: %q", names)
	}
	(claims.Claims{}).Each(func(name string, _ []string) { t.Errorf("nothing holds %s", name) })
}
