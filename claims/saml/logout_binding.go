package saml

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/groupgate/groupgate/claims"
)

// How a logout message travels through the browser: in a query that is signed
// as text (HTTP-Redirect, Bindings 3.4), or in a form with a signature inside
// (HTTP-POST, 3.5).

// carried is a message as its binding brought it. When it is signed, el is what
// the signature covers.
type carried struct {
	el      *etree.Element
	request bool
	signed  bool
	state   string // RelayState
}

var errQuery = errors.New("a query with other parameters than those of the binding, in their order")

// fromQuery reads a message out of a query as it was sent. Its parameters stand
// in the one order in which they are signed (3.4.4.1), each once and nothing
// beside them: what is checked is then what is read. The signature comes first,
// so that nothing is inflated for anybody else.
func (t *trust) fromQuery(query string) (*carried, error) {
	if strings.Count(query, "&") > 3 {
		return nil, errQuery
	}
	var names, values []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			return nil, errQuery
		}
		names, values = append(names, name), append(values, value)
	}
	c := &carried{request: names[0] == "SAMLRequest"}
	if !c.request && names[0] != "SAMLResponse" {
		return nil, errQuery
	}
	switch strings.Join(names[1:], " ") {
	case "":
	case "RelayState":
		c.state = values[1]
	case "SigAlg Signature":
		c.signed = true
	case "RelayState SigAlg Signature":
		c.signed, c.state = true, values[1]
	default:
		return nil, errQuery
	}
	switch {
	case c.signed:
		octets := query[:strings.LastIndexByte(query, '&')]
		if err := t.checkDetached(octets, values[len(values)-2], values[len(values)-1]); err != nil {
			return nil, err
		}
	case c.request:
		return nil, errUnsigned
	}
	message, err := inflate(values[0])
	if err != nil {
		return nil, err
	}
	c.el, err = parseMessage(message)
	return c, err
}

// checkDetached checks a signature over a query's octets against every trusted
// key.
func (t *trust) checkDetached(octets, algorithm, signature string) error {
	method, known := signatureMethods[algorithm]
	if !known {
		return errWeak
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil {
		return errors.New("the Signature is not base64")
	}
	for _, cert := range t.keys {
		if signedBy(cert, method, []byte(octets), raw) {
			return nil
		}
	}
	return errForeign
}

// inflate undoes the DEFLATE encoding (3.4.4.1). A few kilobytes can stand for
// gigabytes; what passes the bound of a message is not read.
func inflate(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("the message is not base64")
	}
	in := bytes.NewReader(raw)
	message, err := io.ReadAll(io.LimitReader(flate.NewReader(in), maxMessage+1))
	switch {
	case err != nil:
		return nil, errors.New("the message is not deflated")
	case len(message) > maxMessage:
		return nil, fmt.Errorf("the message is longer than %d bytes", maxMessage)
	case in.Len() > 0:
		return nil, errors.New("something behind the message")
	}
	return message, nil
}

// fromForm reads a message out of a form's fields. Others than the binding's,
// such as a button's, are passed over.
func (t *trust) fromForm(form url.Values) (*carried, error) {
	c := &carried{request: form.Has("SAMLRequest")}
	field := "SAMLResponse"
	if c.request {
		field = "SAMLRequest"
	}
	if len(form["SAMLRequest"])+len(form["SAMLResponse"]) != 1 || len(form["RelayState"]) > 1 {
		return nil, errors.New("not one message with at most one RelayState")
	}
	c.state = form.Get("RelayState")
	message, err := base64.StdEncoding.Strict().DecodeString(withoutBlanks(form.Get(field)))
	if err != nil {
		return nil, errors.New("the message is not base64")
	}
	el, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if err := checkTree(el); err != nil {
		return nil, err
	}
	sig, err := child(el, nsSignature, "Signature")
	switch {
	case err != nil:
		return nil, err
	case sig == nil && c.request:
		return nil, errUnsigned
	case sig != nil:
		c.signed = true
		if el, err = verified(el, t.keys); err != nil {
			return nil, err
		}
	}
	c.el = el
	return c, nil
}

// logoutMessage begins a message of ours.
func (s *Source) logoutMessage(kind, id, to string) *etree.Element {
	el := element("samlp:"+kind, "xmlns:samlp", nsProtocol, "xmlns:saml", nsAssertion,
		"ID", id, "Version", "2.0", "IssueInstant", s.now().UTC().Format("2006-01-02T15:04:05Z"), "Destination", to)
	add(el, element("saml:Issuer")).SetText(s.sp.EntityID)
	return el
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return "id-" + hex.EncodeToString(b[:])
}

// send signs a message and says how the browser carries it. Logout messages are
// signed whatever sign_requests says: the profile demands it (Profiles 4.4.3.1).
func (s *Source) send(binding, to, field string, el *etree.Element, state string) (*claims.Away, error) {
	if binding == saml.HTTPRedirectBinding {
		at, err := s.redirect(to, field, el, state, true)
		if err != nil {
			return nil, s.errorf("write logout", nil, "%w", err)
		}
		return &claims.Away{URL: at}, nil
	}
	message, err := s.signed(el)
	if err != nil {
		return nil, s.errorf("write logout", nil, "%w", err)
	}
	form := map[string]string{field: base64.StdEncoding.EncodeToString(message)}
	if state != "" {
		form["RelayState"] = state
	}
	return &claims.Away{URL: to, Form: form}, nil
}

// signed is a message with our signature in it, where the schema wants it:
// behind the issuer.
func (s *Source) signed(el *etree.Element) ([]byte, error) {
	signer, err := dsig.NewSigningContext(s.key, [][]byte{s.sp.Certificate.Raw})
	if err != nil {
		return nil, err
	}
	if err := signer.SetSignatureMethod(rsaSHA256); err != nil {
		return nil, err
	}
	signer.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	sig, err := signer.ConstructSignature(el, true)
	if err != nil {
		return nil, err
	}
	el.InsertChildAt(1, sig)
	doc := etree.NewDocument()
	doc.SetRoot(el)
	return doc.WriteToBytes()
}
