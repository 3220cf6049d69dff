package claims_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

func set(name string, v any) func(map[string]any) { return func(m map[string]any) { m[name] = v } }
func del(name string) func(map[string]any)        { return func(m map[string]any) { delete(m, name) } }

// raw replaces text in the ID token's payload.
func raw(old, replacement string) func(k *claimstest.Knobs) {
	return func(k *claimstest.Knobs) {
		k.MutatePayload = func(p []byte) []byte { return bytes.Replace(p, []byte(old), []byte(replacement), 1) }
	}
}

func claimLie(mutate func(map[string]any)) func(k *claimstest.Knobs) {
	return func(k *claimstest.Knobs) { k.MutateClaims = mutate }
}

func headerLie(mutate func(map[string]any)) func(k *claimstest.Knobs) {
	return func(k *claimstest.Knobs) { k.MutateHeader = mutate }
}

func alg(name string) func(k *claimstest.Knobs) {
	return func(k *claimstest.Knobs) { k.Alg = name }
}

// S0-04: every lie about the ID token is refused, and the same provider, honest
// again, signs the person in.
func TestIDTokenLiesAreRefused(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, lie := range map[string]func(*claimstest.Knobs){
		"OI-02 nonce missing":         claimLie(del("nonce")),
		"OI-02 nonce empty":           claimLie(set("nonce", "")),
		"OI-02 nonce of another":      claimLie(set("nonce", "canary-nonce-2")),
		"OI-02 nonce in a list":       claimLie(set("nonce", []string{"canary-nonce-1"})),
		"OI-06 alg none":              alg("none"),
		"OI-06 HS256 with public key": alg("HS256"),
		"OI-06 key of another":        alg("wrong-key"),
		"OI-06 ES256 unpublished":     alg("ES256"),
		"OI-06 broken signature":      alg("garbled"),
		"OI-07 iss of another":        claimLie(set("iss", "https://canary.example")),
		"OI-07 iss with a slash": func(k *claimstest.Knobs) {
			k.MutateClaims = func(m map[string]any) { m["iss"] = m["iss"].(string) + "/" }
		},
		"OI-07 iss missing":            claimLie(del("iss")),
		"OI-07 aud of another":         claimLie(set("aud", "canary-client")),
		"OI-07 aud list of others":     claimLie(set("aud", []string{"canary-client"})),
		"OI-07 aud missing":            claimLie(del("aud")),
		"OI-07 aud empty list":         claimLie(set("aud", []string{})),
		"OI-07 aud a number":           claimLie(set("aud", 1)),
		"OI-07 several aud, no azp":    claimLie(set("aud", []string{"portal", "other"})),
		"OI-07 azp of another":         claimLie(set("azp", "canary-client")),
		"OI-07 azp no text":            claimLie(set("azp", []string{"portal"})),
		"OI-07 sub missing":            claimLie(del("sub")),
		"OI-07 sub empty":              claimLie(set("sub", "")),
		"OI-07 sub blank":              claimLie(set("sub", "  ")),
		"OI-07 sub a number":           claimLie(set("sub", 1)),
		"OI-07 sub null":               claimLie(set("sub", nil)),
		"OI-07 sub too long":           claimLie(set("sub", strings.Repeat("x", 256))),
		"OI-07 iat missing":            claimLie(del("iat")),
		"OI-07 iat in the future":      claimLie(set("iat", at(2*time.Minute))),
		"OI-07 iat in the year 2286":   claimLie(set("iat", 9999999999)),
		"OI-07 iat two days ago":       claimLie(set("iat", at(-48*time.Hour))),
		"OI-07 iat as text":            claimLie(set("iat", "1")),
		"exp missing":                  claimLie(del("exp")),
		"exp passed":                   claimLie(set("exp", at(-time.Minute))),
		"exp as text":                  claimLie(set("exp", "9999999999")),
		"SC-25 exp beyond all time":    claimLie(set("exp", 1e300)),
		"nbf in the future":            claimLie(set("nbf", at(2*time.Minute))),
		"OI-09 at_hash of another":     claimLie(set("at_hash", "canaryAAAAAAAAAAAAAAAA")),
		"OI-09 at_hash no text":        claimLie(set("at_hash", 1)),
		"OI-09 at_hash empty":          claimLie(set("at_hash", "")),
		"OI-24 logout token by typ":    headerLie(set("typ", "logout+jwt")),
		"OI-24 logout token, long typ": headerLie(set("typ", "application/Logout+JWT")),
		"OI-24 access token by typ":    headerLie(set("typ", "at+jwt")),
		"OI-24 logout token by events": claimLie(set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}})),
		"OI-24 events null":            claimLie(set("events", nil)),
		"sub twice":                    raw(`"sub":"alice"`, `"sub":"alice","sub":"canary"`),
		"sub in two cases":             raw(`"sub":"alice"`, `"sub":"alice","SUB":"canary"`),
		"only SUB":                     raw(`"sub":`, `"SUB":`),
		"sub with a long s":            raw(`"sub":"alice"`, `"sub":"alice","`+"\u017f"+`ub":"canary"`),
		"only Nonce":                   raw(`"nonce":`, `"Nonce":`),
		"only Aud":                     raw(`"aud":`, `"Aud":`),
		"only EXP":                     raw(`"exp":`, `"EXP":`),
		"only Email_Verified":          claimLie(set("Email_Verified", true)),
		"invalid UTF-8":                raw(`"sub":"alice"`, "\"sub\":\"ali\xffce\""),
		"not an object":                func(k *claimstest.Knobs) { k.MutatePayload = func([]byte) []byte { return []byte(`["canary"]`) } },
		"no JSON":                      func(k *claimstest.Knobs) { k.MutatePayload = func([]byte) []byte { return []byte(`canary`) } },
		"no ID token":                  func(k *claimstest.Knobs) { k.MutateToken = del("id_token") },
		"ID token empty":               func(k *claimstest.Knobs) { k.MutateToken = set("id_token", "") },
		"ID token no text":             func(k *claimstest.Knobs) { k.MutateToken = set("id_token", []string{"canary"}) },
		"OI-29 many dots":              func(k *claimstest.Knobs) { k.MutateToken = set("id_token", strings.Repeat(".", 100_000)) },
		"OI-29 a JWE": func(k *claimstest.Knobs) {
			k.MutateToken = set("id_token", "eyJhbGciOiJQQkVTMi1IUzI1NitBMTI4S1cifQ.a.b.c.d")
		},
		"OI-29 the JSON serialization": jsonSerialized,
		"header crit that nobody knows": headerLie(func(h map[string]any) {
			h["crit"], h["canary"] = []string{"canary"}, true
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.op.Lie(lie)
			id, g, err := r.login(t)
			if id != nil || g != nil {
				t.Errorf("an identity or grant beside the error")
			}
			wantError(t, err, claims.ErrProtocol)
			r.op.Honest()
			r.mustLogin(t)
		})
	}
}

