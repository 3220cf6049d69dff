package saml

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// maxDrift is how far apart the clocks of replicas may be: one whose clock is
// slow must find a used assertion remembered, though another has forgotten
// those that are over by its own.
const maxDrift = 15 * time.Minute

// maxAge is how old a response may be when it arrives: it comes by a form that
// posts itself. How long the person took at the provider does not count.
const maxAge = 10 * time.Minute

const (
	bearer        = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
	statusPrefix  = "urn:oasis:names:tc:SAML:2.0:status:" // of the codes of Core 3.2.2.2
	statusSuccess = statusPrefix + "Success"
)

// trust is who may speak to whom: everything that a message is held to. It is
// made anew with every reading of the metadata and never changes.
type trust struct {
	idp   string // entity id of the provider
	keys  []*x509.Certificate
	sp    string // our entity id
	acs   url.URL
	key   *rsa.PrivateKey // ours, for decryption
	skew  time.Duration
	noted func(panicked any) // counts what a library's panic refused
}

// assertion is what the verified bytes of one assertion say.
type assertion struct {
	id           string
	issued       time.Time
	until        time.Time // past it the assertion is refused by its age
	sessionEnds  time.Time // zero: the provider does not say
	name         nameID
	sessionIndex string
	attributes   map[string]any // lists of text; null for what is not text
}

// nameID is a SAML name identifier (Core 2.2.2). It is the person's within its
// format and qualifiers only.
type nameID struct {
	Value       string `json:"v"`
	Format      string `json:"f,omitempty"`
	Qualifier   string `json:"q,omitempty"`
	SPQualifier string `json:"s,omitempty"`
}

// accept holds a Response (Core 3.2.2; Profiles 4.1.4) to everything that makes
// it an answer to requestID, for us, from the provider, now. requestID is ""
// for a response that nobody asked for. Everything in the result stands in the
// bytes that a key of the provider signed.
func (t *trust) accept(message []byte, requestID string, now time.Time) (a *assertion, err error) {
	defer t.guard(&err)
	root, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	form, err := checkShape(root)
	if err != nil {
		return nil, err
	}
	if err := t.checkResponse(root, form, requestID, now); err != nil {
		return nil, err
	}
	el, err := t.verify(root, form)
	if err != nil {
		return nil, err
	}
	return t.read(el, requestID, now)
}

// guard makes a refusal of a library's panic: libraries read pointers that a
// message can leave out.
func (t *trust) guard(err *error) {
	if fault := recover(); fault != nil {
		if t.noted != nil {
			t.noted(fault)
		}
		*err = errors.New("the message makes a library fail")
	}
}

