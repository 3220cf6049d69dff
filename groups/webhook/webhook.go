// Package webhook tells an address of every change of somebody's memberships,
// in the form of Standard Webhooks (standardwebhooks.com, version 1.0.0), so
// that a receiver has a library to check the signature with.
//
// A message is POSTed as JSON with three headers:
//
//	webhook-id         the event; every attempt at the same one has the same
//	webhook-timestamp  when this attempt was sent, seconds since 1970
//	webhook-signature  "v1," and the base64 of HMAC-SHA256 over ID.TIMESTAMP.BODY
//
// The key is the secret's bytes; of a secret that begins with "whsec_", what the
// rest says in base64. A receiver refuses what is older than some minutes, and
// takes an event it has seen for done. Any 2xx means that it has it.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/groups/outbound"
)

// Config is "webhook" of a target.
type Config struct {
	URL    string `yaml:"url"`
	Secret string `yaml:"secret" secret:"true"`
}

// MinSecret is how many bytes the key has at least.
const MinSecret = 24

// Key is what a secret signs with.
func Key(secret string) ([]byte, error) {
	key := []byte(secret)
	if coded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(coded); err != nil {
			return nil, errors.New("what stands after whsec_ is not base64")
		}
	}
	if len(key) < MinSecret {
		return nil, fmt.Errorf("a secret under %d bytes", MinSecret)
	}
	return key, nil
}

// maxAnswer is how much of an answer is read; nothing in it matters.
const maxAnswer = 64 << 10

// Message is the body. It holds the whole state: whoever missed a message is
// set right by the next one. Of two about one user the later "at" is newer.
type Message struct {
	Type    string    `json:"type"` // "memberships.changed"
	At      time.Time `json:"at"`
	User    User      `json:"user"`
	Groups  []string  `json:"groups"`  // that the person is in, sorted
	Added   []string  `json:"added"`   // of these, the ones that no message has arrived with yet
	Removed []string  `json:"removed"` // that messages may have arrived with, and the person is not in
}

// User is a person in a message.
type User struct {
	ID      string `json:"id"` // never another's; user names may be
	User    string `json:"user"`
	Email   string `json:"email"`
	Name    string `json:"name"`
	Deleted bool   `json:"deleted"` // forgotten: id and user are what is left
}

// Target is a [groups.Target].
type Target struct {
	cfg    Config
	key    []byte
	client *outbound.Client
	now    func() time.Time
}

// New makes a target. The configuration was checked.
func New(cfg Config) (*Target, error) {
	key, err := Key(cfg.Secret)
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	return &Target{cfg: cfg, key: key, client: outbound.New(), now: time.Now}, nil
}

// Close lets go of connections.
func (t *Target) Close() error { t.client.Close(); return nil }

// Push sends one message.
func (t *Target) Push(ctx context.Context, p groups.Person) error {
	body, err := json.Marshal(Message{
		Type: "memberships.changed", At: p.At.UTC(),
		User:   User{ID: p.User.ID.String(), User: p.User.Name, Email: p.User.Email, Name: p.User.Display, Deleted: p.Gone},
		Groups: list(p.Groups), Added: list(p.Added), Removed: list(p.Removed),
	})
	if err != nil {
		return outbound.Refused(fmt.Errorf("webhook: %w", err))
	}
	req, err := http.NewRequest(http.MethodPost, t.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return outbound.Refused(errors.New("webhook: the address is not one"))
	}
	now := t.now()
	req.Header.Set("Content-Type", "application/json")
	sign(req.Header, t.key, p.Event, now, body)
	answer, err := t.client.Do(ctx, req, maxAnswer)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if !answer.OK() {
		return answer.Fault("webhook", now)
	}
	return nil
}

func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// sign sets the three headers.
func sign(h http.Header, key []byte, id string, at time.Time, body []byte) {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, seconds, body)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", seconds)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// Probe reaches the address without a message: any answer will do, since only
// POST means something there.
func (t *Target) Probe(ctx context.Context) (string, error) {
	req, err := http.NewRequest(http.MethodHead, t.cfg.URL, nil)
	if err != nil {
		return "", errors.New("the address is not one")
	}
	answer, err := t.client.Do(ctx, req, maxAnswer)
	if err != nil {
		return "", err
	}
	if answer.Status >= 500 {
		return "", answer.Fault("HEAD", t.now())
	}
	return fmt.Sprintf("reached (HEAD answers %d); no message was sent", answer.Status), nil
}
