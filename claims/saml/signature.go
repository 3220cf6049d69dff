package saml

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// Namespaces of SAML 2.0 and of what it stands on.
const (
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsMetadata  = "urn:oasis:names:tc:SAML:2.0:metadata"
	nsSignature = "http://www.w3.org/2000/09/xmldsig#"
	nsEncrypt   = "http://www.w3.org/2001/04/xmlenc#"
	nsEncrypt11 = "http://www.w3.org/2009/xmlenc11#"
	nsInstance  = "http://www.w3.org/2001/XMLSchema-instance"
)

const (
	envelopedSignature = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
	exclusiveC14N      = "http://www.w3.org/2001/10/xml-exc-c14n#"
)

// signatureMethods and digestMethods are what a signature may be made with:
// RSA and ECDSA with SHA-256 or better. SHA-1 is refused.
var (
	signatureMethods = map[string]x509.SignatureAlgorithm{
		"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256":   x509.SHA256WithRSA,
		"http://www.w3.org/2001/04/xmldsig-more#rsa-sha384":   x509.SHA384WithRSA,
		"http://www.w3.org/2001/04/xmldsig-more#rsa-sha512":   x509.SHA512WithRSA,
		"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256": x509.ECDSAWithSHA256,
		"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384": x509.ECDSAWithSHA384,
		"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512": x509.ECDSAWithSHA512,
	}
	digestMethods = map[string]crypto.Hash{
		"http://www.w3.org/2001/04/xmlenc#sha256":       crypto.SHA256,
		"http://www.w3.org/2001/04/xmldsig-more#sha384": crypto.SHA384,
		"http://www.w3.org/2001/04/xmlenc#sha512":       crypto.SHA512,
	}
)

// errWeak is a signature by an algorithm that is not accepted. It is told
// apart because an administrator can do something about it at the provider.
var errWeak = errors.New("signed with an algorithm that is not accepted (SHA-1 is not; RSA or ECDSA with SHA-256 or better is)")

// checkSignature holds the signature of el to the one shape that is accepted:
// by an allowed algorithm, with exactly one reference, to el itself, through
// no other transforms than leaving the signature out and exclusive
// canonicalisation. It answers nil when el is not signed.
func checkSignature(el *etree.Element) (*etree.Element, error) {
	sig, err := child(el, nsSignature, "Signature")
	if sig == nil || err != nil {
		return nil, err
	}
	id := attr(el, "ID")
	if id == "" {
		return nil, errors.New("a signed element without an ID")
	}
	info, err := needChild(sig, nsSignature, "SignedInfo")
	if err != nil {
		return nil, err
	}
	if !only(sig, "SignedInfo", "SignatureValue", "KeyInfo") {
		return nil, errOdd
	}
	if _, err := needChild(sig, nsSignature, "SignatureValue"); err != nil {
		return nil, err
	}
	if _, err := child(sig, nsSignature, "KeyInfo"); err != nil {
		return nil, err
	}
	if err := checkMethods(info); err != nil {
		return nil, err
	}
	ref, err := needChild(info, nsSignature, "Reference")
	if err != nil {
		return nil, err
	}
	if attr(ref, "URI") != "#"+id {
		return nil, errElsewhere
	}
	return sig, checkReference(ref)
}

// only reports whether an element has no other children than these of XML
// Signature. SignedInfo is canonicalised before anybody knows who made it, so
// what it can hold is bounded.
func only(el *etree.Element, names ...string) bool {
	for _, c := range el.ChildElements() {
		if c.NamespaceURI() != nsSignature || !slices.Contains(names, c.Tag) {
			return false
		}
	}
	return true
}

// bare reports whether a method or transform has nothing in it, or the list of
// prefixes that exclusive canonicalisation takes.
func bare(el *etree.Element) bool {
	list := el.ChildElements()
	switch {
	case len(list) == 0:
		return true
	case len(list) > 1 || attr(el, "Algorithm") != exclusiveC14N:
		return false
	}
	return is(list[0], exclusiveC14N, "InclusiveNamespaces") && len(list[0].ChildElements()) == 0
}

func checkMethods(info *etree.Element) error {
	if !only(info, "CanonicalizationMethod", "SignatureMethod", "Reference") {
		return errOdd
	}
	c14n, err := needChild(info, nsSignature, "CanonicalizationMethod")
	if err != nil {
		return err
	}
	if attr(c14n, "Algorithm") != exclusiveC14N {
		return errors.New("a signature with another canonicalisation than the exclusive one")
	}
	method, err := needChild(info, nsSignature, "SignatureMethod")
	if err != nil {
		return err
	}
	if _, known := signatureMethods[attr(method, "Algorithm")]; !known {
		return errWeak
	}
	if !bare(c14n) || !bare(method) {
		return errOdd
	}
	return nil
}

func checkReference(ref *etree.Element) error {
	if !only(ref, "Transforms", "DigestMethod", "DigestValue") {
		return errOdd
	}
	digest, err := needChild(ref, nsSignature, "DigestMethod")
	if err != nil {
		return err
	}
	if _, known := digestMethods[attr(digest, "Algorithm")]; !known {
		return errWeak
	}
	transforms, err := needChild(ref, nsSignature, "Transforms")
	if err != nil {
		return err
	}
	list := transforms.ChildElements()
	if len(list) != 2 || !is(list[0], nsSignature, "Transform") || !is(list[1], nsSignature, "Transform") ||
		attr(list[0], "Algorithm") != envelopedSignature || attr(list[1], "Algorithm") != exclusiveC14N {
		return errors.New("a signature with other transforms than enveloped-signature and exclusive canonicalisation")
	}
	value, err := needChild(ref, nsSignature, "DigestValue")
	if err != nil {
		return err
	}
	if !bare(digest) || !bare(list[0]) || !bare(list[1]) || !bare(value) {
		return errOdd
	}
	return nil
}

