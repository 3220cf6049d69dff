package proxy

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/claims"
)

const (
	// loginLife is how long a person may take at the source.
	loginLife = 30 * time.Minute
	// maxLogins is how many logins one browser may have under way; a new one
	// makes the oldest go.
	maxLogins = 10
	// maxKept bounds what a login cookie keeps of its flow: with the longest
	// return path it is less, unless that is of bytes that JSON doubles.
	maxKept = 3 << 10
	// maxLoginBytes bounds all login cookies of a browser together. They go
	// with every request, and the proxies in front of us take a Cookie header
	// of 8 KiB at most (nginx's default).
	maxLoginBytes = 6 << 10
)

// flow is a login under way. It is kept nowhere here: the state parameter
// carries it sealed, and a cookie of its own binds it to the browser that
// began it. Where the source echoes too little for that (claims.PostBack), the
// cookie carries it as well. Anonymous starts therefore cost no memory, any
// replica can finish a login, and tabs do not get in each other's way.
type flow struct {
	ID     string `json:"i"` // 128 bit; also the value of the binding cookie
	Source string `json:"s"`
	Began  int64  `json:"t"` // Unix seconds
	Return string `json:"r"` // validated by returnPath or a portal's address
	// Bind is set for a portal: the hash of the flow id that the portal's own
	// cookie holds.
	Bind string `json:"b,omitempty"`
	// Old is the login that this browser had when it began, where the answer
	// will come without the session's cookie.
	Old string `json:"o,omitempty"`
}

// idLength is the length of what newID answers.
const idLength = 22

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// sealFlow makes a text of a flow. Sealed for one purpose it opens for no other:
// what an address bar shows is nothing to put in a cookie.
func (s *site) sealFlow(purpose string, f flow) string {
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false) // it would make six bytes of every & of a query
	_ = enc.Encode(f)        // strings and numbers only
	return s.keys.sealText(purpose, plain.Bytes())
}

// openFlow answers the flow of a sealed text and which key sealed it, or false:
// not ours, or too old.
func (s *site) openFlow(purpose, text string, now time.Time) (flow, int, bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return flow{}, 0, false
	}
	for i, aead := range s.keys.aeads[purpose] {
		plain, err := aead.Open(nil, nil, sealed, nil)
		if err != nil {
			continue
		}
		var f flow
		if json.Unmarshal(plain, &f) != nil {
			return flow{}, 0, false
		}
		age := now.Sub(time.Unix(f.Began, 0))
		return f, i, age < loginLife && age > -time.Minute
	}
	return flow{}, 0, false
}

// keepFlow seals a flow for its cookie. A browser drops a cookie of more than
// 4096 bytes without a word (RFC 6265 section 6.1), and with it the login: an
// address that does not fit is forgotten instead.
func (s *site) keepFlow(f flow) string {
	kept := s.sealFlow(purposeKept, f)
	if len(kept) <= maxKept {
		return kept
	}
	portal, _ := s.returnAddress(f.Return)
	f.Return = "/"
	if portal != nil {
		f.Return = portal.origin + "/"
	}
	return s.sealFlow(purposeKept, f)
}

// claimsFlow is the flow as its source sees it.
func (s *site) claimsFlow(src claims.Source, f flow, key int, state string) *claims.Flow {
	return &claims.Flow{
		ID: f.ID, State: state,
		Nonce:       s.keys.derive(key, macNonce, f.ID),
		Verifier:    s.keys.derive(key, macVerifier, f.ID),
		RequestID:   s.keys.requestID(key, f.ID),
		RedirectURI: s.answersAt(src),
		Started:     time.Unix(f.Began, 0),
	}
}

// answersAt is where a source's answers come to.
func (s *site) answersAt(src claims.Source) string {
	back := "/callback/" + src.Name()
	if _, posts := src.(claims.PostBack); posts {
		back = "/saml/" + src.Name() + "/acs"
	}
	return s.public + s.prefix + back
}

