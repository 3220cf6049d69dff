package claims

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// Bounds of asking Microsoft Graph, beside those of every provider.
const (
	maxPages      = 200 // Graph sends at least 100 of its objects a page, we ask for 999
	graphPageSize = 999 // the most it sends
	graphMargin   = time.Minute
	graphUnsaid   = 5 * time.Minute // how long a token is kept that says nothing of its life
	graphMaxPause = 5 * time.Minute // of what Retry-After asks for
)

// Graph asks Microsoft Graph, as an application of the tenant, which groups a
// person is in. It is safe for concurrent use.
//
// Its errors are made of our own words: they say which step failed and are
// stored and shown.
type Graph struct {
	tenant   string
	base     *url.URL
	security bool // only security groups
	creds    *credentials
	at       endpoint
	scope    string
	client   *http.Client
	now      func() time.Time
	fault    error // the addresses cannot be used; a checked configuration has none

	flight singleflight.Group
	mu     sync.Mutex
	token  string
	until  time.Time // of the token
	pause  time.Time // asked for by Retry-After
}

// NewGraph makes it of complete settings, see [OIDCConfig.GraphSettings]. It
// does not touch the network. Of the client, as in [OIDCOptions], Transport and
// Timeout count; a nil now is time.Now.
func NewGraph(cfg GraphConfig, client *http.Client, now func() time.Time) *Graph {
	if now == nil {
		now = time.Now
	}
	g := &Graph{
		tenant:   cfg.Tenant,
		security: cfg.Groups != AllGroups,
		creds:    newCredentials(cfg.ClientID, cfg.ClientSecret, cfg.ClientKey, cfg.ClientCertificate, cfg.ClientKeyID, now),
		// Entra ID takes a secret either way; in the body nothing has to be
		// encoded twice.
		at:     endpoint{address: cfg.TokenURL, style: oauth2.AuthStyleInParams, audience: cfg.TokenURL},
		scope:  strings.TrimSuffix(cfg.URL, "/") + "/.default",
		client: SafeClient(client, providerTimeout),
		now:    now,
	}
	for _, address := range []string{cfg.TokenURL, strings.TrimSuffix(cfg.URL, "/")} {
		u, err := url.Parse(address)
		if err == nil {
			err = checkEndpoint(u, u)
		}
		if err != nil {
			g.fault = errors.New("its address cannot be used")
			return g
		}
		g.base = u
	}
	return g
}

// Groups answers the object ids of every group that a person, named by their
// object id, is in, directly or through others: what a token would carry had
// they fewer. It is all of them, or an error.
func (g *Graph) Groups(ctx context.Context, objectID string) ([]string, error) {
	if g.fault != nil {
		return nil, g.fault
	}
	if !isGUID(objectID) {
		return nil, errors.New("oid is missing or no GUID")
	}
	ctx, cancel := context.WithTimeout(ctx, g.client.Timeout)
	defer cancel()
	if g.paused() {
		return nil, errors.New("it asked us to wait (Retry-After)")
	}
	token, err := g.accessToken(ctx)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	next := g.base.JoinPath("v1.0", "users", objectID, "transitiveMemberOf", "microsoft.graph.group")
	next.RawQuery = "$select=id,securityEnabled&$top=" + strconv.Itoa(graphPageSize)
	ids := []string{}
	asked, had := map[string]bool{}, map[string]bool{}
	for page := 1; next != nil; page++ {
		address := next.String()
		switch {
		case page > maxPages:
			return nil, fmt.Errorf("more than %d pages", maxPages)
		case asked[address]:
			return nil, fmt.Errorf("page %d: it was read before", page)
		}
		asked[address] = true
		var found []string
		if found, next, err = g.page(ctx, address, token); err != nil {
			return nil, fmt.Errorf("page %d: %w", page, err)
		}
		for _, id := range found {
			if !had[id] {
				had[id] = true
				ids = append(ids, id)
			}
		}
		if len(ids) > MaxValues {
			return nil, fmt.Errorf("more than %d groups", MaxValues)
		}
	}
	return ids, nil
}

// Probe asks for a token, and for nothing else.
func (g *Graph) Probe(ctx context.Context) error {
	if g.fault != nil {
		return g.fault
	}
	_, err := g.renew(ctx)
	return err
}

// page reads one page and answers the address of the next, nil after the last.
func (g *Graph) page(ctx context.Context, address, token string) ([]string, *url.URL, error) {
	ans, err := fetch(ctx, g.client, address, token)
	if err != nil {
		return nil, nil, errors.New(briefly(err))
	}
	if ans.status != http.StatusOK {
		switch ans.status {
		case http.StatusUnauthorized, http.StatusForbidden:
			g.forget(token) // it may have been revoked, or lack a permission that was granted since
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			g.wait(ans.retryAfter)
		}
		return nil, nil, fmt.Errorf("status %d", ans.status)
	}
	ids, link, err := readGraphPage(ans.body, g.security)
	if err != nil || link == "" {
		return ids, nil, err
	}
	next, err := g.follow(link)
	return ids, next, err
}

