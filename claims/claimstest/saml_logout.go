package claimstest

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// Bindings that a logout message travels by.
const (
	SAMLRedirect = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
	SAMLPost     = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
)

// SAMLLogout is what a LogoutRequest says (Core 3.7.1).
type SAMLLogout struct {
	NameID, Format string
	Sessions       []string // SessionIndex; empty: all of the person's
	RelayState     string
}

// Logout is the request that ends this login and no other.
func (l SAMLLogin) Logout() SAMLLogout {
	out := SAMLLogout{NameID: l.NameID, Format: l.Format}
	if l.SessionIndex != "" {
		out.Sessions = []string{l.SessionIndex}
	}
	return out
}

// SAMLLogoutKnobs make a logout message lie. The zero value is honest.
type SAMLLogoutKnobs struct {
	Mutate        func(message *etree.Element) // before it is signed
	MutateSigned  func(message *etree.Element) // after that, in a form
	MutateMessage func(message []byte) []byte  // the same as bytes, in a form; before signing, in a query
	Pack          func(message []byte) []byte  // in place of DEFLATE
	Escape        func(value string) string    // in place of url.QueryEscape
	MutateQuery   func(query string) string    // after it is signed
	MutateForm    func(form url.Values)

	Unsigned bool
	SigAlg   string        // default by the key
	Key      crypto.Signer // default the provider's
	// Signature is how a form's signature is made.
	Signature func(*SAMLSignature)
	// Status of an answer, in place of success: codes, the outer first.
	Status []string
}

func oneLogoutKnob(lies []SAMLLogoutKnobs) SAMLLogoutKnobs {
	if len(lies) > 0 {
		return lies[0]
	}
	return SAMLLogoutKnobs{}
}

// LogoutQuery makes the address that brings a LogoutRequest to a service by
// the HTTP-Redirect binding.
func (idp *SAMLIdP) LogoutQuery(to string, l SAMLLogout, lies ...SAMLLogoutKnobs) string {
	k := oneLogoutKnob(lies)
	return to + "?" + idp.query("SAMLRequest", idp.logoutRequest(to, l), l.RelayState, k)
}

// LogoutForm makes the form that brings a LogoutRequest to a service by the
// HTTP-POST binding.
func (idp *SAMLIdP) LogoutForm(to string, l SAMLLogout, lies ...SAMLLogoutKnobs) url.Values {
	return idp.form("SAMLRequest", idp.logoutRequest(to, l), l.RelayState, oneLogoutKnob(lies))
}

// LogoutAnswerQuery and LogoutAnswerForm are the same for the answer to a
// service's request.
func (idp *SAMLIdP) LogoutAnswerQuery(to, inResponseTo, relayState string, lies ...SAMLLogoutKnobs) string {
	k := oneLogoutKnob(lies)
	return to + "?" + idp.query("SAMLResponse", idp.logoutResponse(to, inResponseTo, k), relayState, k)
}

func (idp *SAMLIdP) LogoutAnswerForm(to, inResponseTo, relayState string, lies ...SAMLLogoutKnobs) url.Values {
	k := oneLogoutKnob(lies)
	return idp.form("SAMLResponse", idp.logoutResponse(to, inResponseTo, k), relayState, k)
}

func (idp *SAMLIdP) logoutXML(kind, to, more, inside string) *etree.Element {
	return SAMLElement(`<samlp:` + kind + ` xmlns:samlp="` + samlProtocolNS + `" xmlns:saml="` + samlAssertionNS + `" Version="2.0"` +
		xmlAttr("ID", samlID()) + xmlAttr("IssueInstant", samlTime(idp.options().Now())) + xmlAttr("Destination", to) + more + `><saml:Issuer>` +
		xmlText(idp.EntityID()) + `</saml:Issuer>` + inside + `</samlp:` + kind + `>`)
}

