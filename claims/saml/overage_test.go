package saml

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

const (
	testTenant = "3f2c1c6e-9a55-4c86-b1d4-93f0a4e4b6c1"
	testObject = "8d6f0d1e-5b7a-4c11-8a53-0f3d1f0c2b77"
	testGroup  = "a46edf67-5c31-4527-b63e-56cbe6dd66a5"
	entraLink  = "http://schemas.microsoft.com/claims/groups.link"
)

// SM-25, GS-04: a link in place of the groups is no list without groups.
func TestSM25GroupsThatAreElsewhere(t *testing.T) {
	t.Parallel()
	person := func(attributes map[string][]string) claimstest.SAMLPerson {
		all := map[string][]string{entraObject: {testObject}, entraTenant: {testTenant}}
		for k, v := range attributes {
			all[k] = v
		}
		return claimstest.SAMLPerson{NameID: "alice", Attributes: all}
	}
	link := map[string][]string{entraLink: {"http://127.0.0.1:1/users/" + testObject + "/getMemberObjects"}}
	other := map[string][]string{entraLink: link[entraLink], entraTenant: {"9b1f7b0a-2f6f-4f38-9d4e-0f2f1d1c1a11"}}
	nobody := map[string][]string{entraLink: link[entraLink], entraObject: {}}
	for name, tt := range map[string]struct {
		attributes map[string][]string
		needed     []string
		graph      bool
		lie        func(*claimstest.GraphKnobs)
		state      claims.State
		values     []string
		why        string
		asked      bool
	}{
		"control: groups that are here": {map[string][]string{entraGroups: {"a", "b"}}, []string{entraGroups}, true, nil, claims.Complete, []string{"a", "b"}, "", false},
		"control: none, and no link":    {nil, []string{entraGroups}, true, nil, claims.Absent, nil, "", false},
		"SM-25 a link without Graph":    {link, []string{entraGroups}, false, nil, claims.Unknown, nil, "a link in place of the groups", false},
		"SM-25 a link with Graph":       {link, []string{entraGroups}, true, nil, claims.Complete, []string{testGroup}, "", true},
		"GS-04 Graph is down":           {link, []string{entraGroups}, true, func(k *claimstest.GraphKnobs) { k.PageHandler = answer(http.StatusBadGateway, "text/plain", "canary") }, claims.Unknown, nil, "Graph did not help", true},
		"GS-04 Graph lets us not in": {link, []string{entraGroups}, true, func(k *claimstest.GraphKnobs) {
			k.TokenHandler = answer(http.StatusUnauthorized, "text/plain", "canary")
		}, claims.Unknown, nil, "Graph did not help", false},
		"GS-04 a person of another tenant": {other, []string{entraGroups}, true, nil, claims.Unknown, nil, "another tenant", false},
		"GS-04 a person without an id":     {nobody, []string{entraGroups}, true, nil, claims.Unknown, nil, "Graph did not help", false},
		"SM-25 nobody reads groups":        {link, []string{"mail"}, true, nil, claims.Unknown, nil, "a link in place of the groups", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			graph := claimstest.StartGraph(t, claimstest.GraphOptions{Tenant: testTenant, ClientID: "portal", ClientSecret: "secret"})
			graph.SetGroups(testObject, claimstest.GraphGroup{ID: testGroup, Security: true})
			if tt.lie != nil {
				graph.Lie(tt.lie)
			}
			r := newRigWith(t, func(c *claims.SAMLConfig) {
				if tt.graph {
					c.Graph = &claims.GraphConfig{Tenant: testTenant, ClientID: "portal", ClientSecret: "secret", URL: graph.URL, TokenURL: graph.TokenURL()}
				}
			}, func(o *claimstest.SAMLOptions) { o.People = []claimstest.SAMLPerson{person(tt.attributes)} })
			r.src.needed = func() []string { return tt.needed }
			id, err := r.login(t)
			if err != nil {
				t.Fatal(err)
			}
			got := id.Claims.Resolve(entraGroups)
			if got.State != tt.state || !slices.Equal(got.Values, tt.values) || !strings.Contains(got.Why, tt.why) || strings.Contains(got.Why, "canary") {
				t.Errorf("%+v", got)
			}
			if asked := graph.Calls("page") > 0; asked != tt.asked {
				t.Errorf("asked: %v", asked)
			}
			line, err := r.src.Probe(t.Context())
			if ok := tt.graph && !strings.Contains(name, "not in"); ok && (err != nil || !strings.HasSuffix(line, ", Microsoft Graph")) || tt.graph && !ok && err == nil {
				t.Errorf("probe: %q, %v", line, err)
			}
		})
	}
}

func TestGraphFillsTheNamesThatAreRead(t *testing.T) {
	t.Parallel()
	graph := claimstest.StartGraph(t, claimstest.GraphOptions{Tenant: testTenant, ClientID: "portal", ClientSecret: "secret"})
	graph.SetGroups(testObject, claimstest.GraphGroup{ID: testGroup, Security: true})
	for name, tt := range map[string]struct {
		needed []string
		want   []string
	}{
		"the one":    {[]string{"mail", entraGroups}, []string{entraGroups}},
		"the other":  {[]string{"groups"}, []string{"groups"}},
		"both":       {[]string{entraGroups, "groups"}, []string{entraGroups, "groups"}},
		"by default": {nil, []string{entraGroups}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, func(c *claims.SAMLConfig) {
				c.Graph = &claims.GraphConfig{Tenant: testTenant, ClientID: "portal", ClientSecret: "secret", URL: graph.URL, TokenURL: graph.TokenURL()}
			}, func(o *claimstest.SAMLOptions) {
				o.People = []claimstest.SAMLPerson{{NameID: "alice", Attributes: map[string][]string{entraLink: {"x"}, entraObject: {testObject}}}}
			})
			if tt.needed != nil {
				r.src.needed = func() []string { return tt.needed }
			}
			id, err := r.login(t)
			if err != nil {
				t.Fatal(err)
			}
			for _, claim := range []string{entraGroups, "groups"} {
				if got := id.Claims.Resolve(claim); (got.State == claims.Complete && slices.Equal(got.Values, []string{testGroup})) != slices.Contains(tt.want, claim) {
					t.Errorf("%s: %+v", claim, got)
				}
			}
		})
	}
}
