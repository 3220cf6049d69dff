package claims_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

const (
	aliceOID = "6a7c0b51-0d5e-4f0a-9d3a-0123456789ab"
	tenantID = "9f2b2ac8-4a5c-4a6e-8d0e-ba9876543210"
)

// guid makes object ids.
func guid(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i) }

func securityGroups(n int) []claimstest.GraphGroup {
	list := make([]claimstest.GraphGroup, n)
	for i := range list {
		list[i] = claimstest.GraphGroup{ID: guid(i), Security: true}
	}
	return list
}

// graphRig is a rig whose source may ask Graph; alice has more groups than fit
// into a token. The address that her token names is a canary's.
type graphRig struct {
	*rig
	graph  *claimstest.Graph
	canary atomic.Int64
	marked map[string]any // alice's claims
}

func newGraphRig(t *testing.T, changes ...func(*setup, *claimstest.GraphOptions)) *graphRig {
	t.Helper()
	gr := &graphRig{}
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		gr.canary.Add(1)
		_, _ = io.WriteString(w, `{"value":[{"id":"`+guid(666)+`","securityEnabled":true}]}`)
	}))
	t.Cleanup(canary.Close)
	gr.marked = map[string]any{
		"oid": aliceOID, "tid": tenantID, "preferred_username": "alice",
		"_claim_names":   map[string]any{"groups": "src1"},
		"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": canary.URL + "/users/" + aliceOID + "/getMemberObjects"}},
	}
	opts := claimstest.GraphOptions{Tenant: tenantID, ClientID: "portal", ClientSecret: "canary-secret/&"}
	gr.rig = newRig(t, func(s *setup) {
		opts.Now = s.src.Now
		s.src.Config.Graph = &claims.GraphConfig{Tenant: tenantID}
		for _, change := range changes {
			change(s, &opts)
		}
		gr.graph = claimstest.StartGraph(t, opts)
		if g := s.src.Config.Graph; g != nil {
			g.URL, g.TokenURL = gr.graph.URL, gr.graph.TokenURL()
		}
	})
	gr.op.SetClaims("alice", gr.marked)
	gr.graph.SetGroups(aliceOID, securityGroups(3)...)
	t.Cleanup(func() {
		if n := gr.canary.Load(); n > 0 {
			t.Errorf("an address that a token or a page named was asked %d times", n)
		}
	})
	return gr
}

// states answers what is known of a claim after a login and after a refresh.
func (gr *graphRig) states(t *testing.T, name string) map[string]claims.Resolution {
	t.Helper()
	id, g := gr.mustLogin(t)
	out := map[string]claims.Resolution{"login": id.Claims.Resolve(name)}
	id, _, err := gr.src.Refresh(t.Context(), g, "alice")
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	out["refresh"] = id.Claims.Resolve(name)
	return out
}

func (gr *graphRig) wantGroups(t *testing.T, want []string) {
	t.Helper()
	for when, got := range gr.states(t, "groups") {
		if got.State != claims.Complete || !slices.Equal(got.Values, want) {
			t.Errorf("%s: %v with %d values (%s), want %d", when, got.State, len(got.Values), got.Why, len(want))
		}
	}
}

