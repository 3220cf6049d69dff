package claims_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// One token serves everybody until it is about to end, or Graph no longer
// takes it.
func TestGraphTokenIsKept(t *testing.T) {
	t.Parallel()
	gr := newGraphRig(t)
	tokens := func(want int, what string) {
		t.Helper()
		gr.wantGroups(t, idsOf(securityGroups(3)))
		if got := gr.graph.Calls("token"); got != want {
			t.Errorf("%s: %d tokens, want %d", what, got, want)
		}
	}
	tokens(1, "at first")
	gr.clock.advance(58 * time.Minute)
	tokens(1, "before it ends")
	gr.clock.advance(90 * time.Second)
	tokens(2, "about to end")
	gr.graph.RevokeTokens()
	id, _ := gr.mustLogin(t)
	if got := id.Claims.Resolve("groups"); got.State != claims.Unknown || !strings.HasSuffix(got.Why, ": page 1: status 401") {
		t.Errorf("revoked: %+v", got)
	}
	tokens(3, "after it was revoked")
}

// However many wait for a token, it is asked for once, and a caller that goes
// away takes nothing from the others.
func TestGraphTokenIsOneCall(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	graph := claimstest.StartGraph(t, claimstest.GraphOptions{Tenant: "T", ClientID: "x", ClientSecret: "s"})
	graph.SetGroups(aliceOID, securityGroups(3)...)
	client := &http.Client{Transport: &holding{release: release, base: &http.Transport{}}}
	defer client.CloseIdleConnections()
	g := claims.NewGraph(claims.GraphConfig{Tenant: "T", ClientID: "x", ClientSecret: "s", URL: graph.URL, TokenURL: graph.TokenURL()}, client, nil)
	gone, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := g.Groups(gone, aliceOID)
		first <- err
	}()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if ids, err := g.Groups(t.Context(), aliceOID); err != nil || len(ids) != 3 {
				t.Errorf("%d groups, %v", len(ids), err)
			}
		})
	}
	cancel()
	if err := <-first; err == nil {
		t.Error("who went away got an answer")
	}
	close(release)
	wg.Wait()
	if n := graph.Calls("token"); n != 1 {
		t.Errorf("%d tokens for fifty at once", n)
	}
}

// holding keeps every request back until it is released.
type holding struct {
	release chan struct{}
	base    http.RoundTripper
}

func (h *holding) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-h.release:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return h.base.RoundTrip(r)
}

func (h *holding) CloseIdleConnections() { h.base.(*http.Transport).CloseIdleConnections() }

// Graph that asks to be left alone is left alone for so long, within reason.
func TestGraphWaitsAsItIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after        string
		before, rest time.Duration // still silent, and then no more
	}{
		"two minutes": {"120", 119 * time.Second, 2 * time.Second},
		"a century":   {"3153600000", 299 * time.Second, 2 * time.Second},
	} {
		for _, where := range []string{"token", "page"} {
			t.Run(name+" at "+where, func(t *testing.T) {
				t.Parallel()
				gr := newGraphRig(t)
				busy := func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", c.after)
					w.WriteHeader(http.StatusTooManyRequests)
				}
				gr.graph.Lie(func(k *claimstest.GraphKnobs) {
					if where == "token" {
						k.TokenHandler = busy
					} else {
						k.PageHandler = busy
					}
				})
				gr.mustLogin(t)
				gr.graph.Honest()
				calls := gr.graph.Calls("token") + gr.graph.Calls("page")
				gr.clock.advance(c.before)
				id, _ := gr.mustLogin(t)
				if got := id.Claims.Resolve("groups"); got.State != claims.Unknown || !strings.HasSuffix(got.Why, "it asked us to wait (Retry-After)") {
					t.Errorf("%+v", got)
				}
				if n := gr.graph.Calls("token") + gr.graph.Calls("page"); n != calls {
					t.Errorf("it was asked %d times more", n-calls)
				}
				gr.clock.advance(c.rest)
				gr.wantGroups(t, idsOf(securityGroups(3)))
			})
		}
	}
}

// The application shows itself to Graph's token endpoint as the configuration
// says: with the source's secret or key, or its own.
func TestGraphClient(t *testing.T) {
	t.Parallel()
	key, own := ecSigner(elliptic.P256()), ecSigner(elliptic.P384())
	certificate, _ := own.certificate()
	for name, change := range map[string]func(*setup, *claimstest.GraphOptions){
		"the source's secret": func(*setup, *claimstest.GraphOptions) {},
		"its own secret": func(s *setup, g *claimstest.GraphOptions) {
			s.src.Config.Graph.ClientID, g.ClientID = "graph-reader", "graph-reader"
			s.src.Config.Graph.ClientSecret, g.ClientSecret = "canary-of-graph", "canary-of-graph"
		},
		"the source's key": func(s *setup, g *claimstest.GraphOptions) {
			signing(key)(s)
			g.ClientKeys = []crypto.PublicKey{key.public}
		},
		"its own key": func(s *setup, g *claimstest.GraphOptions) {
			s.src.Config.Graph.ClientKey, s.src.Config.Graph.ClientCertificate = own.pem, certificate
			g.ClientKeys = []crypto.PublicKey{own.public}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gr := newGraphRig(t, change)
			gr.wantGroups(t, idsOf(securityGroups(3)))
			for _, a := range gr.graph.Assertions() {
				if _, named := a.Header["x5t#S256"]; named != (name == "its own key") {
					t.Errorf("header %v", a.Header)
				}
			}
		})
	}
	t.Run("a wrong secret", func(t *testing.T) {
		t.Parallel()
		gr := newGraphRig(t, func(_ *setup, g *claimstest.GraphOptions) { g.ClientSecret = "another" })
		id, _ := gr.mustLogin(t)
		if got := id.Claims.Resolve("groups"); got.State != claims.Unknown || !strings.HasSuffix(got.Why, ": token: status 401, invalid_client") {
			t.Errorf("%+v", got)
		}
	})
}

