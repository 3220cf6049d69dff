package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// bookBlock is a block of code of the runbook.
type bookBlock struct{ heading, language, text string }

// bookBlocks are all blocks of the runbook, in order.
func bookBlocks(t *testing.T) (all []bookBlock) {
	t.Helper()
	raw, err := os.ReadFile(runbook)
	must(t, err)
	heading, code := "", ""
	inside := false
	for line := range strings.Lines(string(raw)) {
		language, fence := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "```")
		switch {
		case fence && !inside:
			inside, code = true, ""
			all = append(all, bookBlock{heading: heading, language: language})
		case fence:
			inside = false
			all[len(all)-1].text = code
		case inside:
			code += line
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return all
}

// tried notes which blocks were run, by any of the subtests.
type tried struct {
	mu  sync.Mutex
	ran map[bookBlock]bool
}

// operator is who runs groupgate by the book: with its commands, in a folder
// that stands for the machine's.
type operator struct {
	place
	t     *testing.T
	gate  *gate
	op    *claimstest.OP
	idp   *claimstest.SAMLIdP
	up    *upstream
	book  []bookBlock
	tried *tried
	vars  map[string]string
	work  chan func() // what "systemctl" wants done, by the test's own goroutine
}

// newOperator starts a groupgate with a source of each kind. more is the end of
// its configuration.
func newOperator(t *testing.T, book []bookBlock, done *tried, more string) *operator {
	t.Helper()
	o := &operator{place: newPlace(t), t: t, up: newUpstream(t), book: book, tried: done, work: make(chan func())}
	people := []claimstest.Person{person("alice", "eng"), person("bob", "ops"), person("carol", "eng")}
	o.op = claimstest.Start(t, claimstest.Options{Alg: "ES256", ClientID: "groupgate", ClientSecret: opSecret, People: people})
	o.idp = claimstest.StartSAML(t, samlPeople())
	for _, dir := range []string{"secrets", "backups", "bin"} {
		must(t, os.Mkdir(o.file(dir), 0o700))
	}
	secret := func(name, text string) { must(t, os.WriteFile(o.secret(name), []byte(text), 0o600)) }
	secret("session-key", strings.Repeat("an old session key ", 3))
	secret("admin-token", adminToken)
	secret("client-secret", opSecret)
	o.vars = map[string]string{
		"GROUPGATE_CONFIG": o.config(), "SECRETS": o.file("secrets"), "STORE": o.store(), "BACKUPS": o.file("backups"),
		"PORTAL": o.url(), "ADMIN": "http://" + o.admin, "TOKEN": adminToken, "DATABASE_URL": "", "NEW_SECRET": opSecret,
	}
	o.systemctl()
	o.shell(`openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=old.example.com -keyout "$SECRETS/saml.key" -out "$SECRETS/saml.pem" 2>/dev/null`)
	file := func(name string) string { return "${file:" + o.secret(name) + "}" }
	putFile(t, o.config(), fmt.Appendf(nil, `listen: %q
public_url: %s
upstream: %s
store: {sqlite: %q}
admin: {listen: %q, token: %q}
session: {keys: [%q], refresh: 1s}
headers: {assertion: X-Groupgate-Assertion}
groups: [{name: operators, control: manual}]
rules: [{claim: groups, any: true}]
sources:%s%s%s%s
%s`, o.public, o.url(), o.up.URL, o.store(), o.admin, file("admin-token"), file("session-key"),
		oidc("op", o.op.URL, file("client-secret")),
		samlSource("staff", o.idp.URL+"/metadata", fmt.Sprintf(", key_file: %q, cert_file: %q", o.secret("saml.key"), o.secret("saml.pem"))),
		samlSource("kept", o.idp.URL+"/metadata", ""), localSource, more))
	o.gate = o.start(t)
	return o
}

func (o *operator) secret(name string) string { return filepath.Join(o.file("secrets"), name) }

// systemctl puts a command of that name in the way, which does to the test's
// process what systemd does to the service of deploy/systemd.
func (o *operator) systemctl() {
	manager := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		o.work <- func() {
			defer close(done)
			o.manage(strings.TrimPrefix(r.URL.Path, "/"))
		}
		<-done
	}))
	o.t.Cleanup(manager.Close)
	script := fmt.Sprintf("#!/bin/sh\n[ \"$2\" = groupgate ] && exec curl -sS -X POST %s/\"$1\"\n", manager.URL)
	must(o.t, os.WriteFile(filepath.Join(o.file("bin"), "systemctl"), []byte(script), 0o700)) //nolint:gosec // it is to be run
}

