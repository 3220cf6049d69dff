package saml

import (
	"compress/flate"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// challenged is where a login is sent, and the request in it.
func (r *rig) challenged(t *testing.T) (*url.URL, *etree.Element) {
	t.Helper()
	w := httptest.NewRecorder()
	f := &claims.Flow{ID: "f", State: "state_-1", RequestID: "id-0123", RedirectURI: r.acs(), Started: r.now()}
	if err := r.src.Challenge(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), f); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusFound || !strings.Contains(w.Header().Get("Cache-Control"), "no-store") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	u, err := url.Parse(w.Header().Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(u.Query().Get("SAMLRequest"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(flate.NewReader(strings.NewReader(string(raw))))
	if err != nil {
		t.Fatal(err)
	}
	return u, claimstest.SAMLElement(string(text))
}

func signing(c *claims.SAMLConfig) { c.SignRequests = true }

func TestTheAuthnRequest(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, signing)
	u, req := r.challenged(t)
	if !strings.HasPrefix(u.String(), r.idp.URL+"/sso?SAMLRequest=") {
		t.Errorf("sent to %s", u)
	}
	want := map[string]string{
		"ID": "id-0123", "Version": "2.0", "IssueInstant": r.now().UTC().Format(time.RFC3339), "Destination": r.idp.URL + "/sso",
		"AssertionConsumerServiceURL": r.acs(), "ProtocolBinding": "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST",
		"ForceAuthn": "", "IsPassive": "",
	}
	for name, value := range want {
		if got := req.SelectAttrValue(name, ""); got != value {
			t.Errorf("%s: %q, wanted %q", name, got, value)
		}
	}
	if !is(req, nsProtocol, "AuthnRequest") {
		t.Errorf("it is a %s", req.Tag)
	}
	children := map[string]string{}
	for _, c := range req.ChildElements() {
		children[c.Tag] = c.Text()
	}
	if len(children) != 2 || children["Issuer"] != testService {
		t.Errorf("it holds %v", children)
	}
	policy := req.FindElement("./NameIDPolicy")
	if policy == nil || policy.SelectAttrValue("AllowCreate", "") != "true" || policy.SelectAttr("Format") != nil {
		t.Errorf("the policy is %+v", policy)
	}
	if q := u.Query(); len(q) != 4 || q.Get("RelayState") != "state_-1" || q.Get("SigAlg") != claimstest.SAMLRSASHA256 {
		t.Errorf("the query is %v", q)
	}

	r.restart(t, nil, func(c *claims.SAMLConfig) { c.Subject = "mail" })
	if _, req := r.challenged(t); req.FindElement("./NameIDPolicy") != nil {
		t.Error("a NameID is asked for that nobody reads")
	}
}

// The provider checks the signature as the specification says, over its own
// address with a query as well.
func TestRequestsAreSigned(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *claimstest.SAMLOptions) { o.WantSigned = true })
	r.works(t, "signed")
	r.restart(t, nil, func(c *claims.SAMLConfig) { c.SignRequests = false })
	r.works(t, "signed because the metadata wants it")

	r = newRig(t)
	if u, _ := r.challenged(t); u.Query().Has("Signature") || u.Query().Has("SigAlg") {
		t.Errorf("signed: %s", u)
	}
	r.works(t, "unsigned where nobody wants it")

	// As Google's does.
	r = newRigWith(t, signing)
	r.idp.Lie(func(k *claimstest.SAMLKnobs) {
		k.MutateMetadata = func(m []byte) []byte {
			return []byte(strings.ReplaceAll(string(m), r.idp.URL+"/sso", r.idp.URL+"/sso?idpid=C0&amp;x=%2f"))
		}
	})
	u, _ := r.challenged(t)
	if !strings.HasPrefix(u.RawQuery, "idpid=C0&x=%2f&SAMLRequest=") {
		t.Errorf("the query is %s", u.RawQuery)
	}
	_, ours, _ := strings.Cut(u.RawQuery, "&x=%2f&")
	c, err := (&trust{keys: []*x509.Certificate{ourCertificate()}}).fromQuery(ours)
	if err != nil || !c.signed || c.state != "state_-1" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := (&trust{keys: []*x509.Certificate{ourCertificate()}}).fromQuery(strings.Replace(ours, "state_-1", "state_-2", 1)); err == nil {
		t.Error("control: another RelayState fits the signature")
	}
}

func TestFlowsThatCannotBegin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, f := range map[string]*claims.Flow{
		"no state":     {ID: "f", RequestID: "id-1"},
		"no request":   {ID: "f", State: "s"},
		"a long state": {ID: "f", State: strings.Repeat("x", 81), RequestID: "id-1"},
	} {
		w := httptest.NewRecorder()
		if err := r.src.Challenge(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), f); err == nil || len(w.Header()) > 0 {
			t.Errorf("%s: %v, %v", name, err, w.Header())
		}
	}
	if err := r.begin(t); err != nil {
		t.Errorf("control: %v", err)
	}
}

