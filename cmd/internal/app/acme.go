package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// acmeProtocol is what an authority asks for when it looks whether we are who
// we say (RFC 8737).
const acmeProtocol = acme.ALPNProto

const (
	// orderTime is how long one order may take, and leaseTime how long other
	// replicas keep their hands off the host meanwhile.
	orderTime, leaseTime = 4 * time.Minute, 5 * time.Minute
	// firstRetry is after an authority that cannot be reached, refusedRetry after
	// one that said no: those count how often. Each doubles up to maxRetry.
	firstRetry, refusedRetry, maxRetry = time.Second, 5 * time.Minute, time.Hour
	// acmePoll is how often the store is asked what other replicas brought,
	// acmeWait while a certificate is missing.
	acmePoll, acmeWait = time.Minute, 2 * time.Second
)

// issuer gets certificates by ACME (RFC 8555) and renews them when two thirds
// of their life are over. A handshake never makes it ask for one: it knows the
// hosts from the configuration, and works in the background. Account, keys and
// certificates are kept in the store, encrypted with the session keys: a
// restart asks for nothing, and what one replica brought all have. One replica
// at a time asks for a host, by a lease, and all can answer the authority's
// connection, because the answer is in the store as well.
type issuer struct {
	store groups.Store
	log   *zap.Logger

	mu      sync.Mutex
	set     *issuing // nil without ACME
	have    map[string]*issued
	wake    chan struct{}
	retries map[string]*retry
}

// issuing is what a configuration says of ACME. It never changes.
type issuing struct {
	cfg    proxy.ACMEConfig
	keys   [][]byte // of the session
	client atomic.Pointer[acme.Client]
}

// issued is a certificate as it is kept.
type issued struct {
	Directory string   `json:"directory"`
	Chain     [][]byte `json:"chain"`
	Key       []byte   `json:"key"` // PKCS 8

	cert *tls.Certificate
}

// retry is when a host that failed is tried again, and why it failed.
type retry struct {
	after time.Time
	wait  time.Duration
	err   error
}

// prepare makes ready for a configuration, with the certificates that the store
// has already. Nothing changes until swap is called.
func (i *issuer) prepare(ctx context.Context, cfg *proxy.ACMEConfig, keys [][]byte) (swap func(), err error) {
	if cfg == nil {
		return func() { i.swap(nil, nil) }, nil
	}
	next := &issuing{cfg: *cfg, keys: keys}
	have := map[string]*issued{}
	for _, host := range cfg.Hosts {
		kept, err := i.load(ctx, next, host)
		if err != nil {
			return nil, fmt.Errorf("tls.acme: %w", err)
		}
		if kept != nil {
			have[host] = kept
		}
	}
	return func() { i.swap(next, have) }, nil
}

func (i *issuer) swap(next *issuing, have map[string]*issued) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.set == nil || next == nil || !reflect.DeepEqual(i.set.cfg, next.cfg) {
		i.retries = map[string]*retry{} // what failed may be what was changed
	}
	if next != nil {
		for _, host := range next.cfg.Hosts {
			if have[host] == nil && i.have[host] != nil {
				have[host] = i.have[host] // it could not be kept
			}
		}
	}
	i.set, i.have = next, have
	select {
	case i.waker() <- struct{}{}:
	default: // it is awake
	}
}

// waker is made on demand, because the zero issuer does nothing. The lock is
// held.
func (i *issuer) waker() chan struct{} {
	if i.wake == nil {
		i.wake = make(chan struct{}, 1)
	}
	return i.wake
}

// certificate answers a host's certificate, or that there is none.
func (i *issuer) certificate(host string) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.have[host]; c != nil {
		return c.cert, nil
	}
	return nil, errors.New("the authority has not issued a certificate for that name yet")
}

// lacks says for which hosts there is no certificate, and why. It does not make
// us unready: a balancer that sent nobody here would keep the authority out as
// well, and no certificate would ever come.
func (i *issuer) lacks() (all []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.set == nil {
		return nil
	}
	for _, host := range i.set.cfg.Hosts {
		if i.have[host] != nil {
			continue
		}
		line := "no certificate yet for " + host
		switch r := i.retries[host]; {
		case r == nil:
		case refusal(r.err):
			line += ": the authority refused, see the log"
		default:
			line += ": the authority cannot be reached, see the log"
		}
		all = append(all, line)
	}
	return all
}

// run gets and renews until the context ends.
func (i *issuer) run(ctx context.Context) {
	i.mu.Lock()
	wake := i.waker()
	i.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		timer.Reset(i.round(ctx))
	}
}

// round looks at every host, and answers when to do so again.
func (i *issuer) round(ctx context.Context) time.Duration {
	i.mu.Lock()
	set := i.set
	i.mu.Unlock()
	if set == nil {
		return acmePoll
	}
	again := acmePoll
	for _, host := range set.cfg.Hosts {
		i.look(ctx, set, host)
		due := acmeWait
		i.mu.Lock()
		if c := i.have[host]; c != nil && !c.due(set, i.store.Now()) {
			due = c.renewal().Sub(i.store.Now())
		}
		if r := i.retries[host]; r != nil {
			due = min(due, r.after.Sub(i.store.Now()))
		}
		i.mu.Unlock()
		again = min(again, max(due, 0))
	}
	return again + 50*time.Millisecond
}

