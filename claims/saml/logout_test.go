package saml

import (
	"bytes"
	"errors"
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

func (r *rig) slo() string { return r.sp.URL + "/_auth/saml/idp/slo" }

// byQuery brings a message by a redirect, byForm by a form.
func (r *rig) byQuery(address string) (*claims.LogoutMessage, error) {
	return r.src.ReadLogout(&http.Request{Method: http.MethodGet, URL: asURL(address)})
}

func asURL(address string) *url.URL {
	at, query, _ := strings.Cut(address, "?")
	u, err := url.Parse(at)
	if err != nil {
		panic(err)
	}
	u.RawQuery = query // as it was sent, whatever that is
	return u
}

func (r *rig) byForm(form url.Values) (*claims.LogoutMessage, error) {
	return r.src.ReadLogout(&http.Request{Method: http.MethodPost, URL: asURL(r.slo()), PostForm: form})
}

// signedIn is alice after a login, and how the provider ends it.
func (r *rig) signedIn(t testing.TB) (*claims.Identity, claimstest.SAMLLogout) {
	t.Helper()
	id, err := r.login(t)
	if err != nil {
		t.Fatal(err)
	}
	logins := r.idp.Logins()
	return id, logins[len(logins)-1].Logout()
}

type lies = claimstest.SAMLLogoutKnobs

// brought is a request by both bindings.
func (r *rig) brought(l claimstest.SAMLLogout, k lies) map[string]func() (*claims.LogoutMessage, error) {
	return map[string]func() (*claims.LogoutMessage, error){
		"redirect": func() (*claims.LogoutMessage, error) { return r.byQuery(r.idp.LogoutQuery(r.slo(), l, k)) },
		"post":     func() (*claims.LogoutMessage, error) { return r.byForm(r.idp.LogoutForm(r.slo(), l, k)) },
	}
}

func TestLogoutRequest(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*claimstest.SAMLOptions){
		"RSA":        func(*claimstest.SAMLOptions) {},
		"ECDSA":      func(o *claimstest.SAMLOptions) { o.ECDSA, o.Key = true, nil },
		"no KeyInfo": func(o *claimstest.SAMLOptions) { o.NoKeyInfo = true },
		"e-mail":     func(o *claimstest.SAMLOptions) { o.NameIDFormat = claimstest.SAMLEmail },
		"no format":  func(o *claimstest.SAMLOptions) { o.NameIDFormat = "-" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, change)
			id, l := r.signedIn(t)
			l.RelayState = "a b&c=d+é"
			for binding, bring := range r.brought(l, lies{}) {
				m, err := bring()
				if err != nil {
					t.Fatalf("%s: %v", binding, err)
				}
				if m.Logout == nil || m.Refused != "" || m.State != l.RelayState || m.Logout.Subject != "" || id.Alias == "" || !slices.Contains(m.Logout.Aliases, id.Alias) ||
					!slices.Equal(m.Logout.Sessions, []string{id.Session}) || id.Session == "" || m.Logout.ID == "" {
					t.Errorf("%s: %+v of %+v", binding, m.Logout, id)
				}
				// Remembered as long as it could be believed, by the latest clock.
				if until := m.Logout.IssuedAt.Add(maxLogoutAge + 2*time.Minute); !m.Logout.Expires.Equal(until) {
					t.Errorf("%s: until %v, want %v", binding, m.Logout.Expires, until)
				}
			}
			several := l
			several.Sessions = []string{id.Session, "another", " with blanks "}
			for binding, bring := range r.brought(several, lies{}) {
				if m, err := bring(); err != nil || !slices.Equal(m.Logout.Sessions, several.Sessions) {
					t.Errorf("%s, several: %+v, %v", binding, m, err)
				}
			}
			several.Sessions = nil
			for binding, bring := range r.brought(several, lies{}) {
				if m, err := bring(); err != nil || m.Logout.Sessions != nil || !slices.Contains(m.Logout.Aliases, id.Alias) {
					t.Errorf("%s, all: %+v, %v", binding, m, err)
				}
			}
		})
	}
}