// jsonSerialized sends a JWS in another form than the compact one, which is
// the only one for a JWT (RFC 7519 section 1).
func jsonSerialized(k *claimstest.Knobs) {
	k.MutateToken = func(answer map[string]any) {
		p := strings.Split(answer["id_token"].(string), ".")
		answer["id_token"] = `{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `"}`
	}
}

// What looks odd and is allowed.
func TestIDTokenOdditiesAreAccepted(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, lie := range map[string]func(*claimstest.Knobs){
		"aud as a list":             claimLie(set("aud", []string{"portal"})),
		"several aud with our azp":  claimLie(func(m map[string]any) { m["aud"], m["azp"] = []string{"other", "portal"}, "portal" }),
		"azp ours":                  claimLie(set("azp", "portal")),
		"OI-09 no at_hash":          claimLie(del("at_hash")),
		"OI-08 no kid":              headerLie(del("kid")),
		"no typ":                    headerLie(del("typ")),
		"exp just passed":           claimLie(func(m map[string]any) { m["exp"] = at(-10 * time.Second) }),
		"iat just ahead":            claimLie(func(m map[string]any) { m["iat"] = at(30 * time.Second) }),
		"SC-25 iat with a fraction": claimLie(set("iat", float64(at(-time.Second))+0.5)),
		"sub of 255 bytes":          claimLie(set("sub", strings.Repeat("x", 255))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.op.Lie(lie)
			r.mustLogin(t)
		})
	}
}

