package testenv

import "testing"

// HAProxy starts HAProxy until the test ends, with a configuration that listens
// at an address.
func HAProxy(tb testing.TB, file, address string) *Front {
	tb.Helper()
	wanted(tb, "haproxy")
	return newFront(tb, address, "/usr/sbin/haproxy", "-db", "-f", file)
}
