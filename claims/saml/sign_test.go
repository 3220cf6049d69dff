package saml

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// signatureForms are where a signature can stand. Every lie below is one that
// the provider's own key signed, if it does not say else.
var signatureForms = map[string]func(*idpOptions){
	"assertion": func(o *idpOptions) { o.EncryptionKey = true },
	"response":  func(o *idpOptions) { o.SignResponse, o.EncryptionKey = true, true },
}

func signedSo(change func(*claimstest.SAMLSignature)) func(*claimstest.SAMLKnobs) {
	return func(k *claimstest.SAMLKnobs) { k.Signature = change }
}

// inSignature changes the finished signature of whatever is signed.
func inSignature(change func(sig *etree.Element)) func(*claimstest.SAMLKnobs) {
	return signedSo(func(s *claimstest.SAMLSignature) { s.MutateSignature = change })
}

// inSignedInfo changes what is signed.
func inSignedInfo(change func(info *etree.Element)) func(*claimstest.SAMLKnobs) {
	return signedSo(func(s *claimstest.SAMLSignature) { s.MutateInfo = change })
}

func transforms(list ...string) func(*claimstest.SAMLKnobs) {
	return signedSo(func(s *claimstest.SAMLSignature) { s.Transforms = list })
}

func dsigElement(tag, inside string) *etree.Element {
	return claimstest.SAMLElement(`<ds:` + tag + ` xmlns:ds="` + nsSignature + `">` + inside + `</ds:` + tag + `>`)
}

const (
	oddWhy    = "a signature with something else in it"
	otherWhy  = "other transforms"
	severalIn = "several "
)

// SM-04: weak and foreign algorithms.
func TestSM04Algorithms(t *testing.T) {
	t.Parallel()
	method := func(algorithm string) func(*claimstest.SAMLKnobs) {
		return signedSo(func(s *claimstest.SAMLSignature) { s.Method = algorithm })
	}
	digest := func(algorithm string) func(*claimstest.SAMLKnobs) {
		return signedSo(func(s *claimstest.SAMLSignature) { s.Digest = algorithm })
	}
	for form, change := range signatureForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			cert, err := x509.ParseCertificate(func() []byte { _, der := r.idp.SigningKey(); return der }())
			if err != nil {
				t.Fatal(err)
			}
			public, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			keyed := func(algorithm string, key []byte) func(*claimstest.SAMLKnobs) {
				return signedSo(func(s *claimstest.SAMLSignature) {
					s.Method = algorithm
					s.Value = func(text []byte) []byte {
						h := hmac.New(sha256.New, key)
						if strings.HasSuffix(algorithm, "sha1") {
							h = hmac.New(sha1.New, key)
						}
						h.Write(text)
						return h.Sum(nil)
					}
				})
			}
			const more = "http://www.w3.org/2001/04/xmldsig-more#"
			asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
			for name, lie := range map[string]func(*claimstest.SAMLKnobs){
				"SM-04 rsa-sha1":                         method(nsSignature + "rsa-sha1"),
				"SM-04 rsa-md5":                          method(more + "rsa-md5"),
				"SM-04 rsa-ripemd160":                    method(more + "rsa-ripemd160"),
				"SM-04 rsa-sha224":                       method(more + "rsa-sha224"),
				"SM-04 dsa-sha1":                         method(nsSignature + "dsa-sha1"),
				"SM-04 dsa-sha256":                       method("http://www.w3.org/2009/xmldsig11#dsa-sha256"),
				"SM-04 ecdsa-sha1":                       method(more + "ecdsa-sha1"),
				"SM-04 an algorithm nobody knows":        method("urn:example:rsa-sha256"),
				"SM-04 no algorithm":                     method(""),
				"SM-04 another case":                     method(strings.Replace(claimstest.SAMLRSASHA256, "rsa", "RSA", 1)),
				"SM-04 hmac-sha1 with the public key":    keyed(nsSignature+"hmac-sha1", public),
				"SM-04 hmac-sha256 with the public key":  keyed(more+"hmac-sha256", public),
				"SM-04 hmac-sha256 with it as PEM":       keyed(more+"hmac-sha256", asPEM),
				"SM-04 hmac-sha256 with the certificate": keyed(more+"hmac-sha256", cert.Raw),
				"SM-04 digest sha1":                      digest(nsSignature + "sha1"),
				"SM-04 digest md5":                       digest(more + "md5"),
				"SM-04 digest that nobody knows":         digest("urn:example:sha256"),
				"SM-04 a truncated hmac, by its parameter": inSignedInfo(func(info *etree.Element) {
					info.FindElement("./SignatureMethod").CreateAttr("Algorithm", more+"hmac-sha256")
					info.FindElement("./SignatureMethod").AddChild(dsigElement("HMACOutputLength", "0"))
				}),
			} {
				r.refused(t, name, lie, errWeak.Error())
			}
			// An algorithm that is accepted, for another kind of key.
			r.refused(t, "SM-04 ecdsa-sha256 of an RSA key", method(claimstest.SAMLECDSASHA256), errForeign.Error())
			r.refused(t, "SM-04 said to be SHA-512, signed as SHA-256", inSignature(func(sig *etree.Element) {
				sig.FindElement("./SignedInfo/SignatureMethod").CreateAttr("Algorithm", more+"rsa-sha512")
			}), errForeign.Error())
		})
	}
}

