package claimstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for lies
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// Algorithms of XML Signature.
const (
	SAMLRSASHA256   = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	SAMLECDSASHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
	SAMLSHA256      = "http://www.w3.org/2001/04/xmlenc#sha256"
	SAMLExclusive   = "http://www.w3.org/2001/10/xml-exc-c14n#"
	SAMLInclusive   = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	SAMLEnveloped   = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
)

const samlSignatureNS = "http://www.w3.org/2000/09/xmldsig#"

// samlHashes are by the end of an algorithm's name.
var samlHashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

type samlKey struct {
	private     crypto.Signer
	certificate []byte // DER
}

func newSAMLKey(ec bool, private crypto.Signer) samlKey {
	var err error
	switch {
	case private != nil:
	case ec:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err) // no randomness: nothing in a test could go on
	}
	der, err := SAMLCertificate(private, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	if err != nil {
		panic(err)
	}
	return samlKey{private, der}
}

// SAMLCertificate makes a self-signed certificate for a signing key.
func SAMLCertificate(key crypto.Signer, from, until time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: "groupgate test"},
		NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// PublishNext publishes one more signing key beside those there are.
func (idp *SAMLIdP) PublishNext() {
	k := newSAMLKey(idp.options().ECDSA, nil)
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.keys = append(idp.keys, k)
}

// UseNext signs with the key that was published last. Those before stay
// published.
func (idp *SAMLIdP) UseNext() {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	last := len(idp.keys) - 1
	idp.keys = slices.Concat(idp.keys[last:], idp.keys[:last])
}

// RetireOld publishes the signing key alone.
func (idp *SAMLIdP) RetireOld() {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.keys = idp.keys[:1:1]
}

// SetCertificate publishes another certificate of the same signing key.
func (idp *SAMLIdP) SetCertificate(der []byte) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.keys[0].certificate = der
}

// SigningKey is the key that signs, with its certificate.
func (idp *SAMLIdP) SigningKey() (crypto.Signer, []byte) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return idp.keys[0].private, idp.keys[0].certificate
}

// EncryptionKey is the key that is published for encryption alone; nil without
// that option.
func (idp *SAMLIdP) EncryptionKey() (crypto.Signer, []byte) {
	if idp.encryption == nil {
		return nil, nil
	}
	return idp.encryption.private, idp.encryption.certificate
}

// SAMLSignature is how one enveloped signature is made.
type SAMLSignature struct {
	Method, Digest, C14N string
	Transforms           []string // in their order; the last canonicalises
	Prefixes             string   // PrefixList of both exclusive canonicalisations
	URI                  string   // of the Reference
	Key                  crypto.Signer
	Certificate          []byte                         // in KeyInfo; nil: no KeyInfo
	DER                  bool                           // an ECDSA signature in ASN.1, as some libraries write it
	Value                func(signedInfo []byte) []byte // in place of what Key makes; in canonical form

	MutateInfo      func(signedInfo *etree.Element) // before it is signed
	MutateSignature func(signature *etree.Element)  // when it is done
}

// Sign signs an element as the provider signs now, lies included. The
// signature stands behind the Issuer, or first.
func (idp *SAMLIdP) Sign(el *etree.Element) {
	key, certificate := idp.SigningKey()
	s := SAMLSignature{
		Method: SAMLRSASHA256, Digest: SAMLSHA256, C14N: SAMLExclusive, Transforms: []string{SAMLEnveloped, SAMLExclusive},
		URI: "#" + el.SelectAttrValue("ID", ""), Key: key, Certificate: certificate,
	}
	if _, ec := key.(*ecdsa.PrivateKey); ec {
		s.Method = SAMLECDSASHA256
	}
	if idp.options().NoKeyInfo {
		s.Certificate = nil
	}
	if lie := idp.lies().Signature; lie != nil {
		lie(&s)
	}
	s.Sign(el)
}

