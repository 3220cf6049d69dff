package saml

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/groupgate/groupgate/claims/claimstest"
)

const (
	testIdP = "https://idp.example.com/saml"
	header  = `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" entityID="` + testIdP + `"`
	sso     = `<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.com/sso"/>`
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

var theirCertificate = sync.OnceValue(func() string {
	der, err := claimstest.SAMLCertificate(theirKey(), testNow.Add(-time.Hour), testNow.Add(365*24*time.Hour))
	if err != nil {
		panic(err)
	}
	return encode(der)
})

func keyXML(use, certificate string) string {
	return `<md:KeyDescriptor` + use + `><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + certificate + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`
}

func roleXML(inside string) string {
	return `<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">` + inside + `</md:IDPSSODescriptor>`
}

func goodRole() string { return roleXML(keyXML(` use="signing"`, theirCertificate()) + sso) }

func goodMetadata() string { return header + `>` + goodRole() + `</md:EntityDescriptor>` }

func read(text, want string) (*entity, error) {
	return readMetadata(strings.NewReader(text), want, nil, testNow)
}

func TestMetadataThatIsTaken(t *testing.T) {
	t.Parallel()
	good := func(t *testing.T, text, want string) *entity {
		t.Helper()
		e, err := read(text, want)
		if err != nil {
			t.Fatal(err)
		}
		if e.id != testIdP || len(e.keys) == 0 || e.login["urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"] != "https://idp.example.com/sso" {
			t.Errorf("%+v", e)
		}
		return e
	}
	spOnly := strings.Replace(strings.NewReplacer("IDPSSODescriptor", "SPSSODescriptor").Replace(goodMetadata()), testIdP, "https://sp.example.com", 1)
	other := strings.Replace(goodMetadata(), testIdP, "https://other.example.com", 1)
	group := func(attributes string, inside ...string) string {
		return `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"` + attributes + `>` + strings.Join(inside, "\n") + `</md:EntitiesDescriptor>`
	}
	for name, tt := range map[string]struct{ text, want string }{
		"one entity":                             {goodMetadata(), ""},
		"the one that is named":                  {goodMetadata(), testIdP},
		"a byte order mark and declaration":      {"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?>\n" + goodMetadata() + "\n<!-- end -->\n", ""},
		"the default namespace":                  {strings.NewReplacer("md:", "", "xmlns:md", "xmlns").Replace(goodMetadata()), ""},
		"the only provider of a federation":      {group("", spOnly, goodMetadata()), ""},
		"one of several in a federation":         {group("", other, group("", goodMetadata()), spOnly), testIdP},
		"beside something that is broken for us": {group("", strings.Replace(other, "https://idp.example.com/sso", "javascript:x", 1), goodMetadata()), testIdP},
		"key without a use":                      {header + `>` + roleXML(keyXML("", theirCertificate())+sso) + `</md:EntityDescriptor>`, ""},
		"encryption key that is broken":          {strings.Replace(goodMetadata(), sso, keyXML(` use="encryption"`, "AAAA")+sso, 1), ""},
		"address of another binding":             {strings.Replace(goodMetadata(), sso, `<md:SingleSignOnService Binding="urn:mace:shibboleth:1.0:profiles:AuthnRequest" Location="x:y z"/>`+sso, 1), ""},
		"http on loopback":                       {strings.Replace(goodMetadata(), sso, sso+`<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="http://127.0.0.1:8080/slo"/>`, 1), ""},
		"extensions and other roles": {strings.Replace(goodMetadata(), `>`+goodRole(), `><md:Extensions><x xmlns="urn:x"><md:EntityDescriptor entityID="`+testIdP+`"/></x></md:Extensions>`+goodRole()+
			`<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"/>`, 1), ""},
		"valid until later":         {strings.Replace(goodMetadata(), header, header+` validUntil="2026-05-01T12:00:01Z"`, 1), ""},
		"certificate over lines":    {strings.Replace(goodMetadata(), theirCertificate(), "\n  "+theirCertificate()[:64]+"\r\n\t"+theirCertificate()[64:]+"\n", 1), ""},
		"a federation's whitespace": {group(` Name="example"`, "\n\t", goodMetadata(), "\n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good(t, tt.text, tt.want)
		})
	}
	t.Run("two keys in one KeyInfo", func(t *testing.T) {
		t.Parallel()
		data := `<ds:X509Data><ds:X509Certificate>` + theirCertificate() + `</ds:X509Certificate></ds:X509Data>`
		if e := good(t, strings.Replace(goodMetadata(), data, data+data, 1), ""); len(e.keys) != 2 {
			t.Errorf("%d keys", len(e.keys))
		}
	})
	t.Run("what it says", func(t *testing.T) {
		t.Parallel()
		post := `Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location=`
		redirect := `Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location=`
		inside := keyXML("", theirCertificate()) +
			`<md:SingleLogoutService ` + redirect + `"https://idp.example.com/slo" ResponseLocation="https://idp.example.com/slo/answer"/>` +
			`<md:SingleLogoutService ` + post + `"https://idp.example.com/slo/post"/>` +
			`<md:NameIDFormat> ` + formatPersistent + `
			</md:NameIDFormat>` + sso + `<md:SingleSignOnService ` + redirect + `"https://second.example.com/"/>`
		text := strings.Replace(header+`>`+roleXML(inside)+`</md:EntityDescriptor>`, "<md:IDPSSODescriptor", `<md:IDPSSODescriptor WantAuthnRequestsSigned="1"`, 1)
		e := good(t, text, "")
		want := &entity{
			id:    testIdP,
			login: map[string]string{"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect": "https://idp.example.com/sso"},
			logout: map[string]string{
				"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect": "https://idp.example.com/slo",
				"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST":     "https://idp.example.com/slo/post",
			},
			logoutReply: map[string]string{"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect": "https://idp.example.com/slo/answer"},
			formats:     []string{formatPersistent}, keys: e.keys, wantsSigned: true,
		}
		if !reflect.DeepEqual(e, want) {
			t.Errorf("got  %+v\nwant %+v", e, want)
		}
	})
}

func TestMetadataThatIsRefused(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weakDER, err := claimstest.SAMLCertificate(weak, testNow, testNow.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := claimstest.SAMLCertificate(ed, testNow, testNow.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	with := func(old, replacement string) string {
		text := strings.Replace(goodMetadata(), old, replacement, 1)
		if text == goodMetadata() {
			t.Fatalf("%q is not in the metadata", old)
		}
		return text
	}
	both := `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">` + goodMetadata() + with(testIdP, "https://other.example.com") + `</md:EntitiesDescriptor>`
	for name, tt := range map[string]struct{ text, want, why string }{
		"SM-23 nothing":                       {"", "", "not well-formed"},
		"SM-23 an HTML page":                  {"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "", "document type"},
		"SM-23 an HTML page without doctype":  {"<html><body>Sign in</body></html>", "", "not SAML metadata"},
		"SM-23 JSON":                          {`{"error":"not found"}`, "", "not well-formed"},
		"SM-23 another entity":                {goodMetadata(), "https://other.example.com", "no such identity provider"},
		"SM-23 another case of the entity id": {goodMetadata(), strings.ToUpper(testIdP), "no such identity provider"},
		"SM-23 no keys":                       {with(keyXML(` use="signing"`, theirCertificate()), ""), "", "no signing certificate"},
		"SM-23 an encryption key alone":       {with(`use="signing"`, `use="encryption"`), "", "no signing certificate"},
		"SM-23 expired":                       {with(header, header+` validUntil="2026-05-01T12:00:00Z"`), "", "has expired"},
		"SM-23 an expired role":               {with("<md:IDPSSODescriptor", `<md:IDPSSODescriptor validUntil="2026-04-01T12:00:00Z"`), "", "has expired"},
		"SM-23 an expired federation":         {strings.Replace(both, "<md:EntitiesDescriptor", `<md:EntitiesDescriptor validUntil="2026-04-01T12:00:00Z"`, 1), testIdP, "has expired"},
		"validUntil that is no time":          {with(header, header+` validUntil="tomorrow"`), "", "not a time"},
		"broken off":                          {goodMetadata()[:len(goodMetadata())-5], "", "not well-formed"},
		"broken off in the entity":            {goodMetadata()[:len(goodMetadata())/2], "", "not well-formed"},
		"a second root":                       {goodMetadata() + goodMetadata(), "", "not well-formed"},
		"text behind it":                      {goodMetadata() + "x", "", "not well-formed"},
		"another encoding":                    {`<?xml version="1.0" encoding="iso-8859-1"?>` + goodMetadata(), "", "not well-formed"},
		"invalid UTF-8":                       {with("idp.example.com/sso", "idp.example.com/\xff"), "", "not well-formed"},
		"an entity":                           {with(testIdP, "&xxe;"), "", "not well-formed"},
		"a document type":                     {`<!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]>` + goodMetadata(), "", "document type"},
		"a document type later":               {with(sso, sso+"<!DOCTYPE x>"), "", "document type"},
		"several providers":                   {both, "", "idp_entity_id"},
		"the provider twice":                  {strings.Replace(both, "https://other.example.com", testIdP, 1), testIdP, "twice"},
		"a service":                           {strings.ReplaceAll(goodMetadata(), "IDPSSODescriptor", "SPSSODescriptor"), "", "no such identity provider"},
		"inside of something else":            {`<x xmlns="urn:x">` + goodMetadata() + `</x>`, "", "not SAML metadata"},
		"another namespace":                   {strings.Replace(goodMetadata(), "urn:oasis:names:tc:SAML:2.0:metadata", "urn:x", 1), "", "not SAML metadata"},
		"SAML 1.1 alone":                      {with("urn:oasis:names:tc:SAML:2.0:protocol", "urn:oasis:names:tc:SAML:1.1:protocol"), "", "no signing certificate"},
		"no entity id":                        {with(testIdP, ""), "", "no entity id"},
		"a long entity id":                    {with(testIdP, "https://"+strings.Repeat("x", 1024)), "", "1024 characters"},
		"no address":                          {with(sso, ""), "", "no single sign-on address"},
		"the POST binding alone":              {with("bindings:HTTP-Redirect", "bindings:HTTP-POST"), "", "no single sign-on address"},
		"a script as address":                 {with("https://idp.example.com/sso", "javascript:alert(1)"), "", "an address that is none"},
		"data as address":                     {with("https://idp.example.com/sso", "data://x/y"), "", "not https"},
		"plain http":                          {with("https://idp.example.com/sso", "http://idp.example.com/sso"), "", "not https"},
		"plain http on something like it":     {with("https://idp.example.com/sso", "http://127.0.0.1.example.com/sso"), "", "not https"},
		"an address with a user":              {with("https://idp.example.com/sso", "https://a:b@idp.example.com/sso"), "", "an address that is none"},
		"a certificate that is not base64":    {with(theirCertificate(), "!!!!"), "", "not base64"},
		"a certificate that is none":          {with(theirCertificate(), "AAAA"), "", "cannot be read"},
		"a short RSA key":                     {with(theirCertificate(), encode(weakDER)), "", "less than 2048 bits"},
		"an Ed25519 key":                      {with(theirCertificate(), encode(edDER)), "", "neither RSA nor ECDSA"},
		"too many keys":                       {with(sso, strings.Repeat(keyXML("", theirCertificate()), maxKeys)+sso), "", "more than 32 signing"},
		"SM-23 too deep":                      {with(sso, strings.Repeat("<x>", 60)), "", "deeper than 48"},
		"SM-23 too deep elsewhere":            {`<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">` + strings.Repeat("<x>", 1<<20), "", "deeper than 48"},
		"SM-23 too many attributes":           {with(sso, "<x"+attributes(65)+"/>"), "", "more than 64 attributes"},
		"SM-23 an entity without end":         {with(sso, strings.Repeat("<x>y</x>", 200_000)), "", "entity of more than"},
		"SM-23 a piece without end":           {`<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" Name="` + strings.Repeat("y", 3<<20), "", "piece of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			e, err := read(tt.text, tt.want)
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("got %+v, %v; wanted %q", e, err, tt.why)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` a%d="x"`, i)
	}
	return b.String()
}

// endless is a federation that never ends.
type endless struct {
	sent, at int
	entity   []byte
}

func (r *endless) Read(p []byte) (int, error) {
	n := copy(p, r.entity[r.at:])
	r.at = (r.at + n) % len(r.entity)
	r.sent += n
	return n, nil
}

// SM-23: what is read has an end, however it is cut into pieces, and is not
// kept meanwhile.
func TestMetadataOfAnyLengthEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	t.Parallel()
	small := strings.Repeat(" ", 500_000) + `<md:EntityDescriptor entityID="urn:x"/>`
	in := &endless{entity: []byte(small)}
	start := `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">`
	_, err := readMetadata(io.MultiReader(strings.NewReader(start), in), testIdP, nil, testNow)
	if err == nil || !strings.Contains(err.Error(), "metadata of more than 134217728 bytes") {
		t.Errorf("%v", err)
	}
	if in.sent > maxMetadata+1<<20 {
		t.Errorf("%d bytes were read", in.sent)
	}
	_, err = readMetadata(io.MultiReader(strings.NewReader(start+goodMetadata()), &broken{}), testIdP, nil, testNow)
	if err == nil || err.Error() != "the metadata broke off" {
		t.Errorf("a broken connection: %v", err)
	}
	// Control: thousands of entities before and behind the one that is meant.
	many := strings.Repeat(`<md:EntityDescriptor entityID="urn:x"><md:SPSSODescriptor/></md:EntityDescriptor>`, 20_000)
	if e, err := read(start+many+goodMetadata()+many+`</md:EntitiesDescriptor>`, testIdP); err != nil || e.id != testIdP {
		t.Errorf("control: %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("canary") }

func TestMetadataBounds(t *testing.T) {
	t.Parallel()
	text := `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" validUntil="2026-05-03T00:00:00Z" cacheDuration="PT6H">
		<md:EntitiesDescriptor validUntil="2026-05-02T00:00:00Z"><md:EntityDescriptor entityID="urn:x"/></md:EntitiesDescriptor>
		<md:EntitiesDescriptor cacheDuration="P1D">` +
		strings.Replace(goodMetadata(), header, header+` validUntil="2026-05-04T00:00:00Z" cacheDuration="PT2H"`, 1) +
		`</md:EntitiesDescriptor></md:EntitiesDescriptor>`
	e, err := read(text, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 5, 3, 0, 0, 0, 0, time.UTC); !e.validUntil.Equal(want) || e.cache != 2*time.Hour {
		t.Errorf("valid until %v, cache %v", e.validUntil, e.cache)
	}
	for text, want := range map[string]time.Duration{
		"PT1M": time.Minute, "P1D": 24 * time.Hour, "PT0.5S": time.Second / 2, "": 0, "soon": 0, "-PT1H": 0, "PT0S": 0, " PT5M ": 5 * time.Minute,
	} {
		e, err := read(strings.Replace(goodMetadata(), header, header+` cacheDuration="`+text+`"`, 1), "")
		if err != nil || e.cache != want || !e.validUntil.IsZero() {
			t.Errorf("cacheDuration %q: %+v, %v", text, e, err)
		}
	}
}

func TestSignedMetadata(t *testing.T) {
	t.Parallel()
	sign := func(key *rsa.PrivateKey, text string) string {
		el := claimstest.SAMLElement(text)
		el.CreateAttr("ID", "_m")
		claimstest.SAMLSignature{
			Method: claimstest.SAMLRSASHA256, Digest: claimstest.SAMLSHA256, C14N: claimstest.SAMLExclusive,
			Transforms: []string{claimstest.SAMLEnveloped, claimstest.SAMLExclusive}, URI: "#_m", Key: key,
		}.Sign(el)
		return string(claimstest.SAMLBytes(el))
	}
	der, err := claimstest.SAMLCertificate(theirKey(), testNow, testNow.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	signed := sign(theirKey(), goodMetadata())
	group := sign(theirKey(), `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">`+goodMetadata()+`</md:EntitiesDescriptor>`)
	for name, tt := range map[string]struct {
		text, why string
	}{
		"control: an entity":      {signed, ""},
		"control: a federation":   {group, ""},
		"control: a mark first":   {"\xef\xbb\xbf" + signed, ""},
		"SM-23 unsigned":          {goodMetadata(), "not signed"},
		"SM-23 by another key":    {sign(ourKey(), goodMetadata()), "fits no key"},
		"SM-23 changed":           {strings.Replace(signed, "https://idp.example.com/sso", "https://evil.example.com/", 1), "changed after"},
		"SM-23 signed inside":     {`<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" ID="_o">` + signed + `</md:EntitiesDescriptor>`, "not signed"},
		"SM-23 another beside it": {strings.Replace(group, `</md:EntitiesDescriptor>`, strings.Replace(goodMetadata(), testIdP, "urn:evil", 1)+`</md:EntitiesDescriptor>`, 1), "changed after"},
		"too deep":                {strings.Repeat("<x>", 1<<20), "deeper than 48"},
		"too long":                {goodMetadata() + strings.Repeat(" ", maxSigned), "signed metadata of more than"},
		"a page":                  {"<!DOCTYPE html><p>x</p>", "document type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := readMetadata(strings.NewReader(tt.text), "", trusted, testNow)
			switch {
			case tt.why == "" && (err != nil || e.id != testIdP):
				t.Errorf("%v", err)
			case tt.why != "" && (err == nil || !strings.Contains(err.Error(), tt.why)):
				t.Errorf("got %v, wanted %q", err, tt.why)
			}
		})
	}
}

// What is taken holds to what was asked for, whatever was read.
func FuzzMetadata(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := claimstest.SAMLCertificate(ec, testNow, testNow.Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	short := header + `>` + roleXML(keyXML("", encode(der))+sso) + `</md:EntityDescriptor>`
	for _, seed := range []string{
		short, "\xef\xbb\xbf" + short, `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" validUntil="2027-01-01T00:00:00Z" cacheDuration="PT1H">` + short + `</md:EntitiesDescriptor>`,
		strings.ReplaceAll(short, "md:", ""), "<!DOCTYPE x>" + short, `<a:b xmlns:a="x"/>`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, named bool) {
		want := ""
		if named {
			want = testIdP
		}
		e, err := readMetadata(bytes.NewReader(text), want, nil, testNow)
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 200 {
				t.Errorf("foreign text: %v", err)
			}
			return
		}
		if named && e.id != want || e.id == "" || len(e.keys) == 0 || e.expired(testNow) {
			t.Errorf("%+v", e)
		}
		for _, addresses := range []map[string]string{e.login, e.logout, e.logoutReply} {
			for _, a := range addresses {
				if !strings.HasPrefix(strings.ToLower(a), "https://") && !strings.HasPrefix(strings.ToLower(a), "http://") {
					t.Errorf("address %q", a)
				}
			}
		}
		for _, k := range e.keys {
			if again, err := certificate(encode(k.Raw)); err != nil || !again.Equal(k) {
				t.Errorf("a certificate that was taken, taken again: %v", err)
			}
		}
	})
}
