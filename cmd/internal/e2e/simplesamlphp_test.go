package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// refusedBecause holds a page to a refusal: its status, the words of the audit
// event that has the page's request id, no session, nothing forwarded.
func refusedBecause(t *testing.T, g *gate, up *upstream, b *claimstest.Browser, p *claimstest.Page, status int, words ...string) {
	t.Helper()
	if p.Status != status || p.URL.Host != g.public {
		t.Fatalf("%s: %d, want our %d\n%s", p.URL, p.Status, status, p.Body)
	}
	id := requestID.FindStringSubmatch(p.Body)
	if id == nil {
		t.Fatalf("the page has no request id:\n%s", p.Body)
	}
	words = append(words, `"kind":"refused"`, `"source":"php"`, id[1])
	g.eventually(fmt.Sprintf("an audit event with %q", words), func() bool { return g.logged(words...) })
	if cookie(b, g) != "" || up.requests.Load() != 0 {
		t.Errorf("a session %q, %d requests reached the upstream", cookie(b, g), up.requests.Load())
	}
}

var requestID = regexp.MustCompile(`<code[^>]*>([^<]+)</code>`)

func subject(t *testing.T, g *gate, b *claimstest.Browser) string {
	t.Helper()
	var info struct{ Source, Subject string }
	page := get(t, b, g.url()+"/_auth/userinfo")
	if err := json.Unmarshal([]byte(page.Body), &info); err != nil || info.Source != "php" {
		t.Fatalf("%v %s", err, page.Body)
	}
	return info.Subject
}

// People sign in whichever way a real provider signs and encrypts, and every
// value arrives whole. SimpleSAMLphp takes no request that is not signed, knows
// us from our metadata alone, and is another site than we are.
func TestSimpleSAMLphpSignsPeopleIn(t *testing.T) {
	t.Parallel()
	s, g, _ := withSimpleSAML(t, told{}, "")
	subjects := map[string]string{}
	for _, way := range []struct {
		name string
		told told
		made string
	}{
		{"a signed assertion", told{}, "signed Assertion rsa-sha256"},
		{"a signed response", told{IdP: map[string]any{signResponse: true}, SP: map[string]any{signAssertion: false}}, "signed Response rsa-sha256"}, // SM-06
		{"both signed", told{IdP: map[string]any{signResponse: true}}, "signed Response signed Assertion rsa-sha256 rsa-sha256"},
		{"encrypted in a signed response", told{IdP: map[string]any{signResponse: true, encrypt: true}}, "signed Response rsa-sha256 aes128-cbc rsa-oaep-mgf1p"},
		{"encrypted and not signed in a signed response", told{IdP: map[string]any{signResponse: true, encrypt: true}, SP: map[string]any{signAssertion: false}}, "signed Response rsa-sha256 aes128-cbc rsa-oaep-mgf1p"},
		{"RSA-SHA512", told{IdP: map[string]any{algorithm: rsaSHA512}}, "signed Assertion rsa-sha512"},
		{"attribute names as URIs", told{IdP: map[string]any{"attributes.NameFormat": "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"}}, "signed Assertion rsa-sha256"},
	} {
		t.Run(way.name, func(t *testing.T) {
			s.say(t, way.told)
			if got := made(t, acs(t, s, g, newBrowser(t), "bob")); got != way.made {
				t.Fatalf("SimpleSAMLphp sends something else: %s", got)
			}
			for person, want := range map[string]string{"alice": aliceHeader, "bob": "engineering", "dora": "", "many": manyGroups()} {
				b := newBrowser(t)
				h := signIn(t, g, b, person)
				if got := strings.Join(h["X-Forwarded-Groups"], "|"); got != want {
					t.Errorf("%s: groups %.200q, want %.200q", person, got, want)
				}
				if h.Get("X-Forwarded-User") != person || h.Get("X-Forwarded-Email") != person+"@example.com" {
					t.Errorf("%s: user %q, email %q", person, h.Get("X-Forwarded-User"), h.Get("X-Forwarded-Email"))
				}
				got := subject(t, g, b)
				if before, known := subjects[person]; known && got != before || len(got) < 20 {
					t.Errorf("%s: the persistent NameID is %q, and was %q", person, got, before)
				}
				subjects[person] = got
			}
		})
	}
	for _, of := range []string{"SAMLResponse=", "<saml", "PHNhbWxw"} { // the last is base64 of "<samlp"
		if strings.Contains(g.log.all(), of) {
			t.Errorf("the log holds a message: %s", of)
		}
	}
	if strings.Contains(s.log.String(), "PHP Warning") || strings.Contains(s.log.String(), "ERR ") {
		t.Errorf("SimpleSAMLphp complains:\n%s", s.log.String())
	}
}

