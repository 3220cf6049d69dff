package testenv

import "testing"

// Caddy starts Caddy until the test ends, with a Caddyfile that listens at an
// address.
func Caddy(tb testing.TB, file, address string) *Front {
	tb.Helper()
	wanted(tb, "caddy")
	dir := newFolder(tb, "caddy")
	// Caddy keeps what it does not have to.
	return newFront(tb, address, "/usr/bin/env", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir,
		"/usr/bin/caddy", "run", "--config", file, "--adapter", "caddyfile")
}
