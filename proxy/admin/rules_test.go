package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

type ruleItem struct {
	ID, Owner, Location, Source, Claim, Value, DN, Regexp, Split, When, Group string
	Any                                                                       bool
	Version                                                                   int64
}

// groupsOf is what a person is in by now.
func (a *api) groupsOf(id groups.UserID) []string {
	a.t.Helper()
	names, err := a.store.GroupNames(a.t.Context(), id)
	if err != nil {
		a.t.Fatal(err)
	}
	return names
}

func TestRulesAreWrittenAndTakeEffect(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng","ops"]}`)

	made := a.call("POST", "/rules", `{"source":"entra","claim":"groups","value":"ops","group":"operations"}`)
	r := ok[listOf[ruleItem]](a, 200, "GET", "/rules", "").Items[1]
	if made.status != 201 || made.header.Get("Location") != "/api/v1/rules/"+r.ID || made.header.Get("ETag") != `"1"` || !strings.HasPrefix(r.ID, "r-") {
		t.Fatalf("POST: %d %v %s; the rule is %+v", made.status, made.header, made.body, r)
	}
	if r.Owner != "store" || r.Version != 1 || r.Location != "" || r.Value != "ops" || r.Group != "operations" {
		t.Errorf("rule: %+v", r)
	}
	if got := a.groupsOf(id); !slices.Equal(got, []string{"engineering", "operations"}) {
		t.Errorf("after POST: %v", got)
	}

	put := ok[ruleItem](a, 200, "PUT", "/rules/"+r.ID, `{"source":"entra","claim":"groups","regexp":"o(.)s","group":"x$1"}`)
	if put.Version != 2 || put.Value != "" || put.ID != r.ID {
		t.Errorf("PUT: %+v", put)
	}
	if got := a.groupsOf(id); !slices.Equal(got, []string{"engineering", "xp"}) {
		t.Errorf("after PUT: %v", got)
	}

	a.done("DELETE", "/rules/"+r.ID)
	a.done("DELETE", "/rules/"+r.ID)
	if got := a.groupsOf(id); !slices.Equal(got, []string{"engineering"}) {
		t.Errorf("after DELETE: %v", got)
	}
	fresh := a.call("PUT", "/rules/terraform.ops-1", `{"claim":"groups","any":true}`)
	if fresh.status != 201 || fresh.header.Get("Location") != "/api/v1/rules/terraform.ops-1" {
		t.Errorf("PUT of a new id: %d %v", fresh.status, fresh.header)
	}
	var changes []string
	for _, e := range all[struct{ Kind, Actor string }](a, "/events", "50") {
		if e.Actor == "api" {
			changes = append(changes, e.Kind)
		}
	}
	if want := []string{"rule_changed", "rule_deleted", "rule_changed", "rule_changed"}; !slices.Equal(changes, want) {
		t.Errorf("audit trail: %v, want %v", changes, want)
	}
}

func TestRulesOfTheFileAreTheFiles(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	r := ok[listOf[ruleItem]](a, 200, "GET", "/rules", "").Items[0]
	want := ruleItem{ID: "f-0123456789", Owner: "file", Location: "groupgate.yaml:7", Source: "entra", Claim: "groups", Value: "eng", Group: "engineering"}
	if r != want {
		t.Fatalf("rule: %+v", r)
	}
	p := a.refused(409, "PUT", "/rules/"+r.ID, `{"claim":"groups","value":"x","group":"x"}`)
	if !strings.Contains(p.Detail, "groupgate.yaml:7") {
		t.Errorf("detail %q", p.Detail)
	}
	a.refused(409, "DELETE", "/rules/"+r.ID, "")
	a.refused(422, "PUT", "/rules/f-new", `{"claim":"groups","value":"x","group":"x"}`)
	a.refused(422, "POST", "/rules", `{"owner":"file","claim":"groups","value":"x","group":"x"}`)
	if n := len(all[ruleItem](a, "/rules", "50")); n != 1 {
		t.Errorf("%d rules", n)
	}
}

func TestFaultyRulesAreRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	ok[any](a, 201, "PUT", "/rules/fine", `{"claim":"groups","value":"x","group":"x"}`)
	for body, keys := range map[string]string{
		`{}`:                         "claim value group",
		`{"claim":"g","group":"x"}`:  "value",
		`{"claim":"g","value":"x"}`:  "group",
		`{"claim":"g","regexp":"("}`: "group regexp group",
		`{"claim":"/~","value":"a","dn":"x","group":"x"}`:         "claim value dn",
		`{"claim":"g","any":true,"group":"x"}`:                    "group",
		`{"claim":"g","regexp":"a","group":"$1"}`:                 "group",
		`{"claim":"g","value":"a","group":"x","when":"claims."}`:  "when",
		`{"claim":"g","value":"a","group":"x","source":"nobody"}`: "source",
		`{"id":"other","claim":"g","value":"a","group":"x"}`:      "id",
	} {
		for _, at := range []string{"POST /rules", "PUT /rules/fine", "PUT /rules/new"} {
			method, path, _ := strings.Cut(at, " ")
			var got []string
			for _, e := range a.refused(422, method, path, body).Errors {
				got = append(got, e.Key)
				if e.Message == "" {
					t.Errorf("%s %s: no message", at, body)
				}
			}
			slices.Sort(got)
			want := strings.Fields(keys)
			slices.Sort(want)
			if !slices.Equal(slices.Compact(got), slices.Compact(want)) {
				t.Errorf("%s %s: %v, want %v", at, body, got, want)
			}
		}
	}
	for _, id := range []string{"default", "-x", "x%20y", "a%2Fb", strings.Repeat("x", 65), "%C3%BC"} {
		a.refused(422, "PUT", "/rules/"+id, `{"claim":"groups","value":"x","group":"x"}`)
	}
	if n := len(all[ruleItem](a, "/rules", "50")); n != 2 {
		t.Errorf("%d rules, want 2", n)
	}
}

func TestOldRuleDoesNotOverwriteNewerOne(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	const body = `{"claim":"groups","value":"x","group":"x"}`
	put := func(status int, body string, headers ...string) {
		t.Helper()
		if got := a.call("PUT", "/rules/one", body, headers...); got.status != status {
			t.Errorf("PUT %s %v: %d, want %d: %s", body, headers, got.status, status, got.body)
		}
	}
	put(412, body, `If-Match: "1"`)
	put(412, body, "If-Match: *")
	put(201, body, "If-None-Match: *")
	put(412, body, "If-None-Match: *")
	put(200, body, `If-Match: "1"`)
	put(412, body, `If-Match: "1"`)
	put(409, `{"version":1,"claim":"groups","value":"x","group":"x"}`)
	put(200, `{"id":"one","owner":"store","version":2,"claim":"groups","value":"x","group":"x"}`) // as GET shows it
	put(200, body)
	a.refused(412, "DELETE", "/rules/one", "", `If-Match: "1"`)
	a.done("DELETE", "/rules/one", `If-Match: "4"`)
	a.refused(412, "DELETE", "/rules/one", "", `If-Match: "4"`)
	put(409, `{"version":4,"claim":"groups","value":"x","group":"x"}`)
}

func TestRulesArePaged(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		for i := range 4 {
			s.Rules = append(s.Rules, groups.Rule{ID: fmt.Sprintf("f-%d", i), Location: "g.yaml:9", Claim: "groups", Value: fmt.Sprint(i), Group: "x"})
		}
	})
	for _, id := range []string{"b", "a", "c"} {
		ok[any](a, 201, "PUT", "/rules/"+id, `{"claim":"groups","value":"x","group":"x"}`)
	}
	want := []string{"f-0123456789", "f-0", "f-1", "f-2", "f-3", "a", "b", "c"}
	for _, limit := range []string{"1", "2", "5", "6", "8", "50"} {
		var got []string
		for _, r := range all[ruleItem](a, "/rules", limit) {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %s: %v, want %v", limit, got, want)
		}
	}
	// The rule a page ended with may go before the next one is read.
	next := *ok[listOf[ruleItem]](a, 200, "GET", "/rules?limit=7", "").Next
	a.done("DELETE", "/rules/b")
	if rest := ok[listOf[ruleItem]](a, 200, "GET", "/rules?after="+next, ""); len(rest.Items) != 1 || rest.Items[0].ID != "c" {
		t.Errorf("after a rule that is gone: %+v", rest.Items)
	}
}