// OI-01, OI-05, OI-26: what comes back in the browser.
func TestCallbackLiesAreRefused(t *testing.T) {
	t.Parallel()
	errorAnswer := func(code string) func(map[string]string) {
		return func(q map[string]string) {
			delete(q, "code")
			q["error"], q["error_description"] = code, "<script>canary</script>"
		}
	}
	for _, c := range []struct {
		name   string
		mutate func(map[string]string)
		suffix string // of the query
		kind   error
	}{
		{"OI-05 iss of another", func(q map[string]string) { q["iss"] = "https://canary.example" }, "", claims.ErrProtocol},
		{"OI-05 iss missing", func(q map[string]string) { delete(q, "iss") }, "", claims.ErrProtocol},
		{"OI-05 iss empty", func(q map[string]string) { q["iss"] = "" }, "", claims.ErrProtocol},
		{"OI-05 error of another issuer", func(q map[string]string) { errorAnswer("access_denied")(q); q["iss"] = "https://canary.example" }, "", claims.ErrProtocol},
		{"OI-01 code twice", nil, "&code=canary", claims.ErrProtocol},
		{"OI-01 state twice", nil, "&state=canary", claims.ErrProtocol},
		{"OI-01 iss twice", nil, "&iss=canary", claims.ErrProtocol},
		{"OI-01 error twice", nil, "&error=access_denied&error=canary", claims.ErrProtocol},
		{"OI-01 state of another", func(q map[string]string) { q["state"] = "canary" }, "", claims.ErrProtocol},
		{"OI-01 state missing", func(q map[string]string) { delete(q, "state") }, "", claims.ErrProtocol},
		{"malformed query", nil, "&a=%zz", claims.ErrProtocol},
		{"code missing", func(q map[string]string) { delete(q, "code") }, "", claims.ErrProtocol},
		{"code empty", func(q map[string]string) { q["code"] = "" }, "", claims.ErrProtocol},
		{"code unknown", func(q map[string]string) { q["code"] = "canary" }, "", claims.ErrProtocol},
		{"OI-26 access_denied", errorAnswer("access_denied"), "", claims.ErrDenied},
		{"login_required", errorAnswer("login_required"), "", claims.ErrDenied},
		{"consent_required", errorAnswer("consent_required"), "", claims.ErrDenied},
		{"interaction_required", errorAnswer("interaction_required"), "", claims.ErrDenied},
		{"account_selection_required", errorAnswer("account_selection_required"), "", claims.ErrDenied},
		{"server_error", errorAnswer("server_error"), "", claims.ErrUnavailable},
		{"temporarily_unavailable", errorAnswer("temporarily_unavailable"), "", claims.ErrUnavailable},
		{"invalid_scope", errorAnswer("invalid_scope"), "", claims.ErrProtocol},
		{"an error nobody registered", errorAnswer("<script>canary"), "", claims.ErrProtocol},
		{"an error that is empty", errorAnswer(""), "", claims.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.op.Lie(func(k *claimstest.Knobs) { k.MutateReturn = c.mutate })
			f := newFlow()
			req := r.authorize(t, f)
			req.URL.RawQuery += c.suffix
			_, _, err := r.src.Authenticate(req, f)
			wantError(t, err, c.kind)
			if n := r.op.Calls("token"); n > 0 && c.name != "code unknown" {
				t.Errorf("the token endpoint was called %d times", n)
			}
			r.op.Honest()
			r.mustLogin(t)
		})
	}
}

