// Package app wires groupgate together: it is the only place that knows every
// part. The commands and the demo are thin around it.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/config"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
	"github.com/groupgate/groupgate/proxy/admin"
)

// Version is set by the build.
var Version = "dev"

// server is one running groupgate.
type server struct {
	path string
	logs *loggers
	log  *zap.Logger

	cfg     atomic.Pointer[config.Config]
	store   groups.Store // nil: there is no directory
	dir     *groups.Directory
	proxy   *proxy.Proxy
	admin   *admin.Server
	certs   certificates
	token   atomic.Pointer[[32]byte]
	sources sources
	targets targets
	tracing tracing

	configured atomic.Bool // the first Configure is through
	stopping   atomic.Bool
	balanced   lastAsked
	reloadMu   sync.Mutex
	reloads    reloadState
}

// reloadState is for the metrics.
type reloadState struct {
	ok atomic.Bool
	at atomic.Int64 // Unix seconds
}

// Serve runs groupgate until the context ends or a signal asks it to stop. Log
// lines go to out.
func Serve(ctx context.Context, path string, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	tuneGC()
	logs := newLoggers(cfg.Log, out)
	defer logs.close()
	s := &server{path: path, logs: logs, log: logs.main}
	s.cfg.Store(cfg)
	return s.untilStopped(ctx)
}

// tuneGC trades memory for time where the environment does not say otherwise:
// a proxy's heap is small, and at the default most of its collections find
// nothing.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

func (s *server) run(ctx context.Context) error {
	cfg := s.cfg.Load()
	public, err := listen(cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer public.Close()
	adminListener, err := listen(cfg.Admin.Listen)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	defer adminListener.Close()
	if cfg.Store.None != nil {
		s.log.Warn("there is no directory (store.none)", zap.Strings("so", cfg.Warnings()))
	} else {
		for _, w := range cfg.Warnings() {
			s.log.Warn(w)
		}
		store, err := placeOf(cfg.Store).open(ctx, s.log)
		if err != nil {
			return err
		}
		defer store.Close()
		s.store = store
	}
	s.dir = groups.NewDirectory(groups.Options{Store: s.store, Log: s.log, Audit: s.logs.audit})
	s.proxy = proxy.New(proxy.Options{Directory: s.dir, Log: s.log, Access: s.logs.access})
	s.certs.acme.store, s.certs.acme.log = s.store, s.log
	s.tracing.log = s.log
	defer s.tracing.close()
	s.sources.ctx, s.sources.store, s.sources.dir, s.sources.log = ctx, s.store, s.dir, s.log

	publicServer, err := s.publicServer(cfg)
	if err != nil {
		return err
	}
	publicServer.Handler = s.retiring(publicServer.Handler)
	s.admin = s.newAdmin()
	adminServer := s.adminServer()
	failed := make(chan error, 2)
	serve := func(srv *http.Server, l net.Listener) {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}
	listener := net.Listener(newDoor(public, guestsFor(openFiles()), s.log))
	if publicServer.TLSConfig != nil {
		listener = tls.NewListener(listener, publicServer.TLSConfig)
	}
	go serve(publicServer, listener)
	go serve(adminServer, adminListener)
	s.log.Info("listening", zap.String("version", Version), zap.String("public", public.Addr().String()),
		zap.String("admin", adminListener.Addr().String()), zap.String("public_url", cfg.PublicURL))

	if err := s.apply(ctx, cfg); err != nil {
		return err
	}
	s.configured.Store(true)
	s.reloads.note(true)
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { s.dir.Run(background) })
	work.Go(func() { s.proxy.Run(background) })
	work.Go(func() { s.watch(background) })
	work.Go(func() { s.certs.run(background, s.publicURL, s.log) })
	defer work.Wait()
	defer end()

	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	return errors.Join(err, s.shutdown(publicServer, adminServer))
}

func listen(address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		return net.Listen("tcp", address)
	}
	// A socket that a killed process left behind would be in the way; one that
	// somebody serves is not touched.
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: somebody listens there", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}

func (s *server) publicServer(cfg *config.Config) (*http.Server, error) {
	srv := &http.Server{
		Handler:           s.proxy,
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          s.quietLog(),
		Protocols:         new(http.Protocols),
		HTTP2:             http2Limits(),
		ConnState:         noteState,
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // gRPC from a front proxy in the same pod
	if !cfg.TLS.On() {
		return srv, nil
	}
	set, err := readCertificates(cfg)
	if err != nil {
		return nil, err
	}
	s.certs.current.Store(set)
	srv.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1", acmeProtocol}, GetCertificate: s.certs.get,
	}
	return srv, nil
}

// newAdmin makes the API and the console. Both listeners serve them.
func (s *server) newAdmin() *admin.Server {
	return admin.New(admin.Options{
		Directory: s.dir, Log: s.log, Metrics: s.metrics(), Ready: func() error { s.balanced.note(); return s.ready() },
		Remarks: s.certs.acme.lacks,
		TokenHash: func() [32]byte {
			if t := s.token.Load(); t != nil {
				return *t
			}
			return [32]byte{} // of no token
		},
		Sources: s.sources.status, TestSource: s.sources.test, FindPerson: s.sources.find, Person: s.person,
		Headers:       func(v *groups.View) ([][2]string, string) { return proxy.HeaderLines(s.cfg.Load().Headers, v) },
		Targets:       s.targetStatus,
		RetryTarget:   s.dir.RetryTarget,
		ConsoleGroups: func() []string { return s.cfg.Load().Admin.Groups },
		Sessions:      func(ctx context.Context) (int, error) { return s.dir.ActiveSessions(ctx, s.cfg.Load().Session.Idle) },
	})
}

