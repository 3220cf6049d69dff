package admin_test

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// crowd is three people: bob was seen last, then Carl, then alice; Carl is of
// the source corp too, and dora is a local user who has never signed in.
func crowd(t *testing.T) *api {
	t.Helper()
	a := newPublic(t, "admins")
	for _, name := range []string{"alice", "Carl", "bob"} {
		a.clock.pass(time.Minute)
		a.signIn("entra", name, fmt.Sprintf(`{"preferred_username":%q,"email":"%s@example.com","groups":["eng"]}`, name, name))
	}
	a.clock.pass(-30 * time.Second)
	a.signIn("corp", "c", `{"preferred_username":"Carl"}`)
	ok[any](a, 201, "POST", "/users", `{"user":"dora","password":"a long password of hers"}`)
	return a
}

type seenUser struct {
	User     string
	LastSeen string `json:"last_seen"`
}

func userNames(all []seenUser) (out []string) {
	for _, u := range all {
		out = append(out, u.User)
	}
	return out
}

// The API and the page list the same people in the same order, however long the
// pages are, and a cursor is good for its own order alone.
func TestPeopleAreSortedAndFiltered(t *testing.T) {
	t.Parallel()
	a := crowd(t)
	for query, want := range map[string][]string{
		"": {"alice", "Carl", "bob", "dora"}, "sort=name": {"alice", "bob", "Carl", "dora"}, "sort=seen": {"bob", "Carl", "alice", "dora"},
		"source=entra&sort=seen": {"bob", "Carl", "alice"}, "source=corp&sort=name": {"Carl"}, "source=local": {"dora"},
		"query=EXAMPLE&sort=name": {"alice", "bob", "Carl"}, "query=a&sort=seen&source=entra": {"bob", "Carl", "alice"}, "source=gone": nil,
	} {
		for _, limit := range []string{"1", "2", "50"} {
			if got := userNames(all[seenUser](a, "/users?"+query, limit)); !slices.Equal(got, want) {
				t.Errorf("%s, limit %s: %v, want %v", query, limit, got, want)
			}
			if got := a.walk("/people?"+query+"&limit="+limit, nameInList); !slices.Equal(got, want) {
				t.Errorf("the page, %s, limit %s: %v, want %v", query, limit, got, want)
			}
		}
	}
	found := all[seenUser](a, "/users?sort=seen", "50")
	if found[0].LastSeen != "2026-03-01T11:03:00Z" || found[1].LastSeen != "2026-03-01T11:02:30Z" || found[3].LastSeen != "" {
		t.Errorf("last seen: %+v", found)
	}

	cursor := map[string]string{}
	for _, order := range []string{"", "name", "seen"} {
		cursor[order] = url.QueryEscape(*ok[listOf[seenUser]](a, 200, "GET", "/users?limit=1&sort="+order, "").Next)
	}
	for made, after := range cursor {
		for _, order := range []string{"", "name", "seen"} {
			if path := "/users?sort=" + order + "&after=" + after; made == order {
				ok[any](a, 200, "GET", path, "")
			} else {
				a.refused(400, "GET", path, "")
			}
		}
	}
	for _, bad := range []string{"sort=id", "sort=name&sort=seen", "sort=seen&after=x", "sort=seen&after=" + cursorOf("users-seen:1"), "sort=seen&after=" + cursorOf("users-seen:x:u1"), "after=" + cursorOf("users:x")} {
		a.refused(400, "GET", "/users?"+bad, "")
		a.seen("root", "/people?"+bad, 400)
	}
}

var nameInList = regexp.MustCompile(`<td [^>]*><a href="/console/people/u[0-9a-z]+">([^<]+)</a></td>`)

// A page says how it is sorted and what it is of, keeps both from page to page,
// and offers the rest.
func TestPageOfPeopleSaysHowItIsSorted(t *testing.T) {
	t.Parallel()
	a := crowd(t)
	page := html.UnescapeString(a.seen("root", "/people?sort=seen&source=entra&query=example&limit=1", 200))
	wants(t, "sorted", page, `aria-sort="descending"><a href="?query=example&sort=seen&source=entra">`, `<a href="?query=example&sort=name&source=entra">User`,
		`<a href="?query=example&source=entra">`, `<option value="entra" selected>`, `<option value="seen" selected>`, `sort=seen`, `href="/console/people">`)
	if n := strings.Count(page, "aria-sort"); n != 1 {
		t.Errorf("sorted by %d columns", n)
	}
	next := nextLink.FindStringSubmatch(page)
	if next == nil {
		t.Fatal("no next page")
	}
	for _, part := range []string{"sort=seen", "source=entra", "query=example", "limit=1"} {
		wants(t, "the next page", next[1], part)
	}
	wants(t, "a source that has left", a.seen("root", "/people?source=gone", 200), `<option value="gone" selected>`)
	wants(t, "nobody", words(a.seen("root", "/people?source=gone", 200)), "Nobody fits this search.")
}

