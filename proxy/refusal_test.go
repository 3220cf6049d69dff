package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// eventsOf lists what the audit trail knows of a request, once it knows of it.
func eventsOf(t testing.TB, r *rig, request string) (list []groups.Event) {
	t.Helper()
	eventually(t, "an event of request "+request, 5*time.Second, func() bool {
		var err error
		list, err = r.store.Events(t.Context(), groups.EventQuery{Request: request, Limit: 100})
		return err != nil || len(list) > 0
	})
	return list
}

// idOf is the request id that an answer shows, on a page or in JSON.
func idOf(t testing.TB, what, body string) string {
	t.Helper()
	if m := requestID.FindStringSubmatch(body); m != nil {
		return m[1]
	}
	var said struct {
		ID string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.ID == "" {
		t.Fatalf("%s: no request id: %v: %s", what, err, body)
	}
	return said.ID
}

// Whatever is refused or not served, on a page or in JSON, the id it shows
// finds one event in the audit trail, within a second.
func TestRefusalsAreFoundByTheirID(t *testing.T) {
	t.Parallel()
	r := newRig(t, trustLoopback, func(r *rig) {
		r.settings.Routes = append(r.settings.Routes, proxy.RouteConfig{Path: "/dead/", Upstream: "http://127.0.0.1:1"})
	})
	bob := r.signIn("bob")
	for _, c := range []struct {
		what, method, target string
		edit                 func(*http.Request)
		status               int
		code, user           string
	}{
		{"a page of others", "GET", "/admin/", edits(page, signedIn(bob)), 403, "forbidden", "bob"},
		{"a script's", "POST", "/admin/", signedIn(bob), 403, "forbidden", "bob"},
		{"another site's socket", "GET", "/", edits(signedIn(bob), header("Connection", "Upgrade"), header("Upgrade", "websocket"), header("Origin", "https://evil.test")), 403, "cross_origin", "bob"},
		{"nothing there", "GET", "/_auth/nowhere", page, 404, "not_found", ""},
		{"nothing there, JSON", "GET", "/_auth/nowhere", nil, 404, "not_found", ""},
		{"another host", "GET", "/", edits(page, func(req *http.Request) { req.Host = "evil.test" }), 421, "misdirected", ""},
		{"another method", "DELETE", "/_auth/userinfo", nil, 405, "method_not_allowed", ""},
		{"two readings", "GET", "/a/%2e%2e%2f/b", page, 400, "bad_path", ""},
		{"twice", "GET", "/_auth/start?rd=a&rd=b", page, 400, "bad_request", ""},
		{"no source", "GET", "/_auth/start?source=none", page, 404, "unknown_source", ""},
		{"made up", "GET", "/_auth/callback/test?state=x&code=y", page, 400, "no_login", ""},
		{"down", "GET", "/dead/", edits(page, signedIn(bob)), 502, "upstream_unreachable", "bob"},
		{"forward-auth", "GET", "/_auth/auth", edits(signedIn(bob), header("X-Forwarded-Uri", "/admin/")), 403, "forbidden", "bob"},
		{"forward-auth, no route", "GET", "/_auth/auth", signedIn(bob), 403, "route_unknown", "bob"},
	} {
		res := r.do(c.method, c.target, c.edit)
		body := bodyOf(t, res)
		if res.StatusCode != c.status {
			t.Errorf("%s: %d: %s", c.what, res.StatusCode, body)
			continue
		}
		began := time.Now()
		got := eventsOf(t, r, idOf(t, c.what, body))
		kind := groups.EventRefused
		if c.status >= 500 {
			kind = groups.EventNotServed
		}
		if len(got) != 1 || got[0].Kind != kind || got[0].Reason != c.code || got[0].Name != c.user || (got[0].User != 0) != (c.user != "") {
			t.Errorf("%s: %+v", c.what, got)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: found after %v", c.what, took)
		}
	}
	// Nobody is refused who only has to sign in, and nobody who may.
	before := len(events(t, r, groups.EventRefused))
	for _, target := range []string{"/x", "/_auth/userinfo", "/_auth/auth"} {
		if res := r.do("GET", target, nil); res.StatusCode != 401 {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
	}
	if res := r.do("GET", "/", signedIn(bob)); res.StatusCode != 200 {
		t.Errorf("bob may: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/nowhere", nil); len(eventsOf(t, r, idOf(t, "the last", bodyOf(t, res)))) != 1 {
		t.Error("the last is not there")
	}
	if n := len(events(t, r, groups.EventRefused)); n != before+1 {
		t.Errorf("%d events more, want 1", n-before)
	}
}

// A login that fails has one event, there before the person is told, with the
// reason in the source's and our own words.
func TestFailedLoginHasOneEvent(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, r *rig, p *claimstest.Page, status int, reason string) {
		t.Helper()
		got, err := r.store.Events(t.Context(), groups.EventQuery{Request: idOf(t, "login", p.Body), Limit: 100})
		if err != nil || p.Status != status {
			t.Fatalf("%d, %v: %s", p.Status, err, p.Body)
		}
		if len(got) != 1 || got[0].Kind != groups.EventRefused || got[0].Source != "test" || !strings.Contains(got[0].Reason, reason) {
			t.Errorf("%+v", got)
		}
		// What is written in the background is there when this is.
		last := r.do("GET", "/_auth/nowhere", nil)
		eventsOf(t, r, idOf(t, "last", bodyOf(t, last)))
		if again, err := r.store.Events(t.Context(), groups.EventQuery{Request: got[0].Request, Limit: 100}); err != nil || len(again) != 1 {
			t.Errorf("%v: %+v", err, again)
		}
	}
	t.Run("by the source", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		b := r.browser()
		_, authorize := r.begin(b, "source=test")
		at := withQuery(t, r.answer(b, authorize, "alice"), func(v url.Values) { v.Del("code"); v.Set("error", "access_denied") })
		p, err := b.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, p, 403, "access_denied")
	})
	t.Run("by our own rules", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(r *rig) { r.groups.Sources[0].Require = claims.Require{EmailDomains: []string{"other.example"}} })
		check(t, r, r.login(r.browser(), "alice", "/"), 403, "")
	})
}