type planned struct {
	Users []struct {
		ID, User       string
		Added, Removed []string
	}
	Groups []struct {
		Group          string
		Created        bool
		Added, Removed int
	}
	Added, Removed int
	Known          int `json:"known_users"`
	Guard          struct{ Stops bool }
}

func TestPlanSaysTheDifferenceAndChangesNothing(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","groups":["eng","ops"]}`)
	ok[any](a, 201, "PUT", "/rules/one", `{"claim":"groups","value":"ops","group":"operations"}`)

	for _, today := range []string{`{}`, `{"rules":null}`, `{"rules":[{"id":"one","owner":"store","version":1,"claim":"groups","value":"ops","group":"operations"}]}`} {
		if p := ok[planned](a, 200, "POST", "/plan", today); len(p.Users) != 0 || p.Known != 1 {
			t.Errorf("%s: %+v", today, p)
		}
	}
	p := ok[planned](a, 200, "POST", "/plan", `{"rules":[{"claim":"groups","value":"ops","group":"new"},{"claim":"groups","value":"x","group":"y"}]}`)
	if len(p.Users) != 1 || p.Users[0].ID != id.String() || !slices.Equal(p.Users[0].Added, []string{"new"}) ||
		!slices.Equal(p.Users[0].Removed, []string{"operations"}) || p.Added != 1 || p.Removed != 1 || p.Guard.Stops {
		t.Errorf("plan: %+v", p)
	}
	if p := ok[planned](a, 200, "POST", "/plan", `{"rules":[]}`); p.Removed != 1 || p.Added != 0 {
		t.Errorf("without stored rules: %+v", p)
	}
	if got := a.groupsOf(id); !slices.Equal(got, []string{"engineering", "operations"}) {
		t.Errorf("a plan changed memberships: %v", got)
	}
	if n := len(all[ruleItem](a, "/rules", "50")); n != 2 {
		t.Errorf("a plan changed rules: %d", n)
	}
	var keys []string
	for _, e := range a.refused(422, "POST", "/plan", `{"rules":[{"claim":"groups","value":"x","group":"y"},{"claim":"groups","value":"x"},{"claim":"x","regexp":"(","group":"y"}]}`).Errors {
		keys = append(keys, e.Key)
	}
	if want := []string{"rules[1].group", "rules[2].regexp"}; !slices.Equal(keys, want) {
		t.Errorf("faults: %v, want %v", keys, want)
	}
	keys = nil
	for _, e := range a.refused(422, "POST", "/plan", `{"rules":[{"id":"a","claim":"x","any":true},{"id":"a","claim":"x","any":true,"source":"nobody"},{"owner":"file","claim":"x","any":true}]}`).Errors {
		keys = append(keys, e.Key)
	}
	if want := []string{"rules[1].source", "rules[1].id", "rules[2].owner"}; !slices.Equal(keys, want) {
		t.Errorf("faults: %v, want %v", keys, want)
	}
	a.refused(400, "POST", "/plan", `{"rules":[{"clam":"x"}]}`)
	// A complete set may be larger than other bodies.
	big := `{"rules":[` + strings.TrimSuffix(strings.Repeat(`{"claim":"groups","value":"`+strings.Repeat("x", 300)+`","group":"y"},`, 10_000), ",") + `]}`
	ok[planned](a, 200, "POST", "/plan", big)
}

type explained struct {
	Source, Subject, User, Refused string
	Groups, Added, Removed, Kept   []string
	Headers                        []struct{ Name, Value string }
	HeadersProblem                 string `json:"headers_problem"`
	Explanation                    struct {
		Claims []struct{ Claim, State string }
	}
	Skipped []struct{ Group, Reason string }
}

func (e *explained) header(name string) string {
	for _, h := range e.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return "(none)"
}

