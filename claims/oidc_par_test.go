package claims_test

import (
	"context"
	"crypto/elliptic"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func offersPAR(s *setup) { s.op.PAR = true }
func wantsPAR(s *setup)  { s.op.RequirePAR = true }

// OI-03: a provider that takes pushed requests gets everything from us; the
// browser carries a reference and nothing else.
func TestAuthorizationRequestIsPushed(t *testing.T) {
	t.Parallel()
	for name, changes := range map[string][]func(*setup){
		"offered, secret":    {offersPAR},
		"required, secret":   {wantsPAR},
		"required, key":      {wantsPAR, signing(ecSigner(elliptic.P256()))},
		"required, public":   {wantsPAR, func(s *setup) { s.op.ClientSecret, s.src.Config.ClientSecret = "", "" }},
		"required, https":    {wantsPAR, func(s *setup) { s.op.TLS = true }},
		"endpoint's query":   {offersPAR},
		"secret in the body": {wantsPAR},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, changes...)
			r.op.Lie(func(k *claimstest.Knobs) {
				k.Discovery = func(doc map[string]any) {
					switch name {
					case "endpoint's query":
						doc["authorization_endpoint"] = doc["authorization_endpoint"].(string) + "?a=b"
					case "secret in the body":
						doc["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
					}
				}
			})
			w, err := r.challenge(t)
			if err != nil {
				t.Fatal(err)
			}
			to, err := url.Parse(w.Header().Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			q := to.Query()
			if name == "endpoint's query" {
				if q.Get("a") != "b" {
					t.Errorf("the endpoint's own query is lost: %s", to)
				}
				return // the provider of these tests takes nothing beside
			}
			if len(q) != 2 || q.Get("client_id") != "portal" || !strings.HasPrefix(q.Get("request_uri"), "urn:ietf:params:oauth:request_uri:") {
				t.Errorf("the browser carries %s", to)
			}
			if strings.Contains(to.String(), "canary") || strings.Contains(to.String(), "state") {
				t.Errorf("a parameter is there for the browser to see: %s", to)
			}
			if name == "secret in the body" && r.op.TokenAuth() != "post" {
				t.Errorf("the secret was shown by %s", r.op.TokenAuth())
			}
			id, _ := r.mustLogin(t)
			if id.Subject != "alice" || r.op.Calls("par") != 2 {
				t.Errorf("%q after %d pushed requests", id.Subject, r.op.Calls("par"))
			}
		})
	}
}

