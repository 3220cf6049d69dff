package e2e

// How to test the console in a browser:
//
//	g := newConsole(t, "")               // a groupgate with people, groups, rules and events; "" may be more configuration
//	s := g.surf(t, wide)                 // a page in the Chromium of all tests; it ends, and is judged, with the test
//	s.signIn("/groups")                  // by the token's form; then on that page
//	s.click("text=Add a group")          // any selector of Playwright: CSS, text=..., role=button[name="..."]
//	s.fill("#name", "sailors")
//	s.click("dialog[open] .primary")
//	s.see("text=sailors")                // waits; so do expect, gone and at
//	got := s.read("tbody td:first-child")  // visible texts
//	s.look("groups")                     // axe and the layout at 1280 and 390 px, light and dark; pictures with GROUPGATE_SHOTS=DIR
//
// What the page writes to its console as a warning or an error, a breach of the
// Content-Security-Policy and a request to a stranger fail the test at its end.
// Answers of the API that refuse (4xx) are no such fault. A step that fails ends
// the test, with a picture of the page where GROUPGATE_SHOTS is set.
//
// One groupgate can serve many steps, and starting one with its people costs a
// second: walk through a flow in one test. g.user("alice") is an id, g.api a call with the token.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// consoleGate is a groupgate that somebody has worked with: alice (eng, ops,
// unknown-team), bob (eng) and carol (ops) have signed in at the provider "op",
// dora is a local user. "engineering" comes of a rule of the file, "operations"
// of one that was made ("ops"), "board" is manual and has alice, "empty" is
// manual and has nobody.
type consoleGate struct {
	*gate
	op *claimstest.OP
	up *upstream
}

// consoleRules stand in the configuration.
const consoleRules = `
rules:
  - {source: op, claim: groups, value: eng, group: engineering}
`

// newConsole starts it. rest is more of the configuration.
func newConsole(t *testing.T, rest string) *consoleGate {
	t.Helper()
	return newConsoleAt(t, newPlace(t), rest)
}

func newConsoleAt(t *testing.T, p place, rest string) *consoleGate {
	t.Helper()
	testenv(t) // before anything is started in vain
	c := &consoleGate{up: newUpstream(t), op: claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{
		person("alice", "eng", "ops", "unknown-team"), person("bob", "eng"), person("carol", "ops"),
	}})}
	p.write(t, c.up.URL, oidc("op", c.op.URL, opSecret)+localSource, consoleRules+rest)
	c.gate = p.start(t)
	c.made("POST", "/groups", map[string]any{"name": "operations", "description": "Who runs it"})
	c.made("POST", "/groups", map[string]any{"name": "board", "control": "manual"})
	c.made("POST", "/groups", map[string]any{"name": "empty", "control": "manual"})
	c.made("POST", "/rules", map[string]any{"source": "op", "claim": "groups", "value": "ops", "group": "operations"})
	c.made("POST", "/users", map[string]any{"user": "dora", "email": "dora@example.com", "name": "Dora Example", "password": dorasPassword})
	for _, name := range []string{"alice", "bob", "carol"} {
		c.enter(t, name)
	}
	c.made("PATCH", "/groups/engineering", map[string]any{"description": "Who builds it"})
	c.made("PUT", "/groups/board/members/"+c.user("alice"), nil)
	return c
}

// enter signs a person in at the provider, in a browser without scripts.
func (c *consoleGate) enter(t *testing.T, name string) *claimstest.Browser {
	t.Helper()
	b := newBrowser(t)
	if _, err := b.Login(c.url()+"/_auth/start?source=op", name); err != nil {
		t.Fatal(err)
	}
	return b
}

// made is a call of the API that has to go well.
func (c *consoleGate) made(method, path string, body any) {
	c.tb.Helper()
	if status := c.api(method, path, body, nil); status/100 != 2 {
		c.tb.Fatalf("%s %s: %d", method, path, status)
	}
}

// user is a person's id.
func (c *consoleGate) user(name string) string {
	c.tb.Helper()
	var found struct{ Items []struct{ ID, User string } }
	c.api("GET", "/users?query="+name, nil, &found)
	for _, u := range found.Items {
		if u.User == name {
			return u.ID
		}
	}
	c.tb.Fatalf("nobody is called %s: %+v", name, found)
	return ""
}