func (idp *SAMLIdP) logoutRequest(to string, l SAMLLogout) *etree.Element {
	inside := `<saml:NameID` + optionalAttr("Format", l.Format) + `>` + xmlText(l.NameID) + `</saml:NameID>`
	for _, s := range l.Sessions {
		inside += `<samlp:SessionIndex>` + xmlText(s) + `</samlp:SessionIndex>`
	}
	until := samlTime(idp.options().Now().Add(2 * time.Minute))
	return idp.logoutXML("LogoutRequest", to, xmlAttr("NotOnOrAfter", until), inside)
}

func (idp *SAMLIdP) logoutResponse(to, inResponseTo string, k SAMLLogoutKnobs) *etree.Element {
	status := k.Status
	if status == nil {
		status = []string{samlStatus + "Success"}
	}
	codes := ""
	for _, code := range slices.Backward(status) {
		codes = `<samlp:StatusCode` + xmlAttr("Value", code) + `>` + codes + `</samlp:StatusCode>`
	}
	return idp.logoutXML("LogoutResponse", to, optionalAttr("InResponseTo", inResponseTo), `<samlp:Status>`+codes+`</samlp:Status>`)
}

// signature is how the provider signs a logout message.
func (idp *SAMLIdP) signature(k SAMLLogoutKnobs) SAMLSignature {
	key, certificate := idp.SigningKey()
	s := SAMLSignature{Method: SAMLRSASHA256, Digest: SAMLSHA256, C14N: SAMLExclusive, Transforms: []string{SAMLEnveloped, SAMLExclusive}, Key: key, Certificate: certificate}
	if k.Key != nil {
		s.Key = k.Key
	}
	if _, rsaKey := s.Key.Public().(*rsa.PublicKey); !rsaKey {
		s.Method = SAMLECDSASHA256
	}
	if k.SigAlg != "" {
		s.Method = k.SigAlg
	}
	return s
}

// query carries a message by the HTTP-Redirect binding (Bindings 3.4.4.1).
func (idp *SAMLIdP) query(parameter string, message *etree.Element, relayState string, k SAMLLogoutKnobs) string {
	if k.Mutate != nil {
		k.Mutate(message)
	}
	raw := SAMLBytes(message)
	if k.MutateMessage != nil {
		raw = k.MutateMessage(raw)
	}
	pack := SAMLDeflate
	if k.Pack != nil {
		pack = k.Pack
	}
	escape := url.QueryEscape
	if k.Escape != nil {
		escape = k.Escape
	}
	query := parameter + "=" + escape(base64.StdEncoding.EncodeToString(pack(raw)))
	if relayState != "" {
		query += "&RelayState=" + escape(relayState)
	}
	if !k.Unsigned {
		s := idp.signature(k)
		query += "&SigAlg=" + escape(s.Method)
		query += "&Signature=" + escape(base64.StdEncoding.EncodeToString(s.value([]byte(query))))
	}
	if k.MutateQuery != nil {
		query = k.MutateQuery(query)
	}
	return query
}

// form carries a message by the HTTP-POST binding (Bindings 3.5.4).
func (idp *SAMLIdP) form(field string, message *etree.Element, relayState string, k SAMLLogoutKnobs) url.Values {
	if k.Mutate != nil {
		k.Mutate(message)
	}
	if !k.Unsigned {
		s := idp.signature(k)
		s.URI = "#" + message.SelectAttrValue("ID", "")
		if k.Signature != nil {
			k.Signature(&s)
		}
		s.Sign(message)
	}
	if k.MutateSigned != nil {
		k.MutateSigned(message)
	}
	raw := SAMLBytes(message)
	if k.MutateMessage != nil {
		raw = k.MutateMessage(raw)
	}
	form := url.Values{field: {base64.StdEncoding.EncodeToString(raw)}}
	if relayState != "" {
		form.Set("RelayState", relayState)
	}
	if k.MutateForm != nil {
		k.MutateForm(form)
	}
	return form
}

// SAMLDeflate packs a message for a query.
func SAMLDeflate(message []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(message)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // it writes to memory
	}
	return b.Bytes()
}

// SAMLLogoutMessage is a logout message of a service, whose signature held.
type SAMLLogoutMessage struct {
	Service, ID, Destination string
	RelayState               string
	Binding                  string

	// Of a request.
	NameID, Format, NameQualifier, SPNameQualifier string
	Sessions                                       []string
	// Of an answer.
	InResponseTo string
	Status       []string // codes, the outer first
}

