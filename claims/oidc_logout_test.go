package claims_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// logoutReasons is what the refusal of a lie speaks of, by the lie's name: a
// token that is refused for something else shows nothing.
var logoutReasons = []struct{ name, reason string }{
	{`^alg none|^HS256`, `not a signed JWT of an allowed algorithm`},
	{`^key of another|^alg of a key|^signature broken`, `no key of the provider fits`}, {`typ\b`, `another type`},
	{`^several aud`, `several audiences and no azp`}, {`aud\b`, `: aud `}, {`^azp`, `: azp `}, {`iss\b`, `: iss `},
	{`^an ID token with the event|^nonce`, `: a nonce`}, {`^an ID token|event`, `: events has no object`},
	{`jti`, `: jti `}, {`^neither`, `neither sub nor sid`}, {`^sub`, `: sub `}, {`^sid`, `: sid `},
	{`iat\b.*$`, `: (iat|exp) `}, {`^exp over`, `has expired`}, {`^exp`, `: exp `}, {`^nbf`, `: nbf `},
}

// OI-20, OI-21, OI-24: every lie about a logout token is refused, for what is
// wrong with it, and an honest token of the same provider is not.
func TestLogoutTokenLiesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.op.Alg = "RS256" })
	lies := r.op.LogoutLies()
	for name, lie := range map[string]claimstest.LogoutKnobs{
		"sub twice":         {Payload: replace(`"sub":"alice"`, `"sub":"alice","sub":"canary"`)},
		"sub in two cases":  {Payload: replace(`"sub":"alice"`, `"sub":"alice","SUB":"canary"`)},
		"only Events":       {Payload: replace(`"events":`, `"Events":`)},
		"only JTI":          {Payload: replace(`"jti":`, `"JTI":`)},
		"event twice":       {Payload: replace(`logout":{}`, `logout":{},"`+claimstest.LogoutEvent+`":{}`)},
		"invalid UTF-8":     {Payload: replace(`"sub":"alice"`, "\"sub\":\"ali\xffce\"")},
		"not an object":     {Payload: func([]byte) []byte { return []byte(`["canary"]`) }},
		"no JSON":           {Payload: func([]byte) []byte { return []byte(`canary`) }},
		"data after it":     {Payload: func(p []byte) []byte { return append(p, `{}`...) }},
		"crit nobody knows": {Header: func(h map[string]any) { h["crit"], h["canary"] = []string{"canary"}, true }},
	} {
		lies[name] = lie
	}
	for name, lie := range lies {
		l, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", "canary-sid", lie))
		if l != nil {
			t.Errorf("%s: believed: %+v", name, l)
		}
		wantError(t, err, claims.ErrProtocol)
		if lie.Payload != nil || lie.Header != nil && !strings.Contains(name, "typ") {
			continue // told above, or by the same words as others
		}
		for _, c := range logoutReasons {
			if regexp.MustCompile(c.name).MatchString(name) {
				if !regexp.MustCompile(c.reason).MatchString(err.Error()) {
					t.Errorf("%s: refused because %v", name, err)
				}
				break
			}
		}
	}
	for name, token := range map[string]string{
		"nothing": "", "no token": "canary", "OI-29 many dots": strings.Repeat(".", 60_000), "OI-29 a JWE": "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1cifQ.a.b.c.d",
	} {
		if _, err := r.src.VerifyLogout(t.Context(), token); err == nil {
			t.Errorf("%s: believed", name)
		} else {
			wantError(t, err, claims.ErrProtocol)
		}
	}
	if len(lies) < 60 {
		t.Fatalf("only %d lies", len(lies))
	}
	if _, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", "canary-sid")); err != nil {
		t.Errorf("control: %v", err)
	}
}

func replace(old, replacement string) func([]byte) []byte {
	return func(p []byte) []byte {
		out := bytes.Replace(p, []byte(old), []byte(replacement), 1)
		if bytes.Equal(out, p) {
			panic("the payload has no " + old)
		}
		return out
	}
}