// A refusal does not wait for the store, and is not lost while it is down.
func TestRefusalWithTheStoreDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bob := r.signIn("bob")
	r.faults.down.Store(true)
	var ids []string
	for target, want := range map[string]int{"/_auth/nowhere": 404, "/": 503} {
		res := r.do("GET", target, signedIn(bob))
		if res.StatusCode != want {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
		ids = append(ids, idOf(t, target, bodyOf(t, res)))
	}
	r.faults.down.Store(false)
	for _, id := range ids {
		if got := eventsOf(t, r, id); len(got) != 1 {
			t.Errorf("%+v", got)
		}
	}
}

// SC-08: what a person is called, or asks for, does not forge a line of any log.
func TestLogLinesCannotBeForged(t *testing.T) {
	t.Parallel()
	hostile := "eve\r\n{\"kind\":\"forged\",\"msg\":\"forged\"}\x1b[2J\x1b[31m"
	r := newRig(t, func(r *rig) {
		p := person("alice", hostile)
		p.Claims["preferred_username"] = hostile
		r.op.SetPerson(p)
	})
	b := r.browser()
	p := r.login(b, "alice", "/admin/")
	if p.Status != 403 {
		t.Fatalf("%d: %s", p.Status, p.Body)
	}
	id := idOf(t, "refusal", p.Body)
	if got := eventsOf(t, r, id); len(got) != 1 || got[0].Name != hostile {
		t.Errorf("%+v", got)
	}
	r.do("GET", "/_auth/"+url.PathEscape(hostile)+"?"+url.QueryEscape(hostile), page)
	found := false
	for _, line := range strings.Split(strings.TrimSuffix(r.logs.String(), "\n"), "\n") {
		var e struct{ Msg, Kind, User, Request_ID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Msg == "forged" || e.Kind == "forged" {
			t.Errorf("a forged line: %v: %q", err, line)
		}
		if strings.ContainsAny(line, "\x1b\r") {
			t.Errorf("a line holds control characters: %q", line)
		}
		found = found || e.Kind == "refused" && e.User == hostile && e.Request_ID == id
	}
	if !found {
		t.Errorf("the refusal is not in the log: %s", r.logs)
	}
}

// Pages are in the language that the browser asks for, and say so; what
// scripts get stays English, and no cookie remembers anything.
func TestPagesSpeakTheBrowsersLanguage(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoSources)
	bob := r.signIn("bob")
	for accept, want := range map[string]struct{ tag, chooser, refused, missing, out string }{
		"":                    {"en", "Where do you have your account?", "No access to this page", "No such page", "You are signed out"},
		"de-AT,de;q=0.9":      {"de", "Wo haben Sie Ihr Konto?", "Kein Zugang zu dieser Seite", "Diese Seite gibt es nicht", "Sie sind abgemeldet"},
		"fr":                  {"fr", "Où se trouve votre compte\u202f?", "Pas d’accès à cette page", "Page introuvable", "Vous êtes déconnecté"},
		"es-MX,en;q=0.3":      {"es", "¿Dónde tiene su cuenta?", "Sin acceso a esta página", "Esta página no existe", "Ha cerrado la sesión"},
		"cs":                  {"cs", "Kde máte svůj účet?", "K této stránce nemáte přístup", "Stránka neexistuje", "Jste odhlášeni"},
		"xx,de;q=broken":      {"en", "Where do you have your account?", "No access to this page", "No such page", "You are signed out"},
		`de"><script>alert()`: {"en", "Where do you have your account?", "No access to this page", "No such page", "You are signed out"},
	} {
		speaks := header("Accept-Language", accept)
		for target, text := range map[string]string{
			"/_auth/sign_in": want.chooser, "/admin/": want.refused, "/_auth/nowhere": want.missing, "/_auth/sign_out": want.out,
		} {
			edit := edits(page, speaks)
			if target == "/admin/" {
				edit = edits(edit, signedIn(bob))
			}
			res := r.do("GET", target, edit)
			body := bodyOf(t, res)
			if !strings.Contains(body, `<html lang="`+want.tag+`">`) || !strings.Contains(body, text) || strings.Contains(body, "<script") {
				t.Errorf("%q, %s: %s", accept, target, body)
			}
			if got := res.Header.Get("Content-Language"); got != want.tag {
				t.Errorf("%q, %s: Content-Language %q", accept, target, got)
			}
			if got := res.Header.Get("Vary"); got != "Accept, Accept-Language, Sec-Fetch-Mode" {
				t.Errorf("%q, %s: Vary %q", accept, target, got)
			}
			for _, c := range res.Cookies() {
				if c.MaxAge >= 0 {
					t.Errorf("%q, %s: sets %s", accept, target, c)
				}
			}
			if head := r.do("HEAD", target, edit); head.Header.Get("Content-Language") != want.tag || bodyOf(t, head) != "" {
				t.Errorf("%q, %s: HEAD %v", accept, target, head.Header)
			}
		}
		res := r.do("GET", "/_auth/nowhere", speaks)
		if body := bodyOf(t, res); !strings.Contains(body, `"message":"There is nothing at this address."`) || res.Header.Get("Content-Language") != "" {
			t.Errorf("%q: a script gets %v %s", accept, res.Header, body)
		}
	}
}

