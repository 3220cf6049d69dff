package saml

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"

	"github.com/groupgate/groupgate/claims"
)

const (
	// entityTimeout is how long one login waits for metadata.
	entityTimeout = 10 * time.Second
	maxRelayState = 80 // bytes (Bindings 3.4.3)
	rsaSHA256     = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
)

// Challenge sends the browser to the provider with an AuthnRequest, by the
// HTTP-Redirect binding (Bindings 3.4).
func (s *Source) Challenge(w http.ResponseWriter, r *http.Request, f *claims.Flow) error {
	const step = "begin login"
	if f.State == "" || len(f.State) > maxRelayState || f.RequestID == "" {
		return s.errorf(step, nil, "the flow lacks a request id, or a state of at most %d bytes", maxRelayState)
	}
	ctx, cancel := context.WithTimeout(r.Context(), entityTimeout)
	defer cancel()
	e, err := s.keep.entity(ctx)
	if err != nil {
		return s.errorf("read metadata", claims.ErrUnavailable, "%w", err)
	}
	to := e.login[saml.HTTPRedirectBinding]
	req, err := s.authnRequest(to, f.RequestID)
	if err != nil {
		return s.errorf(step, nil, "%w", err)
	}
	location, err := s.redirect(to, "SAMLRequest", req, f.State, s.cfg.SignRequests || e.wantsSigned)
	if err != nil {
		return s.errorf(step, nil, "%w", err)
	}
	w.Header().Set("Cache-Control", "no-cache, no-store") // Bindings 3.4.5.1
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusFound)
	return nil
}

// authnRequest is a request (Core 3.4.1) that leaves to the provider how it
// makes sure who somebody is.
//
// Of the NameID it says no more than that one may be made (saml2int asks for
// that). A format in the request is an order: ADFS answers InvalidNameIDPolicy
// when its rules issue another, and the rest put it above what their
// administrator chose for us. Shibboleth and SimpleSAMLphp, which choose
// transient by themselves, read what we want in our metadata. Where an attribute
// is the subject the NameID does not matter, and nothing is said.
func (s *Source) authnRequest(to, id string) (*etree.Element, error) {
	req, err := s.sp.MakeAuthenticationRequest(to, saml.HTTPRedirectBinding, saml.HTTPPostBinding)
	if err != nil {
		return nil, err
	}
	req.ID, req.IssueInstant = id, s.now().UTC().Truncate(time.Second)
	req.NameIDPolicy = nil
	if s.cfg.Subject == claims.SubjectNameID {
		create := true
		req.NameIDPolicy = &saml.NameIDPolicy{AllowCreate: &create}
	}
	return req.Element(), nil
}

// redirect is the address that carries a message by the HTTP-Redirect binding,
// with a signature over exactly the parameters of ours (Bindings 3.4.4.1). The
// library signs what the provider's address has in its query as well, which no
// provider can verify.
func (s *Source) redirect(to, parameter string, message *etree.Element, relayState string, sign bool) (string, error) {
	u, err := url.Parse(to)
	if err != nil {
		return "", err
	}
	packed, err := deflate(message)
	if err != nil {
		return "", err
	}
	query := parameter + "=" + url.QueryEscape(packed)
	if relayState != "" {
		query += "&RelayState=" + url.QueryEscape(relayState)
	}
	if sign {
		query += "&SigAlg=" + url.QueryEscape(rsaSHA256)
		sum := sha256.Sum256([]byte(query))
		sig, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
		if err != nil {
			return "", err
		}
		query += "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(sig))
	}
	if u.RawQuery != "" {
		query = strings.TrimSuffix(u.RawQuery, "&") + "&" + query
	}
	u.RawQuery = query
	return u.String(), nil
}

// deflate is the DEFLATE encoding (Bindings 3.4.4.1).
func deflate(message *etree.Element) (string, error) {
	doc := etree.NewDocument()
	doc.SetRoot(message)
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := doc.WriteTo(w); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}
