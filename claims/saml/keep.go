package saml

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
)

// When metadata is read.
const (
	defaultRefresh = time.Hour
	leastRefresh   = time.Minute // whatever cacheDuration says
	firstRetry     = 250 * time.Millisecond
	lastRetry      = 15 * time.Second // while nothing is known
	slowRetry      = 5 * time.Minute  // while the last good one holds
	askInterval    = 10 * time.Second // at most one reading in it that a message asked for
	readTimeout    = time.Minute      // of one reading; federations are large
	storeTimeout   = 5 * time.Second
	savedAnew      = time.Hour // how old the saved copy of unchanged metadata gets
)

// keeper holds the last good metadata of one provider and keeps it fresh. What
// is no metadata, or another's, never takes its place.
type keeper struct {
	cfg     claims.SAMLConfig
	trusted *x509.Certificate // who signs the metadata; nil: nobody has to
	client  *http.Client
	cache   Cache
	log     *zap.Logger
	now     func() time.Time
	least   time.Duration // between two readings of the background
	wake    chan struct{}

	have atomic.Pointer[known] // even when expired: it pins who the provider is

	mu       sync.Mutex
	restored bool      // the cache was read
	asked    time.Time // when a message last made us read
	err      error     // of the last reading
	running  *reading
	saved    time.Time
	warned   map[string]int // days by what was warned about
}

// known is metadata that was read.
type known struct {
	*entity
	read time.Time
}

type reading struct {
	done chan struct{}
	err  error
}

// current is the metadata that holds now, nil when there is none.
func (k *keeper) current() *known {
	if e := k.have.Load(); e != nil && !e.expired(k.now()) {
		return e
	}
	return nil
}

// entity answers the metadata, having it read when nothing holds.
func (k *keeper) entity(ctx context.Context) (*known, error) {
	if e := k.current(); e != nil {
		return e, nil
	}
	k.restore(ctx)
	if e := k.current(); e != nil {
		return e, nil
	}
	err := k.renew(ctx, k.have.Load())
	if e := k.current(); e != nil {
		return e, nil
	}
	if err == nil {
		err = errors.New("the metadata has expired (validUntil)")
	}
	return nil, err
}

// renew has the metadata read because a message fits nothing of before, when
// the interval allows it: what anybody can send must not become a stream of
// requests to the provider. It answers the error of the latest reading.
func (k *keeper) renew(ctx context.Context, before *known) error {
	k.mu.Lock()
	if k.have.Load() != before { // somebody brought another meanwhile
		k.mu.Unlock()
		return nil
	}
	r := k.running
	if r == nil {
		now := k.now()
		if !k.asked.IsZero() && now.Sub(k.asked) < askInterval {
			defer k.mu.Unlock()
			return k.err
		}
		k.asked = now
		r = k.start()
	}
	k.mu.Unlock()
	return r.wait(ctx)
}

// load reads the metadata now. It is for callers that no message drives.
func (k *keeper) load(ctx context.Context) error {
	k.mu.Lock()
	r := k.running
	if r == nil {
		r = k.start()
	}
	k.mu.Unlock()
	return r.wait(ctx)
}

func (r *reading) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start begins a reading that belongs to no caller. The lock is held.
func (k *keeper) start() *reading {
	r := &reading{done: make(chan struct{})}
	k.running = r
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		defer cancel()
		e, err := k.read(ctx)
		if err == nil {
			k.install(ctx, e)
		}
		k.mu.Lock()
		k.err, r.err, k.running = err, err, nil
		k.mu.Unlock()
		close(r.done)
	}()
	return r
}

// read reads and checks, and changes nothing.
func (k *keeper) read(ctx context.Context) (*entity, error) {
	in, err := k.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	e, err := readMetadata(in, k.cfg.IDPEntityID, k.trusted, k.now())
	if err != nil {
		return nil, err
	}
	// An address that begins to speak for another provider may have fallen
	// into other hands. A file is the administrator's own word.
	if before := k.have.Load(); before != nil && k.cfg.MetadataURL != "" && before.id != e.id {
		return nil, errors.New("the metadata names another provider than before: if that is meant, write its entity id as idp_entity_id")
	}
	return e, nil
}

func (k *keeper) open(ctx context.Context) (io.ReadCloser, error) {
	if k.cfg.MetadataURL == "" {
		return os.Open(k.cfg.MetadataFile)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.MetadataURL, nil)
	if err != nil {
		return nil, errors.New("metadata_url is not an address")
	}
	req.Header.Set("Accept", "application/samlmetadata+xml, application/xml, text/xml")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		if resp.StatusCode/100 == 3 {
			return nil, fmt.Errorf("metadata_url answered with status %d: write the address it leads to", resp.StatusCode)
		}
		return nil, fmt.Errorf("metadata_url answered with status %d", resp.StatusCode)
	}
	return resp.Body, nil
}

// install takes metadata in and saves it.
func (k *keeper) install(ctx context.Context, e *entity) {
	before := k.have.Swap(&known{e, k.now()})
	changed := before == nil || !reflect.DeepEqual(before.entity, e)
	if before != nil && changed {
		k.log.Info("the provider's metadata changed", zap.Int("certificates", len(e.keys)))
	}
	k.mu.Lock()
	due := changed || k.now().Sub(k.saved) >= savedAnew
	k.mu.Unlock()
	if k.cache == nil || !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	raw, err := json.Marshal(k.record(e))
	if err == nil {
		err = k.cache.Save(ctx, raw)
	}
	if err != nil {
		k.log.Warn("the provider's metadata is not saved: it would not outlive a restart", zap.Error(err))
		return
	}
	k.mu.Lock()
	k.saved = k.now()
	k.mu.Unlock()
}

// run keeps the metadata fresh until the context ends.
func (k *keeper) run(ctx context.Context) {
	k.restore(ctx)
	for first, fails := true, 0; ; {
		err := k.load(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := k.next()
		switch {
		case err != nil:
			wait = k.retry(fails)
			k.complain(err, wait)
			fails++
		case first:
			k.log.Info("source is ready")
			first, fails = false, 0
		case fails > 0:
			k.log.Info("the provider's metadata can be read again")
			fails = 0
		}
		k.warn()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// next is how long the metadata may be used before it is read again: half of
// what is left of it leaves time for failures.
func (k *keeper) next() time.Duration {
	wait := k.cfg.MetadataRefresh
	if wait <= 0 {
		wait = defaultRefresh
	}
	if e := k.have.Load(); e != nil {
		if e.cache > 0 {
			wait = min(wait, e.cache)
		}
		if !e.validUntil.IsZero() {
			wait = min(wait, e.validUntil.Sub(k.now())/2)
		}
	}
	return max(wait, k.least)
}

// retry is how long to wait after the readings that failed in a row.
func (k *keeper) retry(fails int) time.Duration {
	longest := lastRetry
	if k.current() != nil {
		longest = slowRetry
	}
	return min(firstRetry<<min(fails, 20), longest)
}

func (k *keeper) complain(err error, wait time.Duration) {
	fields := []zap.Field{zap.Duration("retry_in", wait), zap.Error(err)}
	e := k.current()
	switch {
	case e == nil:
		k.log.Warn("source is not ready", fields...)
	case e.validUntil.IsZero():
		k.log.Warn("the provider's metadata cannot be read; the last good one stays", append(fields, zap.Time("read", e.read))...)
	default:
		k.log.Warn("the provider's metadata cannot be read; the last good one stays while it is valid",
			append(fields, zap.Time("read", e.read), zap.Time("valid_until", e.validUntil))...)
	}
}
