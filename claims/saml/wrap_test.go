package saml

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// evilOf is an assertion as an attacker would like it: somebody else, in other
// groups, unsigned.
func evilOf(good *etree.Element) *etree.Element {
	e := good.Copy()
	for _, c := range e.ChildElements() {
		if c.Tag == "Signature" {
			e.RemoveChild(c)
		}
	}
	e.CreateAttr("ID", "_evil")
	e.FindElement("./Subject/NameID").SetText("mallory")
	for _, v := range e.FindElements("./AttributeStatement/Attribute/AttributeValue") {
		v.SetText("admins")
	}
	return e
}

func assertionOf(root *etree.Element) *etree.Element { return root.FindElement("./Assertion") }

// take takes an element out of where it stands.
func take(el *etree.Element) *etree.Element {
	el.Parent().RemoveChild(el)
	return el
}

func signatureOf(el *etree.Element) *etree.Element { return el.FindElement("./Signature") }

// wrapped puts elements into a new one of the protocol's namespace.
func wrapped(tag string, inside ...*etree.Element) *etree.Element {
	el := claimstest.SAMLElement(`<samlp:` + tag + ` xmlns:samlp="` + nsProtocol + `"/>`)
	for _, c := range inside {
		el.AddChild(c)
	}
	return el
}

func object(inside ...*etree.Element) *etree.Element {
	el := claimstest.SAMLElement(`<ds:Object xmlns:ds="` + nsSignature + `"/>`)
	for _, c := range inside {
		el.AddChild(c)
	}
	return el
}

// afterIssuer is where the schema has extensions and signatures.
func afterIssuer(root, el *etree.Element) {
	root.InsertChildAt(root.FindElement("./Issuer").Index()+1, el)
}