// posted makes the form's request by hand.
func (r *rig) posted(t *testing.T, method, target, contentType string, form url.Values) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", contentType)
	return req
}

func TestFormsOfAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const kind = "application/x-www-form-urlencoded"
	flow := func() *claims.Flow {
		return &claims.Flow{ID: "f", State: "relay", RequestID: "id-7", RedirectURI: r.acs()}
	}
	message := base64.StdEncoding.EncodeToString(r.message(t, "id-7"))
	lines := strings.Join([]string{message[:76], message[76:152], message[152:]}, "\r\n")
	for name, tt := range map[string]struct {
		method, target, kind string
		form                 url.Values
		why                  string
	}{
		"control":                      {"POST", "/acs", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"relay"}}, ""},
		"control: lines":               {"POST", "/acs", kind, url.Values{"SAMLResponse": {lines}, "RelayState": {"relay"}}, ""},
		"control: a button":            {"POST", "/acs?x=1", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"relay"}, "submit": {"Go"}}, ""},
		"SM-26 GET":                    {"GET", "/acs?SAMLResponse=" + url.QueryEscape(message) + "&RelayState=relay", kind, nil, "not posted"},
		"SM-26 in the query":           {"POST", "/acs?SAMLResponse=" + url.QueryEscape(message), kind, url.Values{"RelayState": {"relay"}}, "not one SAMLResponse"},
		"SM-26 another type":           {"POST", "/acs", "text/plain", url.Values{"SAMLResponse": {message}, "RelayState": {"relay"}}, "not one SAMLResponse"},
		"SM-26 an artifact":            {"POST", "/acs", kind, url.Values{"SAMLart": {"x"}, "RelayState": {"relay"}}, "artifact"},
		"SM-26 an artifact beside it":  {"POST", "/acs", kind, url.Values{"SAMLart": {"x"}, "SAMLResponse": {message}, "RelayState": {"relay"}}, "artifact"},
		"SM-26 an artifact in a query": {"POST", "/acs?SAMLart=x", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"relay"}}, "artifact"},
		"a query that is none":         {"POST", "/acs?%zz", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"relay"}}, "malformed"},
		"two responses":                {"POST", "/acs", kind, url.Values{"SAMLResponse": {message, message}, "RelayState": {"relay"}}, "not one SAMLResponse"},
		"no response":                  {"POST", "/acs", kind, url.Values{"RelayState": {"relay"}}, "not one SAMLResponse"},
		"an empty response":            {"POST", "/acs", kind, url.Values{"SAMLResponse": {""}, "RelayState": {"relay"}}, "not one SAMLResponse"},
		"two RelayStates":              {"POST", "/acs", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"relay", "relay"}}, "more than one RelayState"},
		"another RelayState":           {"POST", "/acs", kind, url.Values{"SAMLResponse": {message}, "RelayState": {"other"}}, "not this login's"},
		"no RelayState":                {"POST", "/acs", kind, url.Values{"SAMLResponse": {message}}, "not this login's"},
		"not base64":                   {"POST", "/acs", kind, url.Values{"SAMLResponse": {message + "!"}, "RelayState": {"relay"}}, "not base64"},
		"base64 for addresses":         {"POST", "/acs", kind, url.Values{"SAMLResponse": {"-_-_"}, "RelayState": {"relay"}}, "not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, grant, err := r.src.Authenticate(r.posted(t, tt.method, tt.target, tt.kind, tt.form), flow())
			switch {
			case tt.why == "" && (err != nil || id.Subject != "alice" || grant == nil):
				t.Errorf("%+v, %v", id, err)
			case tt.why != "" && (!errors.Is(err, claims.ErrProtocol) || !strings.Contains(err.Error(), tt.why) || id != nil || grant != nil):
				t.Errorf("got %v, wanted %q", err, tt.why)
			}
		})
	}
}

