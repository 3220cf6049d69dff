package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// signOutAt signs a browser out at the provider itself, without going by us.
func signOutAt(t *testing.T, b *claimstest.Browser, issuer string) {
	t.Helper()
	page := get(t, b, issuer+"/session/end")
	forms := page.Forms()
	if page.Status != http.StatusOK || len(forms) == 0 {
		t.Fatalf("%s: %d\n%s", page.URL, page.Status, page.Body)
	}
	page, err := b.SubmitForm(page, forms[0], map[string]string{"logout": "yes"})
	if err != nil || page.Status != http.StatusOK {
		t.Fatalf("%v: %+v", err, page)
	}
}

// OI-21: signing out at a real provider ends the session here, through its
// back-channel: that session where the provider names it, all of the person's
// where it names the person alone, and nobody else's.
func TestSigningOutAtARealProviderEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("session_required=%v", named), func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := newPlace(t)
			issuer := realProvider(t, p, "real", map[string]any{
				"backchannel_logout_uri":              p.url() + "/_auth/backchannel/real",
				"backchannel_logout_session_required": named,
			})
			p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue)
			g := p.start(t)
			browsers := map[string]*claimstest.Browser{"here": newBrowser(t), "elsewhere": newBrowser(t), "bob": newBrowser(t)}
			for who, b := range browsers {
				person := "alice"
				if who == "bob" {
					person = who
				}
				signIn(t, g, b, person)
			}
			cookies := map[string]string{}
			for who, b := range browsers {
				if cookies[who] = cookie(b, g); withCookie(t, g, cookies[who]) != http.StatusOK {
					t.Fatalf("%s is not signed in", who)
				}
			}
			signOutAt(t, browsers["here"], issuer)
			want := map[string]int{"here": http.StatusUnauthorized, "elsewhere": http.StatusUnauthorized, "bob": http.StatusOK}
			if named {
				want["elsewhere"] = http.StatusOK
			}
			for who, status := range want {
				if got := withCookie(t, g, cookies[who]); got != status {
					t.Errorf("%s gets %d, want %d", who, got, status)
				}
			}
			if !g.logged(`"kind":"sign_out"`, `"user":"alice"`, `"actor":"source real"`) {
				t.Errorf("the audit trail does not say so:\n%s", g.log.all())
			}
			if page := get(t, browsers["here"], g.url()+"/"); page.URL.Host == g.public {
				t.Errorf("signed in again without credentials: %s", page.URL)
			}
		})
	}
}
