package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// samlSource is one entry of "sources" for a provider of claimstest.
func samlSource(name, metadata, more string) string {
	return fmt.Sprintf(`
  - name: %s
    label: Work account
    saml: {metadata_url: %q%s}
    identity: {user: uid, email: mail}
    groups: {claims: [groups]}`, name, metadata, more)
}

func samlPerson(nameID, name string, groups ...string) claimstest.SAMLPerson {
	return claimstest.SAMLPerson{NameID: nameID, Attributes: map[string][]string{
		"uid": {name}, "mail": {name + "@example.com"}, "groups": groups,
	}}
}

func samlPeople() claimstest.SAMLOptions {
	return claimstest.SAMLOptions{People: []claimstest.SAMLPerson{samlPerson("p-1", "alice", "eng", "a,b"), samlPerson("p-2", "bob", "ops")}, WantSigned: true}
}

// introduce gives the provider our metadata, as an operator would.
func introduce(t *testing.T, g *gate, idp *claimstest.SAMLIdP, source string) string {
	t.Helper()
	resp, err := http.Get(g.url() + "/_auth/saml/" + source + "/metadata")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("our metadata: %d, %v", resp.StatusCode, err)
	}
	if err := idp.Trust(raw); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// withSAML is a groupgate whose only source is a SAML provider that knows us.
func withSAML(t *testing.T, more, rest string) (p place, g *gate, idp *claimstest.SAMLIdP, up *upstream) {
	t.Helper()
	up, idp, p = newUpstream(t), claimstest.StartSAML(t, samlPeople()), newPlace(t)
	p.write(t, up.URL, samlSource("staff", idp.URL+"/metadata", more), everyValue+rest)
	g = p.start(t)
	introduce(t, g, idp, "staff")
	return p, g, idp, up
}

// The whole program: people sign in at a SAML provider that takes no unsigned
// request, with an encrypted assertion too, their groups arrive, and the
// numbers say so.
func TestSAMLLogin(t *testing.T) {
	t.Parallel()
	_, g, idp, _ := withSAML(t, "", "")
	b := newBrowser(t)
	h := signIn(t, g, b, "p-1")
	if h.Get("X-Forwarded-User") != "alice" || h.Get("X-Forwarded-Email") != "alice@example.com" || h.Get("X-Forwarded-Groups") != "a%2Cb,eng" {
		t.Errorf("the upstream got %v", h)
	}
	idp.Change(func(o *claimstest.SAMLOptions) { o.Encrypt = "aes256-gcm" })
	if got := signIn(t, g, newBrowser(t), "p-2").Get("X-Forwarded-Groups"); got != "ops" {
		t.Errorf("encrypted: groups %q", got)
	}
	_, numbers := scrape(t, g)
	if n := numbers[`groupgate_logins_total{protocol="saml",provider="staff",result="ok"}`]; n != 2 {
		t.Errorf("%v logins are counted", n)
	}
	if age, there := numbers[`groupgate_idp_metadata_age_seconds{provider="staff"}`]; !there || age > 60 {
		t.Errorf("metadata age %v, %v", age, there)
	}
	_, der := idp.SigningKey()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if at := numbers[`groupgate_saml_certificate_expiry_timestamp_seconds{provider="staff"}`]; int64(at) != cert.NotAfter.Unix() {
		t.Errorf("the certificate runs out at %v, the metrics say %v", cert.NotAfter.Unix(), int64(at))
	}
	if n, there := numbers[`groupgate_saml_library_panics_total{provider="staff"}`]; !there || n != 0 {
		t.Errorf("panics %v, %v", n, there)
	}
}

