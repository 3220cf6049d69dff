package claimstest

import "sync"

// callCounts counts requests by endpoint.
type callCounts struct {
	mu        sync.Mutex
	byName    map[string]int
	tokenAuth string
}

func (c *callCounts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]int{}
	}
	c.byName[name]++
}

// Calls says how often an endpoint was asked: "authorize", "token",
// "userinfo", "jwks", "end_session", "par" or "discovery".
func (op *OP) Calls(endpoint string) int {
	if endpoint == "discovery" {
		endpoint = discoveryPath
	}
	op.calls.mu.Lock()
	defer op.calls.mu.Unlock()
	return op.calls.byName[endpoint]
}

// TokenAuth says how the client showed itself at the token endpoint last:
// "basic", "post", "none" or "private_key_jwt".
func (op *OP) TokenAuth() string {
	op.calls.mu.Lock()
	defer op.calls.mu.Unlock()
	return op.calls.tokenAuth
}

func (op *OP) noteTokenAuth(how string) {
	op.calls.mu.Lock()
	defer op.calls.mu.Unlock()
	op.calls.tokenAuth = how
}
