package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// The stories below testdata/script run the real main, as processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"groupgate": main})
}

func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[browsers{}] = map[string]*claimstest.Browser{}
			env.Values[directoryKey{}] = new(*claimstest.Directory)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "world": world, "directory": directory, "api": api, "ready": ready, "signin": signIn, "request": request, "json": validJSON, "keypair": keyPair,
		},
	})
}

// exits N COMMAND... runs a command that must end with the status N.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, wanted %d", got, want)
	}
}

// api METHOD PATH [BODY] asks the API with the token in ADMIN_TOKEN, and prints
// the answer. Negated, the answer must be a refusal.
func api(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: api METHOD PATH [BODY]")
	}
	req, err := http.NewRequest(args[0], "http://"+ts.Getenv("ADMIN")+"/api/v1"+args[1], strings.NewReader(strings.Join(args[2:], " ")))
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+ts.Getenv("ADMIN_TOKEN"))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if refused := resp.StatusCode >= 400; refused != neg {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
	fmt.Fprintf(ts.Stdout(), "%s\n%s\n", resp.Status, body)
}

// browsers is where a script's browsers are, by person.
type browsers struct{}

// world NAME=VALUE,VALUE... starts a provider with these people and an
// upstream, and sets OP, UPSTREAM, PUBLIC and ADMIN for a configuration.
func world(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: world NAME=VALUE,... ...")
	}
	var people []claimstest.Person
	for _, a := range args {
		name, list, _ := strings.Cut(a, "=")
		values := []string{}
		if list != "" {
			values = strings.Split(list, ",")
		}
		people = append(people, claimstest.Person{Subject: name, Claims: map[string]any{
			"preferred_username": name, "email": name + "@example.com", "name": name + " Example", "groups": values,
		}})
	}
	op := claimstest.Start(scriptTB{ts}, claimstest.Options{Alg: "ES256", ClientSecret: "a-secret-of-the-portal", People: people})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "user %s groups %s", r.Header.Get("X-Forwarded-User"), r.Header.Get("X-Forwarded-Groups"))
	}))
	ts.Defer(up.Close)
	ts.Setenv("OP", op.URL)
	ts.Setenv("UPSTREAM", up.URL)
	ts.Setenv("PUBLIC", freeAddress(ts))
	ts.Setenv("ADMIN", freeAddress(ts))
}

// directory starts an Active Directory with alice in it, who is in "team",
// which is in "all". It sets LDAP, LDAP_CA, LDAP_USER, LDAP_PASSWORD and LDAP_BASE
// for a configuration. "directory stop" takes it off the network.
func directory(ts *testscript.TestScript, neg bool, args []string) {
	if d, running := ts.Value(directoryKey{}).(**claimstest.Directory); running && len(args) == 1 && args[0] == "stop" && *d != nil {
		ts.Check((*d).SetOffline(true))
		(*d).DropConnections()
		return
	}
	if neg || len(args) > 0 {
		ts.Fatalf("usage: directory [stop]")
	}
	d := claimstest.StartDirectory(scriptTB{ts}, claimstest.DirectoryOptions{AD: true})
	d.Put(d.Person("alice", "the password of alice"))
	d.Put(d.Group("team", d.PersonDN("alice")), d.Group("all", d.GroupDN("team")))
	gone := d.Person("bob", "the password of bob")
	gone.Account = claimstest.AccountDisabled
	d.Put(gone)
	*ts.Value(directoryKey{}).(**claimstest.Directory) = d
	ts.Setenv("LDAP", d.URLS)
	ts.Setenv("LDAP_CA", d.CAFile)
	ts.Setenv("LDAP_USER", d.ServiceDN)
	ts.Setenv("LDAP_PASSWORD", d.ServicePassword)
	ts.Setenv("LDAP_BASE", d.BaseDN)
}

// directoryKey is where a script's directory is.
type directoryKey struct{}

// scriptTB lets claimstest stop its server when the script ends.
type scriptTB struct{ *testscript.TestScript }

func (scriptTB) Helper()            {}
func (s scriptTB) Cleanup(f func()) { s.Defer(f) }

func freeAddress(ts *testscript.TestScript) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer ln.Close()
	return ln.Addr().String()
}

// ready waits until groupgate serves.
func ready(ts *testscript.TestScript, _ bool, _ []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		resp, err := http.Get("http://" + ts.Getenv("ADMIN") + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	ts.Fatalf("groupgate is not ready")
}

func browserOf(ts *testscript.TestScript, name string) *claimstest.Browser {
	all := ts.Value(browsers{})
	if all == nil {
		ts.Fatalf("no browsers")
	}
	m := all.(map[string]*claimstest.Browser)
	if m[name] == nil {
		m[name] = claimstest.NewBrowser(nil)
		ts.Defer(m[name].Close)
	}
	return m[name]
}

// signin NAME... signs people in, each in a browser of their own, and prints
// what the application says to each.
func signIn(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		p, err := browserOf(ts, name).Login("http://"+ts.Getenv("PUBLIC")+"/", name)
		ts.Check(err)
		if ok := p.Status == http.StatusOK; ok == neg {
			ts.Fatalf("%s: %d\n%s", name, p.Status, p.Body)
		}
		fmt.Fprintln(ts.Stdout(), p.Body)
	}
}

// request NAME [WANTED] asks again with the person's session, and prints the
// answer. With WANTED it asks until that is the answer, for what another
// process wrote.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: request NAME [WANTED]")
	}
	wanted := strings.Join(args[1:], " ")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p, err := browserOf(ts, args[0]).Get("http://" + ts.Getenv("PUBLIC") + "/")
		ts.Check(err)
		if wanted == "" || p.Body == wanted {
			fmt.Fprintln(ts.Stdout(), p.Body)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s gets %q", args[0], p.Body)
		}
	}
}

// json FILE KEY... checks that a file holds one JSON object with these keys.
func validJSON(ts *testscript.TestScript, neg bool, args []string) {
	var v map[string]any
	err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v)
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[0], err)
	}
	for _, key := range args[1:] {
		if _, there := v[key]; !there {
			ts.Fatalf("%s: no %q", args[0], key)
		}
	}
}

// A script that nobody runs proves nothing.
func TestEveryCommandHasAScript(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(raw)
	}
	for _, c := range commands(nil, nil, nil).Commands() {
		if !strings.Contains(all.String(), "groupgate "+c.Name()) {
			t.Errorf("no script runs %q", c.Name())
		}
	}
}
