package saml

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// SM-24: a provider that publishes its next key first loses no login, whenever
// the metadata is read.
func TestSM24KeyRolloverInTime(t *testing.T) {
	t.Parallel()
	for _, noKeyInfo := range []bool{false, true} {
		for _, encrypted := range []string{"", "aes256-gcm"} {
			t.Run(fmt.Sprintf("SM-24 without KeyInfo %v, encrypted %q", noKeyInfo, encrypted), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(o *claimstest.SAMLOptions) { o.NoKeyInfo, o.Encrypt = noKeyInfo, encrypted })
				r.works(t, "old only")
				r.idp.PublishNext()
				r.works(t, "both, not read yet")
				r.move(time.Hour)
				if err := r.src.keep.load(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.works(t, "both, read")
				r.idp.UseNext()
				r.works(t, "both, the new one signs")
				r.idp.RetireOld()
				r.works(t, "new only, not read yet")
				r.move(time.Hour)
				if err := r.src.keep.load(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.works(t, "new only, read")
				if n := r.idp.Calls("metadata"); n != 3 {
					t.Errorf("%d readings: a login asked for one", n)
				}
			})
		}
	}
}

// SM-24: and one that changes keys from one moment to the next costs one
// reading, at most every ten seconds.
func TestSM24KeyRolloverAtOnce(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []string{"", "aes256-gcm"} {
		t.Run("SM-24 encrypted "+encrypted, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(o *claimstest.SAMLOptions) { o.Encrypt = encrypted })
			r.works(t, "old key")
			r.move(askInterval)
			r.idp.PublishNext()
			r.idp.UseNext()
			r.idp.RetireOld()
			r.works(t, "new key")
			if n := r.idp.Calls("metadata"); n != 2 {
				t.Errorf("%d readings", n)
			}
			// Keys of somebody else bring readings, but no stream of them.
			foreign := func(k *claimstest.SAMLKnobs) {
				k.Signature = func(s *claimstest.SAMLSignature) { s.Key = ourKey() }
			}
			r.idp.Lie(foreign)
			for range 5 {
				if _, err := r.login(t); !errors.Is(err, claims.ErrProtocol) {
					t.Errorf("a foreign key: %v", err)
				}
			}
			if n := r.idp.Calls("metadata"); n != 2 {
				t.Errorf("%d readings", n)
			}
			r.move(askInterval)
			for range 5 {
				if _, err := r.login(t); !errors.Is(err, claims.ErrProtocol) {
					t.Errorf("a foreign key: %v", err)
				}
			}
			if n := r.idp.Calls("metadata"); n != 3 {
				t.Errorf("%d readings", n)
			}
			r.idp.Honest()
			r.works(t, "control: honest again")
		})
	}
}
