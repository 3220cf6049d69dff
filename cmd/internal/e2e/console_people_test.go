package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// A local user's whole life in the console: made, found, changed, given another
// password, disabled, enabled, deleted.
func TestConsoleLivesOfALocalUser(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/people")
	s.look("people")
	if got := s.read("tbody td:first-child"); !slices.Equal(got, []string{"dora", "alice", "bob", "carol"}) {
		t.Errorf("people: %q", got)
	}
	s.fill("#query", "nobody at all")
	s.key("Enter")
	s.expect("Nobody fits this search.")
	s.look("people-nobody")
	s.open("/people")
	s.click("text=New local user")
	s.fill("#new-user", "erik")
	s.fill("#new-email", "erik@example.com")
	s.fill("#new-password", "short")
	s.click("dialog[open] .primary")
	s.see("#new-password-error")
	s.look("people-new")
	if got := s.focus(); got.Text != "Password" {
		t.Errorf("the field that is wrong has not the focus: %+v", got)
	}
	s.fill("#new-password", dorasPassword)
	s.key("Enter")
	s.expect("The local user can sign in now.")
	if got := s.read("tbody td:first-child"); !slices.Equal(got, []string{"erik"}) {
		t.Errorf("made: %q", got)
	}

	s.click("text=erik >> nth=0")
	s.see("h1 >> text=erik")
	s.click("text=Edit")
	s.fill("#edit-name", "Erik Example")
	s.look("person-edit")
	// Somebody else is faster.
	g.made("PATCH", "/users/"+g.user("erik"), map[string]any{"email": "e@example.com"})
	s.click("dialog[open] .primary")
	s.expect("Somebody else changed this meanwhile.")
	s.open("/people/" + g.user("erik"))
	s.expect("e@example.com")
	s.click("text=Edit")
	s.fill("#edit-name", "Erik Example")
	s.click("dialog[open] .primary")
	s.expect("The changes are saved.")
	s.see("dd >> text=Erik Example")

	s.click("text=New password")
	s.fill("#person-new-password", "another password of his")
	s.look("person-password")
	s.click("dialog[open] .primary")
	s.expect("The new password counts from now on.")
	person := g.surfAt(t, g.url(), wide)
	enter := func(password string) {
		person.open("/_auth/start?source=local&rd=/page/home")
		person.fill("input[name=username]", "erik")
		person.fill("input[name=password]", password)
		person.click("button")
	}
	enter(dorasPassword)
	person.status(http.StatusUnauthorized)
	enter("another password of his")
	person.at("/page/home")

	s.open("/people/" + g.user("erik"))
	s.click("text=Sign out everywhere")
	s.look("person-out")
	s.click("dialog[open] .primary")
	s.expect("erik is signed out everywhere.")
	s.expect("Nowhere signed in at the moment.")
	person.open("/page/home")
	person.at("/_auth/")

	s.click("text=Disable")
	s.look("person-disable")
	s.key("Escape")
	s.gone("dialog[open]")
	s.click("text=Disable")
	s.click("dialog[open] .danger")
	s.expect("erik cannot sign in any more.")
	s.see("h1 .badge.bad")
	enter("another password of his")
	person.status(http.StatusForbidden)
	s.click("text=Enable")
	s.click("dialog[open] .primary")
	s.expect("erik can sign in again.")
	enter("another password of his")
	person.at("/page/home")

	s.open("/people/" + g.user("erik"))
	s.look("person-local")
	s.click(".head .danger")
	s.look("person-delete")
	s.click("dialog[open] .danger")
	s.expect("erik was deleted.")
	if got := s.read("tbody td:first-child"); slices.Contains(got, "erik") || len(got) != 4 {
		t.Errorf("after deleting: %q", got)
	}
	person.open("/page/home")
	person.at("/_auth/")
}