// SM-20: a login that the provider begins is taken only where it is switched
// on, and then only as an answer to nothing.
func TestSM20LoginsThatTheProviderBegins(t *testing.T) {
	t.Parallel()
	post := func(r *rig, requestID string) error {
		form := url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString(r.message(t, requestID))}, "RelayState": {"https://evil.example.com/"}}
		id, _, err := r.src.Authenticate(r.posted(t, "POST", "/acs", "application/x-www-form-urlencoded", form), &claims.Flow{RedirectURI: r.acs()})
		if err == nil && id.Subject != "alice" {
			t.Errorf("%+v", id)
		}
		return err
	}
	off := newRig(t)
	if err := post(off, ""); !errors.Is(err, claims.ErrProtocol) || !strings.Contains(err.Error(), "idp_initiated") {
		t.Errorf("SM-20 off: %v", err)
	}
	if _, err := off.unasked(t); !errors.Is(err, claims.ErrProtocol) {
		t.Errorf("SM-20 off, through the browser: %v", err)
	}
	off.works(t, "control: one that we began")
	on := newRigWith(t, func(c *claims.SAMLConfig) { c.IDPInitiated = true })
	if err := post(on, "id-7"); !errors.Is(err, claims.ErrProtocol) || !strings.Contains(err.Error(), "InResponseTo") {
		t.Errorf("SM-20 on, an answer to some request: %v", err)
	}
	if err := post(on, ""); err != nil {
		t.Errorf("SM-20 control: on: %v", err)
	}
	if id, err := on.unasked(t); err != nil || id.Subject != "alice" {
		t.Errorf("SM-20 control: on, through the browser: %+v, %v", id, err)
	}
	// What was begun here is still held to its own request.
	on.refused(t, "SM-20 on, no answer to our request", edit(func(a *etree.Element) {
		a.FindElement("./Subject/SubjectConfirmation/SubjectConfirmationData").RemoveAttr("InResponseTo")
	}), "InResponseTo")
}

func TestStatusOfRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const prefix = "urn:oasis:names:tc:SAML:2.0:status:"
	for said, kind := range map[string]error{
		"AuthnFailed": claims.ErrDenied, "RequestDenied": claims.ErrDenied, "NoPassive": claims.ErrDenied, "UnknownPrincipal": claims.ErrDenied,
		"InvalidNameIDPolicy": claims.ErrProtocol, "UnsupportedBinding": claims.ErrProtocol,
	} {
		r.refusedAs(t, said, kind, func(k *claimstest.SAMLKnobs) {
			k.Status, k.NoAssertion = []string{prefix + "Responder", prefix + said}, true
		}, "the provider answered "+said)
	}
	r.refusedAs(t, "a status of nobody's", claims.ErrProtocol, func(k *claimstest.SAMLKnobs) {
		k.Status, k.NoAssertion = []string{prefix + "Responder", "canary <b>"}, true
	}, "with a status that SAML does not know")
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	person := func(p claimstest.SAMLPerson) func(*claimstest.SAMLOptions) {
		return func(o *claimstest.SAMLOptions) { o.People, o.AutoLogin = []claimstest.SAMLPerson{p}, p.NameID }
	}
	for name, tt := range map[string]struct {
		subject string
		person  claimstest.SAMLPerson
		want    string // the subject
		why     string
	}{
		"persistent":              {"nameid", claimstest.SAMLPerson{NameID: "p-1", Format: claimstest.SAMLPersistent}, "p-1", ""},
		"unspecified":             {"nameid", claimstest.SAMLPerson{NameID: "EXAMPLE\\alice", Format: claimstest.SAMLUnspecified}, "EXAMPLE\\alice", ""},
		"an e-mail address":       {"nameid", claimstest.SAMLPerson{NameID: "alice@example.com", Format: claimstest.SAMLEmail}, "alice@example.com", ""},
		"no format":               {"nameid", claimstest.SAMLPerson{NameID: "alice", Format: "-"}, "alice", ""},
		"transient":               {"nameid", claimstest.SAMLPerson{NameID: "t-1", Format: claimstest.SAMLTransient}, "", "a transient NameID"},
		"only blanks":             {"nameid", claimstest.SAMLPerson{NameID: " \t", Format: claimstest.SAMLPersistent}, "", "missing or empty"},
		"far too long":            {"nameid", claimstest.SAMLPerson{NameID: strings.Repeat("x", 1025), Format: claimstest.SAMLPersistent}, "", "longer than 1024 bytes"},
		"an attribute":            {"uid", claimstest.SAMLPerson{NameID: "t-1", Format: claimstest.SAMLTransient, Attributes: map[string][]string{"uid": {"alice"}}}, "alice", ""},
		"an attribute by a URI":   {"urn:oid:0.9", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"urn:oid:0.9": {"alice"}}}, "alice", ""},
		"no such attribute":       {"uid", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"UID": {"alice"}}}, "", "not one value"},
		"an attribute with two":   {"uid", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"uid": {"alice", "bob"}}}, "", "not one value"},
		"an attribute with none":  {"uid", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"uid": {}}}, "", "not one value"},
		"an empty attribute":      {"uid", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"uid": {""}}}, "", "missing or empty"},
		"an attribute, no NameID": {"NameID", claimstest.SAMLPerson{NameID: "x", Attributes: map[string][]string{"NameID": {"alice"}}}, "alice", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, func(c *claims.SAMLConfig) { c.Subject = tt.subject }, person(tt.person))
			id, err := r.login(t)
			switch {
			case tt.why == "" && (err != nil || id.Subject != tt.want || id.Claims.Text("nameid") != tt.person.NameID):
				t.Errorf("%+v, %v", id, err)
			case tt.why != "" && (!errors.Is(err, claims.ErrProtocol) || !strings.Contains(err.Error(), tt.why)):
				t.Errorf("got %v, wanted %q", err, tt.why)
			}
		})
	}
}

