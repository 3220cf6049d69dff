package proxy_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// replica is a second proxy on the same database, as another process has it:
// its own connections, directory and memory.
func (r *rig) replica() *proxy.Proxy {
	r.t.Helper()
	store, err := sqlstore.OpenSQLite(r.t.Context(), r.path, sqlstore.Options{PollInterval: time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { store.Close() })
	dir := groups.NewDirectory(groups.Options{Store: store, Now: r.clock.Now})
	p := proxy.New(proxy.Options{Directory: dir, Log: zap.NewNop(), Access: zap.NewNop(), Now: r.clock.Now})
	if err := dir.Configure(r.t.Context(), r.groups); err != nil {
		r.t.Fatal(err)
	}
	if err := p.Configure(r.settings); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// CK-07: a session that was ended at one process is over at the others within
// two seconds (contract section 6), though they had it in memory.
func TestRevocationReachesTheOtherProcess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := r.replica()
	at := func(cookie string) int {
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "/", nil)
		req.Host = "127.0.0.1:" + r.port()
		req.Header.Set("Cookie", cookie)
		other.ServeHTTP(w, req)
		return w.Code
	}
	alice, bob := r.signIn("alice"), r.signIn("bob")
	if a, b := at(alice), at(bob); a != 200 || b != 200 {
		t.Fatalf("before: %d, %d", a, b)
	}
	if res := r.do("POST", "/_auth/sign_out", signedIn(alice)); res.StatusCode != 200 && res.StatusCode != 303 {
		t.Fatalf("sign-out: %d", res.StatusCode)
	}
	eventually(t, "the other process knows", 2*time.Second, func() bool { return at(alice) == 401 })
	if got := at(bob); got != 200 {
		t.Errorf("bob: %d", got)
	}
}

// CK-09: whoever reads the store's files finds nothing to sign in with.
func TestStoreHoldsNoSecretInTheClear(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secrets := map[string]string{}
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) {
			for _, name := range []string{"id_token", "access_token", "refresh_token"} {
				secrets[name], _ = answer[name].(string)
			}
		}
	})
	b := r.browser()
	state, authorize := r.begin(b, "rd=/")
	back := r.answer(b, authorize, "alice")
	if res := hop(t, b, back); res.StatusCode != 303 {
		t.Fatal(res.StatusCode)
	}
	u, err := url.Parse(back)
	if err != nil {
		t.Fatal(err)
	}
	secrets["cookie"], secrets["state"], secrets["code"] = value(r.cookie(b)), state, u.Query().Get("code")
	secrets["client secret"], secrets["session key"] = "secret-of-the-client", string(r.settings.Keys[0])
	var all []byte
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(r.path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	if !bytes.Contains(all, []byte("alice@example.com")) {
		t.Fatal("control: the files do not hold the person")
	}
	for what, secret := range secrets {
		if len(secret) < 8 {
			t.Fatalf("no %s was planted", what)
		}
		raw, _ := base64.RawURLEncoding.DecodeString(secret) // nil for one that is none
		if bytes.Contains(all, []byte(secret)) || len(raw) > 8 && bytes.Contains(all, raw) {
			t.Errorf("the store holds the %s", what)
		}
	}
	if res := r.do("GET", "/", signedIn(r.cookie(b))); res.StatusCode != 200 {
		t.Errorf("control: the cookie answers %d", res.StatusCode)
	}
}

