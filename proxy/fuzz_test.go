package proxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// roundTrip holds the groups header to contract section 5: bytes that HTTP
// carries, and names that come back exactly.
func roundTrip(t interface {
	Helper()
	Errorf(string, ...any)
}, names []string) {
	t.Helper()
	h := compileHeaders(HeadersConfig{GroupsFormat: Comma, MaxBytes: 1 << 30})
	lines, omitted := h.groupLines(names)
	if len(lines) != 1 || omitted != 0 {
		t.Errorf("%q: %d lines, %d omitted", names, len(lines), omitted)
		return
	}
	for i := range len(lines[0]) {
		if c := lines[0][i]; c < 0x20 || c > 0x7e {
			t.Errorf("%q: byte %#x", names, c)
		}
	}
	if strings.Trim(lines[0], " ") != lines[0] {
		t.Errorf("%q: HTTP would trim %q", names, lines[0])
	}
	got := strings.Split(lines[0], ",")
	for i := range got {
		got[i] = decodeName(got[i])
	}
	if !slices.Equal(got, names) {
		t.Errorf("%q came back as %q", names, got)
	}
	h.cfg.GroupsFormat = Repeated
	if lines, _ = h.groupLines(names); len(lines) != len(names) {
		t.Errorf("%d lines for %d names", len(lines), len(names))
		return
	}
	for i := range lines {
		if decodeName(lines[i]) != names[i] {
			t.Errorf("line %q of %q", lines[i], names[i])
		}
	}
}

// S0-06: what is encoded decodes to itself, whatever it holds.
func FuzzHeaderRoundTrip(f *testing.F) {
	for _, seed := range []string{"admins\x00engineering", "a,b\x00%2C\x00%", " padded \x00", "\r\nX: y", "caf\u00e9\xff", "\x7f\x1f", "%41\x00A\x00%zz"} {
		f.Add(seed, 40)
	}
	f.Fuzz(func(t *testing.T, joined string, limit int) {
		names := strings.Split(joined, "\x00")
		roundTrip(t, names)
		// Whatever the bound, it is kept, and what is left is a beginning.
		limit = max(2, limit%4096)
		for _, format := range []GroupsFormat{Comma, JSON, Repeated} {
			h := compileHeaders(HeadersConfig{GroupsFormat: format, MaxBytes: limit})
			lines, omitted := h.groupLines(names)
			if len(strings.Join(lines, "")) > limit {
				t.Errorf("%s: %d bytes, the limit is %d", format, len(strings.Join(lines, "")), limit)
			}
			if format == Repeated && len(lines)+omitted != len(names) {
				t.Errorf("%d lines and %d omitted of %d", len(lines), omitted, len(names))
			}
			if format != JSON {
				continue
			}
			var got []string
			if err := json.Unmarshal([]byte(lines[0]), &got); err != nil || len(got)+omitted != len(names) {
				t.Errorf("JSON %q: %v, %d omitted of %d", lines[0], err, omitted, len(names))
			}
		}
	})
}

func TestHeaderRoundTripProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		roundTrip(t, rapid.SliceOfN(rapid.OneOf(rapid.String(), rapid.StringMatching(`[ ,%a-c\t\r\n0-9A-F]{1,12}`)), 1, 20).Draw(t, "names"))
	})
}

func FuzzReturnPath(f *testing.F) {
	for _, seed := range []string{
		"/", "/x?y=z#w", "//evil.example", `/\evil.example`, "/%09/evil.example", "/%5c%5cevil.example", "https://evil.example", "/.//evil.example", "/%2f%2fevil.example",
		"https://portal.example.com//evil.example", "https://eng.example.com/%2e%2e//x", "https://portal.example.com@evil.example/", "/\t/evil.example", "/\u2215evil.example", "/;/..;/x",
	} {
		f.Add(seed)
	}
	s := testSite(f, nil)
	f.Fuzz(func(t *testing.T, rd string) {
		portal, p := s.returnAddress(rd)
		origin := s.public
		if portal != nil {
			origin = portal.origin
		}
		browserly := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.TrimSpace(p))
		for _, text := range []string{p, browserly, origin + p} {
			base, err := url.Parse(origin + "/_auth/callback/test")
			if err != nil {
				t.Fatal(err)
			}
			to, err := base.Parse(text)
			if err != nil || to.Scheme+"://"+to.Host != origin || to.User != nil || strings.HasPrefix(to.Path, "//") {
				t.Fatalf("%q leads to %q: %v, %v", rd, text, to, err)
			}
		}
		if again := returnPath(p); again != p {
			t.Fatalf("%q became %q and then %q", rd, p, again)
		}
	})
}

