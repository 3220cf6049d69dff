package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is one application behind the proxy, with its connections.
type upstream struct {
	scheme, host string
	transport    *http.Transport
}

// upstreams keeps the connections of every upstream across reloads.
type upstreams struct {
	mu    sync.Mutex
	byURL map[string]*upstream
	dials atomic.Int64
}

// idlePerUpstream is how many idle connections are kept: more than any steady
// load needs, because a pool that is too small dials on most requests.
const idlePerUpstream = 1024

func newUpstreams() *upstreams { return &upstreams{byURL: map[string]*upstream{}} }

func (u *upstreams) get(raw string) (*upstream, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if up := u.byURL[raw]; up != nil {
		return up, nil
	}
	up, err := u.open(raw)
	if err != nil {
		return nil, err
	}
	u.byURL[raw] = up
	return up, nil
}

func (u *upstreams) open(raw string) (*upstream, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		MaxIdleConnsPerHost:   idlePerUpstream,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		// A groups header of up to max_bytes' default leaves in one piece: past
		// the buffer every request would cost a second write to the socket.
		WriteBufferSize:    16 << 10,
		DisableCompression: true, // bodies pass through as they are
		// No ResponseHeaderTimeout: a long poll or a report that is made while
		// the client waits sends its header late and is in order. Who has had
		// enough is the client: when it goes away the request is ended, so an
		// application that hangs costs what its clients' patience costs. Only
		// making the connection, where nothing legitimate takes long, is timed.
		ForceAttemptHTTP2: true,
		// No Proxy: an environment variable must not put somebody between us
		// and the application that trusts our headers.
	}
	network, address := "tcp", ""
	up := &upstream{scheme: "http", transport: t}
	if path, unix := strings.CutPrefix(raw, "unix:"); unix {
		network, address, up.host = "unix", path, "localhost"
	} else {
		parsed, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		if parsed.Host == "" {
			return nil, fmt.Errorf("%q names no host", raw)
		}
		up.host = parsed.Host
		switch parsed.Scheme {
		case "http", "https":
			up.scheme = parsed.Scheme
		case "h2c":
			t.Protocols = new(http.Protocols)
			t.Protocols.SetUnencryptedHTTP2(true)
		default:
			return nil, fmt.Errorf("scheme %q is none of http, https, h2c and unix", parsed.Scheme)
		}
	}
	t.DialContext = func(ctx context.Context, netw, addr string) (net.Conn, error) {
		u.dials.Add(1)
		if address != "" {
			return dialer.DialContext(ctx, network, address)
		}
		return dialer.DialContext(ctx, netw, addr)
	}
	return up, nil
}

func (u *upstreams) closeIdle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, up := range u.byURL {
		up.transport.CloseIdleConnections()
	}
}
