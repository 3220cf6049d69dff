package saml

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

type idpOptions = claimstest.SAMLOptions

// SM-06: every honest form is accepted, and says the same.
func TestHonestFormsAreAccepted(t *testing.T) {
	t.Parallel()
	forms := map[string]func(*idpOptions){
		"SM-06 assertion signed":               func(*idpOptions) {},
		"SM-06 response signed, assertion not": func(o *idpOptions) { o.SignResponse = true },
		"SM-06 both signed":                    func(o *idpOptions) { o.SignResponse, o.SignAssertion = true, true },
		"no KeyInfo":                           func(o *idpOptions) { o.NoKeyInfo = true },
		"ECDSA":                                func(o *idpOptions) { o.ECDSA, o.Key = true, nil },
		"an encryption key published beside":   func(o *idpOptions) { o.EncryptionKey = true },
		"no session index, no end, no format":  func(o *idpOptions) { o.NoSessionIndex, o.SessionLength, o.NameIDFormat = true, 0, "-" },
		"entity id that is no address":         func(o *idpOptions) { o.EntityID = "urn:example:idp" },
		"requests must be signed":              func(o *idpOptions) { o.WantSigned = true },
		"CBC, signed response":                 func(o *idpOptions) { o.SignResponse, o.Encrypt = true, "aes128-cbc" },
		"CBC 192, signed response":             func(o *idpOptions) { o.SignResponse, o.Encrypt = true, "aes192-cbc" },
		"CBC 256, both signed":                 func(o *idpOptions) { o.SignResponse, o.SignAssertion, o.Encrypt = true, true, "aes256-cbc" },
		"GCM, signed response, bare assertion": func(o *idpOptions) { o.SignResponse, o.Encrypt = true, "aes256-gcm" },
		"GCM, both signed, key beside, OAEP SHA-256": func(o *idpOptions) {
			o.SignResponse, o.SignAssertion, o.Encrypt, o.KeyBeside, o.KeyTransport = true, true, "aes128-gcm", true, "oaep-sha256"
		},
	}
	for _, cipher := range []string{"aes128-gcm", "aes192-gcm", "aes256-gcm"} {
		for _, transport := range []string{"oaep", "oaep-sha256", "oaep11"} {
			for _, beside := range []bool{false, true} {
				forms[fmt.Sprintf("%s %s beside=%t", cipher, transport, beside)] = func(o *idpOptions) {
					o.Encrypt, o.KeyTransport, o.KeyBeside = cipher, transport, beside
				}
			}
		}
	}
	for name, change := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			id := r.accepted(t, "login", nil)
			if id == nil {
				return
			}
			l := r.idp.Logins()[0]
			if id.Source != "idp" || id.Session != l.SessionIndex || id.StatementID != l.AssertionID || !id.IssuedAt.Equal(r.now()) || id.StatementUntil.Before(r.now().Add(maxAge)) {
				t.Errorf("%+v of %+v", id, l)
			}
			for name, want := range alice.Attributes {
				if got := id.Claims.Resolve(name).Values; !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			var grant loginName
			if err := json.Unmarshal(r.grant.NameID, &grant); err != nil || grant.Value != "alice" || grant.Format != l.Format || grant.SessionIndex != l.SessionIndex {
				t.Errorf("grant %s", r.grant.NameID)
			}
		})
	}
}

