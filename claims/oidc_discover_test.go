package claims_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// canned answers every request with one document, without a network.
type canned func(address string) (status int, body string)

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := c(r.URL.String())
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func challenge(src *claims.OIDC) (*httptest.ResponseRecorder, error) {
	return challengeWith(src, newFlow())
}

func challengeWith(src *claims.OIDC, f *claims.Flow) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	return w, src.Challenge(w, httptest.NewRequest(http.MethodGet, "/", nil), f)
}

// OI-10: what a discovery document may say.
func TestDiscoveryIsHeldToItsIssuer(t *testing.T) {
	t.Parallel()
	const remote, local = "https://idp.example.com", "http://127.0.0.1:5556"
	for _, c := range []struct {
		name, issuer string
		mutate       func(map[string]any)
		ok           bool
	}{
		{"as it should be", remote, nil, true},
		{"with a path", remote + "/realms/main", nil, true},
		{"with a slash", remote + "/", nil, true},
		{"endpoints on another host", remote, set("token_endpoint", "https://login.example.net/token"), true},
		{"loopback over http", local, nil, true},
		{"localhost over http", "http://localhost:5556", nil, true},
		{"a name under localhost", "http://op.localhost:5556", nil, true},
		{"IPv6 loopback", "http://[::1]:5556", nil, true},
		{"loopback with an https endpoint elsewhere", local, set("token_endpoint", "https://login.example.net/token"), true},
		{"no userinfo, no end session", remote, func(m map[string]any) { delete(m, "userinfo_endpoint"); delete(m, "end_session_endpoint") }, true},

		{"issuer over http", "http://idp.example.com", nil, false},
		{"issuer that only looks like loopback", "http://127.0.0.1.example.com", nil, false},
		{"issuer localhost as a prefix", "http://localhost.example.com", nil, false},
		{"issuer with a user", "https://a:b@idp.example.com", nil, false},
		{"issuer of another", remote, set("issuer", "https://canary.example.net"), false},
		{"issuer with another slash", remote, set("issuer", remote+"/"), false},
		{"issuer in another case", remote, set("issuer", "https://IDP.example.com"), false},
		{"no issuer", remote, del("issuer"), false},
		{"http token endpoint", remote, set("token_endpoint", "http://idp.example.com/token"), false},
		{"http authorization endpoint", remote, set("authorization_endpoint", "http://idp.example.com/a"), false},
		{"http keys", remote, set("jwks_uri", "http://idp.example.com/jwks"), false},
		{"http userinfo", remote, set("userinfo_endpoint", "http://idp.example.com/u"), false},
		{"http end session", remote, set("end_session_endpoint", "http://idp.example.com/e"), false},
		{"http loopback token endpoint of a remote issuer", remote, set("token_endpoint", "http://127.0.0.1:8080/token"), false},
		{"https loopback token endpoint of a remote issuer", remote, set("token_endpoint", "https://localhost:8443/token"), false},
		{"link-local token endpoint", remote, set("token_endpoint", "https://169.254.169.254/token"), false},
		{"link-local in IPv6 dress", remote, set("token_endpoint", "https://[::ffff:169.254.169.254]/token"), false},
		{"unspecified address", remote, set("jwks_uri", "https://0.0.0.0/jwks"), false},
		{"loopback issuer, http endpoint elsewhere", local, set("token_endpoint", "http://idp.example.com/token"), false},
		{"another scheme", remote, set("authorization_endpoint", "javascript:alert(1)"), false},
		{"a path only", remote, set("token_endpoint", "/token"), false},
		{"an endpoint with a user", remote, set("token_endpoint", "https://a:b@idp.example.com/token"), false},
		{"no token endpoint", remote, del("token_endpoint"), false},
		{"no authorization endpoint", remote, del("authorization_endpoint"), false},
		{"no keys", remote, del("jwks_uri"), false},
		{"an endpoint that is no text", remote, set("token_endpoint", 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			base := strings.TrimSuffix(c.issuer, "/")
			doc := map[string]any{"issuer": c.issuer, "authorization_endpoint": base + "/a", "token_endpoint": base + "/t",
				"jwks_uri": base + "/jwks", "userinfo_endpoint": base + "/u", "end_session_endpoint": base + "/e"}
			if c.mutate != nil {
				c.mutate(doc)
			}
			text, _ := json.Marshal(doc)
			src := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Config: claims.OIDCConfig{Issuer: c.issuer, ClientID: "portal"},
				Client: &http.Client{Transport: canned(func(address string) (int, string) {
					if address != base+"/.well-known/openid-configuration" {
						return 404, ""
					}
					return 200, string(text)
				})}})
			w, err := challenge(src)
			if c.ok {
				if err != nil || w.Code != http.StatusFound {
					t.Errorf("%v, status %d", err, w.Code)
				}
				return
			}
			if !errors.Is(err, claims.ErrUnavailable) || len(w.Header()) > 0 || src.Ready() == nil {
				t.Errorf("error %v, header %v, ready %v", err, w.Header(), src.Ready())
			}
		})
	}
}

