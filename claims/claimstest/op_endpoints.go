package claimstest

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// authorize shows the people, or signs one in. The page posts back to the
// address it was shown at, so the request travels in its query.
func (op *OP) authorize(w http.ResponseWriter, r *http.Request) {
	r, ok := op.unpush(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	op.mu.Lock()
	clientID, allowed, auto := op.opts.ClientID, op.opts.RedirectURIs, op.opts.AutoLogin
	op.mu.Unlock()
	redirect := q.Get("redirect_uri")
	// A wrong client or address is never answered with a redirect (RFC 6749
	// section 4.1.2.1).
	if q.Get("client_id") != clientID || redirect == "" || len(allowed) > 0 && !slices.Contains(allowed, redirect) {
		http.Error(w, "unknown client or redirect address", http.StatusBadRequest)
		return
	}
	if q.Get("response_type") != "code" || !slices.Contains(strings.Fields(q.Get("scope")), "openid") ||
		q.Get("code_challenge") != "" && q.Get("code_challenge_method") != "S256" {
		op.sendBack(w, r, map[string]string{"error": "invalid_request"})
		return
	}
	chosen := auto
	if hint := q.Get("login_hint"); hint != "" {
		chosen = hint
	}
	if r.Method == http.MethodPost {
		chosen = r.PostFormValue("person")
		if r.PostFormValue("cancel") != "" {
			op.sendBack(w, r, map[string]string{"error": "access_denied", "error_description": "<script>alert(1)</script>"})
			return
		}
	}
	if _, known := op.person(chosen); known {
		op.sendBack(w, r, map[string]string{"code": op.newCode(q, chosen)})
		return
	}
	if q.Get("prompt") == "none" {
		op.sendBack(w, r, map[string]string{"error": "login_required"})
		return
	}
	op.page(w)
}

func (op *OP) newCode(q url.Values, subject string) string {
	code := token128()
	op.mu.Lock()
	defer op.mu.Unlock()
	op.codes[code] = &login{
		subject: subject, clientID: q.Get("client_id"), redirectURI: q.Get("redirect_uri"),
		challenge: q.Get("code_challenge"), nonce: q.Get("nonce"), scope: q.Get("scope"),
		sid: token128(), authTime: op.opts.Now(),
	}
	return code
}

func (op *OP) sendBack(w http.ResponseWriter, r *http.Request, params map[string]string) {
	q := r.URL.Query()
	params["state"] = q.Get("state")
	params["iss"] = op.Issuer()
	if mutate := op.lies().MutateReturn; mutate != nil {
		mutate(params)
	}
	to, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		http.Error(w, "malformed redirect address", http.StatusBadRequest)
		return
	}
	back := to.Query()
	for name, v := range params {
		back.Set(name, v)
	}
	to.RawQuery = back.Encode()
	w.Header().Set("Location", to.String())
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusFound)
}

