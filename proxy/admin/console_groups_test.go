package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy/admin"
)

var (
	groupLink  = regexp.MustCompile(`<span class="groups-name"><a href="/console/groups/([^"]+)">`)
	memberLink = regexp.MustCompile(`<span class="groups-name"><a href="/console/people/[^"]+">([^<]+)</a>`)
	nextLink   = regexp.MustCompile(`href="([^"]+)" rel="next"`)
)

func found(page string, link *regexp.Regexp) (out []string) {
	for _, m := range link.FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

// walk follows the pages of a list to its end.
func (a *api) walk(path string, link *regexp.Regexp) (out []string) {
	a.t.Helper()
	base, _, _ := strings.Cut(path, "?")
	for range 100 {
		page := a.seen("root", path, 200)
		out = append(out, found(page, link)...)
		next := nextLink.FindStringSubmatch(page)
		if next == nil {
			return out
		}
		path = base + strings.ReplaceAll(next[1], "&amp;", "&")
	}
	a.t.Fatalf("%s does not end", path)
	return nil
}

// manned makes groups and people: "a" and "c" are manual, "engineering" and
// "b" are of SSO.
func manned(t *testing.T, change ...func(*groups.Settings, *admin.Options)) *api {
	t.Helper()
	a := newAPI(t, change...)
	for _, name := range []string{"alice", "Bob", "carol"} {
		a.signIn("entra", name, fmt.Sprintf(`{"preferred_username":%q,"email":"%s@example.com","name":"<i>%s</i>","groups":["eng"]}`, name, name, strings.ToUpper(name)))
	}
	ok[any](a, 201, "POST", "/groups", `{"name":"a","description":"<script>alert(1)</script>"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"b","control":"sso"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"c"}`)
	return a
}

func (a *api) id(name string) string {
	a.t.Helper()
	u, err := a.store.UserByName(a.t.Context(), name)
	if err != nil {
		a.t.Fatal(err)
	}
	return u.ID.String()
}

func TestConsoleListsGroups(t *testing.T) {
	t.Parallel()
	empty := newAPI(t)
	wants(t, "no groups", words(empty.seen("root", "/groups", 200)), "There are no groups yet", "To the rules")

	a := manned(t)
	a.clock.pass(time.Hour)
	a.done("PUT", "/groups/c/members/"+a.id("alice"))
	for _, limit := range []string{"1", "3", "50"} {
		if got := a.walk("/groups?limit="+limit, groupLink); !slices.Equal(got, []string{"a", "b", "c", "engineering"}) {
			t.Errorf("by name, limit %s: %q", limit, got)
		}
		if got := a.walk("/groups?sort=members&limit="+limit, groupLink); !slices.Equal(got, []string{"engineering", "c", "a", "b"}) {
			t.Errorf("by members, limit %s: %q", limit, got)
		}
		if got := a.walk("/groups?control=manual&limit="+limit, groupLink); !slices.Equal(got, []string{"a", "c"}) {
			t.Errorf("manual, limit %s: %q", limit, got)
		}
	}
	if got := a.walk("/groups?query=ENG", groupLink); !slices.Equal(got, []string{"engineering"}) {
		t.Errorf("searched: %q", got)
	}
	page := a.seen("root", "/groups", 200)
	lacks(t, "groups", page, "<script>alert")
	wants(t, "groups", page, "&lt;script&gt;alert(1)", `data-api="/console/api/v1/groups"`)
	wants(t, "groups", words(page), "c Manual 1 0 2026-03-01 12:00", "engineering SSO 3 1 2026-03-01 11:00")
	wants(t, "nothing", words(a.seen("root", "/groups?query=zzz", 200)), "No group fits")
	wants(t, "in German", words(a.seen("root", "/groups", 200, "de")), "Neue Gruppe", "Von Hand")
	for _, bad := range []string{"?sort=size", "?control=both", "?after=x", "?limit=0", "?limit=1&limit=2", "?sort=members&after=Z3JvdXBzOmE"} {
		a.seen("root", "/groups"+bad, 400)
	}
}

func TestConsoleShowsAGroup(t *testing.T) {
	t.Parallel()
	a := manned(t)
	ok[any](a, 201, "POST", "/rules", `{"source":"corp","claim":"memberOf","regexp":"app-(.*)","group":"$1"}`)
	ok[any](a, 201, "POST", "/rules", `{"claim":"roles","any":true}`)
	a.signIn("corp", "g1", `{"preferred_username":"alice","memberOf":["app-engineering"]}`)

	page := a.seen("root", "/groups/engineering", 200)
	text := words(page)
	wants(t, "engineering", text, "groups = eng by the rule at groupgate.yaml:7", "memberOf = app-engineering by a rule of the console",
		"fits the pattern app-(.*)", "nobody is added or removed by hand", "Got the group by sync", "Today’s members (3) stay",
		"People who lose it: 3", "Rules that name it stay: 2")
	lacks(t, "engineering", page, "member-add", "member-import", "member-remove", "<i>")
	lacks(t, "engineering", text, "the value is the group’s name") // the rule grants this group to nobody
	g := a.call("GET", "/groups/engineering", "")
	wants(t, "engineering", page, `data-tag="`+strings.ReplaceAll(g.header.Get("ETag"), `"`, "&#34;")+`"`, "/console/audit?group=engineering")
	for _, limit := range []string{"1", "2", "50"} {
		if got := a.walk("/groups/engineering?limit="+limit, memberLink); !slices.Equal(got, []string{"alice", "Bob", "carol"}) {
			t.Errorf("limit %s: %q", limit, got)
		}
	}
	if got := a.walk("/groups/engineering?query=bob", memberLink); !slices.Equal(got, []string{"Bob"}) {
		t.Errorf("searched: %q", got)
	}
	wants(t, "nobody", words(a.seen("root", "/groups/engineering?query=zzz", 200)), "No member fits")

	a.done("PUT", "/groups/a/members/"+a.id("carol"))
	page = a.seen("root", "/groups/a", 200)
	wants(t, "manual", page, "member-add", "member-import", "members:export", `data-set-user="carol"`)
	wants(t, "manual", words(page), "Added by API, by the token", "Added by hand", "Today’s members (1) keep the group", "all of its members will lose it")
	wants(t, "no members", words(a.seen("root", "/groups/c", 200)), "Nobody is in this group", "import a CSV file")
	wants(t, "no rules", words(a.seen("root", "/groups/b", 200)), "No rule names this group yet")
	lacks(t, "no members", a.seen("root", "/groups/c", 200), "members:export")
	a.seen("root", "/groups/nothing", 404)
	a.seen("root", "/groups/engineering?after=x", 400)

	ok[any](a, 201, "POST", "/groups", `{"name":"x/y \u0026 \"z\""}`)
	wants(t, "a name of any spelling", a.seen("root", "/groups/x%2Fy%20&%20%22z%22", 200), `data-api="/console/api/v1/groups/x%2Fy%20&amp;%20%22z%22"`, `x/y &amp; &#34;z&#34;`)
}

func TestConsoleShortensAGroupsHistory(t *testing.T) {
	t.Parallel()
	a := manned(t)
	for range 12 {
		a.done("PUT", "/groups/a/members/"+a.id("carol"))
		a.done("DELETE", "/groups/a/members/"+a.id("carol"))
	}
	text := words(a.seen("root", "/groups/a", 200))
	if n := strings.Count(text, "Added by hand") + strings.Count(text, "Removed by hand"); n != 20 {
		t.Errorf("%d events", n)
	}
	wants(t, "history", text, "Older events")
	lacks(t, "history", words(a.seen("root", "/groups/c", 200)), "Older events")
}

func TestImportIsTriedFirst(t *testing.T) {
	t.Parallel()
	a := manned(t)
	a.done("PUT", "/groups/a/members/"+a.id("alice"))
	try := func(query, body string) answer {
		t.Helper()
		return a.call("POST", "/groups/a/members:import"+query, body, "Content-Type: text/csv")
	}
	const file = "user\nalice\nbob\ncarol\n"
	for range 2 {
		if got := try("?dry_run=true", file); got.status != 200 || string(got.body) != "{\"added\":2,\"lines\":3}\n" {
			t.Fatalf("tried: %d %s", got.status, got.body)
		}
	}
	if m := all[userItem](a, "/groups/a/members", "50"); len(m) != 1 {
		t.Fatalf("a trial wrote: %+v", m)
	}
	if e := all[struct{ Kind string }](a, "/events?kind=members_imported", "50"); len(e) != 0 {
		t.Fatalf("a trial is in the audit trail: %+v", e)
	}
	p := a.refused(422, "POST", "/groups/a/members:import?dry_run=true", "user\nmallory\nbob\nbob\n", "Content-Type: text/csv")
	if len(p.Faults) != 2 || p.Faults[0].Line != 2 || p.Faults[1].Line != 4 {
		t.Errorf("faults: %+v", p.Faults)
	}
	a.refused(400, "POST", "/groups/a/members:import?dry_run=yes", file, "Content-Type: text/csv")
	a.refused(409, "POST", "/groups/engineering/members:import?dry_run=true", file, "Content-Type: text/csv")
	a.refused(404, "POST", "/groups/nothing/members:import?dry_run=true", file, "Content-Type: text/csv")
	if got := try("?dry_run=false", file); got.status != 200 || string(got.body) != "{\"added\":2,\"lines\":3}\n" {
		t.Errorf("for good: %d %s", got.status, got.body)
	}
	if got := try("?dry_run=true", file); string(got.body) != "{\"added\":0,\"lines\":3}\n" {
		t.Errorf("tried again: %s", got.body)
	}
}

func TestMembersAreExported(t *testing.T) {
	t.Parallel()
	a := manned(t)
	a.signIn("entra", "s9", `{"preferred_username":"=cmd|x","email":"+1@example.com","name":"@A, \"B\""}`)
	a.signIn("entra", "s10", `{"preferred_username":"'quoted","name":"-1"}`)
	for _, name := range []string{"carol", "=cmd|x", "'quoted"} {
		a.done("PUT", "/groups/a/members/"+a.id(name))
	}
	got := a.call("GET", "/groups/a/members:export", "")
	const want = "user,email,name,origin,since\n" +
		"carol,carol@example.com,<i>CAROL</i>,manual,2026-03-01T11:00:00Z\n" +
		"'=cmd|x,'+1@example.com,\"'@A, \"\"B\"\"\",manual,2026-03-01T11:00:00Z\n" +
		"'quoted,,'-1,manual,2026-03-01T11:00:00Z\n"
	if got.status != 200 || string(got.body) != want {
		t.Errorf("export: %d\n%s\nwant\n%s", got.status, got.body, want)
	}
	if d := got.header.Get("Content-Disposition"); d != "attachment; filename=a.csv" {
		t.Errorf("Content-Disposition %q", d)
	}
	// What was exported can be imported.
	back := a.call("POST", "/groups/c/members:import", string(got.body), "Content-Type: text/csv")
	if string(back.body) != "{\"added\":3,\"lines\":3}\n" {
		t.Errorf("imported again: %d %s", back.status, back.body)
	}
	if got := a.call("GET", "/groups/engineering/members:export", ""); strings.Count(string(got.body), ",sso,") != 3 {
		t.Errorf("an SSO group: %s", got.body)
	}
	if got := a.call("HEAD", "/groups/a/members:export", ""); got.status != 200 || len(got.body) != 0 {
		t.Errorf("HEAD: %d %s", got.status, got.body)
	}
	a.refused(404, "GET", "/groups/nothing/members:export", "")
}

// tornStore fails when members are read for the second time.
type tornStore struct {
	groups.Store
	reads int
}

func (s *tornStore) Members(ctx context.Context, group string, after groups.UserID, limit int) ([]groups.Member, error) {
	if s.reads++; s.reads > 1 {
		return nil, fmt.Errorf("torn: %w", groups.ErrUnavailable)
	}
	return s.Store.Members(ctx, group, after, limit)
}

func TestExportIsWholeOrBroken(t *testing.T) {
	t.Parallel()
	a := manned(t)
	a.people(1500)
	whole := a.call("GET", "/groups/many/members:export", "")
	if n := strings.Count(string(whole.body), "\n"); whole.status != 200 || n != 1501 {
		t.Fatalf("%d lines", n)
	}
	torn := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Directory = groups.NewDirectory(groups.Options{Store: &tornStore{Store: a.store}})
	})
	req, err := http.NewRequestWithContext(t.Context(), "GET", torn.url+"/api/v1/groups/many/members:export", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) || strings.Count(string(body), "\n") > 1001 {
		t.Errorf("a part was taken for the whole: %d lines, %v", strings.Count(string(body), "\n"), err)
	}
	if n := torn.logs.FilterMessage("export of members broken off").Len(); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// people makes so many, all in the manual group "many".
