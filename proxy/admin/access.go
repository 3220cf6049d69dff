package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// hostAllowed tells names that nobody outside can point at this listener. A
// page of an attacker's site can make a browser speak to any address by
// changing its own name's DNS answer (rebinding); the Host header then still
// holds that name, and a public name has a dot.
func (s *Server) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.ToLower(host)
	if s.hosts[host] {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	// RFC 6761, 6.3: localhost and what ends in it never leave the machine. A
	// name without dots is a cluster's service, or a machine next door.
	return s.hosts[host] || strings.HasSuffix(host, ".localhost") || !strings.Contains(host, ".")
}

// crossOrigin tells requests that another site's page may have sent. On the
// public host it is a cookie that signs them, which the browser adds to whatever
// a page next door sends: a request that would change something, and does not
// say where it comes from, is refused there too.
func (s *Server) crossOrigin(x *exchange) bool {
	h := x.r.Header
	mute := h.Get("Sec-Fetch-Site") == "" && h.Get("Origin") == ""
	safe := x.r.Method == http.MethodGet || x.r.Method == http.MethodHead
	return s.csrf.Check(x.r) != nil || x.from.public && mute && !safe
}

// authorize wants the token, or somebody who has signed in to the console. On
// the public host the proxy has let the person in, and no header counts.
func (s *Server) authorize(x *exchange) error {
	token, given := bearer(x.r.Header["Authorization"])
	switch {
	case given && !x.from.public:
		x.from.actor = actorAPI
		return s.checkToken(x.r, token)
	case x.from.actor == "":
		return errNoToken
	}
	return nil
}

// checkToken slows guesses down per client; a right token always passes, so
// that nobody can lock the administrator out.
func (s *Server) checkToken(r *http.Request, token string) error {
	sum, want := sha256.Sum256([]byte(token)), s.o.TokenHash()
	if subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
		return nil
	}
	client := clientOf(r)
	s.log.Warn("wrong token for the API", zap.String("client", client))
	if wait := s.wrong.add(client); wait > 0 {
		return tooMany(wait)
	}
	return errWrongToken
}

// bearer reads RFC 6750, 2.1; the scheme's case does not matter (RFC 9110,
// 11.1). Two headers are none: somebody may check another one than we do.
func bearer(lines []string) (token string, ok bool) {
	if len(lines) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	token = strings.Trim(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// clientOf is the peer's address. What a header says of it does not count.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local" // a Unix socket
	}
	return host
}

// Bounds of wrong tokens.
const (
	maxWrong   = 10 // of one client in one window
	window     = time.Minute
	maxClients = 4096 // that are remembered; more share one count
)

// attempts counts wrong tokens by client, in bounded memory.
type attempts struct {
	now func() time.Time
	mu  sync.Mutex

	seen map[string]*attempt
}

type attempt struct {
	n     int
	until time.Time
}

// add counts a wrong token and answers how long the client has to wait; 0
// when it does not.
func (a *attempts) add(client string) time.Duration {
	// A client owns a whole /64 of IPv6.
	if ip, err := netip.ParseAddr(client); err == nil && ip.Unmap().Is6() {
		client = netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
	}
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.seen[client]
	if t == nil && len(a.seen) >= maxClients {
		for k, old := range a.seen {
			if !at.Before(old.until) {
				delete(a.seen, k)
			}
		}
		if len(a.seen) >= maxClients {
			client = ""
			t = a.seen[client]
		}
	}
	if t == nil || !at.Before(t.until) {
		t = &attempt{until: at.Add(window)}
		a.seen[client] = t
	}
	t.n++
	if t.n <= maxWrong {
		return 0
	}
	return t.until.Sub(at)
}
