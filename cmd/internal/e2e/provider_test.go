package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// manyGroups are the groups of the person who is in 2,000.
func manyGroups() string {
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("team-%04d", i))
	}
	return strings.Join(names, ",")
}

// Groups arrive whichever way a real provider states them: in the ID token,
// only in userinfo, nested, not at all, as an empty list, and 2,000 of them.
func TestGroupsOfARealProvider(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	for _, mode := range []struct {
		name    string
		idToken bool
	}{{"in the ID token", true}, {"only in userinfo", false}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			issuer := realProvider(t, p, "real", map[string]any{"id_token": mode.idToken})
			p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue+"headers: {max_bytes: 65536}\n")
			g := p.start(t)
			for person, want := range map[string]string{
				"alice": "admins,engineering", "bob": "engineering", "carol": "", "dora": "",
				"erik": "engineering,ops", "many": manyGroups(),
			} {
				b := newBrowser(t)
				h := signIn(t, g, b, person)
				if got := strings.Join(h["X-Forwarded-Groups"], "|"); got != want {
					t.Errorf("%s: groups %.80q, want %.80q", person, got, want)
				}
				if h.Get("X-Forwarded-User") != person || h.Get("X-Forwarded-Email") != person+"@example.com" {
					t.Errorf("%s: user %q, email %q", person, h.Get("X-Forwarded-User"), h.Get("X-Forwarded-Email"))
				}
				if got := h.Get("Cookie"); strings.Contains(got, "groupgate") {
					t.Errorf("%s: the upstream got a cookie of ours", person)
				}
				if n := len(cookie(b, g)); n == 0 || n >= 200 {
					t.Errorf("%s: the session cookie has %d bytes", person, n)
				}
			}
		})
	}
}

func TestUserinfoSaysWhy(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	issuer := realProvider(t, p, "real", nil)
	p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue)
	g := p.start(t)
	b := newBrowser(t)
	signIn(t, g, b, "erik")
	var info struct {
		Source, Subject, User string
		Groups                []struct {
			Name string
			Why  []struct{ Source, Claim, Value string }
		}
	}
	page := get(t, b, g.url()+"/_auth/userinfo")
	if err := json.Unmarshal([]byte(page.Body), &info); err != nil {
		t.Fatalf("%v\n%s", err, page.Body)
	}
	if info.Source != "real" || info.Subject != "erik" || info.User != "erik" || len(info.Groups) != 2 {
		t.Fatalf("%+v", info)
	}
	if why := info.Groups[1].Why; info.Groups[1].Name != "ops" || len(why) != 1 || why[0].Claim != "/realm_access/roles" || why[0].Value != "ops" {
		t.Errorf("%+v", info.Groups)
	}
}

// A session follows the provider through its refresh token, with no browser.
func TestRefreshAtARealProviderChangesGroups(t *testing.T) {
	t.Parallel()
	for _, idToken := range []bool{true, false} {
		t.Run(fmt.Sprintf("id_token=%v", idToken), func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t)
			p := newPlace(t)
			people := p.file("people.json")
			say := func(groups ...string) {
				raw, err := json.Marshal(map[string]any{"alice": map[string]any{"groups": groups}})
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(people+".new", raw, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(people+".new", people); err != nil {
					t.Fatal(err)
				}
			}
			say("engineering", "admins")
			issuer := realProvider(t, p, "real", map[string]any{"people": people, "id_token": idToken})
			p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue+"session: {refresh: 1s}\n")
			g := p.start(t)
			b := newBrowser(t)
			if got := signIn(t, g, b, "alice").Get("X-Forwarded-Groups"); got != "admins,engineering" {
				t.Fatalf("groups %q", got)
			}
			for _, step := range [][]string{{"engineering", "ops"}, {}, {"admins"}} {
				say(step...)
				slices.Sort(step)
				g.eventually("refreshed", func() bool {
					page := get(t, b, g.url()+"/")
					return len(page.Hops) == 1 && received(t, page).Get("X-Forwarded-Groups") == strings.Join(step, ",")
				})
			}
		})
	}
}

// Signing out reaches the provider and comes back; afterwards neither the old
// cookie nor the provider's session lets anybody in.
func TestSignOutAtARealProvider(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	issuer := realProvider(t, p, "real", nil)
	p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue+"headers: {max_bytes: 65536}\n")
	g := p.start(t)
	for _, person := range []string{"alice", "many"} { // an ID token of 2,000 groups fits no address
		b := newBrowser(t)
		signIn(t, g, b, person)
		old := cookie(b, g)
		page := get(t, b, g.url()+"/_auth/sign_out")
		forms := page.Forms()
		if page.Status != http.StatusOK || !strings.HasPrefix(page.URL.String(), issuer) || len(forms) == 0 {
			t.Errorf("%s: sign-out leads to %.100s: %d\n%.300s", person, page.URL, page.Status, page.Body)
			continue
		}
		page, err := b.SubmitForm(page, forms[0], map[string]string{"logout": "yes"})
		if err != nil {
			t.Fatal(err)
		}
		if page.Status != http.StatusOK || page.URL.Host != g.public || !strings.Contains(page.Body, "signed out") {
			t.Errorf("%s: back at %s: %d\n%s", person, page.URL, page.Status, page.Body)
		}
		if status := withCookie(t, g, old); status != http.StatusUnauthorized {
			t.Errorf("%s: the old cookie gets %d", person, status)
		}
		if page = get(t, b, g.url()+"/"); !strings.HasPrefix(page.URL.String(), issuer+"/interaction/") {
			t.Errorf("%s: signed in again without credentials: %s", person, page.URL)
		}
	}
}

// withCookie answers the status a script gets with a session cookie.
func withCookie(t *testing.T, g *gate, cookie string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, g.url()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// The return address of a login is kept, and a foreign one is not followed.
func TestReturnAddressThroughARealProvider(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	issuer := realProvider(t, p, "real", nil)
	p.write(t, up.URL, oidc("real", issuer, realSecret), everyValue)
	g := p.start(t)
	for rd, want := range map[string]string{
		"/deep/page?x=1&y=%2F": "/deep/page?x=1&y=%2F", "https://evil.test/": "/", "//evil.test/": "/",
	} {
		page, err := newBrowser(t).Login(g.url()+"/_auth/start?rd="+url.QueryEscape(rd), "bob")
		if err != nil {
			t.Errorf("%s: %v", rd, err)
			continue
		}
		if page.URL.String() != g.url()+want {
			t.Errorf("rd=%s ends at %s", rd, page.URL)
		}
	}
}
