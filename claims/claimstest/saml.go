package claimstest

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"
)

// NameID formats (Core 8.3).
const (
	SAMLPersistent  = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
	SAMLTransient   = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	SAMLEmail       = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
	SAMLUnspecified = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
)

// SAMLPerson is somebody a SAML provider knows.
type SAMLPerson struct {
	NameID      string
	Format      string // of the NameID; default that of the provider
	Description string // one line on the sign-in page
	Attributes  map[string][]string
}

// SAMLOptions is what a SAML provider is made of.
type SAMLOptions struct {
	EntityID string // default URL + "/metadata"
	People   []SAMLPerson
	// AutoLogin signs this person in without showing a page.
	AutoLogin string
	TLS       bool // serve https with a certificate of its own

	SignResponse, SignAssertion bool          // neither: the assertion
	NoKeyInfo                   bool          // signatures do not say their key
	ECDSA                       bool          // an ECDSA P-256 key; default RSA
	Key                         crypto.Signer // the signing key; default a new one
	// Encrypt is "aes128-gcm", "aes192-gcm", "aes256-gcm", "aes128-cbc",
	// "aes192-cbc" or "aes256-cbc"; empty: assertions are not encrypted. It
	// needs the service's metadata, see [SAMLIdP.Trust].
	Encrypt string
	// KeyTransport is "oaep" (the default: OAEP with SHA-1), "oaep-sha256"
	// (with SHA-256 and the mask of SHA-1), "oaep11" (XML Encryption 1.1, all
	// SHA-256) or "rsa-1_5".
	KeyTransport string
	KeyBeside    bool // EncryptedKey beside EncryptedData, not inside

	NameIDFormat   string        // default persistent; "-": none is said
	NoSessionIndex bool          // sessions have no name
	SessionLength  time.Duration // SessionNotOnOrAfter; 0: none
	Lifetime       time.Duration // of assertions; default 5 minutes
	EncryptionKey  bool          // publish a key for encryption as well, see [SAMLIdP.EncryptionKey]
	WantSigned     bool          // take no unsigned AuthnRequest, and say so
	// Logout is how single logout is offered: "redirect", "post", "none", or
	// both when empty. LogoutAnswers has answers go to an address of their own.
	Logout          string
	LogoutAnswers   bool
	Now             func() time.Time
	AttributeFormat string // NameFormat; default basic
}

// SAMLIdP is a SAML identity provider. It is an http.Handler that serves its
// endpoints at /metadata, /sso, /start, /slo and /logout.
type SAMLIdP struct {
	URL string // of the server that StartSAML began

	opts  SAMLOptions
	calls callCounts

	mu         sync.Mutex
	people     []SAMLPerson
	knobs      SAMLKnobs
	keys       []samlKey // the first signs
	encryption *samlKey
	services   map[string]*samlService // by entity id
	logins     []SAMLLogin
	logouts    []SAMLLogoutMessage
	logoutLies SAMLLogoutKnobs

	server *server
}

// SAMLLogin is one assertion that was given.
type SAMLLogin struct {
	Service, NameID, Format, SessionIndex, AssertionID string
}

// SAMLKnobs make the provider lie or fail. The zero value is an honest one.
// What they change is signed and encrypted afterwards, unless they say else.
type SAMLKnobs struct {
	MutateAssertion func(assertion *etree.Element)
	MutateResponse  func(response *etree.Element) // with the signed, encrypted assertion in it
	MutatePlain     func(assertion []byte) []byte // signed, about to be encrypted
	MutateCipher    func(encrypted *etree.Element)
	MutateSigned    func(response *etree.Element) // after everything else
	MutateMessage   func(message []byte) []byte   // the same as bytes
	MutateForm      func(form url.Values)         // what the browser posts to the service
	MutateMetadata  func(metadata []byte) []byte

	Signature func(*SAMLSignature) // how every signature is made

	Status      []string // instead of success: codes, the outer first
	NoAssertion bool
	PostTo      string // another address than the service's

	MetadataHandler http.HandlerFunc // in place of the endpoint's own
	Delay           time.Duration    // before every answer
}