func TestProbeAsksGraphForAToken(t *testing.T) {
	t.Parallel()
	gr := newGraphRig(t)
	for range 2 { // the second time too: a kept token says nothing
		line, err := gr.src.Probe(t.Context())
		if want := "issuer " + gr.op.URL + ", 1 key, userinfo, end session, Microsoft Graph"; err != nil || line != want {
			t.Errorf("%q, %v; want %q", line, err, want)
		}
	}
	if gr.graph.Calls("token") != 2 || gr.graph.Calls("page") != 0 {
		t.Errorf("%d tokens, %d pages", gr.graph.Calls("token"), gr.graph.Calls("page"))
	}
	gr.graph.Lie(func(k *claimstest.GraphKnobs) { k.TokenHandler = http.NotFound })
	_, err := gr.src.Probe(t.Context())
	wantError(t, err, claims.ErrUnavailable)
	if want := "idp: ask Microsoft Graph for a token: the source is unavailable: status 404, no error code"; err.Error() != want {
		t.Errorf("%v", err)
	}
}

// recorded answers every request itself and notes where it went.
type recorded struct {
	mu    sync.Mutex
	hosts []string
	page  []byte
}

func (r *recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts = append(r.hosts, req.URL.Scheme+"://"+req.URL.Host)
	if req.Body != nil {
		_ = req.Body.Close()
	}
	body := r.page
	if req.Method == http.MethodPost {
		body = []byte(`{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(string(body))), ContentLength: int64(len(body)),
	}, nil
}

// Each cloud has hosts of its own, and no request leaves them.
func TestNationalClouds(t *testing.T) {
	t.Parallel()
	for cloud, want := range map[claims.Cloud][]string{
		"":           {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
		"global":     {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
		"us-gov":     {"https://login.microsoftonline.us", "https://graph.microsoft.us"},
		"us-gov-dod": {"https://login.microsoftonline.us", "https://dod-graph.microsoft.us"},
		"china":      {"https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"},
	} {
		cfg := claims.OIDCConfig{Issuer: "https://idp.example.com", ClientID: "x", ClientSecret: "s", Graph: &claims.GraphConfig{Tenant: "T", Cloud: cloud}}
		wire := &recorded{page: []byte(`{"value":[]}`)}
		ids, err := claims.NewGraph(*cfg.GraphSettings(), &http.Client{Transport: wire}, nil).Groups(t.Context(), aliceOID)
		if err != nil || len(ids) != 0 || !slices.Equal(wire.hosts, want) {
			t.Errorf("%q: %v, %v, want %v", cloud, wire.hosts, err, want)
		}
	}
}

// Addresses that a checked configuration does not hold are not asked either.
func TestGraphAddressesAreHeldToHTTPS(t *testing.T) {
	t.Parallel()
	good := claims.GraphConfig{Tenant: "T", ClientID: "x", ClientSecret: "s", URL: "https://graph.example.com", TokenURL: "https://login.example.com/token"}
	for name, spoil := range map[string]func(*claims.GraphConfig){
		"plain http":        func(c *claims.GraphConfig) { c.URL = "http://graph.example.com" },
		"plain http, token": func(c *claims.GraphConfig) { c.TokenURL = "http://login.example.com" },
		"no address":        func(c *claims.GraphConfig) { c.URL = "graph" },
		"none":              func(c *claims.GraphConfig) { c.TokenURL = "" },
	} {
		cfg, wire := good, &recorded{page: []byte(`{"value":[]}`)}
		spoil(&cfg)
		g := claims.NewGraph(cfg, &http.Client{Transport: wire}, nil)
		if _, err := g.Groups(t.Context(), aliceOID); err == nil || g.Probe(t.Context()) == nil || len(wire.hosts) > 0 {
			t.Errorf("%s: %v, asked %v", name, err, wire.hosts)
		}
	}
	wire := &recorded{page: []byte(`{"value":[]}`)}
	if _, err := claims.NewGraph(good, &http.Client{Transport: wire}, nil).Groups(t.Context(), aliceOID); err != nil {
		t.Errorf("control: %v", err)
	}
}