// SM-04, SM-15: what a real provider sends and must not is refused with a page
// and an audit event that says what to change. The control is the same person
// a moment later, with that changed.
func TestSimpleSAMLphpIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, made string
		told       told
		words      []string
	}{
		{"SHA-1", "signed Assertion rsa-sha1", told{IdP: map[string]any{algorithm: rsaSHA1}},
			[]string{"algorithm that is not accepted", "SHA-256 or better"}},
		{"SHA-1 on the response", "signed Response rsa-sha1", told{IdP: map[string]any{algorithm: rsaSHA1, signResponse: true}, SP: map[string]any{signAssertion: false}},
			[]string{"algorithm that is not accepted", "SHA-256 or better"}},
		{"AES-CBC outside a signed response", "aes128-cbc rsa-oaep-mgf1p", told{IdP: map[string]any{encrypt: true}},
			[]string{"AES-CBC", "have the provider sign the response"}},
		{"nothing signed", "", told{SP: map[string]any{signAssertion: false}},
			[]string{"neither the response nor its assertion is signed"}},
		{"an encrypted NameID", "signed Assertion rsa-sha256 aes128-cbc rsa-oaep-mgf1p", told{IdP: map[string]any{"nameid.encryption": true}},
			[]string{"EncryptedID", "have the provider encrypt the assertion instead"}},
		{"a transient NameID", "signed Assertion rsa-sha256", transient, // made anew at every login
			[]string{"transient", "persistent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, g, up := withSimpleSAML(t, c.told, "")
			b := newBrowser(t)
			page := acs(t, s, g, b, "alice")
			if got := made(t, page); got != c.made {
				t.Fatalf("SimpleSAMLphp sends something else: %s", got)
			}
			page, err := b.Submit(page, nil)
			if err != nil {
				t.Fatal(err)
			}
			refusedBecause(t, g, up, b, page, http.StatusBadRequest, c.words...)
			s.say(t, told{})
			if got := signIn(t, g, newBrowser(t), "alice").Get("X-Forwarded-Groups"); got != aliceHeader {
				t.Errorf("groups %q", got)
			}
		})
	}
}

// The subject may be an attribute; then a transient NameID does no harm.
func TestSimpleSAMLphpSubjectAttribute(t *testing.T) {
	t.Parallel()
	_, g, _ := withSimpleSAML(t, transient, ", subject: uid")
	for _, person := range []string{"alice", "bob", "alice"} {
		b := newBrowser(t)
		signIn(t, g, b, person)
		if got := subject(t, g, b); got != person {
			t.Errorf("%s is %q", person, got)
		}
	}
}

// SM-20, RD-04: a login that begins at the provider is refused unless it is
// switched on, and then leads to the first page, whatever RelayState says.
func TestSimpleSAMLphpBeginsALogin(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprintf("idp_initiated=%v", on), func(t *testing.T) {
			t.Parallel()
			s, g, up := withSimpleSAML(t, told{}, fmt.Sprintf(", idp_initiated: %v", on))
			for _, relay := range []string{"", "https://evil.test/", g.url() + "/page/admin/", strings.Repeat("x", 22)} {
				b := newBrowser(t)
				page, err := b.Login(s.begin(g, relay), "alice")
				if err != nil {
					t.Fatal(err)
				}
				if !on {
					refusedBecause(t, g, up, b, page, http.StatusBadRequest)
					continue
				}
				if got := received(t, page).Get("X-Forwarded-Groups"); got != aliceHeader || page.URL.String() != g.url()+"/" {
					t.Errorf("RelayState %q: groups %q at %s", relay, got, page.URL)
				}
			}
			// What begins here works either way.
			if got := signIn(t, g, newBrowser(t), "bob").Get("X-Forwarded-Groups"); got != "engineering" {
				t.Errorf("groups %q", got)
			}
		})
	}
}

// acs is the page that posts a person's answer to us, not yet posted.
func acs(t *testing.T, s *simpleSAML, g *gate, b *claimstest.Browser, person string) *claimstest.Page {
	t.Helper()
	page := get(t, b, g.url()+"/")
	if !s.hasLoginForm(page) {
		t.Fatalf("no login form at %s: %d\n%s", page.URL, page.Status, page.Body)
	}
	page, err := b.Submit(page, map[string]string{"username": person, "password": "any"})
	if err != nil {
		t.Fatal(err)
	}
	if f := page.Forms(); len(f) != 1 || f[0].Fields["SAMLResponse"] == "" || f[0].Action != g.url()+"/_auth/saml/php/acs" {
		t.Fatalf("no answer to post at %s: %d\n%s", page.URL, page.Status, page.Body)
	}
	return page
}

// made says how the answer on such a page is made, so that no test takes
// SimpleSAMLphp's word for it.
func made(t *testing.T, p *claimstest.Page) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(p.Forms()[0].Fields["SAMLResponse"])
	if err != nil {
		t.Fatal(err)
	}
	var says []string
	for _, m := range elementWithID.FindAllStringSubmatch(string(raw), -1) {
		if strings.Contains(string(raw), `<ds:Reference URI="#`+m[2]+`"`) {
			says = append(says, "signed "+m[1])
		}
	}
	for _, m := range usedAlgorithm.FindAllStringSubmatch(string(raw), -1) {
		says = append(says, m[1])
	}
	return strings.Join(says, " ")
}

