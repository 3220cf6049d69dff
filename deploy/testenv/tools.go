package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

// Promtool answers what Prometheus' own tool says of files. bin is where
// install.sh puts programs.
func Promtool(tb testing.TB, bin string, args ...string) (string, error) {
	tb.Helper()
	wanted(tb)
	tool := filepath.Join(bin, "promtool")
	if _, err := os.Stat(tool); err != nil {
		tb.Fatalf("%v: run make test, or deploy/testenv/install.sh by itself", err)
	}
	return run("", nil, tool, args...)
}

// Commands ends the test where it must not run what operators type, or these
// packages are missing.
func Commands(tb testing.TB, packages ...string) {
	tb.Helper()
	wanted(tb, packages...)
}