// SC-05: the 403 page says in every language who the person is and what the
// route wants; names of groups and people are text.
func TestNamesOnPagesAreText(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		p := person("alice", `<script>alert("group")</script>`)
		p.Claims["preferred_username"] = `<img src=x onerror="alert(1)">`
		r.op.SetPerson(p)
		r.settings.Routes[1].Groups = []string{`<u>wanted</u>`}
	})
	alice := r.signIn("alice")
	button := regexp.MustCompile(`<a class="button" href="/_auth/sign_out">([^<]+)</a>`)
	said := map[string]bool{}
	for _, lang := range []string{"en", "de", "fr", "es", "cs"} {
		res := r.do("GET", "/admin/", edits(page, signedIn(alice), header("Accept-Language", lang)))
		body := bodyOf(t, res)
		for _, bad := range []string{"<script", "<img", "<u>"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page holds %s", lang, bad)
			}
		}
		for _, want := range []string{"&lt;script&gt;", "&lt;img", "&lt;u&gt;wanted", "alice@example.com", "Test account"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page lacks %s", lang, want)
			}
		}
		m := button.FindStringSubmatch(body)
		if m == nil || said[m[1]] {
			t.Errorf("%s: sign-out is %q", lang, m)
			continue
		}
		said[m[1]] = true
	}
}
