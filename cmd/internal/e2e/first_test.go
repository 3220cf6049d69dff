package e2e

import (
	"fmt"
	"net/http"
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

// shell is a command that runs until it is ended with Ctrl-C.
type shell struct {
	t     *testing.T
	cmd   *exec.Cmd
	wrote safeBuffer
	ended chan struct{}
}

// runs starts a command as somebody does who stands in the repository.
func runs(t *testing.T, command string) *shell {
	t.Helper()
	sh := &shell{t: t, cmd: exec.Command("sh", "-c", command), ended: make(chan struct{})}
	sh.cmd.Dir = "../../.."
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS=") { // the tests may be run by make
			sh.cmd.Env = append(sh.cmd.Env, v)
		}
	}
	sh.cmd.Stdout, sh.cmd.Stderr = &sh.wrote, &sh.wrote
	sh.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, sh.cmd.Start())
	go func() {
		defer close(sh.ended)
		_ = sh.cmd.Wait() // make calls Ctrl-C an error
	}()
	t.Cleanup(func() {
		select {
		case <-sh.ended:
		default:
			sh.end(syscall.SIGINT)
		}
	})
	return sh
}

// end sends a signal to all of its processes, as a terminal does, and waits.
func (sh *shell) end(how syscall.Signal) {
	sh.t.Helper()
	_ = syscall.Kill(-sh.cmd.Process.Pid, how)
	select {
	case <-sh.ended:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-sh.cmd.Process.Pid, syscall.SIGKILL)
		sh.t.Errorf("it does not end:\n%s", sh.wrote.String())
	}
}

