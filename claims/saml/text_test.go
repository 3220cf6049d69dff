package saml

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// both runs a test for a message whose assertion is signed and one that is
// signed as a whole.
func both(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	for form, change := range signatureForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			test(t, newRig(t, withEC, change))
		})
	}
}

// SM-07: a name or a group is the whole of its text, whatever stands in it.
func TestSM07NothingIsCutOff(t *testing.T) {
	t.Parallel()
	// What the provider writes itself, and signs.
	const whole = "admin@example.com.evil.example.com"
	pieces := func(el *etree.Element, between etree.Token) {
		el.SetText("")
		el.AddChild(etree.NewText("admin@example.com"))
		el.AddChild(between)
		el.AddChild(etree.NewText(".evil.example.com"))
	}
	signedWith := func(t *testing.T, r *rig) {
		for name, between := range map[string]func() etree.Token{
			"comment": func() etree.Token { return etree.NewComment("") },
			"a comment that could be markup": func() etree.Token {
				return etree.NewComment("</saml:NameID><saml:NameID>mallory</saml:NameID>")
			},
			"CDATA": func() etree.Token { return etree.NewCData("") },
		} {
			t.Run("SM-07 signed with "+name, func(t *testing.T) {
				r.idp.Lie(edit(func(a *etree.Element) {
					pieces(a.FindElement("./Subject/NameID"), between())
					pieces(a.FindElement("./AttributeStatement/Attribute[@Name='groups']/AttributeValue"), between())
				}))
				defer r.idp.Honest()
				id, err := r.login(t)
				if err != nil {
					t.Fatal(err)
				}
				if id.Subject != whole || id.Claims.Resolve("groups").Values[0] != whole {
					t.Errorf("%q in %q, want %q", id.Subject, id.Claims.Resolve("groups").Values, whole)
				}
			})
		}
	}
	// Nothing canonicalises what is encrypted inside a signed response.
	signedWith(t, newRig(t, withEC, func(o *idpOptions) { o.SignResponse, o.Encrypt = true, "aes256-gcm" }))
	both(t, func(t *testing.T, r *rig) {
		signedWith(t, r)
		// The same put in afterwards, and other ways of writing the same.
		for name, change := range map[string][2]string{
			"comment in the NameID":           {">alice<", ">al<!-- -->ice<"},
			"comment before the NameID":       {">alice<", "><!--mallory-->alice<"},
			"comment after the NameID":        {">alice<", ">alice<!--mallory--><"},
			"CDATA in the NameID":             {">alice<", ">al<![CDATA[i]]>ce<"},
			"CDATA around the NameID":         {">alice<", "><![CDATA[alice]]><"},
			"character references":            {">alice<", ">&#97;l&#x69;ce<"},
			"comment in a group":              {">eng<", ">e<!---->ng<"},
			"CDATA in a group":                {">eng<", ">e<![CDATA[n]]>g<"},
			"character references in a group": {">eng<", ">&#101;&#110;g<"},
		} {
			r.accepted(t, "SM-07 added later: "+name, replace(change[0], change[1]))
		}
		for name, change := range map[string][2]string{
			"processing instruction in the NameID": {">alice<", ">al<?x y?>ice<"},
			"processing instruction in a group":    {">eng<", ">e<?x?>ng<"},
			"processing instruction elsewhere":     {"<saml:Subject>", "<?x y?><saml:Subject>"},
			"another declaration":                  {"<saml:Subject>", `<?xml version="1.0"?><saml:Subject>`},
		} {
			r.refused(t, "SM-07 added later: "+name, replace(change[0], change[1]), "a processing instruction")
		}
		for name, change := range map[string][2]string{
			"CDATA with more":                {">alice<", ">alice<![CDATA[.evil]]><"},
			"a character reference too much": {">alice<", ">alice&#32;<"},
			"an element":                     {">alice<", ">alice<x/><"},
			"CDATA that holds markup":        {">eng<", "><![CDATA[eng</saml:AttributeValue><saml:AttributeValue>admins]]><"},
		} {
			r.refused(t, "SM-07 added later: "+name, replace(change[0], change[1]), errChanged.Error())
		}
		r.refused(t, "SM-07 signed with an element in the NameID", edit(func(a *etree.Element) {
			a.FindElement("./Subject/NameID").CreateElement("saml:x").SetText("mallory")
		}), "a NameID that is not text")
	})
}

