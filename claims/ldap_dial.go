package claims

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
)

// restOfServer is how long a server that failed is left alone while another
// one works.
const restOfServer = 30 * time.Second

// What an Active Directory and its lightweight sister say of themselves
// (supportedCapabilities), and the control of paged results (RFC 2696).
const (
	capabilityAD   = "1.2.840.113556.1.4.800"
	capabilityADLS = "1.2.840.113556.1.4.1851"
)

// ldapServer is one of the servers that have the same content.
type ldapServer struct {
	url, host, address string
	ldaps, starttls    bool
	failed             atomic.Pointer[time.Time] // nil: it works, as far as anybody knows
}

// boundBER is the library's one bound of a message, for all of the process.
var boundBER sync.Once

func newServers(cfg LDAPConfig) ([]*ldapServer, error) {
	boundBER.Do(func() { ber.MaxPacketLengthBytes = maxLDAPMessage })
	var out []*ldapServer
	for _, raw := range cfg.URL {
		u, err := url.Parse(raw)
		if err != nil || u.Hostname() == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" {
			return nil, errors.New("url: it must be ldap://HOST or ldaps://HOST")
		}
		s := &ldapServer{url: u.Scheme + "://" + u.Host, host: u.Hostname(), ldaps: u.Scheme == "ldaps"}
		s.starttls = cfg.StartTLS && !s.ldaps
		if !s.ldaps && !s.starttls && !IsLoopback(s.host) {
			return nil, fmt.Errorf("url: %s: passwords in clear are for loopback addresses only; use ldaps:// or starttls", s.url)
		}
		port := u.Port()
		if port == "" {
			port = map[bool]string{false: ldap.DefaultLdapPort, true: ldap.DefaultLdapsPort}[s.ldaps]
		}
		s.address = net.JoinHostPort(s.host, port)
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("url: there is none")
	}
	return out, nil
}

// readRoots reads a file of certificates; nil is the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf(`ca_file: %s holds no certificate in PEM ("-----BEGIN CERTIFICATE-----")`, file)
	}
	return roots, nil
}

// inOrder lists the servers as they are to be tried: in the configuration's
// order, those that failed a short time ago behind the others.
func (l *LDAP) inOrder() []*ldapServer {
	resting := func(s *ldapServer) bool {
		at := s.failed.Load()
		return at != nil && l.now().Sub(*at) < restOfServer
	}
	var first, last []*ldapServer
	for _, s := range l.servers {
		if resting(s) {
			last = append(last, s)
		} else {
			first = append(first, s)
		}
	}
	return append(first, last...)
}

// rest notes that a server failed.
func (l *LDAP) rest(s *ldapServer) {
	now := l.now()
	s.failed.Store(&now)
}

// dial answers a connection to the first server that can be reached and that
// use, which may bind, does not fail with errNextServer.
func (l *LDAP) dial(ctx context.Context, use func(*ldapConn) error) (*ldapConn, error) {
	var last error
	for _, s := range l.inOrder() {
		c, err := l.dialServer(ctx, s)
		if err == nil {
			if err = use(c); err == nil {
				s.failed.Store(nil)
				return c, nil
			}
			c.close()
			if !errors.Is(err, errNextServer) {
				return nil, err
			}
		}
		last = fmt.Errorf("%s: %w", s.url, err)
		if ctx.Err() != nil {
			break // the person's patience is at its end, which the server cannot help
		}
		l.rest(s)
		l.log.Warn("a server of the directory cannot be used", zap.String("source", l.name), zap.String("server", s.url), zap.Error(err))
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, last)
}

// errNextServer: this server cannot do it, another one may.
var errNextServer = errors.New("the server cannot be used")

// dialServer connects. What it answers is encrypted, or to this very machine.
func (l *LDAP) dialServer(ctx context.Context, s *ldapServer) (*ldapConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	wire := &ldapWire{Conn: raw}
	wire.left.Store(maxLDAPAnswer)
	settings := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: l.roots, ServerName: s.host}
	switch {
	case s.ldaps:
		encrypted := tls.Client(wire, settings)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return &ldapConn{stream: encrypted, wire: wire, server: s}, nil
	case s.starttls:
		return startTLS(ctx, wire, settings, s)
	case !isLoopbackPeer(raw):
		// The name is this machine's, and the resolver says otherwise.
		raw.Close()
		return nil, errors.New("connect: passwords in clear are for loopback addresses only")
	default:
		return &ldapConn{stream: wire, wire: wire, server: s}, nil
	}
}