// parseMessage makes a tree of a message whose bytes were counted.
func parseMessage(message []byte) (*etree.Element, error) {
	if err := scan(message); err != nil {
		return nil, err
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(message); err != nil || doc.Root() == nil {
		return nil, errors.New("not an XML document")
	}
	return doc.Root(), nil
}

// shape is how a response is built.
type shape struct {
	signed    bool // the response itself
	encrypted bool // its assertion
}

// checkShape wants one response with one assertion, and signatures only where
// they sign what they stand in. Wrapping attacks need a second of something,
// or something elsewhere.
func checkShape(root *etree.Element) (shape, error) {
	if !is(root, nsProtocol, "Response") {
		return shape{}, errors.New("not a SAML Response")
	}
	if err := checkTree(root); err != nil {
		return shape{}, err
	}
	sig, err := checkSignature(root)
	if err != nil {
		return shape{}, err
	}
	form := shape{signed: sig != nil}
	plain := children(root, nsAssertion, "Assertion")
	sealed := children(root, nsAssertion, "EncryptedAssertion")
	switch {
	case len(plain)+len(sealed) == 0:
		if err := checkStatus(root); err != nil {
			return shape{}, err
		}
		return shape{}, errors.New("a response without an assertion")
	case len(plain)+len(sealed) > 1:
		return shape{}, errors.New("a response with several assertions")
	case len(sealed) == 1:
		form.encrypted = true
		_, err := checkEncrypted(sealed[0], form.signed)
		return form, err
	}
	inner, err := checkSignature(plain[0])
	if err == nil && inner == nil && !form.signed {
		err = errors.New("neither the response nor its assertion is signed")
	}
	return form, err
}

// checkTree looks at every element: assertions and signatures nowhere but in
// their places, and no id twice.
func checkTree(root *etree.Element) error {
	ids := map[string]bool{}
	var walk func(el, parent *etree.Element) error
	walk = func(el, parent *etree.Element) error {
		for _, a := range el.Attr {
			if a.Space != "" || !strings.EqualFold(a.Key, "id") {
				continue
			}
			if a.Value == "" || ids[a.Value] {
				return errors.New("an ID that is empty or stands twice")
			}
			ids[a.Value] = true
		}
		switch el.Tag {
		case "Assertion", "EncryptedAssertion":
			if parent != root && el != root || el.NamespaceURI() != nsAssertion {
				return errors.New("an assertion out of its place")
			}
		case "Response":
			if el != root {
				return errors.New("a response out of its place")
			}
		case "Signature":
			home := parent == root || parent != nil && parent.Tag == "Assertion" && (parent.Parent() == root || parent == root)
			if !home || el.NamespaceURI() != nsSignature {
				return errors.New("a signature out of its place")
			}
		case "Advice", "Object":
			return errors.New("an element that could hide another (" + el.Tag + ")")
		}
		for _, c := range el.ChildElements() {
			if err := walk(c, el); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(root, nil)
}

// checkResponse looks at the response's own attributes. They may be unsigned:
// nothing of them is used but to refuse.
func (t *trust) checkResponse(root *etree.Element, form shape, requestID string, now time.Time) error {
	if attr(root, "Version") != "2.0" {
		return errors.New("not SAML 2.0")
	}
	switch to := attr(root, "Destination"); {
	case to == "" && form.signed: // Bindings 3.5.5.2
		return errors.New("a signed response without a Destination")
	case to != "" && to != t.acs.String():
		return errors.New("a response for another address (Destination)")
	}
	if hasAttr(root, "InResponseTo") != (requestID != "") || attr(root, "InResponseTo") != requestID {
		return errors.New("not an answer to this browser's request (InResponseTo)")
	}
	if _, err := checkIssued(root, maxAge, t.skew, now); err != nil {
		return err
	}
	issuer, err := child(root, nsAssertion, "Issuer")
	if err != nil {
		return err
	}
	switch {
	case issuer != nil:
		if err := t.checkIssuer(issuer); err != nil {
			return err
		}
	case form.signed || form.encrypted: // Profiles 4.1.4.2
		return errors.New("a response without an Issuer")
	}
	return checkStatus(root)
}

// refused is a provider's answer that says no.
type refused struct{ status string }

func (r *refused) Error() string { return "the provider answered " + r.status }

// checkStatus reads the status. Second-level codes say why (Core 3.2.2.2);
// messages beside them are foreign text.
func checkStatus(root *etree.Element) error {
	status, err := needChild(root, nsProtocol, "Status")
	if err != nil {
		return err
	}
	code, err := needChild(status, nsProtocol, "StatusCode")
	if err != nil {
		return err
	}
	if attr(code, "Value") == statusSuccess {
		return nil
	}
	said := attr(code, "Value")
	if second, _ := child(code, nsProtocol, "StatusCode"); second != nil {
		said = attr(second, "Value")
	}
	word, known := strings.CutPrefix(said, statusPrefix)
	if !known || len(word) > 40 || strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
		word = "with a status that SAML does not know"
	}
	return &refused{word}
}

func (t *trust) checkIssuer(el *etree.Element) error {
	text, ok := textOf(el)
	if format := attr(el, "Format"); !ok || format != "" && format != "urn:oasis:names:tc:SAML:2.0:nameid-format:entity" {
		return errors.New("an issuer that is no entity id")
	}
	if strings.TrimSpace(text) != t.idp {
		return errors.New("issued by another provider (Issuer)")
	}
	return nil
}

// checkIssued holds IssueInstant to the recent past, which bounds how long a
// used message has to be remembered.
func checkIssued(el *etree.Element, age, skew time.Duration, now time.Time) (time.Time, error) {
	at, err := instant(el, "IssueInstant")
	switch {
	case err != nil:
	case at.After(now.Add(skew)):
		err = errors.New("issued in the future (IssueInstant): do the clocks agree?")
	case at.Before(now.Add(-age - skew)):
		err = errors.New("issued too long ago (IssueInstant)")
	}
	return at, err
}

// instant reads an xs:dateTime in UTC (Core 1.3.3).
func instant(el *etree.Element, name string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, attr(el, name))
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s of %s is not a time", name, el.Tag)
	}
	return at, nil
}

// verify answers the assertion as the signed bytes say it.
func (t *trust) verify(root *etree.Element, form shape) (el *etree.Element, err error) {
	if form.signed {
		if root, err = verified(root, t.keys); err != nil {
			return nil, err
		}
	}
	if form.encrypted {
		sealed, err := needChild(root, nsAssertion, "EncryptedAssertion")
		if err != nil {
			return nil, err
		}
		if el, err = t.decrypt(sealed, form.signed); err != nil {
			return nil, err
		}
	} else if el, err = needChild(root, nsAssertion, "Assertion"); err != nil {
		return nil, err
	}
	// An assertion that is signed as well is held to its own signature too.
	sig, err := child(el, nsSignature, "Signature")
	switch {
	case err != nil:
	case sig == nil && form.signed:
		return el, nil
	default:
		el, err = verified(el, t.keys)
	}
	if err != nil && form.encrypted && !form.signed {
		// Anybody can encrypt for us: what was inside must not be told apart
		// from what could not be opened.
		err = errDecrypt
	}
	return el, err
}
