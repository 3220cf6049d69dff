package proxy_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/proxy"
)

// RT-12, RT-13: people are sent to the login, scripts are told, and the
// application hears of neither.
func TestWhoIsSentToLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	html := header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	for _, c := range []struct {
		what   string
		method string
		edit   func(*http.Request)
		want   int
	}{
		{"a browser", "GET", html, 302},
		{"HEAD", "HEAD", html, 302},
		{"navigate", "GET", edits(html, header("Sec-Fetch-Mode", "navigate")), 302},
		{"TEXT/HTML", "GET", header("Accept", "TEXT/HTML"), 302},
		{"Accept in two lines", "GET", header("Accept", "image/png", "text/html"), 302},
		{"no Accept", "GET", nil, 401},
		{"any Accept", "GET", header("Accept", "*/*"), 401},
		{"JSON", "GET", header("Accept", "application/json"), 401},
		{"XHR", "GET", edits(html, header("X-Requested-With", "XMLHttpRequest")), 401},
		{"fetch, cors", "GET", edits(html, header("Sec-Fetch-Mode", "cors")), 401},
		{"fetch, same-origin", "GET", edits(html, header("Sec-Fetch-Mode", "same-origin")), 401},
		{"image", "GET", edits(html, header("Sec-Fetch-Mode", "no-cors")), 401},
		{"POST", "POST", html, 401},
		{"PUT", "PUT", html, 401},
		{"OPTIONS", "OPTIONS", html, 401},                           // RT-06
		{"probe", "GET", header("User-Agent", "GoogleHC/1.0"), 401}, // RT-03
		{"WebSocket", "GET", edits(html, header("Connection", "Upgrade"), header("Upgrade", "websocket")), 401},
	} {
		res := r.do(c.method, "/x?y=1", c.edit)
		body := bodyOf(t, res)
		if res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", c.what, res.StatusCode, c.want)
		}
		switch at := res.Header.Get("Location"); {
		case c.want == 302 && at != r.server.URL+"/_auth/start?rd=%2Fx%3Fy%3D1":
			t.Errorf("%s: sent to %q", c.what, at)
		case c.want == 401 && (at != "" || !strings.Contains(body, `"error":"unauthenticated"`) || res.Header.Get("Content-Type") != "application/json" ||
			!strings.Contains(body, r.server.URL+"/_auth/sign_in") || len(res.Cookies()) != 0):
			t.Errorf("%s: %v %s", c.what, res.Header, body)
		}
	}
	if r.up.count() != 0 {
		t.Error("the upstream was reached")
	}
}

var requestID = regexp.MustCompile(`<code>([a-z0-9-]+)</code>`)

// OI-26, SC-05: a page of ours says fixed words and a request id, whatever the
// request or the provider said; the log has the same id.
func TestErrorPagesEchoNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoSources)
	bob := r.signIn("bob")
	canary := `echo"><script>alert(1)</script>`
	q := url.QueryEscape(canary)
	b := r.browser()
	_, authorize := r.begin(b, "source=test")
	denied := withQuery(t, r.answer(b, authorize, "alice"), func(v url.Values) {
		v.Del("code")
		v.Set("error", "access_denied")
		v.Set("error_description", canary)
	})
	for what, target := range map[string]string{
		"unknown source": "/_auth/start?source=" + q, "unknown page": "/_auth/" + url.PathEscape(canary), "callback": "/_auth/callback/" + url.PathEscape(canary),
		"state": "/_auth/callback/test?state=" + q + "&error_description=" + q, "twice": "/_auth/start?rd=" + q + "&rd=" + q,
		"handover": "/_auth/handover?code=" + q, "path": "/a/../" + url.PathEscape(canary), "not for you": "/admin/" + url.PathEscape(canary) + "?" + q,
	} {
		req := func(req *http.Request) {
			page(req)
			if what == "not for you" {
				req.Header.Set("Cookie", bob)
			}
		}
		ownPage(t, r, what, r.do("GET", target, req))
	}
	ownPage(t, r, "refused at the provider", r.do("GET", strings.TrimPrefix(denied, r.server.URL), edits(page, signedIn(r.cookie(b)))))
	res := r.knock("GET / HTTP/1.1\r\nHost: echo-evil\r\nAccept: text/html\r\n\r\n")
	ownPage(t, r, "unknown host", res)
}

func ownPage(t *testing.T, r *rig, what string, res *http.Response) {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	body := string(raw)
	if res.StatusCode < 400 || res.StatusCode > 499 {
		t.Errorf("%s: %d", what, res.StatusCode)
	}
	if strings.Contains(body, "echo") || strings.Contains(body, "<script") {
		t.Errorf("%s: the page echoes: %s", what, body)
	}
	safeHeaders(t, what, res.Header)
	m := requestID.FindStringSubmatch(body)
	if m == nil {
		t.Errorf("%s: no request id on the page: %s", what, body)
	} else if !strings.Contains(r.logs.String(), `"request_id":"`+m[1]+`"`) {
		t.Errorf("%s: request id %s is not in the log", what, m[1])
	}
}

