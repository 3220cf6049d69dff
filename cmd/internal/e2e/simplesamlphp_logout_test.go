package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// SM-22: signing out at the provider ends that session here and no other.
func TestSigningOutAtSimpleSAMLphpEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, sub := range []string{"", ", subject: uid"} {
		t.Run("subject"+sub, func(t *testing.T) {
			t.Parallel()
			s, g, _ := withSimpleSAML(t, told{}, sub)
			here, elsewhere, bob := newBrowser(t), newBrowser(t), newBrowser(t)
			signIn(t, g, here, "alice")
			signIn(t, g, elsewhere, "alice")
			signIn(t, g, bob, "bob")
			ended, stays, other := cookie(here, g), cookie(elsewhere, g), cookie(bob, g)
			page := get(t, here, s.end())
			if page.Status != http.StatusOK || page.URL.String() != s.url+"logout.php" {
				t.Fatalf("signing out there leads to %s: %d\n%s", page.URL, page.Status, page.Body)
			}
			for who, want := range map[string]int{ended: http.StatusUnauthorized, stays: http.StatusOK, other: http.StatusOK} {
				if got := withCookie(t, g, who); got != want {
					t.Errorf("%d, want %d (ended %v)", got, want, who == ended)
				}
			}
			if !g.logged(`"kind":"sign_out"`, `"user":"alice"`, `"actor":"source php"`) {
				t.Errorf("the audit trail does not say so:\n%s", g.log.all())
			}
			if page := get(t, here, g.url()+"/"); !s.hasLoginForm(page) {
				t.Errorf("signed in again without a password: %s", page.URL)
			}
		})
	}
}

// Signing out here ends the provider's session, and through it that of every
// other portal the browser has one at; it comes back to a page that says so.
func TestSigningOutReachesSimpleSAMLphpAndOthers(t *testing.T) {
	t.Parallel()
	s, g, _ := withSimpleSAML(t, told{}, "")
	// The other portal has another host, so that cookies keep apart.
	up := newUpstream(t)
	p := newPlace(t)
	p.public = strings.Replace(p.public, "127.0.0.1", "127.0.0.2", 1)
	p.write(t, up.URL, s.source(""), everyValue+"headers: {max_bytes: 65536}\n")
	other := p.start(t)
	s.meet(t, other)

	b, elsewhere := newBrowser(t), newBrowser(t)
	signIn(t, g, b, "alice")
	signIn(t, g, elsewhere, "alice")
	page, err := b.Login(other.url()+"/", "nobody: no password is asked for")
	if err != nil {
		t.Fatal(err)
	}
	if got := received(t, page).Get("X-Forwarded-User"); got != "alice" {
		t.Fatalf("at the other portal: %q", got)
	}
	here, there, stays := cookie(b, g), cookie(b, other), cookie(elsewhere, g)
	for _, at := range []struct {
		g      *gate
		cookie string
	}{{g, here}, {other, there}, {g, stays}} {
		if got := withCookie(t, at.g, at.cookie); got != http.StatusOK {
			t.Fatalf("before: %d at %s", got, at.g.public)
		}
	}
	page = get(t, b, g.url()+"/_auth/sign_out")
	if page.Status != http.StatusOK || page.URL.Host != g.public || !strings.Contains(page.Body, "signed out") {
		t.Errorf("back at %s: %d\n%s", page.URL, page.Status, page.Body)
	}
	if got := withCookie(t, g, here); got != http.StatusUnauthorized {
		t.Errorf("the old cookie gets %d", got)
	}
	if got := withCookie(t, other, there); got != http.StatusUnauthorized {
		t.Errorf("the other portal's cookie gets %d", got)
	}
	if got := withCookie(t, g, stays); got != http.StatusOK {
		t.Errorf("the other browser's cookie gets %d", got)
	}
	for _, at := range []*gate{g, other} {
		if page := get(t, b, at.url()+"/"); !s.hasLoginForm(page) {
			t.Errorf("signed in again without a password: %s", page.URL)
		}
	}
}

// atSimpleSAML is what a person does at its login page.
func atSimpleSAML(person string) []step {
	return []step{{"fill": "#username", "value": person}, {"fill": "#password", "value": "any"}, {"click": "#submit_button"}}
}

