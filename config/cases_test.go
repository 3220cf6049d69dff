package config

import (
	"strings"
	"testing"
)

// RT-08: a list of who may with nothing in one place is a mistake, and never
// reads as "everybody" or "people without groups".
func TestEmptyEntriesAllowNobody(t *testing.T) {
	t.Parallel()
	with := func(text string) string { return minimal + text + "\n" }
	for _, list := range []string{`[""]`, `[" "]`, `["\t"]`, `[admins, ""]`, `["", admins]`, `[]`, `[admins, null]`, `null`, `""`} {
		for what, text := range map[string]string{
			"a route's groups":   with("routes: [{path: /admin/, groups: " + list + "}]"),
			"the e-mail domains": strings.Replace(minimal, "client_id: portal}", "client_id: portal}, require: {email_domains: "+list+"}", 1),
		} {
			if _, err := loadText(t, text); err == nil {
				t.Errorf("%s: %s is taken", what, list)
			}
		}
	}
	for what, text := range map[string]string{
		"a route's groups":   with("routes: [{path: /admin/, groups: [admins]}]"),
		"the e-mail domains": strings.Replace(minimal, "client_id: portal}", "client_id: portal}, require: {email_domains: [example.com]}", 1),
	} {
		mustLoad(t, text)
		t.Logf("control: %s", what)
	}
}

// SC-01, SC-03: without a word about it, only this host reaches the admin
// listener, and an application may listen on a socket that nobody else sees.
func TestAdminListensOnLoopbackUnlessTold(t *testing.T) {
	t.Parallel()
	if got := mustLoad(t, minimal).Admin.Listen; !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("the admin listener is at %s", got)
	}
	if _, err := loadText(t, minimal+"listen: 127.0.0.1:4180\nadmin: {listen: 127.0.0.1:4180}\n"); err == nil {
		t.Error("both listeners at one address are taken")
	}
	if got := mustLoad(t, strings.Replace(minimal, "http://127.0.0.1:8080", "unix:/run/app.sock", 1)).Upstream; got != "unix:/run/app.sock" {
		t.Errorf("upstream %s", got)
	}
}

// SC-28: plain http is for loopback; anywhere else cookies and answers would
// go over the network in the clear.
func TestPlainHTTPIsForLoopback(t *testing.T) {
	t.Parallel()
	at := func(public, issuer string) string {
		return strings.NewReplacer("https://portal.example.com", public, "https://idp.example.com", issuer).Replace(minimal)
	}
	const portal, idp = "https://portal.example.com", "https://idp.example.com"
	for _, c := range []struct {
		public, issuer string
		ok             bool
	}{
		{portal, idp, true}, {"http://127.0.0.1:4180", idp, true}, {"http://localhost:4180", idp, true}, {"http://[::1]:4180", idp, true},
		{portal, "http://127.0.0.1:5556", true}, {portal, "http://localhost:5556", true},
		{"http://portal.example.com", idp, false}, {"http://10.0.0.1", idp, false}, {"http://127.0.0.1.example.com", idp, false},
		{"http://localhost.example.com", idp, false}, {"http://0.0.0.0:4180", idp, false}, {"HTTP://portal.example.com", idp, false},
		{portal, "http://idp.example.com", false}, {portal, "http://192.0.2.1", false}, {portal, "http://127.0.0.1.example.com", false},
	} {
		if _, err := loadText(t, at(c.public, c.issuer)); (err == nil) != c.ok {
			t.Errorf("public_url %s, issuer %s: %v", c.public, c.issuer, err)
		}
	}
}
