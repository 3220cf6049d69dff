package admin_test

import (
	"context"
	"database/sql"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy/admin"
)

// said is the text of a page, with blanks for thin ones.
func said(page string) string { return strings.ReplaceAll(words(page), "\u202f", " ") }

func TestConsoleShowsSources(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	age := int64(3600)
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Sources = func() []admin.SourceStatus {
			all := append(testSources(), admin.SourceStatus{Name: "idp", Label: "<b>Partner</b>", Kind: "saml", Ready: true})
			all[0].CertificateExpires, all[0].MetadataExpires, all[0].MetadataAge = now.Add(40*24*time.Hour), now.Add(3*24*time.Hour), &age
			all[2].CertificateExpires, all[2].MetadataExpires = now.Add(-time.Hour), now.Add(time.Hour)
			return all
		}
	})
	id := a.signIn("entra", "1", `{"preferred_username":"alice","groups":["eng"]}`)
	for _, e := range []groups.Event{
		{Kind: groups.EventSignIn, Source: "entra", User: id, Name: "alice"},
		{Kind: groups.EventNotServed, Source: "entra", Reason: "an older fault"},
		{Kind: groups.EventRefused, Source: "entra", Reason: "the nonce is wrong"},
		{Kind: groups.EventRefused, Source: "corp", Reason: "<i>refused</i>"},
		{Kind: groups.EventNotServed, Source: "corp", Reason: "the newer fault"},
	} {
		a.dir.Note(t.Context(), e)
	}
	page := a.seen("root", "/sources", 200)
	cards := strings.Split(page, `<section class="card"`)
	if len(cards) != 4 {
		t.Fatalf("%d cards: %s", len(cards)-1, page)
	}
	entra, corp, idp := said("<"+cards[1]), said("<"+cards[2]), said("<"+cards[3])
	wants(t, "entra", entra, "Company entra", "OpenID Connect", "Ready", "2026-03-01 11:00", "alice", "the nonce is wrong", "days left: 40", "days left: 3", "2026-03-01 10:00")
	lacks(t, "entra", entra, "an older fault", "Nobody")
	wants(t, "corp", corp, "Not ready", "Nobody can sign in here", "connection refused", "Nobody has signed in yet", "the newer fault")
	lacks(t, "corp", corp, "refused</i>", "runs out", "last read")
	wants(t, "idp", idp, "<b>Partner</b> idp", "SAML 2.0", "has run out", "in less than a day", "none")
	wants(t, "links", page, `href="/console/people/`+id.String()+`"`, `href="/console/audit?kind=not_served&amp;source=corp"`,
		`data-source-url="/console/api/v1/sources/idp:test"`, `<span class="badge warn">days left: 3<`, `<span class="badge bad">has run out<`)
	lacks(t, "markup", page, "<b>Partner", "<i>refused")

	none := newAPI(t, func(_ *groups.Settings, o *admin.Options) { o.Sources = nil })
	page = none.seen("root", "/sources", 200)
	wants(t, "no sources", said(page), "There are no sources")
	lacks(t, "no sources", page, "<dialog")
}

// guarded is an API whose guard lets one person lose a group, and three people
// in a group that SSO controls. Their source then says that they are in none.
func guarded(t *testing.T) (a *api, ids []groups.UserID) {
	t.Helper()
	a = newAPI(t, func(s *groups.Settings, o *admin.Options) {
		s.Sync.Guard = &groups.GuardConfig{MaxRemovedUsers: groups.Amount{Users: 1}, Window: time.Hour}
		o.Sessions = func(context.Context) (int, error) { return 1234, nil }
	})
	for _, name := range []string{"alice", "bob", "carol"} {
		ids = append(ids, a.signIn("entra", name, fmt.Sprintf(`{"preferred_username":%q,"groups":["eng"]}`, name)))
	}
	return a, ids
}

func (a *api) leave(names ...string) {
	a.t.Helper()
	for _, name := range names {
		a.clock.pass(time.Second)
		a.signIn("entra", name, fmt.Sprintf(`{"preferred_username":%q,"groups":[]}`, name))
	}
}

