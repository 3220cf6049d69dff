package saml

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// SM-22: what stands in a query beside the parameters of the binding, or in
// another order, or twice, is refused before the signature is looked at.
func TestLogoutQueryShapes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, l := r.signedIn(t)
	l.RelayState = "state"
	bob := l
	bob.NameID = "bob"
	other := strings.TrimPrefix(r.idp.LogoutQuery("", bob), "?")
	parts := func(q string) []string { return strings.Split(q, "&") }
	for name, change := range map[string]func(q []string) string{
		"RelayState first":         func(q []string) string { return strings.Join([]string{q[1], q[0], q[2], q[3]}, "&") },
		"SigAlg before RelayState": func(q []string) string { return strings.Join([]string{q[0], q[2], q[1], q[3]}, "&") },
		"Signature before SigAlg":  func(q []string) string { return strings.Join([]string{q[0], q[1], q[3], q[2]}, "&") },
		"request twice":            func(q []string) string { return strings.Join([]string{q[0], q[0], q[1], q[2], q[3]}, "&") },
		"another request first":    func(q []string) string { return parts(other)[0] + "&" + strings.Join(q, "&") },
		"another request last":     func(q []string) string { return strings.Join(q, "&") + "&" + parts(other)[0] },
		"another request instead":  func(q []string) string { return strings.Join(append(parts(other)[:1:1], q[1:]...), "&") },
		"a response instead": func(q []string) string {
			return "SAMLResponse" + strings.TrimPrefix(strings.Join(q, "&"), "SAMLRequest")
		},
		"RelayState twice":      func(q []string) string { return strings.Join([]string{q[0], q[1], q[1], q[2], q[3]}, "&") },
		"RelayState changed":    func(q []string) string { return strings.Join([]string{q[0], q[1] + "x", q[2], q[3]}, "&") },
		"RelayState taken away": func(q []string) string { return strings.Join([]string{q[0], q[2], q[3]}, "&") },
		"SigAlg twice":          func(q []string) string { return strings.Join([]string{q[0], q[1], q[2], q[2], q[3]}, "&") },
		"SigAlg changed": func(q []string) string {
			return strings.Join([]string{q[0], q[1], q[2][:len(q[2])-3] + "512", q[3]}, "&")
		},
		"no SigAlg":            func(q []string) string { return strings.Join([]string{q[0], q[1], q[3]}, "&") },
		"no Signature":         func(q []string) string { return strings.Join(q[:3], "&") },
		"Signature empty":      func(q []string) string { return strings.Join(q[:3], "&") + "&Signature=" },
		"Signature of another": func(q []string) string { return strings.Join(q[:3], "&") + "&" + parts(other)[3] },
		"Signature not base64": func(q []string) string { return strings.Join(q[:3], "&") + "&Signature=%21" },
		"neither":              func(q []string) string { return strings.Join(q[:2], "&") },
		"the request alone":    func(q []string) string { return q[0] },
		"something before":     func(q []string) string { return "a=b&" + strings.Join(q, "&") },
		"something behind":     func(q []string) string { return strings.Join(q, "&") + "&a=b" },
		"an empty pair":        func(q []string) string { return strings.Join(q, "&") + "&" },
		"SAMLEncoding": func(q []string) string {
			return strings.Join(q, "&") + "&SAMLEncoding=urn:oasis:names:tc:SAML:2.0:bindings:URL-Encoding:DEFLATE"
		},
		"a name in other letters": func(q []string) string {
			return "samlrequest" + strings.TrimPrefix(strings.Join(q, "&"), "SAMLRequest")
		},
		"a name in escapes": func(q []string) string {
			return "SAML%52equest" + strings.TrimPrefix(strings.Join(q, "&"), "SAMLRequest")
		},
		"written otherwise": func(q []string) string { return strings.Replace(strings.Join(q, "&"), "%2B", "%2b", 1) + " " },
		"a bad escape":      func(q []string) string { return strings.Join(q[:3], "&") + "&Signature=%zz" },
		"nothing":           func([]string) string { return "" },
		"ampersands":        func([]string) string { return strings.Repeat("&", 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			k := lies{MutateQuery: func(q string) string { return change(parts(q)) }}
			if m, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l, k)); !errors.Is(err, claims.ErrProtocol) || m != nil {
				t.Errorf("%+v, %v", m, err)
			}
			if _, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l)); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
	// The signature is over the octets as they were sent. .NET escapes in small
	// letters, and others escape what need not be.
	for name, escape := range map[string]func(string) string{
		"small letters": func(v string) string {
			return regexp.MustCompile(`%..`).ReplaceAllStringFunc(url.QueryEscape(v), strings.ToLower)
		},
		"everything": func(v string) string {
			return regexp.MustCompile(`(?s).`).ReplaceAllStringFunc(v, func(c string) string { return fmt.Sprintf("%%%02X", c) })
		},
		"spaces": func(v string) string { return strings.ReplaceAll(url.QueryEscape(v), "+", "%20") },
	} {
		if _, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l, lies{Escape: escape})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// SM-22: forms that could be read in two ways, and signatures that are of