// Two protocols side by side: sources that stand in identity.link share their
// people, others do not.
func TestSAMLBesideOIDC(t *testing.T) {
	t.Parallel()
	for _, linked := range []bool{true, false} {
		t.Run(fmt.Sprintf("linked=%v", linked), func(t *testing.T) {
			t.Parallel()
			up, idp, p := newUpstream(t), claimstest.StartSAML(t, samlPeople()), newPlace(t)
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{person("alice", "admins")}})
			rest := everyValue
			if linked {
				rest += "identity: {link: [op, staff]}\n"
			}
			p.write(t, up.URL, oidc("op", op.URL, opSecret)+samlSource("staff", idp.URL+"/metadata", ""), rest)
			g := p.start(t)
			introduce(t, g, idp, "staff")
			login := func(source, person string) *claimstest.Page {
				t.Helper()
				page, err := newBrowser(t).Login(g.url()+"/_auth/start?rd=/&source="+source, person)
				if err != nil {
					t.Fatal(err)
				}
				return page
			}
			if got := received(t, login("op", "alice")).Get("X-Forwarded-Groups"); got != "admins" {
				t.Fatalf("at op: groups %q", got)
			}
			page := login("staff", "p-1")
			if !linked {
				if page.Status != http.StatusForbidden {
					t.Errorf("another source takes alice's name: %d\n%s", page.Status, page.Body)
				}
				g.eventually("noted", func() bool { return g.logged(`"kind":"refused"`, `"source":"staff"`) })
				return
			}
			if got := received(t, page).Get("X-Forwarded-Groups"); got != "a%2Cb,admins,eng" {
				t.Errorf("at staff: groups %q", got)
			}
			var people struct {
				Items []struct{ User string }
			}
			if g.api("GET", "/users", nil, &people); len(people.Items) != 1 {
				t.Errorf("people %+v", people)
			}
		})
	}
}

// A SAML session lives to its bound: there is nothing to refresh it by, and the
// provider is not asked again. Its own session bounds ours.
func TestSAMLSessionLivesToItsBound(t *testing.T) {
	t.Parallel()
	_, g, idp, _ := withSAML(t, "", "session: {refresh: 1s}\n")
	b := newBrowser(t)
	signIn(t, g, b, "p-1")
	asked := idp.Calls("sso")
	idp.Change(func(o *claimstest.SAMLOptions) { o.SessionLength = 4 * time.Second })
	short := newBrowser(t)
	signIn(t, g, short, "p-2")
	kept := cookie(short, g)
	if withCookie(t, g, kept) != http.StatusOK {
		t.Fatal("bob is not signed in")
	}
	g.eventually("over with the provider's", func() bool { return withCookie(t, g, kept) == http.StatusUnauthorized })
	page := get(t, b, g.url()+"/")
	if len(page.Hops) != 1 || received(t, page).Get("X-Forwarded-Groups") != "a%2Cb,eng" {
		t.Errorf("alice's session: %+v", page.Hops)
	}
	if n := idp.Calls("sso") - asked; n != 2 { // the page and its answer, of bob's login
		t.Errorf("the provider was asked %d times", n)
	}
}

// answerOf has the provider answer a new login, and keeps what the browser is
// to post.
func answerOf(t *testing.T, g *gate, b *claimstest.Browser, nameID string) (to string, form url.Values) {
	t.Helper()
	page := get(t, b, g.url()+"/_auth/start?rd=/")
	page, err := b.Submit(page, map[string]string{"person": nameID})
	if err != nil || len(page.Forms()) != 1 {
		t.Fatalf("%v: %+v", err, page)
	}
	form = url.Values{}
	for name, v := range page.Forms()[0].Fields {
		form.Set(name, v)
	}
	return page.Forms()[0].Action, form
}