// readGraphPage reads ids and the link to the next page. An element that is
// not what was asked for spoils the page: who reads part of a list must not
// take it for the whole.
func readGraphPage(body []byte, security bool) (ids []string, link string, err error) {
	said, err := Parse(body)
	if err != nil {
		return nil, "", errors.New("the answer is not one unambiguous JSON object")
	}
	list, ok := said.all()["value"].([]any)
	if !ok {
		return nil, "", errors.New("the answer has no list of groups")
	}
	for _, e := range list {
		group, _ := e.(map[string]any)
		id, _ := group["id"].(string)
		if kind, there := group["@odata.type"]; there && kind != "#microsoft.graph.group" || !isGUID(id) {
			return nil, "", errors.New("an entry is no group with a GUID")
		}
		if security {
			enabled, ok := group["securityEnabled"].(bool)
			if !ok { // what Graph hides from an application is null
				return nil, "", errors.New("a group does not say whether it is a security group: is GroupMember.Read.All granted?")
			}
			if !enabled {
				continue
			}
		}
		ids = append(ids, id)
	}
	next, there := said.all()["@odata.nextLink"]
	if link, ok = next.(string); there && (!ok || link == "") {
		return nil, "", errors.New("the link to the next page is no text")
	}
	return ids, link, nil
}

// follow checks a link to the next page: the token goes nowhere but where the
// first page came from.
func (g *Graph) follow(link string) (*url.URL, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, errors.New("the link to the next page is no address")
	}
	path := u.EscapedPath()
	switch {
	case u.Scheme != g.base.Scheme, !strings.EqualFold(u.Host, g.base.Host), u.User != nil, u.Fragment != "",
		!strings.HasPrefix(path, g.base.EscapedPath()+"/v1.0/users/"),
		strings.ContainsAny(path, `%\`), strings.Contains(path, "//"), strings.Contains(path, "/."):
		return nil, errors.New("the link to the next page leads elsewhere")
	}
	return u, nil
}

// accessToken answers the token at hand, or gets one. Callers share one
// attempt, which outlives any single one of them.
func (g *Graph) accessToken(ctx context.Context) (string, error) {
	if token := g.kept(); token != "" {
		return token, nil
	}
	attempt := g.flight.DoChan("", func() (any, error) {
		if token := g.kept(); token != "" {
			return token, nil
		}
		// It ends before its callers do, so that they hear its cause.
		ctx, cancel := context.WithTimeout(context.Background(), g.client.Timeout-g.client.Timeout/5)
		defer cancel()
		return g.renew(ctx)
	})
	select {
	case <-ctx.Done():
		return "", errors.New(briefly(ctx.Err()))
	case res := <-attempt:
		if res.Err != nil {
			return "", res.Err
		}
		return res.Val.(string), nil
	}
}

// renew gets a token for the application itself (RFC 6749 section 4.4).
func (g *Graph) renew(ctx context.Context) (string, error) {
	tok, err := g.creds.token(ctx, g.client, g.at, url.Values{"grant_type": {"client_credentials"}, "scope": {g.scope}})
	if err != nil {
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) {
			var network *url.Error
			if errors.As(err, &network) {
				return "", errors.New(briefly(err))
			}
			return "", errors.New("the answer has no token")
		}
		status := refused.Response.StatusCode
		if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			g.wait(refused.Response.Header.Get("Retry-After"))
		}
		return "", fmt.Errorf("status %d, %s", status, registered(refused.ErrorCode))
	}
	life := graphUnsaid
	if !tok.Expiry.IsZero() {
		life = time.Until(tok.Expiry)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.token, g.until = tok.AccessToken, g.now().Add(life-min(graphMargin, life/2))
	return tok.AccessToken, nil
}

// kept is the token while it is good, else "".
func (g *Graph) kept() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.now().Before(g.until) {
		return ""
	}
	return g.token
}

func (g *Graph) forget(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token == token {
		g.token, g.until = "", time.Time{}
	}
}

// wait does what Retry-After asks for, in seconds as Microsoft sends it,
// within reason.
func (g *Graph) wait(retryAfter string) {
	seconds, err := strconv.Atoi(retryAfter)
	if err != nil || seconds <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause = g.now().Add(min(time.Duration(min(seconds, 1<<20))*time.Second, graphMaxPause))
}

func (g *Graph) paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now().Before(g.pause)
}

// isGUID accepts the one way in which Microsoft writes ids.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}
