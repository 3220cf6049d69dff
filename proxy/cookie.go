package proxy

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"iter"
	"net/http"
	"strings"
	"time"
)

// sessionIDBytes is the length of the opaque id in the session cookie.
const sessionIDBytes = 32

// newSessionID answers a cookie's value and the hash the store keeps.
func newSessionID() (value string, hash [32]byte) {
	var id [sessionIDBytes]byte
	rand.Read(id[:])
	value = base64.RawURLEncoding.EncodeToString(id[:])
	return value, sha256.Sum256([]byte(value))
}

// sessionHash answers the hash of a cookie's value that has the form of an id.
func sessionHash(value string) ([32]byte, bool) {
	if len(value) != base64.RawURLEncoding.EncodedLen(sessionIDBytes) {
		return [32]byte{}, false
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return [32]byte{}, false
		}
	}
	return sha256.Sum256([]byte(value)), true
}

// cookies walks the pairs of the Cookie header (RFC 6265 section 4.2.1)
// without allocating. Names are compared byte for byte by the caller: a name
// that a server could "fix" into ours is not ours.
func cookies(r *http.Request) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, line := range r.Header["Cookie"] {
			for line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				name, value, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
				if ok && !yield(name, value) {
					return
				}
			}
		}
	}
}

// stripCookies takes our own cookies out of the Cookie lines, and leaves the
// bytes of all others as they are.
func (s *site) stripCookies(lines []string) []string {
	mine := false
	for _, line := range lines {
		if strings.Contains(line, cookieWord) {
			mine = true
		}
	}
	if !mine {
		return lines
	}
	var out []string
	for _, line := range lines {
		var keep []string
		before := strings.Count(line, ";") + 1
		for pair := range strings.SplitSeq(line, ";") {
			// Blanks around a name are trimmed here and not in find: what some
			// application may read as ours is kept from it, and what is not
			// exactly ours counts for nothing.
			name, _, _ := strings.Cut(pair, "=")
			if !ownCookie(strings.Trim(name, " \t")) {
				keep = append(keep, pair)
			}
		}
		if len(keep) == before {
			out = append(out, line)
			continue
		}
		if kept := strings.TrimLeft(strings.Join(keep, ";"), " \t"); strings.Trim(kept, "; \t") != "" {
			out = append(out, kept)
		}
	}
	return out
}

const cookieWord = "groupgate"

// ownCookie reports whether a cookie is one of ours, with or without the
// prefix that https adds: neither is for the upstream, in either direction.
func ownCookie(name string) bool {
	name = strings.TrimPrefix(name, "__Host-")
	if n := len(name) - 1; n > 0 && name[n] >= '1' && name[n] < '0'+maxChunks && name[:n] == cookieWord+"-" {
		return true
	}
	return name == cookieWord || name == cookieWord+leavingWord || name == cookieWord+knownWord || strings.HasPrefix(name, cookieWord+"-login-")
}

// stripSetCookie takes our names out of an upstream's Set-Cookie lines.
func stripSetCookie(h http.Header) {
	lines := h["Set-Cookie"]
	keep := lines[:0:0]
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		if name = strings.Trim(name, " \t"); name == "" {
			// A browser sends a cookie without a name back as its bare value,
			// which then reads like a cookie with one.
			name, _, _ = strings.Cut(value, "=")
			name = strings.Trim(name, " \t")
		}
		if !ownCookie(name) {
			keep = append(keep, line)
		}
	}
	if len(keep) == len(lines) {
		return
	}
	if len(keep) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = keep
}

func (s *site) setSession(w http.ResponseWriter, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: s.sessionCookie, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func (s *site) dropSession(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{
		Name: s.sessionCookie, Path: "/", MaxAge: -1, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func equalSecret(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
