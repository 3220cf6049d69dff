package saml

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// Inputs that were found once must mean the same in every process and for
// ever, so the keys and the clock of the fuzz targets never change. They
// protect nothing.
var fuzzNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const fuzzACS = "https://portal.example.com/_auth/saml/idp/acs"

func fuzzBytes(what string, n int) []byte {
	var out []byte
	for i := uint64(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(what), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func fuzzSigner(f *testing.F) *ecdsa.PrivateKey {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), fuzzBytes("groupgate fuzz provider", 32))
	if err != nil {
		f.Fatal(err)
	}
	return key
}

// fuzzRSA finds the next primes behind two fixed numbers.
func fuzzRSA(f *testing.F) *rsa.PrivateKey {
	prime := func(what string) *big.Int {
		raw := fuzzBytes(what, 128)
		raw[0] |= 0xc0
		raw[127] |= 1
		n := new(big.Int).SetBytes(raw)
		for e := big.NewInt(65537); ; n.Add(n, big.NewInt(2)) {
			less := new(big.Int).Sub(n, big.NewInt(1))
			if n.ProbablyPrime(0) && new(big.Int).GCD(nil, nil, e, less).Cmp(big.NewInt(1)) == 0 {
				return n
			}
		}
	}
	p, q := prime("groupgate fuzz p"), prime("groupgate fuzz q")
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi), Primes: []*big.Int{p, q},
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		f.Fatal(err)
	}
	return key
}

// fuzzRig is a provider without a network, and what its messages are held to.
func fuzzRig(f *testing.F) (*claimstest.SAMLIdP, *trust) {
	f.Helper()
	idp := claimstest.NewSAML(claimstest.SAMLOptions{
		EntityID: "https://idp.example.com", People: []claimstest.SAMLPerson{alice}, Key: fuzzSigner(f), Now: func() time.Time { return fuzzNow },
	})
	key := fuzzRSA(f)
	der, err := claimstest.SAMLCertificate(key, fuzzNow, fuzzNow.Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	cfg := claims.DefaultSAML
	cfg.EntityID = testService
	src, err := New(Options{Name: "idp", Config: cfg, Origin: "https://portal.example.com", Prefix: "/_auth", Key: key, Certificate: certificate})
	if err != nil {
		f.Fatal(err)
	}
	_, metadata, err := src.Metadata()
	if err == nil {
		err = idp.Trust(metadata)
	}
	if err != nil {
		f.Fatal(err)
	}
	_, own := idp.SigningKey()
	theirs, err := x509.ParseCertificate(own)
	if err != nil {
		f.Fatal(err)
	}
	tr := &trust{
		idp: idp.EntityID(), keys: []*x509.Certificate{theirs}, sp: testService, acs: address(fuzzACS), key: key, skew: time.Minute,
		noted: func(fault any) { panic(fault) }, // a refusal for people, a finding here
	}
	return idp, tr
}

// honestly is the message of the options, by a provider that tells this lie.
func honestly(f *testing.F, idp *claimstest.SAMLIdP, lie func(*claimstest.SAMLKnobs), change func(*claimstest.SAMLOptions)) []byte {
	f.Helper()
	idp.Change(func(o *claimstest.SAMLOptions) {
		o.SignResponse, o.SignAssertion, o.Encrypt = false, true, ""
		if change != nil {
			change(o)
		}
	})
	idp.Honest()
	if lie != nil {
		idp.Lie(lie)
	}
	m, err := idp.Respond(claimstest.SAMLRequest{ID: "id-1", Service: testService, ACS: fuzzACS}, "alice")
	if err != nil {
		f.Fatal(err)
	}
	return m
}

var fuzzForms = []func(*claimstest.SAMLOptions){
	nil,
	func(o *claimstest.SAMLOptions) { o.SignResponse, o.SignAssertion = true, false },
	func(o *claimstest.SAMLOptions) { o.SignResponse = true },
	func(o *claimstest.SAMLOptions) { o.Encrypt = "aes128-gcm" },
	func(o *claimstest.SAMLOptions) { o.SignResponse, o.Encrypt = true, "aes256-cbc" },
}

// linear fails what takes more than a loose 50 ms for every 64 KiB: loose
// because the fuzzer slows everything, on all processors at once.
func linear(t *testing.T, n int, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 40*50*time.Millisecond*time.Duration(1+n>>16) {
		t.Errorf("%d bytes took %s", n, took)
	}
}

// FuzzScan, SM-08: what passes is one well-formed element for the parser too, within
// the bounds, and reads the same when it is written and read again.
func FuzzScan(f *testing.F) {
	idp, _ := fuzzRig(f)
	for _, form := range fuzzForms {
		f.Add(honestly(f, idp, nil, form))
	}
	for _, s := range []string{
		`<a/>`, `<?xml version="1.0"?><a b="c"><!-- d -->&lt;<![CDATA[e]]></a>`, `<!DOCTYPE a><a/>`, `<a:b xmlns:a="c"/>`, `<a:b:c/>`, `<a :b="1"/>`,
		`<a/><b/>`, `<a>`, `<?a b?><c/>`, "<a>\xff</a>", "<a>\x00</a>", `<a b="1" b="2"/>`, `<a>&#13;&#x10FFFF;</a>`, "<a b='\r\n\t'>\r\n</a>", `<x::y/>`, `<a xmlns="b" xmlns:c=""/>`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		err := scan(data)
		linear(t, len(data), began)
		if err != nil {
			return
		}
		doc := etree.NewDocument()
		if err := doc.ReadFromBytes(data); err != nil {
			t.Fatalf("passed, and the parser says %v", err)
		}
		roots := 0
		for _, c := range doc.Child {
			switch c := c.(type) {
			case *etree.Element:
				roots++
			case *etree.Directive:
				t.Fatal("a directive passed")
			case *etree.ProcInst:
				if c.Target != "xml" {
					t.Fatal("a processing instruction passed")
				}
			}
		}
		if roots != 1 || len(data) > maxMessage || bytes.Contains(data, []byte("<!DOCTYPE")) && !bytes.Contains(data, []byte("<!--")) && !bytes.Contains(data, []byte("<![CDATA[")) && !bytes.ContainsAny(data, "\"'") {
			t.Fatalf("%d roots in %d bytes", roots, len(data))
		}
		first, err := canonical(doc.Root().Copy(), "")
		if err != nil {
			return // prefixes that nobody declared
		}
		again := etree.NewDocument()
		if err := again.ReadFromBytes(first); err != nil {
			t.Fatalf("%q is not read again: %v", first, err)
		}
		second, err := canonical(again.Root(), "")
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%q became %q, %v", first, second, err)
		}
	})
}

