package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/groupgate/groupgate/claims/claimstest"
)

// upstream answers with the headers it received, as JSON, or as a small page
// below /page/. It counts what reaches it.
type upstream struct {
	*httptest.Server
	requests atomic.Int64
}

func newUpstream(tb testing.TB) *upstream {
	tb.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.requests.Add(1)
		if len(r.URL.Path) > 5 && r.URL.Path[:6] == "/page/" {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, `<!doctype html><html lang="en"><title>app</title><h1>Application</h1><p>groups: %s</p><a href="/_auth/sign_out">Sign out</a>`,
				r.Header.Get("X-Forwarded-Groups"))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Header)
	}))
	tb.Cleanup(u.Close)
	return u
}

// person is somebody of the provider of claimstest.
func person(name string, groups ...string) claimstest.Person {
	return claimstest.Person{Subject: name, Claims: claimsOf(name, groups...)}
}

func claimsOf(name string, groups ...string) map[string]any {
	return map[string]any{
		"preferred_username": name, "name": name + " Example", "email": name + "@example.com", "email_verified": true,
		"groups": append([]string{}, groups...),
	}
}

// opSecret is the client's at the provider of claimstest.
const opSecret = "a-client-secret-for-tests-only"

// testenv is the folder with the npm packages. Where they are missing the test
// is skipped, unless GROUPGATE_E2E=1 says that they have to be there.
func testenv(tb testing.TB) string {
	tb.Helper()
	dir, err := filepath.Abs("../../../deploy/testenv")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		if os.Getenv("GROUPGATE_E2E") == "1" {
			tb.Fatal("the npm packages are missing: run deploy/testenv/install.sh")
		}
		tb.Skip("the npm packages are missing: run deploy/testenv/install.sh")
	}
	return dir
}

// realSecret is the client's at the real provider, see op.mjs.
const realSecret = "groupgate-test-secret-0123456789abcdef"

// realProvider starts npm oidc-provider for a groupgate that will be at p, and
// answers its issuer. Options are those of op.mjs.
func realProvider(tb testing.TB, p place, source string, options map[string]any) (issuer string) {
	tb.Helper()
	all := map[string]any{
		"redirect_uris":             []string{p.url() + "/_auth/callback/" + source},
		"post_logout_redirect_uris": []string{p.url() + "/_auth/sign_out"},
	}
	for k, v := range options {
		all[k] = v
	}
	raw, err := json.Marshal(all)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("node", "op.mjs", string(raw))
	cmd.Dir = testenv(tb)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe() // it ends with this
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	var faults safeBuffer
	cmd.Stderr = &faults
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := bufio.NewScanner(stdout)
	var said struct{ Issuer string }
	if !line.Scan() || json.Unmarshal(line.Bytes(), &said) != nil || said.Issuer == "" {
		tb.Fatalf("the provider did not start: %s", faults.String())
	}
	return said.Issuer
}