// adminURL is the address of the console on the admin listener.
func (c *consoleGate) adminURL() string { return "http://" + c.admin }

// The windows of most tests.
var (
	wide  = scenario{Width: 1280, Height: 800, Scheme: "light"}
	phone = scenario{Width: 390, Height: 844, Scheme: "light"}
)

// surfer is one page of Chromium, in a profile of its own.
type surfer struct {
	t     *testing.T
	base  string // in front of the paths that open takes
	shots string
	page  *tab
	size  [2]int
	after string // the colour scheme to go back to
}

// surf opens a page on the console of the admin listener.
func (c *consoleGate) surf(t *testing.T, how scenario) *surfer {
	t.Helper()
	return c.surfAt(t, c.adminURL(), how)
}

// surfAt opens a page; paths are below base.
func (c *consoleGate) surfAt(t *testing.T, base string, how scenario) *surfer {
	t.Helper()
	how.Pages, how.Own, how.Refusals = []string{c.adminURL(), c.url()}, []string{c.op.URL}, true
	s := &surfer{t: t, base: base, shots: os.Getenv("GROUPGATE_SHOTS"), size: [2]int{how.Width, how.Height}, after: how.Scheme}
	if s.shots != "" {
		must(t, os.MkdirAll(s.shots, 0o755))
	}
	s.page = newTab(t, how)
	t.Cleanup(func() {
		all := s.page.end()
		for _, line := range append(all.Console, all.Foreign...) {
			t.Errorf("in the browser: %s", line)
		}
	})
	return s
}

// do does one step of browser.mjs and reads its answer into value, unless nil.
func (s *surfer) do(st step, value any) {
	s.t.Helper()
	if err := s.try(st, value); err != "" {
		if s.shots != "" {
			_ = s.try(step{"shot": filepath.Join(s.shots, strings.ReplaceAll(s.t.Name(), "/", "-")+"-failed.png")}, nil)
		}
		s.t.Fatalf("%v: %s", st, err)
	}
}

// try is do for what may fail; it answers why.
func (s *surfer) try(st step, value any) string {
	s.t.Helper()
	said := s.page.do(st)
	if said.Error == "" && value != nil {
		must(s.t, json.Unmarshal(said.Value, value))
	}
	return said.Error
}

// signIn shows the token and goes on to a page.
func (s *surfer) signIn(path string) {
	s.t.Helper()
	s.open(path)
	s.at("/login")
	s.fill("#token", adminToken)
	s.click("main .primary")
	s.at(path)
	s.status(http.StatusOK)
}

// What a person does. A path is below the console's address; a whole address
// is one.
func (s *surfer) open(path string) {
	s.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = s.base + path
	}
	s.do(step{"goto": path}, nil)
}
func (s *surfer) click(selector string) { s.t.Helper(); s.do(step{"click": selector}, nil) }
func (s *surfer) fill(selector, text string) {
	s.t.Helper()
	s.do(step{"fill": selector, "value": text}, nil)
}
func (s *surfer) choose(selector, value string) {
	s.t.Helper()
	s.do(step{"choose": selector, "value": value}, nil)
}
func (s *surfer) upload(selector, file string) {
	s.t.Helper()
	s.do(step{"upload": selector, "file": file}, nil)
}

// download clicks, and answers the name and the content of the file that comes.
func (s *surfer) download(selector string) (name, content string) {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "file")
	s.do(step{"download": selector, "to": to}, &name)
	raw, err := os.ReadFile(to)
	must(s.t, err)
	return name, string(raw)
}

// With the keyboard: tab goes on until the selector has the focus, key presses
// one key ("Enter", "Escape", "ArrowDown") and waits for nothing.
func (s *surfer) tab(selector string) { s.t.Helper(); s.do(step{"tab": selector}, nil) }
func (s *surfer) typed(text string)   { s.t.Helper(); s.do(step{"type": text}, nil) }
func (s *surfer) key(name string)     { s.t.Helper(); s.do(step{"key": name}, nil) }