func TestConsoleShowsTheGuard(t *testing.T) {
	t.Parallel()
	a, ids := guarded(t)
	page := a.seen("root", "/sync", 200)
	wants(t, "at first", said(page), "3 People", "3 have a group", "1 234 Sessions", "1 Groups (SSO: 1)", "Watching", "a group from 0 people", "1 of 3 may lose one")
	lacks(t, "at first", page, "guard:allow", "guard-allow")

	a.leave("alice")
	wants(t, "one left", said(a.seen("root", "/sync", 200)), "a group from 1 people", "Watching")
	a.leave("bob", "carol", "bob")
	page = a.seen("root", "/sync", 200)
	text := said(page)
	wants(t, "stopped", text, "Removals wait", "Removals stopped. 2026-03-01 11:00", "carol engineering entra", "bob engineering entra", "Allow removals", "Keep waiting", "leaves it now")
	wants(t, "stopped", page, `data-api="/console/api/v1/guard:allow"`, `href="/console/people/`+ids[1].String()+`"`)
	if n := strings.Count(page, "/console/people/"+ids[1].String()); n != 1 {
		t.Errorf("bob stands there %d times", n)
	}
	lacks(t, "stopped", page, ids[0].String()) // who left before it stopped
	if order := strings.Index(text, "bob engineering"); order > strings.Index(text, "carol engineering") {
		t.Error("the latest is not the first")
	}

	ok[any](a, 200, "POST", "/guard:allow", "")
	page = a.seen("root", "/sync", 200)
	wants(t, "allowed", said(page), "Watching", "0 have a group", "Removals were last allowed: 2026-03-01 11:00 UTC · API, by the token")
	lacks(t, "allowed", page, "guard-allow", "Would leave")

	idle := newAPI(t)
	text = said(idle.seen("root", "/sync", 200))
	wants(t, "idle", text, "Resting", "20 people", "0 People", "Nothing was skipped", "in all 0")
	lacks(t, "idle", text, "Sessions")
}

func TestConsoleShowsWhatWasSkipped(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sync.CreateNewGroups, s.Sync.GroupNames = false, "[a-z]+"
		s.Rules = append(s.Rules,
			groups.Rule{ID: "f-1", Source: "entra", Claim: "groups", Value: "cooks & <co>", Group: "kitchen"},
			groups.Rule{ID: "f-2", Source: "entra", Claim: "groups", Value: "cooks & <co>", Group: "kitchen", When: "true"},
			groups.Rule{ID: "f-3", Source: "entra", Claim: "groups", Value: "odd", Group: "Odd Name"},
			groups.Rule{ID: "f-4", Source: "entra", Claim: "groups", Value: "chair", Group: "board"})
	})
	ok[any](a, 201, "POST", "/groups", `{"name":"board","control":"manual"}`)
	a.signIn("entra", "0", `{"preferred_username":"early","groups":["odd"]}`)
	a.clock.pass(15 * 24 * time.Hour)
	for i := range 30 {
		a.signIn("entra", fmt.Sprint("s", i), fmt.Sprintf(`{"preferred_username":"user%d","groups":["cooks & <co>"]}`, i))
	}
	a.clock.pass(time.Hour)
	a.signIn("entra", "x", `{"preferred_username":"alice","groups":["chair","cooks & <co>"]}`)
	page := a.seen("root", "/sync", 200)
	text := said(page)
	wants(t, "skipped", text, "cooks & <co> entra · groups kitchen the group does not exist 31 2026-03-16 12:00",
		"chair entra · groups board the group is managed by hand 1 2026-03-16")
	lacks(t, "skipped", text, "Odd Name") // more than 14 days ago
	if n := strings.Count(text, "cooks & <co> entra"); n != 1 {
		t.Errorf("two rules make %d lines", n)
	}
	wants(t, "links", page, `href="/console/groups/board"`)
	a.signIn("entra", "y", `{"preferred_username":"bob","groups":["odd"]}`)
	wants(t, "name", said(a.seen("root", "/sync", 200)), "Odd Name the name is not allowed 1")
	wants(t, "German", said(a.seen("root", "/sync", 200, "de")), "die Gruppe gibt es nicht")
}

