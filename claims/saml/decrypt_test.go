package saml

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// sealed are assertions that nobody can open: what SM-15 names and more. cipher
// is the honest EncryptedAssertion to change.
func unreadable(r *rig) map[string]func(sealed *etree.Element) {
	value := func(change func(raw []byte) []byte) func(*etree.Element) {
		return func(sealed *etree.Element) {
			el := sealed.FindElement("./EncryptedData/CipherData/CipherValue")
			raw, err := base64.StdEncoding.DecodeString(el.Text())
			if err != nil {
				panic(err)
			}
			el.SetText(encode(change(raw)))
		}
	}
	key := func(change func(raw []byte) []byte) func(*etree.Element) {
		return func(sealed *etree.Element) {
			el := sealed.FindElement(".//EncryptedKey/CipherData/CipherValue")
			raw, err := base64.StdEncoding.DecodeString(el.Text())
			if err != nil {
				panic(err)
			}
			el.SetText(encode(change(raw)))
		}
	}
	// instead puts something else inside, encrypted well.
	instead := func(plain string) func(*etree.Element) {
		return func(sealed *etree.Element) {
			other := r.sealText([]byte(plain))
			sealed.Child = nil
			for _, c := range slices.Clone(other.Child) {
				sealed.AddChild(c)
			}
		}
	}
	drop := func(path string) func(*etree.Element) {
		return func(sealed *etree.Element) { take(sealed.FindElement(path)) }
	}
	garbage := make([]byte, 256)
	_, _ = rand.Read(garbage)
	garbage[0] = 0 // less than the modulus: what is not, is refused at once, and everybody can see that it is not
	return map[string]func(*etree.Element){
		"odd length":           value(func(raw []byte) []byte { return raw[:len(raw)-1] }),
		"shorter than a nonce": value(func(raw []byte) []byte { return raw[:11] }),
		"a nonce alone":        value(func(raw []byte) []byte { return raw[:12] }),
		"one byte":             value(func(raw []byte) []byte { return raw[:1] }),
		"empty":                value(func([]byte) []byte { return nil }),
		"last byte changed":    value(func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }),
		"first byte changed":   value(func(raw []byte) []byte { raw[0] ^= 1; return raw }),
		"garbage":              value(func([]byte) []byte { return garbage }),
		"no base64":            func(sealed *etree.Element) { sealed.FindElement("./EncryptedData/CipherData/CipherValue").SetText("*") },
		"an element as value": func(sealed *etree.Element) {
			sealed.FindElement("./EncryptedData/CipherData/CipherValue").CreateElement("x")
		},
		"no CipherValue": drop("./EncryptedData/CipherData/CipherValue"),
		"no CipherData":  drop("./EncryptedData/CipherData"),
		"CipherData twice": func(sealed *etree.Element) {
			d := sealed.FindElement("./EncryptedData")
			d.AddChild(d.FindElement("./CipherData").Copy())
		},
		"no EncryptedData":    drop("./EncryptedData"),
		"no EncryptionMethod": drop("./EncryptedData/EncryptionMethod"),
		"no EncryptedKey":     drop(".//EncryptedKey"),
		"no KeyInfo":          drop(".//KeyInfo"),
		"EncryptedKey twice":  func(sealed *etree.Element) { k := sealed.FindElement(".//EncryptedKey"); k.Parent().AddChild(k.Copy()) },
		"EncryptedKey in two places": func(sealed *etree.Element) {
			sealed.AddChild(sealed.FindElement(".//EncryptedKey").Copy())
		},
		"EncryptedKey of another namespace": func(sealed *etree.Element) {
			sealed.FindElement(".//EncryptedKey").CreateAttr("xmlns:xenc", "urn:example:evil")
		},
		"EncryptedKey without method": drop(".//EncryptedKey/EncryptionMethod"),
		"key changed":                 key(func(raw []byte) []byte { raw[9] ^= 1; return raw }),
		"key of zeros":                key(func(raw []byte) []byte { return make([]byte, len(raw)) }),
		"key greater than the modulus": key(func(raw []byte) []byte {
			return bytes.Repeat([]byte{255}, len(raw))
		}),
		"key short":       key(func(raw []byte) []byte { return raw[1:] }),
		"key empty":       key(func([]byte) []byte { return nil }),
		"key of one byte": key(func([]byte) []byte { return []byte{1} }),
		"key garbage":     key(func([]byte) []byte { return garbage }),
		"key long":        key(func(raw []byte) []byte { return append(raw, raw...) }),
		"another digest": func(sealed *etree.Element) {
			sealed.FindElement(".//DigestMethod").CreateAttr("Algorithm", "http://www.w3.org/2001/04/xmlenc#sha256")
		},
		"a digest nobody knows": func(sealed *etree.Element) {
			sealed.FindElement(".//DigestMethod").CreateAttr("Algorithm", "urn:example:sha")
		},
		"OAEP parameters": func(sealed *etree.Element) {
			sealed.FindElement(".//EncryptedKey/EncryptionMethod").AddChild(claimstest.SAMLElement(`<xenc:OAEPparams xmlns:xenc="` + nsEncrypt + `">AAAA</xenc:OAEPparams>`))
		},
		"key for a longer cipher": func(sealed *etree.Element) {
			sealed.FindElement("./EncryptedData/EncryptionMethod").CreateAttr("Algorithm", "http://www.w3.org/2009/xmlenc11#aes128-gcm")
		},
		"inside: nothing":                 instead(""),
		"inside: blanks":                  instead("  "),
		"inside: text":                    instead("alice"),
		"inside: zeros":                   instead(strings.Repeat("\x00", 64)),
		"inside: a comment":               instead("<!-- -->"),
		"inside: another element":         instead("<x/>"),
		"inside: no SAML namespace":       instead("<Assertion/>"),
		"inside: two roots":               instead("<x/><x/>"),
		"inside: DOCTYPE":                 instead("<!DOCTYPE x><x/>"),
		"inside: an empty assertion":      instead(`<Assertion xmlns="` + nsAssertion + `"/>`),
		"inside: an unsigned assertion":   instead(`<Assertion xmlns="` + nsAssertion + `" ID="_x" Version="2.0"/>`),
		"inside: an assertion in another": instead(`<Assertion xmlns="` + nsAssertion + `" ID="_x"><Assertion ID="_y"/></Assertion>`),
		"inside: a broken signature":      instead(`<Assertion xmlns="` + nsAssertion + `" ID="_x"><Signature xmlns="` + nsSignature + `"/></Assertion>`),
		"inside: a response":              instead(`<Response xmlns="` + nsProtocol + `"/>`),
		"inside: an encrypted one":        instead(string(claimstest.SAMLBytes(r.sealText([]byte("<x/>"))))),
		"inside: half an assertion":       instead(`<Assertion xmlns="` + nsAssertion + `" ID="_x">`),
		"inside: 300 KiB of blanks":       instead(strings.Repeat(" ", 300<<10) + "<x/>"),
		"inside: deep":                    instead(strings.Repeat("<x>", 1000) + strings.Repeat("</x>", 1000)),
	}
}