// SM-05: what a signature may be of, and through what.
func TestSM05ReferencesAndTransforms(t *testing.T) {
	t.Parallel()
	const (
		xpath   = "http://www.w3.org/TR/1999/REC-xpath-19991116"
		xslt    = "http://www.w3.org/TR/1999/REC-xslt-19991116"
		base64  = "http://www.w3.org/2000/09/xmldsig#base64"
		filter2 = "http://www.w3.org/2002/06/xmldsig-filter2"
		c14n11  = "http://www.w3.org/2006/12/xml-c14n11"
	)
	env, exc, inc := claimstest.SAMLEnveloped, claimstest.SAMLExclusive, claimstest.SAMLInclusive
	reference := func(info *etree.Element) *etree.Element { return info.FindElement("./Reference") }
	prefixList := func(at string, n int) func(*claimstest.SAMLKnobs) {
		return inSignedInfo(func(info *etree.Element) {
			for range n {
				info.FindElement(at).AddChild(claimstest.SAMLElement(`<ec:InclusiveNamespaces xmlns:ec="` + exclusiveC14N + `" PrefixList="xs"/>`))
			}
		})
	}
	for form, change := range signatureForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withEC, change)
			for name, c := range map[string]struct {
				lie func(*claimstest.SAMLKnobs)
				why string
			}{
				"SM-05 two References": {inSignedInfo(func(info *etree.Element) { info.AddChild(reference(info).Copy()) }), severalIn + "Reference"},
				"SM-05 a second Reference to another": {inSignedInfo(func(info *etree.Element) {
					other := reference(info).Copy()
					other.CreateAttr("URI", "#_other")
					info.AddChild(other)
				}), severalIn + "Reference"},
				"SM-05 another Reference first": {inSignedInfo(func(info *etree.Element) {
					other := reference(info).Copy()
					other.CreateAttr("URI", "#_other")
					info.InsertChildAt(reference(info).Index(), other)
				}), severalIn + "Reference"},
				"SM-05 no Reference":         {inSignedInfo(func(info *etree.Element) { info.RemoveChild(reference(info)) }), "SignedInfo has no Reference"},
				"SM-05 URI empty":            {signedSo(func(s *claimstest.SAMLSignature) { s.URI = "" }), errElsewhere.Error()},
				"SM-05 no URI":               {inSignedInfo(func(info *etree.Element) { reference(info).RemoveAttr("URI") }), errElsewhere.Error()},
				"SM-05 URI #":                {signedSo(func(s *claimstest.SAMLSignature) { s.URI = "#" }), errElsewhere.Error()},
				"SM-05 URI without #":        {signedSo(func(s *claimstest.SAMLSignature) { s.URI = s.URI[1:] }), errElsewhere.Error()},
				"SM-05 URI of another":       {signedSo(func(s *claimstest.SAMLSignature) { s.URI = "#_other" }), errElsewhere.Error()},
				"SM-05 URI elsewhere":        {signedSo(func(s *claimstest.SAMLSignature) { s.URI = r.idp.URL + "/canary" + s.URI }), errElsewhere.Error()},
				"SM-05 URI by XPointer":      {signedSo(func(s *claimstest.SAMLSignature) { s.URI = "#xpointer(id('" + s.URI[1:] + "'))" }), errElsewhere.Error()},
				"SM-05 XPath":                {transforms(env, xpath, exc), otherWhy},
				"SM-05 XPath alone":          {transforms(xpath, exc), otherWhy},
				"SM-05 XPath filter 2":       {transforms(env, filter2, exc), otherWhy},
				"SM-05 XSLT":                 {transforms(env, xslt, exc), otherWhy},
				"SM-05 base64":               {transforms(env, base64), otherWhy},
				"SM-05 exclusive twice":      {transforms(env, exc, exc), otherWhy},
				"SM-05 enveloped twice":      {transforms(env, env, exc), otherWhy},
				"SM-05 in the other order":   {transforms(exc, env), otherWhy},
				"SM-05 enveloped alone":      {transforms(env), otherWhy},
				"SM-05 exclusive alone":      {transforms(exc), otherWhy},
				"SM-05 with comments":        {transforms(env, exc+"WithComments"), otherWhy},
				"SM-05 inclusive":            {transforms(env, inc), otherWhy},
				"SM-05 inclusive, comments":  {transforms(env, inc+"#WithComments"), otherWhy},
				"SM-05 inclusive 1.1":        {transforms(env, c14n11), otherWhy},
				"SM-05 no Transforms":        {inSignedInfo(func(info *etree.Element) { reference(info).RemoveChild(info.FindElement(".//Transforms")) }), "Reference has no Transforms"},
				"SM-05 Transforms twice":     {inSignedInfo(func(info *etree.Element) { reference(info).AddChild(info.FindElement(".//Transforms").Copy()) }), severalIn + "Transforms"},
				"SM-05 SignedInfo inclusive": {signedSo(func(s *claimstest.SAMLSignature) { s.C14N = inc }), "another canonicalisation"},
				"SM-05 SignedInfo with comments": {signedSo(func(s *claimstest.SAMLSignature) {
					s.C14N = exc + "WithComments"
				}), "another canonicalisation"},
				"SM-05 SignedInfo, no canonicalisation": {inSignedInfo(func(info *etree.Element) { info.RemoveChild(info.FindElement("./CanonicalizationMethod")) }), "SignedInfo has no CanonicalizationMethod"},
				"SM-05 something else in SignedInfo":    {inSignedInfo(func(info *etree.Element) { info.AddChild(dsigElement("Manifest", "")) }), oddWhy},
				"SM-05 something else in Reference":     {inSignedInfo(func(info *etree.Element) { reference(info).AddChild(dsigElement("Object", "")) }), "could hide another"},
				"SM-05 an element in a transform": {inSignedInfo(func(info *etree.Element) {
					info.FindElement(".//Transform").AddChild(dsigElement("XPath", "1"))
				}), oddWhy},
				"SM-05 an element in a method":    {inSignedInfo(func(info *etree.Element) { info.FindElement(".//DigestMethod").AddChild(dsigElement("X", "")) }), oddWhy},
				"SM-05 prefixes twice":            {prefixList(".//CanonicalizationMethod", 2), oddWhy},
				"SM-05 prefixes for enveloped":    {prefixList(".//Transform", 1), oddWhy},
				"SM-05 prefixes for a digest":     {prefixList(".//DigestMethod", 1), oddWhy},
				"SM-05 prefixes changed later":    {inSignature(func(sig *etree.Element) { addPrefixes(sig.FindElement(".//CanonicalizationMethod"), "ds") }), errForeign.Error()},
				"SM-05 prefixes added to be less": {inSignature(func(sig *etree.Element) { addPrefixes(sig.FindElements(".//Transform")[1], "xs") }), errForeign.Error()},
				"SM-05 a prefix that was signed means another thing": {func(k *claimstest.SAMLKnobs) {
					k.Signature = func(s *claimstest.SAMLSignature) { s.Prefixes = "xs" }
					k.MutateSigned = func(root *etree.Element) {
						assertionOf(root).CreateAttr("xmlns:xs", "urn:example:evil")
					}
				}, ""},
			} {
				r.refused(t, name, c.lie, c.why)
			}
			if r.idp.Calls("canary") != 0 {
				t.Error("a reference was fetched")
			}
		})
	}
}

