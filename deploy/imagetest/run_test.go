package imagetest

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/deploy/testenv"
)

// place is a configuration and a store for a run of the image.
type place struct {
	dir, public, admin string
	op                 *claimstest.OP
	upstream           *httptest.Server
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: t.TempDir(), public: freeAddress(t), admin: freeAddress(t)}
	p.op = claimstest.Start(t, claimstest.Options{
		Alg: "ES256", ClientSecret: secret, TLS: true,
		People: []claimstest.Person{{Subject: "alice", Claims: map[string]any{
			"preferred_username": "alice", "email": "alice@example.com", "groups": []string{"engineering"},
		}}},
	})
	p.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header) // a test whose client is gone fails there
	}))
	t.Cleanup(p.upstream.Close)
	for _, folder := range []string{"etc", "data", "secrets"} {
		if err := os.Mkdir(p.file(folder), 0o755); err != nil { // another user reads it
			t.Fatal(err)
		}
	}
	if err := os.Chown(p.file("data"), 65532, 65532); err != nil {
		t.Fatal(err)
	}
	for dir := p.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // another user reads it
			t.Fatal(err)
		}
	}
	p.write(t, "secrets/entra", secret)
	p.write(t, "etc/groupgate.yaml", fmt.Sprintf(`
listen: %q
public_url: http://%s
upstream: %s
store: {sqlite: groupgate.db}
admin: {listen: %q, token: %s}
sources:
  - name: op
    oidc: {issuer: %q, client_id: groupgate, client_secret: "${file:/run/secrets/entra}", scopes: [openid, profile, email, groups]}
    groups: {claims: [groups]}
rules:
  - {source: op, claim: groups, value: engineering, group: engineering}
  - {source: op, claim: groups, value: engineering, group: summer, when: 'timestamp("2026-07-01T22:30:00Z").getHours("Europe/Prague") == 0'}
`, p.public, p.public, p.upstream.URL, p.admin, adminToken, p.op.URL))
	return p
}

func (p *place) file(name string) string { return filepath.Join(p.dir, name) }

func (p *place) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(p.file(name), []byte(content), 0o644); err != nil { // another user reads it
		t.Fatal(err)
	}
}

// volumes are those of a pod: configuration and secrets, which nobody writes
// to, and the store's.
func (p *place) volumes() testenv.Volumes {
	return testenv.Volumes{"/etc/groupgate": p.file("etc"), "/run/secrets": p.file("secrets"), "/data": "rw:" + p.file("data")}
}

// trust adds the provider's authority to the image's own, as a company does.
func (p *place) trust(t *testing.T, image *testenv.Image, volumes testenv.Volumes) {
	t.Helper()
	host := must(url.Parse(p.op.URL))(t).Host
	conn := must(tls.Dial("tcp", host, &tls.Config{RootCAs: p.op.Roots(), MinVersion: tls.VersionTLS12}))(t)
	defer conn.Close()
	shipped := must(os.ReadFile(filepath.Join(image.Root, roots)))(t)
	if n := strings.Count(string(shipped), "BEGIN CERTIFICATE"); n < 100 {
		t.Errorf("the image has %d authorities", n)
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
	p.write(t, "roots.pem", string(shipped)+string(own))
	volumes[roots] = p.file("roots.pem")
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// start runs the image by what its own configuration says, with a command in
// place of "serve" when there is one.
func start(t *testing.T, image *testenv.Image, volumes testenv.Volumes, command ...string) *testenv.Container {
	t.Helper()
	c := settingsOf(t, image)
	if len(command) == 0 {
		command = c.Cmd
	}
	return image.Run(t, append(c.Env, "TZ=Asia/Kolkata"), volumes, c.WorkingDir, slices.Concat(c.Entrypoint, command)...)
}

// A person signs in through the image, at a provider with TLS.
func checkLogin(t *testing.T, image *testenv.Image) {
	t.Parallel()
	p := newPlace(t)
	volumes := p.volumes()
	p.trust(t, image, volumes)
	c := start(t, image, volumes)
	p.eventually(t, c, "ready", func() bool { return p.ready() == http.StatusOK })
	b := claimstest.NewBrowser(p.op.Roots())
	t.Cleanup(b.Close)
	page, err := b.Login("http://"+p.public+"/", "alice")
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Log())
	}
	var got http.Header
	if err := json.Unmarshal([]byte(page.Body), &got); err != nil || page.Status != http.StatusOK {
		t.Fatalf("%d %s", page.Status, page.Body)
	}
	if got.Get("X-Forwarded-User") != "alice" || got.Get("X-Forwarded-Groups") != "engineering,summer" {
		t.Errorf("the upstream got %v", got)
	}
	if info, err := os.Stat(p.file("data/groupgate.db")); err != nil || owner(info) != 65532 {
		t.Errorf("the store: %v", err)
	}
	if !strings.Contains(c.Log(), "+05:30") {
		t.Errorf("TZ is not heard\n%s", c.Log())
	}
	if err := c.Stop(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, c.Log())
	}
}

