// Command demo is groupgate to try out: an identity provider with three
// people, an application that shows what it is told, and groupgate between
// them, in one process and a temporary folder. It prints what to do.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/groupgate/groupgate/claims/claimstest"
	"github.com/groupgate/groupgate/cmd/internal/app"
)

// Ports that the demo takes when they are free.
const (
	publicPort = 4180
	adminPort  = 4181
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, publicPort, adminPort, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is where everything is.
type demo struct {
	dir           string
	public, admin string // host:port
	provider, app string // addresses with scheme
	token, secret string
	notes         []string
}

// run is main with everything it touches as a parameter. A port of 0 is a free
// one. It returns when the context ends.
func run(ctx context.Context, public, admin int, out io.Writer) (err error) {
	d := &demo{token: rand.Text(), secret: rand.Text()}
	if d.dir, err = os.MkdirTemp("", "groupgate-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if d.public, err = d.pick(public); err != nil {
		return err
	}
	if d.admin, err = d.pick(admin); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	op := claimstest.NewOP(claimstest.Options{ClientID: "portal", ClientSecret: d.secret, People: people()})
	if d.provider, err = serve(ctx, work, op); err == nil {
		op.SetIssuer(d.provider)
		d.app, err = serve(ctx, work, http.HandlerFunc(application))
	}
	if err == nil {
		work.Go(func() error { return d.groupgate(ctx) })
		work.Go(func() error {
			if err := d.ready(ctx); err != nil {
				return err
			}
			return d.tell(out)
		})
	}
	// Without a failure this waits for the context to end.
	if err != nil {
		work.Go(func() error { return err })
	}
	return work.Wait()
}

// pick answers an address on loopback at which nobody listens.
func (d *demo) pick(port int) (string, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", err
		}
		_, free, _ := net.SplitHostPort(ln.Addr().String())
		d.notes = append(d.notes, fmt.Sprintf("Port %d is taken; %s serves instead.", port, free))
	}
	return ln.Addr().String(), ln.Close()
}

// serve serves a handler on a free port until the context ends.
func serve(ctx context.Context, work *errgroup.Group, h http.Handler) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	work.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return "http://" + ln.Addr().String(), nil
}

// groupgate runs the real thing, from a file as anybody would write it.
func (d *demo) groupgate(ctx context.Context) error {
	files := map[string]string{d.file("groupgate.yaml"): d.config(), d.file("bob.json"): bobsClaims + "\n"}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	log, err := os.Create(d.file("groupgate.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	return app.Serve(ctx, d.file("groupgate.yaml"), log)
}

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

// ready waits until groupgate can serve.
func (d *demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("groupgate is not ready: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
