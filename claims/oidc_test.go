package claims_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

const redirectURI = "https://portal.example.com/_auth/callback/idp"

// rig is a source and its provider. Everything secret in it has "canary" in
// it, and no error or log line may.
type rig struct {
	op    *claimstest.OP
	src   *claims.OIDC
	logs  *observer.ObservedLogs
	clock *clock
}

type clock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}

type setup struct {
	op  claimstest.Options
	src claims.OIDCOptions
}

func newRig(t *testing.T, changes ...func(*setup)) *rig {
	t.Helper()
	r := &rig{clock: &clock{}}
	core, logs := observer.New(zap.DebugLevel)
	r.logs = logs
	s := setup{
		op: claimstest.Options{
			ClientID: "portal", ClientSecret: "canary-secret/&", Alg: "ES256", AutoLogin: "alice", Now: r.clock.now,
			People: []claimstest.Person{{
				Subject:  "alice",
				Claims:   map[string]any{"groups": []string{"canary-eng"}, "preferred_username": "alice", "email": "canary@example.com"},
				Userinfo: map[string]any{"groups": []string{"canary-from-userinfo"}, "department": "canary-sales"},
			}},
		},
		src: claims.OIDCOptions{
			Name:   "idp",
			Config: claims.OIDCConfig{ClientID: "portal", ClientSecret: "canary-secret/&"},
			Needed: func() []string { return []string{"groups"} },
			Client: &http.Client{Transport: &http.Transport{}, Timeout: 2 * time.Second},
			Log:    zap.New(core), Now: r.clock.now,
		},
	}
	for _, change := range changes {
		change(&s)
	}
	r.op = claimstest.Start(t, s.op)
	if s.op.TLS {
		s.src.Client = r.op.Client()
	}
	if s.src.Config.Issuer == "" {
		s.src.Config.Issuer = r.op.URL
	}
	r.src = claims.NewOIDC(s.src)
	t.Cleanup(func() {
		if tr, ok := s.src.Client.Transport.(*http.Transport); ok {
			tr.CloseIdleConnections()
		}
		for _, e := range r.logs.All() {
			fields := e.ContextMap()
			for _, v := range fields {
				if text, ok := v.(string); ok && strings.Contains(text, "canary") {
					t.Errorf("a log line leaks: %s %v", e.Message, fields)
				}
			}
		}
	})
	return r
}

func needs(names ...string) func(*setup) {
	return func(s *setup) { s.src.Needed = func() []string { return names } }
}

func newFlow() *claims.Flow {
	return &claims.Flow{
		ID: "id", State: "canary-state-1", Nonce: "canary-nonce-1", RedirectURI: redirectURI,
		Verifier: "canary-verifier-0123456789-0123456789-0123456789", Started: time.Now(),
	}
}

// authorize sends the browser to the provider and answers the request with
// which it comes back.
func (r *rig) authorize(t *testing.T, f *claims.Flow) *http.Request {
	t.Helper()
	w := httptest.NewRecorder()
	if err := r.src.Challenge(w, httptest.NewRequest(http.MethodGet, "/_auth/start", nil), f); err != nil {
		t.Fatalf("Challenge: %v", err)
	}
	if w.Code != http.StatusFound {
		t.Fatalf("Challenge answered %d", w.Code)
	}
	client := r.op.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer client.CloseIdleConnections()
	resp, err := client.Get(w.Header().Get("Location"))
	if err != nil {
		t.Fatalf("authorize: %v", err)
	}
	_ = resp.Body.Close()
	back := resp.Header.Get("Location")
	if back == "" {
		t.Fatalf("the provider answered %d", resp.StatusCode)
	}
	return httptest.NewRequest(http.MethodGet, back, nil)
}

func (r *rig) login(t *testing.T) (*claims.Identity, *claims.Grant, error) {
	t.Helper()
	f := newFlow()
	return r.src.Authenticate(r.authorize(t, f), f)
}

func (r *rig) mustLogin(t *testing.T) (*claims.Identity, *claims.Grant) {
	t.Helper()
	id, g, err := r.login(t)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	return id, g
}

// wantError checks the kind of an error, and that its text names the source
// and tells nothing.
func wantError(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	for _, other := range []error{claims.ErrProtocol, claims.ErrDenied, claims.ErrUnavailable, claims.ErrNoCredentials} {
		if other != kind && kind != claims.ErrGrantEnded && errors.Is(err, other) {
			t.Errorf("error %v is %v as well", err, other)
		}
	}
	if !strings.HasPrefix(err.Error(), "idp: ") || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "<script>") {
		t.Errorf("error text %q", err)
	}
}

func groupsOf(t *testing.T, id *claims.Identity, claim string) []string {
	t.Helper()
	r := id.Claims.Resolve(claim)
	if r.State != claims.Complete {
		t.Fatalf("%s is %v: %s", claim, r.State, r.Why)
	}
	return r.Values
}