func idsOf(groups []claimstest.GraphGroup) []string {
	ids := []string{}
	for _, g := range groups {
		if g.Security {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// OI-15, GS-04: an overage is resolved by our own question to Graph, at login
// and at refresh, into the very ids a token would carry; what the token itself
// names as a source is never asked.
func TestGraphResolvesOverage(t *testing.T) {
	t.Parallel()
	twice := append(securityGroups(5), securityGroups(2)...)
	mixed := append(securityGroups(3), claimstest.GraphGroup{ID: guid(900)}, claimstest.GraphGroup{ID: guid(901)})
	for name, c := range map[string]struct {
		groups []claimstest.GraphGroup
		all    bool
		claims func(map[string]any)
		want   []string
	}{
		"three":                  {groups: securityGroups(3), want: idsOf(securityGroups(3))},
		"none is complete":       {groups: nil, want: []string{}},
		"2,500 on 25 pages":      {groups: securityGroups(2500), want: idsOf(securityGroups(2500))},
		"named twice":            {groups: twice, want: idsOf(securityGroups(5))},
		"only security groups":   {groups: mixed, want: idsOf(mixed)},
		"all groups":             {groups: mixed, all: true, want: append(idsOf(mixed), guid(900), guid(901))},
		"hasgroups":              {groups: securityGroups(3), claims: marker("hasgroups", true), want: idsOf(securityGroups(3))},
		"hasgroups as text":      {groups: securityGroups(3), claims: marker("hasgroups", "true"), want: idsOf(securityGroups(3))},
		"a link":                 {groups: securityGroups(3), claims: marker("groups.link", "https://canary.example/"), want: idsOf(securityGroups(3))},
		"part is sent as well":   {groups: securityGroups(3), claims: set("groups", []string{guid(77)}), want: idsOf(securityGroups(3))},
		"the id in capitals":     {groups: securityGroups(3), claims: set("tid", strings.ToUpper(tenantID)), want: idsOf(securityGroups(3))},
		"a token without tenant": {groups: securityGroups(3), claims: del("tid"), want: idsOf(securityGroups(3))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gr := newGraphRig(t, func(s *setup, _ *claimstest.GraphOptions) {
				if c.all {
					s.src.Config.Graph.Groups = claims.AllGroups
				}
			})
			gr.graph.SetGroups(aliceOID, c.groups...)
			if c.claims != nil {
				c.claims(gr.marked)
			}
			gr.wantGroups(t, c.want)
			if gr.graph.Calls("token") != 1 {
				t.Errorf("%d tokens for a login and a refresh", gr.graph.Calls("token"))
			}
		})
	}
}

// marker replaces the overage marker of a token.
func marker(name string, v any) func(map[string]any) {
	return func(m map[string]any) {
		delete(m, "_claim_names")
		m[name] = v
	}
}

// The markers of other claims keep speaking of them.
func TestGraphLeavesOtherMarkersAlone(t *testing.T) {
	t.Parallel()
	gr := newGraphRig(t, func(s *setup, _ *claimstest.GraphOptions) {
		s.src.Needed = func() []string { return []string{"groups", "roles"} }
	})
	gr.marked["_claim_names"] = map[string]any{"groups": "src1", "roles": "src1"}
	id, _ := gr.mustLogin(t)
	if got := id.Claims.Resolve("groups"); got.State != claims.Complete || len(got.Values) != 3 {
		t.Errorf("groups: %+v", got)
	}
	if got := id.Claims.Resolve("roles"); got.State != claims.Unknown {
		t.Errorf("roles: %+v", got)
	}
	// What is stored says the same, and so does a rule that is made later.
	raw, err := id.Claims.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if got := claims.Stored(raw, "").Resolve("groups"); got.State != claims.Complete || len(got.Values) != 3 {
		t.Errorf("stored: %+v", got)
	}
}

// An earlier statement that Graph completed does not complete a later one that
// it did not: the later one is unknown, and takes nothing away.
func TestGraphFaultAtRefreshStaysUnknown(t *testing.T) {
	t.Parallel()
	gr := newGraphRig(t)
	first, g := gr.mustLogin(t)
	gr.graph.Lie(func(k *claimstest.GraphKnobs) { k.PageHandler = http.NotFound })
	id, _, err := gr.src.Refresh(t.Context(), g, "alice")
	if err != nil {
		t.Fatal(err)
	}
	got := id.Claims.FillFromEarlier(first.Claims).Resolve("groups")
	if got.State != claims.Unknown || got.Why != "overage, and Microsoft Graph did not help: page 1: status 404" {
		t.Errorf("%+v", got)
	}
	gr.graph.Honest()
	later, _, err := gr.src.Refresh(t.Context(), g, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if got := later.Claims.FillFromEarlier(id.Claims).Resolve("groups"); got.State != claims.Complete || len(got.Values) != 3 {
		t.Errorf("once it answers: %+v", got)
	}
}

func TestGraphIsAskedOnlyWhenItMatters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*setup, *claimstest.GraphOptions)
		claims func(map[string]any)
		state  claims.State
	}{
		"no overage":         {claims: func(m map[string]any) { delete(m, "_claim_names"); m["groups"] = []string{guid(1)} }, state: claims.Complete},
		"overage of others":  {claims: set("_claim_names", map[string]any{"roles": "src1"}), state: claims.Absent},
		"hasgroups false":    {claims: marker("hasgroups", false), state: claims.Absent},
		"a malformed marker": {claims: set("_claim_names", "groups"), state: claims.Unknown},
		"nobody reads groups": {change: func(s *setup, _ *claimstest.GraphOptions) {
			s.src.Needed = func() []string { return []string{"/group", "roles"} }
		}, state: claims.Unknown},
		"nobody reads anything":        {change: func(s *setup, _ *claimstest.GraphOptions) { s.src.Needed = nil }, state: claims.Unknown},
		"OI-15 no graph is configured": {change: func(s *setup, _ *claimstest.GraphOptions) { s.src.Config.Graph = nil }, state: claims.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var changes []func(*setup, *claimstest.GraphOptions)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			gr := newGraphRig(t, changes...)
			gr.op.SetUserinfo("alice", nil)
			if c.claims != nil {
				c.claims(gr.marked)
			}
			for when, got := range gr.states(t, "groups") {
				if got.State != c.state {
					t.Errorf("%s: %+v, want %v", when, got, c.state)
				}
			}
			if n := gr.graph.Calls("token") + gr.graph.Calls("page"); n != 0 {
				t.Errorf("Graph was asked %d times", n)
			}
		})
	}
}

// Only the person of the verified token is asked about, in the tenant that
// Graph belongs to.
func TestGraphAsksAboutThePersonOfTheToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		claims func(map[string]any)
		why    string
	}{
		"no oid":           {del("oid"), "oid is missing or no GUID"},
		"oid a path":       {set("oid", "../../applications"), "oid is missing or no GUID"},
		"oid a name":       {set("oid", "canary@example.com"), "oid is missing or no GUID"},
		"oid a list":       {set("oid", []string{aliceOID}), "oid is missing or no GUID"},
		"oid with a query": {set("oid", aliceOID[:30]+"?a=b&c"), "oid is missing or no GUID"},
		"another tenant":   {set("tid", guid(5)), "tid is another tenant's"},
		"tid a list":       {set("tid", []string{tenantID}), "tid is another tenant's"},
		"unknown to Graph": {set("oid", guid(6)), "page 1: status 404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gr := newGraphRig(t)
			c.claims(gr.marked)
			gr.op.SetUserinfo("alice", map[string]any{"oid": aliceOID, "tid": tenantID, "department": "x"}) // not the token's word
			for when, got := range gr.states(t, "groups") {
				if got.State != claims.Unknown || got.Why != "overage, and Microsoft Graph did not help: "+c.why {
					t.Errorf("%s: %v %q", when, got.State, got.Why)
				}
			}
			gr.marked["oid"], gr.marked["tid"] = aliceOID, tenantID
			gr.wantGroups(t, idsOf(securityGroups(3)))
		})
	}
}