func (s *server) adminServer() *http.Server {
	return &http.Server{
		Handler: s.admin, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: s.quietLog(),
	}
}

func (s *server) publicURL() string { return s.cfg.Load().PublicURL }

// person is who a statement would be, by the names its source gives its claims.
func (s *server) person(id *claims.Identity) groups.User {
	src := s.cfg.Load().Source(id.Source)
	if src == nil {
		return groups.User{Name: id.Subject}
	}
	return statedPerson(src, id)
}

// quietLog takes what the standard library says about broken connections.
func (s *server) quietLog() *log.Logger {
	std, err := zap.NewStdLogAt(s.log, zap.DebugLevel)
	if err != nil {
		return nil
	}
	return std
}

// apply makes a configuration the one in force. Everything that can fail comes
// first; the proxy is last, because what it serves by must exist.
func (s *server) apply(ctx context.Context, cfg *config.Config) error {
	keys, err := sessionKeys(ctx, cfg, s.store)
	if err != nil {
		return err
	}
	set := proxy.Settings{
		PublicURL: cfg.PublicURL, Prefix: cfg.Prefix, Upstream: cfg.Upstream, Session: cfg.Session, Keys: keys,
		Headers: cfg.Headers, Routes: cfg.Routes, TrustedProxies: cfg.TrustedProxies,
		ConsoleGroups: cfg.Admin.Groups,
		Console: func(w http.ResponseWriter, r *http.Request, by string) {
			s.admin.ServeConsole(w, r, cfg.Prefix+"/admin", by)
		},
	}
	if cfg.Headers.Assertion != "" {
		if set.Signer, err = signer(ctx, keys, s.store); err != nil {
			return err
		}
	}
	token, err := adminToken(ctx, cfg, s.store, s.log)
	if err != nil {
		return err
	}
	showCertificates, err := s.certs.prepare(ctx, cfg, keys)
	if err != nil {
		return err
	}
	inForce := false
	entries, settleSources, err := s.sources.prepare(ctx, cfg, keys)
	if err != nil {
		return err
	}
	defer func() { settleSources(inForce) }()
	set.Sources = entries
	tracer, settleTracing, err := s.tracing.prepare(cfg.Tracing)
	if err != nil {
		return err
	}
	defer func() { settleTracing(inForce) }()
	set.Tracer = tracer
	swap, err := s.proxy.Prepare(set)
	if err != nil {
		return err
	}
	if err := s.dir.Configure(ctx, directorySettings(cfg)); err != nil {
		return err
	}
	s.targets.set(cfg, s.dir, s.log)
	swap()
	showCertificates()
	inForce = true
	s.token.Store(&token)
	s.logs.set(cfg.Log.Level)
	s.cfg.Store(cfg)
	return nil
}

// watch reloads on SIGHUP and when a file changes.
func (s *server) watch(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	s.notify(notifyReady) // not before a SIGHUP is one to reload by
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		config.Watch(ctx, func() []string { return s.cfg.Load().Files() }, func() { s.reload(ctx, "a file changed") })
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			s.reload(ctx, "SIGHUP")
		}
	}
}

// reload swaps a changed configuration in, or says what is wrong with it and
// leaves the old one alone.
func (s *server) reload(ctx context.Context, why string) {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	s.notify(notifyReloading)
	defer s.notify(notifyReady) // with the old configuration, if need be
	cfg, err := config.Load(s.path)
	if err == nil {
		old := s.cfg.Load()
		if keys := cfg.RestartKeys(old); len(keys) > 0 {
			s.log.Warn("some changes take effect after a restart", zap.Strings("keys", keys))
		}
		err = s.apply(ctx, cfg)
	}
	s.reloads.note(err == nil)
	if err == nil {
		s.log.Info("configuration reloaded", zap.String("why", why))
		s.dir.Note(ctx, groups.Event{Kind: groups.EventReloaded, Actor: "configuration", Reason: why})
		return
	}
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			s.log.Error("configuration not reloaded, the old one stays", zap.String("why", why), zap.String("fault", f.String()))
		}
		return
	}
	s.log.Error("configuration not reloaded", zap.String("why", why), zap.Error(err))
}

func (r *reloadState) note(ok bool) {
	r.ok.Store(ok)
	if ok {
		r.at.Store(time.Now().Unix())
	}
}

// ready is nil when requests can be served: settings in force, the store
// answering, and at least one source to sign in at.
func (s *server) ready() error {
	if s.stopping.Load() {
		return errors.New("stopping")
	}
	if !s.configured.Load() {
		return errors.New("starting")
	}
	if err := s.dir.Healthy(); err != nil {
		return err
	}
	return s.sources.ready()
}