func testSite(t testing.TB, routes []RouteConfig) *site {
	t.Helper()
	s, err := compileSite(Settings{
		PublicURL: "https://portal.example.com", Prefix: "/_auth", Upstream: "http://127.0.0.1:1",
		Keys:   [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
		Routes: append([]RouteConfig{{Host: "eng.example.com", Groups: []string{"engineering"}}}, routes...),
	}, newUpstreams())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzCookie(f *testing.F) {
	for _, seed := range []string{
		"a=1; __Host-groupgate=x; b=2", "groupgate", ";;=;groupgate=", `a="x; groupgate=1"; b`, "groupgate-login-1=2;a=1", "=groupgate=x", " groupgate = x ;a=b", "a=1;", "\xff=\x00; groupgate=\x7f",
	} {
		f.Add(seed, seed)
	}
	s := testSite(f, nil)
	f.Fuzz(func(t *testing.T, first, second string) {
		before := []string{first, second}
		r := &http.Request{Header: http.Header{"Cookie": slices.Clone(before)}}
		for name, v := range cookies(r) {
			if name == s.sessionCookie {
				sessionHash(v)
			}
		}
		s.bound(r, "id")
		s.boundHash(r, "hash")
		out := s.stripCookies(r.Header["Cookie"])
		if !slices.Equal(r.Header["Cookie"], before) {
			t.Fatal("the request's own lines were changed")
		}
		pairs := func(lines []string, keep func(name string) bool) []string {
			var out []string
			for _, line := range lines {
				for pair := range strings.SplitSeq(line, ";") {
					name, _, _ := strings.Cut(pair, "=")
					if pair = strings.Trim(pair, " \t"); pair != "" && keep(strings.Trim(name, " \t")) {
						out = append(out, pair)
					}
				}
			}
			return out
		}
		want := pairs(before, func(name string) bool { return !ownCookie(name) })
		if got := pairs(out, func(string) bool { return true }); !slices.Equal(got, want) {
			t.Fatalf("%q became %q", before, out)
		}
		for _, line := range before {
			if !strings.Contains(line, cookieWord) && strings.Trim(line, "; \t") != "" && !slices.Contains(out, line) {
				t.Fatalf("%q was changed: %q", line, out)
			}
		}
		h := http.Header{"Set-Cookie": {first, second}}
		stripSetCookie(h)
		for _, c := range (&http.Response{Header: h}).Cookies() {
			if ownCookie(c.Name) {
				t.Fatalf("%q sets %s", before, c.Name)
			}
		}
	})
}

// readers are the ways in which applications read a path that HTTP has handed
// them decoded once or not: decoded again or not, with parameters or without,
// empty segments joined or not, cleaned or not, an encoded slash a separator
// or not.
func readers(raw string) []string {
	var out []string
	for _, keepSlash := range []bool{true, false} {
		text := raw
		for range 4 {
			text = decoded(text, keepSlash)
			for _, p := range []string{text, withoutParameters(text)} {
				out = append(out, p, withoutEmpty(p))
				clean := path.Clean(p)
				if strings.HasSuffix(p, "/") && clean != "/" {
					clean += "/"
				}
				out = append(out, clean)
			}
		}
	}
	return out
}

func FuzzReadings(f *testing.F) {
	for _, seed := range []string{
		"/public/x", "/public/../admin/", "/public/%2e%2e/admin/", "/public%2f..%2fadmin/", "/public/%252e%252e/admin/", "/public/..;/admin/", "//admin/", "/public//admin/x", "/public%2fx",
		"/public/a//b%2fc/x", "/public/%61dmin/", "/public/;x/admin/", "/public/%25zz/%252e%252e/", "/public/admin%3bx%2fy", "/a/%2562/%252563/", "/a//b/c;x/", "/a/b;x//c/", "/_auth%2fx", "/public/\\..",
	} {
		f.Add(seed)
	}
	s := nestedSite(f)
	f.Fuzz(func(t *testing.T, raw string) { noReaderIsFooled(t, s, raw) })
}

// nestedSite has open in closed in open routes: where a wrong reading shows.
func nestedSite(t testing.TB) *site {
	return testSite(t, []RouteConfig{
		{Path: "/public/", Access: Public}, {Path: "/public/admin/", Groups: []string{"admins"}}, {Path: "/admin/", Groups: []string{"admins"}},
		{Path: "/a/", Access: Public}, {Path: "/a/b/", Groups: []string{"admins"}}, {Path: "/a/b/c/", Access: Public},
	})
}

// noReaderIsFooled: what passes as public, or without a group, does so however
// an application reads the path. It answers whether the path passed as public.
func noReaderIsFooled(t interface{ Fatalf(string, ...any) }, s *site, raw string) (public bool) {
	u, err := url.ParseRequestURI(raw)
	if err != nil || u.Host != "" {
		return false
	}
	p, others, err := readings(u)
	if err != nil {
		return false
	}
	h := s.hosts["portal.example.com"]
	d, err := h.decide(p, others)
	if err != nil {
		return false
	}
	for _, text := range append(others, p) {
		if _, own := s.own(text); own {
			return false
		}
	}
	raw, _, _ = strings.Cut(raw, "?")
	for _, seen := range readers(raw) {
		rt := h.match(seen)
		if d.isPublic() && !rt.public {
			t.Fatalf("%q is public, and %q is not", raw, seen)
		}
		if d.admits(nil) && len(rt.groups) > 0 {
			t.Fatalf("%q needs no group, and %q does", raw, seen)
		}
		if _, own := s.own(seen); own {
			t.Fatalf("%q is not ours, and %q is", raw, seen)
		}
	}
	return d.isPublic()
}

func TestReadingsProperty(t *testing.T) {
	t.Parallel()
	s := nestedSite(t)
	public := 0
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{
			"a", "b", "c", "public", "admin", "_auth", "x", "/", "/", "/", "/", "//", "%2f", "%2F", "%252f", "%25252f", ";", ";x", "%3b", "%253b", "%61", "%2561", "%252561", "%62", "%2562",
			"%63", "%2563", ".", "..", "%2e", "%252e", "%25", "%25zz", "%5c", "%00", "?", "#", "admi%6e", "publi%2563",
		}), 1, 12).Draw(t, "parts")
		open := rapid.SampledFrom([]string{"/", "/a/", "/a/b/", "/a/b/c/", "/public/", "/_auth/"}).Draw(t, "open")
		if noReaderIsFooled(t, s, open+strings.Join(parts, "")) {
			public++
		}
	})
	if public == 0 {
		t.Error("nothing passed: the property shows nothing")
	}
}