// verified checks the signature of el against every trusted key and answers el
// as the signed bytes say it, parsed anew: nothing else is ever read of it.
// What the message says about its key is not looked at, so that a provider may
// change keys with or without KeyInfo. A certificate only carries a key here:
// that it is to be trusted is what the metadata says, not its dates (SAML V2.0
// Metadata Interoperability Profile 2.6.1); those are warned about.
//
// The steps are XML Signature's core validation (section 3.2). The library's
// own stops at a thousand elements, which a person in a thousand groups has.
func verified(el *etree.Element, trusted []*x509.Certificate) (*etree.Element, error) {
	el = detach(el)
	sig, err := checkSignature(el)
	if err != nil {
		return nil, err
	}
	if sig == nil {
		return nil, errUnsigned
	}
	info, err := checkSignedInfo(sig, trusted)
	if err != nil {
		return nil, err
	}
	// From here on the reference is read from the bytes that were signed.
	ref, err := needChild(info, nsSignature, "Reference")
	if err != nil {
		return nil, err
	}
	if attr(ref, "URI") != "#"+attr(el, "ID") {
		return nil, errElsewhere
	}
	if err := checkReference(ref); err != nil {
		return nil, err
	}
	el.RemoveChild(sig) // the enveloped-signature transform
	transforms, _ := child(ref, nsSignature, "Transforms")
	signed, err := canonical(el, prefixes(transforms.ChildElements()[1]))
	if err != nil {
		return nil, err
	}
	if err := checkDigest(ref, signed); err != nil {
		return nil, err
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(signed); err != nil || doc.Root() == nil {
		return nil, errors.New("signed bytes that are no document")
	}
	return doc.Root(), nil
}

var (
	errOdd       = errors.New("a signature with something else in it")
	errUnsigned  = errors.New("not signed")
	errElsewhere = errors.New("a signature of something else than the element it stands in")
	errForeign   = errors.New("the signature fits no key of the provider")
	errChanged   = errors.New("changed after it was signed")
)

// checkSignedInfo checks the signature's value and answers SignedInfo parsed
// from the bytes it is of.
func checkSignedInfo(sig *etree.Element, trusted []*x509.Certificate) (*etree.Element, error) {
	info, err := needChild(sig, nsSignature, "SignedInfo")
	if err != nil {
		return nil, err
	}
	method, err := needChild(info, nsSignature, "SignatureMethod")
	if err != nil {
		return nil, err
	}
	algorithm, known := signatureMethods[attr(method, "Algorithm")]
	if !known {
		return nil, errWeak
	}
	c14n, err := needChild(info, nsSignature, "CanonicalizationMethod")
	if err != nil {
		return nil, err
	}
	signed, err := canonical(detach(info), prefixes(c14n))
	if err != nil {
		return nil, err
	}
	value, err := needChild(sig, nsSignature, "SignatureValue")
	if err != nil {
		return nil, err
	}
	raw, err := base64Text(value)
	if err != nil {
		return nil, err
	}
	for _, cert := range trusted {
		if !signedBy(cert, algorithm, signed, raw) {
			continue
		}
		doc := etree.NewDocument()
		if err := doc.ReadFromBytes(signed); err != nil || doc.Root() == nil {
			return nil, errors.New("signed bytes that are no document")
		}
		return doc.Root(), checkMethods(doc.Root())
	}
	return nil, errForeign
}

// signedBy reports whether the key of cert signed text. XML Signature writes
// an ECDSA signature as its two numbers one behind the other (1.1 section
// 6.4.3); some write them as the rest of the world does, in ASN.1.
func signedBy(cert *x509.Certificate, algorithm x509.SignatureAlgorithm, text, value []byte) bool {
	if cert.CheckSignature(algorithm, text, value) == nil {
		return true
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || len(value) != 2*((public.Params().BitSize+7)/8) {
		return false
	}
	half := len(value) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(value[:half]), new(big.Int).SetBytes(value[half:])})
	return err == nil && cert.CheckSignature(algorithm, text, der) == nil
}

func checkDigest(ref *etree.Element, signed []byte) error {
	method, err := needChild(ref, nsSignature, "DigestMethod")
	if err != nil {
		return err
	}
	value, err := needChild(ref, nsSignature, "DigestValue")
	if err != nil {
		return err
	}
	want, err := base64Text(value)
	if err != nil {
		return err
	}
	hash, known := digestMethods[attr(method, "Algorithm")]
	if !known {
		return errWeak
	}
	h := hash.New()
	h.Write(signed)
	if subtle.ConstantTimeCompare(h.Sum(nil), want) != 1 {
		return errChanged
	}
	return nil
}

// canonical is exclusive canonicalisation without comments. It changes el.
func canonical(el *etree.Element, prefixes string) ([]byte, error) {
	out, err := dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList(prefixes).Canonicalize(el)
	if err != nil {
		return nil, errors.New("namespaces that cannot be resolved")
	}
	return out, nil
}

// prefixes is the list of a transform's InclusiveNamespaces.
func prefixes(el *etree.Element) string {
	for _, c := range el.ChildElements() {
		if is(c, exclusiveC14N, "InclusiveNamespaces") {
			return attr(c, "PrefixList")
		}
	}
	return ""
}