func TestExplain(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Person = func(id *claims.Identity) groups.User { return groups.User{Email: id.Claims.Text("email")} }
	})
	id := a.signIn("entra", "s1", `{"preferred_username":"alice","email":"old@example.com","groups":["eng"]}`).String()
	bob := a.signIn("corp", "guid", `{"preferred_username":"bob"}`).String()
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	a.done("PUT", "/groups/board/members/"+id)

	stranger := ok[explained](a, 200, "POST", "/explain", `{"source":"entra","claims":{"sub":"s9","groups":["eng"],"email":"x@example.com"}}`)
	if !slices.Equal(stranger.Groups, []string{"engineering"}) || stranger.User != "" || stranger.header("X-Forwarded-Groups") != "engineering" ||
		stranger.header("X-Forwarded-Email") != "x@example.com" || stranger.header("X-Forwarded-User") != "s9" || stranger.Explanation.Claims[0].State != "complete" {
		t.Errorf("a stranger: %+v", stranger)
	}
	for _, who := range []string{"s1", id} {
		e := ok[explained](a, 200, "POST", "/explain", fmt.Sprintf(`{"source":"entra","user":%q,"claims":{"groups":[]}}`, who))
		if e.User != "alice" || e.Subject != "s1" || !slices.Equal(e.Removed, []string{"engineering"}) || !slices.Equal(e.Groups, []string{"board"}) ||
			!slices.Equal(e.Kept, []string{"board"}) || e.header("X-Forwarded-User") != "alice" ||
			e.header("X-Forwarded-Email") != "old@example.com" || e.header("X-Forwarded-Groups") != "board" {
			t.Errorf("%s: %+v", who, e)
		}
	}
	if e := ok[explained](a, 200, "POST", "/explain", `{"source":"entra","user":"new-one","claims":{}}`); e.Subject != "new-one" || e.User != "" || e.header("X-Forwarded-User") != "new-one" {
		t.Errorf("a new subject: %+v", e)
	}
	for body, key := range map[string]string{
		`{"source":"nobody","claims":{}}`:                           "source",
		`{"claims":{}}`:                                             "source",
		`{"source":"entra"}`:                                        "claims",
		`{"source":"entra","claims":[]}`:                            "claims",
		`{"source":"entra","claims":null}`:                          "claims",
		`{"source":"entra","claims":{},"user":` + `"` + bob + `"}`:  "user",
		`{"source":"nobody","claims":{},"user":` + `"` + id + `"}`:  "user",
		`{"source":"nobody","claims":{},"user":` + `"` + "x" + `"}`: "source",
	} {
		if p := a.refused(422, "POST", "/explain", body); len(p.Errors) != 1 || p.Errors[0].Key != key {
			t.Errorf("%s: %+v, want %s", body, p.Errors, key)
		}
	}
	a.refused(400, "POST", "/explain", `{"source":"entra","claims":{"a":1,"A":2}}`)
	if got := a.groupsOf(1); !slices.Contains(got, "engineering") {
		t.Errorf("explaining changed memberships: %v", got)
	}
}

func TestExplainOfRefusedLoginAndOfOverflow(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, o *admin.Options) {
		s.Sources[1].Groups.WhenAbsent = claims.Deny
		o.Headers = func(*groups.View) ([][2]string, string) { return nil, "the groups header would be too long" }
	})
	if e := ok[explained](a, 200, "POST", "/explain", `{"source":"corp","claims":{}}`); e.Refused == "" || len(e.Headers) != 0 || e.HeadersProblem != "" {
		t.Errorf("refused: %+v", e)
	}
	if e := ok[explained](a, 200, "POST", "/explain", `{"source":"corp","claims":{"memberOf":[]}}`); e.Refused != "" || e.HeadersProblem == "" {
		t.Errorf("overflow: %+v", e)
	}
}

func TestGuardWaitsForAnAdministrator(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sync.Guard = &groups.GuardConfig{MaxRemovedUsers: groups.Amount{Users: 1}, Window: groups.DefaultGuard.Window}
	})
	type guard struct {
		Tripped, Allowed, By    string
		Removed, Limit, Holders int
		Active                  bool
	}
	one := a.signIn("entra", "s1", `{"groups":["eng"]}`)
	two := a.signIn("entra", "s2", `{"groups":["eng"]}`)
	if g := ok[guard](a, 200, "GET", "/guard", ""); g != (guard{Limit: 1, Holders: 2, Active: true}) {
		t.Errorf("at first: %+v", g)
	}
	a.signIn("entra", "s1", `{"groups":[]}`)
	a.signIn("entra", "s2", `{"groups":[]}`)
	if len(a.groupsOf(one)) != 0 || len(a.groupsOf(two)) != 1 {
		t.Fatalf("the guard let %v and %v", a.groupsOf(one), a.groupsOf(two))
	}
	if g := ok[guard](a, 200, "GET", "/guard", ""); g.Tripped != "2026-03-01T11:00:00Z" || g.Removed != 1 {
		t.Errorf("stopped: %+v", g)
	}
	g := ok[guard](a, 200, "POST", "/guard:allow", "")
	if g.Tripped != "" || g.By != "api" || g.Allowed != "2026-03-01T11:00:00Z" {
		t.Errorf("allowed: %+v", g)
	}
	if len(a.groupsOf(two)) != 0 {
		t.Errorf("what waited was not done: %v", a.groupsOf(two))
	}
}

