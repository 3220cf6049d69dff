package claims_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func TestRefreshAnswersTheClaimsOfNow(t *testing.T) {
	t.Parallel()
	for name, rotate := range map[string]bool{"the token stays": false, "the token rotates": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.op.RotateRefresh = rotate })
			first, g := r.mustLogin(t)
			r.clock.advance(5 * time.Minute)
			r.op.SetClaims("alice", map[string]any{"groups": []string{"now"}})
			id, next, err := r.src.Refresh(t.Context(), g, "alice")
			if err != nil {
				t.Fatal(err)
			}
			if id.Source != "idp" || id.Subject != "alice" || id.Session != first.Session || !id.IssuedAt.After(first.IssuedAt) {
				t.Errorf("identity %+v after %+v", id, first)
			}
			if got := groupsOf(t, id, "groups"); len(got) != 1 || got[0] != "now" {
				t.Errorf("groups %q", got)
			}
			if (next.RefreshToken != g.RefreshToken) != rotate || next.RefreshToken == "" {
				t.Errorf("the refresh token changed: %v, want %v", next.RefreshToken != g.RefreshToken, rotate)
			}
			if next.IDToken == g.IDToken || next.IDToken == "" {
				t.Error("the new ID token is not kept")
			}
			if _, _, err := r.src.Refresh(t.Context(), next, "alice"); err != nil {
				t.Errorf("the second refresh: %v", err)
			}
			_, _, err = r.src.Refresh(t.Context(), g, "alice")
			if rotate {
				wantError(t, err, claims.ErrGrantEnded)
			} else if err != nil {
				t.Errorf("the first token again: %v", err)
			}
		})
	}
}

func TestRefreshWithoutATokenIsNotOurs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, g := range []*claims.Grant{nil, {}, {IDToken: "x"}} {
		_, _, err := r.src.Refresh(t.Context(), g, "alice")
		wantError(t, err, claims.ErrNoCredentials)
	}
	if r.op.Calls("token") != 0 {
		t.Error("the provider was asked")
	}
}

// OI-18: only invalid_grant ends the session; it is told by its code.
func TestRefreshEndsOnlyByInvalidGrant(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) func(*rig) {
		return func(r *rig) {
			r.op.Lie(func(k *claimstest.Knobs) {
				k.TokenHandler = func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					_, _ = w.Write([]byte(body))
				}
			})
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*rig)
		kind  error
	}{
		{"revoked", func(r *rig) { r.op.RevokeRefresh() }, claims.ErrGrantEnded},
		{"the person is gone", func(r *rig) { r.op.RemovePerson("alice") }, claims.ErrGrantEnded},
		{"invalid_grant with 401", answer(401, `{"error":"invalid_grant"}`), claims.ErrGrantEnded},
		{"invalid_client", answer(401, `{"error":"invalid_client"}`), claims.ErrUnavailable},
		{"invalid_grant in the description only", answer(400, `{"error":"invalid_request","error_description":"invalid_grant canary"}`), claims.ErrUnavailable},
		{"400 without a code", answer(400, `invalid_grant`), claims.ErrUnavailable},
		{"429", answer(429, ``), claims.ErrUnavailable},
		{"500", answer(500, `canary`), claims.ErrUnavailable},
		{"200 HTML", answer(200, `<html>`), claims.ErrUnavailable},
		{"hangs", func(r *rig) {
			r.op.Lie(func(k *claimstest.Knobs) {
				k.TokenHandler = claimstest.Hang
			})
		}, claims.ErrUnavailable},
		{"down", func(r *rig) { r.op.Stop() }, claims.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Client.Timeout = time.Second })
			_, g := r.mustLogin(t)
			if _, _, err := r.src.Refresh(t.Context(), g, "alice"); err != nil {
				t.Fatalf("control: %v", err)
			}
			c.spoil(r)
			id, next, err := r.src.Refresh(t.Context(), g, "alice")
			wantError(t, err, c.kind)
			if id != nil || next != nil {
				t.Error("an answer beside the error")
			}
			if (c.kind == claims.ErrUnavailable) == errors.Is(err, claims.ErrGrantEnded) {
				t.Errorf("%v says both", err)
			}
		})
	}
}

// TestRefreshWaitsForAKeyThatIsNotPublishedYet: a provider that signs with a
// new key before it publishes it must not sign everybody out. A key that is
// published and does not fit is a lie.
func TestRefreshWaitsForAKeyThatIsNotPublishedYet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, g := r.mustLogin(t)
	published := r.op.Keys()
	r.op.Lie(func(k *claimstest.Knobs) {
		k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(published) }
	})
	r.op.RotateKey(false, false)
	_, next, err := r.src.Refresh(t.Context(), g, "alice")
	wantError(t, err, claims.ErrUnavailable)
	if errors.Is(err, claims.ErrGrantEnded) || next == nil {
		t.Fatalf("the session is over: %v, grant %v", err, next != nil)
	}
	lying := newRig(t)
	_, g = lying.mustLogin(t)
	lying.op.RotateKey(false, true) // the old key id, another key
	lying.op.Lie(func(k *claimstest.Knobs) {
		k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(published) }
	})
	if _, _, err = lying.src.Refresh(t.Context(), g, "alice"); !errors.Is(err, claims.ErrGrantEnded) {
		t.Errorf("a false signature: %v", err)
	}
}

