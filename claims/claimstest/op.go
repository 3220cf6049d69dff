// Package claimstest has real servers for tests, benchmarks and the demo, with
// knobs for every lie a hostile one could tell, and a small browser to walk
// through them. The program itself never imports it; the demo does.
package claimstest

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Person is somebody the provider knows.
type Person struct {
	Subject     string
	Description string         // one line on the sign-in page
	Claims      map[string]any // of the ID token, beside the protocol's own
	Userinfo    map[string]any // of userinfo, beside sub
}

// Options is what a provider is made of.
type Options struct {
	Issuer       string             // may be set later with SetIssuer
	ClientID     string             // default "groupgate"
	ClientSecret string             // empty: a public client
	ClientKeys   []crypto.PublicKey // the client signs with one of them (private_key_jwt); then it has no secret
	PAR          bool               // offer pushed authorization requests (RFC 9126)
	RequirePAR   bool               // and take no others
	RedirectURIs []string           // empty: any
	People       []Person
	// AutoLogin signs this subject in without showing a page.
	AutoLogin string
	// RotateRefresh gives a new refresh token at every use and ends the old.
	RotateRefresh bool
	NoRefresh     bool          // give no refresh tokens
	TokenLifetime time.Duration // of the ID token; default 5 minutes
	TLS           bool          // for Start: serve https with a certificate of its own
	Alg           string        // RS256 (default) or ES256
	Now           func() time.Time
}

// OP is an OpenID provider. It is an http.Handler that serves its endpoints
// under the path of its issuer.
type OP struct {
	URL string // of the server that Start began, and its issuer

	opts       Options
	calls      callCounts
	assertions assertions

	mu      sync.Mutex
	issuer  string
	people  []Person
	knobs   Knobs
	keys    []signingKey // the first signs, all are published
	codes   map[string]*login
	access  map[string]*login
	refresh map[string]*login
	spent   map[string]*login // codes that were used
	pushed  map[string]pushed

	server *server
}

// login is one authorization and what came of it.
type login struct {
	subject, clientID, redirectURI string
	challenge, nonce, scope, sid   string
	authTime                       time.Time
	revoked                        bool
}

// Knobs make the provider lie or fail. The zero value is an honest provider.
type Knobs struct {
	MutateClaims  func(claims map[string]any)   // of the ID token, last
	MutatePayload func(payload []byte) []byte   // of the ID token, as bytes
	MutateHeader  func(header map[string]any)   // of the ID token
	MutateToken   func(answer map[string]any)   // of the token endpoint
	MutateReturn  func(query map[string]string) // of the redirect back to the client
	MutatePushed  func(answer map[string]any)   // of a pushed authorization request
	Discovery     func(document map[string]any)

	// Alg of the ID token: "none", "HS256" (with the public key as the
	// secret, PEM), "ES256" (a key that is not published), "wrong-key" (the
	// right algorithm and kid with another key), "garbled" (a broken
	// signature). Empty: honest.
	Alg string

	// Handlers in place of an endpoint's own.
	DiscoveryHandler, JWKSHandler, UserinfoHandler, TokenHandler, PARHandler http.HandlerFunc

	SignedUserinfo   bool                        // answer application/jwt
	UserinfoAlg      string                      // as Alg, of signed userinfo
	UserinfoClaims   func(claims map[string]any) // of userinfo, last
	RefreshNoIDToken bool                        // a refresh brings no ID token
	Delay            time.Duration               // before every answer
}

// NewOP makes a provider. It panics when the machine has no randomness.
func NewOP(opts Options) *OP {
	if opts.ClientID == "" {
		opts.ClientID = "groupgate"
	}
	if opts.TokenLifetime == 0 {
		opts.TokenLifetime = 5 * time.Minute
	}
	if opts.Alg == "" {
		opts.Alg = "RS256"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	op := &OP{
		opts:    opts,
		issuer:  opts.Issuer,
		people:  slices.Clone(opts.People),
		keys:    []signingKey{newSigningKey(opts.Alg)},
		codes:   map[string]*login{},
		access:  map[string]*login{},
		refresh: map[string]*login{},
		spent:   map[string]*login{},
	}
	op.SetClientKeys(opts.ClientKeys...)
	return op
}

// SetIssuer says under which address the provider is reached.
func (op *OP) SetIssuer(issuer string) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.issuer = issuer
}

// Issuer is the address the provider calls itself by.
func (op *OP) Issuer() string {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.issuer
}

