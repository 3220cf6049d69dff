package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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
	Locale  string   `json:"locale,omitempty"`
	Timeout int      `json:"timeout,omitempty"` // of one step, milliseconds
	Pages   []string `json:"pages"`
	Own     []string `json:"own"`
	Steps   []step   `json:"steps"`

	Refusals bool `json:"refusals,omitempty"` // of the API are meant, and no fault
}

type sight struct {
	Title, Heading, Background string
	ScrollWidth                int      `json:"scroll_width"`
	ClientWidth                int      `json:"client_width"`
	SticksOut                  []string `json:"sticks_out"`
	Styled                     int
	Lang, Request              string
	Viewport                   bool
	Controls                   int
	Split, Moves               []string // what must be on one line and is not; what is animated
}

// verdict is what axe-core says about a page: the rules it breaks, those that
// axe cannot decide, and those it keeps.
type verdict struct{ Violations, Unsure, Passes []string }

// control is something that Tab reached.
type control struct {
	Text, Address string
	Outline       float64
	Inside        bool
}

type seen struct {
	Measures map[string]sight
	Axe      map[string]verdict
	Tabs     map[string][]control
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
	return *newTab(t, s).answer().Seen
}

// stage is a groupgate with three sources, one real, one that only stands on
// the chooser and one that is gone; a route that only admins may use, and one
// whose application is gone.
func stage(t *testing.T) (g *gate, issuer string) {
	t.Helper()
	up := newUpstream(t)
	p := newPlace(t)
	issuer = realProvider(t, p, "real", nil)
	other := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
	p.write(t, up.URL, oidc("real", issuer, realSecret)+oidc("partner", other.URL, opSecret)+oidc("gone", "http://127.0.0.1:1", opSecret), everyValue+`
headers: {max_bytes: 65536}
routes:
  - {path: /page/admin/, groups: [admins, board, "a-group-whose-name-goes-on-and-on-and-on-without-a-single-blank-in-it"]}
  - {path: /dead/, upstream: "http://127.0.0.1:1"}
`)
	return p.start(t), issuer
}

// login is what a person does at the real provider's pages.
func login(person string) []step {
	return []step{
		{"fill": "input[name=login]", "value": person}, {"fill": "input[name=password]", "value": "any"},
		{"click": "button[type=submit]"}, {"click": "button[type=submit]"}, // the second gives consent
	}
}

// languages are the pages', each with a locale and what the chooser's heading
// says in it.
var languages = []struct{ tag, locale, heading string }{
	{"en", "en-GB", "Sign in"}, {"de", "de-DE", "Anmelden"}, {"fr", "fr-FR", "Connexion"}, {"es", "es-MX", "Iniciar sesión"}, {"cs", "cs-CZ", "Přihlášení"},
}

// views are what each page is looked at in. 640 by 400 is a window of 1280 by
// 800 at 200 % (WCAG 2.2, 1.4.10).
var views = []struct {
	name  string
	size  [2]int
	whole bool
}{{"1280", [2]int{1280, 800}, true}, {"390", [2]int{390, 844}, true}, {"640", [2]int{640, 400}, false}, {"320", [2]int{320, 640}, false}}

// axeLooks picks what axe-core goes over: each width and each scheme once.
// Neither words nor widths change colours.
func axeLooks(view, scheme string) bool {
	return view == "1280" && scheme == "light" || view == "390" && scheme == "dark"
}

// inEveryView says whether a language is looked at in every view. Others than
// English differ in their words alone, and are looked at where there is little
// room for them, unless pictures are wanted.
func inEveryView(lang string) bool { return lang == "en" || os.Getenv("GROUPGATE_SHOTS") != "" }

// axes is how often axe-core goes over a page.
func axes(lang string) int {
	if inEveryView(lang) {
		return 2
	}
	return 1
}

// everyView looks at the page that is open.
func everyView(page, lang, shots string) (steps []step) {
	if !inEveryView(lang) {
		return append(steps, step{"size": views[3].size}, step{"scheme": "light"}, step{"measure": page + "-320-light"},
			step{"size": views[1].size}, step{"measure": page + "-390-light"}, step{"axe": page + "-390-light"},
			step{"text": "200%"}, step{"measure": page + "-large-text"}, step{"size": views[0].size})
	}
	for _, v := range views {
		steps = append(steps, step{"size": v.size})
		for _, scheme := range []string{"light", "dark"} {
			name := page + "-" + v.name + "-" + scheme
			steps = append(steps, step{"scheme": scheme}, step{"measure": name})
			if axeLooks(v.name, scheme) {
				steps = append(steps, step{"axe": name})
			}
			if v.whole && shots != "" {
				steps = append(steps, step{"shot": filepath.Join(shots, lang+"-"+name+".png")})
			}
		}
	}
	// Text alone at twice its size, on the phone too (1.4.4).
	return append(steps, step{"text": "200%"}, step{"measure": page + "-large-text"}, step{"size": views[0].size}, step{"measure": page + "-large-text-wide"})
}

