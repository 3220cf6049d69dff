package saml

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// at changes what a path of the assertion finds.
func at(path string, change func(el *etree.Element)) func(*claimstest.SAMLKnobs) {
	return edit(func(a *etree.Element) {
		el := a
		if path != "" {
			el = a.FindElement(path)
		}
		if el == nil {
			panic("the assertion has no " + path)
		}
		change(el)
	})
}

func without(path string) func(*claimstest.SAMLKnobs) {
	return at(path, func(el *etree.Element) { take(el) })
}

func withoutAttr(path, name string) func(*claimstest.SAMLKnobs) {
	return at(path, func(el *etree.Element) { el.RemoveAttr(name) })
}

func withAttr(path, name, value string) func(*claimstest.SAMLKnobs) {
	return at(path, func(el *etree.Element) { el.CreateAttr(name, value) })
}

func twice(path string) func(*claimstest.SAMLKnobs) {
	return at(path, func(el *etree.Element) { el.Parent().AddChild(el.Copy()) })
}

func text(path, text string) func(*claimstest.SAMLKnobs) {
	return at(path, func(el *etree.Element) { el.SetText(text) })
}

const (
	onBearer   = "./Subject/SubjectConfirmation"
	onData     = "./Subject/SubjectConfirmation/SubjectConfirmationData"
	onAudience = "./Conditions/AudienceRestriction"
)