// Each skipped value is offered what would let it in, and nothing any more when
// that has been done.
func TestConsoleOffersWhatASkippedValueLacks(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(s *groups.Settings, _ *admin.Options) {
		s.Sync.CreateNewGroups, s.Sync.GroupNames, s.Sync.DefaultGroups = false, "[a-z]+", []string{"everyone"}
		s.Rules = []groups.Rule{
			{ID: "f-1", Source: "entra", Claim: "groups", Value: "cooks & <co>", Group: "kitchen"},
			{ID: "f-2", Source: "entra", Claim: "groups", Regexp: "(Odd.*)", Group: "$1"},
			{ID: "f-3", Source: "entra", Claim: "groups", Value: "chair", Group: "board"},
		}
	})
	ok[any](a, 201, "POST", "/groups", `{"name":"board","control":"manual"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"oddities","control":"sso"}`)
	a.signIn("entra", "x", `{"preferred_username":"alice","groups":["chair","cooks & <co>","Odd"]}`)
	a.signIn("corp", "y", `{"preferred_username":"bob"}`) // no rule reads the source: the default groups
	offers := map[string]string{
		"kitchen": `<button class="small" data-open="skip-group" data-set-name="kitchen">Make the group`, "everyone": `data-set-name="everyone">Make the group`,
		"Odd": `<a class="button small" href="/console/rules?claim=groups&new=1&source=entra&value=Odd">Make a rule of it`, "board": `href="/console/groups/board#group-switch">Change who decides`,
	}
	row := func(group string) string {
		t.Helper()
		for _, r := range strings.Split(html.UnescapeString(a.seen("root", "/sync", 200)), "<tr>") {
			if strings.Contains(r, `data-label="Would mean">`+group+`<`) || strings.Contains(r, `/groups/`+group+`"`) {
				return r
			}
		}
		t.Fatalf("%s is not listed", group)
		return ""
	}
	for group, want := range offers {
		got := row(group)
		wants(t, group, got, want)
		for other, text := range offers {
			if other != group && strings.Contains(got, text) {
				t.Errorf("%s is offered what %s is: %s", group, other, got)
			}
		}
		lacks(t, group, got, "Settled meanwhile")
	}
	page := a.seen("root", "/sync", 200)
	wants(t, "the dialog", page, `<dialog id="skip-group"`, `data-api="/console/api/v1/groups"`, `<input type="hidden" name="control" value="sso">`)
	wants(t, "the other dialog", a.seen("root", "/groups/board", 200), `<dialog id="group-switch" data-direct`)

	ok[any](a, 201, "POST", "/groups", `{"name":"kitchen","control":"sso"}`)
	ok[any](a, 201, "POST", "/groups", `{"name":"everyone"}`) // manual: in the way still
	ok[any](a, 200, "PATCH", "/groups/board", `{"control":"sso"}`)
	ok[any](a, 201, "POST", "/rules", `{"source":"entra","claim":"groups","value":"Odd","group":"oddities"}`)
	for _, group := range []string{"kitchen", "Odd", "board"} {
		wants(t, group, row(group), "Settled meanwhile")
		lacks(t, group, row(group), "data-open", "class=\"button")
	}
	wants(t, "everyone", row("everyone"), `href="/console/groups/everyone#group-switch">Change who decides`)
	a.signIn("entra", "x", `{"preferred_username":"alice","groups":["chair","cooks & <co>","Odd"]}`)
	if in := a.call("GET", "/users/"+a.id("alice"), ""); !strings.Contains(string(in.body), `"kitchen"`) || !strings.Contains(string(in.body), `"oddities"`) || !strings.Contains(string(in.body), `"board"`) {
		t.Errorf("what was offered helps not: %s", in.body)
	}
}

var rect = regexp.MustCompile(`<rect class="([^"]+)" x="(\d+)" y="(\d+)" width="8" height="(\d+)"><title>([^<]+)</title>`)