// SM-18, SM-23: what was used is used after a restart too, and an answer that was not
// used yet works across one; our key and the last good metadata outlive it, so
// people sign in while the metadata cannot be had.
func TestSAMLAcrossARestart(t *testing.T) {
	t.Parallel()
	p, g, idp, up := withSAML(t, ", idp_initiated: true", "")
	before := introduce(t, g, idp, "staff")
	b, waiting := newBrowser(t), newBrowser(t)
	to, used := answerOf(t, g, b, "p-1")
	if page, err := b.Post(to, used, idp.URL); err != nil || page.Status != http.StatusOK {
		t.Fatalf("%v: %+v", err, page)
	}
	started := get(t, newBrowser(t), idp.URL+"/start?person=p-1").Forms()
	fields := url.Values{"SAMLResponse": {started[0].Fields["SAMLResponse"]}}
	if page, err := newBrowser(t).Post(to, fields, idp.URL); err != nil || page.Status != http.StatusOK {
		t.Fatalf("%v: %+v", err, page)
	}
	_, unused := answerOf(t, g, waiting, "p-2")
	idp.Lie(func(k *claimstest.SAMLKnobs) {
		k.MetadataHandler = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }
	})
	g.signal(syscall.SIGTERM)
	<-g.exited
	g = p.start(t) // ready, though the provider's metadata cannot be read
	forwarded := up.requests.Load()
	for what, form := range map[string]url.Values{"asked for": used, "begun at the provider": fields} {
		page, err := b.Post(to, form, idp.URL)
		if err != nil || page.Status != http.StatusBadRequest {
			t.Errorf("used before the restart, %s: %v %d", what, err, page.Status)
		}
	}
	if n := up.requests.Load() - forwarded; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	page, err := waiting.Post(to, unused, idp.URL)
	if err != nil || received(t, page).Get("X-Forwarded-User") != "bob" {
		t.Errorf("%v", err)
	}
	if got := signIn(t, g, newBrowser(t), "p-1").Get("X-Forwarded-Groups"); got != "a%2Cb,eng" {
		t.Errorf("a new login: groups %q", got)
	}
	if certificateIn(t, introduce(t, g, idp, "staff")) != certificateIn(t, before) {
		t.Error("the restart changed our key")
	}
	// It belongs to the settings it was read by: other metadata is not replaced
	// by what was kept.
	p.write(t, up.URL, samlSource("staff", idp.URL+"/metadata?other", ", idp_initiated: true"), everyValue)
	g.signal(syscall.SIGTERM)
	<-g.exited
	g = p.launch(t)
	g.eventually("told", func() bool { return g.logged(`"source":"staff"`, "metadata") })
	if page := get(t, newBrowser(t), g.url()+"/"); page.Status != http.StatusServiceUnavailable {
		t.Errorf("metadata that was read elsewhere is believed: %d", page.Status)
	}
}

func certificateIn(t *testing.T, metadata string) string {
	t.Helper()
	_, rest, _ := strings.Cut(metadata, "X509Certificate>")
	text, _, found := strings.Cut(rest, "</")
	if !found {
		t.Fatalf("no certificate in %s", metadata)
	}
	return strings.Join(strings.Fields(text), "")
}

// Contract section 3: SIGHUP has the metadata read at once, so a provider's
// sudden new key works without waiting; the sources' other work goes on.
func TestSAMLMetadataIsReadAgainOnReload(t *testing.T) {
	t.Parallel()
	_, g, idp, _ := withSAML(t, "", "")
	signIn(t, g, newBrowser(t), "p-1")
	read := idp.Calls("metadata")
	g.signal(syscall.SIGHUP)
	g.eventually("read again", func() bool { return idp.Calls("metadata") > read })
	read = idp.Calls("metadata")
	if status := g.api("POST", "/sources/staff:test", nil, nil); status != http.StatusOK || idp.Calls("metadata") <= read {
		t.Errorf(":test answers %d, and asked %d times", status, idp.Calls("metadata")-read)
	}
	if got := signIn(t, g, newBrowser(t), "p-2").Get("X-Forwarded-Groups"); got != "ops" {
		t.Errorf("groups %q", got)
	}
}

