package saml

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/claims/claimstest"
)

// memory is a Cache that can fail.
type memory struct {
	mu    sync.Mutex
	data  []byte
	fault error
	saves int
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.data), m.fault
}

func (m *memory) Save(_ context.Context, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		return m.fault
	}
	m.data, m.saves = bytes.Clone(data), m.saves+1
	return nil
}

func (m *memory) set(data []byte, fault error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data, m.fault = data, fault
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// SM-23: what was good outlives a restart, for the same configuration.
func TestSM23MetadataOutlivesARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cache := &memory{}
	r.restart(t, cache)
	r.works(t, "at first")
	before := r.src.keep.current()
	kept := bytes.Clone(cache.data)
	down := func(k *claimstest.SAMLKnobs) { k.MetadataHandler = answer(http.StatusBadGateway, "text/plain", "down") }
	r.idp.Lie(down)
	r.move(time.Minute)

	r.restart(t, cache)
	r.works(t, "after a restart without the provider's metadata")
	if after := r.src.keep.current(); !reflect.DeepEqual(before.entity, after.entity) || !after.read.Equal(before.read) {
		t.Errorf("got  %+v\nwant %+v", after.entity, before.entity)
	}
	if age, _ := r.src.MetadataAge(r.now()); age != time.Minute {
		t.Errorf("age %v", age)
	}
	if r.idp.Calls("metadata") != 1 {
		t.Errorf("%d readings", r.idp.Calls("metadata"))
	}
	for name, change := range map[string]func(*claims.SAMLConfig){
		"another address":     func(c *claims.SAMLConfig) { c.MetadataURL += "?x" },
		"another name":        func(c *claims.SAMLConfig) { c.IDPEntityID = "https://idp.example.com" },
		"even the same name":  func(c *claims.SAMLConfig) { c.IDPEntityID = r.idp.EntityID() },
		"a signer":            func(c *claims.SAMLConfig) { c.MetadataCertificate = pemOf(ourCertificate().Raw) },
		"a file in its place": func(c *claims.SAMLConfig) { c.MetadataURL, c.MetadataFile = "", "absent.xml" },
	} {
		t.Run("SM-23 not for "+name, func(t *testing.T) {
			src := r.src
			defer func() { r.src = src }()
			r.restart(t, cache, change)
			if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		})
	}
	for name, data := range map[string]string{
		"garbage": "\x00", "another thing": `{"of":"x"}`, "cut off": string(kept[:len(kept)/2]),
		"no keys":             strings.Replace(string(kept), `"keys":[`, `"other":[`, 1),
		"a broken key":        strings.Replace(string(kept), `"keys":["`, `"keys":["AAAA`, 1),
		"no id":               strings.Replace(string(kept), `"id":"`, `"other":"`, 1),
		"an expired one":      strings.Replace(string(kept), `"keys":`, `"valid_until":"2020-01-01T00:00:00Z","keys":`, 1),
		"an empty one":        "",
		"a null in its place": "null",
	} {
		t.Run("SM-23 a saved copy that is "+name, func(t *testing.T) {
			if data == string(kept) {
				t.Fatal("it is the good one")
			}
			cache.set([]byte(data), nil)
			r.restart(t, cache)
			if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		})
	}
	// A store that cannot be read at first is asked again.
	cache.set(kept, errors.New("down"))
	r.restart(t, cache)
	if err := r.begin(t); !errors.Is(err, claims.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	cache.set(kept, nil)
	r.works(t, "control: the store is there again")
}

func TestMetadataIsSavedWhenItChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cache := &memory{}
	r.restart(t, cache)
	step := func(want int) {
		t.Helper()
		if _, err := r.src.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cache.saves != want {
			t.Errorf("saved %d times, wanted %d", cache.saves, want)
		}
	}
	step(1)
	r.move(time.Minute)
	step(1)
	r.idp.PublishNext()
	step(2)
	r.move(savedAnew)
	step(3) // how old it is matters after a restart
	cache.set(nil, errors.New("down"))
	r.idp.RetireOld()
	step(3)
	r.works(t, "without a store")
}