// What a logout token may say and leave out, and what becomes of it.
func TestLogoutTokensAreRead(t *testing.T) {
	t.Parallel()
	claim := func(name string, v any) claimstest.LogoutKnobs {
		return claimstest.LogoutKnobs{Claims: set(name, v)}
	}
	// Not the time of this table: its parts wait for each other.
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	timed := func(name string, d time.Duration) claimstest.LogoutKnobs {
		return claimstest.LogoutKnobs{Claims: func(m map[string]any) { m[name] = at(d) }}
	}
	for name, c := range map[string]struct {
		sub, sid string
		lie      claimstest.LogoutKnobs
		lasts    time.Duration // from now to Expires
	}{
		"sub and sid":        {"alice", "s1", claimstest.LogoutKnobs{}, 2*time.Minute + 30*time.Second},
		"sub":                {"alice", "", claimstest.LogoutKnobs{}, 2*time.Minute + 30*time.Second},
		"sid":                {"", "s1", claimstest.LogoutKnobs{}, 2*time.Minute + 30*time.Second},
		"no exp":             {"alice", "", claimstest.LogoutKnobs{Claims: del("exp")}, 5 * time.Minute},
		"exp in an hour":     {"alice", "", timed("exp", time.Hour-time.Minute), 5 * time.Minute},
		"exp just passed":    {"alice", "", claimstest.LogoutKnobs{Claims: func(m map[string]any) { m["iat"], m["exp"] = at(-time.Minute), at(-10*time.Second) }}, 20 * time.Second},
		"iat just ahead":     {"alice", "", timed("iat", 30*time.Second), 2*time.Minute + 30*time.Second},
		"iat 4 minutes ago":  {"alice", "", timed("iat", -4*time.Minute), time.Minute},
		"aud as a list":      {"alice", "", claim("aud", []string{"portal"}), 2*time.Minute + 30*time.Second},
		"a member in events": {"alice", "", claim("events", map[string]any{claimstest.LogoutEvent: map[string]any{"x": 1}, "https://other.example": true}), 2*time.Minute + 30*time.Second},
		"other claims":       {"alice", "", claim("toe", 1), 2*time.Minute + 30*time.Second},
		"typ missing":        {"alice", "", claimstest.LogoutKnobs{Header: del("typ")}, 2*time.Minute + 30*time.Second},
		"typ JWT":            {"alice", "", claimstest.LogoutKnobs{Header: set("typ", "JWT")}, 2*time.Minute + 30*time.Second},
		"typ in full":        {"alice", "", claimstest.LogoutKnobs{Header: set("typ", "application/Logout+JWT")}, 2*time.Minute + 30*time.Second},
		"no kid":             {"alice", "", claimstest.LogoutKnobs{Header: del("kid")}, 2*time.Minute + 30*time.Second},
		"sub of 255 bytes":   {strings.Repeat("x", 255), "", claimstest.LogoutKnobs{}, 2*time.Minute + 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken(c.sub, c.sid, c.lie))
			if err != nil {
				t.Fatal(err)
			}
			if l.Subject != c.sub || strings.Join(l.Sessions, " ") != c.sid || l.ID == "" || time.Since(l.IssuedAt).Abs() > 5*time.Minute {
				t.Errorf("%+v", l)
			}
			if d := time.Until(l.Expires) - c.lasts; d.Abs() > 3*time.Second {
				t.Errorf("lasts %v, want %v", time.Until(l.Expires), c.lasts)
			}
		})
	}
}

// Nothing is believed after the time that Expires promises: what is remembered
// against replay until then is remembered for long enough.
func TestLogoutTokenIsRefusedAfterExpires(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]claimstest.LogoutKnobs{
		"by iat": {Claims: del("exp")}, "by exp": {}, "by iat, exp later": {Claims: set("exp", time.Now().Add(50*time.Minute).Unix())},
	} {
		r := newRig(t)
		token := r.op.LogoutToken("alice", "", lie)
		l, err := r.src.VerifyLogout(t.Context(), token)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.clock.advance(time.Until(l.Expires) - 2*time.Second)
		if _, err := r.src.VerifyLogout(t.Context(), token); err != nil {
			t.Errorf("%s: refused before its end: %v", name, err)
		}
		r.clock.advance(4 * time.Second)
		_, err = r.src.VerifyLogout(t.Context(), token)
		wantError(t, err, claims.ErrProtocol)
	}
}

// OI-24: a logout token is no ID token, at login and at refresh, even when it
// calls itself a plain JWT.
func TestLogoutTokenIsNoIDToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, grant := r.mustLogin(t)
	for name, lie := range map[string]claimstest.LogoutKnobs{
		"as it is": {}, "typ JWT": {Header: set("typ", "JWT")},
		"typ JWT with our nonce": {Header: set("typ", "JWT"), Claims: set("nonce", "canary-nonce-1")},
		"events in another case": {Header: set("typ", "JWT"), Claims: set("nonce", "canary-nonce-1"), Payload: replace(`"events":`, `"Events":`)},
	} {
		token := r.op.LogoutToken("alice", "", lie)
		r.op.Lie(func(k *claimstest.Knobs) { k.MutateToken = set("id_token", token) })
		_, _, err := r.login(t)
		wantError(t, err, claims.ErrProtocol)
		if _, _, err = r.src.Refresh(t.Context(), grant, "alice"); err == nil {
			t.Errorf("%s: renewed", name)
		}
		r.op.Honest()
		r.mustLogin(t)
	}
}