// loginCookie is the name of the cookie that binds one flow. The short hash
// keeps names apart without giving the id away twice.
func (s *site) loginCookie(id string) string {
	sum := sha256.Sum256([]byte("name " + id))
	return s.loginPrefix + hex.EncodeToString(sum[:4])
}

// bindFlow sets the flow's cookie, with what it keeps of the flow, and takes
// the oldest ones away when there would be more of them than maxLogins or
// maxLoginBytes. SameSite=None because a SAML answer is a cross-site POST;
// browsers take Secure on plain-http loopback too.
func (s *site) bindFlow(w http.ResponseWriter, r *http.Request, f flow, kept string) {
	value := strconv.FormatInt(f.Began, 36) + "." + f.ID
	if kept != "" {
		value += "." + kept
	}
	type pending struct {
		name  string
		began int64
		size  int
	}
	var have []pending
	for name, value := range cookies(r) {
		if strings.HasPrefix(name, s.loginPrefix) {
			began, _, _ := splitLogin(value)
			have = append(have, pending{name, began, len(name) + len(value)})
		}
	}
	// Browsers send older cookies first (RFC 6265 section 5.4): that orders
	// those of one second.
	slices.Reverse(have)
	slices.SortStableFunc(have, func(a, b pending) int { return cmp.Compare(b.began, a.began) })
	size := len(s.loginCookie(f.ID)) + len(value)
	for i, p := range have {
		size += p.size
		if i >= maxLogins-1 || size > maxLoginBytes || f.Began-p.began > int64(loginLife/time.Second) {
			s.dropLoginCookie(w, p.name)
		}
	}
	http.SetCookie(w, &http.Cookie{
		Name: s.loginCookie(f.ID), Value: value, Path: "/",
		MaxAge: int(loginLife / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode,
	})
}

// splitLogin reads a login cookie's value.
func splitLogin(value string) (began int64, id, kept string) {
	when, rest, _ := strings.Cut(value, ".")
	id, kept, _ = strings.Cut(rest, ".")
	began, _ = strconv.ParseInt(when, 36, 64)
	return began, id, kept
}

func (s *site) dropLoginCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode,
	})
}

// bound reports whether this browser began the flow, and what its cookie keeps
// of it.
func (s *site) bound(r *http.Request, id string) (kept string, ok bool) {
	want := s.loginCookie(id)
	for name, value := range cookies(r) {
		if name != want {
			continue
		}
		if _, got, kept := splitLogin(value); equalSecret(got, id) {
			return kept, true
		}
	}
	return "", false
}

// boundHash finds the flow of this browser whose id has the hash.
func (s *site) boundHash(r *http.Request, hash string) (cookie string, ok bool) {
	for name, value := range cookies(r) {
		if !strings.HasPrefix(name, s.loginPrefix) {
			continue
		}
		if _, id, _ := splitLogin(value); equalSecret(bindHash(id), hash) {
			return name, true
		}
	}
	return "", false
}

// bindHash is what one host may tell another about a flow's id.
func bindHash(id string) string {
	sum := sha256.Sum256([]byte("bind " + id))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// handover is the single-use ticket by which a login at public_url becomes a
// session of a portal's host.
type handover struct {
	ID      string `json:"i"`
	Login   string `json:"l"`
	Host    string `json:"h"`
	Return  string `json:"r"` // path on the host
	Bind    string `json:"b"`
	Expires int64  `json:"e"`
	// Session is the login itself, where nobody else keeps it (sealed.go).
	Session []byte `json:"s,omitempty"`
}

const handoverLife = time.Minute

func (s *site) sealHandover(h handover) string {
	plain, _ := json.Marshal(h)
	return s.keys.sealText(purposeHandover, plain)
}

func (s *site) openHandover(code, host string, now time.Time) (*handover, error) {
	plain, err := s.keys.openText(purposeHandover, code)
	if err != nil {
		return nil, err
	}
	var h handover
	if err := json.Unmarshal(plain, &h); err != nil {
		return nil, err
	}
	if h.Host != host || now.Unix() >= h.Expires {
		return nil, fmt.Errorf("for another host, or too old")
	}
	return &h, nil
}