// SC-04: a source is listed without its secrets.
func TestSourcesAreListedAndTried(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	want := []admin.SourceStatus{
		{Name: "entra", Label: "Company", Kind: "oidc", Ready: true},
		{Name: "corp", Label: "corp", Kind: "oidc", Problem: "corp: discovery: connection refused"},
	}
	for _, limit := range []string{"1", "50"} {
		if diff := cmp.Diff(want, all[admin.SourceStatus](a, "/sources", limit)); diff != "" {
			t.Errorf("limit %s: %s", limit, diff)
		}
	}
	type tested struct {
		OK     bool
		Detail string
	}
	if got := ok[tested](a, 200, "POST", "/sources/entra:test", ""); got != (tested{true, "reached"}) {
		t.Errorf("entra: %+v", got)
	}
	if got := ok[tested](a, 200, "POST", "/sources/corp%3Atest", ""); got.OK || got.Detail != "corp: discovery: connection refused" {
		t.Errorf("corp: %+v", got)
	}
	a.refused(404, "POST", "/sources/nobody:test", "")
	a.refused(404, "POST", "/sources/entra", "")
}

func TestTargets(t *testing.T) {
	t.Parallel()
	none := newAPI(t)
	if got := none.call("GET", "/targets", ""); string(got.body) != "{\"items\":[]}\n" {
		t.Errorf("no targets: %s", got.body)
	}
	none.refused(404, "POST", "/targets/wiki:retry", "")

	var retried string
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Targets = func() []admin.TargetStatus {
			return []admin.TargetStatus{{Name: "wiki", Kind: "scim", Waiting: 2, Parked: 1, Problem: "wiki: 403"}, {Name: "hook", Kind: "webhook"}}
		}
		o.RetryTarget = func(_ context.Context, name, actor string) error {
			if actor == "" {
				t.Error("nobody did it")
			}
			if name == "hook" {
				return errors.New("hook: open cause-canary: no such file")
			}
			if name != "wiki" {
				return fmt.Errorf("target %q: %w", name, groups.ErrNotFound)
			}
			retried = name
			return nil
		}
	})
	if got := all[admin.TargetStatus](a, "/targets", "1"); len(got) != 2 || got[0].Waiting != 2 {
		t.Errorf("targets: %+v", got)
	}
	a.done("POST", "/targets/wiki:retry")
	if retried != "wiki" {
		t.Errorf("%q was retried", retried)
	}
	a.refused(404, "POST", "/targets/nobody:retry", "")

	// An error nobody foresaw: fixed words for the client, the cause in the log
	// under the same id.
	got := a.call("POST", "/targets/hook:retry", "")
	p := a.refused(500, "POST", "/targets/hook:retry", "")
	nothingIn(t, got.body, "canary")
	if a.logs.FilterField(zap.String("request_id", p.Instance)).FilterMessage("api request not served").Len() != 1 {
		t.Error("the cause is not in the log")
	}
}

// What is not said in Options is left out, and nothing breaks.
func TestLeastOptions(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		*o = admin.Options{Directory: o.Directory, TokenHash: o.TokenHash}
	})
	for _, path := range []string{"/sources", "/targets"} {
		if got := a.call("GET", path, ""); string(got.body) != "{\"items\":[]}\n" {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	a.refused(404, "POST", "/sources/entra:test", "")
	if e := ok[explained](a, 200, "POST", "/explain", `{"source":"entra","claims":{}}`); e.Headers == nil || len(e.Headers) != 0 {
		t.Errorf("headers: %v", e.Headers)
	}
	ok[planned](a, 200, "POST", "/plan", `{"rules":[{"claim":"x","any":true}]}`)
	if w := a.direct(http.MethodGet, "/metrics", nil); w.Code != 404 {
		t.Errorf("/metrics: %d", w.Code)
	}
}