func (op *OP) token(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !op.clientOK(r) {
		tokenError(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		op.exchange(w, r)
	case "refresh_token":
		op.renew(w, r)
	default:
		tokenError(w, http.StatusBadRequest, "unsupported_grant_type")
	}
}

func tokenError(w http.ResponseWriter, status int, code string) {
	writeJSON(w, status, map[string]any{"error": code, "error_description": "canary-description: told by the provider"})
}

func (op *OP) clientOK(r *http.Request) bool {
	if op.assertions.wanted() {
		return op.assertionOK(r)
	}
	id, secret, basic := r.BasicAuth()
	how := "basic"
	if basic { // both are form-encoded first (RFC 6749 section 2.3.1)
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		how = "post"
		if secret == "" {
			how = "none"
		}
	}
	op.noteTokenAuth(how)
	return id == op.opts.ClientID && secret == op.opts.ClientSecret
}

func (op *OP) exchange(w http.ResponseWriter, r *http.Request) {
	code := r.PostFormValue("code")
	op.mu.Lock()
	l := op.codes[code]
	delete(op.codes, code)
	if l == nil {
		// A code that comes twice was stolen: what it gave ends (RFC 6749
		// section 4.1.2).
		if used := op.spent[code]; used != nil {
			used.revoked = true
		}
	} else {
		op.spent[code] = l
	}
	op.mu.Unlock()
	if l == nil || op.opts.Now().Sub(l.authTime) > time.Minute ||
		r.PostFormValue("redirect_uri") != l.redirectURI || !pkceOK(l.challenge, r.PostFormValue("code_verifier")) {
		tokenError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	op.answerTokens(w, l, "", true)
}

func pkceOK(challenge, verifier string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

func (op *OP) renew(w http.ResponseWriter, r *http.Request) {
	old := r.PostFormValue("refresh_token")
	op.mu.Lock()
	l := op.refresh[old]
	if l != nil && op.opts.RotateRefresh {
		delete(op.refresh, old)
	}
	ended := l == nil || l.revoked || op.index(l.subject) < 0
	op.mu.Unlock()
	if ended {
		tokenError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	op.answerTokens(w, l, old, !op.lies().RefreshNoIDToken)
}

// answerTokens gives an access token, an ID token and, unless an old one goes
// on, a refresh token.
func (op *OP) answerTokens(w http.ResponseWriter, l *login, oldRefresh string, withID bool) {
	access := token128()
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "scope": l.scope}
	op.mu.Lock()
	op.access[access] = l
	if !op.opts.NoRefresh && (oldRefresh == "" || op.opts.RotateRefresh) {
		next := token128()
		op.refresh[next] = l
		answer["refresh_token"] = next
	}
	op.mu.Unlock()
	k := op.lies()
	if withID {
		answer["id_token"] = op.Sign(op.idClaims(l, access, k))
	}
	if k.MutateToken != nil {
		k.MutateToken(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

func (op *OP) idClaims(l *login, access string, k Knobs) map[string]any {
	now := op.opts.Now()
	claims := map[string]any{}
	if p, ok := op.person(l.subject); ok && p.Claims != nil {
		claims = p.Claims
	}
	maps.Copy(claims, map[string]any{
		"iss": op.Issuer(), "sub": l.subject, "aud": l.clientID, "sid": l.sid,
		"iat": now.Unix(), "exp": now.Add(op.opts.TokenLifetime).Unix(),
		"auth_time": l.authTime.Unix(), "at_hash": atHash(access),
	})
	if l.nonce != "" {
		claims["nonce"] = l.nonce
	}
	if k.MutateClaims != nil {
		k.MutateClaims(claims)
	}
	return claims
}

func (op *OP) userinfo(w http.ResponseWriter, r *http.Request) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	op.mu.Lock()
	l := op.access[token]
	op.mu.Unlock()
	if !bearer || l == nil || l.revoked {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	p, ok := op.person(l.subject)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	claims := map[string]any{"sub": l.subject}
	maps.Copy(claims, p.Userinfo)
	k := op.lies()
	if k.UserinfoClaims != nil {
		k.UserinfoClaims(claims)
	}
	if k.SignedUserinfo {
		w.Header().Set("Content-Type", "application/jwt")
		_, _ = w.Write([]byte(op.signClaims(claims, Knobs{Alg: k.UserinfoAlg})))
		return
	}
	writeJSON(w, http.StatusOK, claims)
}

// endSession sends the browser back when it is told where to, else it says
// that the person is signed out (OpenID Connect RP-Initiated Logout 1.0).
func (op *OP) endSession(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	to, err := url.Parse(q.Get("post_logout_redirect_uri"))
	if err != nil || to.Host == "" || q.Get("client_id") != op.opts.ClientID {
		op.signedOutPage(w)
		return
	}
	if state := q.Get("state"); state != "" {
		back := to.Query()
		back.Set("state", state)
		to.RawQuery = back.Encode()
	}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusFound)
}