// The API finds groups and members as the console does.
func TestGroupsAndMembersAreFoundByTheAPI(t *testing.T) {
	t.Parallel()
	a := manned(t)
	a.done("PUT", "/groups/c/members/"+a.id("alice"))
	type item struct{ Name, User string }
	names := func(path, limit string) (out []string) {
		for _, i := range all[item](a, path, limit) {
			out = append(out, i.Name)
		}
		return out
	}
	for path, want := range map[string][]string{
		"/groups": {"a", "b", "c", "engineering"}, "/groups?sort=members": {"engineering", "c", "a", "b"}, "/groups?control=manual": {"a", "c"},
		"/groups?control=sso&sort=members": {"engineering", "b"}, "/groups?query=ENG": {"engineering"}, "/groups?control=manual&query=b": nil,
	} {
		for _, limit := range []string{"1", "3", "50"} {
			if got := names(path, limit); !slices.Equal(got, want) {
				t.Errorf("%s, limit %s: %v, want %v", path, limit, got, want)
			}
		}
	}
	for query, want := range map[string][]string{
		"": {"alice", "Bob", "carol"}, "?query=o": {"alice", "Bob", "carol"}, "?query=bob@": {"Bob"}, "?query=%3Ci%3ECAROL": {"carol"}, "?query=x%25": nil,
	} {
		for _, limit := range []string{"1", "2", "50"} {
			var got []string
			for _, m := range all[item](a, "/groups/engineering/members"+query, limit) {
				got = append(got, m.User)
			}
			if !slices.Equal(got, want) {
				t.Errorf("members %s, limit %s: %v, want %v", query, limit, got, want)
			}
		}
	}
	byName := url.QueryEscape(*ok[listOf[item]](a, 200, "GET", "/groups?limit=1", "").Next)
	byMembers := url.QueryEscape(*ok[listOf[item]](a, 200, "GET", "/groups?sort=members&limit=1", "").Next)
	for _, bad := range []string{
		"/groups?sort=size", "/groups?control=both", "/groups?sort=members&after=" + byName, "/groups?after=" + byMembers,
		"/groups?sort=members&after=" + cursorOf("groups-members:engineering"), "/groups/engineering/members?after=" + byName,
	} {
		a.refused(400, "GET", bad, "")
	}
	a.refused(404, "GET", "/groups/none/members?query=x", "")
}

// A group's history goes on under the names it had, each for its own time, and
// does not take another group's for its own.
func TestHistoryGoesBackBehindANewName(t *testing.T) {
	t.Parallel()
	a := manned(t)
	step := func(method, path, body string) {
		t.Helper()
		a.clock.pass(time.Minute)
		if got := a.call(method, path, body); got.status/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, path, got.status, got.body)
		}
	}
	alice, bob := a.id("alice"), a.id("Bob")
	step("POST", "/groups", `{"name":"crew"}`) // one that had the name first
	step("PUT", "/groups/crew/members/"+a.id("carol"), "")
	step("DELETE", "/groups/crew", "")
	step("PUT", "/groups/c/members/"+alice, "")
	step("PATCH", "/groups/c", `{"name":"odd \"<name>\""}`)
	step("PUT", "/groups/odd%20%22%3Cname%3E%22/members/"+bob, "")
	step("PATCH", "/groups/odd%20%22%3Cname%3E%22", `{"name":"crew"}`)
	step("DELETE", "/groups/crew/members/"+alice, "")
	step("POST", "/groups", `{"name":"c"}`) // another one
	step("PUT", "/groups/c/members/"+a.id("carol"), "")

	text := words(a.seen("root", "/groups/crew", 200))
	_, history, _ := strings.Cut(text, "History")
	wants(t, "crew", history, "Removed by hand alice", "Added by hand as odd \"<name>\" Bob", "Added by hand as c alice", `renamed from "odd \"<name>\""`, `renamed from "c"`)
	lacks(t, "crew", history, "carol")
	if made := strings.Count(history, "as c "); made != 2 { // made, and alice added
		t.Errorf("%d events as c: %s", made, history)
	}
	order := []string{"Removed by hand", `renamed from "odd`, "as odd \"<name>\" Bob", `renamed from "c"`, "as c alice"}
	for i := 1; i < len(order); i++ {
		if strings.Index(history, order[i-1]) > strings.Index(history, order[i]) {
			t.Errorf("%q stands after %q", order[i-1], order[i])
		}
	}

	// Gone and made again, it is another group: what the name was before is not its own.
	step("DELETE", "/groups/crew", "")
	step("POST", "/groups", `{"name":"crew"}`)
	_, history, _ = strings.Cut(words(a.seen("root", "/groups/crew", 200)), "History")
	lacks(t, "another crew", history, "as c ", "as odd")

	// A page is full of the newest, and says that there are more.
	for range 21 {
		a.dir.Note(t.Context(), groups.Event{Kind: groups.EventMemberAdded, Group: "a", Name: "alice"})
	}
	step("PATCH", "/groups/a", `{"name":"z"}`)
	_, history, _ = strings.Cut(words(a.seen("root", "/groups/z", 200)), "History")
	wants(t, "many", history, "Older events", `renamed from "a"`)
	if n := strings.Count(history, "as a "); n != 19 {
		t.Errorf("%d events of before, want 19", n)
	}
}