// PX-22, OI-10: a document that does not come, is none or has no end.
func TestDiscoveryFaults(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"500":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = w.Write([]byte("canary")) },
		"HTML":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>canary")) },
		"an array":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[]")) },
		"too large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) },
		"hangs":     claimstest.Hang,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Client.Timeout = time.Second })
			r.op.Lie(func(k *claimstest.Knobs) { k.DiscoveryHandler = handler })
			w, err := challenge(r.src)
			wantError(t, err, claims.ErrUnavailable)
			if len(w.Header()) > 0 || w.Body.Len() > 0 {
				t.Error("something was written beside the error")
			}
			_, _, err = r.src.Authenticate(httptest.NewRequest(http.MethodGet, "/cb?code=x&state=canary-state-1", nil), newFlow())
			wantError(t, err, claims.ErrUnavailable)
			_, _, err = r.src.Refresh(t.Context(), &claims.Grant{RefreshToken: "canary"}, "alice")
			wantError(t, err, claims.ErrUnavailable)
			r.op.Honest()
			r.mustLogin(t) // the next login finds it without Start
		})
	}
}

// SC-26: the provider may be down when we start: not ready, retried, then ready.
func TestProviderThatComesUpLate(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	_ = ln.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	src := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Client: client,
		Config: claims.OIDCConfig{Issuer: "http://" + address, ClientID: "groupgate"}})
	if err := src.Ready(); err == nil {
		t.Fatal("ready before anything was tried")
	}
	src.Start(t.Context())
	_, err = challenge(src)
	wantError(t, err, claims.ErrUnavailable)
	wantError(t, src.Ready(), claims.ErrUnavailable)

	op := claimstest.StartAt(t, claimstest.Options{Alg: "ES256"}, address)
	deadline := time.Now().Add(10 * time.Second)
	for src.Ready() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", src.Ready())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if op.Calls("discovery") != 1 || op.Calls("jwks") != 1 {
		t.Errorf("%d discoveries, %d key fetches", op.Calls("discovery"), op.Calls("jwks"))
	}
	if _, err := challenge(src); err != nil {
		t.Errorf("after it is up: %v", err)
	}
}

// Keys are part of being ready.
func TestNotReadyWithoutKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) { k.JWKSHandler = http.NotFound })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.src.Start(ctx)
	deadline := time.Now().Add(10 * time.Second)
	for r.op.Calls("jwks") == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	wantError(t, r.src.Ready(), claims.ErrUnavailable)
	r.op.Honest()
	for r.src.Ready() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", r.src.Ready())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Starting never waits for the provider, and ends with its context.
func TestStartReturnsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.DiscoveryHandler = claimstest.Hang
	})
	ctx, cancel := context.WithCancel(context.Background())
	begun := time.Now()
	r.src.Start(ctx)
	if took := time.Since(begun); took > 100*time.Millisecond {
		t.Errorf("Start took %v", took)
	}
	cancel() // goleak sees whether it ended
}

func TestParallelLoginsShareOneDiscovery(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 50 * time.Millisecond })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := challenge(r.src); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.op.Calls("discovery"); n != 1 {
		t.Errorf("%d discoveries", n)
	}
}

// One browser that goes away does not take the attempt of the others along.
func TestCancelledLoginDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) { k.Delay = 100 * time.Millisecond })
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		gone <- r.src.Challenge(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), newFlow())
	}()
	other := make(chan error)
	go func() { _, err := challenge(r.src); other <- err }()
	cancel()
	wantError(t, <-gone, claims.ErrUnavailable)
	if err := <-other; err != nil {
		t.Errorf("the other login: %v", err)
	}
}

func TestIssuerWithAPath(t *testing.T) {
	t.Parallel()
	op := claimstest.Start(t, claimstest.Options{ClientID: "portal", Alg: "ES256", AutoLogin: "alice", People: []claimstest.Person{{Subject: "alice"}}})
	op.SetIssuer(op.URL + "/realms/main/")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	r := &rig{op: op, src: claims.NewOIDC(claims.OIDCOptions{Name: "idp", Client: client, Config: claims.OIDCConfig{Issuer: op.Issuer(), ClientID: "portal"}})}
	r.mustLogin(t)
}

// OI-06: only algorithms that both sides know are used; HMAC and none never, even
// when nothing else is advertised.
func TestAdvertisedAlgorithms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		advertised any
		key        string
		ok         bool
	}{
		{"both", []string{"RS256", "ES256"}, "ES256", true},
		{"not advertised", []string{"RS256"}, "ES256", false},
		{"nothing advertised means RS256", nil, "RS256", true},
		{"only HS256 and none mean RS256", []string{"HS256", "none"}, "RS256", true},
		{"nothing advertised, ES256", nil, "ES256", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.op.Alg = c.key })
			r.op.Lie(func(k *claimstest.Knobs) {
				k.Discovery = func(doc map[string]any) {
					maps.DeleteFunc(doc, func(name string, _ any) bool { return name == "id_token_signing_alg_values_supported" })
					if c.advertised != nil {
						doc["id_token_signing_alg_values_supported"] = c.advertised
					}
				}
			})
			_, _, err := r.login(t)
			if c.ok && err != nil {
				t.Error(err)
			}
			if !c.ok {
				wantError(t, err, claims.ErrProtocol)
			}
		})
	}
}
