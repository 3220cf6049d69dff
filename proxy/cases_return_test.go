package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// landing signs alice in with a start that asks for an address to return to,
// and answers where the browser is sent in the end.
func (r *rig) landing(query string) (status int, location string) {
	r.t.Helper()
	start := r.serve("/_auth/start?"+query, "")
	if start.Code != http.StatusFound {
		return start.Code, ""
	}
	var kept []string
	for _, c := range start.Result().Cookies() {
		kept = append(kept, c.Name+"="+c.Value)
	}
	at := r.answer(r.browser(), start.Header().Get("Location"), "alice")
	back := r.serve(strings.TrimPrefix(at, r.server.URL), strings.Join(kept, "; "))
	return back.Code, back.Header().Get("Location")
}

// RD-01, RD-02, RD-08: the other end of TestReturnAddressesStayHere, which
// looks at what is refused at once: after a whole login the browser is here.
// One vector in eleven of the long list, and each of the short one.
func TestLoginsEndHere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	vectors := []string{
		"///evil.example", "http:www.evil.example", "https:%5c%5cevil.example", "https:%5C%5Cevil.example", `/\evil.example`, "/%09/evil.example",
		"/.//evil.example", "/\t/evil.example", "/\n/evil.example", "/\r\n/evil.example", "//evil.example/%2e%2e", "https:evil.example",
		"/" + strings.Repeat("a", 8<<10), "/\x00", "/%00", "/x\r\nSet-Cookie: a=b", "/%0d%0aSet-Cookie:%20a=b", "https://evil.example" + strings.Repeat("/a", 4<<10),
	}
	for i, v := range redirects() {
		if i%11 == 0 {
			vectors = append(vectors, v)
		}
	}
	if len(vectors) < 120 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for _, rd := range vectors {
		status, at := r.landing("rd=" + url.QueryEscape(rd))
		if status != http.StatusSeeOther || !stays(t, r.server.URL, at) {
			t.Errorf("a login with %.60q ends with %d at %.60q", rd, status, at)
		}
	}
	for _, rd := range []string{"/x/y?z=1#part", "/caf%C3%A9"} {
		if status, at := r.landing("rd=" + url.QueryEscape(rd)); status != http.StatusSeeOther || at != rd {
			t.Errorf("control: %q ends with %d at %q", rd, status, at)
		}
	}
	// RD-06: of two one could be checked and the other used.
	if status, _ := r.landing("rd=/ok&rd=//evil.example"); status != http.StatusBadRequest {
		t.Errorf("rd twice: %d", status)
	}
}

// RD-05: a portal is named by its whole origin; what only begins, ends or
// sounds like one is another site.
func TestOnlyWholeOriginsArePortals(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	port := ":" + r.port()
	for _, origin := range []string{
		"https://evil-eng.localhost" + port, "https://evileng.localhost" + port, "https://x.eng.localhost" + port, "https://eng.localhost.evil.example" + port,
		"https://eng.localhost" + port + ".evil.example", "https://eng.localhost" + port + "@evil.example", "https://evil.example#eng.localhost" + port,
		"https://evil.example?eng.localhost" + port, "https://evil.example/eng.localhost" + port, "https://user@eng.localhost" + port,
		"https://eng.localhost", "https://eng.localhost:1", "https://eng.localhost:0" + r.port(), "http://eng.localhost" + port, "//eng.localhost" + port,
		"https://localhost" + port, "https://eng" + port, `https://eng.localhost\@evil.example`, "https://eng%2elocalhost" + port,
	} {
		at := r.serve("/_auth/sign_out?rd="+url.QueryEscape(origin+"/x"), "").Header().Get("Location")
		if at != "" && !stays(t, r.server.URL, at) {
			t.Errorf("sign-out with %q leads to %q", origin, at)
		}
		if status, at := r.landing("rd=" + url.QueryEscape(origin+"/x")); status != http.StatusSeeOther || !stays(t, r.server.URL, at) {
			t.Errorf("a login with %q ends with %d at %q", origin, status, at)
		}
	}
	portal := r.portal("eng.localhost") + "/x"
	if at := r.serve("/_auth/sign_out?rd="+url.QueryEscape(portal), "").Header().Get("Location"); at != portal {
		t.Errorf("control: %q became %q", portal, at)
	}
}

// OI-27: a login may begin at a link of anybody's, but that link chooses
// nothing of what is asked of the provider, and no other place to end at.
func TestStartTakesNoOrdersFromALink(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	authorize := func(query string) url.Values {
		t.Helper()
		u, err := url.Parse(r.serve("/_auth/start?"+query, "").Header().Get("Location"))
		if err != nil || !strings.HasPrefix(u.String(), r.op.URL+"/authorize?") {
			t.Fatalf("start with %q led to %v, %v", query, u, err)
		}
		q := u.Query()
		for _, fresh := range []string{"state", "nonce", "code_challenge"} {
			if q.Get(fresh) == "" {
				t.Errorf("start with %q asks without %s", query, fresh)
			}
			q.Del(fresh)
		}
		return q
	}
	orders := "iss=https%3A%2F%2Fevil.example&target_link_uri=https%3A%2F%2Fevil.example%2F&scope=openid+admin&scopes=admin&client_id=evil" +
		"&redirect_uri=https%3A%2F%2Fevil.example&response_type=token&response_mode=query&state=evil&nonce=evil&code_challenge=evil&claims=%7B%7D&acr_values=0&request_uri=https%3A%2F%2Fevil.example"
	if got, want := authorize(orders).Encode(), authorize("").Encode(); got != want {
		t.Errorf("a link changed the request to\n%s, from\n%s", got, want)
	}
	if status, at := r.landing(orders); status != http.StatusSeeOther || at != "/" {
		t.Errorf("the login ends with %d at %q", status, at)
	}
}