// wrapAssertion are the layouts around an assertion that is signed: what
// stands where the reader looks is evil, and what the signature is of, or was,
// stands somewhere else. XSW numbers are those of the tool that named them.
var wrapAssertion = map[string]func(root, good, evil *etree.Element){
	"XSW3 evil before": func(root, good, evil *etree.Element) { root.InsertChildAt(good.Index(), evil) },
	"XSW9 evil after":  func(root, _, evil *etree.Element) { root.AddChild(evil) },
	"XSW4 good inside evil": func(root, good, evil *etree.Element) {
		evil.AddChild(take(good))
		root.AddChild(evil)
	},
	"XSW5 evil has the signature, good at the end": func(root, good, evil *etree.Element) {
		afterIssuer(evil, take(signatureOf(good)))
		root.InsertChildAt(good.Index(), evil)
	},
	"XSW6 good inside the signature of evil": func(root, good, evil *etree.Element) {
		sig := take(signatureOf(good))
		sig.AddChild(take(good))
		afterIssuer(evil, sig)
		root.AddChild(evil)
	},
	"XSW7 evil in Extensions": func(root, _, evil *etree.Element) { afterIssuer(root, wrapped("Extensions", evil)) },
	"XSW8 good in an Object of the signature of evil": func(root, good, evil *etree.Element) {
		sig := take(signatureOf(good))
		sig.AddChild(object(take(good)))
		afterIssuer(evil, sig)
		root.AddChild(evil)
	},
	"evil in an Object of the signature": func(_, good, evil *etree.Element) { signatureOf(good).AddChild(object(evil)) },
	"evil in KeyInfo":                    func(_, good, evil *etree.Element) { good.FindElement("./Signature/KeyInfo").AddChild(evil) },
	"good in Extensions, evil in its place": func(root, good, evil *etree.Element) {
		afterIssuer(root, wrapped("Extensions", take(good)))
		root.AddChild(evil)
	},
	"good in StatusDetail, evil in its place": func(root, good, evil *etree.Element) {
		root.FindElement("./Status").AddChild(wrapped("StatusDetail", take(good)))
		root.AddChild(evil)
	},
	"good in StatusDetail, evil with the signature": func(root, good, evil *etree.Element) {
		afterIssuer(evil, take(signatureOf(good)))
		root.FindElement("./Status").AddChild(wrapped("StatusDetail", take(good)))
		root.AddChild(evil)
	},
	"good in Advice of evil": func(root, good, evil *etree.Element) {
		advice := claimstest.SAMLElement(`<saml:Advice xmlns:saml="` + nsAssertion + `"/>`)
		advice.AddChild(take(good))
		evil.AddChild(advice)
		root.AddChild(evil)
	},
	"evil in Advice of a second good": func(root, good, evil *etree.Element) {
		second := evilOf(good)
		advice := claimstest.SAMLElement(`<saml:Advice xmlns:saml="` + nsAssertion + `"/>`)
		advice.AddChild(evil)
		second.AddChild(advice)
		root.AddChild(second)
	},
	"good in an attribute value of evil": func(root, good, evil *etree.Element) {
		evil.FindElement("./AttributeStatement/Attribute/AttributeValue").AddChild(take(good))
		root.AddChild(evil)
	},
	"same ID, evil before": func(root, good, evil *etree.Element) {
		evil.CreateAttr("ID", good.SelectAttrValue("ID", ""))
		root.InsertChildAt(good.Index(), evil)
	},
	"same ID, evil with the signature": func(root, good, evil *etree.Element) {
		evil.CreateAttr("ID", good.SelectAttrValue("ID", ""))
		afterIssuer(evil, take(signatureOf(good)))
		root.InsertChildAt(good.Index(), evil)
	},
	"same ID, evil alone with the signature": func(root, good, evil *etree.Element) {
		evil.CreateAttr("ID", take(good).SelectAttrValue("ID", ""))
		afterIssuer(evil, signatureOf(good))
		root.AddChild(evil)
	},
	"no ID, evil before": func(root, good, evil *etree.Element) {
		evil.RemoveAttr("ID")
		root.InsertChildAt(good.Index(), evil)
	},
	"Id in another case on the response": func(root, good, _ *etree.Element) { root.CreateAttr("Id", good.SelectAttrValue("ID", "")) },
	"id in another case on an extension that is evil": func(root, good, evil *etree.Element) {
		evil.RemoveAttr("ID")
		evil.Tag = "Claim"
		evil.CreateAttr("id", good.SelectAttrValue("ID", ""))
		afterIssuer(root, wrapped("Extensions", evil))
	},
	"evil in a foreign namespace, before": func(root, good, evil *etree.Element) {
		evil.Space = "evil"
		evil.CreateAttr("xmlns:evil", "urn:example:evil")
		root.InsertChildAt(good.Index(), evil)
	},
	"evil in a foreign namespace around good": func(root, good, evil *etree.Element) {
		evil.Space = "evil"
		evil.CreateAttr("xmlns:evil", "urn:example:evil")
		evil.AddChild(take(good))
		root.AddChild(evil)
	},
	"good in a foreign element, evil in its place": func(root, good, evil *etree.Element) {
		foreign := claimstest.SAMLElement(`<evil:Box xmlns:evil="urn:example:evil"/>`)
		foreign.AddChild(take(good))
		root.AddChild(foreign)
		root.AddChild(evil)
	},
	"the signature moved to the response": func(root, good, _ *etree.Element) { afterIssuer(root, take(signatureOf(good))) },
	"the signature moved into the subject": func(_, good, _ *etree.Element) {
		good.FindElement("./Subject").AddChild(take(signatureOf(good)))
	},
	"the signature twice": func(_, good, _ *etree.Element) { good.AddChild(signatureOf(good).Copy()) },
	"a second response inside": func(root, good, evil *etree.Element) {
		inner := root.Copy()
		inner.CreateAttr("ID", "_inner")
		root.RemoveChild(good)
		root.AddChild(evil)
		root.AddChild(inner)
	},
	"the response inside of an evil one": func(root, good, evil *etree.Element) {
		inner := root.Copy()
		root.RemoveChild(good)
		root.CreateAttr("ID", "_outer")
		afterIssuer(root, wrapped("Extensions", inner))
		root.AddChild(evil)
	},
}

