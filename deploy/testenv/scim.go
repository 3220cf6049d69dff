package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// scimToken is what bearer tokens of the SCIM server begin with.
const scimToken = "a-token-of-the-scim-server-for-tests"

// theSCIM is the shared SCIM service provider of this test binary.
var theSCIM struct {
	once   sync.Once
	spaces atomic.Int64
	url    string
	err    error
}

// SCIM is a place of its own in the one SCIM 2.0 service provider of a test
// binary, which has [Main] in its TestMain. Listed: its users list their groups.
func SCIM(tb testing.TB, listed bool) (url, token string) {
	tb.Helper()
	wanted(tb, "nodejs")
	theSCIM.once.Do(func() { theSCIM.url, theSCIM.err = startSCIM() })
	if theSCIM.err != nil {
		tb.Fatalf("the SCIM server: %v", theSCIM.err)
	}
	token = fmt.Sprintf("%s-%d", scimToken, theSCIM.spaces.Add(1))
	if listed {
		token += "-listed"
	}
	return theSCIM.url, token
}

func startSCIM() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	if _, err := os.Stat(filepath.Join(filepath.Dir(here), "node_modules", "scimmy-routers")); err != nil {
		return "", fmt.Errorf("run deploy/testenv/install.sh: %w", err)
	}
	cmd := exec.Command("node", filepath.Join(filepath.Dir(here), "scim.mjs"), fmt.Sprintf(`{"token":%q}`, scimToken))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe() // it ends with this
	if err != nil {
		return "", err
	}
	p, err := startCommand(cmd)
	if err != nil {
		return "", err
	}
	if !atMainsEnd(func() { _ = stdin.Close(); p.stop() }) {
		p.kill()
		return "", errors.New("nobody would stop it: TestMain has to run testenv.Main")
	}
	var said struct{ URL string }
	err = p.until(func() error {
		line, _, whole := strings.Cut(p.said.String(), "\n")
		if !whole {
			return errors.New("it has not said where it listens")
		}
		return json.Unmarshal([]byte(line), &said)
	})
	return said.URL, err
}