// The control of every refusal; also oidcc-client-test.
func TestLoginSignsAPersonIn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*setup){
		"ES256": func(*setup) {},
		"RS256": func(s *setup) { s.op.Alg = "RS256" },
		"https": func(s *setup) { s.op.TLS = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			before := time.Now().Add(-2 * time.Second)
			id, g := r.mustLogin(t)
			if id.Source != "idp" || id.Subject != "alice" || id.Session == "" {
				t.Errorf("identity %q %q session %q", id.Source, id.Subject, id.Session)
			}
			if id.IssuedAt.Before(before) || id.Expires.Sub(id.IssuedAt) != 5*time.Minute {
				t.Errorf("issued %v, expires %v", id.IssuedAt, id.Expires)
			}
			if got := groupsOf(t, id, "groups"); !slices.Equal(got, []string{"canary-eng"}) {
				t.Errorf("groups %q", got)
			}
			if g.RefreshToken == "" || strings.Count(g.IDToken, ".") != 2 || g.AccessToken != "" {
				t.Errorf("grant: refresh token %v, ID token %v, access token %v", g.RefreshToken != "", g.IDToken != "", g.AccessToken != "")
			}
			if n := r.op.Calls("userinfo"); n != 0 {
				t.Errorf("userinfo was asked %d times though the ID token has everything", n)
			}
		})
	}
}

// OI-03: what our authorization request holds.
func TestChallengeBindsTheLogin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		scopes []string
		want   string
	}{
		{"default scopes", nil, "openid profile email"},
		{"openid is always there", []string{"groups", "offline_access"}, "openid groups offline_access"},
		{"scopes as written", []string{"profile", "openid"}, "profile openid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Config.Scopes = c.scopes })
			w := httptest.NewRecorder()
			f := newFlow()
			if err := r.src.Challenge(w, httptest.NewRequest(http.MethodGet, "/", nil), f); err != nil {
				t.Fatal(err)
			}
			to, err := url.Parse(w.Header().Get("Location"))
			if err != nil || !strings.HasPrefix(to.String(), r.op.URL+"/authorize?") {
				t.Fatalf("sent to %s", to)
			}
			want := url.Values{
				"response_type": {"code"}, "client_id": {"portal"}, "redirect_uri": {redirectURI}, "scope": {c.want},
				"state": {f.State}, "nonce": {f.Nonce}, "code_challenge_method": {"S256"},
				"code_challenge": {"0xCLKpKXBKoT1Oj35mUN_Jyqz5kF0HOABBDKHu_yjUU"},
			}
			if got := to.Query().Encode(); got != want.Encode() {
				t.Errorf("query\n%s, want\n%s", got, want.Encode())
			}
		})
	}
}

func TestChallengeRefusesAFlowWithoutSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, spoil := range map[string]func(*claims.Flow){
		"state":    func(f *claims.Flow) { f.State = "" },
		"nonce":    func(f *claims.Flow) { f.Nonce = "" },
		"verifier": func(f *claims.Flow) { f.Verifier = "" },
		"redirect": func(f *claims.Flow) { f.RedirectURI = "" },
	} {
		f := newFlow()
		spoil(f)
		w := httptest.NewRecorder()
		if err := r.src.Challenge(w, httptest.NewRequest(http.MethodGet, "/", nil), f); err == nil || len(w.Header()) > 0 {
			t.Errorf("a flow without %s: error %v, header %v", name, err, w.Header())
		}
	}
}

func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		listed any
		secret string
		want   string
	}{
		{"basic when nothing is listed", nil, "canary-secret/&", "basic"},
		{"basic when both are listed", []string{"client_secret_post", "client_secret_basic"}, "canary-secret/&", "basic"},
		{"post when only that is listed", []string{"client_secret_post"}, "canary-secret/&", "post"},
		{"public client", nil, "", "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.op.ClientSecret, s.src.Config.ClientSecret = c.secret, c.secret })
			r.op.Lie(func(k *claimstest.Knobs) {
				k.Discovery = func(doc map[string]any) {
					if c.listed != nil {
						doc["token_endpoint_auth_methods_supported"] = c.listed
					}
				}
			})
			r.mustLogin(t)
			if got := r.op.TokenAuth(); got != c.want || r.op.Calls("token") != 1 {
				t.Errorf("%s in %d calls, want %s in one", got, r.op.Calls("token"), c.want)
			}
		})
	}
}

// OI-28: no second way of authentication is tried with the code.
func TestWrongClientSecretIsTriedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.src.Config.ClientSecret = "canary-other" })
	_, _, err := r.login(t)
	wantError(t, err, claims.ErrProtocol)
	if n := r.op.Calls("token"); n != 1 {
		t.Errorf("the one-time code was sent %d times", n)
	}
}

