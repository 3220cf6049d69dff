package saml

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// restart makes the rig's source anew, as a restart or another configuration
// would.
func (r *rig) restart(t *testing.T, cache Cache, change ...func(*claims.SAMLConfig)) {
	t.Helper()
	cfg := r.src.cfg
	for _, c := range change {
		c(&cfg)
	}
	client := r.idp.Client()
	t.Cleanup(client.CloseIdleConnections)
	src, err := New(Options{
		Name: "idp", Config: cfg, Origin: r.sp.URL, Prefix: "/_auth", Key: ourKey(), Certificate: ourCertificate(),
		Client: client, Cache: cache, Now: r.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.src = src
}

func (r *rig) works(t *testing.T, when string) {
	t.Helper()
	if id, err := r.login(t); err != nil || id.Subject != "alice" {
		t.Errorf("%s: %+v, %v", when, id, err)
	}
}

// begin tries to begin a login.
func (r *rig) begin(t *testing.T) error {
	t.Helper()
	w := httptest.NewRecorder()
	f := &claims.Flow{ID: "f", State: "s", RequestID: "id-1", RedirectURI: r.acs(), Started: r.now()}
	err := r.src.Challenge(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), f)
	if err != nil && (len(w.Header()) > 0 || w.Body.Len() > 0) {
		t.Errorf("written beside an error: %v", w.Header())
	}
	return err
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// badMetadata are answers in place of metadata, and why each is refused.
func badMetadata(r *rig) map[string]struct {
	lie func(*claimstest.SAMLKnobs)
	why string
} {
	evil := claimstest.NewSAML(claimstest.SAMLOptions{EntityID: "https://evil.example.com"})
	evil.URL = r.idp.URL
	serve := func(h http.HandlerFunc) func(*claimstest.SAMLKnobs) {
		return func(k *claimstest.SAMLKnobs) { k.MetadataHandler = h }
	}
	mutate := func(old, replacement string) func(*claimstest.SAMLKnobs) {
		return func(k *claimstest.SAMLKnobs) {
			k.MutateMetadata = func(m []byte) []byte {
				out := bytes.Replace(m, []byte(old), []byte(replacement), 1)
				if bytes.Equal(out, m) {
					panic("not in the metadata: " + old)
				}
				return out
			}
		}
	}
	return map[string]struct {
		lie func(*claimstest.SAMLKnobs)
		why string
	}{
		"an error":               {serve(answer(http.StatusServiceUnavailable, "text/xml", string(r.idp.Metadata()))), "status 503"},
		"a page":                 {serve(answer(http.StatusOK, "text/html", "<!DOCTYPE html><title>Sign in</title>")), "document type"},
		"nothing":                {serve(answer(http.StatusOK, "text/xml", "")), "not well-formed"},
		"another provider":       {serve(answer(http.StatusOK, "text/xml", string(evil.Metadata()))), "another provider than before"},
		"expired":                {mutate("<md:EntityDescriptor", `<md:EntityDescriptor validUntil="`+r.now().UTC().Format(time.RFC3339)+`"`), "has expired"},
		"no keys":                {mutate(`use="signing"`, `use="encryption"`), "no signing certificate"},
		"half of it":             {mutate("</md:IDPSSODescriptor></md:EntityDescriptor>", ""), "not well-formed"},
		"an address of a script": {mutate(r.idp.URL+"/sso", "javascript:alert(1)"), "an address that is none"},
		"a redirect":             {serve(http.RedirectHandler("/other", http.StatusFound).ServeHTTP), "status 302: write the address it leads to"},
		"a broken connection": {serve(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, "<md:EntityDescriptor")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}), "broke off"},
		"an endless one": {serve(func(w http.ResponseWriter, _ *http.Request) {
			chunk := bytes.Repeat([]byte("<x a='"+strings.Repeat("y", 1000)+"'>"), 64)
			for {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}), "not SAML metadata"},
	}
}

// SM-23: nothing that is no good metadata of this provider takes the place of
// what is.
func TestSM23TheLastGoodMetadataStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.works(t, "control: at first")
	for name, bad := range badMetadata(r) {
		t.Run("SM-23 "+name, func(t *testing.T) {
			r.idp.Lie(bad.lie)
			before := r.src.keep.current()
			line, err := r.src.Probe(t.Context())
			if !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), bad.why) || line != "" {
				t.Errorf("the probe says %q, %v; wanted %q", line, err, bad.why)
			}
			if r.src.keep.current() != before || r.src.Ready() != nil {
				t.Errorf("the metadata changed, or is not ready: %v", r.src.Ready())
			}
			r.works(t, "with the last good one")
			r.idp.Honest()
			if _, err := r.src.Probe(t.Context()); err != nil || r.src.keep.current() == before {
				t.Errorf("control: honest again: %v", err)
			}
			r.works(t, "control: honest again")
		})
	}
}

