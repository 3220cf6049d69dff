package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// publicConsole is a groupgate whose console is open on the public host too, to
// members of "board": alice is one.
func publicConsole(t *testing.T) *consoleGate {
	t.Helper()
	p := newPlace(t)
	p.admins = "board"
	return newConsoleAt(t, p, "")
}

// enterPublic signs a person in on the way to a page of the console.
func (s *surfer) enterPublic(c *consoleGate, name, path string) {
	s.t.Helper()
	s.open(path)
	s.click("a[href*='source=op']")
	s.at(c.op.URL)
	s.click("button:has-text('" + name + "')")
	s.at(c.public)
}

// A member works in the console on the public host, and is told before the last
// way in is taken; out of the group, the next click is refused.
func TestConsoleOnThePublicHost(t *testing.T) {
	t.Parallel()
	g := publicConsole(t)
	s := g.surfAt(t, g.url()+"/_auth/admin", wide)
	s.enterPublic(g, "alice", "/groups")
	s.at("/_auth/admin/groups")
	s.status(http.StatusOK)
	s.see("header.top")
	if who := strings.Join(s.read(".who"), " "); !strings.Contains(who, "alice") {
		t.Errorf("the console does not say who is in: %q", who)
	}
	for _, section := range []string{"rules", "people", "explain", "sources", "sync", "audit", "groups"} {
		s.click("header.top nav a[href$='/" + section + "']")
		s.at("/_auth/admin/" + section)
		s.status(http.StatusOK)
	}
	s.look("public-groups")
	s.open("/nowhere")
	s.status(http.StatusNotFound)
	s.look("public-nowhere")

	// The last person of the group: asked before, kept, and done all the same.
	s.open("/groups/board")
	s.click("button[data-open=member-remove]")
	s.click("#member-remove .danger")
	s.see("dialog[aria-labelledby=last-way]")
	s.look("public-last-way")
	s.key("Enter") // the focus is on what changes nothing
	s.gone("dialog[aria-labelledby=last-way]")
	s.expect("Nothing was changed.")
	if n := g.memberCount("board"); n != 1 {
		t.Fatalf("%d members though it was not wanted", n)
	}
	s.click("#member-remove .danger")
	s.click("dialog[aria-labelledby=last-way] .danger")
	s.expect("No access to this page") // the page loads itself again
	s.status(http.StatusForbidden)
	if n := g.memberCount("board"); n != 0 {
		t.Fatalf("%d members", n)
	}
	var noted struct {
		Items []struct{ Actor, Kind string }
	}
	g.api("GET", "/events?group=board&limit=1", nil, &noted)
	if len(noted.Items) != 1 || noted.Items[0].Actor != "user:alice" {
		t.Errorf("noted: %+v", noted)
	}
	s.expect("board")
	s.look("public-refused")

	// Back in by another, and out again: the next click is refused, and so is
	// what a page that is open still would change.
	member := "/groups/board/members/" + g.user("alice")
	g.made("PUT", member, nil)
	s.open("/groups/empty")
	s.status(http.StatusOK)
	g.made("DELETE", member, nil)
	s.click("button[data-open=group-describe]")
	s.fill("#group-describe [name=description]", "by somebody who is out")
	s.click("#group-describe .primary")
	s.expect("You are in none of the groups any more that may use this console.")
	s.click("#group-describe [data-close]")
	s.click("header.top nav a[href$='/people']")
	s.status(http.StatusForbidden)
	g.made("PUT", member, nil)
	s.open("/people")
	s.status(http.StatusOK)
	// With the keyboard: to the content, and out.
	s.key("Tab")
	if f := s.focus(); f.Outline < 2 || !f.Inside || !strings.HasSuffix(f.Address, "#main") {
		t.Errorf("the first stop is %+v", f)
	}
	s.tab(".who a")
	s.key("Enter")
	s.at("/_auth/sign_out")
	s.open("/groups")
	s.at("/_auth/")
	s.gone("header.top")
}

func (c *consoleGate) memberCount(group string) int {
	c.tb.Helper()
	var got struct{ Members int }
	if status := c.api("GET", "/groups/"+group, nil, &got); status != http.StatusOK {
		c.tb.Fatalf("the group %s: %d", group, status)
	}
	return got.Members
}

// Who is in no such group gets the page that says which, for every address and
// method; without admin.groups there is nothing.
func TestConsoleIsForMembersAlone(t *testing.T) {
	t.Parallel()
	g := publicConsole(t)
	s := g.surfAt(t, g.url()+"/_auth/admin", phone)
	s.enterPublic(g, "bob", "/groups")
	s.status(http.StatusForbidden)
	s.expect("board")
	s.gone("header.top")
	s.look("public-stranger")

	b := g.enter(t, "bob")
	before := g.up.requests.Load()
	for _, path := range []string{"", "/", "/groups", "/groups/board", "/api/v1/groups", "/assets/console.css", "/nowhere"} {
		if page := get(t, b, g.url()+"/_auth/admin"+path); page.Status != http.StatusForbidden {
			t.Errorf("%s: %d", path, page.Status)
		}
	}
	req, err := http.NewRequest("POST", g.url()+"/_auth/admin/api/v1/groups", strings.NewReader(`{"name": "made"}`))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+adminToken) // it is no way in here
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("with the token alone: %d", resp.StatusCode)
	}
	if g.up.requests.Load() != before {
		t.Error("the application was reached")
	}

	closed := newConsole(t, "")
	member := closed.enter(t, "alice")
	for _, path := range []string{"", "/", "/groups"} {
		if page := get(t, member, closed.url()+"/_auth/admin"+path); page.Status != http.StatusNotFound {
			t.Errorf("without admin.groups, %q: %d", path, page.Status)
		}
	}
}