// wrapResponse are the layouts around a response that is signed.
var wrapResponse = map[string]func(root *etree.Element) *etree.Element{
	"XSW1 the response in the signature of an evil one": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		sig.AddChild(root)
		afterIssuer(evil, sig)
		return evil
	},
	"XSW2 the response before the signature of an evil one": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		afterIssuer(evil, sig)
		afterIssuer(evil, root)
		return evil
	},
	"the response in an Object of the signature": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		sig.AddChild(object(root))
		afterIssuer(evil, sig)
		return evil
	},
	"the response in Extensions, signature and all": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		afterIssuer(root, sig)
		afterIssuer(evil, wrapped("Extensions", root))
		return evil
	},
	"the response in StatusDetail": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		afterIssuer(evil, sig)
		evil.FindElement("./Status").AddChild(wrapped("StatusDetail", root))
		return evil
	},
	"the response with its ID in the evil one's": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		evil.CreateAttr("ID", root.SelectAttrValue("ID", ""))
		afterIssuer(evil, sig)
		evil.AddChild(root)
		return evil
	},
	"the response gone, its ID and signature kept": func(root *etree.Element) *etree.Element {
		evil, sig := evilResponse(root)
		evil.CreateAttr("ID", root.SelectAttrValue("ID", ""))
		afterIssuer(evil, sig)
		return evil
	},
	"evil in an Object of the signature": func(root *etree.Element) *etree.Element {
		signatureOf(root).AddChild(object(evilOf(honestAssertion(root))))
		return root
	},
	"evil assertion added": func(root *etree.Element) *etree.Element {
		root.AddChild(evilOf(honestAssertion(root)))
		return root
	},
	"evil assertion first": func(root *etree.Element) *etree.Element {
		afterIssuer(root, evilOf(honestAssertion(root)))
		return root
	},
	"the signature moved into the status": func(root *etree.Element) *etree.Element {
		root.FindElement("./Status").AddChild(take(signatureOf(root)))
		return root
	},
}

// evilResponse is a response with an evil assertion and without a signature,
// and the signature that the honest one had.
func evilResponse(root *etree.Element) (evil, sig *etree.Element) {
	sig = take(signatureOf(root))
	evil = root.Copy()
	evil.CreateAttr("ID", "_evilresponse")
	old := evil.FindElement("./Assertion")
	if old == nil {
		old = evil.FindElement("./EncryptedAssertion")
	}
	evil.RemoveChild(old)
	evil.AddChild(evilOf(honestAssertion(root)))
	return evil, sig
}

// honestAssertion is one to make evil ones of: what an attacker who can sign
// in as himself has seen.
func honestAssertion(root *etree.Element) *etree.Element {
	if a := assertionOf(root); a != nil {
		return a
	}
	return claimstest.SAMLElement(seenAssertion(root))
}