// something else than what they stand in.
func TestLogoutFormShapes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, l := r.signedIn(t)
	for name, k := range map[string]lies{
		"message twice":        {MutateForm: func(f url.Values) { f.Add("SAMLRequest", f.Get("SAMLRequest")) }},
		"an answer beside it":  {MutateForm: func(f url.Values) { f.Set("SAMLResponse", f.Get("SAMLRequest")) }},
		"as an answer":         {MutateForm: func(f url.Values) { f.Set("SAMLResponse", f.Get("SAMLRequest")); f.Del("SAMLRequest") }},
		"RelayState twice":     {MutateForm: func(f url.Values) { f["RelayState"] = []string{"a", "b"} }},
		"no message":           {MutateForm: func(f url.Values) { f.Del("SAMLRequest") }},
		"not base64":           {MutateForm: func(f url.Values) { f.Set("SAMLRequest", "!"+f.Get("SAMLRequest")) }},
		"deflated":             {MutateMessage: claimstest.SAMLDeflate},
		"changed on the way":   {MutateSigned: inMessage("./NameID", func(el *etree.Element) { el.SetText("bob") })},
		"the session left out": {MutateSigned: func(el *etree.Element) { el.RemoveChild(el.FindElement("./SessionIndex")) }},
		"signature taken out":  {MutateSigned: func(el *etree.Element) { el.RemoveChild(signatureOf(el)) }},
		"signature twice":      {MutateSigned: func(el *etree.Element) { el.AddChild(signatureOf(el).Copy()) }},
		"signature moved":      {MutateSigned: func(el *etree.Element) { sig := take(signatureOf(el)); el.FindElement("./NameID").AddChild(sig) }},
		"of an empty URI":      {Signature: func(s *claimstest.SAMLSignature) { s.URI = "" }},
		"of another ID":        {Signature: func(s *claimstest.SAMLSignature) { s.URI = "#other" }},
		"inclusive c14n":       {Signature: func(s *claimstest.SAMLSignature) { s.C14N = claimstest.SAMLInclusive }},
		"sha1 digest":          {Signature: func(s *claimstest.SAMLSignature) { s.Digest = "http://www.w3.org/2000/09/xmldsig#sha1" }},
		"wrapped": {MutateSigned: func(el *etree.Element) {
			good := el.Copy()
			el.CreateAttr("ID", "_evil")
			el.FindElement("./NameID").SetText("bob")
			take(signatureOf(el))
			ext := el.CreateElement("samlp:Extensions")
			ext.AddChild(good)
		}},
		"wrapped, its signature kept": {MutateSigned: func(el *etree.Element) {
			good := el.Copy()
			take(signatureOf(good))
			el.CreateAttr("ID", "_evil")
			el.FindElement("./NameID").SetText("bob")
			el.CreateElement("samlp:Extensions").AddChild(good)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := r.byForm(r.idp.LogoutForm(r.slo(), l, k)); !errors.Is(err, claims.ErrProtocol) || m != nil {
				t.Errorf("%+v, %v", m, err)
			}
			// A button's field is nobody's concern, and lines are broken.
			broken := lies{MutateForm: func(f url.Values) {
				f.Set("submit", "Continue")
				text := f.Get("SAMLRequest")
				f.Set("SAMLRequest", text[:76]+"\r\n"+text[76:])
			}}
			if _, err := r.byForm(r.idp.LogoutForm(r.slo(), l, broken)); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
}

// SM-14: a few kilobytes that stand for gigabytes cost neither time nor memory,
// whoever signed them.
func TestLogoutDeflateBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	r := newRig(t)
	_, l := r.signedIn(t)
	bomb := func([]byte) []byte {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = w.Write(zeros)
		}
		_ = w.Close()
		return b.Bytes()
	}
	for name, k := range map[string]lies{
		"by the provider": {Pack: bomb},
		"by a stranger":   {Pack: bomb, Key: rsaKey()},
		"by nobody":       {Pack: bomb, Unsigned: true},
		"cut off":         {Pack: func(m []byte) []byte { return claimstest.SAMLDeflate(m)[:40] }},
		"something more":  {Pack: func(m []byte) []byte { return append(claimstest.SAMLDeflate(m), "more"...) }},
		"not deflated":    {Pack: func(m []byte) []byte { return m }},
	} {
		query := r.idp.LogoutQuery(r.slo(), l, k)
		answer := r.idp.LogoutAnswerQuery(r.slo(), "id-1", "", k)
		// The machine may be busy with something else: the best of a few.
		took, made := time.Hour, uint64(1<<62)
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, err := r.byQuery(query)
			_, err2 := r.byQuery(answer)
			took = min(took, time.Since(began))
			runtime.ReadMemStats(&after)
			made = min(made, after.TotalAlloc-before.TotalAlloc)
			if !errors.Is(err, claims.ErrProtocol) || !errors.Is(err2, claims.ErrProtocol) {
				t.Errorf("%s: %v, %v", name, err, err2)
			}
		}
		t.Logf("%s: %v, %d bytes", name, took, made)
		if took > 100*time.Millisecond || made > 16<<20 {
			t.Errorf("%s: took %v and %d bytes", name, took, made)
		}
	}
	if _, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l)); err != nil {
		t.Errorf("control: %v", err)
	}
}
