package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
	"github.com/groupgate/groupgate/proxy/admin"
)

// sources are the running sources. One whose configuration did not change
// lives on through a reload, with what it knows about its provider.
type sources struct {
	start func(claims.Starter)

	cfg     atomic.Pointer[config.Config] // the newest
	mu      sync.Mutex
	entries []sourceEntry
}

type sourceEntry struct {
	cfg    claims.Config
	source claims.Source
}

func (l *sources) build(cfg *config.Config, dir *groups.Directory, log *zap.Logger) []proxy.SourceEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Store(cfg)
	var next []sourceEntry
	var out []proxy.SourceEntry
	for _, c := range cfg.Sources {
		src := l.running(c)
		if src == nil {
			src = claims.NewOIDC(claims.OIDCOptions{
				Name: c.Name, Config: *c.OIDC, Log: log,
				Needed: func() []string { return needed(l.cfg.Load(), dir, c.Name) },
			})
			if s, ok := src.(claims.Starter); ok {
				l.start(s)
			}
		}
		next = append(next, sourceEntry{c, src})
		out = append(out, proxy.SourceEntry{Source: src, Label: c.Label, Protocol: "oidc"})
	}
	l.entries = next
	return out
}

func (l *sources) running(c claims.Config) claims.Source {
	for _, e := range l.entries {
		if reflect.DeepEqual(e.cfg, c) {
			return e.source
		}
	}
	return nil
}

func (l *sources) status() []admin.SourceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []admin.SourceStatus
	for _, e := range l.entries {
		st := admin.SourceStatus{Name: e.cfg.Name, Label: e.cfg.Label, Kind: "oidc", Ready: true}
		if s, ok := e.source.(claims.Starter); ok {
			if err := s.Ready(); err != nil {
				st.Ready, st.Problem = false, err.Error()
			}
		}
		out = append(out, st)
	}
	return out
}

// ages is how long ago each source last read what it checks statements with.
func (l *sources) ages(now time.Time) map[string]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]time.Duration{}
	for _, e := range l.entries {
		if s, ok := e.source.(claims.Ager); ok {
			if age, known := s.MetadataAge(now); known {
				out[e.cfg.Name] = age
			}
		}
	}
	return out
}

func (l *sources) ready() error {
	var problems []error
	for _, st := range l.status() {
		if st.Ready {
			return nil
		}
		problems = append(problems, errors.New(st.Problem))
	}
	return errors.Join(problems...)
}

func (l *sources) test(ctx context.Context, name string) (string, error) {
	l.mu.Lock()
	var probe claims.Prober
	for _, e := range l.entries {
		if e.cfg.Name == name {
			probe, _ = e.source.(claims.Prober)
		}
	}
	l.mu.Unlock()
	if probe == nil {
		return "", fmt.Errorf("source %q: %w", name, groups.ErrNotFound)
	}
	return probe.Probe(ctx)
}