// seenAssertion is the text of an assertion with the addresses and times of a
// response whose own one is encrypted.
func seenAssertion(root *etree.Element) string {
	at := root.SelectAttrValue("IssueInstant", "")
	until := strings.Replace(at, at[:4], "2999", 1)
	return `<saml:Assertion xmlns:saml="` + nsAssertion + `" ID="_seen" Version="2.0" IssueInstant="` + at + `"><saml:Issuer>` + root.FindElement("./Issuer").Text() +
		`</saml:Issuer><saml:Subject><saml:NameID>mallory</saml:NameID><saml:SubjectConfirmation Method="` + bearer + `"><saml:SubjectConfirmationData NotOnOrAfter="` + until +
		`" Recipient="` + root.SelectAttrValue("Destination", "") + `" InResponseTo="` + root.SelectAttrValue("InResponseTo", "") + `"/></saml:SubjectConfirmation></saml:Subject>` +
		`<saml:Conditions NotOnOrAfter="` + until + `"><saml:AudienceRestriction><saml:Audience>` + testService + `</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
		`<saml:AuthnStatement AuthnInstant="` + at + `"/></saml:Assertion>`
}

// SM-01, SM-02: whatever is wrapped around a signed assertion, nobody is signed
// in; the same provider, honest again, signs the person in.
func TestSM01WrappedAssertions(t *testing.T) {
	t.Parallel()
	for form, change := range map[string]func(*claimstest.SAMLOptions){
		"assertion signed":              func(o *claimstest.SAMLOptions) { o.SignAssertion = true },
		"assertion and response signed": func(o *claimstest.SAMLOptions) { o.SignAssertion, o.SignResponse = true, true },
		"assertion signed, RSA":         func(o *claimstest.SAMLOptions) { o.Key = theirKey() },
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withEC, change)
			for name, layout := range wrapAssertion {
				lie := func(root *etree.Element) {
					good := assertionOf(root)
					layout(root, good, evilOf(good))
				}
				r.refused(t, "SM-01 "+name, func(k *claimstest.SAMLKnobs) { k.MutateSigned = lie }, "")
			}
			r.accepted(t, "SM-01 control: unsigned extensions beside a signed assertion", func(k *claimstest.SAMLKnobs) {
				k.MutateResponse = func(root *etree.Element) {
					afterIssuer(root, wrapped("Extensions", claimstest.SAMLElement(`<x:note xmlns:x="urn:example:x" Id="_note">fine</x:note>`)))
				}
			})
		})
	}
}

// SM-01: and around a signed response, with its assertion plain or encrypted.
func TestSM01WrappedResponses(t *testing.T) {
	t.Parallel()
	for form, change := range map[string]func(*claimstest.SAMLOptions){
		"response signed":               func(o *claimstest.SAMLOptions) { o.SignResponse, o.SignAssertion = true, false },
		"response and assertion signed": func(o *claimstest.SAMLOptions) { o.SignResponse, o.SignAssertion = true, true },
		"response signed, assertion encrypted": func(o *claimstest.SAMLOptions) {
			o.SignResponse, o.SignAssertion, o.Encrypt = true, false, "aes128-gcm"
		},
		"response signed, assertion encrypted CBC": func(o *claimstest.SAMLOptions) {
			o.SignResponse, o.SignAssertion, o.Encrypt = true, false, "aes128-cbc"
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withEC, change)
			for name, layout := range wrapResponse {
				r.refused(t, "SM-01 "+name, func(k *claimstest.SAMLKnobs) {
					k.MutateSigned = func(root *etree.Element) {
						made := layout(root.Copy())
						root.Attr, root.Child = made.Attr, nil
						for _, c := range slices.Clone(made.Child) { // adding takes away there
							root.AddChild(c)
						}
					}
				}, "")
			}
			r.accepted(t, "SM-01 control", nil)
		})
	}
}

// SM-01: an attacker can encrypt what he likes: wrapping inside of what is
// encrypted, and beside it.
func TestSM01WrappedInsideEncryption(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC, func(o *claimstest.SAMLOptions) { o.SignAssertion, o.Encrypt = true, "aes256-gcm" })
	for name, layout := range wrapAssertion {
		if strings.Contains(name, "response") { // what is encrypted has none around it
			continue
		}
		r.refused(t, "SM-01 inside: "+name, func(k *claimstest.SAMLKnobs) {
			k.MutatePlain = func(plain []byte) []byte {
				root := claimstest.SAMLElement(`<samlp:Response xmlns:samlp="` + nsProtocol + `" xmlns:saml="` + nsAssertion + `"><saml:Issuer/><samlp:Status/></samlp:Response>`)
				root.AddChild(claimstest.SAMLElement(string(plain)))
				good := assertionOf(root)
				layout(root, good, evilOf(good))
				// The one that a reader who takes the first would take.
				first := assertionOf(root)
				if out := claimstest.SAMLBytes(first); !bytes.Equal(out, plain) {
					return out
				}
				return claimstest.SAMLBytes(root) // what is beside it cannot be inside alone
			}
		}, errDecrypt.Error())
	}
	for name, lie := range map[string]func(root, sealed, evil *etree.Element){
		"evil plain before":    func(root, sealed, evil *etree.Element) { root.InsertChildAt(sealed.Index(), evil) },
		"evil plain after":     func(root, _, evil *etree.Element) { root.AddChild(evil) },
		"evil sealed before":   func(root, sealed, evil *etree.Element) { root.InsertChildAt(sealed.Index(), r.seal(evil)) },
		"evil sealed after":    func(root, _, evil *etree.Element) { root.AddChild(r.seal(evil)) },
		"evil sealed instead":  func(root, sealed, evil *etree.Element) { root.RemoveChild(sealed); root.AddChild(r.seal(evil)) },
		"sealed twice":         func(root, sealed, _ *etree.Element) { root.AddChild(sealed.Copy()) },
		"evil beside the data": func(_, sealed, evil *etree.Element) { sealed.AddChild(evil) },
		"evil in the data":     func(_, sealed, evil *etree.Element) { sealed.FindElement("./EncryptedData").AddChild(evil) },
		"sealed in Extensions": func(root, sealed, evil *etree.Element) {
			afterIssuer(root, wrapped("Extensions", take(sealed)))
			root.AddChild(evil)
		},
		"evil sealed in status": func(root, _, evil *etree.Element) {
			root.FindElement("./Status").AddChild(wrapped("StatusDetail", r.seal(evil)))
		},
	} {
		r.refused(t, "SM-01 beside: "+name, func(k *claimstest.SAMLKnobs) {
			k.MutateSigned = func(root *etree.Element) {
				lie(root, root.FindElement("./EncryptedAssertion"), claimstest.SAMLElement(seenAssertion(root)))
			}
		}, "")
	}
	r.accepted(t, "SM-01 control", nil)
}