// SC-09: our own key may come from files, and a new one is used without a
// restart. "check" reads them, and "check --online" the provider.
func TestSAMLKeyFiles(t *testing.T) {
	t.Parallel()
	up, idp, p := newUpstream(t), claimstest.StartSAML(t, samlPeople()), newPlace(t)
	files := fmt.Sprintf(", key_file: %q, cert_file: %q", p.file("sp.key"), p.file("sp.crt"))
	first := putPair(t, p)
	p.write(t, up.URL, samlSource("staff", idp.URL+"/metadata", files), everyValue)
	g := p.start(t)
	if ours := introduce(t, g, idp, "staff"); !strings.Contains(certificateIn(t, ours), first) {
		t.Error("our metadata has another certificate than the file")
	}
	signIn(t, g, newBrowser(t), "p-1")
	second := putPair(t, p)
	g.eventually("our metadata has the new certificate", func() bool {
		resp, err := http.Get(g.url() + "/_auth/saml/staff/metadata")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(certificateIn(t, string(raw)), second)
	})
	introduce(t, g, idp, "staff")
	signIn(t, g, newBrowser(t), "p-2")

	check := func(more ...string) (string, error) {
		out, err := exec.Command(program, append([]string{"check", "--config", p.config()}, more...)...).CombinedOutput()
		return string(out), err
	}
	out, err := check("--online")
	if err != nil || !strings.Contains(out, "source staff") || !strings.Contains(out, idp.EntityID()) {
		t.Errorf("check --online: %v\n%s", err, out)
	}
	putFile(t, p.file("sp.key"), []byte("canary"))
	if out, err = check(); err == nil || !strings.Contains(out, "sources[0].saml.cert_file") || strings.Contains(out, "canary") {
		t.Errorf("check with a key that is none: %v\n%s", err, out)
	}
	if got := signIn(t, g, newBrowser(t), "p-1").Get("X-Forwarded-User"); got != "alice" {
		t.Errorf("a key that is none took the old one's place: %q", got)
	}
}

// CK-14: our key outlives the session keys that it is kept under, as long as
// each new one stood beside the old one for a start. Without any of them it is
// made anew, and the log says so.
func TestSAMLKeyOutlivesSessionKeys(t *testing.T) {
	t.Parallel()
	up, idp, p := newUpstream(t), claimstest.StartSAML(t, samlPeople()), newPlace(t)
	old, next, other := strings.Repeat("o", 32), strings.Repeat("n", 32), strings.Repeat("x", 32)
	first := ""
	for i, keys := range []string{old, next + ", " + old, next, other} {
		p.write(t, up.URL, samlSource("staff", idp.URL+"/metadata", ""), everyValue+"session: {keys: ["+keys+"]}\n")
		g := p.start(t)
		ours := certificateIn(t, introduce(t, g, idp, "staff"))
		if i == 0 {
			first = ours
		}
		lost := i == 3
		if (ours != first) != lost || g.logged("made anew") != lost {
			t.Errorf("start %d: another certificate %v, told %v", i+1, ours != first, g.logged("made anew"))
		}
		signIn(t, g, newBrowser(t), "p-1")
		g.signal(syscall.SIGTERM)
		<-g.exited
	}
}

// putPair writes a new key and its certificate, and answers the certificate.
func putPair(t *testing.T, p place) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := claimstest.SAMLCertificate(key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	putFile(t, p.file("sp.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	putFile(t, p.file("sp.crt"), text)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[1:len(lines)-1], "")
}

// "explain" takes a SAML person's attributes as it takes an ID token.
func TestSAMLExplain(t *testing.T) {
	t.Parallel()
	up, p := newUpstream(t), newPlace(t)
	p.write(t, up.URL, samlSource("staff", "https://idp.example.com/metadata", ""), "rules: [{source: staff, claim: groups, value: eng, group: engineering}]\n")
	putFile(t, p.file("claims.json"), []byte(`{"groups":["eng","other"]}`))
	out, err := exec.Command(program, "explain", "--config", p.config(), "--source", "staff", p.file("claims.json")).CombinedOutput()
	for _, want := range []string{`"eng"`, "hit", `"other"`, "miss", "X-Forwarded-Groups: engineering"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("explain (%v) lacks %s:\n%s", err, want, out)
		}
	}
}
