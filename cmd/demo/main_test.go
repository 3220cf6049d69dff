package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/cmd/internal/app"
)

// start runs the demo and answers what it printed.
func start(t *testing.T, public, admin int) (story string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, public, admin, w)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		story += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "Ctrl-C") {
			break
		}
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the demo did not end cleanly: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the demo does not end")
		}
		if dir := word(t, story, `files\s+(\S+)`); exists(dir) {
			t.Errorf("%s is left behind", dir)
		}
	})
	if !strings.Contains(story, "Ctrl-C") {
		t.Fatalf("the demo said only:\n%s", story)
	}
	return story
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func word(t *testing.T, text, expr string) string {
	t.Helper()
	m := regexp.MustCompile(expr).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("nothing like %s in:\n%s", expr, text)
	}
	return m[1]
}

// The three things to try, done as they are printed.
func TestThreeThingsToTryWorkAsPrinted(t *testing.T) {
	story := start(t, 0, 0)
	page := word(t, story, `page\s+(http\S+)`)
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)

	p, err := b.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		if !strings.Contains(p.Body, `value="`+name+`"`) || !strings.Contains(story, name) {
			t.Errorf("%s is not offered", name)
		}
	}
	if !strings.Contains(p.Body, "in one group: engineering") {
		t.Error("the provider's page does not say who is in which group")
	}

	// 1. Be refused by a route.
	if p, err = b.Login(page, "bob"); err != nil || p.Status != http.StatusOK || !shows(p, "X-Forwarded-Groups", "engineering") {
		t.Fatalf("bob signs in: %v %d\n%s", err, p.Status, p.Body)
	}
	admin := word(t, story, `(?m)^\s+(http\S+/admin/)$`)
	if p = get(t, b, admin); p.Status != http.StatusForbidden || !strings.Contains(p.Body, "admins") || !strings.Contains(p.Body, "bob") {
		t.Fatalf("bob at the admin page: %d\n%s", p.Status, p.Body)
	}
	stranger := claimstest.NewBrowser(nil)
	t.Cleanup(stranger.Close)
	if p = get(t, stranger, word(t, story, `(http\S+/public/)`)); p.Status != http.StatusOK || !strings.Contains(p.Body, "without a session") {
		t.Errorf("the public page: %d", p.Status)
	}

	// 2. Change a rule; the header follows without another login.
	if status, body := curl(t, command(t, story, "/rules")); status != http.StatusCreated {
		t.Fatalf("the rule: %d %s", status, body)
	}
	p = get(t, b, admin)
	if p.Status != http.StatusOK || len(p.Hops) != 1 || !shows(p, "X-Forwarded-Groups", "admins,engineering") {
		t.Fatalf("bob at the admin page after the change: %d, %d hops\n%s", p.Status, len(p.Hops), p.Body)
	}

	// 3. Explain a membership.
	status, body := curl(t, command(t, story, "/explain"))
	if status != http.StatusOK || !strings.Contains(body, "acme-eng") || !strings.Contains(body, "admins") || !strings.Contains(body, "engineering") {
		t.Errorf("explain: %d %s", status, body)
	}
	args := strings.Fields(word(t, story, `(?m)go run ./cmd/groupgate explain (.*)$`))
	if len(args) != 7 || args[0] != "--config" || args[2] != "--source" || args[4] != "--user" {
		t.Fatalf("explain as a table: %q", args)
	}
	var table bytes.Buffer
	if err := app.Explain(t.Context(), args[1], app.Explaining{Source: args[3], Subject: args[5], Claims: args[6]}, &table); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), "X-Forwarded-Groups: admins,engineering") || !strings.Contains(table.String(), "bob (known)") {
		t.Errorf("the table:\n%s", table.String())
	}

	// And be somebody else.
	get(t, b, word(t, story, `(http\S+/_auth/sign_out)`))
	if p, err = b.Login(page, "carol"); err != nil || p.Status != http.StatusOK || !strings.Contains(p.Body, "In no group") {
		t.Errorf("carol: %v %d\n%s", err, p.Status, p.Body)
	}
}

func TestTakenPortsAreSaidAndReplaced(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	story := start(t, port, 0)
	_, number, _ := net.SplitHostPort(taken.Addr().String())
	if !strings.Contains(story, "Port "+number+" is taken") {
		t.Errorf("the story does not say so:\n%s", story)
	}
	b := claimstest.NewBrowser(nil)
	t.Cleanup(b.Close)
	if p := get(t, b, word(t, story, `(http\S+/public/)`)); p.Status != http.StatusOK {
		t.Errorf("the public page: %d", p.Status)
	}
}

func TestApplicationShowsWhatAStrangerSendsAsText(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequest(http.MethodGet, "http://app.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Other", "<script>alert(1)</script>")
	w := &recorder{header: http.Header{}}
	application(w, r)
	if body := w.body.String(); strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("not escaped:\n%s", body)
	}
}

type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}

// shows reports whether the application's page has a header of ours.
func shows(p *claimstest.Page, name, value string) bool {
	return strings.Contains(p.Body, `ours"><dt>`+name+`</dt><dd>`+value+`</dd>`)
}

func get(t *testing.T, b *claimstest.Browser, address string) *claimstest.Page {
	t.Helper()
	p, err := b.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func command(t *testing.T, story, path string) string {
	t.Helper()
	return word(t, story, `(?m)^\s+(curl .*`+regexp.QuoteMeta(path)+`)$`)
}

// curl does what a printed command does, so that the test needs no curl.
func curl(t *testing.T, command string) (status int, body string) {
	t.Helper()
	words := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(command, -1)
	method, address, data, header := "", "", "", http.Header{}
	for i := 1; i < len(words); i++ {
		switch w := words[i]; w {
		case "-s":
		case "-X", "-H", "-d":
			i++
			value := strings.Trim(words[i], "'")
			if w == "-X" {
				method = value
			} else if name, v, _ := strings.Cut(value, ": "); w == "-H" {
				header.Set(name, v)
			} else {
				data = value
			}
		default:
			address = w
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}