var (
	elementWithID = regexp.MustCompile(`<saml(?:p)?:(Response|Assertion) [^>]*ID="([^"]+)"`)
	usedAlgorithm = regexp.MustCompile(`<(?:ds:SignatureMethod|xenc:EncryptionMethod) Algorithm="[^"#]*#([^"]+)"`)
)

// SM-12, SM-18, CK-11: an answer counts once, and in the browser that asked.
func TestSimpleSAMLphpAnswerCountsOnceAndHere(t *testing.T) {
	t.Parallel()
	s, g, up := withSimpleSAML(t, told{}, ", idp_initiated: true")
	asked, other := newBrowser(t), newBrowser(t)
	page := acs(t, s, g, asked, "alice")
	stolen, err := other.Submit(page, nil)
	if err != nil {
		t.Fatal(err)
	}
	refusedBecause(t, g, up, other, stolen, http.StatusBadRequest)
	landed, err := asked.Submit(page, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := received(t, landed).Get("X-Forwarded-User"); got != "alice" {
		t.Errorf("user %q", got)
	}
	before := cookie(asked, g)
	again, err := asked.Submit(page, nil)
	if err != nil || again.Status != http.StatusBadRequest {
		t.Errorf("the second time: %v %d", err, again.Status)
	}
	if cookie(asked, g) != before || withCookie(t, g, before) != http.StatusOK {
		t.Error("the second time harmed the session")
	}
}

// SimpleSAMLphp checks what we sign: a request that was touched goes no
// further.
func TestSimpleSAMLphpChecksOurSignature(t *testing.T) {
	t.Parallel()
	s, g, _ := withSimpleSAML(t, told{}, "")
	b := newBrowser(t)
	honest := get(t, b, g.url()+"/deep?x=1")
	if !s.hasLoginForm(honest) {
		t.Fatalf("%s: %d\n%s", honest.URL, honest.Status, honest.Body)
	}
	var sent *url.URL
	for _, hop := range honest.Hops {
		if u, err := url.Parse(hop.URL); err == nil && u.Query().Has("SAMLRequest") {
			sent = u
		}
	}
	if sent == nil || len(sent.Query().Get("RelayState")) > 80 || sent.Query().Get("SigAlg") != "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256" {
		t.Fatalf("the request is %v", sent)
	}
	for _, change := range []func(url.Values){
		func(q url.Values) { q.Set("RelayState", strings.ToUpper(q.Get("RelayState"))+"x") },
		func(q url.Values) { q.Del("Signature"); q.Del("SigAlg") },
	} {
		q := sent.Query()
		change(q)
		u := *sent
		u.RawQuery = q.Encode()
		if page := get(t, newBrowser(t), u.String()); s.hasLoginForm(page) {
			t.Errorf("it took %s", q)
		}
	}
}

// SM-24: the provider rolls its key over, and nobody's login fails.
func TestSimpleSAMLphpRollsItsKeyOver(t *testing.T) {
	t.Parallel()
	s, g, _ := withSimpleSAML(t, told{}, "")
	login := func(when string) {
		t.Helper()
		if got := signIn(t, g, newBrowser(t), "bob").Get("X-Forwarded-Groups"); got != "engineering" {
			t.Errorf("%s: groups %q", when, got)
		}
	}
	login("the old key")
	s.say(t, told{IdP: map[string]any{"new_privatekey": "next.key", "new_certificate": "next.crt"}})
	g.signal(syscall.SIGHUP) // asks at once; otherwise metadata_refresh does
	g.eventually("reloaded", func() bool { return g.logged("configuration reloaded") })
	login("both published, the old one signs")
	s.say(t, told{IdP: map[string]any{"privatekey": "next.key", "certificate": "next.crt"}})
	login("the new key alone")
	// A key that the metadata does not list is a stranger's.
	s.say(t, told{IdP: map[string]any{"privatekey": "idp.key", "certificate": "next.crt"}})
	g.signal(syscall.SIGHUP) // forgets the old key
	g.eventually("refused", func() bool {
		b := newBrowser(t)
		page, err := b.Login(g.url()+"/", "bob")
		if err != nil {
			t.Fatal(err)
		}
		return page.Status == http.StatusBadRequest && cookie(b, g) == ""
	})
	g.eventually("an audit event", func() bool {
		return g.logged(`"kind":"refused"`, `"source":"php"`, "the signature fits no key of the provider")
	})
	// The old key again, unannounced: the first message that no known key
	// signed has the metadata read once more.
	s.say(t, told{})
	g.eventually("trusted", func() bool {
		page, err := newBrowser(t).Login(g.url()+"/", "bob")
		if err != nil {
			t.Fatal(err)
		}
		return page.Status == http.StatusOK
	})
}