// OI-05: a provider that does not announce RFC 9207 may leave iss out, but not
// lie.
func TestIssParameterIsOptionalUnlessAnnounced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.Discovery = del("authorization_response_iss_parameter_supported")
		k.MutateReturn = func(q map[string]string) { delete(q, "iss") }
	})
	r.mustLogin(t)
	r.op.Lie(func(k *claimstest.Knobs) {
		k.MutateReturn = func(q map[string]string) { q["iss"] = "https://canary.example" }
	})
	_, _, err := r.login(t)
	wantError(t, err, claims.ErrProtocol)
}

// OI-04: a code from another login does not fit this one's verifier, and a
// code works once.
func TestInjectedCodesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	theirs, ours := newFlow(), newFlow()
	theirs.Verifier = "canary-verifier-of-the-attacker-0123456789-012345"
	stolen := r.authorize(t, theirs)
	_, _, err := r.src.Authenticate(stolen, ours)
	wantError(t, err, claims.ErrProtocol)

	req := r.authorize(t, ours)
	if _, _, err := r.src.Authenticate(req, ours); err != nil {
		t.Fatalf("control: %v", err)
	}
	_, _, err = r.src.Authenticate(req, ours)
	wantError(t, err, claims.ErrProtocol)

	other := newFlow()
	req = r.authorize(t, other)
	other.RedirectURI += "x"
	_, _, err = r.src.Authenticate(req, other)
	wantError(t, err, claims.ErrProtocol)
}

// OI-28: faults of the token endpoint, and what they say about the login.
func TestTokenEndpointFaults(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		kind    error
	}{
		{"400 invalid_grant", status(400, `{"error":"invalid_grant","error_description":"canary"}`), claims.ErrProtocol},
		{"401 invalid_client", status(401, `{"error":"invalid_client"}`), claims.ErrProtocol},
		{"400 with a foreign code", status(400, `{"error":"canary"}`), claims.ErrProtocol},
		{"400 HTML", status(400, `<html>canary`), claims.ErrProtocol},
		{"200 with an error", status(200, `{"error":"invalid_grant"}`), claims.ErrProtocol},
		{"429", status(429, `canary`), claims.ErrUnavailable},
		{"500", status(500, `canary`), claims.ErrUnavailable},
		{"503", status(503, `{"error":"temporarily_unavailable"}`), claims.ErrUnavailable},
		{"200 HTML", status(200, `<html>canary`), claims.ErrUnavailable},
		{"200 empty object", status(200, `{}`), claims.ErrUnavailable},
		{"too large", status(200, `{"id_token":"`+strings.Repeat("canary", 200_000)+`"}`), claims.ErrUnavailable},
		{"hangs", claimstest.Hang, claims.ErrUnavailable},
		{"breaks off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, claims.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *setup) { s.src.Client.Timeout = time.Second })
			r.op.Lie(func(k *claimstest.Knobs) { k.TokenHandler = c.handler })
			_, _, err := r.login(t)
			wantError(t, err, c.kind)
			r.op.Honest()
			r.mustLogin(t)
		})
	}
}

// OI-28: a redirect from an endpoint is never followed, whatever its status:
// it would carry the code, the client's secret or a token elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, endpoint := range []string{"discovery", "token", "jwks", "userinfo"} {
			caught := make(chan string, 8)
			thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { caught <- req.URL.Path }))
			r := newRig(t, needs("missing"))
			lie := func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, thief.URL, status) }
			r.op.Lie(func(k *claimstest.Knobs) {
				switch endpoint {
				case "discovery":
					k.DiscoveryHandler = lie
				case "token":
					k.TokenHandler = lie
				case "jwks":
					k.JWKSHandler = lie
				case "userinfo":
					k.UserinfoHandler = lie
				}
			})
			var err error
			if endpoint == "discovery" {
				err = r.src.Challenge(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), newFlow())
			} else {
				var id *claims.Identity
				id, _, err = r.login(t)
				if endpoint == "userinfo" { // not fatal, see TestUserinfoThatDoesNotAnswer
					if err != nil || id.Claims.Incomplete() == "" {
						t.Errorf("userinfo %d: %v", status, err)
					}
					err = nil
				}
			}
			if endpoint != "userinfo" {
				wantError(t, err, claims.ErrUnavailable)
			}
			thief.Close()
			select {
			case path := <-caught:
				t.Errorf("%s %d: the redirect was followed to %s", endpoint, status, path)
			default:
			}
		}
	}
}

