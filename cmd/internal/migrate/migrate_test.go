package migrate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const secretWord = "canary-5d1e8f"

// Every option that is known is either made something of, or has words about
// what becomes of it: none is passed over in silence.
func TestEveryOptionIsAccountedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		*product
		run   func(*settings) *Result
		count int
	}{{oauth2, fromOAuth2Proxy, 165}, {samlAuth, fromSAMLAuthProxy, 25}} {
		all := slices.Concat(c.lists, c.bools, c.others)
		if len(all) < c.count {
			t.Errorf("%s: %d options", c.name, len(all))
		}
		seen := map[string]bool{}
		for _, name := range all {
			if seen[name] {
				t.Errorf("%s: %s stands twice", c.name, name)
			}
			seen[name] = true
			s := &settings{file: "x", used: map[string]bool{}, all: []setting{{name: name, values: []string{"true"}, line: 1}}}
			c.run(s)
			_, words := c.means[name]
			if words == s.used[name] {
				t.Errorf("%s: %s: used %v, words about it %v", c.name, name, s.used[name], words)
			}
		}
		for name := range c.means {
			if !seen[name] {
				t.Errorf("%s: words about %s, which is no option", c.name, name)
			}
		}
	}
}

// Who was kept out stays out: what cannot be translated lets nobody in, or is
// said.
func TestNobodyGetsInWhoDidNotBefore(t *testing.T) {
	t.Parallel()
	base := "provider = \"oidc\"\noidc_issuer_url = \"https://op.example.com\"\nclient_id = \"x\"\n"
	for name, c := range map[string]struct {
		text     string
		has, not string
	}{
		"anybody is meant":           {`email_domains = ["*"]`, "", "require"},
		"a domain":                   {`email_domains = ["Example.com"]`, "require: {email_domains: [example.com]}", undecided},
		"all domains below one":      {`email_domains = [".example.com"]`, undecided, "email_domains:"},
		"some of both":               {`email_domains = [".example.com", "example.org"]`, "[example.org]", undecided},
		"listed addresses":           {`authenticated_emails_file = "/list"`, undecided, ""},
		"listed addresses or any":    {"authenticated_emails_file = \"/list\"\nemail_domains = \"*\"", "", undecided},
		"groups of Google":           {`google_groups = ["a@example.com"]`, undecided, ""},
		"an organisation":            {`github_org = "acme"`, undecided, ""},
		"groups and an organisation": {"github_org = \"acme\"\nallowed_groups = [\"eng\"]", "{path: /, groups: [eng]}", undecided},
		"one method":                 {`skip_auth_routes = ["GET=^/open/"]`, "# - {path: /open/", "  - {path: /open/"},
		"one path":                   {`skip_auth_routes = ["^/open$"]`, "# - {path: /open,", "  - {path: /open"},
		"an end":                     {`skip_auth_regex = ["\\.css$"]`, "", "access: public"},
		"no begin":                   {`skip_auth_regex = ["/open/"]`, "", "access: public"},
		"everything":                 {`skip_auth_routes = ["^/", ".*", "^/.*"]`, "", "access: public"},
		"a prefix":                   {`skip_auth_routes = ["^/open/.*", "^/open/"]`, "  - {path: /open/, access: public}", ""},
		"below another upstream": {"upstreams = [\"http://a:1/\", \"http://b:2/app/\"]\nskip_auth_routes = [\"^/app/open/\"]",
			"{path: /app/open/, upstream: http://b:2, access: public}", ""},
		"an upstream of its own": {"upstreams = [\"http://a:1/\", \"http://b:2/app/\"]\nallowed_groups = \"eng,ops\"\n",
			"{path: /app/, upstream: http://b:2, groups: [eng, ops]}", ""},
		"addresses of clients": {`trusted_ips = ["10.0.0.0/8"]`, "", "10.0.0.0"},
	} {
		r, err := OAuth2Proxy("x.cfg", []byte(base+c.text+"\n"))
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case !strings.Contains(r.Config, c.has) || c.not != "" && strings.Contains(r.Config, c.not):
			t.Errorf("%s: wanted %q and not %q:\n%s", name, c.has, c.not, r.Config)
		}
	}
}

