package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// step and sight are what browser.mjs takes and gives.
type step map[string]any

type scenario struct {
	Width   int      `json:"width"`
	Height  int      `json:"height"`
	Scheme  string   `json:"scheme"`
	Timeout int      `json:"timeout,omitempty"` // of one step, milliseconds
	Pages   []string `json:"pages"`
	Own     []string `json:"own"`
	Steps   []step   `json:"steps"`
}

type sight struct {
	Title, Heading, Background string
	ScrollWidth                int      `json:"scroll_width"`
	ClientWidth                int      `json:"client_width"`
	SticksOut                  []string `json:"sticks_out"`
	Styled                     int
	Lang                       string
	Viewport                   bool
}

type seen struct {
	Measures map[string]sight
	Console  []string
	Foreign  []string
	Error    string
}

// drive runs a scenario in Chromium. A step that fails, a word on the console
// and a request to a stranger fail the test.
func drive(t *testing.T, s scenario) seen {
	t.Helper()
	all := look(t, s)
	if all.Error != "" {
		t.Fatal(all.Error)
	}
	for _, line := range all.Console {
		t.Errorf("console: %s", line)
	}
	for _, url := range all.Foreign {
		t.Errorf("asked a stranger: %s", url)
	}
	return all
}

// look runs a scenario and answers what was seen.
func look(t *testing.T, s scenario) seen {
	t.Helper()
	in, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "browser.mjs")
	cmd.Dir = testenv(t)
	cmd.Stdin = bytes.NewReader(in)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("browser: %v\n%s", err, faults.String())
	}
	var all seen
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return all
}

// stage is a groupgate with two sources, one of them real, and a route that
// only admins may use.
func stage(t *testing.T) (g *gate, issuer string) {
	t.Helper()
	up := newUpstream(t)
	p := newPlace(t)
	issuer = realProvider(t, p, "real", nil)
	other := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
	p.write(t, up.URL, oidc("real", issuer, realSecret)+oidc("partner", other.URL, opSecret), everyValue+
		"headers: {max_bytes: 65536}\nroutes: [{path: /page/admin/, groups: [admins, board]}]\n")
	return p.start(t), issuer
}

// login is what a person does at the real provider's pages.
func login(person string) []step {
	return []step{
		{"fill": "input[name=login]", "value": person}, {"fill": "input[name=password]", "value": "any"},
		{"click": "button[type=submit]"}, {"click": "button[type=submit]"}, // the second gives consent
	}
}

func TestChromiumWalksThroughEveryPage(t *testing.T) {
	t.Parallel()
	shots := os.Getenv("GROUPGATE_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	} else if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	g, issuer := stage(t)
	backgrounds := map[string]bool{}
	for _, width := range []int{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			shot := func(name string) step {
				return step{"shot": filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", name, width, scheme))}
			}
			keep := func(name string) []step { return []step{{"measure": name}, shot(name)} }
			steps := []step{{"goto": g.url() + "/page/home?a=b"}, {"expect": "Partner account"}, {"status": 200}}
			steps = append(steps, keep("chooser")...)
			steps = append(steps, step{"click": "text=Real account"})
			steps = append(steps, login("bob")...)
			steps = append(steps, step{"url": "/page/home?a=b"}, step{"expect": "groups: engineering"},
				step{"goto": g.url() + "/page/admin/"}, step{"status": 403}, step{"expect": "bob@example.com"}, step{"expect": "board"})
			steps = append(steps, keep("forbidden")...)
			steps = append(steps, step{"goto": g.url() + "/_auth/callback/real?state=made-up&code=x"}, step{"status": 400})
			steps = append(steps, keep("error")...)
			steps = append(steps, step{"goto": g.url() + "/page/admin/"}, step{"click": "text=Sign out"}, step{"url": issuer},
				step{"click": "button[name=logout]"}, step{"url": g.url()}, step{"expect": "You are signed out"})
			steps = append(steps, keep("signed-out")...)
			steps = append(steps, step{"click": "text=Sign in again"}, step{"expect": "Partner account"})

			all := drive(t, scenario{Width: width, Height: 800, Scheme: scheme, Pages: []string{g.url()}, Own: []string{issuer}, Steps: steps})
			for _, name := range []string{"chooser", "forbidden", "error", "signed-out"} {
				checkPage(t, fmt.Sprintf("%s at %d, %s", name, width, scheme), all.Measures[name])
				backgrounds[scheme+all.Measures[name].Background] = true
			}
		}
	}
	if len(backgrounds) != 2 {
		t.Errorf("every page has one background in the light and another in the dark: %v", backgrounds)
	}
}

func checkPage(t *testing.T, name string, m sight) {
	t.Helper()
	if m.ScrollWidth == 0 || m.ScrollWidth > m.ClientWidth || len(m.SticksOut) > 0 {
		t.Errorf("%s: scrolls sideways: %d in %d, %q", name, m.ScrollWidth, m.ClientWidth, m.SticksOut)
	}
	if m.Title == "" || m.Heading == "" || m.Lang != "en" || !m.Viewport || m.Styled != 1 {
		t.Errorf("%s: %+v", name, m)
	}
}

// A refusal of somebody who is in 2,000 groups fits a phone too.
func TestChromiumShowsALongRefusalOnAPhone(t *testing.T) {
	t.Parallel()
	g, issuer := stage(t)
	steps := []step{{"goto": g.url() + "/_auth/start?source=real&rd=/page/admin/"}}
	steps = append(steps, login("many")...)
	steps = append(steps, step{"url": "/page/admin/"}, step{"status": 403}, step{"expect": "2000 in all"}, step{"measure": "refusal"})
	all := drive(t, scenario{Width: 320, Height: 640, Scheme: "light", Pages: []string{g.url()}, Own: []string{issuer}, Steps: steps})
	checkPage(t, "refusal", all.Measures["refusal"])
}

// What drive would complain about has to reach it: the driver can see.
func TestChromiumSeesFaults(t *testing.T) {
	t.Parallel()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src *")
		fmt.Fprint(w, `<h1>Bad</h1><div style="width:900px">wide</div><script>alert(1)</script><img src="http://stranger.test/x.png">`)
	}))
	t.Cleanup(bad.Close)
	all := look(t, scenario{Width: 390, Height: 800, Scheme: "light", Timeout: 500, Pages: []string{bad.URL}, Steps: []step{
		{"goto": bad.URL}, {"measure": "bad"}, {"expect": "no such text"},
	}})
	if !strings.Contains(all.Error, "Timeout") {
		t.Errorf("a missing text is no failure: %q", all.Error)
	}
	if len(all.Foreign) != 1 || !strings.Contains(all.Foreign[0], "stranger.test") {
		t.Errorf("a request to a stranger is not seen: %q", all.Foreign)
	}
	if len(all.Console) == 0 || !strings.Contains(strings.Join(all.Console, "\n"), "Content Security Policy") {
		t.Errorf("a breach of the policy is not seen: %q", all.Console)
	}
	// The policy forbids the style attribute; a long word is wide all the same.
	wide := look(t, scenario{Width: 390, Height: 800, Scheme: "light", Pages: []string{"null"}, Steps: []step{
		{"goto": "data:text/html,<h1>" + strings.Repeat("w", 200)}, {"measure": "wide"},
	}}).Measures["wide"]
	if wide.ScrollWidth <= wide.ClientWidth {
		t.Errorf("a page that is too wide is not seen: %+v", wide)
	}
}