// SAMLRequest is what a response answers.
type SAMLRequest struct {
	ID         string // empty: nobody asked
	Service    string // entity id
	ACS        string // where the answer goes
	RelayState string
}

// NewSAML makes a provider. It panics when the machine has no randomness.
func NewSAML(opts SAMLOptions) *SAMLIdP {
	if opts.NameIDFormat == "" {
		opts.NameIDFormat = SAMLPersistent
	}
	if opts.Lifetime == 0 {
		opts.Lifetime = 5 * time.Minute
	}
	if !opts.SignResponse {
		opts.SignAssertion = true
	}
	if opts.AttributeFormat == "" {
		opts.AttributeFormat = "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	idp := &SAMLIdP{opts: opts, people: slices.Clone(opts.People), services: map[string]*samlService{}, keys: []samlKey{newSAMLKey(opts.ECDSA, opts.Key)}}
	if opts.EncryptionKey {
		k := newSAMLKey(false, nil)
		idp.encryption = &k
	}
	return idp
}

// StartSAML serves a provider on a free loopback port until the test ends.
func StartSAML(tb TB, opts SAMLOptions) *SAMLIdP {
	tb.Helper()
	return StartSAMLAt(tb, opts, "127.0.0.1:0")
}

// StartSAMLAt is StartSAML on a given address, for a provider that comes up
// late.
func StartSAMLAt(tb TB, opts SAMLOptions, address string) *SAMLIdP {
	tb.Helper()
	idp := NewSAML(opts)
	serve(tb, idp, opts.TLS, address, func(s *server, url string) { idp.server, idp.URL = s, url })
	return idp
}

// Stop ends the server that StartSAML began, at once.
func (idp *SAMLIdP) Stop() {
	if idp.server != nil {
		_ = idp.server.http.Close()
	}
}

// Roots trusts the provider's certificate; nil when it serves plain http.
func (idp *SAMLIdP) Roots() *x509.CertPool {
	if idp.server == nil {
		return nil
	}
	return idp.server.roots
}

// Client is an HTTP client that trusts the provider's certificate.
func (idp *SAMLIdP) Client() *http.Client { return trusting(idp.Roots()) }

// EntityID is what the provider calls itself.
func (idp *SAMLIdP) EntityID() string {
	if id := idp.options().EntityID; id != "" {
		return id
	}
	return idp.URL + "/metadata"
}

// Calls says how often an endpoint was asked: "metadata", "sso", "start" or
// "slo".
func (idp *SAMLIdP) Calls(endpoint string) int {
	idp.calls.mu.Lock()
	defer idp.calls.mu.Unlock()
	return idp.calls.byName[endpoint]
}

// Lie changes the knobs.
func (idp *SAMLIdP) Lie(change func(*SAMLKnobs)) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	change(&idp.knobs)
}

// Honest turns every knob back.
func (idp *SAMLIdP) Honest() { idp.Lie(func(k *SAMLKnobs) { *k = SAMLKnobs{} }) }

// Change changes how the provider works from the next answer on: what it
// signs and encrypts, and who is signed in without a page.
func (idp *SAMLIdP) Change(change func(*SAMLOptions)) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	change(&idp.opts)
}

// SetAutoLogin changes who is signed in without a page; empty shows the page.
func (idp *SAMLIdP) SetAutoLogin(nameID string) {
	idp.Change(func(o *SAMLOptions) { o.AutoLogin = nameID })
}

// SetPerson adds a person, or replaces the one with the same NameID.
func (idp *SAMLIdP) SetPerson(p SAMLPerson) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	if i := idp.index(p.NameID); i >= 0 {
		idp.people[i] = p
		return
	}
	idp.people = append(idp.people, p)
}

// Logins lists the assertions that were given, the oldest first.
func (idp *SAMLIdP) Logins() []SAMLLogin {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return slices.Clone(idp.logins)
}

