package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
)

// Contract section 4, and CK-12: who one is and why, and never a token.
func TestUserinfo(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		r.groups.Rules = []groups.Rule{
			{ID: "all", Source: "test", Claim: "groups", Any: true},
			{ID: "eng2", Source: "test", Claim: "groups", Value: "engineering", Group: "engineering"},
		}
		r.groups.Groups = []groups.GroupConfig{{Name: "board", Control: groups.Manual}}
	})
	cookie := r.signIn("alice")
	u, err := r.store.UserByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.dir.AddMember(t.Context(), "board", u.ID, "an administrator"); err != nil {
		t.Fatal(err)
	}
	res := r.do("GET", "/_auth/userinfo", signedIn(cookie))
	safeHeaders(t, "userinfo", res.Header)
	body := bodyOf(t, res)
	var got struct {
		Source, Subject, User, Email, Name string
		Groups                             []struct {
			Name string
			Why  []struct{ Source, Rule, Claim, Value string }
		}
		Expires time.Time `json:"expires_at"`
	}
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if got.Source != "test" || got.Subject != "alice" || got.User != "alice" || got.Email != "alice@example.com" || got.Name != "Alice Example" {
		t.Errorf("who: %s", body)
	}
	if d := time.Until(got.Expires); d > 12*time.Hour || d < 11*time.Hour {
		t.Errorf("expires in %v", d)
	}
	var names []string
	for _, g := range got.Groups {
		names = append(names, g.Name)
		switch {
		case g.Name == "engineering" && len(g.Why) != 2, g.Name == "admins" && (len(g.Why) != 1 || g.Why[0].Rule != "all" || g.Why[0].Value != "admins"),
			g.Name == "board" && (len(g.Why) != 1 || g.Why[0].Source != "manual"):
			t.Errorf("why %s: %+v", g.Name, g.Why)
		}
	}
	equal(t, "groups", names, []string{"admins", "board", "engineering"})
	for _, secret := range []string{"eyJ", value(cookie), "token", "refresh"} {
		if strings.Contains(body, secret) {
			t.Errorf("userinfo says %q", secret)
		}
	}
	for what, edit := range map[string]func(*http.Request){"nobody": nil, "nobody's browser": page} {
		if res := r.do("GET", "/_auth/userinfo", edit); res.StatusCode != 401 || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", what, res.StatusCode, res.Header.Get("Content-Type"))
		}
	}
}

// Sign-out ends the session here and at the source, and comes back.
func TestSignOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rd, end string }{
		{"", ""}, {"/", "/"}, {"/public/bye?x=1", "/public/bye?x=1"}, {"https://evil.example/", ""}, {"//evil.example", ""},
	} {
		t.Run(c.rd, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			b := r.browser()
			r.login(b, "alice", "/")
			old := r.cookie(b)
			res := hop(t, b, r.server.URL+"/_auth/sign_out?rd="+url.QueryEscape(c.rd))
			at := res.Header.Get("Location")
			u, err := url.Parse(at)
			if err != nil || res.StatusCode != 303 || !strings.HasPrefix(at, r.op.URL+"/end_session?") {
				t.Fatalf("%d to %q", res.StatusCode, at)
			}
			q := u.Query()
			if q.Get("client_id") != "portal" || !strings.HasPrefix(q.Get("id_token_hint"), "eyJ") || q.Get("post_logout_redirect_uri") != r.server.URL+"/_auth/sign_out" {
				t.Errorf("the provider is told %v", q)
			}
			if dropped := setCookies(res.Header)["__Host-groupgate"]; dropped == nil || dropped.MaxAge >= 0 || dropped.Value != "" {
				t.Errorf("the cookie stays: %v", dropped)
			}
			if res := r.do("GET", "/", signedIn(old)); res.StatusCode != 401 { // CK-07
				t.Errorf("the old cookie: %d", res.StatusCode)
			}
			if len(events(t, r, groups.EventSignOut)) != 1 {
				t.Error("the audit trail does not know")
			}
			back := hop(t, b, at).Header.Get("Location")
			end := hop(t, b, back)
			if c.end == "" && end.StatusCode != 200 || c.end != "" && (end.StatusCode != 303 || end.Header.Get("Location") != c.end) {
				t.Errorf("ended with %d at %q", end.StatusCode, end.Header.Get("Location"))
			}
		})
	}
}

