package proxy_test

import (
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/claims/saml"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/sqlstore"
	"github.com/groupgate/groupgate/proxy"
)

// spoiled changes the encrypted text that stands at a path of what the provider
// encrypted.
func spoiled(path string, change func(raw []byte) []byte) func(*etree.Element) {
	return func(sealed *etree.Element) {
		el := sealed.FindElement(path)
		raw, err := base64.StdEncoding.DecodeString(el.Text())
		if err != nil {
			panic(err)
		}
		el.SetText(base64.StdEncoding.EncodeToString(change(raw)))
	}
}

// SM-15: anybody can encrypt for us and see what we say to it. Whatever is wrong
// with it, that is one and the same page, and a login that was begun is good
// for one try.
func TestUnreadableAnswersLookAlike(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	r.idp.Change(func(o *claimstest.SAMLOptions) { o.Encrypt = "aes256-gcm" })
	const text, key = "./EncryptedData/CipherData/CipherValue", ".//EncryptedKey/CipherData/CipherValue"
	cut := func(n int) func([]byte) []byte { return func(raw []byte) []byte { return raw[:n] } }
	flip := func(at int) func([]byte) []byte {
		return func(raw []byte) []byte { raw[(at+len(raw))%len(raw)] ^= 1; return raw }
	}
	type answer struct {
		status       int
		body, reason string
		header       string
	}
	seen := map[answer][]string{}
	b := r.browser()
	for name, change := range map[string]func(*etree.Element){
		"no text": spoiled(text, cut(0)), "shorter than a nonce": spoiled(text, cut(11)), "odd length": spoiled(text, cut(33)),
		"another nonce": spoiled(text, flip(0)), "another tag": spoiled(text, flip(-1)),
		"another key": spoiled(key, flip(9)), "a key cut off": spoiled(key, cut(100)), "no key": spoiled(key, cut(0)),
		"a key for another cipher": func(el *etree.Element) {
			el.FindElement("./EncryptedData/EncryptionMethod").CreateAttr("Algorithm", "http://www.w3.org/2009/xmlenc11#aes128-gcm")
		},
	} {
		r.idp.Lie(func(k *claimstest.SAMLKnobs) { k.MutateCipher = change })
		form := r.form(b, "rd=/", "alice")
		cookies := r.crossSite(b)
		res := r.post(form, cookies)
		body := bodyOf(t, res)
		id := idOf(t, name, body)
		if setCookies(res.Header)["__Host-groupgate"] != nil {
			t.Errorf("%s: somebody is signed in", name)
		}
		a := answer{status: res.StatusCode, body: strings.ReplaceAll(body, id, "ID"), header: strings.Join(slices.Sorted(maps.Keys(res.Header)), " ")}
		for _, e := range eventsOf(t, r.rig, id) {
			a.reason += e.Reason
		}
		seen[a] = append(seen[a], name)
		r.refusedPost(name+", once more", r.post(form, cookies), 400, "no_login", "no_login")
		// Nobody begins a login at the provider here: it is not even opened.
		r.refusedPost(name+", not asked for", r.post(form, ""), 400, "no_login", "idp_initiated")
	}
	if len(seen) != 1 {
		t.Errorf("%d different answers: %+v", len(seen), seen)
	}
	for a := range seen {
		if a.status != 400 || a.reason == "" {
			t.Errorf("the answer is %d, and in the audit trail %q", a.status, a.reason)
		}
	}
	if strings.Contains(r.logs.String(), "panic") {
		t.Error("the log has a panic")
	}
	r.idp.Honest()
	r.lands("control: encrypted and whole", r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), "/")
}

