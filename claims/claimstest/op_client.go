package claimstest

import (
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Assertion is how a client signed itself in (private_key_jwt), as it came.
type Assertion struct {
	Header, Claims map[string]any
	Raw            string
}

// assertions checks clients that sign, by RFC 7523 section 3 and with no
// mercy: the provider of a test must refuse what a real one would.
type assertions struct {
	mu   sync.Mutex
	keys []crypto.PublicKey
	used map[string]bool // by jti
	seen []Assertion
}

func (a *assertions) set(keys []crypto.PublicKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = slices.Clone(keys)
}

func (a *assertions) wanted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.keys) > 0
}

func (a *assertions) all() []Assertion {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen)
}

var clientAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// check holds a request to its assertion.
func (a *assertions) check(r *http.Request, clientID string, audiences []string, now time.Time) error {
	if r.PostFormValue("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
		len(r.PostForm["client_assertion"]) != 1 || r.PostForm.Has("client_secret") || r.Header.Get("Authorization") != "" ||
		r.PostFormValue("client_id") != clientID {
		return errors.New("not one assertion of this client alone")
	}
	raw := r.PostFormValue("client_assertion")
	jws, err := jose.ParseSignedCompact(raw, clientAlgorithms)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var payload []byte
	for _, key := range a.keys {
		if payload, err = jws.Verify(key); err == nil {
			break
		}
	}
	if payload == nil {
		return errors.New("no key fits the signature")
	}
	var c struct {
		Iss, Sub, Aud, Jti string
		Iat, Nbf, Exp      int64
	}
	seen := Assertion{Raw: raw, Header: map[string]any{}}
	if err := json.Unmarshal(payload, &c); err != nil { // an aud that is a list as well
		return err
	}
	_ = json.Unmarshal(payload, &seen.Claims)
	header := jws.Signatures[0].Header
	for name, v := range header.ExtraHeaders {
		seen.Header[string(name)] = v
	}
	seen.Header["alg"] = header.Algorithm
	if header.KeyID != "" {
		seen.Header["kid"] = header.KeyID
	}
	switch t := now.Unix(); {
	case c.Iss != clientID, c.Sub != clientID:
		return errors.New("iss or sub is another client's")
	case !slices.Contains(audiences, c.Aud):
		return errors.New("aud is somebody else")
	case c.Exp <= t, c.Exp > t+60, c.Iat > t, c.Iat < t-60, c.Nbf > t:
		return errors.New("out of its time")
	case c.Jti == "", a.used[c.Jti]:
		return errors.New("jti is missing or used up")
	}
	if a.used == nil {
		a.used = map[string]bool{}
	}
	a.used[c.Jti] = true
	a.seen = append(a.seen, seen)
	return nil
}

// SetClientKeys replaces the keys with which the client may sign.
func (op *OP) SetClientKeys(keys ...crypto.PublicKey) { op.assertions.set(keys) }

// Assertions are those that were accepted, in order.
func (op *OP) Assertions() []Assertion { return op.assertions.all() }

// assertionOK checks a client that has to sign. Issuer and endpoints name the
// provider alike (RFC 9126 section 2).
func (op *OP) assertionOK(r *http.Request) bool {
	op.noteTokenAuth("private_key_jwt")
	issuer := op.Issuer()
	return op.assertions.check(r, op.opts.ClientID, []string{issuer, issuer + "/token", issuer + "/par"}, op.opts.Now()) == nil
}
