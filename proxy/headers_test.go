package proxy_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// hard is group names with every byte that needs care; sorted bytewise.
var hard = []string{" padded ", "%41", "a b", "a,b", "a\tb", "caf\u00e9", "crlf\r\nX-Admin: yes", "q\"uote\\", "\U0001f511", "~plain"}

var hardEncoded = []string{"%20padded%20", "%2541", "a b", "a%2Cb", "a%09b", "caf%C3%A9", "crlf%0D%0AX-Admin: yes", `q"uote\`, "%F0%9F%94%91", "~plain"}

func memberOf(names ...string) option {
	return func(r *rig) { r.op.SetPerson(person("alice", names...)) }
}

func sortedNames(names []string) []string { return slices.Sorted(slices.Values(names)) }

// S0-06, GV-01, GV-02, contract section 5: the three formats, byte for byte.
func TestGroupsHeaderFormats(t *testing.T) {
	t.Parallel()
	pairs := map[string]string{}
	for i, n := range hard {
		pairs[n] = hardEncoded[i]
	}
	names := sortedNames(hard)
	encoded := make([]string, len(names))
	for i, n := range names {
		encoded[i] = pairs[n]
	}
	for _, c := range []struct {
		what   string
		format proxy.GroupsFormat
		groups []string
		want   []string
	}{
		{"comma", proxy.Comma, names, []string{strings.Join(encoded, ",")}},
		{"comma, one", proxy.Comma, []string{"solo"}, []string{"solo"}},
		{"comma, none", proxy.Comma, nil, []string{""}},
		{"repeated", proxy.Repeated, names, encoded},
		{"repeated, none", proxy.Repeated, nil, nil},
		{"json, none", proxy.JSON, nil, []string{"[]"}},
		{"json", proxy.JSON, []string{"a,b", "caf\u00e9", "\U0001f511"}, []string{`["a,b","caf\u00e9","\ud83d\udd11"]`}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, headers(proxy.HeadersConfig{GroupsFormat: c.format}), memberOf(c.groups...))
			r.signIn("alice")
			got := r.up.last(t).Header["X-Forwarded-Groups"]
			equal(t, "groups header", got, c.want)
			equal(t, "stored groups", groupsOf(t, r, "alice"), c.groups)
		})
	}
}

func TestJSONGroupsAreASCIIAndLossless(t *testing.T) {
	t.Parallel()
	r := newRig(t, headers(proxy.HeadersConfig{GroupsFormat: proxy.JSON}), memberOf(hard...))
	r.signIn("alice")
	line := r.up.last(t).Header.Get("X-Forwarded-Groups")
	for i := range len(line) {
		if line[i] < 0x20 || line[i] > 0x7e {
			t.Fatalf("byte %d is %#x", i, line[i])
		}
	}
	var names []string
	if err := json.Unmarshal([]byte(line), &names); err != nil {
		t.Fatal(err)
	}
	equal(t, "names", names, sortedNames(hard))
}

// Contract section 5: user, e-mail and name are encoded alike, commas left
// alone. GS-25: no line break survives.
func TestPersonHeadersAreEncoded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		p := person("alice")
		p.Claims["preferred_username"] = "Alice, the \u00e9lan %41"
		p.Claims["email"] = "alice@example.com\r\nX-Admin: yes"
		p.Claims["name"] = " Alice "
		r.op.SetPerson(p)
	})
	r.signIn("alice")
	h := r.up.last(t).Header
	for name, want := range map[string]string{
		"X-Forwarded-User":               "Alice, the %C3%A9lan %2541",
		"X-Forwarded-Email":              "alice@example.com%0D%0AX-Admin: yes",
		"X-Forwarded-Preferred-Username": "%20Alice%20",
	} {
		equal(t, name, h[name], []string{want})
	}
	if h.Get("X-Admin") != "" {
		t.Error("a claim made a header")
	}
}

func TestPresetsAndWrittenNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		cfg  proxy.HeadersConfig
		want [4]string
	}{
		{"default", proxy.HeadersConfig{}, [4]string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"}},
		{"remote", proxy.HeadersConfig{Preset: "remote"}, [4]string{"Remote-User", "Remote-Email", "Remote-Name", "Remote-Groups"}},
		{"auth-request", proxy.HeadersConfig{Preset: "auth-request"}, [4]string{"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Preferred-Username", "X-Auth-Request-Groups"}},
		{"grafana", proxy.HeadersConfig{Preset: "grafana"}, [4]string{"X-Webauth-User", "X-Webauth-Email", "X-Webauth-Name", "X-Webauth-Groups"}},
		{"a written name wins", proxy.HeadersConfig{Preset: "remote", Groups: "x-teams"}, [4]string{"Remote-User", "Remote-Email", "Remote-Name", "X-Teams"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, headers(c.cfg))
			cookie := r.signIn("alice")
			// The client's own copies go, under whatever name is ours now; a
			// name that is not ours any more is a header like any other.
			res := r.do("GET", "/", func(req *http.Request) {
				signedIn(cookie)(req)
				for _, n := range c.want {
					req.Header.Set(n, evil)
				}
				req.Header.Set("X-Not-Ours", "kept")
			})
			if res.StatusCode != 200 {
				t.Fatal(res.StatusCode)
			}
			h := r.up.last(t).Header
			for i, value := range []string{"alice", "alice@example.com", "Alice Example", "admins,engineering"} {
				equal(t, c.want[i], h[c.want[i]], []string{value})
			}
			if h.Get("X-Not-Ours") != "kept" {
				t.Error("a header that is not ours was taken")
			}
			for _, other := range []string{"X-Forwarded-User", "Remote-User", "X-Webauth-User", "Remote-Groups"} {
				if !slices.Contains(c.want[:], other) && h.Get(other) != "" {
					t.Errorf("%s is set too", other)
				}
			}
		})
	}
}

func TestOnlyHidesGroupsFromHeaderButNotFromRoutes(t *testing.T) {
	t.Parallel()
	r := newRig(t, headers(proxy.HeadersConfig{Only: []string{"engineering", "team-*"}}), withSigner,
		memberOf("admins", "engineering", "engineering-secret", "team-", "team-red", "xteam-blue"))
	cookie := r.signIn("alice")
	h := r.up.last(t).Header
	equal(t, "header", h["X-Forwarded-Groups"], []string{"engineering,team-,team-red"})
	equal(t, "assertion", claimsOf(t, r, h.Get("X-Groupgate-Assertion")).Groups, []string{"engineering", "team-", "team-red"})
	if res := r.do("GET", "/admin/", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("the route for a hidden group answered %d", res.StatusCode)
	}
}

func TestExtraClaims(t *testing.T) {
	t.Parallel()
	r := newRig(t, headers(proxy.HeadersConfig{Claims: map[string]string{
		"X-Department": "department", "x-teams": "teams", "X-Level": "level", "X-Missing": "missing", "X-Nested": "/realm/roles", "X-Flag": "flag",
	}}), func(r *rig) {
		p := person("alice")
		p.Claims["department"], p.Claims["level"], p.Claims["flag"] = "R&D, \u00fcber", 7, true
		p.Claims["teams"] = []any{"red, dark", "blue"}
		p.Claims["realm"] = map[string]any{"roles": []any{"r1", "r2"}}
		r.op.SetPerson(p)
	})
	r.signIn("alice")
	h := r.up.last(t).Header
	equal(t, "text", h["X-Department"], []string{"R&D, %C3%BCber"})
	equal(t, "number", h["X-Level"], []string{"7"})
	equal(t, "truth", h["X-Flag"], []string{"true"})
	equal(t, "pointer", h["X-Nested"], []string{"r1,r2"})
	if got := h["X-Teams"]; len(got) != 1 || !slices.Contains([]string{"red%2C dark,blue", "blue,red%2C dark"}, got[0]) {
		t.Errorf("list: %q", got)
	}
	if h["X-Missing"] != nil {
		t.Errorf("missing: %q", h["X-Missing"])
	}
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "group-" + string(rune('a'+i/26/26%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26))
	}
	return out
}

// GV-09: max_bytes counts the value's bytes: at the limit it fits, one past it does
// not, in every format.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	names := numbered(10) // 9 bytes each
	for _, c := range []struct {
		format proxy.GroupsFormat
		size   int
		cut    string // the lines when one byte is missing
	}{
		{proxy.Comma, 10*9 + 9, strings.Join(names[:9], ",")},
		{proxy.Repeated, 10 * 9, strings.Join(names[:9], "|")},
		{proxy.JSON, 10*11 + 9 + 2, `["` + strings.Join(names[:9], `","`) + `"]`},
	} {
		t.Run(string(c.format), func(t *testing.T) {
			t.Parallel()
			cfg := proxy.HeadersConfig{GroupsFormat: c.format, MaxBytes: c.size}
			r := newRig(t, headers(cfg), withSigner, trustLoopback, memberOf(names...))
			cookie := r.signIn("alice")
			if omitted := r.up.last(t).Header["X-Forwarded-Groups-Omitted"]; omitted != nil {
				t.Errorf("fits, and %q are omitted", omitted)
			}
			r.settings.Headers.MaxBytes--
			r.settings.Headers.OnOverflow = proxy.OverflowOmit
			r.configure()
			r.do("GET", "/", signedIn(cookie))
			h := r.up.last(t).Header
			if got := strings.Join(h["X-Forwarded-Groups"], "|"); got != c.cut {
				t.Errorf("one byte less: %q", got)
			}
			equal(t, "count", h["X-Forwarded-Groups-Omitted"], []string{"1"})
			if got := claimsOf(t, r, h.Get("X-Groupgate-Assertion")).Groups; !slices.Equal(got, names) {
				t.Errorf("the assertion is cut: %q", got)
			}
			r.settings.Headers.OnOverflow = proxy.OverflowError
			r.configure()
			overflowRefused(t, r, cookie)
		})
	}
}

func overflowRefused(t *testing.T, r *rig, cookie string) {
	t.Helper()
	before := r.up.count()
	res := r.do("GET", "/", edits(signedIn(cookie), page))
	body := bodyOf(t, res)
	if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "Too many groups") {
		t.Errorf("overflow answered %d: %s", res.StatusCode, body)
	}
	if strings.Contains(body, "group-a") {
		t.Error("the page lists groups")
	}
	if r.up.count() != before {
		t.Error("the upstream was reached")
	}
	id := requestID.FindStringSubmatch(body)
	if id == nil {
		t.Fatalf("no request id: %s", body)
	}
	noted := eventsOf(t, r, id[1])
	if len(noted) != 1 || noted[0].Kind != groups.EventOverflow || noted[0].Name != "alice" || noted[0].Source != "test" {
		t.Errorf("audit trail: %+v", noted)
	}
	if res := r.do("GET", "/_auth/auth", edits(signedIn(cookie), header("X-Forwarded-Uri", "/"))); res.StatusCode != http.StatusBadGateway || res.Header.Get("X-Forwarded-User") != "" {
		t.Errorf("forward-auth answered %d with user %q", res.StatusCode, res.Header.Get("X-Forwarded-User"))
	}
	if res := r.do("GET", "/_auth/userinfo", signedIn(cookie)); res.StatusCode != 200 {
		t.Errorf("userinfo answered %d", res.StatusCode)
	}
}
