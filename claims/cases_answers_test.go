package claims_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// PX-22: a provider whose answer has no end is left after a mebibyte or so,
// long before any timeout; what it was asked for counts as not answered.
func TestAnswersWithoutEnd(t *testing.T) {
	t.Parallel()
	const enough = 16 << 20 // with everything that buffers hold on the way
	for _, endpoint := range []string{"discovery", "jwks", "token", "userinfo"} {
		for _, begin := range []string{`{"keys":[`, `{"a":"`, `[[[[`, " "} {
			t.Run(endpoint+" "+begin, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, needs("department"), func(s *setup) { s.src.Client.Timeout = 30 * time.Second })
				var sent atomic.Int64
				left := make(chan struct{}, 8)
				r.op.Lie(func(k *claimstest.Knobs) {
					endless := func(w http.ResponseWriter, _ *http.Request) {
						defer func() { left <- struct{}{} }()
						piece := make([]byte, 64<<10)
						for i := range piece {
							piece[i] = ' '
						}
						_, err := w.Write([]byte(begin))
						for err == nil && sent.Load() < 4*enough {
							var n int
							n, err = w.Write(piece)
							sent.Add(int64(n))
						}
					}
					switch endpoint {
					case "discovery":
						k.DiscoveryHandler = endless
					case "jwks":
						k.JWKSHandler = endless
					case "token":
						k.TokenHandler = endless
					case "userinfo":
						k.UserinfoHandler = endless
					}
				})
				begun := time.Now()
				if endpoint == "discovery" {
					_, err := challenge(r.src)
					wantError(t, err, claims.ErrUnavailable)
				} else if id, _, err := r.login(t); endpoint != "userinfo" {
					wantError(t, err, claims.ErrUnavailable)
				} else if err != nil || id.Claims.Resolve("department").State != claims.Unknown {
					t.Errorf("userinfo without end: %v", err)
				}
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				select {
				case <-left:
				case <-time.After(10 * time.Second):
					t.Fatal("the answer is still read")
				}
				if n := sent.Load(); n == 0 || n > enough {
					t.Errorf("%d bytes were taken", n)
				}
				r.op.Honest()
				r.clock.advance(11 * time.Second)
				r.mustLogin(t)
			})
		}
	}
}
