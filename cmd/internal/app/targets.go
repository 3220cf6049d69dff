package app

import (
	"context"
	"errors"
	"io"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/kaltura"
	"github.com/groupgate/groupgate/groups/scim"
	"github.com/groupgate/groupgate/groups/webhook"
	"github.com/groupgate/groupgate/proxy/admin"
)

// targets are the running targets. One whose configuration did not change lives
// on through a reload.
type targets struct {
	mu  sync.Mutex
	all []madeTarget
}

type madeTarget struct {
	cfg    config.TargetConfig
	target probedTarget
}

// probedTarget is a target that can be reached without telling it anything.
type probedTarget interface {
	groups.Target
	io.Closer
	Probe(ctx context.Context) (string, error)
}

func newTarget(c config.TargetConfig) (probedTarget, error) {
	switch {
	case c.SCIM != nil:
		return scim.New(*c.SCIM), nil
	case c.Kaltura != nil:
		return kaltura.New(*c.Kaltura), nil
	default:
		return webhook.New(*c.Webhook)
	}
}

// set makes a configuration's targets the ones that are told. What is wrong
// with one was found before: targets are made of what check has seen.
func (l *targets) set(cfg *config.Config, d *groups.Directory, log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next []madeTarget
	var entries []groups.TargetEntry
	kept := map[probedTarget]bool{}
	for _, c := range cfg.Targets {
		t, err := l.made(c)
		if err != nil {
			log.Error("target not made", zap.String("target", c.Name), zap.Error(err))
			continue
		}
		kept[t] = true
		next = append(next, madeTarget{c, t})
		entries = append(entries, groups.TargetEntry{Name: c.Name, Target: t, Wait: c.Wait})
	}
	d.SetTargets(entries)
	for _, old := range l.all {
		if !kept[old.target] {
			_ = old.target.Close() // idle connections, nothing else
		}
	}
	l.all = next
}

// made is the target that runs already, or another.
func (l *targets) made(c config.TargetConfig) (probedTarget, error) {
	for _, old := range l.all {
		if old.cfg.Name == c.Name && reflect.DeepEqual(old.cfg, c) {
			return old.target, nil
		}
	}
	return newTarget(c)
}

// status is what the console and the API show.
func (s *server) targetStatus() []admin.TargetStatus {
	var out []admin.TargetStatus
	for _, c := range s.cfg.Load().Targets {
		st := admin.TargetStatus{Name: c.Name, Kind: c.Kind()}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		b, err := s.dir.Store().Backlog(ctx, c.Name)
		if err == nil {
			st.Waiting, st.Parked, st.Oldest = b.Waiting, b.Parked, b.Oldest
			var failed []groups.Work
			if failed, err = s.dir.Store().FailedWork(ctx, c.Name, 1); err == nil && len(failed) > 0 {
				st.Problem = failed[0].Reason
			}
		}
		cancel()
		if err != nil {
			st.Problem = groups.ErrUnavailable.Error()
		}
		out = append(out, st)
	}
	return out
}

// targetMetrics is what is known of each target.
func (s *server) targetMetrics(out samples) {
	for _, c := range s.cfg.Load().Targets {
		if n := s.dir.PushStats(c.Name); n != nil {
			out.count(targetPushes, n.OK.Load(), c.Name, "ok")
			out.count(targetPushes, n.Failed.Load(), c.Name, "failed")
			out.count(targetPushes, n.Refused.Load(), c.Name, "refused")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		b, err := s.dir.Store().Backlog(ctx, c.Name)
		cancel()
		if err != nil {
			continue // store_healthy says so
		}
		out.gauge(targetWaiting, float64(b.Waiting), c.Name)
		out.gauge(targetParked, float64(b.Parked), c.Name)
		age := 0.0
		if !b.Oldest.IsZero() {
			age = max(s.dir.Now().Sub(b.Oldest).Seconds(), 0)
		}
		out.gauge(targetOldest, age, c.Name)
	}
}

// probeTarget reaches a target as a running one would.
func probeTarget(ctx context.Context, c config.TargetConfig) (detail string, err error) {
	t, err := newTarget(c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return t.Probe(ctx)
}