// SM-08: what parsers read differently. All of it stands where nothing is
// signed, so that the signature does not refuse it.
func TestSM08UnstableXML(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	before := func(text string) func(*claimstest.SAMLKnobs) { return replace("<samlp:Status>", text+"<samlp:Status>") }
	extension := func(text string) func(*claimstest.SAMLKnobs) {
		return before("<samlp:Extensions>" + text + "</samlp:Extensions>")
	}
	whole := func(change func(m []byte) []byte) func(*claimstest.SAMLKnobs) {
		return func(k *claimstest.SAMLKnobs) { k.MutateMessage = change }
	}
	declared := func(declaration string) func(*claimstest.SAMLKnobs) {
		return whole(func(m []byte) []byte { return append([]byte(declaration), m...) })
	}
	notXML := errNotXML.Error()
	for name, c := range map[string]struct {
		lie func(*claimstest.SAMLKnobs)
		why string
	}{
		"SM-08 an attribute that begins with a colon": {extension(`<x :a="1"/>`), ""},
		"SM-08 an attribute with two colons":          {extension(`<x a:b:c="1"/>`), ""},
		"SM-08 an element with two colons":            {extension(`<x::y/>`), ""},
		"SM-08 an element that begins with a colon":   {extension(`<:x/>`), ""},
		"SM-08 an element that ends with a colon":     {extension(`<x:/>`), ""},
		"SM-08 a prefix in the prefix":                {extension(`<a:b:c xmlns:a="urn:x"/>`), notXML},
		"SM-08 a directive":                           {before(`<!ELEMENT x ANY>`), "a document type"},
		"SM-08 a directive in a directive":            {before(`<!x<!-- --><!y>>`), "a document type"},
		"SM-08 a comment in a directive":              {before(`<! <<!-- -->!-->"-->" >`), "a document type"},
		"SM-08 an attribute twice":                    {extension(`<x a="1" a="2"/>`), "twice"},
		"SM-08 the ID twice":                          {replace(`Version="2.0"`, `Version="2.0" Version="2.0"`), "twice"},
		"SM-08 invalid UTF-8 in text":                 {extension("\xff"), notXML},
		"SM-08 invalid UTF-8 in a comment":            {before("<!--\xc3\x28-->"), notXML},
		"SM-08 invalid UTF-8 in an attribute":         {extension("<x a=\"\xed\xa0\x80\"/>"), notXML},
		"SM-08 an overlong sequence":                  {extension("\xc0\xbcx/>"), notXML},
		"SM-08 NUL in text":                           {extension("a\x00b"), notXML},
		"SM-08 NUL as a reference":                    {extension("&#0;"), notXML},
		"SM-08 a control character":                   {extension("\x08"), notXML},
		"SM-08 a control character as a reference":    {extension("&#x1b;"), notXML},
		"SM-08 an attribute without quotes":           {extension(`<x a=1/>`), notXML},
		"SM-08 an attribute without value":            {extension(`<x a/>`), notXML},
		"SM-08 < in an attribute":                     {extension(`<x a="<"/>`), notXML},
		"SM-08 ]]> in text":                           {extension(`]]>`), notXML},
		"SM-08 -- in a comment":                       {before(`<!-- -- -->`), notXML},
		"SM-08 XML 1.1":                               {declared(`<?xml version="1.1"?>`), notXML},
		"SM-08 another encoding":                      {declared(`<?xml version="1.0" encoding="ISO-8859-1"?>`), notXML},
		"SM-08 UTF-7":                                 {declared(`<?xml version="1.0" encoding="UTF-7"?>`), notXML},
		"SM-08 the declaration twice":                 {declared(`<?xml version="1.0"?><?xml version="1.0"?>`), "a processing instruction"},
		"SM-08 the declaration behind a comment":      {declared(`<!-- --><!-- --><?xml version="1.0"?>`), "a processing instruction"},
		"SM-08 another instruction first":             {declared(`<?xml-stylesheet href="x"?>`), "a processing instruction"},
		"SM-08 text before":                           {declared(`x`), "text outside"},
		"SM-08 a byte order mark":                     {declared("\ufeff"), "text outside"},
		"SM-08 text behind":                           {whole(func(m []byte) []byte { return append(m, 'x') }), "text outside"},
		"SM-08 NUL behind":                            {whole(func(m []byte) []byte { return append(m, 0) }), notXML},
		"SM-08 a second root":                         {whole(func(m []byte) []byte { return append(m, "<x/>"...) }), "a second root"},
		"SM-08 the whole message twice":               {whole(func(m []byte) []byte { return append(m, m...) }), "a second root"},
		"SM-08 cut off":                               {whole(func(m []byte) []byte { return m[:len(m)-5] }), ""},
		"SM-08 an end tag too much":                   {whole(func(m []byte) []byte { return append(m, "</x>"...) }), ""},
		"SM-08 an end tag of another":                 {extension("<x></y>"), "without its start"},
		"SM-08 nothing":                               {whole(func([]byte) []byte { return []byte(" ") }), "no root"},
		"SM-08 UTF-16":                                {whole(asUTF16), notXML},
		"SM-08 an entity nobody declared":             {extension("&evil;"), notXML},
		"SM-08 an entity of HTML":                     {extension("&nbsp;"), notXML},
		"SM-09 DOCTYPE":                               {declared(`<!DOCTYPE x>`), "a document type"},
		"SM-09 DOCTYPE inside":                        {before(`<!DOCTYPE x>`), "a document type"},
		"SM-09 an internal entity":                    {declared(`<!DOCTYPE x [<!ENTITY a "alice">]>`), "a document type"},
		"SM-09 a billion laughs":                      {declared(laughs()), "a document type"},
	} {
		r.refused(t, name, c.lie, c.why)
	}
	r.accepted(t, "control: plain extensions", extension(`<x a="1">&lt;&#65;<![CDATA[<]]><!-- - --></x>`))
	r.accepted(t, "control: a declaration", declared(`<?xml version='1.0' encoding="utf-8" standalone="yes" ?>`))
}