// CK-15, OI-25: each sealed or signed thing of ours is good for one purpose,
// and no token in an Authorization header is a session.
func TestATokenOfOneKindIsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, withSigner, portals)
	tokens := map[string]string{}
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(answer map[string]any) {
			for _, name := range []string{"id_token", "access_token", "refresh_token"} {
				tokens[name], _ = answer[name].(string)
			}
		}
	})
	b := r.browser()
	_, code, _ := strings.Cut(r.ticket(b, "eng.localhost", "/", "alice"), "code=")
	tokens["ticket"] = code
	session := r.cookie(b)
	tokens["session"] = value(session)
	r.do("GET", "/", signedIn(session))
	tokens["assertion"] = r.up.last(t).Header.Get("X-Groupgate-Assertion")
	login := r.browser()
	tokens["login state"], _ = r.begin(login, "source=test&rd=/x")
	r.op.Honest()
	out, err := url.Parse(r.do("GET", "/_auth/sign_out?rd=/bye", edits(page, signedIn(r.signIn("bob")))).Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	tokens["sign-out state"] = out.Query().Get("state")
	before := r.up.count()
	for kind, token := range tokens {
		if len(token) < 16 {
			t.Fatalf("no %s was made", kind)
		}
		if kind != "session" {
			if res := r.do("GET", "/", signedIn("__Host-groupgate="+token)); res.StatusCode != 401 {
				t.Errorf("%s as a session: %d", kind, res.StatusCode)
			}
		}
		for _, scheme := range []string{"Bearer ", "Basic ", ""} {
			if res := r.do("GET", "/", header("Authorization", scheme+token)); res.StatusCode != 401 {
				t.Errorf("%s as %q: %d", kind, scheme, res.StatusCode)
			}
		}
		if kind != "ticket" {
			res := r.do("GET", "/_auth/handover?code="+url.QueryEscape(token), edits(page, r.onHost("eng.localhost"), signedIn(r.cookieOf(b, "eng.localhost"))))
			if res.StatusCode != 400 {
				t.Errorf("%s as a ticket: %d", kind, res.StatusCode)
			}
		}
		if kind != "login state" {
			res := r.do("GET", "/_auth/callback/test?code=x&state="+url.QueryEscape(token), edits(page, signedIn(r.cookie(login))))
			if res.StatusCode != 400 {
				t.Errorf("%s as a login's state: %d", kind, res.StatusCode)
			}
		}
		if kind != "sign-out state" {
			res := r.do("GET", "/_auth/sign_out?state="+url.QueryEscape(token), page)
			if res.StatusCode != 200 || res.Header.Get("Location") != "" {
				t.Errorf("%s as a sign-out's state: %d to %q", kind, res.StatusCode, res.Header.Get("Location"))
			}
		}
	}
	if r.up.count() != before || r.op.Calls("token") != 2 {
		t.Errorf("the application was reached %d times, the provider asked for %d tokens", r.up.count()-before, r.op.Calls("token"))
	}
	// The controls: each is good where it belongs.
	if res := r.do("GET", "/", signedIn(session)); res.StatusCode != 200 {
		t.Errorf("the session: %d", res.StatusCode)
	}
	claimsOf(t, r, tokens["assertion"])
	if res := r.do("GET", "/_auth/handover?code="+code, edits(page, r.onHost("eng.localhost"), signedIn(r.cookieOf(b, "eng.localhost")))); res.StatusCode != 303 {
		t.Errorf("the ticket: %d", res.StatusCode)
	}
	if res := r.do("GET", "/_auth/sign_out?state="+url.QueryEscape(tokens["sign-out state"]), page); res.Header.Get("Location") != "/bye" {
		t.Errorf("the sign-out's state: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
}

// cookieOf is a browser's whole Cookie header for a portal.
func (r *rig) cookieOf(b *claimstest.Browser, portal string) string {
	var out []string
	for _, c := range b.Cookies(r.portal(portal) + "/") {
		out = append(out, c.Name+"="+c.Value)
	}
	return strings.Join(out, "; ")
}

// OI-17: the source changed the refresh token and its answer was lost. The old
// token is worth nothing then: the person signs in anew, once, and nothing
// turns in circles.
func TestLostRotationEndsInOneLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cookie := r.signIn("alice")
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateToken = func(map[string]any) { panic(http.ErrAbortHandler) }
	})
	r.clock.advance(6 * time.Minute)
	if calls := r.tokenCalls(func() {
		for range 5 { // not known to be over: served, and not asked again at once
			if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 200 {
				t.Errorf("while the answer is lost: %d", res.StatusCode)
			}
		}
	}); calls != 1 {
		t.Errorf("%d token calls while the answer is lost", calls)
	}
	r.op.Honest()
	r.clock.advance(time.Minute)
	if calls := r.tokenCalls(func() {
		for range 5 {
			if res := r.do("GET", "/", signedIn(cookie)); res.StatusCode != 401 {
				t.Errorf("with the old token: %d", res.StatusCode)
			}
		}
	}); calls != 1 {
		t.Errorf("%d token calls with the old token", calls)
	}
	fresh := r.signIn("alice")
	r.clock.advance(6 * time.Minute)
	if calls := r.tokenCalls(func() {
		if res := r.do("GET", "/", signedIn(fresh)); res.StatusCode != 200 {
			t.Errorf("the new session: %d", res.StatusCode)
		}
	}); calls != 1 {
		t.Errorf("%d token calls of the new session", calls)
	}
}