// OI-14: userinfo about somebody else, or of another shape, refuses the login.
func TestUserinfoLiesAreRefused(t *testing.T) {
	t.Parallel()
	body := func(contentType, text string) func(k *claimstest.Knobs) {
		return func(k *claimstest.Knobs) {
			k.UserinfoHandler = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", contentType)
				_, _ = w.Write([]byte(text))
			}
		}
	}
	signed := func(mutate func(map[string]any), alg string) func(k *claimstest.Knobs) {
		return func(k *claimstest.Knobs) { k.SignedUserinfo, k.UserinfoClaims, k.UserinfoAlg = true, mutate, alg }
	}
	for name, lie := range map[string]func(k *claimstest.Knobs){
		"sub of another": func(k *claimstest.Knobs) { k.UserinfoClaims = set("sub", "canary-bob") },
		"sub missing":    func(k *claimstest.Knobs) { k.UserinfoClaims = del("sub") },
		"sub empty":      func(k *claimstest.Knobs) { k.UserinfoClaims = set("sub", "") },
		"sub no text":    func(k *claimstest.Knobs) { k.UserinfoClaims = set("sub", []string{"alice"}) },
		"only SUB": func(k *claimstest.Knobs) {
			k.UserinfoClaims = func(m map[string]any) { delete(m, "sub"); m["SUB"] = "alice" }
		},
		"only Email_Verified":  func(k *claimstest.Knobs) { k.UserinfoClaims = set("Email_Verified", true) },
		"an array":             body("application/json", `[{"sub":"alice","groups":["canary"]}]`),
		"text":                 body("application/json", `"alice"`),
		"HTML":                 body("text/html", `<html>canary`),
		"sub twice":            body("application/json", `{"sub":"canary","sub":"alice"}`),
		"nothing":              body("application/json", ``),
		"JWT that is none":     body("application/jwt", `canary`),
		"JWT unsigned":         body("application/jwt", `eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.`),
		"signed, iss":          signed(set("iss", "https://canary.example"), ""),
		"signed, aud":          signed(set("aud", "canary-client"), ""),
		"signed, sub of other": signed(set("sub", "canary-bob"), ""),
		"signed by another":    signed(nil, "wrong-key"),
		"signed, then changed": signed(nil, "garbled"),
		"signed with HS256":    signed(nil, "HS256"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, needs("department"))
			r.op.Lie(lie)
			_, _, err := r.login(t)
			wantError(t, err, claims.ErrProtocol)
			r.op.Honest()
			if id, _ := r.mustLogin(t); id.Claims.Text("department") != "canary-sales" {
				t.Error("control: the claim of userinfo is not there")
			}
		})
	}
}

// oidcc-client-test-userinfo-signed.
func TestSignedUserinfoIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, needs("department"))
	r.op.Lie(func(k *claimstest.Knobs) {
		k.SignedUserinfo = true
		k.UserinfoClaims = func(m map[string]any) { m["iss"], m["aud"] = r.op.URL, "portal" }
	})
	if id, _ := r.mustLogin(t); id.Claims.Text("department") != "canary-sales" {
		t.Errorf("department is %v", id.Claims.Resolve("department"))
	}
}

