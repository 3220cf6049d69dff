package proxy

import "context"

// Recheck is what Run does every few seconds for open sockets and streams.
func (p *Proxy) Recheck(ctx context.Context) { p.recheck(ctx) }

// Tidy is what Run does every half minute: note uses, forget what is unused.
func (p *Proxy) Tidy() { p.sessions.tidy(0) }

// RecheckEvery bounds how long a socket outlives its session.
const RecheckEvery = recheckEvery

// CloseWait bounds how long an ending socket may take.
const CloseWait = closeWait

// GoOn takes back that EndLive also ends what comes later.
func (p *Proxy) GoOn() {
	p.live.mu.Lock()
	p.live.stopping = false
	p.live.mu.Unlock()
}
