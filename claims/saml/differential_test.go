package saml

import (
	"bytes"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"slices"
	"testing"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// peer is the library's own reading of a response, with the same trust.
func peer(t *testing.T, r *rig) *saml.ServiceProvider {
	t.Helper()
	var md saml.EntityDescriptor
	if err := xml.Unmarshal(r.idp.Metadata(), &md); err != nil {
		t.Fatal(err)
	}
	return &saml.ServiceProvider{
		EntityID: testService, Key: ourKey(), Certificate: ourCertificate(), AcsURL: address(r.acs()), IDPMetadata: &md,
	}
}

// bent are messages with one byte changed, all over.
func bent(m []byte, step int) [][]byte {
	if testing.Short() { // the race detector, which takes many times as long
		step *= 6
	}
	var all [][]byte
	for i := 0; i < len(m); i += step {
		for _, b := range []byte{m[i] ^ 1, ' ', '<'} {
			if b != m[i] {
				c := bytes.Clone(m)
				c[i] = b
				all = append(all, c)
			}
		}
	}
	return all
}

// S0-02: what is accepted here, the library accepts as well and reads the same, of
// honest messages and of broken ones. It is the other way round that differs,
// and that is what this package is for.
func TestLibraryAcceptsWhatIsAccepted(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*idpOptions){
		"assertion signed":                func(*idpOptions) {},
		"assertion signed, no KeyInfo":    func(o *idpOptions) { o.NoKeyInfo = true },
		"response signed":                 func(o *idpOptions) { o.SignResponse = true },
		"both signed":                     func(o *idpOptions) { o.SignResponse, o.SignAssertion = true, true },
		"encrypted with GCM":              func(o *idpOptions) { o.Encrypt = "aes128-gcm" },
		"encrypted with CBC, all signed":  func(o *idpOptions) { o.SignResponse, o.SignAssertion, o.Encrypt = true, true, "aes128-cbc" },
		"no attributes, no session index": func(o *idpOptions) { o.People[0].Attributes, o.NoSessionIndex = nil, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			sp, trust := peer(t, r), r.trust(t)
			honest := r.message(t, "id-x")
			accepted := 0
			all := [][]byte{honest}
			for _, same := range []string{">al<!---->ice<", ">al<![CDATA[ice]]><", ">&#97;lice<"} {
				all = append(all, bytes.Replace(honest, []byte(">alice<"), []byte(same), 1))
			}
			for i, m := range append(all, bent(honest, 41)...) {
				mine, err := trust.accept(m, "id-x", r.now())
				if err != nil && i == 0 {
					t.Fatalf("the honest one: %v", err)
				}
				if err != nil {
					continue
				}
				accepted++
				theirs, err := libraryParse(sp, m)
				var no *saml.InvalidResponseError
				if errors.As(err, &no) {
					err = no.PrivateErr
				}
				if err != nil {
					if !tolerated(m, honest) {
						t.Errorf("accepted, and the library says %v of\n%s", err, m)
					}
					continue
				}
				same(t, mine, theirs)
			}
			if accepted < len(all) {
				t.Errorf("%d messages were accepted: nothing was compared", accepted)
			}
		})
	}
}

// tolerated is a change in what says nothing here: KeyInfo, which the library
// follows.
func tolerated(m, honest []byte) bool {
	i := 0
	for i < len(m) && i < len(honest) && m[i] == honest[i] {
		i++
	}
	from := bytes.LastIndex(honest[:i], []byte("<ds:KeyInfo"))
	return from >= 0 && bytes.Index(honest[from:], []byte("</ds:KeyInfo>"))+from+len("</ds:KeyInfo>") > i
}

func libraryParse(sp *saml.ServiceProvider, m []byte) (a *saml.Assertion, err error) {
	defer func() {
		if recover() != nil {
			a, err = nil, errors.New("it panicked")
		}
	}()
	return sp.ParseXMLResponse(m, []string{"id-x"}, sp.AcsURL)
}

func same(t *testing.T, mine *assertion, theirs *saml.Assertion) {
	t.Helper()
	if mine.id != theirs.ID || mine.name.Value != theirs.Subject.NameID.Value || mine.name.Format != theirs.Subject.NameID.Format || mine.sessionIndex != theirs.AuthnStatements[0].SessionIndex {
		t.Errorf("%+v, theirs %+v", mine, theirs.Subject.NameID)
	}
	seen := 0
	for _, s := range theirs.AttributeStatements {
		for _, a := range s.Attributes {
			seen++
			var values []any
			for _, v := range a.Values {
				values = append(values, v.Value)
			}
			if got, _ := mine.attributes[a.Name].([]any); !slices.Equal(got, values) {
				t.Errorf("%s: %q, theirs %q", a.Name, got, values)
			}
		}
	}
	if seen != len(mine.attributes) {
		t.Errorf("%d attributes, theirs %d", len(mine.attributes), seen)
	}
}

// S0-02: the signature check here and the library's say the same of honest and of
// broken signatures, both ways, and answer the same bytes.
func TestSignatureCheckAgreesWithTheLibrary(t *testing.T) {
	t.Parallel()
	der := func(k *claimstest.SAMLKnobs) {
		k.Signature = func(s *claimstest.SAMLSignature) { s.DER = true }
	}
	for name, c := range map[string]struct {
		change func(*idpOptions)
		lie    func(*claimstest.SAMLKnobs)
	}{
		"RSA":            {func(o *idpOptions) { o.NoKeyInfo = true }, nil},
		"ECDSA":          {func(o *idpOptions) { withEC(o); o.NoKeyInfo = true }, der},
		"pretty printed": {func(o *idpOptions) { o.NoKeyInfo = true }, func(k *claimstest.SAMLKnobs) { k.MutateAssertion = pretty }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.change)
			trust := r.trust(t)
			if c.lie != nil {
				r.idp.Lie(c.lie)
			}
			honest := claimstest.SAMLBytes(assertionOf(claimstest.SAMLElement(string(r.message(t, "id-x")))))
			yes, no := 0, 0
			for i, m := range append([][]byte{honest}, bent(honest, 13)...) {
				doc := etree.NewDocument()
				if scan(m) != nil || doc.ReadFromBytes(m) != nil {
					continue
				}
				mine, err := verified(doc.Root(), trust.keys)
				theirs, theirErr := libraryValidate(doc.Root(), trust.keys)
				switch {
				case i == 0 && err != nil:
					t.Fatalf("the honest one: %v", err)
				case (err == nil) != (theirErr == nil):
					t.Errorf("%v, the library %v, of\n%s", err, theirErr, m)
				case err != nil:
					no++
				default:
					yes++
					if !bytes.Equal(claimstest.SAMLBytes(mine), claimstest.SAMLBytes(theirs)) {
						t.Errorf("%s, theirs %s", claimstest.SAMLBytes(mine), claimstest.SAMLBytes(theirs))
					}
				}
			}
			if yes < 1 || no < 15 {
				t.Errorf("%d accepted, %d refused: nothing was compared", yes, no)
			}
		})
	}
}

func libraryValidate(el *etree.Element, keys []*x509.Certificate) (out *etree.Element, err error) {
	defer func() {
		if recover() != nil {
			out, err = nil, errors.New("it panicked")
		}
	}()
	return dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: keys}).Validate(el)
}
