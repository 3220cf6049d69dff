package proxy

import (
	"bytes"
	"compress/flate"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
)

// Where there is no directory (store.none) a session is in the browser: sealed
// with the session keys, and cut into cookies that browsers take. This file is
// its form; sealed_keep.go what becomes of it.
//
//	cookie 0, 1, ...  "N." and the sealed text, in N pieces
//	sealed text       base64url of AES-256-GCM, bound to public_url
//	plain             1, length of the head (uvarint), head (JSON), claims (JSON, deflated)
//
// The tokens stand in the head, which is not compressed: their lengths tell
// nothing about what stands beside them.

const (
	// chunkBytes leaves room for name and attributes in the 4,096 bytes that a
	// browser takes of one cookie (RFC 6265 section 6.1).
	chunkBytes = 3900
	// maxChunks bounds the cookies of a session: with the rest of a request's
	// head they must fit what proxies in front of us take.
	maxChunks = 4
	// maxUnpacked bounds a session's claims when they are unpacked. Whoever has
	// no key cannot make such a session, and whoever has one need not.
	maxUnpacked = 1 << 20

	sealedVersion = 1
)

// sealedSession is a session as its cookies carry it. It is not changed: what is
// newer is another one.
type sealedSession struct {
	ID      string `json:"i"` // of the login
	Source  string `json:"s"`
	Subject string `json:"b"`
	Session string `json:"o,omitempty"` // the source's own
	Host    string `json:"h,omitempty"` // the portal's; empty on the public host

	User    string `json:"u"`
	Email   string `json:"e,omitempty"`
	Display string `json:"d,omitempty"`

	// Unix milliseconds.
	Created  int64 `json:"c"`
	Expires  int64 `json:"x"`
	ClaimsAt int64 `json:"a"`
	Used     int64 `json:"t"`

	// Generation grows with each renewal: of two cookies of one login the one
	// with the higher number has the refresh token that still counts.
	Generation int    `json:"g,omitempty"`
	Refresh    string `json:"r,omitempty"`
	IDToken    string `json:"n,omitempty"`
	Incomplete string `json:"m,omitempty"` // as claims.Claims.Incomplete

	claims claims.Claims
}

func sinceEpoch(t time.Time) int64 { return t.UnixMilli() }
func fromMillis(n int64) time.Time { return time.UnixMilli(n) }

// view is who the session is, without groups.
func (c *sealedSession) view() *groups.View {
	return &groups.View{
		User: groups.User{Name: c.User, Email: c.Email, Display: c.Display}, Host: c.Host, Used: fromMillis(c.Used), Claims: c.claims,
		Login: groups.Login{
			ID: c.ID, Source: c.Source, Subject: c.Subject, Session: c.Session,
			Created: fromMillis(c.Created), Expires: fromMillis(c.Expires), ClaimsAt: fromMillis(c.ClaimsAt),
		},
	}
}

func (c *sealedSession) grant() *claims.Grant {
	return &claims.Grant{RefreshToken: c.Refresh, IDToken: c.IDToken}
}

// with is the session with what a source said last.
func (c *sealedSession) with(v *groups.View, g *claims.Grant) *sealedSession {
	next := *c
	next.User, next.Email, next.Display = v.User.Name, v.User.Email, v.User.Display
	next.claims, next.Incomplete = v.Claims, v.Claims.Incomplete()
	next.Refresh, next.IDToken = "", ""
	if g != nil {
		next.Refresh, next.IDToken = g.RefreshToken, g.IDToken
	}
	return &next
}

// packers are reused: each holds over a megabyte.
var packers = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestCompression) // the level is one that exists
	return w
}}

func (c *sealedSession) pack() ([]byte, error) {
	head, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	said, err := c.claims.MarshalJSON()
	if err != nil {
		return nil, err
	}
	if len(said) > maxUnpacked {
		return nil, errSessionSize
	}
	out := bytes.NewBuffer(binary.AppendUvarint([]byte{sealedVersion}, uint64(len(head))))
	out.Write(head)
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(out)
	if _, err := w.Write(said); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

var errPacked = errors.New("not a session of this version")

// unpackSession reads what pack wrote, within bounds whoever wrote it.
func unpackSession(plain []byte) (*sealedSession, error) {
	if len(plain) == 0 || plain[0] != sealedVersion {
		return nil, errPacked
	}
	size, n := binary.Uvarint(plain[1:])
	if n <= 0 || size > uint64(len(plain)-1-n) {
		return nil, errPacked
	}
	head, packed := plain[1+n:1+n+int(size)], plain[1+n+int(size):]
	c := &sealedSession{}
	if err := json.Unmarshal(head, c); err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	said, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxUnpacked+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	case len(said) > maxUnpacked:
		return nil, errSessionSize
	case c.ID == "" || c.Source == "":
		return nil, errPacked
	}
	c.claims = claims.Stored(said, c.Incomplete)
	return c, nil
}

// errSessionSize is a session that no browser would carry. It is never cut.
var errSessionSize = fmt.Errorf("the session does not fit into %d cookies: %w", maxChunks, errOverflow)

