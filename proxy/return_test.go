package proxy_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// redirects is addresses that some reader takes for another site: every
// beginning with every scheme trick, host and ending. Built like the public
// open-redirect lists of oauth2-proxy and mod_auth_openidc (RD-01).
func redirects() []string {
	hosts := []string{
		"evil.example", "127.0.0.1@evil.example", "evil.example:443", "[::ffff:1.2.3.4]", "3232235777", "0x7f.1", "evil%E3%80%82example",
		"evil\u3002example", "\uff45vil.example", "user:pass@evil.example", "evil.example%00.127.0.0.1", "127.0.0.1.evil.example",
	}
	begin := []string{
		"//", "///", "////", "/////", `\\`, `/\`, `\/`, `/\/`, `\/\`, `//\`, `\/\/`, "/%5c", "/%5c/", "/%5C%5C", "%5c%5c", "/%2f", "/%2f/", "%2f%2f",
		"/%252f", "/%255c", "/%25252f", "/\t/", "/\n/", "/\r\n/", "/%09/", "/%0a/", "/%0d/", "/%00/", "/ /", "/%20//", "\t//", " //", "\x00//", "\u00a0//", "\u2028//",
		"/.//", "/..//", "/./%2f", "/..;//", "/;//", "/;/%2f", "/x//", "/x/..//", "/x/../%2f", "/x/..%2f%2f", "/x/%2e%2e//", "/%2e%2e//", "/.%2e//", "/%2e/%2e//",
		"//%09/", `//\t/`, "/%ef%bc%8f", "/\uff0f", "\uff0f\uff0f", "/\u2215", "/\u2044",
		"http://", "https://", "HTTPS://", "hTTps:", "http:", "https:", "https:/", "https:///", `https:\\`, `https:/\`, "https:%5c%5c", "https:%2f%2f", "http:www.", "https&colon;//",
		"ht\ttps://", "ht\ntps://", " https://", "\x01https://", "%68ttps://", "ftp://", "file://", "ws://", "wss://", "view-source:https://", "blob:https://",
		"//;@", "//@", "/@", "/.", "/..", "//?//", "/#//", "?//", "#//", "",
	}
	end := []string{"", "/", "/path", "/%2e%2e", "?x=/", "#x", "\\", "/..;/"}
	schemes := []string{
		"javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "javascript://%0aalert(1)", "/javascript:alert(1)//x", "data:text/html,x", "data:text/html;base64,PHg+",
		"vbscript:x", "mailto:x@evil.example", "about:blank", "tel:1", "/\r\nLocation: https://evil.example", "/%0d%0aLocation:%20https://evil.example",
		"/\x00", "/\x7f", "/\u00e9", "/caf\u00e9", "/%", "/%zz", "/a%", "/%u002f", "/..", "/../", "/.", "/./", "/%2e", "/%2e%2e", "/%252e%252e", "/a/../b", "/a/%2e%2e/b", "/a%5c..%5cb", "\\", "\\\\", "/\\", "//", "///",
		"https", "https:", "//:80", "http://:80", "///:@/", "1.2.3.4", "..", "./", "../x", "x", "x/y", ".", "-", "@", "&", ";", "/" + strings.Repeat("a", 3000), strings.Repeat("/", 3000),
	}
	out := schemes
	for _, b := range begin {
		for i, h := range hosts {
			out = append(out, b+h+end[i%len(end)])
		}
		for _, e := range end {
			out = append(out, b+"evil.example"+e)
		}
	}
	return out
}

// stays reports whether a browser that got this Location stays on the origin:
// by the rules of net/url, and by those of browsers, which drop tabs and line
// breaks and take backslashes for slashes (WHATWG URL, section 4.4).
func stays(t *testing.T, origin, location string) bool {
	t.Helper()
	browserly := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.Trim(location, "\x00\x01\x02\t\n\r "))
	base, err := url.Parse(origin + "/_auth/callback/test")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{location, browserly} {
		to, err := base.Parse(text)
		if err != nil || to.Scheme+"://"+to.Host != origin || to.User != nil || strings.HasPrefix(to.Path, "//") {
			return false
		}
	}
	return true
}

// RD-01 to RD-08: wherever an address to return to is taken, the browser
// stays here. There are far more than a thousand.
func TestReturnAddressesStayHere(t *testing.T) {
	t.Parallel()
	r := newRig(t, portals)
	cookie := r.signIn("alice")
	list := redirects()
	if len(list) < 1000 {
		t.Fatalf("only %d vectors", len(list))
	}
	for _, base := range []string{"", r.server.URL, r.portal("eng.localhost")} {
		for _, rd := range list {
			if base != "" {
				rd = base + rd
			}
			at := r.serve("/_auth/sign_out?rd="+url.QueryEscape(rd), "").Header().Get("Location")
			if at != "" && !stays(t, r.server.URL, at) && !stays(t, r.portal("eng.localhost"), at) {
				t.Errorf("sign-out with %q leads to %q", rd, at)
			}
			at = r.serve("/_auth/start?bind=x&rd="+url.QueryEscape(rd), cookie).Header().Get("Location")
			if strings.HasPrefix(at, r.op.URL) || strings.HasPrefix(at, r.portal("eng.localhost")+"/_auth/handover?code=") {
				continue // to the provider, or with a ticket to a portal of ours
			}
			t.Errorf("start with %q leads to %q", rd, at)
		}
	}
	for _, rd := range []string{"/caf\u00e9", "/a b", `/x?y=\`, "/x?y=\u00e9", "/x\x7f", "/x?y=\t"} {
		if res := r.serve("/_auth/sign_out?rd="+url.QueryEscape(rd), ""); res.Code != 200 || res.Header().Get("Location") != "" {
			t.Errorf("%q is not plain, and leads to %q", rd, res.Header().Get("Location"))
		}
	}
	for _, rd := range []string{"/", "/x", "/x/y?z=1&rd=https://evil.example//", "/x#part", "/caf%C3%A9", "/a;b=c/d", "/.well-known/x", "/a:b@c", "/x?q=%zz"} {
		if at := r.serve("/_auth/sign_out?rd="+url.QueryEscape(rd), "").Header().Get("Location"); at != rd {
			t.Errorf("an honest address %q became %q", rd, at)
		}
		portal := r.portal("eng.localhost") + rd
		if at := r.serve("/_auth/sign_out?rd="+url.QueryEscape(portal), "").Header().Get("Location"); at != portal {
			t.Errorf("an honest address %q became %q", portal, at)
		}
	}
}

// serve is a navigation without a network.
func (r *rig) serve(target, cookie string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	req := httptest.NewRequest("GET", target, nil)
	req.Host = "127.0.0.1:" + r.port()
	page(req)
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	r.proxy.ServeHTTP(w, req)
	return w
}

// RD-03: the page somebody wanted is remembered, sealed, and cannot become
// another site on the way back.
func TestWantedPageIsRememberedSafely(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct{ wanted, want string }{
		{"/reports/q?year=2026&a=b;c", "/reports/q?year=2026&a=b;c"},
		{"//evil.example/x", "/"},
		{"/%5cevil.example", "400"},
		{"/x//evil.example", "/"},
		{"/x%2f%2fevil.example", "/"},
		{"/" + strings.Repeat("a", 2100), "/"},
	} {
		b := r.browser()
		res := r.knock("GET " + c.wanted + " HTTP/1.1\r\nHost: 127.0.0.1:" + r.port() + "\r\nAccept: text/html\r\n\r\n")
		if c.want == "400" {
			if res.StatusCode != 400 {
				t.Errorf("%q: %d", c.wanted, res.StatusCode)
			}
			continue
		}
		if res.StatusCode != 302 {
			t.Errorf("%.40q: %d", c.wanted, res.StatusCode)
			continue
		}
		start := hop(t, b, res.Header.Get("Location"))
		back := hop(t, b, r.answer(b, start.Header.Get("Location"), "alice"))
		if at := back.Header.Get("Location"); back.StatusCode != 303 || at != c.want {
			t.Errorf("%.40q came back as %q (%d)", c.wanted, at, back.StatusCode)
		}
	}
}
