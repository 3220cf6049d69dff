package app

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// grace is how long a stopping process waits for requests under way. With
	// drainDelay it fits into the 30 s that Kubernetes gives a pod.
	grace = 25 * time.Second
	// drainDelay is how long a process that is not ready any more goes on
	// taking connections: until those who balance by /readyz know.
	drainDelay = 3 * time.Second
	// balancedWithin is how recently somebody must have asked /readyz to be
	// taken for somebody who balances by it.
	balancedWithin = time.Minute
)

var (
	errForced = errors.New("stopped at once by a second signal")
	errCut    = errors.New("stopped, but not everything under way had ended")
)

// untilStopped runs until the context ends or a signal comes, and then until
// everything under way has ended. A second signal ends it at once.
func (s *server) untilStopped(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-signals:
		stop()
	}
	select {
	case err := <-ended:
		return err
	case <-signals:
		// What still runs ends with the process. The store takes that as it
		// takes kill -9.
		s.log.Warn("stopped at once", zap.Int64("requests_cut", s.inFlight()))
		return errForced
	}
}

func (s *server) inFlight() int64 {
	if !s.stopping.Load() {
		return 0 // not even begun
	}
	return s.proxy.InFlight()
}

// shutdown ends in order. From its first moment we are not ready. Listeners go
// on for drainDelay where somebody balances by that; then sockets get their
// close frame, event streams end, connections are refused and requests under
// way have the grace to end. The admin listener goes last: until then it says
// that we are not ready. An error says that something was cut.
func (s *server) shutdown(public, admin *http.Server) error {
	delay := time.Duration(0)
	if s.balanced.within(balancedWithin) {
		delay = drainDelay
	}
	s.stopping.Store(true)
	s.notify(notifyStopping)
	s.log.Info("stopping", zap.Duration("drain", delay), zap.Duration("grace", grace))
	time.Sleep(delay)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	s.proxy.EndLive()
	err := public.Shutdown(ctx)
	if err == nil {
		err = s.proxy.Drained(ctx) // Shutdown knows nothing of sockets
	}
	cut := int64(0)
	if err != nil {
		cut = s.proxy.InFlight()
		err = public.Close()
	}
	if adminErr := admin.Shutdown(ctx); adminErr != nil {
		cut++
		err = errors.Join(err, admin.Close())
	}
	if cut > 0 {
		s.log.Error("the grace is over", zap.Int64("requests_cut", cut))
		return errors.Join(errCut, err)
	}
	s.log.Info("stopped")
	return err
}

// retiring asks clients to come back on a new connection while we stop: that
// one leads to somebody else. HTTP/2 makes a GOAWAY of it. A handshake needs
// its Connection header for itself.
func (s *server) retiring(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() && r.Header["Upgrade"] == nil {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// lastAsked is when something was last asked, by a clock that nobody sets.
type lastAsked struct{ at atomic.Pointer[time.Time] }

func (l *lastAsked) note() {
	now := time.Now()
	l.at.Store(&now)
}

func (l *lastAsked) within(d time.Duration) bool {
	at := l.at.Load()
	return at != nil && time.Since(*at) < d
}
