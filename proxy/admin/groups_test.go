package admin_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

type group struct {
	Name, Control, Description, Created string
	Members                             int
}

func TestGroupsAreMadeChangedAndTakenAway(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	made := a.call("POST", "/groups", `{"name":"board","description":"The board"}`)
	if made.status != 201 || made.header.Get("Location") != "/api/v1/groups/board" {
		t.Fatalf("POST: %d %s %v", made.status, made.body, made.header)
	}
	got := a.call("GET", "/groups/board", "")
	if string(got.body) != string(made.body) || got.header.Get("ETag") != made.header.Get("ETag") || got.header.Get("ETag") == "" {
		t.Errorf("GET answers %s (%s), POST answered %s (%s)", got.body, got.header.Get("ETag"), made.body, made.header.Get("ETag"))
	}
	g := ok[group](a, 200, "GET", "/groups/board", "")
	if g != (group{Name: "board", Control: "manual", Description: "The board", Created: "2026-03-01T11:00:00Z"}) {
		t.Errorf("group: %+v", g)
	}
	a.refused(409, "POST", "/groups", `{"name":"board"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"team","control":"sso"}`)
	a.refused(409, "PATCH", "/groups/board", `{"name":"team"}`)

	g = ok[group](a, 200, "PATCH", "/groups/board", `{"name":"directors","control":"sso","description":null}`, "Content-Type: application/merge-patch+json")
	if g.Name != "directors" || g.Control != "sso" || g.Description != "" {
		t.Errorf("patched: %+v", g)
	}
	a.refused(404, "GET", "/groups/board", "")
	a.refused(404, "PATCH", "/groups/board", `{"description":"x"}`)
	if same := ok[group](a, 200, "PATCH", "/groups/directors", `{}`); same != g {
		t.Errorf("an empty patch changed %+v to %+v", g, same)
	}
	a.done("DELETE", "/groups/directors")
	a.done("DELETE", "/groups/directors")
	a.refused(404, "GET", "/groups/directors", "")
}

func TestGroupsThatCannotBe(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) { s.Sync.GroupNames = "[a-z]+" })
	ok[any](a, 201, "POST", "/groups", `{"name":"fine","control":"manual","description":"x"}`)
	for _, tc := range []struct {
		body string
		keys []string
	}{
		{`{}`, []string{"name"}},
		{`{"name":""}`, []string{"name"}},
		{`{"name":"Not this"}`, []string{"name"}},
		{`{"name":"` + strings.Repeat("x", 513) + `"}`, []string{"name"}},
		{`{"name":"x","control":"both"}`, []string{"control"}},
		{`{"name":"x","control":""}`, []string{"control"}},
		{`{"name":"x","description":"` + strings.Repeat("x", 5000) + `"}`, []string{"description"}},
		{`{"name":"X","control":"both","description":"\u0000"}`, []string{"name", "control", "description"}},
	} {
		keys := func(p problem) (out []string) {
			for _, e := range p.Errors {
				out = append(out, e.Key)
				if e.Message == "" {
					t.Errorf("%s: no message", tc.body)
				}
			}
			return out
		}
		if got := keys(a.refused(422, "POST", "/groups", tc.body)); !slices.Equal(got, tc.keys) {
			t.Errorf("POST %.40s: %v, want %v", tc.body, got, tc.keys)
		}
		if tc.body != `{}` {
			if got := keys(a.refused(422, "PATCH", "/groups/fine", tc.body)); !slices.Equal(got, tc.keys) {
				t.Errorf("PATCH %.40s: %v, want %v", tc.body, got, tc.keys)
			}
		}
	}
	for _, body := range []string{`{"name":null}`, `{"control":null}`} {
		a.refused(422, "PATCH", "/groups/fine", body)
	}
	a.refused(400, "PATCH", "/groups/fine", `{"name":1}`)
	a.refused(400, "PATCH", "/groups/fine", `{"members":3}`)
}

func TestOldEditDoesNotOverwriteNewerOne(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)
	old := a.call("GET", "/groups/board", "").header.Get("ETag")
	now := a.call("PATCH", "/groups/board", `{"description":"one"}`, "If-Match: "+old).header.Get("ETag")
	if now == "" || now == old {
		t.Fatalf("ETag %q after %q", now, old)
	}
	a.refused(412, "PATCH", "/groups/board", `{"description":"two"}`, "If-Match: "+old)
	a.refused(412, "PATCH", "/groups/board", `{"description":"two"}`, "If-Match: W/"+now)
	a.refused(412, "DELETE", "/groups/board", "", "If-Match: "+old)
	a.refused(412, "DELETE", "/groups/gone", "", "If-Match: *")
	if g := ok[group](a, 200, "GET", "/groups/board", ""); g.Description != "one" {
		t.Errorf("description %q", g.Description)
	}
	ok[any](a, 200, "PATCH", "/groups/board", `{"description":"three"}`, "If-Match: "+old+", "+now)
	a.done("DELETE", "/groups/board", "If-Match: *")
}