// SM-04: a signature of a kind that is not accepted is refused by a page, and
// counted as a login that failed.
func TestWeakSignaturesAreRefusedAndCounted(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, nil)
	b := r.browser()
	counts := func(ok, failed int64) {
		t.Helper()
		n := r.proxy.Logins()
		if len(n) != 1 || n[0].OK.Load() != ok || n[0].Failed.Load() != failed {
			t.Errorf("counted %+v, want %d and %d that failed", n, ok, failed)
		}
	}
	weak := []string{"http://www.w3.org/2000/09/xmldsig#rsa-sha1", "http://www.w3.org/2001/04/xmldsig-more#rsa-md5"}
	for i, method := range weak {
		r.idp.Lie(func(k *claimstest.SAMLKnobs) {
			k.Signature = func(s *claimstest.SAMLSignature) { s.Method = method }
		})
		r.refusedPost(method, r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), 400, "bad_answer", "SHA-256 or better")
		counts(0, int64(i+1))
	}
	r.idp.Honest()
	r.lands("control", r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), "/")
	counts(1, int64(len(weak)))
}

// otherClock is another groupgate on the same store, with everything of its own
// and a clock that is off.
func (r *samlRig) otherClock(off time.Duration) http.Handler {
	r.t.Helper()
	store, err := sqlstore.OpenSQLite(r.t.Context(), r.path, sqlstore.Options{PollInterval: time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { store.Close() })
	now := func() time.Time { return r.clock.Now().Add(off) }
	cfg := claims.DefaultSAML
	cfg.MetadataURL, cfg.IDPInitiated = r.idp.URL+"/metadata", true
	key, cert := ourPair()
	src, err := saml.New(saml.Options{
		Name: "adfs", Config: cfg, Origin: r.settings.PublicURL, Prefix: r.settings.Prefix, Key: key, Certificate: cert, Now: now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	settings := r.settings
	settings.Sources = []proxy.SourceEntry{{Source: src, Label: "Work account", Protocol: "saml"}}
	dir := groups.NewDirectory(groups.Options{Store: store, Now: now})
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { dir.Run(ctx) })
	r.t.Cleanup(func() { stop(); work.Wait() })
	if err := dir.Configure(r.t.Context(), r.groups); err != nil {
		r.t.Fatal(err)
	}
	p := proxy.New(proxy.Options{Directory: dir, Now: now})
	if err := p.Configure(settings); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// SM-19: with clocks five minutes apart, what one replica took is remembered
// for as long as another would believe it, though the first sweeps by its own
// time; and what seems to come out of the future is refused with those words.
func TestReplicaWithAnotherClock(t *testing.T) {
	t.Parallel()
	r := newSAMLRig(t, func(c *claims.SAMLConfig) { c.IDPInitiated = true })
	slow := r.otherClock(-5 * time.Minute)
	// So that their age alone is what ends them.
	r.idp.Change(func(o *claimstest.SAMLOptions) { o.Lifetime = time.Hour })
	b := r.browser()
	unasked := func() url.Values { return r.answerFrom(b, r.idp.URL+"/start", "alice") }
	used, fresh := unasked(), unasked()
	if code := r.postTo(slow, fresh, "").StatusCode; code != 400 {
		t.Errorf("issued in the future of the slow one: %d", code)
	}
	eventually(t, "the audit trail tells that the clocks differ", 5*time.Second, func() bool {
		return slices.ContainsFunc(events(t, r.rig, groups.EventRefused), func(e groups.Event) bool { return strings.Contains(e.Reason, "issued in the future") })
	})
	r.lands("at the quick one", r.post(used, ""), "/")

	// The last second in which the slow one believes it; to the quick one it is
	// long over.
	r.clock.advance(5*time.Minute + 10*time.Minute + time.Minute - time.Second)
	if err := r.dir.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.refusedPost("another one at the quick one", r.post(fresh, ""), 400, "no_login", "too long ago")
	if code := r.postTo(slow, used, "").StatusCode; code != 400 {
		t.Errorf("the slow one takes it once more: %d", code)
	}
	if n := r.sessionsOf("alice"); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if code := r.postTo(slow, fresh, "").StatusCode; code != 303 {
		t.Errorf("control: one that nobody used, at the slow one: %d", code)
	}
	if n := r.sessionsOf("alice"); n != 2 {
		t.Errorf("control: %d sessions", n)
	}
}

// SM-28: two providers name two people alike. They are two people here, and
// neither provider can speak for the other's.
func TestTwoProvidersWithOneNameID(t *testing.T) {
	t.Parallel()
	var second *claimstest.SAMLIdP
	r := newSAMLRig(t, nil, func(base *rig) {
		other := claimstest.SAMLPerson{NameID: "alice", Attributes: map[string][]string{"preferred_username": {"alice.second"}, "groups": {"guests"}}}
		thief := claimstest.SAMLPerson{NameID: "thief", Attributes: map[string][]string{"preferred_username": {"alice"}, "groups": {"admins"}}}
		second = claimstest.StartSAML(t, claimstest.SAMLOptions{People: []claimstest.SAMLPerson{other, thief}, Now: base.clock.Now, WantSigned: true})
		cfg := claims.DefaultSAML
		cfg.MetadataURL = second.URL + "/metadata"
		key, cert := ourPair()
		src, err := saml.New(saml.Options{
			Name: "second", Config: cfg, Origin: base.settings.PublicURL, Prefix: base.settings.Prefix, Key: key, Certificate: cert, Now: base.clock.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, ours, err := src.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Trust(ours); err != nil {
			t.Fatal(err)
		}
		base.settings.Sources = append(base.settings.Sources, proxy.SourceEntry{Source: src, Label: "Second account", Protocol: "saml"})
		base.groups.Sources = append(base.groups.Sources, groups.SourceSettings{
			Name: "second", Groups: claims.GroupClaims{Claims: []string{"groups"}, WhenAbsent: claims.Keep},
		})
		base.groups.Rules = append(base.groups.Rules, groups.Rule{ID: "second", Source: "second", Claim: "groups", Any: true})
	})
	enter := func(source, nameID string) (*claimstest.Browser, *claimstest.Page) {
		t.Helper()
		b := r.browser()
		p, err := b.Login(r.server.URL+"/_auth/start?rd=/&source="+source, nameID)
		if err != nil {
			t.Fatal(err)
		}
		return b, p
	}
	at := func(source, nameID string) *claimstest.Page {
		t.Helper()
		_, p := enter(source, nameID)
		return p
	}
	for _, c := range []struct{ source, user, groups string }{
		{"adfs", "alice", "admins,engineering"}, {"second", "alice.second", "guests"}, {"adfs", "alice", "admins,engineering"},
	} {
		if p := at(c.source, "alice"); p.Status != 200 {
			t.Fatalf("alice at %s: %d %s", c.source, p.Status, p.Body)
		}
		if got := r.up.last(t).Header; got.Get("X-Forwarded-User") != c.user || got.Get("X-Forwarded-Groups") != c.groups {
			t.Errorf("alice at %s is %q in %q", c.source, got.Get("X-Forwarded-User"), got.Get("X-Forwarded-Groups"))
		}
	}
	// Both are there, at the same time.
	first, _ := enter("adfs", "alice")
	other, _ := enter("second", "alice")
	for user, b := range map[string]*claimstest.Browser{"alice": first, "alice.second": other} {
		res := r.do("GET", "/", signedIn(r.cookie(b)))
		if got := r.up.last(t).Header.Get("X-Forwarded-User"); res.StatusCode != 200 || got != user {
			t.Errorf("the session of %s: %d as %q", user, res.StatusCode, got)
		}
	}
	equal(t, "groups", groupsOf(t, r.rig, "alice.second"), []string{"guests"})
	before := r.up.count()
	if p := at("second", "thief"); p.Status != 403 || r.up.count() != before {
		t.Errorf("the second provider names somebody alice: %d", p.Status)
	}
	// What the second one signed, brought as the first one's answer.
	b := r.browser()
	form := r.form(b, "rd=/", "alice")
	res := hop(t, b, r.server.URL+"/_auth/start?source=second&rd=/")
	theirs := r.answerFrom(b, res.Header.Get("Location"), "alice")
	mixed := url.Values{"SAMLResponse": theirs["SAMLResponse"], "RelayState": form["RelayState"]}
	r.refusedPost("the second one's answer in place of the first's", r.post(mixed, r.crossSite(b)), 400, "bad_answer", "")
	equal(t, "groups", groupsOf(t, r.rig, "alice"), []string{"admins", "engineering"})
	r.lands("control", r.post(r.form(b, "rd=/", "alice"), r.crossSite(b)), "/")
}
