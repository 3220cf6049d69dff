package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
)

type options struct {
	binary                  string
	rounds, requests, conns int
	strict                  bool
}

// bench is one run: a folder, a provider, an upstream, and what was started.
type bench struct {
	testing.TB // what a server of the test environment asks for beside what is below
	options
	dir      string
	self     string
	op       *claimstest.OP
	upstream string
	started  []*exec.Cmd
	cleanup  []func()
	missed   []string
}

func (b *bench) Helper()                        {}
func (b *bench) Cleanup(f func())               { b.cleanup = append(b.cleanup, f) }
func (b *bench) Fatalf(format string, a ...any) { panic(fmt.Errorf(format, a...)) }
func (b *bench) Fatal(a ...any)                 { panic(fmt.Errorf("%s", fmt.Sprint(a...))) }

func run(o options) (err error) {
	b := &bench{options: o}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "groupgate-bench-"); err != nil {
		return err
	}
	defer b.end()
	b.op = claimstest.Start(b, claimstest.Options{ClientID: "bench", ClientSecret: "bench", NoRefresh: true, Alg: "ES256"})
	for _, n := range []int{1, 20, 200, 2000} {
		b.op.SetPerson(claimstest.Person{Subject: "person" + strconv.Itoa(n), Claims: map[string]any{
			"preferred_username": "person" + strconv.Itoa(n), "email": "person@example.com", "name": "A Person", "groups": groupNames(n),
		}})
	}
	up := freePort()
	if _, err := b.start(b.self, "upstream", "-listen", up); err != nil {
		return err
	}
	b.upstream = "http://" + up
	if err := waitFor(up); err != nil {
		return err
	}
	for _, step := range []func() error{b.startup, b.hotPath, b.logins, b.manyRules, b.stores} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(b.missed) > 0 {
		fmt.Printf("\ngoals missed: %s\n", strings.Join(b.missed, "; "))
		if b.strict {
			return errors.New("a goal was missed")
		}
	}
	return nil
}

func groupNames(n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = fmt.Sprintf("team-%04d-engineering", i)
	}
	return out
}

func (b *bench) end() {
	for _, cmd := range b.started {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for _, f := range slices.Backward(b.cleanup) {
		f()
	}
	os.RemoveAll(b.dir)
}

func (b *bench) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	logs, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("log-%d", len(b.started))))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = logs, logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // however we end
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.started = append(b.started, cmd)
	return cmd, nil
}

func (b *bench) stop(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.started = slices.DeleteFunc(b.started, func(c *exec.Cmd) bool { return c == cmd })
}

// gate is one groupgate process.
type gate struct {
	cmd           *exec.Cmd
	public, admin string
	listening     time.Duration
}

func (b *bench) gate(name, issuer, rules, extra string) (*gate, error) {
	return b.gateOn("sqlite: "+filepath.Join(b.dir, name+".db"), name, issuer, rules, extra)
}

// gateOn is gate with another store.
func (b *bench) gateOn(store, name, issuer, rules, extra string) (*gate, error) {
	g := &gate{public: freePort(), admin: freePort()}
	file := filepath.Join(b.dir, name+".yaml")
	text := fmt.Sprintf(`listen: %s
public_url: http://%s
upstream: %s
store: {%s}
sources:
  - name: bench
    oidc: {issuer: %q, client_id: bench, client_secret: bench}
    groups: {claims: [groups]}
rules:
%s
headers: {max_bytes: 100000}
admin: {listen: %q, token: a-token-for-the-benchmark-0123456789}
%s`, strconv.Quote(g.public), g.public, b.upstream, store, issuer, rules, g.admin, extra)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	begin := time.Now()
	cmd, err := b.start(b.binary, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	g.cmd = cmd
	if err := waitFor(g.public); err != nil {
		return nil, fmt.Errorf("%w: %s", err, b.log(cmd))
	}
	g.listening = time.Since(begin)
	return g, nil
}

// ready waits until the provider was found.
func (g *gate) ready() error {
	for range 1000 {
		if res, err := http.Get("http://" + g.admin + "/readyz"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("groupgate is not ready after 10 s")
}

func (b *bench) log(cmd *exec.Cmd) string {
	f, ok := cmd.Stderr.(*os.File)
	if !ok {
		return ""
	}
	raw, _ := os.ReadFile(f.Name())
	if len(raw) > 2000 {
		raw = raw[len(raw)-2000:]
	}
	return string(raw)
}

const anyRule = "  - {source: bench, claim: groups, any: true}\n"

// login signs a person in through the whole flow and answers the cookie.
func (b *bench) login(g *gate, person string) (cookie string, err error) {
	b.op.SetAutoLogin(person)
	browser := claimstest.NewBrowser(nil)
	defer browser.Close()
	page, err := browser.Get("http://" + g.public + "/")
	if err != nil {
		return "", err
	}
	if page.Status != http.StatusOK {
		return "", fmt.Errorf("login of %s ended with %d at %s: %s", person, page.Status, page.URL.Path, b.log(g.cmd))
	}
	for _, c := range browser.Cookies("http://" + g.public + "/") {
		if c.Name == "groupgate" {
			return c.Name + "=" + c.Value, nil
		}
	}
	return "", errors.New("no session cookie")
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var d net.Dialer
	for ctx.Err() == nil {
		if c, err := d.DialContext(ctx, "tcp", address); err == nil {
			return c.Close()
		}
		time.Sleep(200 * time.Microsecond)
	}
	return fmt.Errorf("nobody listens at %s", address)
}

func scrape(address, name string) float64 {
	res, err := http.Get(address)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := strings.CutPrefix(string(line), name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v
		}
	}
	return 0
}