func addPrefixes(el *etree.Element, list string) {
	el.AddChild(claimstest.SAMLElement(`<ec:InclusiveNamespaces xmlns:ec="` + exclusiveC14N + `" PrefixList="` + list + `"/>`))
}

// SM-02: no signature, or less than one.
func TestSM02Unsigned(t *testing.T) {
	t.Parallel()
	const unsigned = "neither the response nor its assertion is signed"
	for form, change := range signatureForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withEC, change)
			sig := func(change func(sig *etree.Element)) func(*claimstest.SAMLKnobs) {
				return editSigned(func(root *etree.Element) { change(root.FindElement(".//Signature")) })
			}
			drop := func(path string) func(*claimstest.SAMLKnobs) {
				return sig(func(s *etree.Element) { take(s.FindElement(path)) })
			}
			text := func(path, text string) func(*claimstest.SAMLKnobs) {
				return sig(func(s *etree.Element) { s.FindElement(path).SetText(text) })
			}
			for name, c := range map[string]struct {
				lie func(*claimstest.SAMLKnobs)
				why string
			}{
				"SM-02 signature removed":         {sig(func(s *etree.Element) { take(s) }), unsigned},
				"SM-02 signature of another name": {sig(func(s *etree.Element) { s.Tag = "Signatur" }), unsigned},
				"SM-02 signature elsewhere":       {sig(func(s *etree.Element) { s.CreateAttr("xmlns:ds", "urn:example:evil") }), "a signature out of its place"},
				"SM-02 signature empty":           {sig(func(s *etree.Element) { s.Child = nil }), "Signature has no SignedInfo"},
				"SM-02 no SignedInfo":             {drop("./SignedInfo"), "Signature has no SignedInfo"},
				"SM-02 SignedInfo twice":          {sig(func(s *etree.Element) { s.AddChild(s.FindElement("./SignedInfo").Copy()) }), severalIn + "SignedInfo"},
				"SM-02 no SignatureValue":         {drop("./SignatureValue"), "Signature has no SignatureValue"},
				"SM-02 SignatureValue twice":      {sig(func(s *etree.Element) { s.AddChild(s.FindElement("./SignatureValue").Copy()) }), severalIn + "SignatureValue"},
				"SM-02 SignatureValue empty":      {text("./SignatureValue", ""), errForeign.Error()},
				"SM-02 SignatureValue no base64":  {text("./SignatureValue", "*"), "SignatureValue is not base64"},
				"SM-02 SignatureValue an element": {sig(func(s *etree.Element) { s.FindElement("./SignatureValue").CreateElement("x") }), "SignatureValue is not text"},
				"SM-02 DigestValue empty":         {text(".//DigestValue", ""), errForeign.Error()},
				"SM-02 no DigestValue":            {drop(".//DigestValue"), "Reference has no DigestValue"},
				"SM-02 no SignatureMethod":        {drop(".//SignatureMethod"), "SignedInfo has no SignatureMethod"},
				"SM-02 KeyInfo twice":             {sig(func(s *etree.Element) { s.AddChild(s.FindElement("./KeyInfo").Copy()) }), severalIn + "KeyInfo"},
				"SM-02 Object in it":              {sig(func(s *etree.Element) { s.AddChild(object()) }), "could hide another"},
				"SM-02 changed after signing":     {editSigned(func(root *etree.Element) { root.FindElement(".//NameID").SetText("mallory") }), errChanged.Error()},
				"SM-02 an attribute added":        {editSigned(func(root *etree.Element) { root.FindElement(".//NameID").CreateAttr("Format", "x") }), errChanged.Error()},
				"SM-02 a group added": {editSigned(func(root *etree.Element) {
					root.FindElement(".//Attribute").AddChild(claimstest.SAMLElement(`<saml:AttributeValue xmlns:saml="` + nsAssertion + `">admins</saml:AttributeValue>`))
				}), errChanged.Error()},
				"SM-02 one blank added":     {editSigned(func(root *etree.Element) { root.FindElement(".//Subject").AddChild(etree.NewText(" ")) }), errChanged.Error()},
				"SM-02 ID changed":          {editSigned(func(root *etree.Element) { root.FindElement(".//Signature").Parent().CreateAttr("ID", "_x") }), errElsewhere.Error()},
				"SM-02 ID removed":          {editSigned(func(root *etree.Element) { root.FindElement(".//Signature").Parent().RemoveAttr("ID") }), "without an ID"},
				"SM-02 of an earlier login": {replaySignature(r), ""},
			} {
				r.refused(t, name, c.lie, c.why)
			}
			// What says nothing changes nothing.
			r.accepted(t, "control: KeyInfo removed", drop("./KeyInfo"))
			r.accepted(t, "control: KeyInfo of somebody else", text(".//X509Certificate", "AAAA"))
			r.accepted(t, "control: comments in the signature", sig(func(s *etree.Element) {
				for _, path := range []string{".//DigestValue", "./SignatureValue"} {
					s.FindElement(path).InsertChildAt(0, etree.NewComment("AAAA"))
				}
			}))
		})
	}
}