// S0-02: everything that the profile asks of a signed assertion, much of which
// the library leaves out.
func TestProfile(t *testing.T) {
	t.Parallel()
	type lies map[string]struct {
		lie func(*claimstest.SAMLKnobs)
		why string
	}
	both(t, func(t *testing.T, r *rig) {
		for name, c := range (lies{
			"SM-10 audience of another":       {text(onAudience+"/Audience", "urn:example:other"), "another audience"},
			"SM-10 audience a prefix of ours": {text(onAudience+"/Audience", testService[:len(testService)-1]), "another audience"},
			"SM-10 audience longer than ours": {text(onAudience+"/Audience", testService+"/"), "another audience"},
			"SM-10 audience in another case":  {text(onAudience+"/Audience", strings.ToUpper(testService)), "another audience"},
			"SM-10 audience empty":            {text(onAudience+"/Audience", ""), "another audience"},
			"SM-10 no audience":               {without(onAudience + "/Audience"), "another audience"},
			"SM-10 audience of another namespace": {at(onAudience+"/Audience", func(el *etree.Element) {
				el.CreateAttr("xmlns:saml", "urn:example:evil")
			}), "another audience"},
			"SM-10 no restriction": {without(onAudience), "no AudienceRestriction"},
			"SM-10 two restrictions, one not ours": {at("./Conditions", func(el *etree.Element) {
				addAudience(el.CreateElement("saml:AudienceRestriction"), "urn:example:other")
			}), "another audience"},
			"SM-10 two restrictions, the first not ours": {at("./Conditions", func(el *etree.Element) {
				other := etree.NewElement("saml:AudienceRestriction")
				addAudience(other, "urn:example:other")
				el.InsertChildAt(0, other)
			}), "another audience"},
			"a condition nobody knows": {at("./Conditions", func(el *etree.Element) { el.CreateElement("saml:Condition") }), "a condition that is not known"},
			"a foreign condition": {at("./Conditions", func(el *etree.Element) {
				el.AddChild(claimstest.SAMLElement(`<x:OneTimeUse xmlns:x="urn:example:evil"/>`))
			}), "a condition that is not known"},

			"SM-11 Recipient of another":      {withAttr(onData, "Recipient", "https://other.example.com/acs"), "(Recipient)"},
			"SM-11 Recipient with a slash":    {withAttr(onData, "Recipient", r.acs()+"/"), "(Recipient)"},
			"SM-11 Recipient with a query":    {withAttr(onData, "Recipient", r.acs()+"?"), "(Recipient)"},
			"SM-11 Recipient in another case": {withAttr(onData, "Recipient", strings.ToUpper(r.acs())), "(Recipient)"},
			"SM-11 Recipient missing":         {withoutAttr(onData, "Recipient"), "(Recipient)"},
			"SM-11 Recipient empty":           {withAttr(onData, "Recipient", ""), "(Recipient)"},
			"SM-11 sender-vouches":            {withAttr(onBearer, "Method", "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"), "no bearer confirmation"},
			"SM-11 holder-of-key":             {withAttr(onBearer, "Method", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"), "no bearer confirmation"},
			"SM-11 Method missing":            {withoutAttr(onBearer, "Method"), "no bearer confirmation"},
			"SM-11 no confirmation":           {without(onBearer), "no bearer confirmation"},
			"SM-11 no confirmation data":      {without(onData), "has no SubjectConfirmationData"},
			"SM-11 confirmation data twice":   {twice(onData), "several SubjectConfirmationData"},
			"SM-11 confirmed for ever":        {withoutAttr(onData, "NotOnOrAfter"), "no NotOnOrAfter"},

			"SM-12 InResponseTo of the confirmation missing": {withoutAttr(onData, "InResponseTo"), "(InResponseTo)"},
			"SM-12 InResponseTo of the confirmation empty":   {withAttr(onData, "InResponseTo", ""), "(InResponseTo)"},
			"SM-12 InResponseTo of the confirmation unknown": {withAttr(onData, "InResponseTo", "id-0"), "(InResponseTo)"},
			"SM-12 InResponseTo missing":                     {editResponse(func(el *etree.Element) { el.RemoveAttr("InResponseTo") }), "(InResponseTo)"},
			"SM-12 InResponseTo empty":                       {editResponse(func(el *etree.Element) { el.CreateAttr("InResponseTo", "") }), "(InResponseTo)"},
			"SM-12 InResponseTo unknown":                     {editResponse(func(el *etree.Element) { el.CreateAttr("InResponseTo", "id-0") }), "(InResponseTo)"},
			"SM-12 InResponseTo with a blank":                {editResponse(func(el *etree.Element) { el.CreateAttr("InResponseTo", el.SelectAttrValue("InResponseTo", "")+" ") }), "(InResponseTo)"},
			"SM-12 InResponseTo in another namespace": {editResponse(func(el *etree.Element) {
				el.CreateAttr("saml:InResponseTo", el.RemoveAttr("InResponseTo").Value)
			}), "(InResponseTo)"},

			"SM-13 Destination of another":   {editResponse(func(el *etree.Element) { el.CreateAttr("Destination", "https://other.example.com/acs") }), "(Destination)"},
			"SM-13 Destination with a slash": {editResponse(func(el *etree.Element) { el.CreateAttr("Destination", r.acs()+"/") }), "(Destination)"},
			"SM-13 Destination without path": {editResponse(func(el *etree.Element) { el.CreateAttr("Destination", r.sp.URL) }), "(Destination)"},

			"SM-16 assertion without Issuer":            {without("./Issuer"), "Assertion has no Issuer"},
			"SM-16 assertion with Issuer empty":         {text("./Issuer", ""), "issued by another provider"},
			"SM-16 assertion with Issuer twice":         {twice("./Issuer"), "several Issuer"},
			"SM-16 Issuer of another":                   {text("./Issuer", "https://other.example.com"), "issued by another provider"},
			"SM-16 Issuer of another format":            {withAttr("./Issuer", "Format", claimstest.SAMLEmail), "no entity id"},
			"SM-16 Issuer of another on the response":   {editResponse(func(el *etree.Element) { el.FindElement("./Issuer").SetText("urn:other") }), "issued by another provider"},
			"SM-16 Status missing":                      {editResponse(func(el *etree.Element) { take(el.FindElement("./Status")) }), "Response has no Status"},
			"SM-16 Status twice":                        {editResponse(func(el *etree.Element) { el.AddChild(el.FindElement("./Status").Copy()) }), "several Status"},
			"SM-16 StatusCode missing":                  {editResponse(func(el *etree.Element) { take(el.FindElement("./Status/StatusCode")) }), "Status has no StatusCode"},
			"SM-16 StatusCode without value":            {editResponse(func(el *etree.Element) { el.FindElement("./Status/StatusCode").RemoveAttr("Value") }), "a status that SAML does not know"},
			"SM-16 Subject missing":                     {without("./Subject"), "Assertion has no Subject"},
			"SM-16 Subject twice":                       {twice("./Subject"), "several Subject"},
			"SM-16 NameID missing":                      {without("./Subject/NameID"), "the subject is missing or empty"},
			"SM-16 NameID empty":                        {text("./Subject/NameID", ""), "the subject is missing or empty"},
			"SM-16 NameID blank":                        {text("./Subject/NameID", " \n\t"), "the subject is missing or empty"},
			"SM-16 NameID twice":                        {twice("./Subject/NameID"), "several NameID"},
			"SM-16 NameID of another namespace":         {withAttr("./Subject/NameID", "xmlns:saml", "urn:example:evil"), "the subject is missing or empty"},
			"SM-16 EncryptedID":                         {at("./Subject", func(el *etree.Element) { el.CreateElement("saml:EncryptedID") }), "EncryptedID"},
			"SM-16 BaseID":                              {at("./Subject", func(el *etree.Element) { el.CreateElement("saml:BaseID") }), "BaseID"},
			"SM-16 Conditions missing":                  {without("./Conditions"), "Assertion has no Conditions"},
			"SM-16 Conditions twice":                    {twice("./Conditions"), "several Conditions"},
			"SM-16 AuthnStatement missing":              {without("./AuthnStatement"), "no AuthnStatement"},
			"SM-16 assertion without Version":           {withoutAttr("", "Version"), "not a SAML 2.0 assertion"},
			"SM-16 assertion of SAML 1.1":               {withAttr("", "Version", "1.1"), "not a SAML 2.0 assertion"},
			"SM-16 response without Version":            {editResponse(func(el *etree.Element) { el.RemoveAttr("Version") }), "not SAML 2.0"},
			"SM-16 assertion without IssueInstant":      {withoutAttr("", "IssueInstant"), "IssueInstant of Assertion is not a time"},
			"SM-16 response without IssueInstant":       {editResponse(func(el *etree.Element) { el.RemoveAttr("IssueInstant") }), "IssueInstant of Response is not a time"},
			"SM-16 a response of the wrong namespace":   {editResponse(func(el *etree.Element) { el.CreateAttr("xmlns:samlp", "urn:example:evil") }), "not a SAML Response"},
			"SM-16 an assertion of the wrong namespace": {withAttr("", "xmlns:saml", "urn:example:evil"), ""},
			"SM-16 another message":                     {editResponse(func(el *etree.Element) { el.Tag = "AuthnRequest" }), "not a SAML Response"},
			"a transient NameID":                        {withAttr("./Subject/NameID", "Format", claimstest.SAMLTransient), "a transient NameID"},
			"a NameID of 1025 bytes":                    {text("./Subject/NameID", strings.Repeat("x", 1025)), "longer than 1024"},
		}) {
			r.refused(t, name, c.lie, c.why)
		}
	})
	signed := newRig(t, withEC, func(o *idpOptions) { o.SignResponse = true })
	signed.refused(t, "SM-16 a signed response without Issuer", editResponse(func(el *etree.Element) { take(el.FindElement("./Issuer")) }), "a response without an Issuer")
	signed.refused(t, "SM-13 a signed response without Destination", editResponse(func(el *etree.Element) { el.RemoveAttr("Destination") }), "without a Destination")
	signed.refused(t, "SM-16 an assertion without ID", withoutAttr("", "ID"), "not a SAML 2.0 assertion")
	sealed := newRig(t, withEC, func(o *idpOptions) { o.Encrypt = "aes128-gcm" })
	sealed.refused(t, "SM-16 a response with an encrypted assertion, without Issuer", editResponse(func(el *etree.Element) { take(el.FindElement("./Issuer")) }), "a response without an Issuer")
}

// SM-12: an answer to one request is none to another, though it is honest in
// all else; and so is the answer to a flow that is over.
func TestSM12AnswerToAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	var first string
	r.accepted(t, "SM-12 control", func(k *claimstest.SAMLKnobs) {
		k.MutateForm = func(form url.Values) { first = form.Get("SAMLResponse") }
	})
	r.refused(t, "SM-12 the response of another login", func(k *claimstest.SAMLKnobs) {
		k.MutateForm = func(form url.Values) { form.Set("SAMLResponse", first) }
	}, "not an answer to this browser's request (InResponseTo)")
	another := assertionOf(claimstest.SAMLElement(string(r.message(t, "id-0"))))
	r.refused(t, "SM-12 another's assertion in this response", editSigned(func(root *etree.Element) {
		root.RemoveChild(assertionOf(root))
		root.AddChild(another.Copy())
	}), "not confirmed for this browser's request (InResponseTo)")
}

// SM-20: a login that nobody asked for.
func TestSM20Unasked(t *testing.T) {
	t.Parallel()
	off, on := newRig(t, withEC), newRigWith(t, func(c *claims.SAMLConfig) { c.IDPInitiated = true })
	refused := func(name string, r *rig, lie func(*claimstest.SAMLKnobs), why string) {
		t.Run(name, func(t *testing.T) {
			if lie != nil {
				r.idp.Lie(lie)
				defer r.idp.Honest()
			}
			if id, err := r.unasked(t); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
	refused("SM-20 off", off, nil, "logins that the provider begins are off")
	refused("SM-20 on, with InResponseTo", on, func(k *claimstest.SAMLKnobs) {
		k.MutateResponse = func(el *etree.Element) { el.CreateAttr("InResponseTo", "id-1") }
		k.MutateAssertion = func(a *etree.Element) { a.FindElement(onData).CreateAttr("InResponseTo", "id-1") }
	}, "(InResponseTo)")
	refused("SM-20 on, with InResponseTo in the confirmation", on, withAttr(onData, "InResponseTo", "id-1"), "(InResponseTo)")
	refused("SM-20 on, with InResponseTo on the response", on, editResponse(func(el *etree.Element) { el.CreateAttr("InResponseTo", "id-1") }), "(InResponseTo)")
	refused("SM-20 on, with InResponseTo that is empty", on, withAttr(onData, "InResponseTo", ""), "(InResponseTo)")
	if id, err := on.unasked(t); err != nil || id.Subject != "alice" {
		t.Errorf("SM-20 control: %+v, %v", id, err)
	}
	on.refused(t, "SM-20 on, in place of an answer", func(k *claimstest.SAMLKnobs) {
		k.MutateResponse = func(el *etree.Element) { el.RemoveAttr("InResponseTo") }
		k.MutateAssertion = func(a *etree.Element) { a.FindElement(onData).RemoveAttr("InResponseTo") }
	}, "(InResponseTo)")
}

// SM-13: what the client writes on its request line is not our address.
func TestSM13AbsoluteRequestLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	const other = "https://other.example.com/_auth/saml/idp/acs"
	send := func(acs, line string) error {
		m, err := r.idp.Respond(claimstest.SAMLRequest{ID: "id-x", Service: testService, ACS: acs}, "alice")
		if err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.flow = &claims.Flow{ID: "flow", State: "state", RequestID: "id-x", RedirectURI: r.acs()}
		r.mu.Unlock()
		body := url.Values{"SAMLResponse": {encode(m)}, "RelayState": {"state"}}.Encode()
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.sp.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", line, len(body), body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	}
	if err := send(other, other); err == nil || !strings.Contains(err.Error(), "(Destination)") {
		t.Errorf("SM-13: %v", err)
	}
	if err := send(r.acs(), "/_auth/saml/idp/acs"); err != nil {
		t.Errorf("SM-13 control: %v", err)
	}
	if err := send(r.acs(), r.acs()); err != nil {
		t.Errorf("SM-13 control, absolute: %v", err)
	}
}

// SM-17: every time holds to the second, with the skew that is configured.
func TestSM17TimesAreExact(t *testing.T) {
	t.Parallel()
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
	for _, skew := range []time.Duration{0, time.Minute, 5 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, func(c *claims.SAMLConfig) { c.ClockSkew = skew }, withEC)
			onResponse := func(at time.Time) func(*claimstest.SAMLKnobs) {
				return editResponse(func(el *etree.Element) { el.CreateAttr("IssueInstant", stamp(at)) })
			}
			on := func(path, name string) func(at time.Time) func(*claimstest.SAMLKnobs) {
				return func(at time.Time) func(*claimstest.SAMLKnobs) { return withAttr(path, name, stamp(at)) }
			}
			for name, c := range map[string]struct {
				lie    func(at time.Time) func(*claimstest.SAMLKnobs)
				first  time.Duration // the offset from now that is just accepted
				beyond time.Duration // and the step that is too much
				why    string
			}{
				"SM-17 Conditions NotBefore":      {on("./Conditions", "NotBefore"), skew, time.Second, "not valid yet"},
				"SM-17 Conditions NotOnOrAfter":   {on("./Conditions", "NotOnOrAfter"), -skew + time.Second, -time.Second, "expired"},
				"SM-17 confirmation NotOnOrAfter": {on(onData, "NotOnOrAfter"), -skew + time.Second, -time.Second, "expired"},
				"SM-17 confirmation NotBefore":    {on(onData, "NotBefore"), skew, time.Second, "not valid yet"},
				"SM-17 SessionNotOnOrAfter":       {on("./AuthnStatement", "SessionNotOnOrAfter"), -skew + time.Second, -time.Second, "session is over"},
				"SM-17 IssueInstant, future":      {on("", "IssueInstant"), skew, time.Second, "issued in the future"},
				"SM-17 IssueInstant, past":        {on("", "IssueInstant"), -maxAge - skew, -time.Second, "issued too long ago"},
				"SM-17 response, future":          {onResponse, skew, time.Second, "issued in the future"},
				"SM-17 response, past":            {onResponse, -maxAge - skew, -time.Second, "issued too long ago"},
				"SM-17 to the millisecond":        {on("./Conditions", "NotBefore"), skew, time.Millisecond, "not valid yet"},
				"SM-17 two days ahead":            {on("", "IssueInstant"), skew, 48 * time.Hour, "issued in the future"},
			} {
				r.accepted(t, name+", accepted", c.lie(r.now().Add(c.first)))
				r.refused(t, name+", refused", c.lie(r.now().Add(c.first+c.beyond)), c.why)
			}
		})
	}
	r := newRig(t, withEC)
	for name, value := range map[string]string{
		"empty": "", "no time": "yesterday", "no zone": "2026-11-22T00:00:00", "a number": "1", "month 13": "2026-13-01T00:00:00Z", "year 0": "0000-01-01T00:00:00Z", "year 10000": "10000-01-01T00:00:00Z",
	} {
		for path, attribute := range map[string]string{"./Conditions": "NotOnOrAfter", onData: "NotOnOrAfter", "./AuthnStatement": "SessionNotOnOrAfter", "": "IssueInstant"} {
			r.refused(t, "SM-17 "+attribute+" of "+path+", "+name, withAttr(path, attribute, value), "is not a time")
		}
	}
}

// SM-19: what was used is remembered for longer than any clock believes it.
func TestSM19RememberedLongEnough(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine; takes many times as long under the race detector")
	}
	t.Parallel()
	r := newRig(t, withEC)
	r.idp.Lie(at("", func(a *etree.Element) {
		for _, el := range []*etree.Element{a.FindElement("./Conditions"), a.FindElement(onData)} {
			el.CreateAttr("NotOnOrAfter", r.now().Add(24*time.Hour).UTC().Format(time.RFC3339))
		}
	}))
	m := r.message(t, "id-x")
	got, err := r.trust(t).accept(m, "id-x", r.now())
	if err != nil {
		t.Fatal(err)
	}
	const slow = 10 * time.Minute
	for at := r.now(); ; at = at.Add(time.Second) {
		if _, err := r.trust(t).accept(m, "id-x", at); err != nil {
			if at.Sub(r.now()) < maxAge {
				t.Errorf("refused after %s: %v", at.Sub(r.now()), err)
			}
			if left := got.until.Sub(at); left < slow {
				t.Errorf("forgotten %s after it is refused; a replica that is %s slow would take it again", left, slow)
			}
			return
		}
		if at.Sub(r.now()) > 5*time.Minute {
			at = at.Add(4 * time.Second)
		}
		if at.Sub(r.now()) > time.Hour {
			t.Fatal("it is accepted for ever")
		}
	}
}