func TestConsoleSaysWhyAPersonIsInAGroup(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	g.made("PATCH", "/groups/operations", map[string]any{"control": "sso"})
	g.made("POST", "/rules", map[string]any{"source": "op", "claim": "groups", "value": "unknown-team", "group": "empty"})
	g.enter(t, "alice")
	s := g.surf(t, wide)
	s.signIn("/people")
	s.click("text=alice >> nth=0")
	s.see("h1 >> text=alice")
	s.look("person")
	why := strings.Join(s.read(".people-why li"), "\n")
	for _, want := range []string{"Because op states groups = eng, by the rule ", "groupgate.yaml:", "Because op states groups = ops, by the rule ", "Added by API, by the token"} {
		if !strings.Contains(why, want) {
			t.Errorf("%q is missing in %q", want, why)
		}
	}
	s.expect("grants and removes")
	s.click(".people-raw summary")
	s.see(".people-raw pre >> text=unknown-team")
	s.look("person-raw")
	s.click(".head .button") // Explain
	s.at("/explain?user=" + g.user("alice"))
	if got := s.values("#claims"); len(got) != 1 || !strings.Contains(got[0], `"unknown-team"`) {
		t.Errorf("filled in: %q", got)
	}
	s.look("explain-filled")
	s.click("#explain .primary")
	s.see(".explain-head")
	if got := s.focus(); !strings.Contains(got.Text, "What this sign-in would do for alice") {
		t.Errorf("the focus is at %+v", got)
	}
	s.look("explain-result")
	if got := s.read(".tiles b"); !slices.Equal(got, []string{"3", "0", "0", "1", "1"}) {
		t.Errorf("groups, added, removed, kept, skipped: %q", got)
	}
	rows := strings.Join(s.read("#explain-result tbody tr"), "\n")
	for _, want := range []string{"unknown-team", "the group is controlled by people, not by SSO", "board", "kept", "as before", "X-Forwarded-User", "alice"} {
		if !strings.Contains(rows, want) {
			t.Errorf("%q is missing in %q", want, rows)
		}
	}
	s.click("details.explain-misses summary >> nth=0")
	s.expect("another value")
	s.click(`button[aria-label="Copy the value of X-Forwarded-Groups"]`)
	s.see(`button >> text="Copied"`)
	s.click(`button[aria-label="Copy all"]`)

	// Without a group that a value granted, and with one that nearly fits.
	s.fill("#claims", `{"groups": ["ENG", "ops"]}`)
	s.key("Tab")
	s.key("Enter")
	s.expect("differs in upper and lower case")
	if got := s.read(".tiles b"); !slices.Equal(got, []string{"2", "0", "1", "1", "0"}) {
		t.Errorf("groups, added, removed, kept, skipped: %q", got)
	}
	s.look("explain-nearly")
	// Nothing of it was written.
	s.open("/people/" + g.user("alice"))
	if got := s.read("#memberships >> xpath=../.. >> tbody tr"); len(got) != 3 {
		t.Errorf("memberships: %q", got)
	}
}

