package saml

import (
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/groupgate/groupgate/claims"
)

// The invariant: whatever the bytes, nobody is signed out but by what a key of
// the provider signed, and then as it says.
func FuzzLogoutMessage(f *testing.F) {
	r := newRig(f)
	_, l := r.signedIn(f)
	l.RelayState = "state"
	honest, err := r.byQuery(r.idp.LogoutQuery(r.slo(), l))
	if err != nil {
		f.Fatal(err)
	}
	// One clock and few messages: what is accepted must be one of these.
	asked := map[string]bool{}
	note := func(m *claims.LogoutMessage, err error) {
		if err != nil {
			f.Fatal(err)
		}
		asked[m.Logout.ID] = true
	}
	query := func(k lies) string {
		return strings.TrimPrefix(r.idp.LogoutQuery("", l, lies{Mutate: destined(r.slo()), Key: k.Key, Unsigned: k.Unsigned}), "?")
	}
	form := func(k lies) string { return r.idp.LogoutForm(r.slo(), l, k).Encode() }
	read := func(post bool, text string) (*claims.LogoutMessage, error) {
		if !post {
			return r.byQuery(r.slo() + "?" + text)
		}
		form, err := url.ParseQuery(text)
		if err != nil {
			return nil, claims.ErrProtocol
		}
		return r.byForm(form)
	}
	for _, post := range []bool{false, true} {
		text := query(lies{})
		if post {
			text = form(lies{})
		}
		note(read(post, text))
		f.Add(post, text)
	}
	f.Add(false, query(lies{Unsigned: true}))
	f.Add(true, form(lies{Unsigned: true}))
	f.Add(false, query(lies{Key: ourKey()}))
	f.Add(true, form(lies{Key: ourKey()}))
	f.Add(false, strings.TrimPrefix(r.idp.LogoutAnswerQuery("", "id-1", "", lies{Unsigned: true}), "?"))
	f.Add(true, r.idp.LogoutAnswerForm(r.slo(), "id-1", "").Encode())
	f.Add(true, "SAMLRequest="+url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(`<samlp:LogoutRequest xmlns:samlp="`+nsProtocol+`"/>`))))
	f.Fuzz(func(t *testing.T, post bool, text string) {
		began := time.Now()
		m, err := read(post, text)
		if took := time.Since(began); took > 50*time.Millisecond*time.Duration(1+len(text)>>16)*10 {
			t.Errorf("took %v", took)
		}
		if r.src.Panics() != 0 {
			t.Fatal("a panic")
		}
		switch {
		case err != nil:
			if !errors.Is(err, claims.ErrProtocol) || m != nil {
				t.Fatalf("%+v, %v", m, err)
			}
		case m.Logout == nil: // an answer ends nothing
		case !asked[m.Logout.ID], m.Refused != "", !slices.Equal(m.Logout.Aliases, honest.Logout.Aliases), !slices.Equal(m.Logout.Sessions, honest.Logout.Sessions):
			t.Fatalf("believed %+v", m.Logout)
		}
	})
}

func destined(to string) func(*etree.Element) { return setAttr("Destination", to) }