// sealSession makes the text of a session. The ID token, which is for the
// sign-out alone, goes where the session would need more than one cookie for it.
func (s *site) sealSession(c *sealedSession) (string, error) {
	plain, err := c.pack()
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(s.keys.seal(purposeSession, plain, s.public))
	n := (len(text) + 2 + chunkBytes - 1) / chunkBytes
	if n > 1 && c.IDToken != "" {
		lighter := *c
		lighter.IDToken = ""
		return s.sealSession(&lighter)
	}
	if n > maxChunks {
		return "", fmt.Errorf("%d bytes: %w", len(text), errSessionSize)
	}
	return strconv.Itoa(n) + "." + text, nil
}

// openSession reads the session of cookies, or says that they are none.
func (s *site) openSession(p *pieces) (*sealedSession, error) {
	n := p.count()
	if n == 0 {
		return nil, errSeal
	}
	var text []byte
	for _, piece := range p[:n] {
		text = append(text, piece...)
	}
	sealed, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text[2:])
	if err != nil {
		return nil, errSeal
	}
	plain, err := s.keys.open(purposeSession, sealed, s.public)
	if err != nil {
		return nil, err
	}
	return unpackSession(plain)
}

// pieces are the cookies of a session as a request brought them.
type pieces [maxChunks]string

// count is how many pieces the session says it has; 0 when one of them is
// missing, or it is none. What a longer session left behind does not count.
func (p *pieces) count() int {
	first := p[0]
	if len(first) < 2 || first[0] < '1' || first[0] > '0'+maxChunks || first[1] != '.' {
		return 0
	}
	n := int(first[0] - '0')
	for _, piece := range p[:n] {
		if piece == "" || len(piece) > chunkBytes {
			return 0
		}
	}
	return n
}

// joins are for hash, which every request calls.
var joins = sync.Pool{New: func() any { b := make([]byte, 0, maxChunks*chunkBytes); return &b }}

// hash is the key under which an opened session is remembered. It allocates
// nothing.
func (p *pieces) hash() (hash [32]byte, ok bool) {
	n := p.count()
	if n == 0 {
		return hash, false
	}
	join := joins.Get().(*[]byte)
	defer joins.Put(join)
	*join = (*join)[:0]
	for _, piece := range p[:n] {
		*join = append(*join, piece...)
	}
	return sha256.Sum256(*join), true
}

// piecesOf collects a session's cookies. Two of one name with different values
// are no session: nobody can tell which is the person's.
func (s *site) piecesOf(r *http.Request) (p pieces, ok bool) {
	for name, value := range cookies(r) {
		i := s.pieceIndex(name)
		if i < 0 {
			continue
		}
		if p[i] != "" && p[i] != value {
			return pieces{}, false
		}
		p[i] = value
	}
	return p, true
}

// pieceIndex is which piece of a session a cookie of that name is; -1: none.
func (s *site) pieceIndex(name string) int {
	own := s.sessionCookie
	switch {
	case name == own:
		return 0
	case len(name) == len(own)+2 && name[:len(own)] == own && name[len(own)] == '-':
		if d := name[len(name)-1]; d >= '1' && d < '0'+maxChunks {
			return int(d - '0')
		}
	}
	return -1
}

// setPieces writes a session's cookies, and takes those away that an earlier,
// longer one of had pieces left. An empty text takes all away.
func (s *site) setPieces(h http.Header, text string, life time.Duration, had int) {
	for i := range maxChunks {
		c := http.Cookie{
			Name: s.sessionCookie, Path: "/", MaxAge: int(life / time.Second),
			Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		}
		if i > 0 {
			c.Name += "-" + strconv.Itoa(i)
		}
		switch {
		case text != "":
			c.Value = text[:min(chunkBytes, len(text))]
			text = text[len(c.Value):]
		case i < had:
			c.MaxAge = -1
		default:
			return
		}
		h.Add("Set-Cookie", c.String())
	}
}

// stableID is a user's id that does not change with the name. Where nobody
// keeps users it is made of what the source calls the person.
func stableID(v *groups.View) string {
	if v.User.ID != 0 {
		return v.User.ID.String()
	}
	sum := sha256.Sum256([]byte("user\x00" + v.Login.Source + "\x00" + v.Login.Subject))
	return "s" + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// DeriveSigningKeys makes the keys of assertions out of the session keys, for
// replicas that share nothing else: the first signs for as long as the first
// session key writes, and all are published.
func DeriveSigningKeys(sessionKeys [][]byte) (pkcs8 [][]byte, err error) {
	for _, master := range sessionKeys {
		der, err := deriveSigningKey(master)
		if err != nil {
			return nil, fmt.Errorf("assertion key: %w", err)
		}
		pkcs8 = append(pkcs8, der)
	}
	return pkcs8, nil
}

func deriveSigningKey(master []byte) ([]byte, error) {
	for i := 0; ; i++ {
		scalar, err := hkdf.Key(sha256.New, master, nil, "groupgate assertion P-256 "+strconv.Itoa(i), 32)
		if err != nil {
			return nil, err
		}
		// One in four billion is no scalar of the curve.
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err == nil {
			return x509.MarshalPKCS8PrivateKey(key)
		}
	}
}