// Every page, in the light and in the dark, wide, narrow and enlarged, and in
// every language: it fits, it holds every rule that axe-core knows, and nothing
// moves.
func TestChromiumWalksThroughEveryPage(t *testing.T) {
	t.Parallel()
	shots := os.Getenv("GROUPGATE_SHOTS") // a folder for pictures; none when empty
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g, issuer := stage(t)
	for _, l := range languages {
		t.Run(l.tag, func(t *testing.T) {
			names := []string{"chooser", "denied"}
			steps := []step{{"goto": g.url() + "/page/home?a=b"}, {"expect": "Partner account"}, {"status": 200}}
			steps = append(steps, everyView("chooser", l.tag, shots)...)
			steps = append(steps, step{"goto": g.url() + "/_auth/start?source=real"}, step{"click": "a[href$='/abort']"}, step{"status": 403})
			steps = append(steps, everyView("denied", l.tag, shots)...)
			steps = append(steps, step{"goto": g.url() + "/_auth/start?source=real&rd=/page/home?a=b"})
			steps = append(steps, login("bob")...)
			steps = append(steps, step{"url": "/page/home?a=b"}, step{"expect": "groups: engineering"})
			for _, p := range []struct {
				name, target string
				status       int
			}{
				{"forbidden", "/page/admin/", 403}, {"no_login", "/_auth/callback/real?state=made-up&code=x", 400},
				{"not_found", "/_auth/nowhere", 404}, {"unknown_source", "/_auth/start?source=none", 404}, {"bad_request", "/_auth/start?rd=a&rd=b", 400},
				{"bad_path", "/a/%2e%2e%2f/b", 400}, {"upstream_unreachable", "/dead/", 502}, {"source_unavailable", "/_auth/start?source=gone", 503},
			} {
				names = append(names, p.name)
				steps = append(steps, step{"goto": g.url() + p.target}, step{"status": p.status})
				steps = append(steps, everyView(p.name, l.tag, shots)...)
			}
			steps = append(steps, step{"goto": g.url() + "/page/admin/"}, step{"click": "a.button"}, step{"url": issuer},
				step{"click": "button[name=logout]"}, step{"url": g.url()}, step{"status": 200})
			names = append(names, "signed-out")
			steps = append(steps, everyView("signed-out", l.tag, shots)...)
			steps = append(steps, step{"click": "a.button"}, step{"expect": "Partner account"})

			all := drive(t, scenario{Width: 1280, Height: 800, Scheme: "light", Locale: l.locale, Pages: []string{g.url()}, Own: []string{issuer}, Steps: steps})
			if got := all.Measures["chooser-390-light"].Heading; got != l.heading {
				t.Errorf("the chooser says %q", got)
			}
			checkWalk(t, g, l.tag, names, all)
		})
	}
}

func checkWalk(t *testing.T, g *gate, lang string, names []string, all seen) {
	t.Helper()
	backgrounds := map[string]bool{}
	for name, m := range all.Measures {
		checkPage(t, name, lang, m)
		if !strings.Contains(name, "large") {
			backgrounds[name[strings.LastIndex(name, "-"):]+m.Background] = true
		}
	}
	if inEveryView(lang) && len(backgrounds) != 2 {
		t.Errorf("every page has one background in the light and another in the dark: %v", backgrounds)
	}
	if want := axes(lang) * len(names); len(all.Axe) != want {
		t.Errorf("axe looked at %d, want %d", len(all.Axe), want)
	}
	for name, v := range all.Axe {
		for _, broken := range append(v.Violations, v.Unsure...) {
			t.Errorf("%s: %s", name, broken)
		}
		for _, rule := range []string{"color-contrast", "html-has-lang", "link-name", "region", "landmark-one-main", "page-has-heading-one", "target-size"} {
			if !slices.Contains(v.Passes, rule) {
				t.Errorf("%s: axe did not see that the page keeps %s: %q", name, rule, v.Passes)
			}
		}
	}
	for _, name := range names {
		if name == "chooser" || name == "signed-out" {
			continue
		}
		// The id on the page is one that an administrator can look for.
		id := all.Measures[name+"-390-light"].Request
		var found struct {
			Items []struct{ Kind, Request, Reason, User string }
		}
		g.eventually("found by its request id", func() bool {
			return g.api("GET", "/events?request="+id, nil, &found) == http.StatusOK && len(found.Items) > 0
		})
		if e := found.Items[0]; id == "" || len(found.Items) != 1 || e.Request != id || name != "denied" && e.Reason != name {
			t.Errorf("%s: %q finds %+v", name, id, found.Items)
		}
	}
}

func checkPage(t *testing.T, name, lang string, m sight) {
	t.Helper()
	if m.ScrollWidth == 0 || m.ScrollWidth > m.ClientWidth || len(m.SticksOut) > 0 {
		t.Errorf("%s: scrolls sideways: %d in %d, %q", name, m.ScrollWidth, m.ClientWidth, m.SticksOut)
	}
	if m.Title == "" || m.Heading == "" || m.Title != m.Heading || m.Lang != lang || !m.Viewport || m.Styled != 1 || len(m.Moves)+len(m.Split) > 0 {
		t.Errorf("%s: %+v", name, m)
	}
}

