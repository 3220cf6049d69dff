package claims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// provider is what the discovery document says (OpenID Connect Discovery 1.0
// section 3), checked.
type provider struct {
	oidc.ProviderConfig
	EndSessionURL string   `json:"end_session_endpoint"`
	TokenAuth     []string `json:"token_endpoint_auth_methods_supported"`
	// TokenAuthAlgs are the signatures taken of a client that signs.
	TokenAuthAlgs []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	// PushURL and RequirePush: pushed authorization requests (RFC 9126
	// section 5).
	PushURL     string `json:"pushed_authorization_request_endpoint"`
	RequirePush bool   `json:"require_pushed_authorization_requests"`
	// IssParameter: every authorization response names its issuer (RFC 9207).
	IssParameter bool `json:"authorization_response_iss_parameter_supported"`

	algs    []jose.SignatureAlgorithm
	keys    *keySet
	pushing pushing
}

// provider answers the provider, looking for it once when it is not known
// yet. Callers share one attempt, which outlives any single one of them.
func (o *OIDC) provider(ctx context.Context) (*provider, error) {
	if p := o.found.Load(); p != nil {
		return p, nil
	}
	attempt := o.flight.DoChan("", func() (any, error) {
		if p := o.found.Load(); p != nil {
			return p, nil
		}
		// It ends before its callers do, so that they hear its cause.
		ctx, cancel := context.WithTimeout(context.Background(), o.timeout-o.timeout/10)
		defer cancel()
		p, err := o.discover(ctx)
		if err != nil {
			o.lastError.Store(&err)
			return nil, err
		}
		o.found.Store(p)
		o.noteClient(p)
		return p, nil
	})
	select {
	case <-ctx.Done():
		return nil, o.errorf("read discovery document", ErrUnavailable, "%w", ctx.Err())
	case res := <-attempt:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*provider), nil
	}
}

func (o *OIDC) discover(ctx context.Context) (*provider, error) {
	const step = "read discovery document"
	issuer, err := url.Parse(o.cfg.Issuer)
	if err != nil {
		return nil, o.errorf(step, ErrUnavailable, "the issuer is not an address")
	}
	if err := checkEndpoint(issuer, issuer); err != nil {
		return nil, o.errorf(step, ErrUnavailable, "issuer: %w", err)
	}
	ans, err := fetch(ctx, o.client, strings.TrimSuffix(o.cfg.Issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, o.errorf(step, ErrUnavailable, "%w", err)
	}
	if ans.status != http.StatusOK {
		return nil, o.errorf(step, ErrUnavailable, "answered with status %d", ans.status)
	}
	p := &provider{}
	if err := json.Unmarshal(ans.body, p); err != nil {
		return nil, o.errorf(step, ErrUnavailable, "not a discovery document")
	}
	// Discovery 1.0 section 4.3: identical, or one provider could speak for
	// another.
	if p.IssuerURL != o.cfg.Issuer {
		return nil, o.errorf(step, ErrUnavailable, "it names the issuer %q, not %q", clip(p.IssuerURL), o.cfg.Issuer)
	}
	if err := p.checkEndpoints(issuer); err != nil {
		return nil, o.errorf(step, ErrUnavailable, "%w", err)
	}
	p.algs = allowedAlgorithms(p.Algorithms)
	p.keys = &keySet{url: p.JWKSURL, algs: p.algs, client: o.client, timeout: min(keysTimeout, o.timeout/2), now: o.now}
	return p, nil
}

func (p *provider) checkEndpoints(issuer *url.URL) error {
	for _, e := range []struct {
		name, address string
		required      bool
	}{
		{"authorization_endpoint", p.AuthURL, true},
		{"token_endpoint", p.TokenURL, true},
		{"jwks_uri", p.JWKSURL, true},
		{"userinfo_endpoint", p.UserInfoURL, false},
		{"end_session_endpoint", p.EndSessionURL, false},
		{"pushed_authorization_request_endpoint", p.PushURL, false},
	} {
		if e.address == "" {
			if e.required {
				return fmt.Errorf("%s is missing", e.name)
			}
			continue
		}
		u, err := url.Parse(e.address)
		if err != nil {
			return fmt.Errorf("%s is not an address", e.name)
		}
		if err := checkEndpoint(u, issuer); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// checkEndpoint holds an endpoint to https, plain http being for loopback
// only, and keeps a provider elsewhere from pointing us at this machine or at
// link-local services.
func checkEndpoint(u, issuer *url.URL) error {
	host := u.Hostname()
	switch {
	case host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "":
		return errors.New("not an absolute http address without user and fragment")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the scheme must be https")
	case u.Scheme == "http" && !(IsLoopback(host) && IsLoopback(issuer.Hostname())):
		return errors.New("the scheme must be https; plain http is for loopback addresses only")
	case isLocal(host) && !strings.EqualFold(host, issuer.Hostname()) && !(IsLoopback(host) && IsLoopback(issuer.Hostname())):
		return errors.New("a loopback or link-local address, which the issuer is not")
	}
	return nil
}

// IsLoopback reports whether a host, as it is written, is this machine. It asks
// no resolver, whose answer could change.
func IsLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 section 6.3
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func isLocal(host string) bool {
	if IsLoopback(host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err == nil && (ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast())
}

// allowedAlgorithms is what the provider advertises of what we accept: never
// "none", and never HMAC, whose key a client would share.
func allowedAlgorithms(advertised []string) []jose.SignatureAlgorithm {
	var algs []jose.SignatureAlgorithm
	for _, alg := range []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	} {
		if slices.Contains(advertised, string(alg)) {
			algs = append(algs, alg)
		}
	}
	if len(algs) == 0 { // OpenID Connect Core 1.0 section 15.1: every provider has it
		algs = []jose.SignatureAlgorithm{jose.RS256}
	}
	return algs
}

// SafeClient is base with bounded waits, timeout at most for a whole answer,
// and without following redirects: a
// redirect would carry the client's secret or a token somewhere else
// (RFC 9700 section 4.12).
func SafeClient(base *http.Client, timeout time.Duration) *http.Client {
	c := &http.Client{Timeout: timeout}
	if base != nil {
		c.Transport = base.Transport
		if base.Timeout > 0 && base.Timeout < timeout {
			c.Timeout = base.Timeout
		}
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: providerTimeout,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       90 * time.Second,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// answer is a whole HTTP answer.
type answer struct {
	status      int
	contentType string
	retryAfter  string
	body        []byte
}

// fetch reads an address whole, up to a bound; bearer may be empty. Its
// errors never hold anything of the body.
func fetch(ctx context.Context, c *http.Client, address, bearer string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/jwt")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	return exchange(c, req)
}

// exchange sends a request and reads the answer whole, up to a bound.
func exchange(c *http.Client, req *http.Request) (*answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, errors.New("the answer broke off")
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return &answer{
		status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), retryAfter: resp.Header.Get("Retry-After"), body: body,
	}, nil
}

// clip bounds foreign text in an error.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