// Sign signs an element.
func (s SAMLSignature) Sign(el *etree.Element) {
	digest := samlHash(s.Digest).New()
	digest.Write(samlCanonical(el, s.Transforms[len(s.Transforms)-1], s.Prefixes))
	list := func(tag, algorithm string) string {
		if inside := `<ec:InclusiveNamespaces xmlns:ec="` + SAMLExclusive + `" PrefixList="` + s.Prefixes + `"/>`; s.Prefixes != "" && strings.HasPrefix(algorithm, SAMLExclusive) {
			return `<ds:` + tag + ` Algorithm="` + algorithm + `">` + inside + `</ds:` + tag + `>`
		}
		return `<ds:` + tag + ` Algorithm="` + algorithm + `"/>`
	}
	var transforms strings.Builder
	for _, t := range s.Transforms {
		transforms.WriteString(list("Transform", t))
	}
	keyInfo := ""
	if s.Certificate != nil {
		keyInfo = `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + base64.StdEncoding.EncodeToString(s.Certificate) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`
	}
	sig := SAMLElement(`<ds:Signature xmlns:ds="` + samlSignatureNS + `"><ds:SignedInfo>` + list("CanonicalizationMethod", s.C14N) +
		`<ds:SignatureMethod Algorithm="` + s.Method + `"/><ds:Reference URI="` + s.URI + `"><ds:Transforms>` + transforms.String() +
		`</ds:Transforms><ds:DigestMethod Algorithm="` + s.Digest + `"/><ds:DigestValue>` + base64.StdEncoding.EncodeToString(digest.Sum(nil)) +
		`</ds:DigestValue></ds:Reference></ds:SignedInfo><ds:SignatureValue/>` + keyInfo + `</ds:Signature>`)
	at := 0
	for _, c := range el.ChildElements() {
		if c.Tag == "Issuer" {
			at = c.Index() + 1
			break
		}
	}
	el.InsertChildAt(at, sig)
	info := sig.ChildElements()[0]
	if s.MutateInfo != nil {
		s.MutateInfo(info)
	}
	value := s.value(samlCanonical(info, s.C14N, s.Prefixes))
	sig.ChildElements()[1].SetText(base64.StdEncoding.EncodeToString(value))
	if s.MutateSignature != nil {
		s.MutateSignature(sig)
	}
}

// value signs bytes. An ECDSA signature is its two numbers one behind the
// other (XML Signature 1.1 section 6.4.3).
func (s SAMLSignature) value(text []byte) []byte {
	if s.Value != nil {
		return s.Value(text)
	}
	h := samlHash(s.Method)
	sum := h.New()
	sum.Write(text)
	raw, err := s.Key.Sign(rand.Reader, sum.Sum(nil), h)
	if err != nil {
		panic(err) // a key that cannot sign is a fault of the test
	}
	public, ec := s.Key.Public().(*ecdsa.PublicKey)
	if !ec || s.DER {
		return raw
	}
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(raw, &numbers); err != nil {
		panic(err)
	}
	size := (public.Curve.Params().BitSize + 7) / 8
	return append(numbers.R.FillBytes(make([]byte, size)), numbers.S.FillBytes(make([]byte, size))...)
}

func samlHash(algorithm string) crypto.Hash {
	for end, h := range samlHashes {
		if strings.HasSuffix(algorithm, end) {
			return h
		}
	}
	return crypto.SHA256 // of an algorithm that nobody knows
}

// samlCanonical is el in canonical form, where it stands.
func samlCanonical(el *etree.Element, algorithm, prefixes string) []byte {
	var c dsig.Canonicalizer
	switch algorithm {
	case SAMLInclusive:
		c = dsig.MakeC14N10RecCanonicalizer()
	case SAMLInclusive + "#WithComments":
		c = dsig.MakeC14N10WithCommentsCanonicalizer()
	case SAMLExclusive + "WithComments":
		el, c = samlAlone(el), dsig.MakeC14N10ExclusiveWithCommentsCanonicalizerWithPrefixList(prefixes)
	default:
		el, c = samlAlone(el), dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList(prefixes)
	}
	out, err := c.Canonicalize(el)
	if err != nil {
		panic(err)
	}
	return out
}

// samlAlone copies an element with the namespaces around it. It is written and
// read again, so that CDATA is text (Canonical XML 1.0 section 2.1).
func samlAlone(el *etree.Element) *etree.Element {
	alone := el.Copy()
	for at := el.Parent(); at != nil; at = at.Parent() {
		for _, a := range at.Attr {
			if (a.Space == "xmlns" || a.FullKey() == "xmlns") && alone.SelectAttr(a.FullKey()) == nil {
				alone.CreateAttr(a.FullKey(), a.Value)
			}
		}
	}
	return SAMLElement(string(SAMLBytes(alone)))
}

// SAMLElement parses one element that a test wrote.
func SAMLElement(text string) *etree.Element {
	doc := etree.NewDocument()
	if err := doc.ReadFromString(text); err != nil || doc.Root() == nil {
		panic("claimstest: not an element: " + text)
	}
	return doc.Root()
}