// replaySignature puts the signature of one message into another.
func replaySignature(r *rig) func(*claimstest.SAMLKnobs) {
	var kept *etree.Element
	return editSigned(func(root *etree.Element) {
		old := root.FindElement(".//Signature")
		if kept == nil {
			kept = old.Copy()
			kept.FindElement(".//DigestValue").SetText("AAAA")
		}
		parent, at := old.Parent(), old.Index()
		parent.RemoveChildAt(at)
		parent.InsertChildAt(at, kept.Copy())
	})
}

// SM-03: whose key it is.
func TestSM03Keys(t *testing.T) {
	t.Parallel()
	stranger := rsaKey()
	strangers, err := claimstest.SAMLCertificate(stranger, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for form, change := range signatureForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withEC, change)
			encryption, encryptionCertificate := r.idp.EncryptionKey()
			for name, lie := range map[string]func(*claimstest.SAMLKnobs){
				"SM-03 attacker's key, his certificate in KeyInfo": signedSo(func(s *claimstest.SAMLSignature) { s.Key, s.Certificate = stranger, strangers }),
				"SM-03 attacker's key, the provider's KeyInfo":     signedSo(func(s *claimstest.SAMLSignature) { s.Key = stranger }),
				"SM-03 attacker's key, no KeyInfo":                 signedSo(func(s *claimstest.SAMLSignature) { s.Key, s.Certificate = stranger, nil }),
				"SM-03 the provider's encryption key": signedSo(func(s *claimstest.SAMLSignature) {
					s.Key, s.Certificate = encryption, encryptionCertificate
				}),
				"SM-03 our own key": signedSo(func(s *claimstest.SAMLSignature) { s.Key, s.Certificate = ourKey(), ourCertificate().Raw }),
				"SM-03 both certificates in KeyInfo": func(k *claimstest.SAMLKnobs) {
					k.Signature = func(s *claimstest.SAMLSignature) {
						own := s.Certificate
						s.Key, s.Certificate = stranger, strangers
						s.MutateSignature = func(sig *etree.Element) {
							sig.FindElement(".//X509Data").InsertChildAt(0, dsigElement("X509Certificate", encode(own)))
						}
					}
				},
			} {
				r.refused(t, name, lie, errForeign.Error())
			}
		})
	}
}

