package claimstest

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const samlMetadataNS = "urn:oasis:names:tc:SAML:2.0:metadata"

// Metadata is the provider's metadata of now (Metadata 2.4.3).
func (idp *SAMLIdP) Metadata() []byte {
	idp.mu.Lock()
	keys, o, mutate := slices.Clone(idp.keys), idp.opts, idp.knobs.MutateMetadata
	idp.mu.Unlock()
	descriptor := func(use string, der []byte) string {
		return `<md:KeyDescriptor use="` + use + `"><ds:KeyInfo xmlns:ds="` + samlSignatureNS + `"><ds:X509Data><ds:X509Certificate>` +
			base64.StdEncoding.EncodeToString(der) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`
	}
	var b strings.Builder
	b.WriteString(`<md:EntityDescriptor xmlns:md="` + samlMetadataNS + `"` + xmlAttr("entityID", idp.EntityID()) +
		`><md:IDPSSODescriptor protocolSupportEnumeration="` + samlProtocolNS + `"`)
	if o.WantSigned {
		b.WriteString(` WantAuthnRequestsSigned="true"`)
	}
	b.WriteString(`>`)
	for _, k := range keys {
		b.WriteString(descriptor("signing", k.certificate))
	}
	if idp.encryption != nil {
		b.WriteString(descriptor("encryption", idp.encryption.certificate))
	}
	b.WriteString(idp.logoutMetadata(o)) // before single sign-on, says the schema
	b.WriteString(`<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"` + xmlAttr("Location", idp.URL+"/sso") +
		`/></md:IDPSSODescriptor></md:EntityDescriptor>`)
	out := []byte(b.String())
	if mutate != nil {
		out = mutate(out)
	}
	return out
}

// samlService is a service that signs people in here.
type samlService struct {
	entityID   string
	acs        []string          // the default first
	slo        map[string]string // address by binding
	signing    []*x509.Certificate
	encryption *rsa.PublicKey
}

type spMetadata struct {
	XMLName  xml.Name `xml:"urn:oasis:names:tc:SAML:2.0:metadata EntityDescriptor"`
	EntityID string   `xml:"entityID,attr"`
	SP       struct {
		Keys []struct {
			Use         string `xml:"use,attr"`
			Certificate string `xml:"KeyInfo>X509Data>X509Certificate"`
		} `xml:"KeyDescriptor"`
		ACS []struct {
			Binding  string `xml:"Binding,attr"`
			Location string `xml:"Location,attr"`
		} `xml:"AssertionConsumerService"`
		SLO []struct {
			Binding  string `xml:"Binding,attr"`
			Location string `xml:"Location,attr"`
		} `xml:"SingleLogoutService"`
	} `xml:"SPSSODescriptor"`
}

// Trust makes a service known by its metadata. From then on its requests are
// held to it: its address, and its signature when it publishes a key.
func (idp *SAMLIdP) Trust(metadata []byte) error {
	var m spMetadata
	if err := xml.Unmarshal(metadata, &m); err != nil {
		return fmt.Errorf("the service's metadata: %w", err)
	}
	s := &samlService{entityID: m.EntityID, slo: map[string]string{}}
	for _, l := range m.SP.SLO {
		s.slo[l.Binding] = l.Location
	}
	for _, a := range m.SP.ACS {
		if a.Binding == "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" {
			s.acs = append(s.acs, a.Location)
		}
	}
	for _, k := range m.SP.Keys {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(k.Certificate), ""))
		if err != nil {
			return fmt.Errorf("the service's certificate: %w", err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the service's certificate: %w", err)
		}
		if k.Use != "encryption" {
			s.signing = append(s.signing, cert)
		}
		if public, ok := cert.PublicKey.(*rsa.PublicKey); ok && k.Use != "signing" {
			s.encryption = public
		}
	}
	if s.entityID == "" || len(s.acs) == 0 {
		return errors.New("the service's metadata has no entity id or no address for the HTTP-POST binding")
	}
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.services[s.entityID] = s
	return nil
}

type authnRequest struct {
	XMLName     xml.Name `xml:"urn:oasis:names:tc:SAML:2.0:protocol AuthnRequest"`
	ID          string   `xml:"ID,attr"`
	Version     string   `xml:"Version,attr"`
	Destination string   `xml:"Destination,attr"`
	ACS         string   `xml:"AssertionConsumerServiceURL,attr"`
	Issuer      string   `xml:"urn:oasis:names:tc:SAML:2.0:assertion Issuer"`
}

// readRequest reads an AuthnRequest out of the query and holds it to what is
// known of its service. A service that is not known is believed, so that a
// test need not introduce it.
func (idp *SAMLIdP) readRequest(r *http.Request) (SAMLRequest, error) {
	q := r.URL.Query()
	raw, err := base64.StdEncoding.DecodeString(q.Get("SAMLRequest"))
	if err != nil {
		return SAMLRequest{}, errors.New("SAMLRequest is not base64")
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(raw)), 64<<10))
	if err != nil {
		return SAMLRequest{}, errors.New("SAMLRequest is not deflated")
	}
	var m authnRequest
	if err := xml.Unmarshal(text, &m); err != nil {
		return SAMLRequest{}, errors.New("SAMLRequest is no AuthnRequest")
	}
	if m.ID == "" || m.Version != "2.0" || m.Destination != "" && m.Destination != idp.URL+"/sso" {
		return SAMLRequest{}, errors.New("an AuthnRequest without ID or version, or for another address")
	}
	if len(q.Get("RelayState")) > 80 {
		return SAMLRequest{}, errors.New("a RelayState of more than 80 bytes (Bindings 3.4.3)")
	}
	req := SAMLRequest{ID: m.ID, Service: m.Issuer, ACS: m.ACS, RelayState: q.Get("RelayState")}
	idp.mu.Lock()
	s, wanted := idp.services[m.Issuer], idp.opts.WantSigned
	idp.mu.Unlock()
	if s == nil {
		if req.ACS == "" || wanted {
			return SAMLRequest{}, errors.New("unknown service")
		}
		return req, nil
	}
	if req.ACS == "" {
		req.ACS = s.acs[0]
	}
	if !slices.Contains(s.acs, req.ACS) {
		return SAMLRequest{}, errors.New("an address that is not the service's")
	}
	if wanted || q.Get("Signature") != "" {
		return req, checkQuery(r.URL.RawQuery, s.signing)
	}
	return req, nil
}

// checkQuery checks the signature over the query as it was sent (Bindings
// 3.4.4.1).
func checkQuery(query string, certificates []*x509.Certificate) error {
	sent := map[string]string{}
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		sent[name] = part
	}
	signed := sent["SAMLRequest"] + sent["SAMLResponse"] // it is one of them
	if relay, there := sent["RelayState"]; there {
		signed += "&" + relay
	}
	signed += "&" + sent["SigAlg"]
	values, err := url.ParseQuery(query)
	if err != nil || values.Get("SigAlg") != SAMLRSASHA256 {
		return errors.New("not signed with RSA-SHA256")
	}
	value, err := base64.StdEncoding.DecodeString(values.Get("Signature"))
	if err != nil {
		return errors.New("the signature is not base64")
	}
	sum := sha256.Sum256([]byte(signed))
	for _, c := range certificates {
		if public, ok := c.PublicKey.(*rsa.PublicKey); ok && rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], value) == nil {
			return nil
		}
	}
	return errors.New("the signature fits no key of the service")
}