// What providers in the field write, one of each.
func TestHonestWaysOfWriting(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *idpOptions) { o.SignResponse, o.SignAssertion = true, true })
	signature := func(change func(*claimstest.SAMLSignature)) func(*claimstest.SAMLKnobs) {
		return func(k *claimstest.SAMLKnobs) { k.Signature = change }
	}
	for name, lie := range map[string]func(*claimstest.SAMLKnobs){
		"SM-05 InclusiveNamespaces that are used":   signature(func(s *claimstest.SAMLSignature) { s.Prefixes = "xs" }),
		"SM-05 InclusiveNamespaces, several":        signature(func(s *claimstest.SAMLSignature) { s.Prefixes = "xs xsi saml" }),
		"SM-05 InclusiveNamespaces nobody declares": signature(func(s *claimstest.SAMLSignature) { s.Prefixes = "nothing" }),
		"SHA-384": signature(func(s *claimstest.SAMLSignature) {
			s.Method, s.Digest = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", "http://www.w3.org/2001/04/xmldsig-more#sha384"
		}),
		"SHA-512": signature(func(s *claimstest.SAMLSignature) {
			s.Method, s.Digest = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", "http://www.w3.org/2001/04/xmlenc#sha512"
		}),
		"lines in base64": signature(func(s *claimstest.SAMLSignature) {
			s.MutateSignature = func(sig *etree.Element) {
				value := sig.FindElement("./SignatureValue")
				value.SetText("\n" + value.Text()[:64] + "\n  " + value.Text()[64:] + "\n")
			}
		}),
		"XML declaration": func(k *claimstest.SAMLKnobs) {
			k.MutateMessage = func(m []byte) []byte { return append([]byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"), m...) }
		},
		"blanks around": func(k *claimstest.SAMLKnobs) {
			k.MutateMessage = func(m []byte) []byte { return append(append([]byte("\n "), m...), "\n"...) }
		},
		"pretty printed":           func(k *claimstest.SAMLKnobs) { k.MutateAssertion = pretty; k.MutateResponse = pretty },
		"comments before signing":  edit(func(a *etree.Element) { a.FindElement("./Issuer").AddChild(etree.NewComment("who")) }),
		"SM-10 audiences in a row": edit(func(a *etree.Element) { addAudience(a.FindElement(".//AudienceRestriction"), "urn:example:other") }),
		"SM-10 two restrictions, both name us": edit(func(a *etree.Element) {
			addAudience(a.FindElement("./Conditions").CreateElement("saml:AudienceRestriction"), testService)
		}),
		"SM-11 another confirmation first": edit(func(a *etree.Element) {
			a.FindElement("./Subject").InsertChildAt(1, claimstest.SAMLElement(`<saml:SubjectConfirmation xmlns:saml="`+nsAssertion+`" Method="urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"/>`))
		}),
		"SM-11 a bearer confirmation for somebody else first": edit(func(a *etree.Element) {
			other := a.FindElement("./Subject/SubjectConfirmation").Copy()
			other.FindElement("./SubjectConfirmationData").CreateAttr("Recipient", "https://other.example.com/acs")
			a.FindElement("./Subject").InsertChildAt(1, other)
		}),
		"OneTimeUse and ProxyRestriction": edit(func(a *etree.Element) {
			a.FindElement("./Conditions").CreateElement("saml:OneTimeUse")
			a.FindElement("./Conditions").CreateElement("saml:ProxyRestriction")
		}),
		"SM-13 no Destination, assertion alone signed": func(k *claimstest.SAMLKnobs) {
			k.MutateSigned = func(root *etree.Element) {
				root.RemoveChild(signatureOf(root))
				root.RemoveAttr("Destination")
			}
		},
		"no Issuer on an unsigned response": func(k *claimstest.SAMLKnobs) {
			k.MutateSigned = func(root *etree.Element) {
				root.RemoveChild(signatureOf(root))
				root.RemoveChild(root.FindElement("./Issuer"))
			}
		},
	} {
		r.accepted(t, name, lie)
	}
	ec := newRig(t, withEC)
	ec.accepted(t, "ECDSA in ASN.1", signature(func(s *claimstest.SAMLSignature) { s.DER = true }))
}

func pretty(el *etree.Element) {
	for _, c := range el.ChildElements() {
		if len(c.ChildElements()) > 0 && c.Tag != "Assertion" {
			pretty(c)
		}
		el.InsertChildAt(c.Index(), etree.NewText("\n\t"))
	}
	el.AddChild(etree.NewText("\n"))
}

func addAudience(restriction *etree.Element, audience string) {
	restriction.CreateElement("saml:Audience").SetText(audience)
}

// Some providers encrypt an assertion without the namespaces that its document
// declared around it.
func TestEncryptedAssertionInheritsNamespaces(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *idpOptions) { o.Encrypt = "aes256-gcm" })
	r.accepted(t, "declared outside", func(k *claimstest.SAMLKnobs) {
		k.MutatePlain = func(plain []byte) []byte {
			text := strings.Replace(string(plain), ` xmlns:saml="`+nsAssertion+`"`, "", 1)
			if text == string(plain) {
				t.Error("nothing was taken away")
			}
			return []byte(text)
		}
	})
	r.refused(t, "declared as something else outside", func(k *claimstest.SAMLKnobs) {
		k.MutatePlain = func(plain []byte) []byte {
			return []byte(strings.Replace(string(plain), ` xmlns:saml="`+nsAssertion+`"`, "", 1))
		}
		k.MutateCipher = func(el *etree.Element) {
			el.FindElement("./EncryptedData").CreateAttr("xmlns:saml", "urn:example:evil")
			el.CreateAttr("xmlns:other", nsAssertion)
			el.RemoveAttr("xmlns:saml")
			el.Space = "other"
		}
		k.MutateResponse = func(root *etree.Element) {
			root.FindElement("./Issuer").CreateAttr("xmlns:saml", nsAssertion)
			root.CreateAttr("xmlns:saml", "urn:example:evil")
		}
	}, errDecrypt.Error())
}