// SM-18: the same response again is the same statement: the id and the time
// that the store counts it by do not depend on who reads it, or when.
func TestSM18SameStatement(t *testing.T) {
	t.Parallel()
	r := newRig(t, withEC)
	trust, m := r.trust(t), r.message(t, "id-x")
	first, err := trust.accept(m, "id-x", r.now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := trust.accept(m, "id-x", r.now().Add(time.Minute))
	if err != nil || again.id != first.id || !again.until.Equal(first.until) {
		t.Errorf("%+v, %v; first %+v", again, err, first)
	}
	other, err := trust.accept(r.message(t, "id-x"), "id-x", r.now())
	if err != nil || other.id == first.id {
		t.Errorf("another assertion has the same id: %+v, %v", other, err)
	}
}

// SM-16: anything in an assertion may be missing or stand twice, and a library may
// read what is not there: never a panic, and never another person.
func TestSM16NothingPanics(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, r *rig) {
		trust := r.trust(t)
		count := func(el *etree.Element) int { return len(el.FindElements(".//*")) + 1 }
		nth := func(el *etree.Element, n int) *etree.Element {
			if n == 0 {
				return el
			}
			return el.FindElements(".//*")[n-1]
		}
		total := count(claimstest.SAMLElement(string(r.message(t, "id-x"))))
		refusals, step := 0, 1
		if testing.Short() { // the race detector, which takes many times as long
			step = 4
		}
		for n := 0; n < total; n += step {
			for name, change := range map[string]func(el *etree.Element){
				"gone": func(el *etree.Element) {
					if el.Parent() != nil && el.Parent().Parent() != nil {
						take(el)
					}
				},
				"twice": func(el *etree.Element) { el.AddChild(el.Copy()) },
				"without attributes": func(el *etree.Element) {
					el.Attr = slices.DeleteFunc(el.Attr, func(a etree.Attr) bool { return a.Space != "xmlns" })
				},
				"empty attributes": func(el *etree.Element) {
					for i := range el.Attr {
						if el.Attr[i].Space != "xmlns" {
							el.Attr[i].Value = ""
						}
					}
				},
				"empty":     func(el *etree.Element) { el.Child = nil },
				"other tag": func(el *etree.Element) { el.Tag = "Other" },
			} {
				apply := func(el *etree.Element) {
					if n < count(el) {
						change(nth(el, n))
					}
				}
				for _, lie := range []func(*claimstest.SAMLKnobs){edit(apply), editResponse(apply), editSigned(apply)} {
					r.idp.Lie(lie)
					a, err := trust.accept(r.message(t, "id-x"), "id-x", r.now())
					r.idp.Honest()
					if err != nil {
						refusals++
					} else if a.name.Value != "alice" && a.name.Value != "" {
						t.Errorf("%d %s: %+v", n, name, a)
					}
				}
			}
		}
		if refusals < total/step || r.src.Panics() != 0 {
			t.Errorf("%d refusals, %d panics", refusals, r.src.Panics())
		}
	})
}
