package saml

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"github.com/crewjam/saml"

	"github.com/groupgate/groupgate/claims"
)

// What we publish is read by another implementation.
func TestOurMetadata(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, signing)
	kind, body, err := r.src.Metadata()
	if err != nil || kind != "application/samlmetadata+xml" {
		t.Fatal(kind, err)
	}
	if err := scan(body); err != nil {
		t.Error(err)
	}
	var m saml.EntityDescriptor
	if err := xml.Unmarshal(body, &m); err != nil || len(m.SPSSODescriptors) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	sp := m.SPSSODescriptors[0]
	if m.EntityID != testService || !m.ValidUntil.IsZero() || len(m.IDPSSODescriptors) > 0 ||
		sp.ProtocolSupportEnumeration != nsProtocol || !*sp.AuthnRequestsSigned || !*sp.WantAssertionsSigned {
		t.Errorf("%s", body)
	}
	var uses, encryption []string
	for _, k := range sp.KeyDescriptors {
		uses = append(uses, k.Use)
		for _, e := range k.EncryptionMethods {
			encryption = append(encryption, e.Algorithm)
		}
		if cert, err := certificate(k.KeyInfo.X509Data.X509Certificates[0].Data); err != nil || !cert.Equal(ourCertificate()) {
			t.Errorf("the certificate for %s: %v", k.Use, err)
		}
	}
	if !slices.Equal(uses, []string{"signing", "encryption"}) {
		t.Errorf("keys for %q", uses)
	}
	// What is asked for is what is taken: nothing of CBC or RSA 1.5.
	for _, a := range encryption {
		if gcmKeys[a] == 0 && a != algOAEP && a != algOAEP11 {
			t.Errorf("we ask for %s", a)
		}
	}
	if len(encryption) != 4 || !slices.Equal(sp.NameIDFormats, []saml.NameIDFormat{formatPersistent}) {
		t.Errorf("%q, %q", encryption, sp.NameIDFormats)
	}
	acs := sp.AssertionConsumerServices
	if len(acs) != 1 || acs[0].Binding != saml.HTTPPostBinding || acs[0].Location != r.acs() || acs[0].IsDefault == nil || !*acs[0].IsDefault {
		t.Errorf("%+v", acs)
	}
	var slo []string
	for _, s := range sp.SingleLogoutServices {
		slo = append(slo, s.Binding+" "+s.Location)
	}
	at := " " + strings.TrimSuffix(r.acs(), "acs") + "slo"
	if want := []string{saml.HTTPRedirectBinding + at, saml.HTTPPostBinding + at}; !slices.Equal(slo, want) {
		t.Errorf("logout at %q, wanted %q", slo, want)
	}
	for _, no := range []string{"Artifact", "validUntil", "cacheDuration"} {
		if strings.Contains(string(body), no) {
			t.Errorf("it speaks of %s", no)
		}
	}

	r.restart(t, nil, func(c *claims.SAMLConfig) { c.EntityID, c.SignRequests, c.Subject = "", false, "uid" })
	_, body, err = r.src.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	m = saml.EntityDescriptor{}
	if err := xml.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if sp := m.SPSSODescriptors[0]; m.EntityID != strings.TrimSuffix(r.acs(), "acs")+"metadata" || *sp.AuthnRequestsSigned || len(sp.NameIDFormats) != 0 {
		t.Errorf("%s", body)
	}
}

func TestWhatASourceNeeds(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Name: "idp", Config: claims.DefaultSAML, Origin: "https://portal.example.com", Prefix: "/_auth", Key: ourKey(), Certificate: ourCertificate()}
	for why, change := range map[string]func(*Options){
		"":                     func(*Options) {},
		"an RSA key":           func(o *Options) { o.Key = ec },
		"its certificate":      func(o *Options) { o.Certificate = nil },
		"metadata_certificate": func(o *Options) { o.Config.MetadataCertificate = "canary" },
	} {
		o := good
		change(&o)
		src, err := New(o)
		if (err == nil) != (why == "") || (src == nil) != (why != "") || err != nil && (!strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("wanted %q: %v", why, err)
		}
	}
}
