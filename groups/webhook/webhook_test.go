package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/groupstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a-secret-of-the-hook-for-tests"

// receiver does what the documentation tells a receiver to do.
type receiver struct {
	t       testing.TB
	mu      sync.Mutex
	held    map[string][]string // by user id
	names   map[string]string
	newest  map[string]time.Time
	events  []string
	refused int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	id, at := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(id + "." + at + "." + string(body)))
	seconds, atErr := strconv.ParseInt(at, 10, 64)
	signed := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || atErr != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute || signed != req.Header.Get("webhook-signature") || req.Method != http.MethodPost {
		r.refused++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var m Message
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil || m.Groups == nil || m.Added == nil || m.Removed == nil || m.Type != "memberships.changed" {
		r.t.Errorf("message %s: %v", body, err)
	}
	r.events = append(r.events, id)
	if m.At.Before(r.newest[m.User.ID]) {
		r.t.Errorf("message of %s after one of %s", m.At, r.newest[m.User.ID])
	}
	r.newest[m.User.ID], r.names[m.User.ID], r.held[m.User.ID] = m.At, m.User.User, m.Groups
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) holds(user string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, name := range r.names {
		if name == user {
			return slices.Clone(r.held[id])
		}
	}
	return nil
}

func open(t *testing.T) (groupstest.Remote, *receiver) {
	t.Helper()
	r := &receiver{t: t, held: map[string][]string{}, names: map[string]string{}, newest: map[string]time.Time{}}
	l := groupstest.NewLiar(t, r)
	hook, err := New(Config{URL: l.URL + "/hook", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hook.Close() })
	return groupstest.Remote{Target: hook, Liar: l, Secret: secret, Holds: r.holds, Deaf: true}, r
}

func TestTarget(t *testing.T) {
	t.Parallel()
	groupstest.TestTarget(t, func(t *testing.T) groupstest.Remote { r, _ := open(t); return r })
}

// What the library of the specification's authors (npm standardwebhooks 1.0.0)
// makes of the same.
func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	key, err := Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	sign(h, key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := h.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if h.Get("webhook-id") != "msg_p5jXN8AQM9LWM0D4loKWxJek" || h.Get("webhook-timestamp") != "1614265330" {
		t.Errorf("headers %v", h)
	}
}

// One change is one event, however often it is sent; the time of sending is
// signed, so that an old message cannot be sent again by others.
func TestAnEventKeepsItsID(t *testing.T) {
	t.Parallel()
	r, at := open(t)
	for i, event := range []string{"evt_1", "evt_1", "evt_2"} {
		p := groups.Person{Event: event, At: time.Unix(int64(i), 0), User: groups.User{ID: 1, Name: "alice"}, Groups: []string{"a"}}
		if err := r.Target.Push(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(at.events, []string{"evt_1", "evt_1", "evt_2"}) || at.refused != 0 {
		t.Errorf("events %q, %d refused", at.events, at.refused)
	}
	// Another key is another sender.
	other, err := New(Config{URL: r.Liar.URL, Secret: strings.ToUpper(secret)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Push(t.Context(), groups.Person{Event: "e", At: time.Unix(9, 0), User: groups.User{ID: 1}}); err == nil || at.refused != 1 {
		t.Errorf("signed with another secret: %v", err)
	}
	if said, err := r.Target.(*Target).Probe(t.Context()); err != nil || !strings.Contains(said, "401") || at.refused != 2 {
		t.Errorf("probe: %s, %v", said, err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for secret, ok := range map[string]bool{
		strings.Repeat("x", MinSecret): true, strings.Repeat("x", MinSecret-1): false, "": false,
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, MinSecret)):   true,
		"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, MinSecret-1)): false,
		"whsec_" + strings.Repeat("!", 40):                                      false,
	} {
		if _, err := Key(secret); (err == nil) != ok {
			t.Errorf("%q: %v", secret, err)
		}
	}
}