// OI-19: a refresh that speaks of somebody else, or breaks the protocol, ends
// the session.
func TestRefreshLiesEndTheSession(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(*claimstest.Knobs){
		"sub of another":  claimLie(set("sub", "canary-bob")),
		"sub missing":     claimLie(del("sub")),
		"iss of another":  claimLie(set("iss", "https://canary.example")),
		"aud of another":  claimLie(set("aud", "canary-client")),
		"expired":         claimLie(set("exp", 1)),
		"wrong signature": alg("wrong-key"),
		"alg none":        alg("none"),
		"at_hash":         claimLie(set("at_hash", "canary")),
		"userinfo's sub":  func(k *claimstest.Knobs) { k.MutateClaims, k.UserinfoClaims = del("groups"), set("sub", "canary-bob") },
		"userinfo only":   func(k *claimstest.Knobs) { k.RefreshNoIDToken, k.UserinfoClaims = true, set("sub", "canary-bob") },
		"userinfo an array": func(k *claimstest.Knobs) {
			k.RefreshNoIDToken = true
			k.UserinfoHandler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`[]`)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			_, g := r.mustLogin(t)
			r.op.Lie(lie)
			id, _, err := r.src.Refresh(t.Context(), g, "alice")
			wantError(t, err, claims.ErrGrantEnded)
			if id != nil || !errors.Is(err, claims.ErrProtocol) {
				t.Errorf("%v, want ErrProtocol as well", err)
			}
			r.op.Honest()
			if _, _, err := r.src.Refresh(t.Context(), g, "alice"); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
}

// OpenID Connect Core 1.0 section 12.2 leaves the nonce and even the ID token
// out of a refresh.
func TestRefreshOddities(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		lie    func(*claimstest.Knobs)
		needed string
		state  claims.State // of the needed claim
		value  string
		sameID bool // the old ID token stays
	}{
		{"no nonce", claimLie(del("nonce")), "groups", claims.Complete, "canary-eng", false},
		{"another nonce", claimLie(set("nonce", "x")), "groups", claims.Complete, "canary-eng", false},
		{"the claim only in userinfo", claimLie(del("groups")), "groups", claims.Complete, "canary-from-userinfo", false},
		{"no ID token", func(k *claimstest.Knobs) { k.RefreshNoIDToken = true }, "groups", claims.Complete, "canary-from-userinfo", true},
		{"no ID token, userinfo lacks it", func(k *claimstest.Knobs) { k.RefreshNoIDToken, k.UserinfoClaims = true, del("groups") }, "groups", claims.Absent, "", true},
		{"no ID token, userinfo down", func(k *claimstest.Knobs) {
			k.RefreshNoIDToken = true
			k.UserinfoHandler = http.NotFound
		}, "groups", claims.Unknown, "", true},
		{"userinfo down", func(k *claimstest.Knobs) { k.MutateClaims, k.UserinfoHandler = del("groups"), http.NotFound }, "groups", claims.Unknown, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, needs(c.needed))
			_, g := r.mustLogin(t)
			r.clock.advance(time.Minute)
			r.op.Lie(c.lie)
			id, next, err := r.src.Refresh(t.Context(), g, "alice")
			if err != nil {
				t.Fatal(err)
			}
			if got := id.Claims.Resolve(c.needed); got.State != c.state || c.value != "" && strings.Join(got.Values, " ") != c.value {
				t.Errorf("%+v, want %v %s", got, c.state, c.value)
			}
			if (next.IDToken == g.IDToken) != c.sameID || next.IDToken == "" {
				t.Errorf("the ID token stayed: %v, want %v", next.IDToken == g.IDToken, c.sameID)
			}
			if age := r.clock.now().Sub(id.IssuedAt); age < -2*time.Second || age > 30*time.Second {
				t.Errorf("issued %v ago", age)
			}
		})
	}
}

// A refresh that brings neither an ID token nor userinfo says nothing.
func TestRefreshThatSaysNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.Discovery = del("userinfo_endpoint")
		k.RefreshNoIDToken = true
	})
	_, g := r.mustLogin(t)
	id, next, err := r.src.Refresh(t.Context(), g, "alice")
	if err != nil || id.Subject != "alice" || len(id.Claims.Names()) != 0 || id.Claims.Incomplete() != "" || next.RefreshToken != g.RefreshToken {
		t.Errorf("%+v, %v", id, err)
	}
}

// OI-17: when the provider has rotated the token and the answer cannot be
// checked just now, the new token is not lost.
func TestRotatedTokenSurvivesAnUnavailableKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.op.RotateRefresh = true })
	_, g := r.mustLogin(t)
	r.clock.advance(time.Minute)
	r.op.RotateKey(false, false)
	r.op.Lie(func(k *claimstest.Knobs) { k.JWKSHandler = http.NotFound })
	id, next, err := r.src.Refresh(t.Context(), g, "alice")
	wantError(t, err, claims.ErrUnavailable)
	if id != nil || next == nil || next.RefreshToken == g.RefreshToken || next.IDToken != g.IDToken {
		t.Fatalf("the grant beside the error: %v", next != nil)
	}
	r.op.Honest()
	r.clock.advance(11 * time.Second)
	if _, _, err := r.src.Refresh(t.Context(), next, "alice"); err != nil {
		t.Errorf("with the new token: %v", err)
	}
}
