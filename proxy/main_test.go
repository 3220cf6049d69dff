package proxy_test

import (
	"testing"

	"go.uber.org/goleak"
)

// SC-18: whatever a test does to it, the proxy leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
