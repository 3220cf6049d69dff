package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// localPassword is alice's until somebody gives her another.
const localPassword = "canary correct horse"

const localSource = "\n  - {name: local, local: {}}"

// user runs a "user" command, with a password for its standard input.
func (p place) user(t *testing.T, password string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"user"}, args...)...)
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader(password + "\n")
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

func (p place) mustUser(t *testing.T, password string, args ...string) string {
	t.Helper()
	out, status := p.user(t, password, append(args, "--config", p.config())...)
	if status != 0 {
		t.Fatalf("user %q: exit %d: %s", args, status, out)
	}
	return out
}

// enter fills the form in that a page leads to.
func enter(t *testing.T, g *gate, b *claimstest.Browser, user, password string) *claimstest.Page {
	t.Helper()
	page, err := b.Submit(get(t, b, g.url()+"/"), map[string]string{"username": user, "password": password})
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// ends waits until the browser's session is over, and answers when. It reads
// no page that would begin another.
func ends(t *testing.T, g *gate, b *claimstest.Browser) time.Time {
	t.Helper()
	kept := cookie(b, g)
	g.eventually("over", func() bool {
		a := ask(t, g, kept)
		if a.status != http.StatusOK && a.status != http.StatusFound {
			t.Fatalf("%+v", a)
		}
		return a.status == http.StatusFound
	})
	return time.Now()
}

// The whole life of a local user, by the command beside the running program:
// LD-14 for a session that lives, and every change within 2 s.
func TestLocalUserByCommand(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	p.write(t, up.URL, localSource, "sync: {default_groups: [everyone]}\ngroups: [{name: board, control: manual}]\n")
	p.mustUser(t, localPassword, "add", "alice", "--email", "alice@example.com") // before the first start
	g, b := p.start(t), newBrowser(t)

	if page := enter(t, g, b, "alice", "canary wrong horse"); page.Status != http.StatusUnauthorized || cookie(b, g) != "" {
		t.Errorf("a wrong password: %d", page.Status)
	}
	h := received(t, enter(t, g, b, "Alice", localPassword))
	if h.Get("X-Forwarded-User") != "alice" || h.Get("X-Forwarded-Email") != "alice@example.com" || h.Get("X-Forwarded-Groups") != "everyone" {
		t.Fatalf("the upstream got %v", h)
	}
	// An administrator makes her a member; a login changes nothing about it.
	var found struct{ Items []struct{ ID string } }
	g.api("GET", "/users?query=alice", nil, &found)
	if status := g.api("PUT", "/groups/board/members/"+found.Items[0].ID, nil, nil); status != http.StatusNoContent {
		t.Fatalf("status %d", status)
	}
	phone := newBrowser(t)
	if h := received(t, enter(t, g, phone, "alice", localPassword)); h.Get("X-Forwarded-Groups") != "board,everyone" {
		t.Errorf("groups %q", h.Get("X-Forwarded-Groups"))
	}

	for _, act := range []struct {
		args     []string
		password string
	}{{[]string{"passwd", "alice"}, "canary another horse"}, {[]string{"disable", "alice"}, ""}} {
		p.mustUser(t, act.password, act.args...)
		done := time.Now()
		first, second := ends(t, g, b), ends(t, g, phone)
		took := max(first.Sub(done), second.Sub(done))
		t.Logf("%s: both sessions were over %s after the command ended", act.args[0], took.Round(time.Millisecond))
		if took > 2*time.Second {
			t.Errorf("%s took %s", act.args[0], took)
		}
		if act.args[0] == "passwd" {
			if page := enter(t, g, b, "alice", localPassword); page.Status != http.StatusUnauthorized {
				t.Errorf("the old password: %d", page.Status)
			}
			received(t, enter(t, g, b, "alice", act.password))
			received(t, enter(t, g, phone, "alice", act.password))
		}
	}
	before := up.requests.Load()
	if page := enter(t, g, b, "alice", "canary another horse"); page.Status != http.StatusForbidden || up.requests.Load() != before {
		t.Errorf("who is disabled: %d, and %d requests reached the upstream", page.Status, up.requests.Load()-before)
	}

	// The configuration is broken; the store's file alone is enough.
	must(t, os.WriteFile(p.config(), []byte("colour: green\n"), 0o600))
	if out, status := p.user(t, "", "enable", "alice", "--config", p.config()); status != 1 || !strings.Contains(out, "--store") {
		t.Errorf("with a broken file: %d %s", status, out)
	}
	if out, status := p.user(t, "", "enable", "alice", "--store", p.store()); status != 0 {
		t.Fatalf("with the store alone: %d %s", status, out)
	}
	h = received(t, enter(t, g, newBrowser(t), "alice", "canary another horse"))
	if h.Get("X-Forwarded-Groups") != "board,everyone" {
		t.Errorf("groups %q after all that", h.Get("X-Forwarded-Groups"))
	}

	// Neither log nor store holds a password, the log no hash either.
	raw, err := os.ReadFile(p.store())
	must(t, err)
	wal, _ := os.ReadFile(p.store() + "-wal")
	for name, text := range map[string][]byte{"log": []byte(g.log.all()), "store": append(raw, wal...)} {
		if bytes.Contains(text, []byte("canary")) {
			t.Errorf("the %s holds a password", name)
		}
	}
	if strings.Contains(g.log.all(), "argon2") || !bytes.Contains(append(raw, wal...), []byte("$argon2id$")) {
		t.Error("a hash is in the log, or none in the store")
	}
	var events struct {
		Items []struct{ Kind, Actor string }
	}
	g.api("GET", "/events?limit=100", nil, &events)
	kinds := map[string]string{}
	for _, e := range events.Items {
		kinds[e.Kind] = e.Actor
	}
	for _, kind := range []string{"user_created", "password_changed", "user_disabled", "user_enabled"} {
		if kinds[kind] != "command line" {
			t.Errorf("%s by %q", kind, kinds[kind])
		}
	}
}

// A local user made by the API gets in; SC-04: what the API says of one holds
// no hash.
func TestLocalUserByAPI(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	p.write(t, up.URL, localSource, "")
	g, b := p.start(t), newBrowser(t)
	var made struct{ ID string }
	if status := g.api("POST", "/users", map[string]string{"user": "bob", "password": localPassword}, &made); status != http.StatusCreated {
		t.Fatalf("status %d", status)
	}
	received(t, enter(t, g, b, "bob", localPassword))
	var shown json.RawMessage
	if status := g.api("PATCH", "/users/"+made.ID, map[string]bool{"disabled": true}, &shown); status != http.StatusOK ||
		bytes.Contains(shown, []byte("argon2")) || bytes.Contains(shown, []byte("canary")) {
		t.Errorf("%d %s", status, shown)
	}
	// Not eventually: the very next request.
	if a := ask(t, g, cookie(b, g)); a.status != http.StatusFound {
		t.Errorf("who is disabled: %d", a.status)
	}
}

// Whenever a command is killed, there is a whole local user or none.
func TestKilledCommandLeavesNoHalfAUser(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	p := newPlace(t)
	p.write(t, up.URL, localSource, "sync: {default_groups: [everyone]}\n")
	g := p.start(t)
	began := time.Now()
	p.mustUser(t, localPassword, "add", "control")
	whole := time.Since(began)
	const rounds = 20
	for i := range rounds {
		cmd := exec.Command(program, "user", "add", fmt.Sprint("user", i), "--config", p.config())
		cmd.Stdin = strings.NewReader(localPassword + "\n")
		must(t, cmd.Start())
		time.AfterFunc(whole*time.Duration(i+1)/rounds, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or through
	}
	var users struct {
		Items []struct{ ID, User string }
	}
	g.api("GET", "/users?limit=100", nil, &users)
	t.Logf("%d of %d commands came through", len(users.Items)-1, rounds)
	for _, u := range users.Items {
		var one struct {
			Local       *struct{ Source string }
			Identities  []struct{ Source string }
			Memberships []struct{ Group string }
		}
		g.api("GET", "/users/"+u.ID, nil, &one)
		var events struct{ Items []struct{ Kind string } }
		g.api("GET", "/events?kind=user_created&user="+u.ID, nil, &events)
		if one.Local == nil || len(one.Identities) != 1 || len(one.Memberships) != 1 || len(events.Items) != 1 {
			t.Errorf("%s is half made: %+v %+v", u.User, one, events)
		}
		received(t, enter(t, g, newBrowser(t), u.User, localPassword))
	}
}

// What is typed on a terminal is not shown.
func TestPasswordIsNotShown(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(t, "http://127.0.0.1:9", localSource, "")
	cmd := exec.Command(program, "user", "add", "alice", "--config", p.config())
	screen := openTerminal(t, cmd)
	if !echoes(t, screen.slave) {
		t.Fatal("control: the terminal never shows what is typed")
	}
	must(t, cmd.Start())
	for _, prompt := range []string{"New password of alice: ", "Once more: "} {
		screen.wait(t, prompt)
		screen.hides(t)
		_, err := screen.master.WriteString(localPassword + "\n")
		must(t, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, screen.text())
	}
	screen.wait(t, "alice (source local): added")
	if strings.Contains(screen.text(), "canary") {
		t.Errorf("the password was shown: %q", screen.text())
	}
	if !echoes(t, screen.slave) {
		t.Error("the terminal does not show any more what is typed")
	}
	g := p.start(t)
	if page := enter(t, g, newBrowser(t), "alice", localPassword); page.Status != http.StatusBadGateway {
		t.Errorf("the password that was typed does not get in: %d", page.Status) // there is no upstream
	}
}

// Who breaks off gets the terminal back as it was, and nothing is made.
func TestBrokenOffAtTheTerminal(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(t, "http://127.0.0.1:9", localSource, "")
	cmd := exec.Command(program, "user", "add", "alice", "--config", p.config())
	screen := openTerminal(t, cmd)
	must(t, cmd.Start())
	screen.wait(t, "New password of alice: ")
	screen.hides(t)
	_, err := screen.master.WriteString("\x03") // Ctrl-C
	must(t, err)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("%v: %s", err, screen.text())
	}
	if !echoes(t, screen.slave) {
		t.Error("the terminal does not show any more what is typed")
	}
	if out := p.mustUser(t, "", "list"); strings.Contains(out, "alice") {
		t.Errorf("she was made: %s", out)
	}
}

// terminal is a pseudo-terminal with a program on it.
type terminal struct {
	master, slave *os.File
	shown         *safeBuffer
}

// openTerminal gives a command a terminal of its own (Linux).
func openTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	screen := &terminal{master: master, slave: slave, shown: &safeBuffer{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = screen.shown.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		slave.Close()
		<-read // nobody has the other end any more
		master.Close()
	})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	return screen
}

func (s *terminal) text() string { return s.shown.String() }

func (s *terminal) wait(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(s.text(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q on the terminal: %q", text, s.text())
		}
	}
}

// hides waits until the terminal does not show what is typed: the question
// comes a moment before.
func (s *terminal) hides(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); echoes(t, s.slave); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the terminal shows what is typed")
		}
	}
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	must(t, err)
	return state.Lflag&unix.ECHO != 0
}
