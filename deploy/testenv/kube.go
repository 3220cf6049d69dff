package testenv

import (
	"os"
	"testing"
)

// KubeRender answers what Helm's or Kustomize's engine makes of a chart or a
// folder. The tool is built by install.sh, at this path from the test.
func KubeRender(tb testing.TB, tool string, args ...string) (string, error) {
	tb.Helper()
	wanted(tb)
	if _, err := os.Stat(tool); err != nil {
		tb.Fatalf("%v: run make test, or deploy/testenv/install.sh by itself", err)
	}
	return run("", nil, tool, args...)
}