// What a person waits for: a visible text, something that is there or is not,
// a part of the address.
func (s *surfer) expect(text string)   { s.t.Helper(); s.do(step{"expect": text}, nil) }
func (s *surfer) see(selector string)  { s.t.Helper(); s.do(step{"see": selector}, nil) }
func (s *surfer) gone(selector string) { s.t.Helper(); s.do(step{"gone": selector}, nil) }
func (s *surfer) at(address string)    { s.t.Helper(); s.do(step{"url": address}, nil) }

// status is that of the page itself.
func (s *surfer) status(want int) { s.t.Helper(); s.do(step{"status": want}, nil) }

// What stands there: visible texts, the values of fields, attributes.
func (s *surfer) read(selector string) (texts []string) {
	s.t.Helper()
	s.do(step{"read": selector}, &texts)
	return texts
}
func (s *surfer) values(selector string) (values []string) {
	s.t.Helper()
	s.do(step{"values": selector}, &values)
	return values
}
func (s *surfer) attribute(name, selector string) (values []string) {
	s.t.Helper()
	s.do(step{"attribute": name, "of": selector}, &values)
	return values
}

// focus is what has the focus, and whether one sees that.
func (s *surfer) focus() (c control) {
	s.t.Helper()
	s.do(step{"focus": true}, &c)
	return c
}

// look judges the page that is open, dialogs and all, at 1280 and at 390 px, in
// the light and in the dark: axe-core finds nothing and is sure of it, nothing
// scrolls sideways. With GROUPGATE_SHOTS it leaves pictures NAME-WIDTH-SCHEME.png.
func (s *surfer) look(name string) {
	s.t.Helper()
	for _, size := range [][2]int{{1280, 800}, {390, 844}} {
		s.do(step{"size": size}, nil)
		for _, scheme := range []string{"light", "dark"} {
			// Each width and each scheme once is enough to judge by: colours do not
			// depend on the width. Pictures are made of all four.
			if (size[0] == 1280) != (scheme == "light") && s.shots == "" {
				continue
			}
			s.do(step{"scheme": scheme}, nil)
			s.judge(fmt.Sprintf("%s-%d-%s", name, size[0], scheme))
		}
	}
	s.do(step{"size": s.size}, nil)
	s.do(step{"scheme": s.after}, nil)
}

func (s *surfer) judge(name string) {
	s.t.Helper()
	if s.shots != "" {
		s.do(step{"shot": filepath.Join(s.shots, name+".png")}, nil)
	}
	var got struct {
		Measure sight
		Axe     verdict
	}
	s.do(step{"look": name}, &got)
	for _, broken := range append(got.Axe.Violations, got.Axe.Unsure...) {
		if strings.Contains(broken, "contains only non-text characters") {
			continue // an arrow is no text, and axe-core cannot say how well one sees it
		}
		s.t.Errorf("%s: %s", name, broken)
	}
	m := got.Measure
	if len(got.Axe.Passes) < 10 || m.Title == "" || m.Heading == "" || m.Styled != 1 || m.Lang == "" || !m.Viewport {
		s.t.Errorf("%s: %+v", name, got)
	}
	if m.ScrollWidth == 0 || m.ScrollWidth > m.ClientWidth {
		s.t.Errorf("%s: scrolls sideways: %d in %d, %q", name, m.ScrollWidth, m.ClientWidth, m.SticksOut)
	}
}

// The door of the admin listener: a wrong token, the right one, a page that is
// not there, and out again.
func TestConsoleByTheToken(t *testing.T) {
	t.Parallel()
	g := newConsole(t, "")
	s := g.surf(t, wide)
	s.open("/nowhere/at/all")
	s.status(http.StatusNotFound)
	s.look("door-nowhere")
	s.open("/login")
	s.look("door")
	s.typed("not the token") // the field has the focus
	s.key("Enter")
	s.expect("That is not the token.")
	s.status(http.StatusUnauthorized)
	s.look("door-wrong")
	s.fill("#token", adminToken)
	s.key("Enter")
	s.see("header.top")
	s.open("/nowhere/at/all")
	s.status(http.StatusNotFound)
	s.see("header.top")
	s.click(".who button")
	s.at("/login")
	s.gone("header.top")
	s.open("/groups")
	s.at("/login?next=%2Fgroups")
}