// OI-21: a provider that cannot be asked for its keys is not the token's fault.
func TestLogoutTokenWithTheProviderAway(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(k *claimstest.Knobs){
		"discovery": func(k *claimstest.Knobs) {
			k.DiscoveryHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		},
		"keys": func(k *claimstest.Knobs) {
			k.JWKSHandler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		},
		"keys hang": func(k *claimstest.Knobs) { k.JWKSHandler = claimstest.Hang },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Client.Timeout = time.Second })
			r.op.Lie(lie)
			_, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", ""))
			wantError(t, err, claims.ErrUnavailable)
			r.op.Honest()
			r.clock.advance(11 * time.Second)
			if _, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", "")); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
}

// OI-12: a flood of logout tokens is no flood of requests to the provider, and
// a new key is found all the same.
func TestLogoutTokenFloodReachesTheProviderOncePerInterval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.mustLogin(t)
	r.clock.advance(time.Minute)
	before := r.op.Calls("jwks")
	for i := range 100 {
		_, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", "", claimstest.LogoutKnobs{
			Alg: "wrong-key", Header: set("kid", fmt.Sprintf("canary-%d", i)),
		}))
		wantError(t, err, claims.ErrProtocol)
	}
	if n := r.op.Calls("jwks") - before; n != 1 {
		t.Errorf("%d fetches", n)
	}
	r.op.RotateKey(false, false)
	r.clock.advance(11 * time.Second)
	if _, err := r.src.VerifyLogout(t.Context(), r.op.LogoutToken("alice", "")); err != nil {
		t.Errorf("with a new key: %v", err)
	}
}

// FuzzLogoutToken, OI-20 and OI-21: whatever the token, nothing panics and
// nothing is believed that the provider did not sign; whatever payload the
// provider signs, what is believed has every part that section 2.6 asks for.
func FuzzLogoutToken(f *testing.F) {
	clock := func() time.Time { return time.Unix(1_800_000_000, 0) }
	const issuer = "https://idp.example.com"
	op := claimstest.NewOP(claimstest.Options{Issuer: issuer, ClientID: "portal", ClientSecret: "secret", Alg: "ES256", Now: clock})
	src := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Client: &http.Client{Transport: inProcess{op}}, Now: clock,
		Config: claims.OIDCConfig{Issuer: issuer, ClientID: "portal"}})
	key := op.Keys().Keys[0]
	payloadOf := func(token string) []byte {
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			return nil
		}
		payload, err := jws.Verify(key.Key)
		if err != nil {
			return nil
		}
		return payload
	}
	honest := op.LogoutToken("alice", "sid")
	if _, err := src.VerifyLogout(f.Context(), honest); err != nil {
		f.Fatal(err)
	}
	f.Add(honest, payloadOf(honest))
	for _, lie := range op.LogoutLies() {
		lie := op.LogoutToken("alice", "", lie)
		f.Add(lie, payloadOf(lie))
	}
	f.Fuzz(func(t *testing.T, token string, payload []byte) {
		if _, err := src.VerifyLogout(t.Context(), token); err == nil && payloadOf(token) == nil {
			t.Fatalf("believed without a signature: %q", token)
		}
		l, err := src.VerifyLogout(t.Context(), op.LogoutToken("", "", claimstest.LogoutKnobs{Payload: func([]byte) []byte { return payload }}))
		if err != nil {
			return
		}
		var said map[string]any
		if err := json.Unmarshal(payload, &said); err != nil {
			t.Fatalf("believed %q: %v", payload, err)
		}
		events, _ := said["events"].(map[string]any)
		_, object := events[claimstest.LogoutEvent].(map[string]any)
		_, nonce := said["nonce"]
		iat, number := said["iat"].(float64)
		sub, _ := said["sub"].(string)
		sid, _ := said["sid"].(string)
		switch age := 1_800_000_000 - iat; {
		case said["iss"] != issuer, !object, nonce, !number, age > 300, age < -60, said["jti"] != l.ID, l.ID == "",
			sub != l.Subject, sid != strings.Join(l.Sessions, " "), sub == "" && sid == "", !l.Expires.After(clock().Add(-time.Second)):
			t.Fatalf("believed %q as %+v", payload, l)
		}
	})
}