// FuzzResponse, SM-01: whatever is done to a response that the provider signed, either
// it is refused or every value of it is the one that was signed.
func FuzzResponse(f *testing.F) {
	idp, tr := fuzzRig(f)
	for _, form := range fuzzForms {
		f.Add(honestly(f, idp, nil, form), uint(0), uint(0), "")
	}
	for _, layout := range wrapAssertion {
		f.Add(honestly(f, idp, editSigned(func(root *etree.Element) {
			good := assertionOf(root)
			layout(root, good, evilOf(good))
		}), nil), uint(0), uint(0), "")
	}
	for _, layout := range wrapResponse {
		m := honestly(f, idp, nil, func(o *claimstest.SAMLOptions) { o.SignResponse, o.SignAssertion = true, false })
		f.Add(claimstest.SAMLBytes(layout(claimstest.SAMLElement(string(m)))), uint(0), uint(0), "")
	}
	for i, insert := range []string{"<!---->", "<![CDATA[x]]>", "&#120;", "<?x?>", " ", "<saml:AttributeValue>admins</saml:AttributeValue>", `xmlns:saml="urn:x"`, "</saml:NameID>", `ID="_x"`} {
		f.Add(honestly(f, idp, nil, fuzzForms[i%len(fuzzForms)]), uint(900+100*i), uint(i%3), insert)
	}
	idp.Honest()
	honest := honestValues(f, tr, honestly(f, idp, nil, nil))
	f.Fuzz(func(t *testing.T, data []byte, at, cut uint, insert string) {
		if n := uint(len(data)); n > 0 && (cut > 0 || insert != "") {
			at %= n
			data = slices.Concat(data[:at], []byte(insert), data[min(n, at+cut%1024):])
		}
		began := time.Now()
		a, err := tr.accept(data, "id-1", fuzzNow)
		linear(t, len(data), began)
		if err != nil {
			if a != nil || err.Error() == "" || strings.Contains(err.Error(), "library fail") {
				t.Fatalf("%+v beside %v", a, err)
			}
			return
		}
		got := *a
		if !strings.HasPrefix(a.id, "_") || len(a.id) != len(honest.id) || len(a.sessionIndex) != len(honest.sessionIndex) {
			t.Errorf("id %q, session %q", a.id, a.sessionIndex)
		}
		got.id, got.sessionIndex = honest.id, honest.sessionIndex // random in every message
		if !reflect.DeepEqual(got, *honest) {
			t.Fatalf("accepted\n%+v\nwanted\n%+v", got, *honest)
		}
	})
}