func safeHeaders(t *testing.T, what string, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %s is %q", what, name, h.Get(name))
		}
	}
	csp := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%s: the policy %q lacks %s", what, csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
		t.Errorf("%s: policy %q", what, csp)
	}
}

// The style sheet that the pages embed is the one that their policy allows,
// and they load nothing from anywhere.
func TestPagesLoadNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoSources)
	for _, target := range []string{"/_auth/sign_in?rd=/x", "/_auth/sign_out", "/_auth/nowhere"} {
		res := r.do("GET", target, page)
		body := bodyOf(t, res)
		safeHeaders(t, target, res.Header)
		_, rest, _ := strings.Cut(body, "<style>")
		css, _, ok := strings.Cut(rest, "</style>")
		sum := sha256.Sum256([]byte(css))
		if !ok || !strings.Contains(res.Header.Get("Content-Security-Policy"), "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") {
			t.Errorf("%s: the policy does not allow the page's style", target)
		}
		for _, bad := range []string{"src=", "<link", "@import", "url(", "<script", "style=\"", " onclick"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page has %s", target, bad)
			}
		}
		for _, want := range []string{`<html lang="en">`, `name="viewport"`, "prefers-color-scheme:dark"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page lacks %s", target, want)
			}
		}
		if head := r.do("HEAD", target, page); head.StatusCode != res.StatusCode || bodyOf(t, head) != "" {
			t.Errorf("%s: HEAD answered %d", target, head.StatusCode)
		}
	}
}

// Several sources: the chooser, which keeps the way back; ?source= skips it.
func TestChooser(t *testing.T) {
	t.Parallel()
	r := newRig(t, twoSources, func(r *rig) { r.settings.Sources[1].Label = `<b>R&D</b>` })
	b := r.browser()
	p, err := b.Get(r.server.URL + "/x?y=1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Status != 200 || p.URL.Path != "/_auth/sign_in" || !strings.Contains(p.Body, "Account at test") || !strings.Contains(p.Body, "&lt;b&gt;R&amp;D&lt;/b&gt;") {
		t.Fatalf("%d at %s: %s", p.Status, p.URL, p.Body)
	}
	for _, c := range (&http.Response{Header: p.Header}).Cookies() {
		t.Errorf("the chooser sets %s", c.Name)
	}
	link := regexp.MustCompile(`href="(/_auth/start\?[^"]*source=other)"`).FindStringSubmatch(p.Body)
	if link == nil {
		t.Fatalf("no link to the second source: %s", p.Body)
	}
	p, err = b.Login(r.server.URL+strings.ReplaceAll(link[1], "&amp;", "&"), "alice")
	if err != nil || p.Status != 200 || p.URL.RequestURI() != "/x?y=1" {
		t.Fatalf("ended at %v: %v", p, err)
	}
	if !strings.Contains(bodyOf(t, r.do("GET", "/_auth/userinfo", signedIn(r.cookie(b)))), `"source":"other"`) {
		t.Error("signed in by another source")
	}
	if res := r.do("GET", "/_auth/sign_in?source=test", page); !strings.HasPrefix(res.Header.Get("Location"), r.op.URL) {
		t.Errorf("?source= led to %q", res.Header.Get("Location"))
	}
	if res := r.do("GET", "/_auth/start?rd=/x", page); res.Header.Get("Location") != r.server.URL+"/_auth/sign_in?rd=%2Fx" {
		t.Errorf("a start without a source led to %q", res.Header.Get("Location"))
	}
}

// Our pages take the methods they are for.
func TestOwnPagesByMethod(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) { r.settings.Routes = []proxy.RouteConfig{{Path: "/", Access: proxy.Public}} })
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/_auth/sign_in", 405}, {"POST", "/_auth/start", 405}, {"POST", "/_auth/callback/test", 405}, {"PUT", "/_auth/userinfo", 405},
		{"DELETE", "/_auth/sign_out", 405}, {"POST", "/_auth/sign_out", 200}, {"POST", "/_auth/nowhere", 404}, {"POST", "/_auth/auth", 401},
		{"POST", "/_auth/jwks.json", 404}, {"GET", "/_auth/handover", 404},
	} {
		if res := r.do(c.method, c.path, nil); res.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, res.StatusCode, c.want)
		}
	}
	if r.up.count() != 0 {
		t.Error("the upstream was reached")
	}
}