func (a *api) people(n int) []groups.UserID {
	a.t.Helper()
	ids := make([]groups.UserID, 0, n)
	ctx := a.t.Context()
	err := a.store.Update(ctx, func(tx groups.Tx) error {
		if err := tx.CreateGroups(ctx, []groups.Group{{Name: "many", Control: groups.Manual}}); err != nil {
			return err
		}
		ids = ids[:0]
		for i := range n {
			u := groups.User{Name: fmt.Sprintf("person%06d", i*7919%1000003), Email: fmt.Sprintf("p%d@example.com", i), Display: "Person"}
			if err := tx.CreateUser(ctx, &u); err != nil {
				return err
			}
			ids = append(ids, u.ID)
		}
		return tx.AddManual(ctx, ids, "many", "root", a.clock.now())
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return ids
}

// 100,000 people in 100 groups: every page within a second on any machine; the
// log says how long each took.
func TestManyGroupsAndMembersAreListedQuickly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	a := newAPI(t)
	ids := a.people(100_000)
	ctx := t.Context()
	err := a.store.Update(ctx, func(tx groups.Tx) error {
		all := make([]groups.Group, 100)
		for i := range all {
			all[i] = groups.Group{Name: fmt.Sprintf("group-%03d", i), Control: groups.Manual}
		}
		if err := tx.CreateGroups(ctx, all); err != nil {
			return err
		}
		for i := range all { // ten groups a person, most of them in the first
			part := ids[:len(ids)*(i%20+1)/105]
			if err := tx.AddManual(ctx, part, all[i].Name, "root", a.clock.now()); err != nil {
				return err
			}
			events := make([]groups.Event, 500)
			for j := range events {
				events[j] = groups.Event{Kind: groups.EventSync, At: a.clock.now(), User: ids[j], Change: &groups.Change{Added: []string{all[i].Name}}}
			}
			if err := tx.AddEvents(ctx, events...); err != nil {
				return err
			}
		}
		for i, id := range ids[:3000] { // of these, some by rules
			g := groups.Grant{Group: "group-099", Source: "entra", Rule: "f-0123456789", Claim: "groups", Value: fmt.Sprint(i % 5)}
			if err := tx.AddGrants(ctx, id, []groups.Grant{g}, a.clock.now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	last := a.walk("/groups/many?limit=500&query=person00", memberLink)
	if len(last) < 500 || !slices.IsSorted(last) {
		t.Errorf("%d members found, sorted %v", len(last), slices.IsSorted(last))
	}
	for _, path := range []string{
		"/groups", "/groups?sort=members", "/groups?query=99", "/groups/many", "/groups/many?query=" + url.QueryEscape(last[0]),
		"/groups/many?query=nobody-like-this", "/groups/group-099", "/groups/group-000", "/groups/group-099?query=person09",
	} {
		a.seen("root", path, 200) // once, to read the pages of the database
		began := time.Now()
		a.seen("root", path, 200)
		took := time.Since(began)
		t.Logf("%-50s %v", path, took.Round(time.Millisecond))
		if took > time.Second {
			t.Errorf("%s took %v", path, took)
		}
	}
}
