package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/groupgate/groupgate/proxy"
)

type asserted struct {
	jwt.Claims
	User   string   `json:"user"`
	Email  string   `json:"email"`
	Name   string   `json:"name"`
	Source string   `json:"source"`
	Groups []string `json:"groups"`
}

func (r *rig) keySet() (jose.JSONWebKeySet, string) {
	r.t.Helper()
	res := r.do("GET", "/_auth/jwks.json", nil)
	body := bodyOf(r.t, res)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		r.t.Fatal(err)
	}
	return set, body
}

// claimsOf verifies an assertion the way an application would: with the
// published keys and ES256 alone.
func claimsOf(t testing.TB, r *rig, token string) asserted {
	t.Helper()
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("assertion %q: %v", token, err)
	}
	set, _ := r.keySet()
	var out asserted
	if err := tok.Claims(set, &out); err != nil {
		t.Fatalf("assertion: %v", err)
	}
	return out
}

// Contract section 5 and SC-02.
func TestAssertion(t *testing.T) {
	t.Parallel()
	r := newRig(t, withSigner, portals)
	b := r.browser()
	r.login(b, "alice", "/")
	token := r.up.last(t).Header.Get("X-Groupgate-Assertion")
	got := claimsOf(t, r, token)
	u, err := r.store.UserByName(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]string{
		"iss": {got.Issuer, r.server.URL}, "sub": {got.Subject, u.ID.String()}, "user": {got.User, "alice"},
		"email": {got.Email, "alice@example.com"}, "name": {got.Name, "Alice Example"}, "source": {got.Source, "test"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
		}
	}
	equal(t, "aud", got.Audience, []string{r.server.URL})
	equal(t, "groups", got.Groups, []string{"admins", "engineering"})
	if life := time.Until(got.Expiry.Time()); life > time.Minute || life < 20*time.Second {
		t.Errorf("lives for %v", life)
	}
	if got.IssuedAt.Time().After(time.Now()) || time.Since(got.IssuedAt.Time()) > 10*time.Second {
		t.Errorf("issued at %v", got.IssuedAt.Time())
	}
	if _, err := b.Get(r.portal("eng.localhost") + "/x"); err != nil {
		t.Fatal(err)
	}
	onPortal := claimsOf(t, r, r.up.last(t).Header.Get("X-Groupgate-Assertion"))
	equal(t, "aud of a portal", onPortal.Audience, []string{r.portal("eng.localhost")})
	tampered := token[:len(token)-4] + "AAAA"
	if tok, err := jwt.ParseSigned(tampered, []jose.SignatureAlgorithm{jose.ES256}); err == nil {
		set, _ := r.keySet()
		if tok.Claims(set, &asserted{}) == nil {
			t.Error("a changed signature verifies")
		}
	}
}

// However old a session, an assertion that is sent is fresh.
func TestAssertionIsAlwaysFresh(t *testing.T) {
	t.Parallel()
	r := newRig(t, withSigner, func(r *rig) { r.settings.Session.Refresh = 24 * time.Hour })
	cookie := r.signIn("alice")
	for range 8 {
		r.clock.advance(17 * time.Second)
		r.do("GET", "/", signedIn(cookie))
		got := claimsOf(t, r, r.up.last(t).Header.Get("X-Groupgate-Assertion"))
		if left := got.Expiry.Time().Sub(r.clock.Now()); left > time.Minute || left < 25*time.Second {
			t.Errorf("%v are left", left)
		}
	}
}

// GV-09: the header is cut, the assertion is not.
func TestAssertionHoldsGroupsUncut(t *testing.T) {
	t.Parallel()
	names := numbered(2000)
	r := newRig(t, headers(proxy.HeadersConfig{MaxBytes: 100, OnOverflow: proxy.OverflowOmit}), withSigner, memberOf(names...))
	r.signIn("alice")
	h := r.up.last(t).Header
	if n := len(h.Get("X-Forwarded-Groups")); n > 100 {
		t.Errorf("the header has %d bytes", n)
	}
	equal(t, "omitted", h["X-Forwarded-Groups-Omitted"], []string{"1990"})
	equal(t, "groups", claimsOf(t, r, h.Get("X-Groupgate-Assertion")).Groups, sortedNames(names))
}

// SC-02: a rotation publishes both keys; each assertion says which it is of.
func TestKeySetHoldsOnlyPublicHalves(t *testing.T) {
	t.Parallel()
	first, err := proxy.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	second, err := proxy.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, withSigner, func(r *rig) {
		if r.settings.Signer, err = proxy.NewSigner(first, second); err != nil {
			t.Fatal(err)
		}
	})
	set, body := r.keySet()
	if len(set.Keys) != 2 || set.Keys[0].KeyID == set.Keys[1].KeyID {
		t.Fatalf("keys: %+v", set.Keys)
	}
	var raw struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(body), &raw); err != nil {
		t.Fatal(err)
	}
	for _, k := range raw.Keys {
		for member := range k {
			if !strings.Contains(" kty kid crv x y alg use ", " "+member+" ") {
				t.Errorf("the key set publishes %q", member)
			}
		}
		if k["kid"] == "" || k["alg"] != "ES256" || k["crv"] != "P-256" {
			t.Errorf("key %v", k)
		}
	}
	for _, k := range set.Keys {
		if !k.IsPublic() {
			t.Error("a private key is published")
		}
	}
	r.signIn("alice")
	before := r.up.last(t).Header.Get("X-Groupgate-Assertion")
	claimsOf(t, r, before)
	// The keys change places; what was signed before still verifies.
	if r.settings.Signer, err = proxy.NewSigner(second, first); err != nil {
		t.Fatal(err)
	}
	r.configure()
	claimsOf(t, r, before)
	cookie := r.signIn("bob")
	r.do("GET", "/", signedIn(cookie))
	after := r.up.last(t).Header.Get("X-Groupgate-Assertion")
	claimsOf(t, r, after)
	if keyID(t, before) == keyID(t, after) {
		t.Error("the new first key does not sign")
	}
}

func keyID(t *testing.T, token string) string {
	t.Helper()
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	return tok.Headers[0].KeyID
}

// PX-15: an upstream cannot answer with an assertion, nor learn one of others.
func TestAssertionIsNotAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t, withSigner)
	r.up.answer(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Groupgate-Assertion", req.Header.Get("X-Groupgate-Assertion"))
		w.Header().Set("X-Other", "kept")
	})
	cookie := r.signIn("alice")
	res := r.do("GET", "/", signedIn(cookie))
	if res.Header.Get("X-Groupgate-Assertion") != "" || res.Header.Get("X-Other") != "kept" {
		t.Errorf("answer: %v", res.Header)
	}
}

func TestKeySetIsEmptyWithoutAssertions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if set, body := r.keySet(); len(set.Keys) != 0 || !strings.Contains(body, `"keys":[]`) {
		t.Errorf("keys: %s", body)
	}
}