func asUTF16(m []byte) []byte {
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(string(m))) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

func laughs() string {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE l [<!ENTITY l0 "lol">`)
	for i := range 9 {
		n, before := string(rune('1'+i)), string(rune('0'+i))
		b.WriteString(`<!ENTITY l` + n + ` "` + strings.Repeat("&l"+before+";", 10) + `">`)
	}
	return b.String() + `]>`
}

// SM-09: nothing that a message names is fetched.
func TestSM09NothingIsFetched(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(canary.Close)
	r := newRig(t, withEC)
	for name, text := range map[string]string{
		"SM-09 an external subset":           `<!DOCTYPE x SYSTEM "` + canary.URL + `/x.dtd">`,
		"SM-09 an external entity":           `<!DOCTYPE x [<!ENTITY a SYSTEM "` + canary.URL + `/a">]>`,
		"SM-09 an external parameter entity": `<!DOCTYPE x [<!ENTITY % a SYSTEM "` + canary.URL + `/a">%a;]>`,
		"SM-09 a public one":                 `<!DOCTYPE x PUBLIC "-//x//x" "` + canary.URL + `/x">`,
	} {
		r.refused(t, name, func(k *claimstest.SAMLKnobs) {
			k.MutateMessage = func(m []byte) []byte { return append([]byte(text), m...) }
		}, "a document type")
	}
	r.refused(t, "SM-09 a stylesheet", func(k *claimstest.SAMLKnobs) {
		k.MutateMessage = func(m []byte) []byte {
			return append([]byte(`<?xml-stylesheet href="`+canary.URL+`"?>`), m...)
		}
	}, "a processing instruction")
	r.accepted(t, "control: addresses in Extensions are text", replace("<samlp:Status>", `<samlp:Extensions xmlns:xi="http://www.w3.org/2001/XInclude" xmlns:xsi="`+nsInstance+
		`" xsi:schemaLocation="urn:x `+canary.URL+`/x.xsd"><xi:include href="`+canary.URL+`/i"/></samlp:Extensions><samlp:Status>`))
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests to the canary", n)
	}
}

// The provider may say no; that is an answer, and nobody's fault.
func TestStatusSaysNo(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	const prefix = "urn:oasis:names:tc:SAML:2.0:status:"
	status := func(codes ...string) func(*claimstest.SAMLKnobs) {
		return func(k *claimstest.SAMLKnobs) { k.Status = codes }
	}
	for name, codes := range map[string][]string{
		"the provider answered AuthnFailed":      {prefix + "Responder", prefix + "AuthnFailed"},
		"the provider answered RequestDenied":    {prefix + "Responder", prefix + "RequestDenied"},
		"the provider answered NoPassive":        {prefix + "Requester", prefix + "NoPassive"},
		"the provider answered UnknownPrincipal": {prefix + "Responder", prefix + "UnknownPrincipal"},
	} {
		r.refusedAs(t, name, claims.ErrDenied, status(codes...), name)
	}
	for name, codes := range map[string][]string{
		"the provider answered Requester":                             {prefix + "Requester"},
		"the provider answered VersionMismatch":                       {prefix + "VersionMismatch"},
		"the provider answered InvalidNameIDPolicy":                   {prefix + "Requester", prefix + "InvalidNameIDPolicy"},
		"the provider answered with a status that SAML does not know": {prefix + "<script>alert(1)</script>"},
	} {
		r.refused(t, name, status(codes...), name)
	}
	r.refused(t, "success, and no assertion", func(k *claimstest.SAMLKnobs) { k.NoAssertion = true }, "a response without an assertion")
	r.refused(t, "no success, with an assertion", editResponse(func(root *etree.Element) {
		root.FindElement("./Status/StatusCode").CreateAttr("Value", prefix+"Responder")
	}), "the provider answered Responder")
	r.refused(t, "success inside of no success", editResponse(func(root *etree.Element) {
		code := root.FindElement("./Status/StatusCode")
		inner := code.Copy()
		code.CreateAttr("Value", prefix+"Responder")
		code.AddChild(inner)
	}), "the provider answered Success")
}