// OI-15, GV-08, GV-09: overage is unknown, and nothing it names is fetched.
func TestGroupsFromWhereverTheyAre(t *testing.T) {
	t.Parallel()
	many := make([]string, 2000)
	for i := range many {
		many[i] = "group-" + strconv.Itoa(i)
	}
	for _, c := range []struct {
		name         string
		claim        string
		id, userinfo map[string]any
		state        claims.State
		values       int
		asked        int // calls of userinfo
	}{
		{"in the ID token", "groups", map[string]any{"groups": []string{"a"}}, nil, claims.Complete, 1, 0},
		{"only in userinfo", "groups", nil, map[string]any{"groups": []string{"a", "b"}}, claims.Complete, 2, 1},
		{"in both the ID token wins", "groups", map[string]any{"groups": []string{"a"}}, map[string]any{"groups": []string{"b", "c"}}, claims.Complete, 1, 0},
		{"nested", "/realm_access/roles", map[string]any{"realm_access": map[string]any{"roles": []string{"a"}}}, nil, claims.Complete, 1, 0},
		{"nested, only in userinfo", "/realm_access/roles", map[string]any{"realm_access": map[string]any{"x": 1}},
			map[string]any{"realm_access": map[string]any{"roles": []string{"a"}}}, claims.Complete, 1, 1},
		{"absent", "groups", nil, nil, claims.Absent, 0, 1},
		{"empty in the ID token is not absent", "groups", map[string]any{"groups": []string{}}, map[string]any{"groups": []string{"a"}}, claims.Complete, 0, 0},
		{"null in the ID token is unknown", "groups", map[string]any{"groups": nil}, map[string]any{"groups": []string{"a"}}, claims.Unknown, 0, 0},
		{"2000 in the ID token", "groups", map[string]any{"groups": many}, nil, claims.Complete, 2000, 0},
		{"2000 in userinfo", "groups", nil, map[string]any{"groups": many}, claims.Complete, 2000, 1},
		{"overage", "groups", map[string]any{"_claim_names": map[string]any{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "http://169.254.169.254/"}}}, nil, claims.Unknown, 0, 0},
		{"overage without its source", "groups", map[string]any{"_claim_names": map[string]any{"groups": "src1"}}, nil, claims.Unknown, 0, 0},
		{"overage of a wrong type", "groups", map[string]any{"_claim_names": "groups"}, nil, claims.Unknown, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, needs(c.claim))
			r.op.SetClaims("alice", c.id)
			r.op.SetUserinfo("alice", c.userinfo)
			id, _ := r.mustLogin(t)
			if got := id.Claims.Resolve(c.claim); got.State != c.state || len(got.Values) != c.values {
				t.Errorf("%v with %d values (%s), want %v with %d", got.State, len(got.Values), got.Why, c.state, c.values)
			}
			if n := r.op.Calls("userinfo"); n != c.asked {
				t.Errorf("userinfo asked %d times, want %d", n, c.asked)
			}
		})
	}
}

func TestNoUserinfoEndpointLeavesAClaimAbsent(t *testing.T) {
	t.Parallel()
	r := newRig(t, needs("roles"))
	r.op.Lie(func(k *claimstest.Knobs) {
		k.Discovery = func(doc map[string]any) { delete(doc, "userinfo_endpoint") }
	})
	id, _ := r.mustLogin(t)
	if got := id.Claims.Resolve("roles"); got.State != claims.Absent {
		t.Errorf("%v %s", got.State, got.Why)
	}
}

func TestSignOutURL(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if got := r.src.SignOutURL(nil, "https://portal.example.com/", "s"); got != "" {
		t.Errorf("before the provider is known: %s", got)
	}
	_, g := r.mustLogin(t)
	for _, c := range []struct {
		name            string
		grant           *claims.Grant
		returnTo, state string
		want            url.Values
	}{
		{"all", g, "https://portal.example.com/bye", "st", url.Values{"client_id": {"portal"}, "id_token_hint": {g.IDToken},
			"post_logout_redirect_uri": {"https://portal.example.com/bye"}, "state": {"st"}}},
		{"no grant", nil, "https://portal.example.com/bye", "", url.Values{"client_id": {"portal"},
			"post_logout_redirect_uri": {"https://portal.example.com/bye"}}},
		{"no way back", g, "", "st", url.Values{"client_id": {"portal"}, "id_token_hint": {g.IDToken}}},
	} {
		if got, want := r.src.SignOutURL(c.grant, c.returnTo, c.state), r.op.URL+"/end_session?"+c.want.Encode(); got != want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, want)
		}
	}

	other := newRig(t)
	other.op.Lie(func(k *claimstest.Knobs) {
		k.Discovery = func(doc map[string]any) { delete(doc, "end_session_endpoint") }
	})
	_, g = other.mustLogin(t)
	if got := other.src.SignOutURL(g, "https://portal.example.com/bye", ""); got != "" {
		t.Errorf("a provider without the endpoint: %s", got)
	}
}

func TestProbeSaysWhatThereIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.RotateKey(true, false)
	line, err := r.src.Probe(t.Context())
	if want := "issuer " + r.op.URL + ", 2 keys, userinfo, end session"; err != nil || line != want {
		t.Errorf("%q, %v; want %q", line, err, want)
	}
	r.op.Stop()
	_, err = r.src.Probe(context.Background())
	wantError(t, err, claims.ErrUnavailable)
}