func isLoopbackPeer(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// startTLS makes a connection an encrypted one (RFC 4511 section 4.14), or
// closes it.
func startTLS(ctx context.Context, wire *ldapWire, settings *tls.Config, s *ldapServer) (*ldapConn, error) {
	c := &ldapConn{stream: wire, wire: wire, server: s}
	err := c.do(ctx, func() error {
		if err := c.exchange(startTLSRequest(), ldap.ApplicationExtendedResponse); err != nil {
			return err
		}
		encrypted := tls.Client(wire, settings)
		c.stream = encrypted
		return encrypted.HandshakeContext(ctx)
	})
	if err != nil {
		c.broken.Store(true)
		c.close()
		return nil, fmt.Errorf("StartTLS: %s", ldapCause(err))
	}
	return c, nil
}

// asService binds as the service account, and reads what the server is.
func (l *LDAP) asService(ctx context.Context) func(*ldapConn) error {
	return func(c *ldapConn) error {
		var err error
		if l.cfg.BindDN != "" {
			if wait := l.refused.wait(l.now()); wait > 0 {
				return fmt.Errorf("%w: the service account was refused; it is tried again in %s", ErrUnavailable, wait.Round(time.Second))
			}
			err = c.bind(ctx, l.cfg.BindDN, l.cfg.BindPassword)
		}
		switch {
		case err == nil:
			l.refused.forget()
			c.start()
		case !isResult(err), ldap.IsErrorAnyOf(err, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable):
			return fmt.Errorf("bind as the service account: %w: %s", errNextServer, ldapCause(err))
		default:
			// Everybody's login fails until an operator does something.
			l.refused.note(l.now())
			l.log.Error("the directory refuses the service account; check bind_dn and bind_password",
				zap.String("source", l.name), zap.String("server", c.server.url), zap.String("cause", ldapCause(err)))
			return fmt.Errorf("%w: bind as the service account: %s", ErrUnavailable, ldapCause(err))
		}
		if c.root, err = readRootDSE(ctx, c); err != nil {
			return fmt.Errorf("%w: %w", errNextServer, err)
		}
		c.ad = c.root.ad
		return nil
	}
}

// refusals is how often in a row the service account was refused. Every login
// and every refresh would try its password again, and directories lock an
// account for that.
type refusals struct {
	mu    sync.Mutex
	n     int
	until time.Time
}

// Pauses between attempts of a service account that is refused: none at first,
// then each four times as long, seven attempts in half an hour.
const (
	freeRefusals = 2
	firstPause   = 5 * time.Second
	longestPause = 15 * time.Minute
)

func (r *refusals) note(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n++; r.n <= freeRefusals {
		return
	}
	pause := firstPause
	for i := freeRefusals + 1; i < r.n && pause < longestPause; i++ {
		pause *= 4
	}
	r.until = now.Add(min(pause, longestPause))
}

// wait is how long to leave the account alone; 0: not at all.
func (r *refusals) wait(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := r.until.Sub(now); wait > 0 && wait <= longestPause { // or the clock was set back
		return wait
	}
	return 0
}

func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n, r.until = 0, time.Time{}
}

// rootDSE is what a server says about itself (RFC 4512 section 5.1).
type rootDSE struct {
	ad, paged              bool
	naming, configurations string // of an Active Directory: where its entries and its settings are
}

func readRootDSE(ctx context.Context, c *ldapConn) (rootDSE, error) {
	found, err := c.search(ctx, ldapQuery{
		scope: ldap.ScopeBaseObject, filter: "(objectClass=*)",
		attributes: []string{"supportedCapabilities", "supportedControl", "defaultNamingContext", "configurationNamingContext"},
	})
	if err != nil || len(found) == 0 {
		return rootDSE{}, err // a server may keep it to itself
	}
	e := found[0]
	has := func(attribute string, oids ...string) bool {
		return slices.ContainsFunc(e.GetEqualFoldAttributeValues(attribute), func(v string) bool {
			return slices.Contains(oids, strings.TrimSpace(v))
		})
	}
	return rootDSE{
		ad:             has("supportedCapabilities", capabilityAD, capabilityADLS),
		paged:          has("supportedControl", ldap.ControlTypePaging),
		naming:         e.GetEqualFoldAttributeValue("defaultNamingContext"),
		configurations: e.GetEqualFoldAttributeValue("configurationNamingContext"),
	}, nil
}