// SM-28: a provider speaks for its own people only. Those of two are two
// people whatever they are called: the source is part of who somebody is.
func TestSM28NamesOfAnotherProvider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	qualify := func(q string) func(*claimstest.SAMLKnobs) {
		return edit(func(a *etree.Element) { a.FindElement("./Subject/NameID").CreateAttr("NameQualifier", q) })
	}
	r.accepted(t, "SM-28 control: its own", qualify(r.idp.EntityID()))
	r.refused(t, "SM-28 another's", qualify("https://other.example.com"), "NameQualifier")
	other := newRig(t)
	a, err := r.login(t)
	if err != nil {
		t.Fatal(err)
	}
	other.src.name = "second"
	b, err := other.login(t)
	if err != nil {
		t.Fatal(err)
	}
	if a.Subject != b.Subject || a.Source == b.Source {
		t.Errorf("%q of %q and %q of %q", a.Subject, a.Source, b.Subject, b.Source)
	}
}

func TestAnAttributeMayBeCalledNameID(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *claimstest.SAMLOptions) {
		o.People = []claimstest.SAMLPerson{{NameID: "alice", Attributes: map[string][]string{"nameid": {"x"}, "Groups": {"a"}, "groups": {"b"}}}}
	})
	id, err := r.login(t)
	if err != nil || id.Subject != "alice" || id.Claims.Text("nameid") != "x" || id.Claims.Text("Groups") != "a" || id.Claims.Text("groups") != "b" {
		t.Errorf("%+v, %v", id, err)
	}
}

// SM-27: what asks for another profile is not answered by it.
func TestSM27EnhancedClients(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	req.Header.Set("Accept", "text/html, application/vnd.paos+xml")
	req.Header.Set("PAOS", `ver="urn:liberty:paos:2003-08";"urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp"`)
	w := httptest.NewRecorder()
	if err := r.src.Challenge(w, req, &claims.Flow{ID: "f", State: "s", RequestID: "id-1"}); err != nil || w.Code != http.StatusFound || w.Body.Len() > 0 {
		t.Errorf("SM-27: %d %q, %v", w.Code, w.Body, err)
	}
	soap := `<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body>` + string(r.message(t, "id-1")) + `</S:Body></S:Envelope>`
	answer := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/acs", strings.NewReader(soap))
	answer.Header.Set("Content-Type", "application/vnd.paos+xml")
	if _, _, err := r.src.Authenticate(answer, &claims.Flow{State: "s", RequestID: "id-1"}); !errors.Is(err, claims.ErrProtocol) {
		t.Errorf("SM-27: %v", err)
	}
	r.works(t, "SM-27 control")
}

func TestTheProbe(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	line, err := r.src.Probe(t.Context())
	certificate, _ := r.src.Expires()
	want := fmt.Sprintf("identity provider %s, 1 certificate, the first until %s, metadata read %s",
		r.idp.EntityID(), certificate.UTC().Format(time.DateOnly), r.now().UTC().Format(time.RFC3339))
	if err != nil || line != want {
		t.Errorf("got  %q, %v\nwant %q", line, err, want)
	}
	for format, want := range map[string]string{
		formatEmail: "e-mail addresses alone", formatTransient: "transient NameIDs alone", formatPersistent: "",
	} {
		r.idp.Lie(func(k *claimstest.SAMLKnobs) {
			k.MutateMetadata = func(m []byte) []byte {
				s := strings.Replace(string(m), "<md:SingleSignOnService", "<md:NameIDFormat>"+format+"</md:NameIDFormat><md:SingleSignOnService", 1)
				return []byte(strings.Replace(s, "<md:EntityDescriptor", `<md:EntityDescriptor validUntil="2100-01-01T00:00:00Z"`, 1))
			}
		})
		r.idp.PublishNext()
		line, err := r.src.Probe(t.Context())
		if err != nil || !strings.Contains(line, " certificates, ") || !strings.Contains(line, ", valid until 2100-01-01T00:00:00Z") || strings.Contains(line, "warning") != (want != "") || !strings.Contains(line, want) {
			t.Errorf("%q, %v", line, err)
		}
	}
}
