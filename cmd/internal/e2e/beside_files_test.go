package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// strictly decodes an example: a key that the type has not is a fault.
func strictly(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.UnmarshalWithOptions([]byte(example(t, name)), into, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// identity is what groupgate says of a person by default, and what the examples
// switch on.
var identity = []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Groupgate-Assertion"}

// compose is as much of the Compose specification as the examples use.
type compose struct {
	Services map[string]struct {
		Image       string
		Command     []string
		Environment map[string]string
		Ports       []string
		Volumes     []string
		Networks    []string
		NetworkMode string   `yaml:"network_mode"`
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		SecurityOpt []string `yaml:"security_opt"`
		Restart     string
		StopGrace   string                                `yaml:"stop_grace_period"`
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Profiles    []string
		Labels      map[string]string
	}
	Networks, Volumes map[string]struct{}
}

// check runs groupgate check on a file.
func check(t *testing.T, file string, env ...string) {
	t.Helper()
	cmd := exec.Command(program, "check", "--config", file)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
}

// The compose file's parts speak of the same client, addresses and headers, and
// nothing in it is a secret that everybody knows.
func TestComposeExample(t *testing.T) {
	t.Parallel()
	var c compose
	strictly(t, "compose/compose.yaml", &c)
	var realm struct {
		Realm   string
		Groups  []struct{ Name string }
		Clients []struct {
			ClientID, Secret string
			RedirectURIs     []string `json:"redirectUris"`
			Attributes       map[string]string
			ProtocolMappers  []struct{ Config map[string]string }
		}
		Users []struct {
			Username    string
			Groups      []string
			Credentials []struct{ Value string }
		}
	}
	if err := json.Unmarshal([]byte(example(t, "compose/realm.json")), &realm); err != nil {
		t.Fatal(err)
	}
	var g struct {
		Listen, Upstream string
		PublicURL        string `yaml:"public_url"`
		Store            struct{ SQLite string }
		Sources          []struct {
			Name, Label string
			OIDC        struct {
				Issuer, Preset string
				ClientID       string `yaml:"client_id"`
				ClientSecret   string `yaml:"client_secret"`
			}
			Groups struct{ Claims []string }
		}
		Rules   []map[string]any
		Headers struct {
			Preset string
			Claims map[string]string
		}
		Admin struct{ Listen string }
	}
	strictly(t, "compose/groupgate.yaml", &g)
	file := filepath.Join(t.TempDir(), "groupgate.yaml")
	must(t, os.WriteFile(file, []byte(example(t, "compose/groupgate.yaml")), 0o600))
	check(t, file, "GROUPGATE_CLIENT_SECRET=0123456789abcdef0123456789abcdef")

	src, client := g.Sources[0], realm.Clients[0]
	secret := "${GROUPGATE_CLIENT_SECRET}"
	if client.ClientID != src.OIDC.ClientID || client.Secret != secret || src.OIDC.ClientSecret != "${env:GROUPGATE_CLIENT_SECRET}" {
		t.Errorf("client %q with %q here, %q with %q in the realm", src.OIDC.ClientID, src.OIDC.ClientSecret, client.ClientID, client.Secret)
	}
	if !slices.Equal(client.RedirectURIs, []string{g.PublicURL + "/_auth/callback/" + src.Name}) ||
		client.Attributes["post.logout.redirect.uris"] != g.PublicURL+"/_auth/sign_out" ||
		client.Attributes["backchannel.logout.url"] != g.PublicURL+"/_auth/backchannel/"+src.Name {
		t.Errorf("the realm knows %q and %v", client.RedirectURIs, client.Attributes)
	}
	keycloak, gate, grafana := c.Services["keycloak"], c.Services["groupgate"], c.Services["grafana"]
	if src.OIDC.Issuer != "http://localhost:8080/realms/"+realm.Realm || gate.NetworkMode != "service:keycloak" ||
		!slices.Contains(keycloak.Ports, "127.0.0.1:8080:8080") || !slices.Contains(keycloak.Ports, "127.0.0.1:4180:4180") {
		t.Errorf("issuer %s, ports %q", src.OIDC.Issuer, keycloak.Ports)
	}
	var claims []string
	for _, m := range client.ProtocolMappers {
		claims = append(claims, m.Config["claim.name"])
	}
	if !slices.Equal(claims, []string{src.Groups.Claims[0], g.Headers.Claims["X-WEBAUTH-ROLE"]}) {
		t.Errorf("the realm states %q", claims)
	}
	for _, u := range realm.Users {
		if len(u.Groups) == 0 || u.Credentials[0].Value != "${PEOPLE_PASSWORD}" {
			t.Errorf("%s: groups %q", u.Username, u.Groups)
		}
	}
	if g.Upstream != "http://grafana:3000" || len(grafana.Ports) != 0 || !slices.Contains(grafana.Networks, "application") || !slices.Contains(keycloak.Networks, "application") {
		t.Errorf("Grafana at %s, with the ports %q", g.Upstream, grafana.Ports)
	}
	if g.Headers.Preset != "grafana" || grafana.Environment["GF_AUTH_PROXY_HEADER_NAME"] != "X-WEBAUTH-USER" ||
		grafana.Environment["GF_AUTH_PROXY_HEADERS"] != "Name:X-WEBAUTH-NAME Email:X-WEBAUTH-EMAIL Groups:X-WEBAUTH-GROUPS Role:X-WEBAUTH-ROLE" {
		t.Errorf("Grafana reads %v", grafana.Environment)
	}
	for name, s := range c.Services {
		for key, value := range s.Environment {
			if regexp.MustCompile(`PASSWORD|SECRET`).MatchString(key) && !regexp.MustCompile(`^\$\{\w+(:\?.+|:-)\}$`).MatchString(value) {
				t.Errorf("%s: %s has a value that everybody knows", name, key)
			}
		}
	}
}

// What the file said reaches Grafana: the very headers it reads.
func TestComposeExampleTellsGrafana(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	alice := person("alice", "administrators", "engineering")
	alice.Claims["grafana_role"] = "Admin"
	op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret, People: []claimstest.Person{alice}})
	p := newPlace(t)
	p.env = []string{"GROUPGATE_CLIENT_SECRET=" + opSecret}
	must(t, os.WriteFile(p.config(), []byte(settle(t, example(t, "compose/groupgate.yaml"), "http://grafana:3000", app.URL,
		`":4180"`, p.public, "http://localhost:4180", p.url(), "127.0.0.1:4181", p.admin, "http://localhost:8080/realms/example", op.URL)), 0o600))
	g := p.start(t)
	h := signIn(t, g, newBrowser(t), "alice")
	for name, want := range map[string]string{"X-Webauth-User": "alice", "X-Webauth-Email": "alice@example.com", "X-Webauth-Name": "alice Example",
		"X-Webauth-Groups": "administrators,engineering", "X-Webauth-Role": "Admin"} {
		if got := h[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// forwardAuth is Traefik's middleware.
type forwardAuth struct {
	Address                  string
	AuthResponseHeadersRegex string   `yaml:"authResponseHeadersRegex"`
	AddAuthCookies           []string `yaml:"addAuthCookiesToResponse"`
}

// traefikDynamic is as much of Traefik's dynamic configuration as is used.
type traefikDynamic struct {
	HTTP struct {
		Routers map[string]struct {
			Rule, Service string
			Priority      int
			EntryPoints   []string `yaml:"entryPoints"`
			Middlewares   []string
			TLS           *struct{}
		}
		Middlewares map[string]struct {
			Headers *struct {
				CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
			}
			ForwardAuth *forwardAuth `yaml:"forwardAuth"`
		}
		Services map[string]struct {
			LoadBalancer struct {
				Servers []struct{ URL string }
			} `yaml:"loadBalancer"`
		}
	}
	TLS struct {
		Certificates []struct {
			CertFile string `yaml:"certFile"`
			KeyFile  string `yaml:"keyFile"`
		}
	}
}

func TestTraefikExample(t *testing.T) {
	t.Parallel()
	var static struct {
		EntryPoints map[string]struct {
			Address   string
			HTTP      struct{ TLS *struct{} }
			Transport struct {
				RespondingTimeouts struct {
					ReadTimeout string `yaml:"readTimeout"`
				} `yaml:"respondingTimeouts"`
			}
		} `yaml:"entryPoints"`
		Providers struct{ File struct{ Filename string } }
	}
	strictly(t, "traefik/traefik.yaml", &static)
	var d traefikDynamic
	strictly(t, "traefik/dynamic.yaml", &d)
	for name, r := range d.HTTP.Routers {
		asks := len(r.Middlewares) == 2 && strings.HasPrefix(r.Middlewares[1], "groupgate")
		if r.TLS == nil || r.Middlewares[0] != "clean" || asks != (r.Service == "application") || d.HTTP.Services[r.Service].LoadBalancer.Servers == nil {
			t.Errorf("router %s: %+v", name, r)
		}
		for _, e := range r.EntryPoints {
			if _, ok := static.EntryPoints[e]; !ok {
				t.Errorf("router %s: no entry point %s", name, e)
			}
		}
		for _, m := range r.Middlewares {
			if _, ok := d.HTTP.Middlewares[m]; !ok {
				t.Errorf("router %s: no middleware %s", name, m)
			}
		}
	}
	if r := d.HTTP.Routers; r["groupgate"].Priority <= r["reports"].Priority || r["reports"].Priority <= r["application"].Priority {
		t.Error("the narrower router does not come first")
	}
	ask := d.HTTP.Middlewares["groupgate"].ForwardAuth
	narrow := d.HTTP.Middlewares["groupgate-reports"].ForwardAuth
	if narrow.AuthResponseHeadersRegex != ask.AuthResponseHeadersRegex || !slices.Equal(ask.AddAuthCookies, []string{"__Host-groupgate"}) {
		t.Errorf("%+v, %+v", ask, narrow)
	}
	// Traefik removes what the expression fits, then copies what it fits.
	owned := regexp.MustCompile(ask.AuthResponseHeadersRegex)
	for _, s := range claimstest.Spoofs(identity...) {
		for _, l := range s.Lines {
			name, _, _ := strings.Cut(l, ":")
			ours := slices.ContainsFunc(identity, func(own string) bool {
				return strings.EqualFold(own, strings.NewReplacer("_", "-", ".", "-", "~", "-", "!", "-").Replace(name))
			})
			if owned.MatchString(name) != ours {
				t.Errorf("%s: %s is ours: %v", s.Name, name, ours)
			}
		}
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Xforwardeduser", "X-Forwarded-Users", "Set-Cookie", "Cache-Control"} {
		if owned.MatchString(name) {
			t.Errorf("%s is taken for ours", name)
		}
	}

	traefikLabels(t, d)
	b := newBeside(t, "traefik")
	asks := func(f *forwardAuth) string { return strings.TrimPrefix(f.Address, "http://127.0.0.1:4180") }
	b.replays(t, 202, func(method, path string, client []string) (string, string, []string) {
		address := asks(ask)
		if strings.HasPrefix(path, "/reports/") {
			address = asks(narrow)
		}
		// The question goes to the address in the file, whose host is Host.
		return "GET", address, append([]string{"Host: " + b.public, "X-Forwarded-Method: " + method, "X-Forwarded-Proto: https",
			"X-Forwarded-Host: " + portal, "X-Forwarded-Uri: " + path, "X-Forwarded-For: 192.0.2.7"}, client...)
	})
}

// traefikLabels compares the compose file with the same in a file.
func traefikLabels(t *testing.T, d traefikDynamic) {
	t.Helper()
	ask := d.HTTP.Middlewares["groupgate"].ForwardAuth
	var c compose
	strictly(t, "traefik/compose.yaml", &c)
	labels := c.Services["groupgate"].Labels
	prefix := "traefik.http.middlewares."
	for name, value := range d.HTTP.Middlewares["clean"].Headers.CustomRequestHeaders {
		if got, ok := labels[prefix+"clean.headers.customrequestheaders."+name]; !ok || got != value {
			t.Errorf("the labels do not remove %s", name)
		}
	}
	for label, want := range map[string]string{
		prefix + "groupgate.forwardauth.address":                  strings.Replace(ask.Address, "127.0.0.1", "groupgate", 1),
		prefix + "groupgate.forwardauth.authresponseheadersregex": strings.ReplaceAll(ask.AuthResponseHeadersRegex, "$", "$$"),
		prefix + "groupgate.forwardauth.addauthcookiestoresponse": ask.AddAuthCookies[0],
		"traefik.http.routers.groupgate.rule":                     d.HTTP.Routers["groupgate"].Rule,
	} {
		if labels[label] != want {
			t.Errorf("%s is %q, want %q", label, labels[label], want)
		}
	}
	if app := c.Services["application"].Labels; app["traefik.http.routers.application.middlewares"] != "clean,groupgate" || app["traefik.http.routers.application.rule"] != d.HTTP.Routers["application"].Rule {
		t.Errorf("the application's labels: %v", app)
	}
}

// replays has groupgate asked as another proxy asks it, header by header. question
// makes method, address and header lines of what a client sent.
func (b *beside) replays(t *testing.T, yes int, question func(method, path string, client []string) (string, string, []string)) {
	t.Helper()
	b.putPlain(t)
	cookies := map[string]string{}
	for _, name := range []string{"alice", "bob"} {
		cookies[name] = b.signIn(t, b.browser(t), name)
	}
	before := b.app.count()
	narrows := yes == 202
	for _, c := range []struct {
		who, method, path string
		client            []string
		want              int
	}{
		{"", "GET", "/x", nil, 401},
		{"", "GET", "/x?y=1&z=2", navigation, 302},
		{"", "POST", "/x", navigation, 401},
		{"", "GET", "/x", []string{"Accept: text/html", "Sec-Fetch-Mode: cors"}, 401},
		{"", "GET", "/x", []string{"Accept: text/html", "X-Requested-With: XMLHttpRequest"}, 401},
		{"", "GET", "/public/x", nil, yes},
		{"alice", "GET", "/x", nil, yes},
		{"alice", "POST", "/x?groups=board", nil, yes},
		{"alice", "GET", "/admin/x", nil, yes},
		{"bob", "GET", "/admin/x", nil, 403},
		{"bob", "GET", "/%61dmin/x", nil, 403},
		{"bob", "GET", "/admin/x", navigation, 403},
		{"alice", "GET", "/reports/x", nil, yes},
		{"bob", "GET", "/reports/x", nil, map[bool]int{true: 403, false: yes}[narrows]},
	} {
		client := slices.Clone(c.client)
		if c.who != "" {
			client = append(client, "Cookie: "+cookies[c.who])
		}
		method, address, lines := question(c.method, c.path, client)
		resp := b.plain(t, method, address, lines)
		what := fmt.Sprintf("%s %s as %q", c.method, c.path, c.who)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", what, resp.StatusCode, c.want)
		}
		if at := resp.Header.Get("Location"); c.want == 302 && at != origin+"/_auth/start?rd=%2Fx%3Fy%3D1%26z%3D2" {
			t.Errorf("%s: to %s", what, at)
		}
		for _, name := range identity {
			lines := resp.Header[name]
			if (len(lines) == 1) != (c.want == yes) || c.who == "" && strings.Join(lines, "") != "" {
				t.Errorf("%s: %s: %q with %d", what, name, lines, resp.StatusCode)
			}
		}
		if user := resp.Header.Get("X-Forwarded-User"); c.want == yes && user != c.who {
			t.Errorf("%s: it is %q", what, user)
		}
	}
	if n := b.app.count() - before; n != 0 {
		t.Errorf("%d questions reached the application", n)
	}
}
