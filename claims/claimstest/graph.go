package claimstest

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// GraphOptions is what a Microsoft Graph is made of.
type GraphOptions struct {
	Tenant        string
	ClientID      string
	ClientSecret  string
	ClientKeys    []crypto.PublicKey // the client signs with one of them; then it has no secret
	PageSize      int                // most groups of a page; default 100
	TokenLifetime time.Duration      // default an hour
	Now           func() time.Time
}

// GraphGroup is a group that somebody is in.
type GraphGroup struct {
	ID       string
	Security bool
}

// GraphKnobs make Graph lie or fail. The zero value is honest.
type GraphKnobs struct {
	// Handlers in place of an endpoint's own.
	TokenHandler, PageHandler http.HandlerFunc
	// Page changes a page before it is written; page counts from 1.
	Page func(page int, answer map[string]any)
	// Body changes it as bytes.
	Body func(page int, body []byte) []byte
}

// Graph is the part of Microsoft Graph that tells a person's groups, with the
// token endpoint that lets an application in.
type Graph struct {
	URL string // of Graph

	opts       GraphOptions
	assertions assertions
	calls      callCounts

	mu     sync.Mutex
	knobs  GraphKnobs
	people map[string][]GraphGroup
	tokens map[string]time.Time
}

// StartGraph serves a Graph on a free loopback port until the test ends.
func StartGraph(tb TB, opts GraphOptions) *Graph {
	tb.Helper()
	if opts.PageSize == 0 {
		opts.PageSize = 100
	}
	if opts.TokenLifetime == 0 {
		opts.TokenLifetime = time.Hour
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	g := &Graph{opts: opts, people: map[string][]GraphGroup{}, tokens: map[string]time.Time{}}
	g.assertions.set(opts.ClientKeys)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	g.URL = "http://" + ln.Addr().String()
	srv := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			g.calls.add("serve-error")
		}
	}()
	tb.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return g
}

// TokenURL is where the application gets its token.
func (g *Graph) TokenURL() string { return g.URL + "/" + g.opts.Tenant + "/oauth2/v2.0/token" }

// SetGroups says which groups a person is in, by object ids.
func (g *Graph) SetGroups(person string, groups ...GraphGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.people[person] = append([]GraphGroup{}, groups...)
}

// Lie changes the knobs.
func (g *Graph) Lie(change func(*GraphKnobs)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.knobs)
}

// Honest turns every knob back.
func (g *Graph) Honest() { g.Lie(func(k *GraphKnobs) { *k = GraphKnobs{} }) }

// RevokeTokens ends every token.
func (g *Graph) RevokeTokens() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.tokens)
}

// Calls says how often "token" or "page" was asked for.
func (g *Graph) Calls(what string) int {
	g.calls.mu.Lock()
	defer g.calls.mu.Unlock()
	return g.calls.byName[what]
}

// Assertions are those that were accepted, in order.
func (g *Graph) Assertions() []Assertion { return g.assertions.all() }

func (g *Graph) lies() GraphKnobs {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.knobs
}

func (g *Graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := g.lies()
	name, handler := "page", g.page
	if r.URL.Path == "/"+g.opts.Tenant+"/oauth2/v2.0/token" {
		name, handler = "token", g.token
		if k.TokenHandler != nil {
			handler = k.TokenHandler
		}
	} else if k.PageHandler != nil {
		handler = k.PageHandler
	}
	g.calls.add(name)
	handler(w, r)
}

func (g *Graph) token(w http.ResponseWriter, r *http.Request) {
	known := r.Method == http.MethodPost && r.PostFormValue("client_id") == g.opts.ClientID
	if g.assertions.wanted() {
		known = known && g.assertions.check(r, g.opts.ClientID, []string{g.TokenURL()}, g.opts.Now()) == nil
	} else {
		known = known && r.PostFormValue("client_secret") == g.opts.ClientSecret && g.opts.ClientSecret != ""
	}
	switch {
	case !known:
		tokenError(w, http.StatusUnauthorized, "invalid_client")
	case r.PostFormValue("grant_type") != "client_credentials":
		tokenError(w, http.StatusBadRequest, "unsupported_grant_type")
	case r.PostFormValue("scope") != g.URL+"/.default":
		tokenError(w, http.StatusBadRequest, "invalid_scope")
	default:
		token := "canary-" + token128()
		g.mu.Lock()
		g.tokens[token] = g.opts.Now().Add(g.opts.TokenLifetime)
		g.mu.Unlock()
		writeJSON(w, http.StatusOK, map[string]any{
			"access_token": token, "token_type": "Bearer", "expires_in": int(g.opts.TokenLifetime.Seconds()),
		})
	}
}

func graphError(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": "canary-message: told by Graph"}})
}

func (g *Graph) page(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	person, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1.0/users/"), "/")
	g.mu.Lock()
	until, allowed := g.tokens[token]
	groups, known := g.people[person]
	g.mu.Unlock()
	q := r.URL.Query()
	start, err := strconv.Atoi("0" + q.Get("$skiptoken"))
	switch {
	case !allowed || !g.opts.Now().Before(until):
		graphError(w, http.StatusUnauthorized, "InvalidAuthenticationToken")
		return
	case r.Method != http.MethodGet || rest != "transitiveMemberOf/microsoft.graph.group" || err != nil || start > len(groups) ||
		q.Get("$select") != "id,securityEnabled" || q.Get("$top") != "999":
		graphError(w, http.StatusBadRequest, "BadRequest")
		return
	case !known:
		graphError(w, http.StatusNotFound, "Request_ResourceNotFound")
		return
	}
	end := min(start+g.opts.PageSize, len(groups))
	list := []any{}
	for _, group := range groups[start:end] {
		list = append(list, map[string]any{"id": group.ID, "securityEnabled": group.Security})
	}
	answer := map[string]any{"@odata.context": g.URL + "/v1.0/$metadata#groups", "value": list}
	if end < len(groups) {
		q.Set("$skiptoken", strconv.Itoa(end))
		answer["@odata.nextLink"] = g.URL + r.URL.Path + "?" + q.Encode()
	}
	g.write(w, start/g.opts.PageSize+1, answer)
}

func (g *Graph) write(w http.ResponseWriter, page int, answer map[string]any) {
	k := g.lies()
	if k.Page != nil {
		k.Page(page, answer)
	}
	var body bytes.Buffer
	_ = json.NewEncoder(&body).Encode(answer)
	w.Header().Set("Content-Type", "application/json;odata.metadata=minimal")
	if k.Body != nil {
		_, _ = w.Write(k.Body(page, body.Bytes()))
		return
	}
	_, _ = w.Write(body.Bytes())
}
