package proxy

import "context"

// Recheck is what Run does every few seconds for open sockets and streams.
func (p *Proxy) Recheck(ctx context.Context) { p.recheck(ctx) }

// Tidy is what Run does every half minute: note uses, forget what is unused.
func (p *Proxy) Tidy() { p.sessions.tidy(0) }

// RecheckEvery bounds how long a socket outlives its session.
const RecheckEvery = recheckEvery