// SM-03, SM-28: another provider speaks in this one's name, with its own key
// and in its own form; and says the same NameID under its own name.
func TestSM03AnotherProvider(t *testing.T) {
	t.Parallel()
	a := newRig(t)
	b := newRig(t, func(o *idpOptions) { o.Key = nil })
	asA := func(el *etree.Element) { el.FindElement("./Issuer").SetText(a.idp.EntityID()) }
	b.refused(t, "SM-28 B as A, to B's source", func(k *claimstest.SAMLKnobs) { k.MutateAssertion = asA; k.MutateResponse = asA }, "issued by another provider")
	b.refused(t, "SM-28 B's assertion as A's in B's response", func(k *claimstest.SAMLKnobs) { k.MutateAssertion = asA }, "issued by another provider")
	b.refused(t, "SM-28 A's NameQualifier", edit(func(el *etree.Element) {
		el.FindElement("./Subject/NameID").CreateAttr("NameQualifier", a.idp.EntityID())
	}), "NameQualifier")
	b.accepted(t, "control: its own NameQualifier", edit(func(el *etree.Element) {
		el.FindElement("./Subject/NameID").CreateAttr("NameQualifier", b.idp.EntityID())
	}))

	// B's message posted to A's source.
	theirs, key := b.idp.SigningKey()
	a.refused(t, "SM-03 B's key with A's issuer", signedSo(func(s *claimstest.SAMLSignature) { s.Key, s.Certificate = theirs, key }), errForeign.Error())
}
