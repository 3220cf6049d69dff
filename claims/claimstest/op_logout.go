package claimstest

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// LogoutEvent is the member of "events" that makes a JWT a logout token.
const LogoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// LogoutKnobs make a logout token lie. The zero value is honest.
type LogoutKnobs struct {
	// Alg as in Knobs, and "HS256-secret": with the client's secret.
	Alg     string
	Header  func(header map[string]any)
	Claims  func(claims map[string]any)
	Payload func(payload []byte) []byte
	IDToken bool // an ID token of the same person and session instead
}

// LogoutToken makes a logout token (OpenID Connect Back-Channel Logout 1.0
// section 2.4) for a person, a session of the person, or both; an empty one is
// left out.
func (op *OP) LogoutToken(subject, sid string, lies ...LogoutKnobs) string {
	var k LogoutKnobs
	if len(lies) > 0 {
		k = lies[0]
	}
	now := op.opts.Now()
	claims := map[string]any{
		"iss": op.Issuer(), "aud": op.opts.ClientID, "jti": token128(),
		"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"events": map[string]any{LogoutEvent: map[string]any{}},
	}
	typ := "logout+jwt"
	if k.IDToken {
		claims = op.idClaims(&login{subject: subject, clientID: op.opts.ClientID, sid: sid, authTime: now}, token128(), Knobs{})
		typ = "JWT"
	}
	if subject != "" {
		claims["sub"] = subject
	}
	if sid != "" {
		claims["sid"] = sid
	}
	if k.Claims != nil {
		k.Claims(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err) // claims come from the test itself
	}
	if k.Payload != nil {
		payload = k.Payload(payload)
	}
	if k.Alg == "HS256-secret" {
		return hmacToken(payload, op.opts.ClientSecret)
	}
	return op.signPayload(payload, Knobs{Alg: k.Alg, MutateHeader: func(header map[string]any) {
		header["typ"] = typ
		if k.Header != nil {
			k.Header(header)
		}
	}})
}

// hmacToken signs by hand: the library refuses a secret as short as clients
// have them.
func hmacToken(payload []byte, secret string) string {
	signing := compact(map[string]any{"alg": "HS256", "typ": "logout+jwt"}, payload)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signing))
	return signing + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// LogoutLies are the logout tokens that nobody may believe, by name.
func (op *OP) LogoutLies() map[string]LogoutKnobs {
	claim := func(name string, v any) LogoutKnobs {
		return LogoutKnobs{Claims: func(c map[string]any) { c[name] = v }}
	}
	without := func(name string) LogoutKnobs {
		return LogoutKnobs{Claims: func(c map[string]any) { delete(c, name) }}
	}
	// The time of the token, not of this list.
	at := func(d time.Duration) int64 { return op.opts.Now().Add(d).Unix() }
	timed := func(name string, d time.Duration) LogoutKnobs {
		return LogoutKnobs{Claims: func(c map[string]any) { c[name] = at(d) }}
	}
	typ := func(v string) LogoutKnobs { return LogoutKnobs{Header: func(h map[string]any) { h["typ"] = v }} }
	event := func(v any) LogoutKnobs { return claim("events", map[string]any{LogoutEvent: v}) }
	long := strings.Repeat("x", 2000)
	return map[string]LogoutKnobs{
		"alg none": {Alg: "none"}, "alg of a key nobody published": {Alg: "ES256"}, "HS256 with the public key": {Alg: "HS256"},
		"HS256 with the client's secret": {Alg: "HS256-secret"}, "key of another": {Alg: "wrong-key"}, "signature broken": {Alg: "garbled"},
		"aud of another": claim("aud", "another-client"), "aud list of others": claim("aud", []string{"another-client"}), "no aud": without("aud"),
		"several aud, no azp": claim("aud", []string{op.opts.ClientID, "another-client"}), "azp of another": claim("azp", "another-client"),
		"iss of another": claim("iss", "https://another.example"), "no iss": without("iss"), "iss with a slash": claim("iss", op.Issuer()+"/"),
		"no events": without("events"), "another event": claim("events", map[string]any{LogoutEvent + "x": map[string]any{}}),
		"event null": event(nil), "event text": event("{}"), "event list": event([]any{}), "event true": event(true),
		"events a list": claim("events", []string{LogoutEvent}), "events text": claim("events", LogoutEvent), "events null": claim("events", nil),
		"nonce": claim("nonce", "n"), "nonce null": claim("nonce", nil), "nonce empty": claim("nonce", ""),
		"no jti": without("jti"), "jti empty": claim("jti", ""), "jti a number": claim("jti", 1), "jti long": claim("jti", long),
		"no iat": without("iat"), "iat text": claim("iat", "1"), "iat old": timed("iat", -6*time.Minute),
		"iat ahead": timed("iat", 2*time.Minute), "exp over": {Claims: func(c map[string]any) { c["iat"], c["exp"] = at(-3*time.Minute), at(-time.Minute) }},
		"exp in 3000 years": {Claims: func(c map[string]any) { c["exp"] = at(0) + 3000*365*24*3600 }}, "exp in two hours": timed("exp", 2*time.Hour),
		"exp before iat": timed("exp", -10*time.Second), "exp text": claim("exp", "9999999999"), "exp null": claim("exp", nil), "nbf ahead": timed("nbf", 2*time.Minute),
		"neither sub nor sid": {Claims: func(c map[string]any) { delete(c, "sub"); delete(c, "sid") }},
		"sub empty":           claim("sub", ""), "sub null": claim("sub", nil), "sub a list": claim("sub", []string{"x"}), "sub long": claim("sub", long),
		"sid empty": claim("sid", ""), "sid null": claim("sid", nil), "sid a number": claim("sid", 1), "sid long": claim("sid", long),
		"typ of an access token": typ("at+jwt"), "long typ of an access token": typ("application/AT+JWT"), "typ of another event token": typ("secevent+jwt"),
		"an ID token":                   {IDToken: true},
		"an ID token of the right type": {IDToken: true, Header: func(h map[string]any) { h["typ"] = "logout+jwt" }},
		"an ID token with the event": {IDToken: true, Claims: func(c map[string]any) {
			c["events"], c["nonce"] = map[string]any{LogoutEvent: map[string]any{}}, "n"
		}},
	}
}

// SIDs lists the sessions of a person here, oldest first.
func (op *OP) SIDs(subject string) []string {
	op.mu.Lock()
	defer op.mu.Unlock()
	var of []*login
	for _, l := range op.spent {
		if l.subject == subject {
			of = append(of, l)
		}
	}
	slices.SortFunc(of, func(a, b *login) int { return cmp.Or(a.authTime.Compare(b.authTime), cmp.Compare(a.sid, b.sid)) })
	sids := make([]string, len(of))
	for i, l := range of {
		sids[i] = l.sid
	}
	return sids
}

// BackchannelLogout tells a client at its back-channel logout address that a
// person, a session or both are over (section 2.5), and answers what the client
// said. The caller closes the body.
func (op *OP) BackchannelLogout(ctx context.Context, via *http.Client, address, subject, sid string, lies ...LogoutKnobs) (*http.Response, error) {
	return PostLogout(ctx, via, address, op.LogoutToken(subject, sid, lies...))
}

// PostLogout is BackchannelLogout with a token made before.
func PostLogout(ctx context.Context, via *http.Client, address, token string) (*http.Response, error) {
	form := url.Values{"logout_token": {token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return via.Do(req)
}