// SM-15: whatever is wrong with what is encrypted, there is one answer, no
// panic, and the next one is read.
func TestSM15OneAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	r := newRig(t, withEC, func(o *idpOptions) { o.Encrypt = "aes256-gcm" })
	var answers []string
	for name, change := range unreadable(r) {
		lie := func(k *claimstest.SAMLKnobs) { k.MutateCipher = change }
		r.refused(t, "SM-15 "+name, lie, errDecrypt.Error())
		r.idp.Lie(lie)
		if _, err := r.login(t); err != nil && !slices.Contains(answers, err.Error()) {
			answers = append(answers, err.Error())
		}
		r.idp.Honest()
	}
	if len(answers) != 1 {
		t.Errorf("%d answers: %q", len(answers), answers)
	}
}

// SM-15: inside a signed response the provider itself chose the text; CBC is
// read there, and what is wrong with it has the same one answer.
func TestSM15CBC(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	r := newRig(t, withEC, func(o *idpOptions) { o.SignResponse, o.Encrypt = true, "aes256-cbc" })
	cut := func(n int) func(*etree.Element) {
		return func(sealed *etree.Element) {
			el := sealed.FindElement("./EncryptedData/CipherData/CipherValue")
			raw, _ := base64.StdEncoding.DecodeString(el.Text())
			if n < 0 {
				raw[len(raw)+n] ^= 0xff
			} else {
				raw = raw[:n]
			}
			el.SetText(encode(raw))
		}
	}
	for name, change := range map[string]func(*etree.Element){
		"SM-15 CBC odd length": cut(33), "SM-15 CBC empty": cut(0), "SM-15 CBC shorter than a block": cut(15), "SM-15 CBC one block": cut(16),
		"SM-15 CBC bad padding": cut(-17), "SM-15 CBC last block changed": cut(-1),
	} {
		r.refused(t, name, func(k *claimstest.SAMLKnobs) { k.MutateCipher = change }, errDecrypt.Error())
	}
	r.refused(t, "SM-15 CBC changed on the way", editSigned(func(root *etree.Element) { cut(32)(root.FindElement("./EncryptedAssertion")) }), errChanged.Error())

	bare := newRig(t, withEC, func(o *idpOptions) { o.SignAssertion, o.Encrypt = true, "aes256-gcm" })
	const outside = "AES-CBC outside a signed response"
	bare.refused(t, "SM-15 CBC outside a signed response", func(k *claimstest.SAMLKnobs) {
		k.MutateResponse = func(root *etree.Element) {
			root.RemoveChild(root.FindElement("./EncryptedAssertion"))
			root.AddChild(claimstest.SAMLEncrypt([]byte("<x/>"), &ourKey().PublicKey, "aes128-cbc", "oaep", false))
		}
	}, outside)
	// What the library's decryption looks for: the first of that name.
	bare.refused(t, "SM-15 CBC said in a foreign namespace first", func(k *claimstest.SAMLKnobs) {
		k.MutateCipher = func(sealed *etree.Element) {
			other := claimstest.SAMLEncrypt([]byte("<x/>"), &ourKey().PublicKey, "aes256-cbc", "oaep", false)
			sealed.Child = nil
			for _, c := range slices.Clone(other.Child) {
				sealed.AddChild(c)
			}
			method := sealed.FindElement("./EncryptedData/EncryptionMethod")
			method.CreateAttr("Algorithm", "http://www.w3.org/2009/xmlenc11#aes256-gcm")
			method.Parent().InsertChildAt(0, claimstest.SAMLElement(`<x:EncryptionMethod xmlns:x="urn:example:evil" Algorithm="http://www.w3.org/2001/04/xmlenc#aes256-cbc"/>`))
		}
	}, errDecrypt.Error())
	for name, c := range map[string]struct{ algorithm, why string }{
		"SM-15 3DES":                      {"http://www.w3.org/2001/04/xmlenc#tripledes-cbc", "an algorithm that is not accepted (AES-GCM is)"},
		"SM-15 an algorithm nobody knows": {"urn:example:aes", "an algorithm that is not accepted (AES-GCM is)"},
		"SM-15 no algorithm":              {"", "an algorithm that is not accepted (AES-GCM is)"},
	} {
		lie := func(k *claimstest.SAMLKnobs) {
			k.MutateCipher = func(sealed *etree.Element) {
				sealed.FindElement("./EncryptedData/EncryptionMethod").CreateAttr("Algorithm", c.algorithm)
			}
		}
		bare.refused(t, name, lie, c.why)
		r.refused(t, name+", signed", lie, c.why)
	}
	for _, cipher := range []string{"aes256-gcm", "aes256-cbc"} {
		old := newRig(t, withEC, func(o *idpOptions) { o.SignResponse, o.Encrypt = true, cipher })
		old.idp.Change(func(o *claimstest.SAMLOptions) { o.KeyTransport = "rsa-1_5" })
		if _, err := old.login(t); err == nil || !strings.Contains(err.Error(), "(RSA-OAEP is)") {
			t.Errorf("SM-15 RSA 1.5 with %s: %v", cipher, err)
		}
		old.idp.Change(func(o *claimstest.SAMLOptions) { o.KeyTransport = "oaep" })
		old.accepted(t, "SM-15 control: OAEP with "+cipher, nil)
	}
}