// look takes what another replica brought, or gets a certificate if it is time.
func (i *issuer) look(ctx context.Context, set *issuing, host string) {
	kept, err := i.load(ctx, set, host)
	if err == nil && kept != nil {
		i.take(set, host, kept)
	}
	i.mu.Lock()
	current, r := i.have[host], i.retries[host]
	i.mu.Unlock()
	now := i.store.Now()
	if err == nil && (current != nil && !current.due(set, now) || r != nil && now.Before(r.after)) {
		return
	}
	if err == nil {
		err = i.alone(ctx, set, host)
	}
	i.note(ctx, set, host, err)
}

// take puts a certificate into use, unless the configuration is another by now.
func (i *issuer) take(set *issuing, host string, c *issued) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.set == set {
		i.have[host] = c
	}
}

// note writes down what came of an attempt.
func (i *issuer) note(ctx context.Context, set *issuing, host string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.set != set || ctx.Err() != nil || errors.Is(err, errOthers):
		return
	case err == nil:
		delete(i.retries, host)
		i.log.Info("certificate issued", zap.String("host", host), zap.Time("expires", i.have[host].cert.Leaf.NotAfter))
		return
	}
	r := i.retries[host]
	if r == nil {
		r = &retry{}
		i.retries[host] = r
	}
	least := firstRetry
	if refusal(err) {
		least = refusedRetry
		set.client.Store(nil) // it may be the account that the authority does not know any more
	}
	r.wait = min(max(2*r.wait, least), maxRetry)
	if limit, limited := rateLimit(err); limited {
		r.wait = max(r.wait, limit)
	}
	r.after, r.err = i.store.Now().Add(r.wait), err
	i.log.Error("no certificate issued", zap.String("host", host), zap.Duration("retry", r.wait), zap.Error(err))
}

// errOthers is an attempt that was not made, because another replica is at it.
var errOthers = errors.New("another replica is asking for this certificate")

// alone gets a certificate while no other replica does.
func (i *issuer) alone(ctx context.Context, set *issuing, host string) error {
	lease := groups.Lease{Name: "acme/" + host, Holder: rand.Text(), Until: i.store.Now().Add(leaseTime)}
	err := i.store.Update(ctx, func(tx groups.Tx) error {
		mine, err := tx.TakeLease(ctx, lease, i.store.Now())
		if err == nil && !mine {
			err = errOthers
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func(ctx context.Context) {
		// What is not given back runs out.
		_ = i.store.Update(ctx, func(tx groups.Tx) error { return tx.DropLease(ctx, lease.Name, lease.Holder) })
	}(context.WithoutCancel(ctx))
	// It may have come while we waited for the lease.
	if kept, err := i.load(ctx, set, host); err != nil || kept != nil && !kept.due(set, i.store.Now()) {
		if err == nil {
			i.take(set, host, kept)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	fresh, err := i.order(ctx, set, host)
	if err != nil {
		return err
	}
	i.take(set, host, fresh) // it works, whether it can be kept or not
	return i.save(ctx, set, "certificate/"+host, fresh)
}

// renewal is when two thirds of a certificate's life are over.
func (c *issued) renewal() time.Time {
	life := c.cert.Leaf.NotAfter.Sub(c.cert.Leaf.NotBefore)
	return c.cert.Leaf.NotBefore.Add(life * 2 / 3)
}

func (c *issued) due(set *issuing, now time.Time) bool {
	return c.Directory != set.cfg.Directory || !now.Before(c.renewal())
}

// load reads a host's certificate from the store; nil when there is none that
// is good for anything.
func (i *issuer) load(ctx context.Context, set *issuing, host string) (*issued, error) {
	c := &issued{}
	if found, err := i.read(ctx, set, "certificate/"+host, c); err != nil || !found {
		return nil, err
	}
	if err := c.parse(host); err != nil {
		return nil, nil //nolint:nilerr // it is asked for anew
	}
	return c, nil
}

// read opens what save sealed. What no session key opens is as good as lost.
func (i *issuer) read(ctx context.Context, set *issuing, use string, into any) (found bool, err error) {
	raw, err := i.store.Meta(ctx, "acme/"+use)
	if errors.Is(err, groups.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var sealed []byte
	if json.Unmarshal(raw, &sealed) != nil {
		return false, nil
	}
	plain, err := proxy.OpenTLSKey(set.keys, use, sealed)
	if err != nil {
		return false, nil //nolint:nilerr // as said
	}
	if _, err := proxy.OpenTLSKey(set.keys[:1], use, sealed); err != nil {
		// The key that opened it is about to go.
		if err := i.seal(ctx, set, use, plain); err != nil {
			return false, err
		}
	}
	return json.Unmarshal(plain, into) == nil, nil
}

// save encrypts a value and keeps it.
func (i *issuer) save(ctx context.Context, set *issuing, use string, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return i.seal(ctx, set, use, plain)
}

func (i *issuer) seal(ctx context.Context, set *issuing, use string, plain []byte) error {
	sealed, err := proxy.SealTLSKey(set.keys, use, plain)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(sealed)
	if err != nil {
		return err
	}
	return i.store.Update(ctx, func(tx groups.Tx) error { return tx.PutMeta(ctx, "acme/"+use, raw) })
}

// challenge answers the certificate that proves to an authority who we are. It
// may be another replica that the authority was told of.
func (i *issuer) challenge(ctx context.Context, host string) (*tls.Certificate, error) {
	i.mu.Lock()
	set := i.set
	i.mu.Unlock()
	if set == nil || !slices.Contains(set.cfg.Hosts, host) {
		return nil, errors.New("no certificate is being asked for")
	}
	c := &issued{}
	found, err := i.read(ctx, set, "challenge/"+host, c)
	if err != nil {
		return nil, err
	}
	if !found || c.pair() != nil {
		return nil, errors.New("no certificate is being asked for")
	}
	return c.cert, nil
}