func (idp *SAMLIdP) index(nameID string) int {
	return slices.IndexFunc(idp.people, func(p SAMLPerson) bool { return p.NameID == nameID })
}

func (idp *SAMLIdP) person(nameID string) (SAMLPerson, bool) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	i := idp.index(nameID)
	if i < 0 {
		return SAMLPerson{}, false
	}
	return idp.people[i], true
}

func (idp *SAMLIdP) lies() SAMLKnobs {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return idp.knobs
}

func (idp *SAMLIdP) options() SAMLOptions {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return idp.opts
}

// ServeHTTP serves the provider's endpoints.
func (idp *SAMLIdP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := idp.lies()
	if k.Delay > 0 {
		select {
		case <-time.After(k.Delay):
		case <-r.Context().Done():
			return
		}
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	idp.calls.add(name)
	switch {
	case name == "metadata" && k.MetadataHandler != nil:
		k.MetadataHandler(w, r)
	case name == "metadata":
		w.Header().Set("Content-Type", "application/samlmetadata+xml")
		_, _ = w.Write(idp.Metadata())
	case name == "sso":
		idp.sso(w, r)
	case name == "start":
		idp.start(w, r)
	case name == "slo", name == "slo/answers":
		idp.slo(w, r)
	case name == "logout":
		idp.logout(w, r)
	default:
		http.NotFound(w, r)
	}
}

// sso answers an AuthnRequest by the HTTP-Redirect binding (Bindings 3.4). The
// page posts back to the address it was shown at, so that the request travels
// in its query.
func (idp *SAMLIdP) sso(w http.ResponseWriter, r *http.Request) {
	req, err := idp.readRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	idp.choose(w, r, req)
}

// start is a login that begins here, for the only service that is known or the
// one that "service" names (Profiles 4.1.5).
func (idp *SAMLIdP) start(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	idp.mu.Lock()
	service := idp.services[q.Get("service")]
	for _, s := range idp.services {
		if len(idp.services) == 1 {
			service = s
		}
	}
	idp.mu.Unlock()
	if service == nil {
		http.Error(w, "unknown service", http.StatusBadRequest)
		return
	}
	idp.choose(w, r, SAMLRequest{Service: service.entityID, ACS: service.acs[0], RelayState: q.Get("RelayState")})
}

// choose signs somebody in, or shows the people.
func (idp *SAMLIdP) choose(w http.ResponseWriter, r *http.Request, req SAMLRequest) {
	chosen := idp.options().AutoLogin
	if hint := r.URL.Query().Get("person"); hint != "" {
		chosen = hint
	}
	if r.Method == http.MethodPost {
		chosen = r.PostFormValue("person")
		if r.PostFormValue("cancel") != "" {
			idp.post(w, req, idp.message(req, SAMLPerson{}, []string{samlStatus + "Responder", samlStatus + "RequestDenied"}))
			return
		}
	}
	if _, known := idp.person(chosen); !known {
		idp.page(w)
		return
	}
	message, err := idp.Respond(req, chosen)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	idp.post(w, req, message)
}

// Respond makes the response that signs a person in, as the browser would
// bring it, before base64.
func (idp *SAMLIdP) Respond(req SAMLRequest, nameID string) ([]byte, error) {
	p, known := idp.person(nameID)
	if !known {
		return nil, errors.New("unknown person")
	}
	return idp.message(req, p, idp.lies().Status), nil
}

// post shows the page that brings a message to the service (Bindings 3.5).
func (idp *SAMLIdP) post(w http.ResponseWriter, req SAMLRequest, message []byte) {
	k := idp.lies()
	form := url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString(message)}}
	if req.RelayState != "" {
		form.Set("RelayState", req.RelayState)
	}
	if k.MutateForm != nil {
		k.MutateForm(form)
	}
	to := req.ACS
	if k.PostTo != "" {
		to = k.PostTo
	}
	writePostPage(w, to, form)
}
