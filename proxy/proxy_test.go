package proxy_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
)

func readResponse(conn io.Reader) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

// SC-27: what arrives is the client's address under the client's Host.
func TestLoginForwardsIdentityAndGroups(t *testing.T) {
	r := newRig(t)
	b := r.browser()
	page := r.login(b, "alice", "/reports?year=2026")
	if page.Status != 200 || !strings.Contains(page.Body, "hello from the application") {
		t.Fatalf("ended at %s with %d: %s", page.URL, page.Status, page.Body)
	}
	if got := page.URL.RequestURI(); got != "/reports?year=2026" {
		t.Errorf("returned to %s", got)
	}
	got := r.up.last(t)
	for name, want := range map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com",
		"X-Forwarded-Preferred-Username": "Alice Example", "X-Forwarded-Groups": "admins,engineering",
		"X-Forwarded-Proto": "https",
	} {
		if v := got.Header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if c := got.Header.Get("Cookie"); c != "" {
		t.Errorf("the upstream got our cookies: %q", c)
	}
	if !strings.HasSuffix(r.server.URL, got.Host) {
		t.Errorf("Host %q is not the client's", got.Host)
	}
	equal(t, "stored groups", groupsOf(t, r, "alice"), []string{"admins", "engineering"})
}

func TestRouteByGroup(t *testing.T) {
	r := newRig(t)
	alice, bob := r.browser(), r.browser()
	if page := r.login(alice, "alice", "/admin/"); page.Status != 200 {
		t.Fatalf("alice: %d", page.Status)
	}
	before := r.up.count()
	page := r.login(bob, "bob", "/admin/")
	if page.Status != 403 {
		t.Fatalf("bob: %d", page.Status)
	}
	for _, want := range []string{"bob", "admins", "engineering", "/_auth/sign_out"} {
		if !strings.Contains(page.Body, want) {
			t.Errorf("the 403 page does not say %q", want)
		}
	}
	if r.up.count() != before {
		t.Error("the upstream was reached")
	}
	// A change in the directory reaches the very next request.
	u, err := r.store.UserByName(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	manual := groups.Manual
	if _, err := r.dir.UpdateGroup(t.Context(), "admins", groups.GroupChange{Control: &manual}, "test"); err != nil {
		t.Fatal(err)
	}
	if err := r.dir.AddMember(t.Context(), "admins", u.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if res := r.do("GET", "/admin/", signedIn(r.cookie(bob))); res.StatusCode != 200 {
		t.Errorf("after joining: %d", res.StatusCode)
	}
	if err := r.dir.RemoveMember(t.Context(), "admins", u.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if res := r.do("GET", "/admin/", signedIn(r.cookie(bob))); res.StatusCode != 403 {
		t.Errorf("after leaving: %d", res.StatusCode)
	}
}
