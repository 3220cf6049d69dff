package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// manager is a service manager that is told (sd_notify(3)).
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn}
}

func (m *manager) told(want string) {
	m.t.Helper()
	must(m.t, m.conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1024)
	n, err := m.conn.Read(buf)
	if err != nil || string(buf[:n]) != want {
		m.t.Fatalf("told %q, want %q: %v", buf[:n], want, err)
	}
}

// stopped is told of the end. A file that changed may have been read twice
// before, each time in order.
func (m *manager) stopped() {
	m.t.Helper()
	buf := make([]byte, 1024)
	for reloading := false; ; reloading = !reloading {
		must(m.t, m.conn.SetReadDeadline(time.Now().Add(patience)))
		n, err := m.conn.Read(buf)
		must(m.t, err)
		if !reloading && string(buf[:n]) == "STOPPING=1" {
			return
		}
		if string(buf[:n]) != map[bool]string{false: "RELOADING=1", true: "READY=1"}[reloading] {
			m.t.Fatalf("told %q, reloading: %v", buf[:n], reloading)
		}
	}
}

// quiet is that nothing was told: what comes first is what is sent here.
func (m *manager) quiet() {
	m.t.Helper()
	conn, err := net.DialUnix("unixgram", nil, m.conn.LocalAddr().(*net.UnixAddr))
	must(m.t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("the test"))
	must(m.t, err)
	m.told("the test")
}

// A service manager is told when the configuration is in force, when it
// reloads, with a faulty file too, and when it stops.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	for what, name := range map[string]string{
		"a path":           filepath.Join(t.TempDir(), "notify"),
		"an abstract name": fmt.Sprintf("@groupgate-test-%d", os.Getpid()),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, name)
			up := newUpstream(t)
			op := claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientSecret: opSecret})
			p := newPlace(t)
			p.env = []string{"NOTIFY_SOCKET=" + name}
			p.write(t, up.URL, "\n  - {name: gone, oidc: {issuer: \"http://127.0.0.1:1\", client_id: groupgate}}", everyValue)
			g := p.launch(t)
			m.told("READY=1") // the provider is down: that is no reason to fail
			m.quiet()
			g.signal(syscall.SIGHUP) // at once: READY says that it may be sent
			m.told("RELOADING=1")
			m.told("READY=1")
			m.quiet()
			p.write(t, up.URL, oidc("op", op.URL, opSecret), everyValue+"colour: green\n")
			g.signal(syscall.SIGHUP)
			m.told("RELOADING=1")
			m.told("READY=1")
			g.eventually("told of the fault", func() bool { return g.logged("not reloaded", "colour") })
			g.signal(syscall.SIGTERM)
			m.stopped()
			<-g.exited
			if g.err != nil {
				t.Errorf("exit: %v", g.err)
			}
		})
	}
}

// Nobody who listens is a line in the log.
func TestServiceManagerThatIsGone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"/nonexistent/notify", "vsock:2:1234"} {
		p := newPlace(t)
		p.env = []string{"NOTIFY_SOCKET=" + name}
		p.write(t, "http://127.0.0.1:9", "\n  - {name: gone, oidc: {issuer: \"http://127.0.0.1:1\", client_id: groupgate}}", everyValue)
		g := p.launch(t)
		g.eventually("in force", func() bool { return g.logged("the service manager was not told", "READY=1") })
		if resp, err := newBrowser(t).Get(g.url() + "/_auth/jwks.json"); err != nil || resp.Status != 200 {
			t.Errorf("%s: %v %v", name, resp, err)
		}
	}
}

// The unit is one that systemd takes, with the hardening that it counts, and
// the configuration beside it finds its secrets where the unit puts them.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		testenv(t) // says what to install, or skips
		t.Fatal("systemd-analyze is missing: run deploy/testenv/install.sh")
	}
	unit := example(t, "systemd/groupgate.service")
	dir := t.TempDir()
	analyze := func(text string, args ...string) (string, error) {
		file := filepath.Join(dir, "groupgate.service")
		must(t, os.WriteFile(file, []byte(settle(t, text, "/usr/local/bin/groupgate serve", program+" serve")), 0o600))
		out, err := exec.Command("systemd-analyze", append(args, file)...).CombinedOutput()
		return string(out), err
	}
	if out, err := analyze(unit, "verify", "--man=no"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("verify: %v %s", err, out)
	}
	if out, err := analyze(unit+"Wantedby=x\n", "verify", "--man=no"); err == nil && !strings.Contains(out, "Unknown key") {
		t.Errorf("verify takes anything: %s", out)
	}
	security := []string{"security", "--offline=true", "--no-pager", "--threshold=13"}
	if out, err := analyze(unit, security...); err != nil {
		t.Errorf("its exposure is more than 1.3: %v %s", err, out)
	}
	if out, err := analyze(strings.ReplaceAll(unit, "DynamicUser=yes\n", ""), security...); err == nil {
		t.Errorf("the exposure is never more than 1.3: %s", out)
	}

	loaded := regexp.MustCompile(`(?m)^LoadCredential=([\w-]+):`).FindAllStringSubmatch(unit, -1)
	text := example(t, "systemd/groupgate.yaml")
	if n := strings.Count(text, "${file:"); n != len(loaded) || n == 0 {
		t.Errorf("%d secrets, %d credentials", n, len(loaded))
	}
	for _, l := range loaded {
		must(t, os.WriteFile(filepath.Join(dir, l[1]), []byte("a-secret-of-more-than-32-bytes-for-tests-only\n"), 0o600))
	}
	file := filepath.Join(dir, "groupgate.yaml")
	must(t, os.WriteFile(file, []byte(settle(t, text, "/run/credentials/groupgate.service/", dir+"/")), 0o600))
	check(t, file)
}
