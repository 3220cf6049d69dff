package saml

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// SM-10: who else is meant in the same restriction does not matter, wherever we
// stand in it. The library counts the last one alone, and one restriction out
// of several.
func TestSM10WeMayStandAnywhere(t *testing.T) {
	t.Parallel()
	audiences := func(list ...string) func(*claimstest.SAMLKnobs) {
		return at(onAudience, func(el *etree.Element) {
			el.Child = nil
			for _, a := range list {
				addAudience(el, a)
			}
		})
	}
	both(t, func(t *testing.T, r *rig) {
		const other, third = "urn:example:other", "urn:example:third"
		for name, list := range map[string][]string{
			"first": {testService, other, third}, "in the middle": {other, testService, third}, "last": {other, third, testService}, "alone": {testService},
		} {
			r.accepted(t, "SM-10 we stand "+name, audiences(list...))
		}
		r.refused(t, "SM-10 we stand nowhere", audiences(other, third), "another audience")
		r.refused(t, "SM-10 we stand in one of two restrictions, first", at(onAudience, func(el *etree.Element) {
			second := el.Copy()
			second.Child = nil
			addAudience(second, other)
			addAudience(second, third)
			el.Parent().AddChild(second)
		}), "another audience")
	})
}

// SM-15: thousands of tries at what is encrypted, all different, have one answer,
// no panic, and leave nothing behind.
func TestSM15ThousandsOfTries(t *testing.T) {
	r := newRig(t, func(o *idpOptions) { o.Encrypt = "aes256-gcm" })
	trust, honest := r.trust(t), r.message(t, "id-x")
	tries := 2_000
	if testing.Short() { // the race detector, which takes many times as long
		tries /= 10
	}
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(honest); err != nil {
		t.Fatal(err)
	}
	texts := doc.FindElements("//CipherValue")
	if len(texts) != 2 {
		t.Fatalf("%d encrypted texts", len(texts))
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same tries in every run
	try := func(i int) []byte {
		old := texts[i%2].Text()
		raw, err := base64.StdEncoding.DecodeString(old)
		if err != nil {
			t.Fatal(err)
		}
		raw[random.IntN(len(raw))] ^= byte(1 + random.IntN(255))
		switch {
		case i%8 < 2:
			raw = raw[:random.IntN(len(raw))]
		case i%8 < 4: // about as long as a nonce and a tag are
			raw = raw[:random.IntN(40)]
		}
		return bytes.Replace(honest, []byte(old), []byte(encode(raw)), 1)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	answers := map[string]int{}
	for i := range tries {
		a, err := trust.accept(try(i), "id-x", r.now())
		if a != nil || !errors.Is(err, errDecrypt) {
			t.Fatalf("try %d: %+v, %v", i, a, err)
		}
		answers[fmt.Sprint(err)]++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(answers) != 1 || r.src.Panics() != 0 {
		t.Errorf("answers %v, %d panics", answers, r.src.Panics())
	}
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 4<<20 {
		t.Errorf("%d KiB are kept", kept>>10)
	}
	if _, err := trust.accept(honest, "id-x", r.now()); err != nil {
		t.Errorf("control: %v", err)
	}
}

// S0-09: a message without end is refused for its size before anything looks
// for a signature: one that has none and one whose signature is good get the
// same answer.
func TestS009SizeComesBeforeSignatures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	trust := r.trust(t)
	signed := r.message(t, "id-x")
	unsigned := claimstest.SAMLElement(string(signed))
	take(signatureOf(assertionOf(unsigned)))
	for name, inside := range map[string][]byte{
		"bytes":    bytes.Repeat([]byte("x"), maxMessage),
		"elements": bytes.Repeat([]byte("<a/>"), maxElements+1),
		"depth":    append(bytes.Repeat([]byte("<a>"), maxDepth+1), bytes.Repeat([]byte("</a>"), maxDepth+1)...),
		"comments": bytes.Repeat([]byte("<!---->"), maxComments+1),
	} {
		answers := map[string]bool{}
		for _, m := range [][]byte{signed, claimstest.SAMLBytes(unsigned)} {
			text := fmt.Appendf(nil, "<samlp:Extensions>%s</samlp:Extensions><samlp:Status>", inside)
			_, err := trust.accept(bytes.Replace(m, []byte("<samlp:Status>"), text, 1), "id-x", r.now())
			answers[fmt.Sprint(err)] = true
		}
		if len(answers) != 1 || answers["<nil>"] {
			t.Errorf("%s: %v", name, answers)
		}
	}
	if _, err := trust.accept(signed, "id-x", r.now()); err != nil {
		t.Errorf("control: %v", err)
	}
	if _, err := trust.accept(claimstest.SAMLBytes(unsigned), "id-x", r.now()); err == nil {
		t.Error("control: unsigned and small is accepted")
	}
}
