package app

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/proxy"
)

// certificates are what the public listener shows. Which one is decided anew
// for every handshake, so a changed file needs no new connection of anybody.
type certificates struct {
	current atomic.Pointer[certSet]
	acme    issuer

	mu     sync.Mutex
	warned map[[32]byte]time.Duration // by certificate: the last warning was about this much life left
}

// certSet is the certificates of one configuration. It never changes.
type certSet struct {
	global   *tls.Certificate            // nil with ACME
	fallback string                      // with ACME: the host whose certificate is shown for a name that is nobody's
	own      map[string]*tls.Certificate // of a route's host
	issued   map[string]bool             // hosts that ACME is for
	covers   map[string]*tls.Certificate // by name, also "*.example.com", of all that files hold
}

// readCertificates reads the files a configuration names.
func readCertificates(cfg *config.Config) (*certSet, error) {
	set := &certSet{own: map[string]*tls.Certificate{}, issued: map[string]bool{}, covers: map[string]*tls.Certificate{}}
	read := func(t proxy.TLSConfig) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", filepath.Base(t.CertFile), err)
		}
		for _, name := range pair.Leaf.DNSNames {
			if name = strings.ToLower(name); set.covers[name] == nil {
				set.covers[name] = &pair
			}
		}
		return &pair, nil
	}
	var err error
	if a := cfg.TLS.ACME; a != nil {
		for _, host := range a.Hosts {
			set.issued[host] = true
		}
		set.fallback = a.Hosts[0]
	} else if set.global, err = read(cfg.TLS.TLSConfig); err != nil {
		return nil, err
	}
	for _, r := range cfg.Routes {
		if r.TLS.CertFile == "" {
			continue
		}
		if set.own[proxy.Hostname(r.Host)], err = read(r.TLS); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// prepare makes a configuration's certificates ready. What it answers shows them.
func (c *certificates) prepare(ctx context.Context, cfg *config.Config, keys [][]byte) (show func(), err error) {
	if !cfg.TLS.On() || c.current.Load() == nil { // the listener is what it was at the start
		return func() {}, nil
	}
	set, err := readCertificates(cfg)
	if err != nil {
		return nil, err
	}
	swap, err := c.acme.prepare(ctx, cfg.TLS.ACME, keys)
	if err != nil {
		return nil, err
	}
	return func() { swap(); c.current.Store(set) }, nil
}

// run keeps certificates from running out, or says that they do.
func (c *certificates) run(ctx context.Context, publicURL func() string, log *zap.Logger) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { c.acme.run(ctx) })
	look := time.NewTicker(time.Minute)
	defer look.Stop()
	for {
		c.warn(publicURL(), time.Now(), log)
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// get answers the certificate for a handshake: the route's own, else that of
// ACME, else any whose names have the host, itself before a wildcard (RFC 9525
// section 6.3: one label), else the global one. That one is for clients that
// name no host, or a name of the network's such as that of a Kubernetes
// service; which hosts there are is not told by whom we refuse, and a request
// for a host that is none of ours ends at 421.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := c.current.Load()
	if set == nil {
		return nil, errors.New("no certificate yet")
	}
	name := strings.ToLower(hello.ServerName)
	if slices.Contains(hello.SupportedProtos, acmeProtocol) {
		if !set.issued[name] {
			return nil, errors.New("nobody asked for a certificate for that name")
		}
		return c.acme.challenge(hello.Context(), name)
	}
	if own := set.own[name]; own != nil {
		return own, nil
	}
	if set.issued[name] {
		return c.acme.certificate(name)
	}
	if fits := set.covers[name]; fits != nil {
		return fits, nil
	}
	if _, parent, ok := strings.Cut(name, "."); ok && set.covers["*."+parent] != nil {
		return set.covers["*."+parent], nil
	}
	if set.global != nil {
		return set.global, nil
	}
	return c.acme.certificate(set.fallback)
}

// expiries says when each certificate in use runs out: by route or ACME host;
// the global one stands for the host of public_url. What ACME has not brought
// yet is the zero time.
func (c *certificates) expiries(publicURL string) map[string]time.Time {
	ends := map[string]time.Time{}
	for host, cert := range c.inUse(publicURL) {
		ends[host] = time.Time{}
		if cert != nil {
			ends[host] = cert.Leaf.NotAfter
		}
	}
	return ends
}

func (c *certificates) inUse(publicURL string) map[string]*tls.Certificate {
	set := c.current.Load()
	if set == nil {
		return nil
	}
	all := maps.Clone(set.own)
	for host := range set.issued {
		if all[host] == nil {
			all[host], _ = c.acme.certificate(host) // nil is the answer
		}
	}
	if set.global != nil {
		_, host, _ := strings.Cut(publicURL, "://")
		all[proxy.Hostname(host)] = set.global
	}
	return all
}

const day = 24 * time.Hour

// warn writes down what is about to run out: once at each of 30, 14 and 7 days,
// and at the end. A time that is not well within a certificate's life says
// nothing about one that is renewed every few days.
func (c *certificates) warn(publicURL string, now time.Time, log *zap.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned == nil {
		c.warned = map[[32]byte]time.Duration{}
	}
	for host, cert := range c.inUse(publicURL) {
		if cert == nil {
			continue
		}
		stage, due := expiryStage(cert.Leaf, now)
		key := sha256.Sum256(cert.Leaf.Raw)
		if last, told := c.warned[key]; !due || told && last <= stage {
			continue
		}
		c.warned[key] = stage
		fields := []zap.Field{zap.String("host", host), zap.Time("expires", cert.Leaf.NotAfter)}
		if stage <= 0 {
			log.Error("a certificate has expired: browsers refuse it", fields...)
		} else {
			log.Warn("a certificate runs out soon", append(fields, zap.Int("days", int(cert.Leaf.NotAfter.Sub(now)/day)))...)
		}
	}
}

// expiryStage is the least of the times to warn at that a certificate has
// passed: 0 when it has expired.
func expiryStage(leaf *x509.Certificate, now time.Time) (stage time.Duration, due bool) {
	left, life := leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)
	for _, stage := range []time.Duration{0, 7 * day, 14 * day, 30 * day} {
		if left <= stage && 3*stage < life {
			return stage, true
		}
	}
	return 0, false
}