// SetPerson adds a person, or replaces the one with the same subject.
func (op *OP) SetPerson(p Person) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if i := op.index(p.Subject); i >= 0 {
		op.people[i] = p
		return
	}
	op.people = append(op.people, p)
}

// SetClaims replaces a person's ID token claims from the next token on.
func (op *OP) SetClaims(subject string, claims map[string]any) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if i := op.index(subject); i >= 0 {
		op.people[i].Claims = claims
	}
}

// SetUserinfo replaces a person's userinfo claims.
func (op *OP) SetUserinfo(subject string, claims map[string]any) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if i := op.index(subject); i >= 0 {
		op.people[i].Userinfo = claims
	}
}

// RemovePerson forgets a person; refresh tokens then answer invalid_grant.
func (op *OP) RemovePerson(subject string) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if i := op.index(subject); i >= 0 {
		op.people = slices.Delete(op.people, i, i+1)
	}
}

// RevokeRefresh ends every refresh token.
func (op *OP) RevokeRefresh() {
	op.mu.Lock()
	defer op.mu.Unlock()
	clear(op.refresh)
}

// Lie changes the knobs.
func (op *OP) Lie(change func(*Knobs)) {
	op.mu.Lock()
	defer op.mu.Unlock()
	change(&op.knobs)
}

// Honest turns every knob back.
func (op *OP) Honest() { op.Lie(func(k *Knobs) { *k = Knobs{} }) }

// SetAutoLogin changes who is signed in without a page; empty shows the page.
func (op *OP) SetAutoLogin(subject string) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.opts.AutoLogin = subject
}

func (op *OP) index(subject string) int {
	return slices.IndexFunc(op.people, func(p Person) bool { return p.Subject == subject })
}

// person answers a copy.
func (op *OP) person(subject string) (Person, bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	i := op.index(subject)
	if i < 0 {
		return Person{}, false
	}
	p := op.people[i]
	p.Claims, p.Userinfo = maps.Clone(p.Claims), maps.Clone(p.Userinfo)
	return p, true
}

func (op *OP) lies() Knobs {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.knobs
}

// ServeHTTP serves the provider's endpoints.
func (op *OP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := op.lies()
	if k.Delay > 0 {
		select {
		case <-time.After(k.Delay):
		case <-r.Context().Done():
			return
		}
	}
	name := r.URL.Path
	if issuer, err := url.Parse(op.Issuer()); err == nil {
		name = strings.TrimPrefix(name, strings.TrimSuffix(issuer.Path, "/"))
	}
	name = strings.TrimPrefix(name, "/")
	op.calls.add(name)
	own := func(handler http.HandlerFunc, replacement http.HandlerFunc) {
		if replacement != nil {
			handler = replacement
		}
		handler(w, r)
	}
	switch name {
	case discoveryPath:
		own(op.discovery, k.DiscoveryHandler)
	case "jwks":
		own(op.jwks, k.JWKSHandler)
	case "token":
		own(op.token, k.TokenHandler)
	case "userinfo":
		own(op.userinfo, k.UserinfoHandler)
	case "authorize":
		op.authorize(w, r)
	case "par":
		own(op.par, k.PARHandler)
	case "end_session":
		op.endSession(w, r)
	default:
		http.NotFound(w, r)
	}
}

// Hang is a handler that never answers.
func Hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client went away
	<-r.Context().Done()
}

const discoveryPath = ".well-known/openid-configuration"

func (op *OP) discovery(w http.ResponseWriter, _ *http.Request) {
	issuer := op.Issuer()
	base := strings.TrimSuffix(issuer, "/")
	doc := map[string]any{
		"issuer":                                         issuer,
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"userinfo_endpoint":                              base + "/userinfo",
		"jwks_uri":                                       base + "/jwks",
		"end_session_endpoint":                           base + "/end_session",
		"response_types_supported":                       []string{"code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256", "ES256", "HS256", "none"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
		"frontchannel_logout_supported":                  true,
		"frontchannel_logout_session_supported":          true,
	}
	if op.opts.PAR || op.opts.RequirePAR {
		doc["pushed_authorization_request_endpoint"] = base + "/par"
		doc["require_pushed_authorization_requests"] = op.opts.RequirePAR
	}
	if mutate := op.lies().Discovery; mutate != nil {
		mutate(doc)
	}
	writeJSON(w, http.StatusOK, doc)
}

func (op *OP) jwks(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, op.Keys())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// token128 is an unguessable text.
func token128() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}