// The three ways to write options say the same.
func TestFormsOfAFile(t *testing.T) {
	t.Parallel()
	var want string
	for _, text := range []string{
		"provider = 'google' # words\nclient_id=\"a b\"\nemail_domains = [\n 'example.com',\n # more\n \"example.org\" ,\n]\nreverse_proxy = true\ncookie_expire = \"8h\"\n",
		"# words\nOTHER=1\nexport OAUTH2_PROXY_PROVIDER=google\nOAUTH2_PROXY_CLIENT_ID=\"a b\"\r\nOAUTH2_PROXY_EMAIL_DOMAINS=example.com,example.org\nOAUTH2_PROXY_REVERSE_PROXY=true\nOAUTH2_PROXY_COOKIE_EXPIRE='8h'\n",
		"exec oauth2-proxy --provider=google \\\n  --client-id 'a b' --email-domain=example.com \\\n --email-domain example.org --reverse-proxy --cookie-expire=8h",
		"args:\n  - --provider=google\n  - --client-id=a\\ b\n  - \"--email-domain=example.com\"\n  - --email-domain=example.org\n  - --reverse-proxy=true\n  - --cookie-expire=8h\n",
	} {
		r, err := OAuth2Proxy("x", []byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var got strings.Builder
		for line := range strings.Lines(r.Config) {
			line, _, _ = strings.Cut(line, "#") // where it stood differs
			fmt.Fprintln(&got, strings.TrimSpace(line))
		}
		if want == "" {
			want = got.String()
		}
		if got.String() != want || !strings.Contains(want, `client_id: "a b"`) || !strings.Contains(want, "[example.com, example.org]") {
			t.Errorf("%q:\n%s\nwanted\n%s", text, got.String(), want)
		}
	}
}

func TestWhatIsNoConfiguration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                     "x:1: no option of oauth2-proxy stands here",
		"# nothing\n":                          "x:1: no option",
		"colour = \"green\"\n":                 "x:1: no option",
		"provider = \"google":                  "x:1: a quote that nothing closes",
		"provider = \n":                        "x:1: not a value",
		"provider = google extra":              "x:1: more than one value",
		"\n\nupstreams = [\"a\" \"b\"]":        "x:3: no comma",
		"upstreams = [\"a\"":                   "x:1: a list that nothing closes",
		"upstreams = [[\"a\"]]":                "x:1: a list in a list",
		"provider = \"a\"\nprovider = \"b\"\n": "x:2: provider stands in line 1 already",
		"[section]\nprovider = \"a\"":          "x:1: no option begins here",
		"providers:\n- provider: oidc\n":       "x:1: this looks like YAML",
		"<html>":                               "x:1: no option begins here",
		"provider = \"\x00\"":                  "x:1: not text",
		"provider = \"\\z\"":                   "x:1: a backslash that escapes nothing",
		"OAUTH2_PROXY_PROVIDER=a\noops\n":      "x:2: not NAME=value",
		"oauth2-proxy --provider":              "x:1: an option without its value",
		"oauth2-proxy --reverse-proxy stray":   "x:1: a word that belongs to no option",
		"oauth2-proxy --provider='a":           "x:1: a quote that nothing closes",
		"provider = \"oidc\"\nclient_id = \"${file:/etc/shadow}\"": "x:2: client_id: holds ${env: or ${file:",
		strings.Repeat("#", maxFile+1):                             "x:1: larger than 1024 KiB",
	} {
		r, err := OAuth2Proxy("x", []byte(text))
		var fault *Fault
		if !errors.As(err, &fault) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, %v, wanted %q", text, r, err, want)
		}
	}
}

// Whatever a file holds, reading it ends, and neither outcome nor fault repeats
// a secret of it.
func FuzzOAuth2Proxy(f *testing.F) {
	f.Add("provider = \"oidc\"\nupstreams = ['http://a/b/']\n", "client_secret = \"%s\"\n")
	f.Add("skip_auth_routes = ['GET=^/a$', '^/b/.*']\nallowed_groups=\"a,b\"\n", "cookie_secret='%s'\n")
	f.Add("redirect_url = \"https://a/b\"\nbasic_auth_password = '''x'''\n", "redis_connection_url = \"redis://:%s@a:1\"\n")
	f.Add("OAUTH2_PROXY_PROVIDER=google\n", "OAUTH2_PROXY_CLIENT_SECRET=%s\n")
	f.Add("oauth2-proxy --client-id 'a' \\\n", " --client-secret=%s ")
	secrets := []string{"client_secret = \"%s\"\n", "cookie_secret='%s'\n", "redis_connection_url = \"redis://:%s@a:1\"\n",
		"OAUTH2_PROXY_CLIENT_SECRET=%s\n", " --client-secret=%s "}
	f.Fuzz(func(t *testing.T, text, secret string) {
		if strings.Contains(text, "canary") || !slices.Contains(secrets, secret) {
			return
		}
		// Behind the text, so that it cannot become part of something else there.
		whole := text + "\n" + strings.ReplaceAll(secret, "%s", secretWord)
		r, err := OAuth2Proxy("x", []byte(whole))
		out := fmt.Sprint(err)
		if err == nil {
			out = r.Config + strings.Join(r.Lacks, "\n")
		}
		if strings.Contains(out, secretWord) && !strings.Contains(text, "'''") && !strings.Contains(text, `"""`) && !strings.HasSuffix(strings.TrimRight(text, " \t"), "=") {
			t.Errorf("%q: the secret stands in %q", whole, out)
		}
		if err == nil && !strings.Contains(r.Config, "sources:") {
			t.Errorf("%q: no sources", whole)
		}
		if _, err := SAMLAuthProxy("x", []byte(whole)); err != nil && strings.Contains(err.Error(), secretWord) {
			t.Errorf("%q: %v", whole, err)
		}
	})
}