// SM-15: how long the answer takes does not tell what was wrong: a key that
// cannot be opened, one of the wrong length, a text that was changed.
func TestSM15SimilarTime(t *testing.T) {
	r := newRig(t, withEC, func(o *idpOptions) { o.Encrypt = "aes256-gcm" })
	trust, all := r.trust(t), unreadable(r)
	messages := map[string][]byte{}
	for _, name := range []string{"last byte changed", "first byte changed", "key changed", "key for a longer cipher", "key garbage"} {
		r.idp.Lie(func(k *claimstest.SAMLKnobs) { k.MutateCipher = all[name] })
		messages[name] = r.message(t, "id-x")
	}
	r.idp.Honest()
	// The least of many, in turns: a busy machine only ever adds. Where it adds
	// to all of them, there is another round.
	took := map[string]time.Duration{}
	var ratio float64
	for range 10 {
		for range 30 {
			for name, m := range messages {
				began := time.Now()
				_, err := trust.accept(m, "id-x", r.now())
				if d := time.Since(began); took[name] == 0 || d < took[name] {
					took[name] = d
				}
				if !errors.Is(err, errDecrypt) {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		all := slices.Sorted(maps.Values(took))
		if ratio = float64(all[len(all)-1]) / float64(all[0]); ratio < 1.25 {
			break
		}
	}
	t.Logf("%v", took)
	if ratio >= 1.25 {
		t.Errorf("%v: the longest is %.2f of the shortest", took, ratio)
	}
}