// says waits for a text in what the command writes.
func (sh *shell) says(text string) {
	sh.t.Helper()
	late := time.After(90 * time.Second) // it may have to be compiled
	for !strings.Contains(sh.wrote.String(), text) {
		select {
		case <-sh.ended:
			sh.t.Fatalf("it ended, and did not say %q, but\n%s", text, sh.wrote.String())
		case <-late:
			sh.t.Fatalf("it does not say %q, but\n%s", text, sh.wrote.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var printed = regexp.MustCompile(`(?m)^  (page|console|token|files) +(\S+)$`)

// told is what the demo printed: PAGE, CONSOLE, TOKEN and FILES, and PROVIDER,
// which stands in its configuration.
func (sh *shell) told() map[string]string {
	sh.t.Helper()
	sh.says("Ctrl-C")
	all := map[string]string{}
	for _, m := range printed.FindAllStringSubmatch(sh.wrote.String(), -1) {
		all[strings.ToUpper(m[1])] = m[2]
	}
	raw, err := os.ReadFile(filepath.Join(all["FILES"], "groupgate.yaml"))
	must(sh.t, err)
	m := regexp.MustCompile(`issuer: "([^"]+)"`).FindSubmatch(raw)
	if len(all) != 4 || m == nil {
		sh.t.Fatalf("the demo printed %v\n%s", all, sh.wrote.String())
	}
	all["PROVIDER"] = string(m[1])
	return all
}

// demoSurfer opens a Chromium on the demo.
func demoSurfer(t *testing.T, told map[string]string, how scenario) *surfer {
	t.Helper()
	host := func(name string) string { return strings.Trim(strings.TrimPrefix(told[name], "http:"), "/") }
	c := consoleGate{gate: &gate{place: place{public: host("PAGE"), admin: host("CONSOLE")}, tb: t}, op: &claimstest.OP{URL: told["PROVIDER"]}}
	return c.surf(t, how)
}

// blocks cuts a document of Markdown: headings, paragraphs and entries of lists
// on one line each, code with its fences.
func blocks(document string) (out []string) {
	code := false
	for part := range strings.SplitSeq(document, "\n") {
		last := len(out) - 1
		switch fence := strings.HasPrefix(part, "```"); {
		case fence && !code, !code && (last < 0 || out[last] == "" || strings.HasPrefix(part, "- ")):
			out = append(out, part)
		case code || fence:
			out[last] += "\n" + part
		case part == "":
			out = append(out, "")
		default:
			out[last] += " " + strings.TrimSpace(part)
		}
		code = code != strings.HasPrefix(part, "```")
	}
	return out
}

// follower does what a document says. It knows how documents are written, and
// no step of any.
type follower struct {
	t        *testing.T
	sh       *shell
	told     map[string]string
	s        *surfer // nil before something is opened
	at       string  // the heading
	did, saw int
}

var (
	toDo  = regexp.MustCompile(`[Oo]pen ([A-Z]{2,})\b|\*\*([^*]+)\*\*|Press (Ctrl-C)`)
	toSee = regexp.MustCompile("“([^”]+)”|`([^`]+)`")
	entry = regexp.MustCompile("^- ([^:]+): `([^`]+)`$")
)

func (f *follower) follow(block string) {
	f.t.Helper()
	heading, isHeading := strings.CutPrefix(block, "## ")
	code, isCode := strings.CutPrefix(block, "```\n")
	field := entry.FindStringSubmatch(block)
	switch {
	case isHeading:
		f.at = heading
		f.t.Log(heading)
	case f.at == "": // it has not begun
	case isCode:
		f.sh = runs(f.t, strings.TrimSuffix(code, "\n```"))
	case field != nil:
		f.fill(field[1], field[2])
	case strings.HasPrefix(block, "You see "):
		for _, m := range toSee.FindAllStringSubmatch(block, -1) {
			f.see(m[1] + m[2])
		}
	default:
		for _, m := range toDo.FindAllStringSubmatch(block, -1) {
			f.do(m[1], m[2], m[3])
		}
	}
}

// do opens an address, clicks something, or presses Ctrl-C.
func (f *follower) do(open, click, press string) {
	f.t.Helper()
	f.did++
	switch {
	case press != "":
		f.sh.end(syscall.SIGINT)
	case open != "":
		if f.s == nil {
			f.told = f.sh.told()
			f.s = demoSurfer(f.t, f.told, wide)
		}
		if f.told[open] == "" {
			f.t.Fatalf("%s: the demo printed no %s", f.at, open)
		}
		f.s.open(f.told[open])
		f.s.status(http.StatusOK)
	default:
		at := f.only(`:is(a,button,summary,label,[role=option]):text-is(%[1]q):visible, :is(a,button,[role=option]) :text-is(%[1]q):visible`, click)
		f.s.click(at)
	}
}

// only waits for the one thing in front that a pattern finds with a text:
// nobody can say which of two is meant.
func (f *follower) only(pattern, text string) (selector string) {
	f.t.Helper()
	front := ":is(body:not(:has(dialog[open])), dialog[open])"
	selector = front + " >> " + fmt.Sprintf(pattern, text)
	f.s.see(selector)
	if found := f.s.read(selector); len(found) != 1 {
		f.t.Fatalf("%s: which of these is meant by %q? %q", f.at, text, found)
	}
	return selector
}

func (f *follower) fill(label, value string) {
	f.t.Helper()
	f.did++
	if told := f.told[value]; told != "" {
		value = told
	}
	id := f.s.attribute("for", f.only(`label:text-is(%q):visible`, label))[0]
	if len(f.s.attribute("id", "select#"+id)) == 1 {
		f.s.choose("#"+id, value)
	} else {
		f.s.fill("#"+id, value)
	}
}

// see waits for a text: all of what something on the page says or, before a
// page is opened, a part of what the command printed.
func (f *follower) see(text string) {
	f.t.Helper()
	f.saw++
	if f.s == nil {
		f.sh.says(text)
		return
	}
	f.s.see(fmt.Sprintf(":is(body:not(:has(dialog[open])), dialog[open]) >> :text-is(%q):visible", text))
}

// An administrator who has never seen groupgate does what FIRST-MAPPING.md says
// and sees what it promises. Nothing here knows what that is.
func TestFirstMappingCanBeFollowedLiterally(t *testing.T) {
	testenv(t)
	raw, err := os.ReadFile("../../../proxy/admin/FIRST-MAPPING.md")
	must(t, err)
	f := &follower{t: t}
	for _, block := range blocks(string(raw)) {
		f.follow(block)
	}
	if f.did < 20 || f.saw < 20 {
		t.Errorf("%d things to do and %d to see were found in it", f.did, f.saw)
	}
	select {
	case <-f.sh.ended:
	default:
		t.Error("it leaves the demo running")
	}
	if _, err := os.Stat(f.told["FILES"]); !os.IsNotExist(err) {
		t.Errorf("the demo leaves %s behind: %v", f.told["FILES"], err)
	}
}