// OI-14: userinfo that does not answer leaves the login alone, but what is
// missing is then unknown and not absent.
func TestUserinfoThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte("canary"))
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"401": status(401), "403": status(403), "404": status(404), "429": status(429), "500": status(500), "503": status(503),
		"hangs":     claimstest.Hang,
		"too large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("canary "), 200_000)) },
		"aborts":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, needs("department"), func(s *setup) { s.src.Client.Timeout = time.Second })
			r.op.Lie(func(k *claimstest.Knobs) { k.UserinfoHandler = handler })
			id, _ := r.mustLogin(t)
			got := id.Claims.Resolve("department")
			if got.State != claims.Unknown || !strings.HasPrefix(got.Why, "userinfo did not answer: ") || strings.Contains(got.Why, "canary") {
				t.Errorf("department: %+v", got)
			}
			if got := id.Claims.Resolve("groups"); got.State != claims.Complete {
				t.Errorf("groups of the ID token: %+v", got)
			}
			if r.logs.FilterMessageSnippet("userinfo did not answer").Len() != 1 {
				t.Error("no warning in the log")
			}
		})
	}
}

// The provider of the tests keeps the rule that our exact redirect URI is for.
func TestProviderRefusesAnUnknownRedirectURI(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.op.RedirectURIs = []string{"https://portal.example.com/other"} })
	w := httptest.NewRecorder()
	if err := r.src.Challenge(w, httptest.NewRequest(http.MethodGet, "/", nil), newFlow()); err != nil {
		t.Fatal(err)
	}
	resp, err := r.op.Client().Get(w.Header().Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an address that is not registered: %d", resp.StatusCode)
	}
}

// A flow that lost its secrets matches nothing, least of all an answer that
// lacks them too.
func TestEmptyIsNotEqualToEmpty(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := newFlow()
	req := r.authorize(t, f)
	q := req.URL.Query()
	q.Del("state")
	req.URL.RawQuery = q.Encode()
	f.State = ""
	_, _, err := r.src.Authenticate(req, f)
	wantError(t, err, claims.ErrProtocol)

	for name, lie := range map[string]func(map[string]any){"nonce missing": del("nonce"), "nonce empty": set("nonce", "")} {
		f = newFlow()
		r.op.Lie(func(k *claimstest.Knobs) { k.MutateClaims = lie })
		req = r.authorize(t, f)
		f.Nonce = ""
		if _, _, err := r.src.Authenticate(req, f); err == nil {
			t.Errorf("%s equals a flow without one", name)
		}
	}
	r.op.Honest()
	r.mustLogin(t)
}

// inProcess lets a handler answer for any host.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

// Google is known to leave the scheme of its issuer out; nobody else may.
func TestIssuerWithoutItsSchemeIsForGoogleOnly(t *testing.T) {
	t.Parallel()
	for issuer, ok := range map[string]bool{"https://accounts.google.com": true, "https://accounts.example.com": false} {
		op := claimstest.NewOP(claimstest.Options{Issuer: issuer, ClientID: "portal", Alg: "ES256", AutoLogin: "alice",
			People: []claimstest.Person{{Subject: "alice"}}})
		src := claims.NewOIDC(claims.OIDCOptions{Name: "idp", Client: &http.Client{Transport: inProcess{op}},
			Config: claims.OIDCConfig{Issuer: issuer, ClientID: "portal"}})
		login := func() error {
			f := newFlow()
			w, err := challengeWith(src, f)
			if err != nil {
				return err
			}
			back := httptest.NewRecorder()
			op.ServeHTTP(back, httptest.NewRequest(http.MethodGet, w.Header().Get("Location"), nil))
			_, _, err = src.Authenticate(httptest.NewRequest(http.MethodGet, back.Header().Get("Location"), nil), f)
			return err
		}
		if err := login(); err != nil {
			t.Fatalf("control: %v", err)
		}
		op.Lie(claimLie(set("iss", strings.TrimPrefix(issuer, "https://"))))
		if err := login(); (err == nil) != ok {
			t.Errorf("%s: %v, want ok %v", issuer, err, ok)
		}
	}
}