// SM-21: statements and attributes of one Name unite; FriendlyName is nothing.
// SM-16: empty values are values, and what is not text is unknown.
func TestSM21AttributesByName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	statement := func(inside string) func(*claimstest.SAMLKnobs) {
		return edit(func(a *etree.Element) {
			a.AddChild(claimstest.SAMLElement(`<saml:AttributeStatement xmlns:saml="` + nsAssertion + `" xmlns:xsi="` + nsInstance + `">` + inside + `</saml:AttributeStatement>`))
		})
	}
	value := func(v string) string { return `<saml:AttributeValue>` + v + `</saml:AttributeValue>` }
	attribute := func(at, inside string) string { return `<saml:Attribute ` + at + `>` + inside + `</saml:Attribute>` }
	own := alice.Attributes["groups"]
	for name, c := range map[string]struct {
		inside, claim string
		state         claims.State
		want          []string
	}{
		"SM-21 a second statement":           {attribute(`Name="groups"`, value("more")), "groups", claims.Complete, append(slices.Clone(own), "more")},
		"SM-21 another NameFormat":           {attribute(`Name="groups" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri"`, value("more")), "groups", claims.Complete, append(slices.Clone(own), "more")},
		"SM-21 twice in a statement":         {attribute(`Name="new"`, value("1")+value("2")) + attribute(`Name="new"`, value("3")), "new", claims.Complete, []string{"1", "2", "3"}},
		"SM-21 FriendlyName is groups":       {attribute(`Name="urn:oid:1" FriendlyName="groups"`, value("admins")), "groups", claims.Complete, own},
		"SM-21 FriendlyName has no claim":    {attribute(`Name="urn:oid:1" FriendlyName="friendly"`, value("admins")), "friendly", claims.Absent, nil},
		"SM-21 Name in another case":         {attribute(`Name="Groups"`, value("admins")), "groups", claims.Complete, own},
		"SM-16 no values":                    {attribute(`Name="new"`, ""), "new", claims.Complete, nil},
		"SM-16 an empty value":               {attribute(`Name="new"`, value("")+value("1")), "new", claims.Complete, []string{"1"}},
		"whitespace is kept":                 {attribute(`Name="new"`, value(" a\tb\n ")), "new", claims.Complete, []string{" a\tb\n "}},
		"null":                               {attribute(`Name="new"`, `<saml:AttributeValue xsi:nil="true"/>`), "new", claims.Unknown, nil},
		"an element in a value":              {attribute(`Name="new"`, value("<b>nested</b>tail")), "new", claims.Unknown, nil},
		"an element in one of several":       {attribute(`Name="new"`, value("1")+value("<b/>")+value("2")), "new", claims.Unknown, nil},
		"an element in the second attribute": {attribute(`Name="groups"`, value("<b/>")), "groups", claims.Unknown, nil},
		"text after an element":              {attribute(`Name="groups"`, value("<b/>")) + attribute(`Name="groups"`, value("x")), "groups", claims.Unknown, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r.idp.Lie(statement(c.inside))
			defer r.idp.Honest()
			id, err := r.login(t)
			if err != nil {
				t.Fatal(err)
			}
			if got := id.Claims.Resolve(c.claim); got.State != c.state || !slices.Equal(got.Values, c.want) {
				t.Errorf("%+v, want %s %q", got, c.state, c.want)
			}
		})
	}
	for name, inside := range map[string]string{
		"SM-16 an attribute without Name":    attribute(`NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic"`, value("x")),
		"SM-16 an attribute with Name empty": attribute(`Name=""`, value("x")),
	} {
		r.refused(t, name, statement(inside), "an attribute without a Name")
	}
	r.refused(t, "an encrypted attribute", statement(`<saml:EncryptedAttribute/>`), "an encrypted attribute")
}

// A person in more groups than the library's own validation looks at: it stops
// at a thousand elements.
func TestTwoThousandGroups(t *testing.T) {
	t.Parallel()
	groups := make([]string, 2000)
	for i := range groups {
		groups[i] = fmt.Sprintf("cn=group-%d,ou=groups,dc=example,dc=com", i)
	}
	for name, change := range map[string]func(*idpOptions){
		"assertion signed": func(*idpOptions) {},
		"all":              func(o *idpOptions) { o.SignResponse, o.SignAssertion, o.Encrypt = true, true, "aes256-gcm" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			r.idp.SetPerson(claimstest.SAMLPerson{NameID: "alice", Attributes: map[string][]string{"groups": groups}})
			id, err := r.login(t)
			if err != nil {
				t.Fatal(err)
			}
			if got := id.Claims.Resolve("groups").Values; !reflect.DeepEqual(got, groups) {
				t.Errorf("%d groups", len(got))
			}
		})
	}
}
