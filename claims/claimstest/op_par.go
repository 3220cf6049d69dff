package claimstest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// pushed is a request that waits for its browser (RFC 9126).
type pushed struct {
	params url.Values
	until  time.Time
}

const pushedLifetime = time.Minute

// par takes an authorization request from the client itself.
func (op *OP) par(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !op.clientOK(r) {
		tokenError(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	params := maps.Clone(r.PostForm)
	for _, own := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		params.Del(own)
	}
	if params.Has("request_uri") || params.Get("client_id") != op.opts.ClientID || params.Get("redirect_uri") == "" ||
		len(op.opts.RedirectURIs) > 0 && !slices.Contains(op.opts.RedirectURIs, params.Get("redirect_uri")) {
		tokenError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	uri := "urn:ietf:params:oauth:request_uri:" + token128()
	op.mu.Lock()
	if op.pushed == nil {
		op.pushed = map[string]pushed{}
	}
	op.pushed[uri] = pushed{params, op.opts.Now().Add(pushedLifetime)}
	op.mu.Unlock()
	answer := map[string]any{"request_uri": uri, "expires_in": int(pushedLifetime.Seconds())}
	if mutate := op.lies().MutatePushed; mutate != nil {
		mutate(answer)
	}
	writeJSON(w, http.StatusCreated, answer)
}

// unpush puts what was pushed in the place of its reference. A reference
// leads to one login; until a person was chosen the page may be shown again.
// ok is false when an answer was given.
func (op *OP) unpush(w http.ResponseWriter, r *http.Request) (_ *http.Request, ok bool) {
	q := r.URL.Query()
	uri := q.Get("request_uri")
	if uri == "" {
		if op.opts.RequirePAR {
			http.Error(w, "the request must be pushed", http.StatusBadRequest)
		}
		return r, !op.opts.RequirePAR
	}
	op.mu.Lock()
	p, known := op.pushed[uri]
	if r.Method == http.MethodPost || op.opts.AutoLogin != "" {
		delete(op.pushed, uri)
	}
	op.mu.Unlock()
	if !known || len(q) != 2 || q.Get("client_id") != p.params.Get("client_id") || !op.opts.Now().Before(p.until) {
		http.Error(w, "unknown or used request_uri, or something beside it", http.StatusBadRequest)
		return nil, false
	}
	out := r.Clone(r.Context())
	out.URL.RawQuery = p.params.Encode()
	return out, true
}