// With the keyboard alone: Tab reaches every control in the order in which it
// is read, one sees where one is, and Enter does what a click does.
func TestChromiumByKeyboard(t *testing.T) {
	t.Parallel()
	g, issuer := stage(t)
	steps := []step{{"goto": g.url() + "/page/admin/"}, {"measure": "chooser"}, {"tabs": "chooser"},
		{"tab": "a[href*='source=real']"}, {"press": "Enter"}, {"url": issuer}}
	steps = append(steps, login("bob")...)
	steps = append(steps, step{"url": "/page/admin/"}, step{"status": 403}, step{"measure": "forbidden"}, step{"tabs": "forbidden"},
		step{"goto": g.url() + "/_auth/callback/real?state=made-up&code=x"}, step{"measure": "no_login"}, step{"tabs": "no_login"},
		step{"tab": "a.button"}, step{"press": "Enter"}, step{"url": "/_auth/sign_in"},
		step{"goto": g.url() + "/_auth/nowhere"}, step{"tab": "a[href='/']"}, step{"press": "Enter"}, step{"expect": "X-Forwarded-User"},
		step{"goto": g.url() + "/dead/?x=1"}, step{"measure": "dead"}, step{"tabs": "dead"},
		step{"tab": "a.button"}, step{"press": "Enter"}, step{"url": "/dead/?x=1"}, step{"status": 502},
		step{"goto": g.url() + "/page/admin/"}, step{"tab": "a.button"}, step{"press": "Enter"}, step{"url": issuer}, step{"click": "button[name=logout]"},
		step{"url": g.url()}, step{"measure": "signed-out"}, step{"tabs": "signed-out"},
		step{"tab": "a.button"}, step{"press": "Enter"}, step{"url": "/_auth/sign_in"}, step{"expect": "Partner account"})
	for _, scheme := range []string{"light", "dark"} {
		all := drive(t, scenario{Width: 390, Height: 844, Scheme: scheme, Pages: []string{g.url()}, Own: []string{issuer}, Steps: steps})
		for name, want := range map[string][]string{
			"chooser": {"Real account", "Partner account", "Gone account"}, "forbidden": {"Sign out", "Go to the start page"},
			"no_login": {"Sign in", "Go to the start page"}, "dead": {"Try again", "Go to the start page"}, "signed-out": {"Sign in again"},
		} {
			reached := all.Tabs[name]
			if len(reached) != len(want) || all.Measures[name].Controls != len(want) {
				t.Errorf("%s: Tab reaches %+v of %d", name, reached, all.Measures[name].Controls)
				continue
			}
			for i, c := range reached {
				if !strings.HasPrefix(c.Text, want[i]) || c.Outline < 2 || !c.Inside {
					t.Errorf("%s: %+v, want %s", name, c, want[i])
				}
			}
		}
	}
}

// A refusal of somebody who is in 2,000 groups fits a phone too.
func TestChromiumShowsALongRefusalOnAPhone(t *testing.T) {
	t.Parallel()
	g, issuer := stage(t)
	steps := []step{{"goto": g.url() + "/_auth/start?source=real&rd=/page/admin/"}}
	steps = append(steps, login("many")...)
	steps = append(steps, step{"url": "/page/admin/"}, step{"status": 403}, step{"expect": "In all: 2000"}, step{"measure": "refusal"})
	all := drive(t, scenario{Width: 320, Height: 640, Scheme: "light", Pages: []string{g.url()}, Own: []string{issuer}, Steps: steps})
	checkPage(t, "refusal", "en", all.Measures["refusal"])
}

// What drive would complain about has to reach it: the driver can see.
func TestChromiumSeesFaults(t *testing.T) {
	t.Parallel()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src *")
		fmt.Fprint(w, `<h1>Bad</h1><div style="width:900px">wide</div><a href="/x"></a><a href="/y">y</a><script>alert(1)</script><img src="http://stranger.test/x.png">`)
	}))
	t.Cleanup(bad.Close)
	all := look(t, scenario{Width: 390, Height: 800, Scheme: "light", Timeout: 500, Pages: []string{bad.URL}, Steps: []step{
		{"goto": bad.URL}, {"axe": "bad"}, {"tabs": "bad"}, {"expect": "no such text"},
	}})
	if !strings.Contains(all.Error, "Timeout") {
		t.Errorf("a missing text is no failure: %q", all.Error)
	}
	if v := strings.Join(all.Axe["bad"].Violations, "\n"); !strings.Contains(v, "link-name") || !strings.Contains(v, "html-has-lang") || !strings.Contains(v, "landmark-one-main") {
		t.Errorf("axe does not see: %s", v)
	}
	if len(all.Tabs["bad"]) != 2 {
		t.Errorf("Tab reaches %+v", all.Tabs["bad"])
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