// SM-23: and where there is none yet, it does not become one.
func TestSM23BadMetadataAtFirst(t *testing.T) {
	t.Parallel()
	for name, bad := range badMetadata(newRig(t)) {
		if name == "another provider" { // nobody is known before
			continue
		}
		t.Run("SM-23 "+name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.idp.Lie(badMetadata(r)[name].lie)
			if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), bad.why) {
				t.Errorf("got %v, wanted %q", err, bad.why)
			}
			if err := r.src.Ready(); !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), bad.why) {
				t.Errorf("ready: %v", err)
			}
			if _, known := r.src.MetadataAge(r.now()); known {
				t.Error("metadata has an age")
			}
			r.idp.Honest()
			r.move(askInterval)
			r.works(t, "control: honest")
			if age, known := r.src.MetadataAge(r.now().Add(time.Minute)); !known || age != time.Minute || r.src.Ready() != nil {
				t.Errorf("control: age %v, %v; ready: %v", age, known, r.src.Ready())
			}
		})
	}
}

// SM-23: the entity that the configuration names is the only one.
func TestSM23ThePinnedProvider(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, func(c *claims.SAMLConfig) { c.IDPEntityID = "https://idp.example.com" })
	if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "no such identity provider") {
		t.Errorf("%v", err)
	}
	r.restart(t, nil, func(c *claims.SAMLConfig) { c.IDPEntityID = r.idp.EntityID() })
	r.works(t, "control: its own name")
}