func FuzzOpenFlow(f *testing.F) {
	s := testSite(f, nil)
	now := time.Unix(1_800_000_000, 0)
	f.Add("", "test", "/x", int64(0))
	f.Add("AAAA", "", "//evil", int64(1799))
	f.Add(s.sealFlow(purposeState, flow{ID: "x", Source: "test", Began: now.Unix()}), "a b", "/\xff", int64(1801))
	f.Add(s.sealFlow(purposeKept, flow{ID: "x", Source: "test", Began: now.Unix()}), "a", "/&<>", int64(1))
	f.Add(s.sealHandover(handover{ID: "x", Expires: now.Unix() + 60}), "s", "/", int64(-61))
	f.Fuzz(func(t *testing.T, made, source, rd string, age int64) {
		age %= 1 << 20
		want := flow{ID: newID(), Source: strings.ToValidUTF8(source, ""), Began: now.Unix() - age, Return: strings.ToValidUTF8(rd, ""), Old: "o"}
		for purpose, other := range map[string]string{purposeState: purposeKept, purposeKept: purposeState} {
			if back, _, ok := s.openFlow(purpose, made, now); ok && back.ID != "x" { // the one seed that is ours
				t.Fatalf("%q opens", made)
			}
			sealed := s.sealFlow(purpose, want)
			got, key, ok := s.openFlow(purpose, sealed, now)
			if fresh := age < int64(loginLife/time.Second) && age > -60; ok != fresh {
				t.Fatalf("%d s old: %v", age, ok)
			}
			if ok && (got != want || key != 0) {
				t.Fatalf("%+v came back as %+v", want, got)
			}
			b := []byte(sealed)
			b[len(made)%len(b)] ^= 1
			if _, _, ok := s.openFlow(purpose, string(b), now); ok && string(b) != sealed {
				// The last digit of base64 may hold bits that mean nothing.
				if len(made)%len(b) != len(b)-1 {
					t.Fatal("a changed flow opens")
				}
			}
			for _, foreign := range []string{other, purposeHandover, purposeGrant, purposeSignOut} {
				if _, err := s.keys.openText(foreign, sealed); err == nil {
					t.Fatalf("a %s opens as %s", purpose, foreign)
				}
			}
		}
	})
}