func TestConsoleHelpsWithBrokenClaims(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.signIn("/explain")
	s.look("explain")
	for text, want := range map[string]string{
		"{\"groups\": [\"eng\",]}":              "Line 1, column 19: the comma before this is one too many",
		"{\n  \"groups\": [\"eng\"\n}":          "Line 3, column 1: a comma or the end of the list or object is missing here",
		"{\"a\": 1, \"a\": 2}":                  "Line 1, column 10: this name stands twice",
		"{'groups': []}":                        "Line 1, column 2: a name in double quotes belongs here",
		"{\"groups\": [\"CORP\\eng\"]}":         "Line 1, column 18: \\ is followed by something that JSON does not know",
		"[\"eng\"]":                             "Line 1, column 1: the claims are one object",
		"{\"groups\": [\"eng\"":                 "Line 1, column 18: the text ends too early",
		"{\"groups\": [eng]}":                   "Line 1, column 13: this is no JSON value",
		"{\"groups\" [\"eng\"]}":                "Line 1, column 11: a colon belongs",
		"{\"groups\": [\"eng]}":                 "Line 1, column 13: this text in quotes does not end",
		"{} {}":                                 "Line 1, column 4: something stands behind the end",
		"{\"n\": 01}":                           "Line 1, column 7: this is no JSON value",
		"{\"groups\": [\"a\tb\"]}":              "a control character inside a text",
		`{"a":1},"user":"x","claims":{"b":[2]}`: "Line 1, column 8: something stands behind the end",
	} {
		s.fill("#claims", text)
		s.click("#explain .primary")
		s.see("#claims-error")
		if got := s.read("#claims-error"); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		if got := s.focus(); got.Text != "Claims (JSON)" && !strings.Contains(got.Text, "groups") && !strings.Contains(got.Text, "{") {
			t.Errorf("%s: the focus is at %+v", text, got)
		}
	}
	s.look("explain-broken")
	// What only the API sees is said by the API.
	s.fill("#claims", `{"groups": ["eng"], "Groups": ["ops"]}`)
	s.click("#explain .primary")
	s.see("#explain [role=alert]")
	// The token itself may be pasted.
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"groups":["eng"],"name":"Zoë"}`))
	s.fill("#claims", "eyJhbGciOiJFUzI1NiJ9."+payload+".c2lnbmF0dXJl")
	s.expect("This was a token.")
	if got := s.values("#claims"); !strings.Contains(got[0], `"Zoë"`) {
		t.Errorf("of the token: %q", got)
	}
	s.click("#explain .primary")
	s.see(".explain-head")
	s.expect("added")

	// A person found by name, with the keyboard alone.
	s.open("/explain")
	s.tab("#explain-query")
	s.typed("bob")
	s.key("Enter")
	s.at("query=bob")
	s.look("explain-found")
	s.tab(".explain-found a")
	s.key("Enter")
	s.at("user=" + g.user("bob"))
	s.tab("#explain .primary")
	s.key("Enter")
	s.see(".explain-head")
	s.expect("What this sign-in would do for bob")
}

// A directory is asked about somebody who has never signed in.
func TestConsoleExplainsSomebodyOfADirectory(t *testing.T) {
	t.Parallel()
	d := claimstest.StartDirectory(t, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("erik", alicesPassword))
	d.Put(d.Group("team", d.PersonDN("erik")), d.Group("all", d.GroupDN("team")))
	p := newPlace(t)
	g := &consoleGate{up: newUpstream(t), op: claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})}
	p.write(t, g.up.URL, oidc("op", g.op.URL, opSecret)+fmt.Sprintf(`
  - name: corp
    ldap: {url: %q, bind_dn: %q, bind_password: %q, base_dn: %q, ca_file: %q, nested_groups: true}
`, d.URLS, d.ServiceDN, d.ServicePassword, d.BaseDN, d.CAFile), `
rules:
  - {source: corp, claim: memberOf, dn: "cn=team, ou=Groups, `+d.BaseDN+`", group: sailors}
`)
	g.gate = p.start(t)
	s := g.surf(t, wide)
	s.signIn("/explain")
	s.gone("#lookup")
	s.choose("#source", "corp")
	s.see("#lookup")
	s.fill("#lookup-person", "nobody")
	s.click("#lookup button")
	s.see("#lookup-result .notice")
	s.fill("#lookup-person", "erik")
	s.key("Enter")
	s.expect("Found, and filled in:")
	s.look("explain-lookup")
	s.click("#explain .primary")
	s.see(".explain-head")
	rows := strings.Join(s.read("#explain-result tbody tr"), "\n")
	for _, want := range []string{"sailors", "added", "the same distinguished name", "Rules that missed: 1"} {
		if !strings.Contains(rows, want) {
			t.Errorf("%q is missing in %q", want, rows)
		}
	}
	s.look("explain-directory")
}
