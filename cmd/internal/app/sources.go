package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/saml"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
	"github.com/groupgate/groupgate/proxy/admin"
)

// sources are the running sources. One whose configuration did not change
// lives on through a reload, with what it knows about its provider.
type sources struct {
	ctx   context.Context // ends with the process
	store groups.Store
	dir   *groups.Directory
	log   *zap.Logger

	cfg     atomic.Pointer[config.Config] // in force
	mu      sync.Mutex
	entries []*sourceEntry
}

type sourceEntry struct {
	made     made
	protocol string
	source   claims.Source
	stop     context.CancelFunc // what it does in the background
}

// made is all that a source is made of.
type made struct {
	cfg         claims.Config
	at          string // the prefix of our addresses
	certificate string // ours, DER
	authorities string // what the file of a directory's authorities holds
}

// prepare makes the sources of a configuration. Those in force stay so until
// settle says that it is: what is not taken over ends then, and what was made
// in vain ends otherwise.
func (l *sources) prepare(ctx context.Context, cfg *config.Config, keys [][]byte) (out []proxy.SourceEntry, settle func(inForce bool), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next, started []*sourceEntry
	settle = func(inForce bool) { l.settle(inForce, cfg, next, started) }
	for _, c := range cfg.Sources {
		e, fresh, err := l.entry(ctx, cfg, c, keys)
		if err != nil {
			for _, e := range started {
				e.stop()
			}
			return nil, nil, fmt.Errorf("source %s: %w", c.Name, err)
		}
		if fresh {
			started = append(started, e)
		}
		next = append(next, e)
		out = append(out, proxy.SourceEntry{Source: e.source, Label: c.Label, Protocol: e.protocol})
	}
	return out, settle, nil
}

func (l *sources) settle(inForce bool, cfg *config.Config, next, started []*sourceEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !inForce {
		for _, e := range started {
			e.stop()
		}
		return
	}
	l.cfg.Store(cfg)
	for _, e := range l.entries {
		if !slices.Contains(next, e) {
			e.stop()
		} else if s, ok := e.source.(claims.Rereader); ok {
			s.Reread() // contract section 3: a reload asks at once
		}
	}
	l.entries = next
}

// entry answers the source that runs already, or a fresh one, started.
func (l *sources) entry(ctx context.Context, cfg *config.Config, c claims.Config, keys [][]byte) (e *sourceEntry, fresh bool, err error) {
	of := made{cfg: c, at: cfg.PublicURL + cfg.Prefix}
	var own pair
	if c.SAML != nil {
		if own, err = ownPair(ctx, c.Name, c.SAML, cfg.PublicURL, keys, l.store, l.log); err != nil {
			return nil, false, err
		}
		of.certificate = string(own.certificate.Raw)
	}
	if c.LDAP != nil && c.LDAP.CAFile != "" {
		authorities, err := os.ReadFile(c.LDAP.CAFile)
		if err != nil {
			return nil, false, err
		}
		of.authorities = string(authorities)
	}
	for _, e := range l.entries {
		if reflect.DeepEqual(e.made, of) {
			return e, false, nil
		}
	}
	e = &sourceEntry{made: of}
	needed := func() []string { return needed(l.inForce(cfg), l.dir, c.Name) }
	switch {
	case c.SAML != nil:
		e.protocol = "saml"
		e.source, err = saml.New(saml.Options{
			Name: c.Name, Config: *c.SAML, Origin: cfg.PublicURL, Prefix: cfg.Prefix, Key: own.key, Certificate: own.certificate,
			Needed: needed, Cache: newMetadataCache(l.store, c.Name), Log: l.log, Now: l.dir.Now,
		})
	case c.LDAP != nil:
		e.protocol = "ldap"
		e.source, err = claims.NewLDAP(claims.LDAPOptions{Name: c.Name, Config: *c.LDAP, Needed: needed, Log: l.log, Now: l.dir.Now})
	case c.Local != nil:
		e.protocol = "local"
		e.source = claims.NewLocal(claims.LocalOptions{Name: c.Name, Config: *c.Local, Accounts: l.dir, Log: l.log, Now: l.dir.Now})
	default:
		e.protocol = "oidc"
		e.source = claims.NewOIDC(claims.OIDCOptions{Name: c.Name, Config: *c.OIDC, Log: l.log, Needed: needed, Now: l.dir.Now})
	}
	if err != nil {
		return nil, false, err
	}
	background, stop := context.WithCancel(l.ctx)
	e.stop = stop
	if c, ok := e.source.(io.Closer); ok {
		e.stop = func() { stop(); _ = c.Close() } // what is under way goes on to its end
	}
	if s, ok := e.source.(claims.Starter); ok {
		s.Start(background)
	}
	return e, true, nil
}

// inForce is the configuration in force; before there is one, the one that is
// about to be.
func (l *sources) inForce(next *config.Config) *config.Config {
	if now := l.cfg.Load(); now != nil {
		return now
	}
	return next
}

func (l *sources) status() []admin.SourceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []admin.SourceStatus
	for _, e := range l.entries {
		st := admin.SourceStatus{Name: e.made.cfg.Name, Label: e.made.cfg.Label, Kind: e.protocol, Ready: true}
		if s, ok := e.source.(interface{ Ready() error }); ok {
			if err := s.Ready(); err != nil {
				st.Ready, st.Problem = false, err.Error()
			}
		}
		if s, ok := e.source.(claims.Expirer); ok {
			st.CertificateExpires, st.MetadataExpires = s.Expires()
		}
		if s, ok := e.source.(claims.Ager); ok {
			if age, known := s.MetadataAge(l.dir.Now()); known {
				seconds := int64(age / time.Second)
				st.MetadataAge = &seconds
			}
		}
		out = append(out, st)
	}
	return out
}

// each calls fn for every running source.
func (l *sources) each(fn func(name string, src claims.Source)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		fn(e.made.cfg.Name, e.source)
	}
}

// ready is nil when somebody can sign in at some source, as far as it can be
// known without trying. A source that is asked on demand counts: whether it
// answers again only those would find out who are sent here.
func (l *sources) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var problems []error
	for _, e := range l.entries {
		s, starts := e.source.(claims.Starter)
		if !starts {
			return nil
		}
		err := s.Ready()
		if err == nil {
			return nil
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func (l *sources) test(ctx context.Context, name string) (string, error) {
	src := l.named(name)
	if _, local := src.(*claims.Local); local {
		return countLocal(ctx, l.dir, name)
	}
	probe, ok := src.(claims.Prober)
	if !ok {
		return "", fmt.Errorf("source %q: %w", name, groups.ErrNotFound)
	}
	return probe.Probe(ctx)
}

// named is the running source of that name, or nil.
func (l *sources) named(name string) claims.Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.made.cfg.Name == name {
			return e.source
		}
	}
	return nil
}

// find looks a person up in a source that can be asked.
func (l *sources) find(ctx context.Context, name, person string) (*claims.Found, error) {
	finder, ok := l.named(name).(claims.Finder)
	if !ok {
		return nil, fmt.Errorf("source %q: %w", name, groups.ErrNotFound)
	}
	return finder.Find(ctx, person)
}
