package app

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/proxy"
)

// certificates are picked by server name: a portal's own, else the global one.
type certificates struct {
	current atomic.Pointer[certSet]
}

type certSet struct {
	global *tls.Certificate
	byHost map[string]*tls.Certificate
}

func (c *certificates) load(cfg *config.Config) error {
	set := &certSet{byHost: map[string]*tls.Certificate{}}
	read := func(t proxy.TLSConfig) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", filepath.Base(t.CertFile), err)
		}
		return &pair, nil
	}
	var err error
	if set.global, err = read(cfg.TLS); err != nil {
		return err
	}
	for _, r := range cfg.Routes {
		if r.TLS.CertFile == "" {
			continue
		}
		host, _, _ := strings.Cut(r.Host, ":")
		if set.byHost[strings.ToLower(host)], err = read(r.TLS); err != nil {
			return err
		}
	}
	c.current.Store(set)
	return nil
}

func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := c.current.Load()
	if own := set.byHost[strings.ToLower(hello.ServerName)]; own != nil {
		return own, nil
	}
	return set.global, nil
}