// What a provider refuses, we can do without, unless it wants nothing else;
// what it does not answer, we cannot know.
func TestPushedRequestFaults(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	pushed := func(change func(map[string]any)) func(*claimstest.Knobs) {
		return func(k *claimstest.Knobs) { k.MutatePushed = change }
	}
	handler := func(h http.HandlerFunc) func(*claimstest.Knobs) {
		return func(k *claimstest.Knobs) { k.PARHandler = h }
	}
	for name, c := range map[string]struct {
		lie  func(*claimstest.Knobs)
		goes bool // on without, where that is allowed
	}{
		"400":         {handler(answer(400, `{"error":"invalid_request","error_description":"canary"}`)), true},
		"401":         {handler(answer(401, `{"error":"canary"}`)), true},
		"403, HTML":   {handler(answer(403, `<html>canary`)), true},
		"404":         {handler(http.NotFound), true},
		"429":         {handler(answer(429, ``)), true},
		"500":         {handler(answer(500, `canary`)), false},
		"503":         {handler(answer(503, `{"error":"temporarily_unavailable"}`)), false},
		"OI-28 hangs": {handler(claimstest.Hang), false},
		"OI-28 302":   {handler(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/token?canary", http.StatusFound) }), false},
		"OI-28 307": {handler(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/token?canary", http.StatusTemporaryRedirect)
		}), false},
		"200, HTML":             {handler(answer(200, `<html>canary`)), false},
		"PX-22 endless":         {handler(endless), false},
		"two readings":          {handler(answer(201, `{"request_uri":"urn:a:b","request_uri":"urn:canary:c","expires_in":60}`)), false},
		"no request_uri":        {pushed(del("request_uri")), false},
		"request_uri empty":     {pushed(set("request_uri", "")), false},
		"request_uri a list":    {pushed(set("request_uri", []string{"urn:canary:a"})), false},
		"request_uri relative":  {pushed(set("request_uri", "canary")), false},
		"request_uri with CRLF": {pushed(set("request_uri", "urn:canary:a\r\nSet-Cookie: a=b")), false},
		"request_uri: a blank":  {pushed(set("request_uri", "urn:canary:a b")), false},
		"request_uri: no ASCII": {pushed(set("request_uri", "urn:canary:\u00e4")), false},
		"request_uri too long":  {pushed(set("request_uri", "urn:canary:"+strings.Repeat("a", 1024))), false},
		"expires_in missing":    {pushed(del("expires_in")), false},
		"expires_in zero":       {pushed(set("expires_in", 0)), false},
		"expires_in negative":   {pushed(set("expires_in", -1)), false},
		"expires_in text":       {pushed(set("expires_in", "60")), false},
		"SC-25 expires_in NaN":  {handler(answer(201, `{"request_uri":"urn:canary:a","expires_in":1e999}`)), false},
	} {
		for _, required := range []bool{false, true} {
			kind := map[bool]string{false: "offered ", true: "required "}[required]
			t.Run(kind+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(s *setup) {
					s.op.PAR, s.op.RequirePAR = true, required
					s.src.Client.Timeout = 3 * time.Second
				})
				r.mustLogin(t) // the provider is found, and all is well
				r.op.Lie(c.lie)
				w, err := r.challenge(t)
				if c.goes && !required {
					if err != nil || !strings.Contains(w.Header().Get("Location"), "code_challenge=") {
						t.Fatalf("%v, sent to %s", err, w.Header().Get("Location"))
					}
					r.mustLogin(t)
					if warned := r.logs.FilterMessageSnippet("pushed authorization").Len(); warned != 1 || r.op.Calls("par") != 2 {
						t.Errorf("%d warnings, %d calls", warned, r.op.Calls("par"))
					}
					r.op.Honest()
					r.clock.advance(11 * time.Minute) // a registration may have been mended
					r.mustLogin(t)
					if r.op.Calls("par") != 3 {
						t.Errorf("%d calls: it is not asked again", r.op.Calls("par"))
					}
					return
				}
				wantError(t, err, claims.ErrUnavailable)
				if len(w.Header()) > 0 || w.Body.Len() > 0 {
					t.Errorf("something was written: %v", w.Header())
				}
				if r.op.Calls("token") != 1 {
					t.Errorf("%d calls of the token endpoint: a redirect was followed", r.op.Calls("token"))
				}
				r.op.Honest()
				r.mustLogin(t)
			})
		}
	}
}

// endless never stops answering 200.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	chunk := []byte(`{"canary":"` + strings.Repeat("a", 64<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// A reference works once, and a plain request is no way around.
func TestPushedRequestIsTheOnlyWayWhereItIsRequired(t *testing.T) {
	t.Parallel()
	r := newRig(t, wantsPAR)
	w, err := r.challenge(t)
	if err != nil {
		t.Fatal(err)
	}
	to := w.Header().Get("Location")
	client := r.op.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer client.CloseIdleConnections()
	for i, want := range []int{http.StatusFound, http.StatusBadRequest} {
		resp, err := client.Get(to)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("visit %d: %d, want %d", i+1, resp.StatusCode, want)
		}
	}
}

func TestPushEndpointElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"http://169.254.169.254/par", "https://user@idp.example.com/par", "ftp://idp.example.com/par", "/par"} {
		r := newRig(t)
		r.op.Lie(func(k *claimstest.Knobs) { k.Discovery = set("pushed_authorization_request_endpoint", address) })
		w, err := r.challenge(t)
		wantError(t, err, claims.ErrUnavailable)
		if len(w.Header()) > 0 {
			t.Errorf("%s: something was written", address)
		}
	}
}

// The browser that goes away takes its request with it.
func TestPushEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t, offersPAR)
	r.mustLogin(t)
	r.op.Lie(func(k *claimstest.Knobs) { k.PARHandler = claimstest.Hang })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	err := r.src.Challenge(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx), newFlow())
	wantError(t, err, claims.ErrUnavailable)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}