func TestConsoleDrawsWhatHappened(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	note := func(n int, e groups.Event) {
		for range n {
			a.dir.Note(t.Context(), e)
		}
	}
	sync := groups.Event{Kind: groups.EventSync, Source: "entra", Change: &groups.Change{Added: []string{"a", "b", "c"}, Removed: []string{"d"}}}
	note(2, groups.Event{Kind: groups.EventSignIn, Source: "entra"})
	note(1, sync)
	a.clock.pass(2 * time.Hour)
	note(4, groups.Event{Kind: groups.EventSignIn, Source: "corp"})
	note(3, groups.Event{Kind: groups.EventRefused, Source: "corp"})
	page := a.seen("root", "/sync", 200)
	var got []string
	for _, m := range rect.FindAllStringSubmatch(page, -1) {
		got = append(got, strings.Join(m[1:], " "))
	}
	// From 14:00 the day before; days from the 16th of February on. What happens
	// as an hour begins is part of it.
	want := []string{
		"bar 211 50 50 11:00: 2", "bar 231 0 100 13:00: 4",
		"bar operate-added 211 25 75 11:00: 3", "bar operate-removed 211 0 25 11:00: 1",
		"bar 131 0 100 2026-03-01: 6", "bar operate-added 131 25 75 2026-03-01: 3", "bar operate-removed 131 0 25 2026-03-01: 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("bars\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	wants(t, "numbers", said(page), "Sign-ins in all 6 · at most 4 in an hour", "in all 4 · at most 4 in an hour", "at most 6 in a day",
		"13:00 4 3 0 0", "11:00 2 0 3 1", "2026-03-01 6 3 3 1")
}

// trail are the ids of the events on a page, by their time: the tests make one
// a minute.
var moment = regexp.MustCompile(`<td data-label="When"><time datetime="2026-03-01T11:(\d\d):00Z">`)

func trailOn(page string) (out []string) {
	for _, m := range moment.FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestConsoleShowsTheTrail(t *testing.T) {
	t.Parallel()
	a := newAPI(t)
	id := a.signIn("corp", "1", `{"preferred_username":"alice"}`)
	gone := groups.UserID(4711)
	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprintf("group-%02d", i)
	}
	for _, e := range []groups.Event{
		{Kind: groups.EventSignIn, Source: "entra", User: id, Name: "alice", Request: "q1"},
		{Kind: groups.EventSync, Source: "entra", User: id, Name: "alice", Request: "q1", Change: &groups.Change{Added: many, Removed: []string{"old"}, Held: []string{"kept"},
			Skipped: []groups.Skip{{Grant: groups.Grant{Group: "none"}, Reason: groups.SkipMissing}}}},
		{Kind: groups.EventRefused, Source: "corp", Reason: "<b>no</b>", Request: "q2"},
		{Kind: groups.EventGroupChanged, Group: "old", Actor: "root"},
		{Kind: groups.EventSignOut, Source: "entra", User: gone, Name: "gone"},
	} {
		a.clock.pass(time.Minute)
		a.dir.Note(t.Context(), e)
	}
	page := a.seen("root", "/audit", 200)
	text := said(page)
	wants(t, "all", text, "Entered +group-00 +group-01", "+group-07", "and more: 4 +group-08", "Left −old", "Kept by the guard kept", "Skipped none (the group does not exist)",
		"Group changed", "By root", "<b>no</b>", "Person first known", "Claim memberOf absent")
	lacks(t, "all", page, "<b>no", "audit.kind")
	wants(t, "links", page, `href="/console/people/`+id.String()+`"`, `href="?request=q1"`, `href="/console/groups/old"`, `href="/console/api/v1/events:export?format=csv"`)
	for query, want := range map[string]string{
		"kind=sync": "02 00", "user=ALICE": "02 01 00", "user=" + id.String(): "02 01 00", "user=" + gone.String(): "05", "group=old": "04 02", "group=group-03": "02",
		"source=corp": "03 00", "request=q1": "02 01", "from=2026-03-01T11:03": "05 04 03", "to=2026-03-01T11:02": "01 00", "from=2026-03-01T11:02&to=2026-03-01T11:04:00Z": "03 02",
		"kind=sync&user=alice&group=old&source=entra": "02", "kind=&user=+&request=": "05 04 03 02 01 00", "kind=none": "",
	} {
		page := a.seen("root", "/audit?"+query, 200)
		got := slices.Compact(trailOn(page))
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
		if want == "" {
			wants(t, query, said(page), "Nothing fits")
		}
	}
	filtered := a.seen("root", "/audit?kind=sync&user=alice&source=elsewhere&from=2026-03-01", 200)
	wants(t, "fields", filtered, `<option value="sync" selected>`, `name="user" value="alice"`, `<option value="elsewhere" selected>`, `type="datetime-local" value="2026-03-01T00:00"`,
		html.EscapeString("events:export?format=csv&from=2026-03-01T00%3A00%3A00Z&kind=sync&source=elsewhere&user="+id.String()))
	unknown := a.seen("root", "/audit?user=nobody", 200)
	wants(t, "unknown", said(unknown), "Nobody has this user name", "Nothing fits")
	lacks(t, "unknown", unknown, "events:export")
	bad := a.seen("root", "/audit?from=yesterday&to=x", 200)
	wants(t, "bad", said(bad), "“From” is not a time.", "“Until” is not a time.")
	lacks(t, "bad", bad, "yesterday</", "events:export", `<table`)
	for _, q := range []string{"after=x", "limit=0", "kind=a&kind=b", "user=%00"} {
		a.seen("root", "/audit?"+q, 400)
	}

	// Page by page, each event once, with the filter kept.
	var all []string
	next := "?limit=2&source=entra"
	for range 10 {
		page := a.seen("root", "/audit"+next, 200)
		all = append(all, trailOn(page)...)
		m := regexp.MustCompile(`href="([^"]+)" rel="next"`).FindStringSubmatch(page)
		if m == nil {
			break
		}
		next = html.UnescapeString(m[1])
	}
	if strings.Join(all, " ") != "05 02 01" {
		t.Errorf("pages: %q", all)
	}
	wants(t, "empty", said(newAPI(t).seen("root", "/audit", 200)), "Nothing has happened yet")
}

func TestConsoleShowsTargets(t *testing.T) {
	t.Parallel()
	a := newAPI(t, func(_ *groups.Settings, o *admin.Options) {
		o.Targets = func() []admin.TargetStatus {
			return []admin.TargetStatus{{Name: "wiki", Kind: "scim", Waiting: 12345, Parked: 3, Problem: "the server answers 403"}, {Name: "chat", Kind: "webhook"}}
		}
	})
	page := a.seen("root", "/targets", 200)
	wants(t, "targets", said(page), "wiki scim 12 345 3 the server answers 403 Retry wiki", "chat webhook 0 0 none")
	wants(t, "targets", page, `data-api="/console/api/v1/targets/wiki:retry"`, `href="/console/targets" aria-current`)
	lacks(t, "targets", page, "chat:retry")
	none := newAPI(t)
	wants(t, "none", said(none.seen("root", "/targets", 200)), "There are no targets")
	lacks(t, "none", none.seen("root", "/sync", 200), "/targets")
}

// Every kind of event has a name in the filter's language.
func TestEveryKindOfEventHasAName(t *testing.T) {
	t.Parallel()
	page, _, _ := strings.Cut(newAPI(t).seen("root", "/audit", 200), "</select>")
	kinds := regexp.MustCompile(`<option value="([a-z_]+)">([^<]+)</option>`).FindAllStringSubmatch(page, -1)
	if len(kinds) < 26 {
		t.Fatalf("%d kinds", len(kinds))
	}
	for _, k := range kinds {
		if k[1] == k[2] {
			t.Errorf("%s has no name", k[1])
		}
	}
}

// A long trail and 100,000 people: pages answer as with few. That the store
// answers from an index with a million events is a test of its own; here
// GROUPGATE_EVENTS says how many there are.
func TestConsoleWithManyEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	n := 100_000
	if text := os.Getenv("GROUPGATE_EVENTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 20_000 {
			t.Fatalf("GROUPGATE_EVENTS is %q", text)
		}
	}
	path := filepath.Join(t.TempDir(), "groupgate.db")
	now := time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	store, err := sqlstore.OpenSQLite(t.Context(), path, sqlstore.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	db, err := sql.Open("sqlite", "file:"+path+"?mode=rw")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	every := 13 * 24 * time.Hour.Microseconds() / int64(n)
	for _, text := range []string{
		`with recursive i (n) as (select 1 union all select n + 1 from i where n < 100000)
			insert into users (name, name_key, email, email_key, display, created, holder) select 'user' || n, 'user' || n, '', '', '', 1, 1 from i`,
		fmt.Sprintf(`with recursive i (n) as (select 0 union all select n + 1 from i where n < %d - 1)
			insert into events (at, kind, user_id, source, grp, request, body) select
				%d + n * %d, case when n %% 1000 = 7 then 'refused' when n %% 10 = 3 then 'sync' else 'sign_in' end, 1 + n %% 1000, 'entra', '', printf('r%%09d', n),
				case when n %% 10 = 3 then '{"name":"alice","change":{"added":["everyone"],"skipped":[{"group":"g' || (n %% 40) || '","source":"entra","claim":"groups","value":"v","reason":"group does not exist"}]}}' else '{"name":"alice"}' end
			from i`, n, now.AddDate(0, 0, -13).UnixMicro(), every),
	} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("filled in %s", time.Since(began))
	a := &api{t: t, h: admin.New(admin.Options{Directory: groups.NewDirectory(groups.Options{Store: store, Now: clock}), Now: clock, Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)), Sources: testSources})}
	for path, want := range map[string]string{
		"/sources": "2026-03-14", "/sync": fmt.Sprintf("in all %d %03d", n/1000*899/1000, n*899/1000%1000), "/audit": "Sign-in", "/audit?group=everyone": "+everyone", "/audit?user=user12": "alice",
		"/audit?kind=refused&source=entra": "Refused", "/audit?source=corp": "Nothing fits", "/audit?kind=guard": "Nothing fits", "/audit?request=r000000012": "r000000012",
		"/audit?group=none": "Nothing fits", "/audit?from=2026-03-02T00:00&to=2026-03-03T00:00": "2026-03-02", "/audit?kind=sync&to=2026-03-03T00:00": "2026-03-02", "/audit?limit=500": "Sign-in",
	} {
		began := time.Now()
		page := a.seen("root", path, 200)
		took := time.Since(began)
		t.Logf("%-50s %v, %d KB", path, took.Round(time.Millisecond), len(page)>>10)
		wants(t, path, said(page), want)
		if took > time.Second {
			t.Errorf("%s took %v", path, took)
		}
	}
}