func TestGroupNamesOfAnySpelling(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("entra", "s1", `{}`).String()
	for _, name := range []string{"a/b", "..", ".", "a b", "a%2Fb", "ü,x", "members", "a:import", "x/../y", "?q#f", `"`, "a//b", "<b>", "+"} {
		made := a.call("POST", "/groups", fmt.Sprintf(`{"name":%q}`, name))
		if made.status != 201 {
			t.Errorf("%q: %d %s", name, made.status, made.body)
			continue
		}
		path := strings.TrimPrefix(made.header.Get("Location"), "/api/v1")
		if g := ok[group](a, 200, "GET", path, ""); g.Name != name {
			t.Errorf("%s is %q, want %q", path, g.Name, name)
		}
		a.done("PUT", path+"/members/"+id)
		if m := all[userItem](a, path+"/members", "1"); len(m) != 1 {
			t.Errorf("%q has %d members", name, len(m))
		}
		a.done("DELETE", path)
		if got := a.call("GET", path, ""); got.status != 404 {
			t.Errorf("%q is still there", name)
		}
	}
}

func TestGroupsArePagedByName(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	want := []string{"B", "a", "a:b", "a/b", "b", "é"}
	slices.Sort(want)
	for _, name := range want {
		ok[any](a, 201, "POST", "/groups", fmt.Sprintf(`{"name":%q}`, name))
	}
	for _, limit := range []string{"1", "2", "50"} {
		var got []string
		for _, g := range all[group](a, "/groups", limit) {
			got = append(got, g.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %s: %q, want %q", limit, got, want)
		}
	}
	if got := all[group](a, "/groups?query="+url.QueryEscape("A"), "1"); len(got) != 3 {
		t.Errorf("query: %+v", got)
	}
}

func TestMembersOfManualGroups(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	alice := a.signIn("entra", "s1", `{"preferred_username":"alice","email":"alice@example.com","name":"Alice","groups":["eng"]}`).String()
	bob := a.signIn("entra", "s2", `{"preferred_username":"bob"}`).String()
	ok[any](a, 201, "POST", "/groups", `{"name":"board"}`)

	a.done("PUT", "/groups/board/members/"+bob)
	a.done("PUT", "/groups/board/members/"+bob)
	a.done("PUT", "/groups/board/members/"+alice)
	type memberItem struct {
		ID, User, Email, Name, Origin, Since, By string
		Why                                      []struct{ Source, Rule, Claim, Value string }
	}
	for _, limit := range []string{"1", "50"} {
		m := all[memberItem](a, "/groups/board/members", limit)
		if len(m) != 2 || m[0].ID != alice || m[1].ID != bob || m[0].By != "api" || m[0].Origin != "manual" || m[0].Email != "alice@example.com" {
			t.Errorf("limit %s: %+v", limit, m)
		}
	}
	m := all[memberItem](a, "/groups/engineering/members", "50")
	if len(m) != 1 || m[0].User != "alice" || m[0].Origin != "sso" || m[0].By != "" || m[0].Since != "2026-03-01T11:00:00Z" ||
		len(m[0].Why) != 1 || m[0].Why[0].Value != "eng" {
		t.Errorf("engineering: %+v", m)
	}
	if g := ok[group](a, 200, "GET", "/groups/board", ""); g.Members != 2 {
		t.Errorf("members: %d", g.Members)
	}
	a.done("DELETE", "/groups/board/members/"+bob)
	a.done("DELETE", "/groups/board/members/"+bob)
	if m := all[memberItem](a, "/groups/board/members", "50"); len(m) != 1 {
		t.Errorf("after the removal: %+v", m)
	}

	for _, method := range []string{"PUT", "DELETE"} {
		if p := a.refused(409, method, "/groups/engineering/members/"+alice, ""); !strings.Contains(p.Detail, "SSO") {
			t.Errorf("detail %q", p.Detail)
		}
		a.refused(404, method, "/groups/nothing/members/"+alice, "")
		a.refused(404, method, "/groups/board/members/uzzz", "")
		a.refused(404, method, "/groups/board/members/alice", "")
	}
	a.refused(404, "GET", "/groups/nothing/members", "")
}