func (o *operator) manage(verb string) {
	switch verb {
	case "reload":
		told := func() int { return strings.Count(o.gate.log.all(), `"why":"SIGHUP"`) }
		before := told()
		o.gate.signal(syscall.SIGHUP)
		o.gate.eventually("reloaded", func() bool { return told() > before })
	case "stop":
		o.gate.signal(syscall.SIGTERM)
		<-o.gate.exited
	case "start":
		o.gate = o.start(o.t)
	case "restart":
		o.manage("stop")
		o.manage("start")
	default:
		o.t.Errorf("systemctl %s", verb)
	}
}

// shell runs a script as the runbook's reader does, and answers what it printed.
func (o *operator) shell(script string) string {
	o.t.Helper()
	cmd := exec.Command("sh", "-c", "set -eu; umask 077\n"+script)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "PATH="+o.file("bin")+":"+filepath.Dir(program)+":"+os.Getenv("PATH"))
	for name, value := range o.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	must(o.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case job := <-o.work:
			job()
		case err := <-ended:
			if err != nil {
				o.t.Fatalf("%v\n%s\n%s%s\n%s", err, script, out.String(), errOut.String(), end(o.gate.all()))
			}
			return out.String()
		}
	}
}

// all is the log of a groupgate, which may not have been started.
func (g *gate) all() string {
	if g == nil {
		return ""
	}
	return g.log.all()
}

// do runs the next n blocks below a heading that nobody has run here, and
// answers what they printed.
func (o *operator) do(heading string, n int) (printed string) {
	o.t.Helper()
	for at, s := range o.book {
		if s.heading != heading || s.text == "" || n == 0 {
			continue
		}
		o.tried.mu.Lock()
		o.tried.ran[s] = true
		o.tried.mu.Unlock()
		o.book[at].text = "" // once
		n--
		if s.language == "yaml" {
			o.configure(s.text)
		} else {
			printed += o.shell(s.text)
		}
	}
	if n > 0 {
		o.t.Fatalf("%q has %d blocks fewer than the test runs", heading, n)
	}
	return printed
}

// configure puts keys into the configuration, as the runbook writes them.
func (o *operator) configure(text string) {
	o.t.Helper()
	raw, err := os.ReadFile(o.config())
	must(o.t, err)
	var now, wanted map[string]any
	must(o.t, yaml.Unmarshal(raw, &now))
	must(o.t, yaml.Unmarshal([]byte(strings.ReplaceAll(text, "/etc/groupgate/secrets", o.file("secrets"))), &wanted))
	for key, value := range wanted {
		if have, ok := now[key].(map[string]any); ok && key != "store" {
			for k, v := range value.(map[string]any) {
				have[k] = v
			}
			continue
		}
		now[key] = value // one store takes the place of another
	}
	out, err := yaml.Marshal(now)
	must(o.t, err)
	putFile(o.t, o.config(), out)
}

// signsIn signs somebody in at the OpenID provider and answers the browser.
func (o *operator) signsIn(person string) *claimstest.Browser {
	o.t.Helper()
	b := newBrowser(o.t)
	page, err := b.Login(o.url()+"/_auth/start?source=op&rd=/", person)
	must(o.t, err)
	received(o.t, page)
	return b
}

// renewed has the provider state another group, and waits until the session
// has it, without a login: the refresh token can still be read.
func (o *operator) renewed(b *claimstest.Browser, person, group string) {
	o.t.Helper()
	o.op.SetClaims(person, claimsOf(person, group))
	follows(o.t, o.gate, b, group)
}

// over reports whether a session has ended.
func (o *operator) over(b *claimstest.Browser) bool {
	return ask(o.t, o.gate, cookie(b, o.gate)).status == http.StatusFound
}

// The variables of the runbook's beginning are those that the test sets.
func (o *operator) begin() {
	o.t.Helper()
	first := o.book[0]
	for _, m := range regexp.MustCompile(`(?m)^(?:export )?([A-Z_]+)=`).FindAllStringSubmatch(first.text, -1) {
		if _, set := o.vars[m[1]]; !set {
			o.t.Errorf("the runbook begins with %s, which the test does not know", m[1])
		}
	}
	o.tried.mu.Lock()
	o.tried.ran[first] = true
	o.tried.mu.Unlock()
}

// forgotten are the blocks that no subtest ran.
func (d *tried) forgotten(book []bookBlock) (out []bookBlock) {
	for _, s := range book {
		if !d.ran[s] && slices.Contains([]string{"sh", "yaml"}, s.language) {
			out = append(out, s)
		}
	}
	return out
}