type logoutXML struct {
	XMLName      xml.Name
	ID           string `xml:"ID,attr"`
	Version      string `xml:"Version,attr"`
	Destination  string `xml:"Destination,attr"`
	InResponseTo string `xml:"InResponseTo,attr"`
	Issuer       string `xml:"urn:oasis:names:tc:SAML:2.0:assertion Issuer"`
	NameID       struct {
		Value           string `xml:",chardata"`
		Format          string `xml:"Format,attr"`
		NameQualifier   string `xml:"NameQualifier,attr"`
		SPNameQualifier string `xml:"SPNameQualifier,attr"`
	} `xml:"urn:oasis:names:tc:SAML:2.0:assertion NameID"`
	Sessions []string `xml:"urn:oasis:names:tc:SAML:2.0:protocol SessionIndex"`
	Status   struct {
		Code struct {
			Value string `xml:"Value,attr"`
			Code  struct {
				Value string `xml:"Value,attr"`
			} `xml:"StatusCode"`
		} `xml:"StatusCode"`
	} `xml:"urn:oasis:names:tc:SAML:2.0:protocol Status"`
}

// ReadLogout reads a message that a service sent by the query of an address, or
// by a form when that is not nil. The service must be known, see [SAMLIdP.Trust],
// and have signed it.
func (idp *SAMLIdP) ReadLogout(address string, form url.Values) (*SAMLLogoutMessage, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	m := &SAMLLogoutMessage{Binding: SAMLPost}
	sent := form
	if form == nil {
		m.Binding, sent = SAMLRedirect, u.Query()
	}
	raw, err := base64.StdEncoding.DecodeString(sent.Get("SAMLRequest") + sent.Get("SAMLResponse"))
	if err == nil && form == nil {
		raw, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(raw)), 64<<10))
	}
	if err != nil {
		return nil, errors.New("the message is not packed as its binding says")
	}
	var x logoutXML
	if err := xml.Unmarshal(raw, &x); err != nil {
		return nil, fmt.Errorf("the message: %w", err)
	}
	want := "LogoutRequest"
	if sent.Has("SAMLResponse") {
		want = "LogoutResponse"
	}
	if x.XMLName != (xml.Name{Space: samlProtocolNS, Local: want}) || x.ID == "" || x.Version != "2.0" || x.Destination != u.Scheme+"://"+u.Host+u.Path {
		return nil, fmt.Errorf("not a %s for %s", want, address)
	}
	idp.mu.Lock()
	s := idp.services[x.Issuer]
	idp.mu.Unlock()
	if s == nil {
		return nil, errors.New("unknown service")
	}
	if form == nil {
		err = checkQuery(u.RawQuery, s.signing)
	} else {
		err = checkEnveloped(raw, s.signing)
	}
	if err != nil {
		return nil, err
	}
	m.Service, m.ID, m.Destination, m.RelayState = x.Issuer, x.ID, x.Destination, sent.Get("RelayState")
	m.NameID, m.Format, m.NameQualifier, m.SPNameQualifier = x.NameID.Value, x.NameID.Format, x.NameID.NameQualifier, x.NameID.SPNameQualifier
	m.Sessions, m.InResponseTo = x.Sessions, x.InResponseTo
	for _, code := range []string{x.Status.Code.Value, x.Status.Code.Code.Value} {
		if code != "" {
			m.Status = append(m.Status, strings.TrimPrefix(code, samlStatus))
		}
	}
	return m, nil
}

// checkEnveloped checks a signature inside a message with another's code than
// the one that is tested.
func checkEnveloped(message []byte, certificates []*x509.Certificate) error {
	el := SAMLElement(string(message))
	for i, c := range el.ChildElements() {
		if want := []string{"Issuer", "Signature"}; i < len(want) && c.Tag != want[i] {
			return errors.New("not in the order of the schema")
		}
	}
	ctx := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: certificates})
	ctx.IdAttribute = "ID"
	_, err := ctx.Validate(el)
	return err
}
