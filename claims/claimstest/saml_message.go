package claimstest

import (
	"encoding/hex"
	"encoding/xml"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
)

const (
	samlStatus      = "urn:oasis:names:tc:SAML:2.0:status:"
	samlAssertionNS = "urn:oasis:names:tc:SAML:2.0:assertion"
	samlProtocolNS  = "urn:oasis:names:tc:SAML:2.0:protocol"
)

// message makes a Response (Core 3.2.2, Profiles 4.1.4.2).
func (idp *SAMLIdP) message(req SAMLRequest, p SAMLPerson, status []string) []byte {
	k, o := idp.lies(), idp.options()
	response := SAMLElement(idp.responseXML(req, status, o))
	if status == nil && !k.NoAssertion {
		a, login := idp.assertion(req, p, o, k)
		idp.mu.Lock()
		idp.logins = append(idp.logins, login)
		idp.mu.Unlock()
		if o.Encrypt != "" {
			a = idp.encrypt(a, req.Service, o, k)
		}
		response.AddChild(a)
	}
	if k.MutateResponse != nil {
		k.MutateResponse(response)
	}
	if o.SignResponse {
		idp.Sign(response)
	}
	if k.MutateSigned != nil {
		k.MutateSigned(response)
	}
	message := SAMLBytes(response)
	if k.MutateMessage != nil {
		message = k.MutateMessage(message)
	}
	return message
}

// assertion makes the signed assertion.
func (idp *SAMLIdP) assertion(req SAMLRequest, p SAMLPerson, o SAMLOptions, k SAMLKnobs) (*etree.Element, SAMLLogin) {
	login := SAMLLogin{Service: req.Service, NameID: p.NameID, Format: p.Format, AssertionID: samlID()}
	if login.Format == "" {
		login.Format = strings.TrimPrefix(o.NameIDFormat, "-")
	}
	if !o.NoSessionIndex {
		login.SessionIndex = samlID()
	}
	a := SAMLElement(idp.assertionXML(req, p, login, o))
	if k.MutateAssertion != nil {
		k.MutateAssertion(a)
	}
	if o.SignAssertion {
		idp.Sign(a)
	}
	return a, login
}

func (idp *SAMLIdP) responseXML(req SAMLRequest, status []string, o SAMLOptions) string {
	if status == nil {
		status = []string{samlStatus + "Success"}
	}
	codes := ""
	for _, code := range slices.Backward(status) {
		codes = `<samlp:StatusCode` + xmlAttr("Value", code) + `>` + codes + `</samlp:StatusCode>`
	}
	return `<samlp:Response xmlns:samlp="` + samlProtocolNS + `" xmlns:saml="` + samlAssertionNS + `" Version="2.0"` +
		xmlAttr("ID", samlID()) + xmlAttr("IssueInstant", samlTime(o.Now())) + xmlAttr("Destination", req.ACS) +
		optionalAttr("InResponseTo", req.ID) + `><saml:Issuer>` + xmlText(idp.EntityID()) + `</saml:Issuer><samlp:Status>` + codes + `</samlp:Status></samlp:Response>`
}

func (idp *SAMLIdP) assertionXML(req SAMLRequest, p SAMLPerson, login SAMLLogin, o SAMLOptions) string {
	now := o.Now()
	until := samlTime(now.Add(o.Lifetime))
	sessionEnds := ""
	if o.SessionLength > 0 {
		sessionEnds = samlTime(now.Add(o.SessionLength))
	}
	var b strings.Builder
	b.WriteString(`<saml:Assertion xmlns:saml="` + samlAssertionNS + `" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" Version="2.0"` +
		xmlAttr("ID", login.AssertionID) + xmlAttr("IssueInstant", samlTime(now)) + `><saml:Issuer>` + xmlText(idp.EntityID()) + `</saml:Issuer>`)
	b.WriteString(`<saml:Subject><saml:NameID` + optionalAttr("Format", login.Format) + `>` + xmlText(p.NameID) + `</saml:NameID>` +
		`<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData` + optionalAttr("InResponseTo", req.ID) +
		xmlAttr("NotOnOrAfter", until) + xmlAttr("Recipient", req.ACS) + `/></saml:SubjectConfirmation></saml:Subject>`)
	b.WriteString(`<saml:Conditions` + xmlAttr("NotBefore", samlTime(now)) + xmlAttr("NotOnOrAfter", until) + `><saml:AudienceRestriction><saml:Audience>` +
		xmlText(req.Service) + `</saml:Audience></saml:AudienceRestriction></saml:Conditions>`)
	b.WriteString(`<saml:AuthnStatement` + xmlAttr("AuthnInstant", samlTime(now)) + optionalAttr("SessionIndex", login.SessionIndex) + optionalAttr("SessionNotOnOrAfter", sessionEnds) +
		`><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>`)
	if len(p.Attributes) > 0 {
		b.WriteString(`<saml:AttributeStatement>`)
		for _, name := range slices.Sorted(maps.Keys(p.Attributes)) {
			b.WriteString(`<saml:Attribute` + xmlAttr("Name", name) + xmlAttr("NameFormat", o.AttributeFormat) + `>`)
			for _, v := range p.Attributes[name] {
				b.WriteString(`<saml:AttributeValue xsi:type="xs:string">` + xmlText(v) + `</saml:AttributeValue>`)
			}
			b.WriteString(`</saml:Attribute>`)
		}
		b.WriteString(`</saml:AttributeStatement>`)
	}
	b.WriteString(`</saml:Assertion>`)
	return b.String()
}

// SAMLBytes writes an element as a document.
func SAMLBytes(el *etree.Element) []byte {
	doc := etree.NewDocument()
	doc.SetRoot(el.Copy())
	out, err := doc.WriteToBytes()
	if err != nil {
		panic(err) // it writes to memory
	}
	return out
}

func samlTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// samlID is an xs:ID: it does not begin with a digit.
func samlID() string { return "_" + hex.EncodeToString([]byte(token128())) }

func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder never fails
	return b.String()
}

func xmlAttr(name, value string) string { return ` ` + name + `="` + xmlText(value) + `"` }

func optionalAttr(name, value string) string {
	if value == "" {
		return ""
	}
	return xmlAttr(name, value)
}