// Where either side takes logout messages by POST alone, pages that post
// themselves carry them, ours under its own Content-Security-Policy: first in
// the Go browser, which sees where they lead, then in Chromium.
func TestSigningOutByPost(t *testing.T) {
	t.Parallel()
	const post = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
	byPost := told{IdP: map[string]any{"SingleLogoutServiceBinding": []string{post}}}
	s, g, _ := withSimpleSAML(t, byPost, "")
	byPost.SP = map[string]any{"SingleLogoutService": []map[string]string{{"Binding": post, "Location": g.url() + "/_auth/saml/php/slo"}}}
	s.say(t, byPost)
	there, here := s.url+"saml2/idp/SingleLogoutService.php", g.url()+"/_auth/saml/php/slo"
	for _, way := range []struct{ begin, first, second, end string }{
		{g.url() + "/_auth/sign_out", there, here, g.url()},
		{s.end(), here, there, s.url + "logout.php"},
	} {
		b := newBrowser(t)
		signIn(t, g, b, "bob")
		ended := cookie(b, g)
		page := get(t, b, way.begin)
		for _, to := range []string{way.first, way.second} {
			forms := page.Forms()
			if len(forms) != 1 || forms[0].Method != http.MethodPost || forms[0].Action != to {
				t.Fatalf("%s: %s does not post to %s: %d\n%s", way.begin, page.URL, to, page.Status, page.Body)
			}
			var err error
			if page, err = b.Submit(page, nil); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.HasPrefix(page.URL.String(), way.end) || page.Status != http.StatusOK || withCookie(t, g, ended) != http.StatusUnauthorized {
			t.Errorf("%s ends at %s: %d, the old cookie gets %d", way.begin, page.URL, page.Status, withCookie(t, g, ended))
		}
	}
	home, asked := g.url()+"/page/home", "Enter your username and password"
	steps := []step{{"goto": home}}
	steps = append(steps, atSimpleSAML("bob")...)
	steps = append(steps, step{"expect": "groups: engineering"},
		step{"goto": g.url() + "/_auth/sign_out"}, step{"expect": "signed out"}, step{"url": g.url()}, step{"status": 200},
		step{"goto": home}, step{"url": s.url}, step{"expect": asked})
	steps = append(steps, atSimpleSAML("bob")...)
	steps = append(steps, step{"expect": "groups: engineering"},
		step{"goto": s.end()}, step{"expect": "You have been logged out"}, step{"url": s.url + "logout.php"},
		step{"goto": home}, step{"url": s.url}, step{"expect": asked})
	drive(t, scenario{Width: 1280, Height: 800, Scheme: "light", Pages: []string{g.url()}, Own: []string{s.origin()}, Steps: steps})
	for _, actor := range []string{`"reason":"signed out"`, `"actor":"source php"`} {
		if !g.logged(`"kind":"sign_out"`, `"user":"bob"`, actor) {
			t.Errorf("no audit event with %s:\n%s", actor, g.log.all())
		}
	}
}

// What a person sees: the same in Chromium, which keeps to the rules of cookies
// and of cross-site posts.
func TestChromiumWithSimpleSAMLphp(t *testing.T) {
	t.Parallel()
	s, g, _ := withSimpleSAML(t, told{}, ", idp_initiated: true")
	see := func(steps ...[]step) {
		t.Helper()
		var all []step
		for _, some := range steps {
			all = append(all, some...)
		}
		for name, found := range drive(t, scenario{Width: 1280, Height: 800, Scheme: "light", Pages: []string{g.url()}, Own: []string{s.origin()}, Steps: all}).Axe {
			for _, v := range found.Violations {
				t.Errorf("%s: %s", name, v)
			}
		}
	}
	for _, way := range []told{{}, {IdP: map[string]any{signResponse: true, encrypt: true}}} {
		s.say(t, way)
		see([]step{{"goto": g.url() + "/page/home?a=b"}}, atSimpleSAML("bob"), []step{
			{"url": g.url() + "/page/home?a=b"}, {"status": 200}, {"expect": "groups: engineering"},
			// Signing out here signs out there.
			{"goto": g.url() + "/_auth/sign_out"}, {"url": g.url()}, {"status": 200}, {"expect": "signed out"},
			{"goto": g.url() + "/page/home"}, {"url": s.url}, {"expect": "Enter your username and password"},
		}, atSimpleSAML("alice"), []step{
			{"url": g.url() + "/page/home"}, {"expect": "a%2Cb,engineering"},
			// Signing out there signs out here.
			{"goto": s.end()}, {"url": s.url + "logout.php"},
			{"goto": g.url() + "/page/home"}, {"url": s.url}, {"expect": "Enter your username and password"},
		})
	}
	s.say(t, told{})
	see([]step{{"goto": s.begin(g, "https://evil.test/")}}, atSimpleSAML("bob"), []step{
		{"url": g.url() + "/"}, {"status": 200}, {"expect": "engineering"},
	})
	s.say(t, told{IdP: map[string]any{algorithm: rsaSHA1}})
	see([]step{{"goto": g.url() + "/page/home"}}, atSimpleSAML("bob"), []step{
		{"url": g.url() + "/_auth/saml/php/acs"}, {"status": 400}, {"axe": "refused"},
	})
}