func setAttr(name, value string) func(*etree.Element) {
	return func(el *etree.Element) { el.CreateAttr(name, value) }
}

func dropAttr(name string) func(*etree.Element) {
	return func(el *etree.Element) { el.RemoveAttr(name) }
}

func inMessage(path string, change func(*etree.Element)) func(*etree.Element) {
	return func(el *etree.Element) { change(el.FindElement(path)) }
}

// SM-22, GHSA-pcgw-qcv5-h8ch: what is not signed by the provider, for us, now,
// about one person, is refused by both bindings; the same request without the
// lie is not.
func TestLogoutRequestLies(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *claimstest.SAMLOptions) { o.EncryptionKey = true })
	_, l := r.signedIn(t)
	stranger := rsaKey()
	encryption, _ := r.idp.EncryptionKey()
	add := func(text string) func(*etree.Element) {
		return func(el *etree.Element) { el.AddChild(claimstest.SAMLElement(text)) }
	}
	again := func(path string) func(*etree.Element) {
		return func(el *etree.Element) { el.AddChild(el.FindElement(path).Copy()) }
	}
	gone := func(path string) func(*etree.Element) {
		return func(el *etree.Element) { el.RemoveChild(el.FindElement(path)) }
	}
	at := func(d time.Duration) string { return r.now().Add(d).UTC().Format(time.RFC3339) }
	const ns = ` xmlns:saml="` + nsAssertion + `" xmlns:samlp="` + nsProtocol + `"`
	for name, c := range map[string]struct {
		lie lies
		why string
	}{
		"unsigned":                 {lies{Unsigned: true}, "not signed"},
		"a stranger's key":         {lies{Key: stranger}, "fits no key"},
		"the encryption key":       {lies{Key: encryption}, "fits no key"},
		"rsa-sha1":                 {lies{SigAlg: "http://www.w3.org/2000/09/xmldsig#rsa-sha1"}, "algorithm"},
		"rsa-md5":                  {lies{SigAlg: "http://www.w3.org/2001/04/xmldsig-more#rsa-md5"}, "algorithm"},
		"hmac":                     {lies{SigAlg: "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"}, "algorithm"},
		"an algorithm of another":  {lies{SigAlg: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", Mutate: nil}, ""}, // honest, below
		"no Destination":           {lies{Mutate: dropAttr("Destination")}, "Destination"},
		"Destination of another":   {lies{Mutate: setAttr("Destination", "https://other.example/slo")}, "Destination"},
		"Destination the ACS":      {lies{Mutate: setAttr("Destination", r.acs())}, "Destination"},
		"Destination with a slash": {lies{Mutate: setAttr("Destination", r.slo()+"/")}, "Destination"},
		"Issuer another":           {lies{Mutate: inMessage("./Issuer", func(el *etree.Element) { el.SetText("https://evil.example") })}, "Issuer"},
		"Issuer with a comment": {lies{MutateMessage: func(m []byte) []byte {
			return bytes.Replace(m, []byte("</saml:Issuer>"), []byte("<!---->.evil</saml:Issuer>"), 1)
		}}, ""},
		"no Issuer":              {lies{Mutate: gone("./Issuer")}, "Issuer"},
		"two Issuers":            {lies{Mutate: again("./Issuer")}, "several Issuer"},
		"Issuer in a format":     {lies{Mutate: inMessage("./Issuer", setAttr("Format", claimstest.SAMLPersistent))}, "issuer"},
		"another version":        {lies{Mutate: setAttr("Version", "1.1")}, "not a SAML 2.0"},
		"no ID":                  {lies{Mutate: dropAttr("ID")}, ""},
		"no IssueInstant":        {lies{Mutate: dropAttr("IssueInstant")}, "IssueInstant"},
		"IssueInstant no time":   {lies{Mutate: setAttr("IssueInstant", "now")}, "IssueInstant"},
		"IssueInstant old":       {lies{Mutate: setAttr("IssueInstant", at(-6*time.Minute-time.Second))}, "too long ago"},
		"IssueInstant ahead":     {lies{Mutate: setAttr("IssueInstant", at(time.Minute+time.Second))}, "in the future"},
		"NotOnOrAfter past":      {lies{Mutate: setAttr("NotOnOrAfter", at(-time.Minute))}, "expired"},
		"NotOnOrAfter no time":   {lies{Mutate: setAttr("NotOnOrAfter", "")}, "not a time"},
		"no NameID":              {lies{Mutate: gone("./NameID")}, "name of the person"},
		"two NameIDs":            {lies{Mutate: again("./NameID")}, "several NameID"},
		"NameID empty":           {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.SetText("") })}, "NameID"},
		"NameID not text":        {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.CreateElement("b") })}, "NameID"},
		"NameID and BaseID":      {lies{Mutate: add(`<saml:BaseID` + ns + `/>`)}, "name of the person"},
		"NameID of another name": {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.Space = "samlp" })}, "name of the person"},
		"SessionIndex empty":     {lies{Mutate: inMessage("./SessionIndex", func(el *etree.Element) { el.SetText("") })}, "SessionIndex"},
		"SessionIndex not text":  {lies{Mutate: inMessage("./SessionIndex", func(el *etree.Element) { el.CreateElement("b") })}, "SessionIndex"},
		"a LogoutResponse":       {lies{Mutate: func(el *etree.Element) { el.Tag = "LogoutResponse" }}, "LogoutRequest"},
		"an AuthnRequest":        {lies{Mutate: func(el *etree.Element) { el.Tag = "AuthnRequest" }}, "LogoutRequest"},
		"of another namespace":   {lies{Mutate: func(el *etree.Element) { el.Space = "saml" }}, "LogoutRequest"},
		"a document type":        {lies{MutateMessage: func(m []byte) []byte { return append([]byte("<!DOCTYPE x>"), m...) }}, "document type"},
		"a second root":          {lies{MutateMessage: func(m []byte) []byte { return append(m, "<x/>"...) }}, "second root"},
		"no XML":                 {lies{MutateMessage: func([]byte) []byte { return []byte("logout") }}, ""},
		"nothing":                {lies{MutateMessage: func([]byte) []byte { return nil }}, ""},
		"SM-14 a message too large": {lies{MutateMessage: func(m []byte) []byte {
			return bytes.Replace(m, []byte("<saml:Issuer>"), append(bytes.Repeat([]byte(" "), maxMessage), "<saml:Issuer>"...), 1)
		}}, "longer than"},
		"SM-14 deep": {lies{MutateMessage: func([]byte) []byte { return bytes.Repeat([]byte("<a>"), 100_000) }}, "deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			honest := name == "an algorithm of another" // SHA-512 is as good
			for binding, bring := range r.brought(l, c.lie) {
				m, err := bring()
				switch {
				case honest && err != nil:
					t.Errorf("%s: control: %v", binding, err)
				case honest:
				case err == nil || m != nil:
					t.Errorf("%s: believed: %+v", binding, m)
				case !errors.Is(err, claims.ErrProtocol), !strings.HasPrefix(err.Error(), "idp: read logout: "), !strings.Contains(err.Error(), c.why):
					t.Errorf("%s: %v, want %q", binding, err, c.why)
				}
			}
			for binding, bring := range r.brought(l, lies{}) {
				if m, err := bring(); err != nil || m.Logout == nil {
					t.Errorf("%s: control: %+v, %v", binding, m, err)
				}
			}
		})
	}
	if n := r.src.Panics(); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// SM-17, SM-22: times are exact to the configured skew.
func TestLogoutTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, l := r.signedIn(t)
	const skew = time.Minute
	for _, c := range []struct {
		attribute string
		at        time.Duration
		ok        bool
	}{
		{"IssueInstant", -maxLogoutAge - skew, true}, {"IssueInstant", -maxLogoutAge - skew - time.Second, false},
		{"IssueInstant", skew, true}, {"IssueInstant", skew + time.Second, false},
		{"NotOnOrAfter", -skew + time.Second, true}, {"NotOnOrAfter", -skew, false},
	} {
		k := lies{Mutate: setAttr(c.attribute, r.now().Add(c.at).UTC().Format(time.RFC3339))}
		for binding, bring := range r.brought(l, k) {
			if _, err := bring(); (err == nil) != c.ok {
				t.Errorf("%s, %s at %v: %v", binding, c.attribute, c.at, err)
			}
		}
	}
	if _, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l, lies{Mutate: dropAttr("NotOnOrAfter")})); err != nil {
		t.Errorf("no NotOnOrAfter: %v", err)
	}
}

// SM-22, SM-28: a NameID is the person's within its format and qualifiers. What
// is left out is what the specification says that means.
func TestLogoutNameIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, l := r.signedIn(t)
	idp := r.idp.EntityID()
	set := func(attributes ...string) lies {
		return lies{Mutate: inMessage("./NameID", func(el *etree.Element) {
			for i := 0; i < len(attributes); i += 2 {
				el.CreateAttr(attributes[i], attributes[i+1])
			}
		})}
	}
	for name, c := range map[string]struct {
		lie  lies
		same bool
	}{
		"as it was":                   {lies{}, true},
		"qualifiers spelled out":      {set("NameQualifier", idp, "SPNameQualifier", testService), true},
		"another provider's":          {set("NameQualifier", "https://other.example"), false},
		"for another service":         {set("SPNameQualifier", "urn:example:other"), false},
		"another format":              {set("Format", claimstest.SAMLEmail), false},
		"no format, as of Entra":      {lies{Mutate: inMessage("./NameID", dropAttr("Format"))}, true},
		"no format and another value": {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.RemoveAttr("Format"); el.SetText("bob") })}, false},
		"format unspecified":          {set("Format", claimstest.SAMLUnspecified), false},
		"another value":               {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.SetText("bob") })}, false},
		"other letters":               {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.SetText("Alice") })}, false},
		"blanks around it":            {lies{Mutate: inMessage("./NameID", func(el *etree.Element) { el.SetText(" alice") })}, false},
		"SM-07 a comment at its end": {lies{Mutate: inMessage("./NameID", func(el *etree.Element) {
			el.CreateComment("")
			el.CreateText(".evil")
		})}, false},
	} {
		for binding, bring := range r.brought(l, c.lie) {
			if m, err := bring(); err != nil || slices.Contains(m.Logout.Aliases, id.Alias) != c.same {
				t.Errorf("%s, %s: %+v, %v", binding, name, m, err)
			}
		}
	}
	// Two texts never run together into one digest.
	seen := map[string]nameID{}
	for _, n := range []nameID{
		{Value: "a", Format: "bc"}, {Value: "ab", Format: "c"}, {Value: "a", Qualifier: "bc"}, {Value: "a", SPQualifier: "bc"}, {Value: `a","f":"bc`}, {Value: "a"},
	} {
		alias := n.alias("idp", "sp")
		if other, there := seen[alias]; there || len(alias) != 43 {
			t.Errorf("%+v and %+v are %q", n, other, alias)
		}
		seen[alias] = n
	}
	if a, b := (nameID{Value: "a"}), (nameID{Value: "a", Format: formatUnspecified, Qualifier: "idp", SPQualifier: "sp"}); a.alias("idp", "sp") != b.alias("idp", "sp") {
		t.Error("what is left out is not what it means")
	}
}