func honestValues(f *testing.F, tr *trust, m []byte) *assertion {
	f.Helper()
	a, err := tr.accept(m, "id-1", fuzzNow)
	if err != nil {
		f.Fatalf("the honest message is refused: %v", err)
	}
	if a.name.Value != "alice" || len(a.attributes) != len(alice.Attributes) {
		f.Fatalf("%+v", a)
	}
	return a
}

// FuzzDecrypt, SM-15: whatever is encrypted, or only said to be, comes out as an
// assertion or is one of few answers. plain is encrypted well first; cut and
// flip then spoil it.
func FuzzDecrypt(f *testing.F) {
	idp, tr := fuzzRig(f)
	ciphers := []string{"aes128-gcm", "aes192-gcm", "aes256-gcm", "aes128-cbc", "aes192-cbc", "aes256-cbc"}
	transports := []string{"oaep", "oaep-sha256", "oaep11", "rsa-1_5"}
	signed := claimstest.SAMLBytes(assertionOf(claimstest.SAMLElement(string(honestly(f, idp, nil, nil)))))
	for i := range 24 {
		f.Add(signed, uint8(i), uint8(i%3), uint(0), uint(0), "", "")
	}
	for _, plain := range []string{"", "x", "<x/>", `<Assertion xmlns="` + nsAssertion + `"/>`, "<!DOCTYPE x><x/>", "\x00"} {
		f.Add([]byte(plain), uint8(2), uint8(0), uint(0), uint(0), "", "")
		f.Add([]byte(plain), uint8(5), uint8(1), uint(3), uint(7), "EncryptionMethod", "urn:x")
	}
	f.Add(signed, uint8(0), uint8(0), uint(1), uint(0), "", "")
	f.Add(signed, uint8(0), uint8(0), uint(0), uint(99), "DigestMethod", "http://www.w3.org/2001/04/xmlenc#sha512")
	want := etree.NewDocument()
	if err := want.ReadFromBytes(signed); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte, kind, how uint8, cut, flip uint, path, algorithm string) {
		el := claimstest.SAMLEncrypt(plain, &tr.key.PublicKey, ciphers[int(kind)%len(ciphers)], transports[int(how)%len(transports)], kind >= 128)
		spoil(el, cut, flip, path, algorithm)
		began := time.Now()
		inside := how >= 128
		_, err := checkEncrypted(el, inside)
		var got *etree.Element
		if err == nil {
			got, err = tr.decrypt(el, inside)
		}
		linear(t, len(plain), began)
		if err != nil {
			if got != nil || !errors.Is(err, errDecrypt) && !strings.Contains(err.Error(), "accepted (") && !strings.Contains(err.Error(), "AES-CBC outside") {
				t.Fatalf("%v beside %v", got, err)
			}
			return
		}
		if !is(got, nsAssertion, "Assertion") || scan(plain) != nil && cut+flip == 0 {
			t.Fatalf("%s out of %q", got.Tag, plain)
		}
		if cbc := int(kind) % len(ciphers); cbc >= 3 && !inside {
			t.Fatal("CBC outside a signed response")
		}
	})
}

// spoil cuts the end of the text off, flips a bit of it, and names another
// algorithm.
func spoil(el *etree.Element, cut, flip uint, tag, algorithm string) {
	value := el.FindElement("./EncryptedData/CipherData/CipherValue")
	text := value.Text()
	text = text[:uint(len(text))-cut%uint(len(text)+1)]
	if flip > 0 && len(text) > 0 {
		b := []byte(text)
		b[flip%uint(len(b))] ^= 1
		text = string(b)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		return
	}
	value.SetText(text)
	var walk func(*etree.Element)
	walk = func(el *etree.Element) {
		if tag != "" && el.Tag == tag {
			el.CreateAttr("Algorithm", algorithm)
		}
		for _, c := range el.ChildElements() {
			walk(c)
		}
	}
	walk(el)
}
