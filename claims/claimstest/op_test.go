package claimstest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a program that signs people in at the provider, on its own host.
type client struct {
	*httptest.Server
	src  *claims.OIDC
	flow *claims.Flow
}

func newClient(t *testing.T, op *claimstest.OP) *client {
	t.Helper()
	c := &client{src: claims.NewOIDC(claims.OIDCOptions{Name: "op", Client: op.Client(), Needed: func() []string { return []string{"groups"} },
		Config: claims.OIDCConfig{Issuer: op.Issuer(), ClientID: "groupgate"}})}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	c.flow = &claims.Flow{State: "state", Nonce: "nonce", Verifier: strings.Repeat("v", 43), RedirectURI: c.URL + "/cb"}
	return c
}

func (c *client) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/cb" {
		http.SetCookie(w, &http.Cookie{Name: "flow", Value: "1", Path: "/", Secure: true, SameSite: http.SameSiteNoneMode})
		if err := c.src.Challenge(w, r, c.flow); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	if _, err := r.Cookie("flow"); err != nil {
		http.Error(w, "no cookie", http.StatusBadRequest)
		return
	}
	id, _, err := c.src.Authenticate(r, c.flow)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	_, _ = w.Write([]byte(id.Subject + " " + strings.Join(id.Claims.Resolve("groups").Values, ",") + " " + r.Header.Get("Sec-Fetch-Site")))
}

var people = []claimstest.Person{
	{Subject: "alice", Description: "in two <groups>", Claims: map[string]any{"groups": []string{"eng", "ops"}}},
	{Subject: "bob", Userinfo: map[string]any{"groups": []string{"eng"}}},
	{Subject: "o'hara \"&", Claims: map[string]any{"groups": []string{}}},
}

func TestBrowserSignsInThroughThePage(t *testing.T) {
	t.Parallel()
	for person, want := range map[string]string{"alice": "alice eng,ops cross-site", "bob": "bob eng cross-site", "o'hara \"&": "o'hara \"&  cross-site"} {
		op := claimstest.Start(t, claimstest.Options{Alg: "ES256", People: people})
		c := newClient(t, op)
		b := claimstest.NewBrowser(nil)
		t.Cleanup(b.Close)
		p, err := b.Login(c.URL+"/start", person)
		if err != nil {
			t.Fatal(err)
		}
		if p.Status != http.StatusOK || p.Body != want {
			t.Errorf("%s: %d %q, want %q", person, p.Status, p.Body, want)
		}
		if last := p.Hops[len(p.Hops)-1]; len(p.Hops) != 4 || p.Hops[2].Method != http.MethodPost || !strings.HasPrefix(last.URL, c.URL+"/cb?") {
			t.Errorf("hops %+v", p.Hops)
		}
	}
}

func TestPageOffersThePeopleAndNothingForeign(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", People: people})
	c := newClient(t, op)
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	p, err := b.Get(c.URL + "/start")
	if err != nil {
		t.Fatal(err)
	}
	f := p.Forms()
	if len(f) != 1 || f[0].Method != http.MethodPost || !slices.Equal(f[0].Buttons["person"], []string{"alice", "bob", "o'hara \"&"}) {
		t.Fatalf("forms %+v", f)
	}
	if !strings.Contains(p.Body, "in two &lt;groups&gt;") {
		t.Error("the description is missing or not escaped")
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(p.Body)
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	if csp := p.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("the style does not fit the policy %q", csp)
	}
	if strings.Contains(p.Body, "<script") || strings.Contains(p.Body, "src=") || strings.Contains(p.Body, "http") {
		t.Error("the page has something from elsewhere")
	}

	p, err = b.Submit(p, map[string]string{"cancel": "yes"})
	if err != nil || p.Status != http.StatusForbidden || !strings.Contains(p.Body, "access_denied") {
		t.Errorf("cancelled: %v, %+v", err, p)
	}
}

func TestAutoLoginAndRunTimeChanges(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", People: people, AutoLogin: "alice"})
	c := newClient(t, op)
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	for _, step := range []struct {
		change func()
		want   string
	}{
		{func() {}, "alice eng,ops none"},
		{func() { op.SetClaims("alice", map[string]any{"groups": []string{"new"}}) }, "alice new none"},
		{func() { op.SetAutoLogin("bob") }, "bob eng none"},
		{func() { op.SetUserinfo("bob", map[string]any{"groups": []string{"later"}}) }, "bob later none"},
		{func() { op.SetPerson(claimstest.Person{Subject: "carol"}); op.SetAutoLogin("carol") }, "carol  none"},
	} {
		step.change()
		p, err := b.Get(c.URL + "/start")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Replace(p.Body, "cross-site", "none", 1); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
	op.RemovePerson("carol")
	if p, err := b.Get(c.URL + "/start"); err != nil || len(p.Forms()) != 1 {
		t.Errorf("a person who is gone is not signed in: %v", err)
	}
	if op.Calls("authorize") != 6 || op.Calls("token") != 5 {
		t.Errorf("%d authorizations, %d tokens", op.Calls("authorize"), op.Calls("token"))
	}
}

func TestEndSession(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256"})
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.RequestURI())) }))
	t.Cleanup(back.Close)
	p, err := b.Get(op.URL + "/end_session?client_id=groupgate&state=s&post_logout_redirect_uri=" + back.URL + "/bye")
	if err != nil || p.Body != "/bye?state=s" {
		t.Errorf("%v %+v", err, p)
	}
	p, err = b.Get(op.URL + "/end_session?client_id=other&post_logout_redirect_uri=" + back.URL + "/bye")
	if err != nil || !strings.Contains(p.Body, "Signed out") {
		t.Errorf("another client is sent on: %v %+v", err, p)
	}
}

func TestBrowserOverTLSWithHostNames(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", TLS: true, People: people})
	b := claimstest.NewBrowser(op.Roots())
	t.Cleanup(b.Close)
	b.Hosts["localhost:9"] = strings.TrimPrefix(op.URL, "https://")
	p, err := b.Get("https://localhost:9/.well-known/openid-configuration")
	if err != nil || p.Status != http.StatusOK || !strings.Contains(p.Body, op.URL) {
		t.Fatalf("%v %+v", err, p)
	}
	stranger := claimstest.NewBrowser(nil)
	t.Cleanup(stranger.Close)
	if _, err := stranger.Get(op.URL); err == nil {
		t.Error("a certificate nobody trusts was accepted")
	}
}

func TestDelayEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256"})
	op.Lie(func(k *claimstest.Knobs) { k.Delay = time.Hour })
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	b.Client.Timeout = 50 * time.Millisecond
	if _, err := b.Get(op.URL + "/jwks"); err == nil {
		t.Error("answered at once")
	}
}