// RD-07: the state that comes back from a provider is ours or nothing.
func TestSignOutStateIsSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	login, _ := r.begin(b, "rd=/x")
	for _, state := range []string{"https://evil.example/", "aHR0cHM6Ly9ldmlsLmV4YW1wbGUv", login, strings.Repeat("A", 100)} {
		res := r.do("GET", "/_auth/sign_out?state="+url.QueryEscape(state), page)
		if res.StatusCode != 200 || res.Header.Get("Location") != "" {
			t.Errorf("%.20q: %d to %q", state, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

// With the store down nobody is told that they are signed out.
func TestSignOutWithTheStoreDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.faults.down.Store(true)
	if res := r.do("GET", "/_auth/sign_out", edits(page, signedIn(cookie))); res.StatusCode != 503 || len(res.Cookies()) != 0 {
		t.Errorf("%d, cookies %v", res.StatusCode, res.Cookies())
	}
	r.faults.down.Store(false)
	if res := r.do("GET", "/_auth/sign_out", edits(page, signedIn(cookie))); res.StatusCode != 303 {
		t.Errorf("after: %d", res.StatusCode)
	}
}

// SC-07, RD-09: no secret, code or state stands in a log line, on a page or
// in a span, over every flow that fails, at debug level.
func TestNoSecretIsSaid(t *testing.T) {
	t.Parallel()
	c := &collector{}
	r := newRig(t, withSigner, portals, tracing(c))
	b := r.browser()
	var said strings.Builder
	note := func(res *http.Response) *http.Response {
		said.WriteString(bodyOf(t, res))
		return res
	}
	state, authorize := r.begin(b, "rd=/x")
	at := r.answer(b, authorize, "alice")
	u, _ := url.Parse(at)
	secrets := map[string]string{"client secret": "secret-of-the-client", "session key": string(r.settings.Keys[0]), "state": state, "code": u.Query().Get("code")}
	for _, c := range b.Cookies(r.server.URL + "/") {
		_, id, _ := strings.Cut(c.Value, ".")
		secrets["login cookie"] = id
	}
	path := strings.TrimPrefix(at, r.server.URL)
	note(r.do("GET", path, page)) // no cookie
	note(r.do("GET", path+"&state=x", page))
	note(r.do("GET", strings.Replace(path, "/test", "/other", 1), page))
	r.op.Lie(func(k *claimstest.Knobs) { k.Alg = "garbled" })
	note(r.do("GET", path, edits(page, signedIn(r.cookie(b)))))
	r.op.Honest()
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) {
			for _, name := range []string{"id_token", "access_token", "refresh_token"} {
				if v, ok := answer[name].(string); ok {
					secrets[name] = v
				}
			}
		}
	})
	good := r.browser()
	ticket := r.ticket(good, "eng.localhost", "/", "alice")
	_, code, _ := strings.Cut(ticket, "code=")
	secrets["handover"] = code
	note(r.do("GET", "/_auth/handover?code="+code, edits(page, r.onHost("eng.localhost"))))
	cookie := r.cookie(good)
	secrets["session cookie"] = value(cookie)
	note(r.do("GET", "/admin/x", signedIn(cookie)))
	secrets["assertion"] = r.up.last(t).Header.Get("X-Groupgate-Assertion")
	note(r.do("GET", "/", signedIn(cookie+"; "+r.signIn("bob"))))
	r.up.answer(func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	note(r.do("GET", "/", signedIn(cookie)))
	r.op.Lie(func(k *claimstest.Knobs) {
		k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	})
	r.clock.advance(6 * time.Minute)
	note(r.do("GET", "/", signedIn(cookie)))
	r.clock.advance(time.Minute)
	r.op.Lie(func(k *claimstest.Knobs) { k.TokenHandler = nil })
	r.op.RevokeRefresh()
	note(r.do("GET", "/", signedIn(cookie)))
	r.faults.down.Store(true)
	note(r.do("GET", "/", signedIn(cookie)))
	for _, word := range []string{"GET own:/callback/SOURCE", "no_login", "grant_ended", "source_unavailable", "upstream_unreachable", "store_unavailable"} {
		eventually(t, "a span of "+word, 5*time.Second, func() bool { return strings.Contains(c.all(), word) })
	}
	logs, spans := r.logs.String(), c.all()
	for _, word := range []string{"no_login", "no session", "the source did not renew", "claims not renewed", "store_unavailable", "upstream_unreachable"} {
		if !strings.Contains(logs, word) {
			t.Errorf("the flow of %q did not happen", word)
		}
	}
	for what, secret := range secrets {
		if len(secret) < 8 {
			t.Fatalf("no %s was planted", what)
		}
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds the %s", what)
		}
		if strings.Contains(spans, secret) {
			t.Errorf("a span holds the %s", what)
		}
		if strings.Contains(said.String(), secret) {
			t.Errorf("a page holds the %s", what)
		}
	}
	for _, name := range []string{"id_token", "access_token", "refresh_token"} {
		if secrets[name] == "" {
			t.Errorf("no %s was planted", name)
		}
	}
}

// TestTheWayBackFromTheSourceEndsNothing: a session begun meanwhile in another
// tab is not the one that was signed out.
func TestTheWayBackFromTheSourceEndsNothing(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	r.login(b, "alice", "/")
	res := r.do("GET", "/_auth/sign_out?rd=/bye", func(req *http.Request) { signedIn(r.cookie(b))(req); page(req) })
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusSeeOther || to.Query().Get("state") == "" {
		t.Fatalf("sign-out: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	again := r.browser()
	r.login(again, "alice", "/")
	res = r.do("GET", "/_auth/sign_out?state="+url.QueryEscape(to.Query().Get("state")), func(req *http.Request) { signedIn(r.cookie(again))(req); page(req) })
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/bye" {
		t.Errorf("the way back: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	if res := r.do("GET", "/", signedIn(r.cookie(again))); res.StatusCode != http.StatusOK {
		t.Errorf("the new session: %d", res.StatusCode)
	}
	if res := r.do("GET", "/", signedIn(r.cookie(b))); res.StatusCode == http.StatusOK {
		t.Error("the old session lives on")
	}
	res = r.do("DELETE", "/_auth/userinfo", nil)
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("DELETE of a page of ours: %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}
