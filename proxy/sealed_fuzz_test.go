package proxy

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/claims"
)

func sealingSite(t testing.TB) *site {
	t.Helper()
	key := make([]byte, 32) // another one in each process of a fuzzing: what one seals is foreign to the others
	rand.Read(key)
	keys, err := newKeyring([][]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	return &site{keys: keys, public: "https://portal.example.com", secure: true, sessionCookie: "__Host-groupgate"}
}

// requestOf is what a browser sends that took a session's cookies.
func requestOf(s *site, text string) *http.Request {
	h := http.Header{}
	s.setPieces(h, text, 1e9, 0)
	r := &http.Request{Header: http.Header{}}
	for _, c := range (&http.Response{Header: h}).Cookies() {
		r.AddCookie(c)
	}
	return r
}

// What is sealed comes back, of whatever size, or is refused as a whole.
func TestSealedSessionsComeBack(t *testing.T) {
	t.Parallel()
	s := sealingSite(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{0, 1, 10, 100, 300, 1000}).Draw(t, "groups")
		list := rapid.SliceOfN(rapid.StringN(0, 40, -1), n, n).Draw(t, "values")
		c := &sealedSession{
			ID: "login", Source: "test", Subject: rapid.String().Draw(t, "subject"), User: rapid.String().Draw(t, "user"),
			Generation: rapid.IntRange(0, 9).Draw(t, "generation"), Refresh: rapid.StringN(0, 2000, -1).Draw(t, "refresh"),
			IDToken: strings.Repeat("t", rapid.IntRange(0, 3000).Draw(t, "id token")), Used: 7, claims: claims.FromMap(map[string][]string{"groups": list}),
		}
		text, err := s.sealSession(c)
		if err != nil {
			if !errors.Is(err, errOverflow) {
				t.Fatal(err)
			}
			return
		}
		r := requestOf(s, text)
		for _, cookie := range r.Cookies() {
			if len(cookie.Name)+len(cookie.Value) > 4000 {
				t.Fatalf("%s has %d bytes", cookie.Name, len(cookie.Value))
			}
		}
		p, ok := s.piecesOf(r)
		if !ok {
			t.Fatal("no pieces")
		}
		got, err := s.openSession(&p)
		if err != nil {
			t.Fatal(err)
		}
		was, _ := c.claims.MarshalJSON()
		is, _ := got.claims.MarshalJSON()
		if !bytes.Equal(was, is) || got.Generation != c.Generation || got.Used != 7 ||
			got.IDToken != c.IDToken && (got.IDToken != "" || p.count() > 1 && len(text) < chunkBytes) {
			t.Fatalf("%+v came back as %+v", c, got)
		}
	})
}

// packed is the plain text of a session with claims of our own making.
func packed(head string, level int, said []byte) []byte {
	out := bytes.NewBuffer(binary.AppendUvarint([]byte{sealedVersion}, uint64(len(head))))
	out.WriteString(head)
	w, _ := flate.NewWriter(out, level)
	w.Write(said)
	w.Close()
	return out.Bytes()
}

// Whoever has the key cannot make us unpack without end.
func TestSealedBombStaysSmall(t *testing.T) {
	s := sealingSite(t)
	open := func(said []byte) error {
		text := base64.RawURLEncoding.EncodeToString(s.keys.seal(purposeSession, packed(`{"i":"l","s":"test"}`, 9, said), s.public))
		p, _ := s.piecesOf(requestOf(s, strconv.Itoa((len(text)+2+chunkBytes-1)/chunkBytes)+"."+text))
		if p.count() == 0 {
			t.Fatalf("%d bytes do not fit", len(text))
		}
		_, err := s.openSession(&p)
		return err
	}
	if err := open([]byte(`{"groups":["a"]}`)); err != nil {
		t.Fatalf("an honest one: %v", err)
	}
	bomb := bytes.Repeat([]byte(" "), 10<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := open(bomb)
	runtime.ReadMemStats(&after)
	// The text that is sealed here is made in the same while.
	if !errors.Is(err, errSessionSize) || after.TotalAlloc-before.TotalAlloc > 12<<20 {
		t.Errorf("%v, %d bytes", err, after.TotalAlloc-before.TotalAlloc)
	}
}

// Whatever cookies say, and whatever a key holder sealed: no panic, and nothing
// but what was sealed opens.
func FuzzSealedSession(f *testing.F) {
	s := sealingSite(f)
	honest, err := s.sealSession(&sealedSession{ID: "l", Source: "test", claims: claims.FromMap(map[string][]string{"groups": {"a"}})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("__Host-groupgate="+honest, packed(`{"i":"l","s":"test"}`, 1, []byte(`{}`)))
	f.Add("__Host-groupgate=2."+strings.Repeat("A", 50)+"; __Host-groupgate-1=AA", []byte{1, 0})
	f.Add("__Host-groupgate-1=; __Host-groupgate=4.", []byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add("__Host-groupgate=1.!!", []byte{2})
	f.Fuzz(func(t *testing.T, cookie string, plain []byte) {
		p, ok := s.piecesOf(&http.Request{Header: http.Header{"Cookie": {cookie}}})
		hash, counts := p.hash()
		c, err := s.openSession(&p)
		if err == nil && (!ok || !counts || hash == [32]byte{}) {
			t.Errorf("%q opens as %+v", cookie, c)
		}
		if err == nil && !slices.Contains(strings.Split(cookie, "; "), "__Host-groupgate="+honest) && !strings.Contains(cookie, honest[2:20]) {
			t.Errorf("%q was not sealed and opens as %+v", cookie, c)
		}
		if c, err := unpackSession(plain); err == nil {
			if _, err := c.claims.MarshalJSON(); err != nil {
				t.Errorf("%v", err)
			}
			c.claims.Resolve("groups")
		}
	})
}