// OI-05: two providers, one of them an attacker's. An answer that one gives to
// a login begun at the other is refused, and no code of the honest one reaches
// the attacker's token endpoint (RFC 9700 section 4.4).
func TestProvidersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	attacker := claimstest.Start(t, claimstest.Options{ClientID: "portal", ClientSecret: "secret-of-the-client", People: []claimstest.Person{person("alice", "admins")}})
	r := newRig(t, twoSources, func(r *rig) {
		r.settings.Sources[1] = proxy.SourceEntry{Source: claims.NewOIDC(claims.OIDCOptions{
			Name:   "other",
			Config: claims.OIDCConfig{Issuer: attacker.URL, ClientID: "portal", ClientSecret: "secret-of-the-client"},
		})}
	})
	// startAt begins a login and answers its state; the honest provider then
	// answers it at the callback of either source.
	for what, callback := range map[string]string{"the honest callback": "test", "the attacker's callback": "other"} {
		b := r.browser()
		res := hop(t, b, r.server.URL+"/_auth/start?source=other&rd=/x")
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil || !strings.HasPrefix(u.String(), attacker.URL) {
			t.Fatalf("start led to %v, %v", u, err)
		}
		// The attacker sends the browser on, with the state it was given.
		q := u.Query()
		q.Set("redirect_uri", r.server.URL+"/_auth/callback/"+callback)
		back := r.answer(b, r.op.URL+"/authorize?"+q.Encode(), "alice")
		if res := hop(t, b, back); res.StatusCode != 400 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	if n, m := attacker.Calls("token"), r.op.Calls("token"); n != 0 || m != 0 {
		t.Errorf("the attacker was asked for tokens %d times, the honest one %d times", n, m)
	}
	// An answer of the attacker's to a login begun at the honest one.
	b := r.browser()
	state, _ := r.begin(b, "source=test&rd=/x")
	for _, iss := range []string{attacker.URL, ""} {
		at := "/_auth/callback/test?code=stolen&state=" + url.QueryEscape(state)
		if iss != "" {
			at += "&iss=" + url.QueryEscape(iss)
		}
		if res := r.do("GET", at, edits(page, signedIn(r.cookie(b)))); res.StatusCode != 400 {
			t.Errorf("iss %q: %d", iss, res.StatusCode)
		}
	}
	// The control: both work by themselves.
	for _, source := range []string{"test", "other"} {
		b := r.browser()
		p, err := b.Login(r.server.URL+"/_auth/start?source="+source+"&rd=/x", map[string]string{"test": "bob", "other": "alice"}[source])
		if err != nil || p.Status != 200 || p.URL.Path != "/x" {
			t.Errorf("%s: %v, %v", source, p, err)
		}
	}
}

// verifier is an application that trusts the assertion alone: stock libraries,
// the published keys, issuer, audience and time.
func verifier(keys jose.JSONWebKeySet, issuer, audience string, now func() time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var got asserted
		tok, err := jwt.ParseSigned(r.Header.Get("X-Groupgate-Assertion"), []jose.SignatureAlgorithm{jose.ES256})
		if err == nil {
			err = tok.Claims(keys, &got)
		}
		if err == nil {
			err = got.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{audience}, Time: now()}, 0)
		}
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Write([]byte("hello " + got.User))
	}
}

// SC-01, SC-02: an application that is reachable around the proxy can tell
// who came through it: headers alone, an assertion for another application, an
// old, unsigned or forged one are refused.
func TestApplicationCanRefuseWhoComesAround(t *testing.T) {
	t.Parallel()
	r := newRig(t, withSigner, portals)
	set, _ := r.keySet()
	var later time.Duration
	now := func() time.Time { return time.Now().Add(later) }
	b := r.browser()
	if _, err := b.Login(r.portal("eng.localhost")+"/", "alice"); err != nil {
		t.Fatal(err)
	}
	elsewhere := r.up.last(t).Header.Get("X-Groupgate-Assertion") // for the portal
	cookie := r.cookie(b)
	r.up.answer(verifier(set, r.server.URL, r.server.URL, now))
	through := r.do("GET", "/", signedIn(cookie))
	if body := bodyOf(t, through); through.StatusCode != 200 || body != "hello alice" {
		t.Fatalf("through the proxy: %d %s", through.StatusCode, body)
	}
	good := r.up.last(t).Header.Get("X-Groupgate-Assertion")
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	key, err := proxy.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	var forged string
	foreign := newRig(t, withSigner, func(f *rig) {
		if f.settings.Signer, err = proxy.NewSigner(key); err != nil {
			t.Fatal(err)
		}
		f.settings.PublicURL = f.server.URL
	})
	foreign.do("GET", "/", signedIn(foreign.signIn("alice")))
	forged = foreign.up.last(t).Header.Get("X-Groupgate-Assertion")
	direct := func(edit func(*http.Request)) int {
		t.Helper()
		req, err := http.NewRequest("GET", r.up.URL+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		edit(req)
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := direct(header("X-Groupgate-Assertion", good)); got != 200 {
		t.Fatalf("control: the assertion itself: %d", got)
	}
	for what, edit := range map[string]func(*http.Request){
		"nothing":                      func(*http.Request) {},
		"the headers alone":            edits(header("X-Forwarded-User", "alice"), header("X-Forwarded-Groups", "admins")),
		"for another application":      header("X-Groupgate-Assertion", elsewhere),
		"unsigned":                     header("X-Groupgate-Assertion", none),
		"without its signature":        header("X-Groupgate-Assertion", parts[0]+"."+parts[1]+"."),
		"of another groupgate's":       header("X-Groupgate-Assertion", forged),
		"another's signature on it":    header("X-Groupgate-Assertion", parts[0]+"."+parts[1]+"."+strings.Split(forged, ".")[2]),
		"another's claims under its":   header("X-Groupgate-Assertion", parts[0]+"."+strings.Split(elsewhere, ".")[1]+"."+parts[2]),
		"twice, the first one invalid": header("X-Groupgate-Assertion", none, good),
	} {
		if got := direct(edit); got != 403 {
			t.Errorf("%s: %d", what, got)
		}
	}
	later = time.Minute + time.Second
	if got := direct(header("X-Groupgate-Assertion", good)); got != 403 {
		t.Errorf("a minute later: %d", got)
	}
}