// What the login above shows is worth something only if the same run is
// refused without the authority, and stops without a folder to write to.
func checkRestricted(t *testing.T, image *testenv.Image) {
	t.Parallel()
	t.Run("authority", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		c := start(t, image, p.volumes())
		p.eventually(t, c, "told", func() bool { return strings.Contains(c.Log(), "certificate signed by unknown authority") })
		if status := p.ready(); status == http.StatusOK {
			t.Error("ready with a provider nobody vouches for")
		}
		who := status(t, image)
		for _, line := range []string{"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
			if !strings.Contains(who, line) {
				t.Errorf("not %q:\n%s", line, who)
			}
		}
	})
	t.Run("root", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		volumes := p.volumes()
		delete(volumes, "/data")
		c := start(t, image, volumes)
		if err := c.Wait(); err == nil || !strings.Contains(c.Log(), "groupgate.db") {
			t.Errorf("%v\n%s", err, c.Log())
		}
	})
}

// status is what the kernel says of the image's program that runs.
func status(t *testing.T, image *testenv.Image) string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range all {
		if at, err := os.Readlink(root); err != nil || at != image.Root {
			continue // it ended, or is somebody else's
		}
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(root), "status"))
		if err == nil && strings.HasPrefix(string(raw), "Name:\tgroupgate\n") {
			return string(raw)
		}
	}
	t.Fatal("no process has the image for a root")
	return ""
}

// A rule's condition names a zone that no file of the image knows.
func checkTimeZones(t *testing.T, image *testenv.Image) {
	t.Parallel()
	for zone, hit := range map[string]bool{"Europe/Prague": true, "Europe/Lisbon": false} {
		p := newPlace(t)
		raw := string(must(os.ReadFile(p.file("etc/groupgate.yaml")))(t))
		p.write(t, "etc/groupgate.yaml", strings.Replace(raw, "Europe/Prague", zone, 1))
		p.write(t, "etc/claims.json", `{"groups":["engineering"]}`)
		c := start(t, image, p.volumes(), "explain", "--source", "op", "--json", "/etc/groupgate/claims.json")
		if err := c.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, c.Log())
		}
		var said struct{ Groups []string }
		if err := json.Unmarshal([]byte(c.Log()), &said); err != nil {
			t.Fatalf("%v\n%s", err, c.Log())
		}
		if slices.Contains(said.Groups, "summer") != hit || !slices.Contains(said.Groups, "engineering") {
			t.Errorf("%s: groups %q", zone, said.Groups)
		}
	}
}

func (p *place) ready() int {
	resp, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (p *place) eventually(t *testing.T, c *testenv.Container, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case <-c.Ended():
			t.Fatalf("not %s: it ended\n%s", what, c.Log())
		default:
		}
	}
	t.Fatalf("not %s\n%s", what, c.Log())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