// Whoever acts is told apart: by the token, in the console by the token, or a
// person, even one who is called like the others. What was noted before stays
// readable.
func TestActorsAreToldApart(t *testing.T) {
	t.Parallel()
	a := newPublic(t, "admins")
	by := func(name, group string) {
		t.Helper()
		w := a.publicAs(name, "POST", "/api/v1/groups", fmt.Sprintf(`{"name":%q}`, group))
		if w.Code != 201 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	ok[any](a, 201, "POST", "/groups", `{"name":"by-api"}`)
	if w := a.visit("POST", "/api/v1/groups", a.console(), jsonOf(`{"name":"by-token"}`)); w.Code != 201 {
		t.Fatal(w.Code)
	}
	for i, name := range []string{"api", "administrator", "user:api", "source entra", "<b>alice</b>", "rules"} {
		by(name, fmt.Sprint("by-person-", i))
	}
	a.dir.Note(t.Context(), groups.Event{Kind: groups.EventGroupCreated, Group: "by-old", Actor: "alice"})
	a.dir.Note(t.Context(), groups.Event{Kind: groups.EventSignOut, Group: "by-source", Actor: "source entra"})
	stored := map[string]string{
		"by-api": "api", "by-token": "administrator", "by-person-0": "user:api", "by-person-1": "user:administrator", "by-person-2": "user:user:api",
		"by-person-3": "user:source entra", "by-person-4": "user:<b>alice</b>", "by-person-5": "user:rules", "by-old": "alice", "by-source": "source entra",
	}
	shown := map[string]string{
		"by-api": `<span class="badge">API, by the token</span>`, "by-token": `<span class="badge">administrator, by the token</span>`,
		"by-person-0": "api", "by-person-1": "administrator", "by-person-2": "user:api", "by-person-3": "source entra", "by-person-4": "&lt;b&gt;alice&lt;/b&gt;",
		"by-person-5": "rules", "by-old": "alice", "by-source": `<span class="badge">source entra</span>`,
	}
	for group, want := range stored {
		e := ok[listOf[struct{ Actor string }]](a, 200, "GET", "/events?group="+group, "").Items
		if len(e) != 1 || e[0].Actor != want {
			t.Errorf("%s: %+v, want %q", group, e, want)
		}
		wants(t, group, a.seen("root", "/audit?group="+group, 200), `<p><span class="soft">By</span> `+shown[group]+`</p>`)
	}
	wants(t, "German", a.seen("root", "/audit?group=by-token", 200, "de"), `<span class="badge">Administrator, mit dem Token</span>`)

	// A membership says it in the same way, and the page's head who is in.
	a.signIn("entra", "s1", `{"preferred_username":"bob"}`)
	if w := a.publicAs("api", "PUT", "/api/v1/groups/by-api/members/"+a.id("bob"), ""); w.Code != 204 {
		t.Fatal(w.Code)
	}
	if m := ok[listOf[struct{ By string }]](a, 200, "GET", "/groups/by-api/members", "").Items; len(m) != 1 || m[0].By != "user:api" {
		t.Errorf("by %+v", m)
	}
	for _, path := range []string{"/groups/by-api", "/people/" + a.id("bob")} {
		wants(t, path, a.seen("root", path, 200), "<li>Added by api</li>")
	}
	wants(t, "the head", a.seen("administrator", "/groups", 200), `>administrator</span>`)
	lacks(t, "the head", a.seen("administrator", "/groups", 200), `<span class="badge">administrator`)
}
