package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

// browser is the one Chromium of all tests, driven by browser.mjs. It starts
// when somebody first needs it: starting one takes longer than most tests.
var browser struct {
	sync.Mutex
	cmd     *exec.Cmd
	in      io.WriteCloser
	faults  safeBuffer
	serial  int
	waiting map[int]chan reply
	ended   chan struct{} // closed when it says no more
}

// reply is a line of the browser about one scenario.
type reply struct {
	ID    int
	Value json.RawMessage
	Error string
	Seen  *seen
}

// tab is one scenario in the browser: a page in a profile of its own.
type tab struct {
	t    *testing.T
	id   int
	said chan reply
}

// newTab begins a scenario.
func newTab(t *testing.T, s scenario) *tab {
	t.Helper()
	dir := testenv(t)
	browser.Lock()
	defer browser.Unlock()
	if browser.cmd == nil {
		must(t, startBrowser(dir))
	}
	browser.serial++
	b := &tab{t: t, id: browser.serial, said: make(chan reply, 1)}
	browser.waiting[b.id] = b.said
	b.send(map[string]any{"id": b.id, "scenario": s})
	return b
}

func startBrowser(dir string) error {
	cmd := exec.Command("node", "browser.mjs")
	cmd.Dir, cmd.Stderr = dir, &browser.faults
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	browser.cmd, browser.in, browser.waiting, browser.ended = cmd, in, map[int]chan reply{}, make(chan struct{})
	go func() {
		defer close(browser.ended)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			var line reply
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				fmt.Fprintf(&browser.faults, "%v: %s", err, lines.Bytes())
				return
			}
			browser.Lock()
			to := browser.waiting[line.ID]
			browser.Unlock()
			to <- line
		}
	}()
	return nil
}

// endBrowser ends it, if somebody started it.
func endBrowser() {
	browser.Lock()
	defer browser.Unlock()
	if browser.cmd != nil {
		_ = browser.in.Close() // it may have ended by itself
		_ = browser.cmd.Wait()
	}
}

// send writes a line. The browser is locked.
func (b *tab) send(v map[string]any) {
	b.t.Helper()
	raw, err := json.Marshal(v)
	must(b.t, err)
	if _, err := browser.in.Write(append(raw, '\n')); err != nil {
		b.t.Fatalf("the browser does not listen: %v\n%s", err, browser.faults.String())
	}
}

// ask sends a line and waits for its answer.
func (b *tab) ask(v map[string]any) reply {
	b.t.Helper()
	browser.Lock()
	b.send(v)
	browser.Unlock()
	return b.answer()
}

func (b *tab) answer() reply {
	b.t.Helper()
	select {
	case line := <-b.said:
		return line
	case <-browser.ended:
	}
	select { // it may have been the last thing that it said
	case line := <-b.said:
		return line
	default:
		b.t.Fatalf("the browser ended:\n%s", browser.faults.String())
		return reply{}
	}
}

// do does one step.
func (b *tab) do(s step) reply {
	b.t.Helper()
	return b.ask(map[string]any{"id": b.id, "step": s})
}

// end ends the scenario and answers what was seen.
func (b *tab) end() seen { return *b.ask(map[string]any{"id": b.id, "end": true}).Seen }
