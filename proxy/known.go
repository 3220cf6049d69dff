package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"github.com/groupgate/groupgate/claims"
)

// known is what a browser shows for having been signed in before: a sealed
// cookie. It lets nobody in. It remembers the source for the chooser, and its
// holder tries passwords in a bucket of its own, so that a stranger's attempts
// lock nobody out (LD-12).
type known struct {
	Last string `json:"l"` // source of the last login
	// Of the last login with a password: whose bucket it is.
	ID      string `json:"i,omitempty"`
	Source  string `json:"s,omitempty"`
	User    string `json:"u,omitempty"` // hash of the canonical user name
	Subject string `json:"b,omitempty"` // hash of the subject
	Until   int64  `json:"e"`           // Unix seconds
}

const (
	knownWord = "-known"
	knownLife = 90 * 24 * time.Hour
)

// knownHash keeps the cookie small, whatever names a source gives.
func knownHash(text string) string {
	sum := sha256.Sum256([]byte("known " + text))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// speaksFor reports whether attempts under a user name count in this bucket.
// An empty one is nobody's.
func (k known) speaksFor(source, canonical string) bool {
	return k.ID != "" && k.Source == source && equalSecret(k.User, knownHash(canonical))
}

func (k known) isOf(subject string) bool { return equalSecret(k.Subject, knownHash(subject)) }

// recallKnown reads the browser's cookie; an empty one when there is none.
func (s *site) recallKnown(r *http.Request, now time.Time) known {
	for name, value := range cookies(r) {
		if name != s.sessionCookie+knownWord {
			continue
		}
		var k known
		plain, err := s.keys.openText(purposeKnown, value)
		if err == nil && json.Unmarshal(plain, &k) == nil && now.Unix() < k.Until {
			return k
		}
	}
	return known{}
}

// rememberKnown sets the cookie after a login. One without a password leaves
// the bucket of an earlier one as it is, and has nothing to remember where it is
// the only way in. The cookie is SameSite=None for the same reason as a login's:
// an answer may be a cross-site POST, which would lose it.
func (s *site) rememberKnown(w http.ResponseWriter, r *http.Request, source string, by *known, now time.Time) {
	if by == nil && len(s.set.Sources) == 1 {
		return
	}
	k := s.recallKnown(r, now)
	if by != nil {
		k = *by
	}
	k.Last, k.Until = source, now.Add(knownLife).Unix()
	plain, _ := json.Marshal(k) // strings and numbers only
	http.SetCookie(w, &http.Cookie{
		Name: s.sessionCookie + knownWord, Value: s.keys.sealText(purposeKnown, plain), Path: "/",
		MaxAge: int(knownLife / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode,
	})
}

// newKnown is the bucket that somebody earns by a right password.
func newKnown(id, source, canonical, subject string) *known {
	return &known{ID: id, Source: source, User: knownHash(canonical), Subject: knownHash(subject)}
}

// knownBrowser answers in whose bucket a browser tries a user name: by a live
// session of the person, else by the cookie. nil: in everybody's.
func (p *Proxy) knownBrowser(s *site, r *http.Request, src claims.PasswordSource, user string) (*known, error) {
	canonical := canonicalUser(user)
	m, err := p.find(s, r, "")
	if err != nil {
		return nil, err
	}
	if m != nil && m.view.Login.Source == src.Name() && canonicalUser(m.view.User.Name) == canonical {
		return newKnown(m.view.Login.ID, src.Name(), canonical, m.view.Login.Subject), nil
	}
	if k := s.recallKnown(r, p.now()); k.speaksFor(src.Name(), canonical) {
		return &k, nil
	}
	return nil, nil
}