// SM-24: a request that is signed with a key published just now is believed.
func TestLogoutAfterKeyChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, l := r.signedIn(t)
	r.idp.PublishNext()
	r.idp.UseNext()
	r.idp.RetireOld()
	r.move(askInterval) // since the metadata was read for the login
	if m, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l)); err != nil || m.Logout == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err := r.byForm(r.idp.LogoutForm(r.slo(), l)); err != nil || m.Logout == nil {
		t.Errorf("%+v, %v", m, err)
	}
	// Strangers do not have the metadata read again and again.
	before := r.idp.Calls("metadata")
	for range 5 {
		if _, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l, lies{Key: theirKey()})); err == nil {
			t.Error("the old key is still believed")
		}
	}
	if n := r.idp.Calls("metadata") - before; n > 1 {
		t.Errorf("the metadata was read %d times", n)
	}
}

// The answer to our request: one that is signed has to be signed well, and what
// it says of the provider's session is told apart.
func TestLogoutResponse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.signedIn(t)
	const status = "urn:oasis:names:tc:SAML:2.0:status:"
	for name, c := range map[string]struct {
		lie  lies
		done bool
		why  string
	}{
		"success":                {lies{}, true, ""},
		"unsigned":               {lies{Unsigned: true}, true, ""},
		"unsigned, nowhere":      {lies{Unsigned: true, Mutate: dropAttr("Destination")}, true, ""},
		"partial":                {lies{Status: []string{status + "Success", status + "PartialLogout"}}, false, ""},
		"partial by a responder": {lies{Status: []string{status + "Responder", status + "PartialLogout"}}, false, ""},
		"refused":                {lies{Status: []string{status + "Requester"}}, false, ""},
		"a stranger's key":       {lies{Key: rsaKey()}, false, "fits no key"},
		"rsa-sha1":               {lies{SigAlg: "http://www.w3.org/2000/09/xmldsig#rsa-sha1"}, false, "algorithm"},
		"changed":                {lies{MutateQuery: func(q string) string { return strings.Replace(q, "&SigAlg", "&RelayState=x&SigAlg", 1) }, MutateSigned: setAttr("InResponseTo", "id-2")}, false, ""},
		"signed, nowhere":        {lies{Mutate: dropAttr("Destination")}, false, "Destination"},
		"for another":            {lies{Unsigned: true, Mutate: setAttr("Destination", "https://other.example/slo")}, false, "Destination"},
		"by another":             {lies{Mutate: inMessage("./Issuer", func(el *etree.Element) { el.SetText("https://evil.example") })}, false, "Issuer"},
		"old":                    {lies{Mutate: setAttr("IssueInstant", "2020-01-01T00:00:00Z")}, false, "too long ago"},
		"no status":              {lies{Mutate: func(el *etree.Element) { el.RemoveChild(el.FindElement("./Status")) }}, false, "Status"},
		"a request":              {lies{Mutate: func(el *etree.Element) { el.Tag = "LogoutRequest" }}, false, "LogoutResponse"},
	} {
		bring := map[string]func() (*claims.LogoutMessage, error){
			"redirect": func() (*claims.LogoutMessage, error) {
				return r.byQuery(r.idp.LogoutAnswerQuery(r.slo(), "id-1", "", c.lie))
			},
			"post": func() (*claims.LogoutMessage, error) {
				return r.byForm(r.idp.LogoutAnswerForm(r.slo(), "id-1", "", c.lie))
			},
		}
		refused := !c.done && len(c.lie.Status) == 0
		for binding, bring := range bring {
			m, err := bring()
			switch {
			case refused:
				if !errors.Is(err, claims.ErrProtocol) || !strings.Contains(err.Error(), c.why) || m != nil {
					t.Errorf("%s, %s: %+v, %v", name, binding, m, err)
				}
			case err != nil || m.Logout != nil || m.InResponseTo != "id-1" || m.Done != c.done:
				t.Errorf("%s, %s: %+v, %v", name, binding, m, err)
			}
		}
	}
}