// SM-23: a day without the provider's metadata costs no login, unless the
// metadata says that it must not be used so long.
func TestSM23AnOutageOfADay(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		validUntil string
		ok         bool
	}{
		"without validUntil":     {"", true},
		"validUntil is later":    {` validUntil="%s"`, true},
		"validUntil is too soon": {` validUntil="%s"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			until := r.now().Add(25 * time.Hour)
			if !tt.ok {
				until = r.now().Add(24 * time.Hour)
			}
			r.idp.Lie(func(k *claimstest.SAMLKnobs) {
				k.MutateMetadata = func(m []byte) []byte {
					v := strings.Replace(tt.validUntil, "%s", until.UTC().Format(time.RFC3339), 1)
					return bytes.Replace(m, []byte("<md:EntityDescriptor"), []byte("<md:EntityDescriptor"+v), 1)
				}
			})
			r.works(t, "at first")
			if _, metadata := r.src.Expires(); (tt.validUntil != "") != metadata.Equal(until) {
				t.Errorf("it expires at %v", metadata)
			}
			r.idp.Lie(func(k *claimstest.SAMLKnobs) { k.MetadataHandler = answer(http.StatusBadGateway, "text/plain", "down") })
			r.move(24*time.Hour - time.Second)
			r.works(t, "a second before a day")
			r.move(time.Second)
			if tt.ok {
				r.works(t, "after a day")
				return
			}
			if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) {
				t.Errorf("after validUntil: %v", err)
			}
			if err := r.src.Ready(); !strings.Contains(fmt.Sprint(err), "has expired") {
				t.Errorf("ready: %v", err)
			}
			r.idp.Honest()
			r.move(askInterval)
			r.works(t, "control: it is there again")
		})
	}
}

func TestMetadataOfAFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "idp.xml")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.restart(t, nil, func(c *claims.SAMLConfig) { c.MetadataURL, c.MetadataFile = "", file })
	if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "no such file") {
		t.Errorf("no file: %v", err)
	}
	write(r.idp.Metadata())
	r.move(askInterval)
	r.works(t, "the file is there")
	// The file is the administrator's own word: another provider is meant.
	other := claimstest.StartSAML(t, claimstest.SAMLOptions{People: []claimstest.SAMLPerson{alice}})
	write(other.Metadata())
	if line, err := r.src.Probe(t.Context()); err != nil || !strings.Contains(line, other.EntityID()) {
		t.Errorf("%q, %v", line, err)
	}
	write([]byte("<html>"))
	if _, err := r.src.Probe(t.Context()); !errors.Is(err, claims.ErrUnavailable) || r.src.keep.current().id != other.EntityID() {
		t.Errorf("garbage: %v", err)
	}
	if r.idp.Calls("metadata") != 0 {
		t.Error("the address was read")
	}
}

// Many who find nothing known share one reading.
func TestLoginsShareAReading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.idp.Lie(func(k *claimstest.SAMLKnobs) { k.Delay = 200 * time.Millisecond })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := r.begin(t); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.idp.Calls("metadata"); n != 1 {
		t.Errorf("%d readings", n)
	}
	// One who does not wait hears of it at once.
	r.restart(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	err := r.src.Challenge(httptest.NewRecorder(), req, &claims.Flow{ID: "f", State: "s", RequestID: "id-1"})
	if !errors.Is(err, claims.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := r.begin(t); err != nil { // which ends the reading
		t.Error(err)
	}
}

func TestWhenMetadataIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		refresh, cache, valid, want time.Duration
	}{
		{0, 0, 0, time.Hour},
		{30 * time.Minute, 0, 0, 30 * time.Minute},
		{time.Hour, 6 * time.Hour, 0, time.Hour},
		{time.Hour, 10 * time.Minute, 0, 10 * time.Minute},
		{time.Hour, time.Second, 0, time.Minute},
		{time.Hour, 0, 48 * time.Hour, time.Hour},
		{time.Hour, 0, time.Hour, 30 * time.Minute},
		{time.Hour, 20 * time.Minute, time.Hour, 20 * time.Minute},
		{time.Hour, 0, time.Minute, time.Minute},
		{time.Hour, 0, -time.Hour, time.Minute},
	} {
		k := &keeper{cfg: claims.SAMLConfig{MetadataRefresh: tt.refresh}, now: func() time.Time { return testNow }, least: leastRefresh}
		e := &entity{cache: tt.cache}
		if tt.valid != 0 {
			e.validUntil = testNow.Add(tt.valid)
		}
		k.have.Store(&known{e, testNow})
		if got := k.next(); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	k := &keeper{now: func() time.Time { return testNow }}
	for fails, want := range map[int]time.Duration{0: firstRetry, 1: 2 * firstRetry, 6: lastRetry, 500: lastRetry} {
		if got := k.retry(fails); got != want {
			t.Errorf("without metadata, after %d: %v", fails, got)
		}
	}
	k.have.Store(&known{&entity{}, testNow})
	if got := k.retry(500); got != slowRetry {
		t.Errorf("with metadata: %v", got)
	}
}

// The background reads again by itself, when it is told to, and until it is
// stopped.
func TestTheBackgroundKeepsMetadataFresh(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.restart(t, nil, func(c *claims.SAMLConfig) { c.MetadataRefresh = 10 * time.Millisecond })
	r.src.keep.least = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.src.Start(ctx)
	readings := func(n int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); r.idp.Calls("metadata") < n; {
			if time.Now().After(end) {
				t.Fatalf("%d readings, wanted %d", r.idp.Calls("metadata"), n)
			}
			time.Sleep(time.Millisecond)
		}
	}
	readings(3)
	cancel()
	r.restart(t, nil)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	n := r.idp.Calls("metadata")
	r.src.Start(ctx)
	readings(n + 1)
	for end := time.Now().Add(20 * time.Second); r.src.Ready() != nil; {
		if time.Now().After(end) {
			t.Fatal(r.src.Ready())
		}
		time.Sleep(time.Millisecond)
	}
	n = r.idp.Calls("metadata")
	r.src.Reread()
	r.src.Reread()
	readings(n + 1)
}

// SM-23: a failing provider is tried again without anybody asking, and each failure
// says until when there is time.
func TestTheBackgroundTriesAgainAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.idp.Lie(func(k *claimstest.SAMLKnobs) {
		k.MetadataHandler = answer(http.StatusBadGateway, "text/plain", "canary")
	})
	core, logs := observer.New(zap.InfoLevel)
	r.restart(t, nil)
	r.src.log = zap.New(core)
	r.src.keep.log = r.src.log
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.src.Start(ctx)
	waitFor(t, func() bool { return logs.FilterMessage("source is not ready").Len() > 0 })
	r.idp.Honest()
	waitFor(t, func() bool { return r.src.Ready() == nil })
	waitFor(t, func() bool { return logs.FilterMessage("source is ready").Len() > 0 })
	r.idp.Lie(func(k *claimstest.SAMLKnobs) {
		k.MetadataHandler = answer(http.StatusBadGateway, "text/plain", "canary")
	})
	r.src.Reread()
	const stays = "the provider's metadata cannot be read; the last good one stays"
	waitFor(t, func() bool { return logs.FilterMessage(stays).Len() > 0 })
	r.idp.Honest()
	waitFor(t, func() bool { return logs.FilterMessage("the provider's metadata can be read again").Len() > 0 })
	for _, e := range logs.All() {
		if strings.Contains(fmt.Sprint(e.Message, e.ContextMap()), "canary") {
			t.Errorf("foreign text: %v", e)
		}
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
