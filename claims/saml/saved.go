package saml

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"go.uber.org/zap"
)

// record is how metadata is saved: what was read of it and not its bytes,
// which mean something only inside of what was around them.
type record struct {
	Of          string            `json:"of"` // the configuration that it was read by
	Read        time.Time         `json:"read"`
	ID          string            `json:"id"`
	Login       map[string]string `json:"login"`
	Logout      map[string]string `json:"logout,omitempty"`
	LogoutReply map[string]string `json:"logout_reply,omitempty"`
	Formats     []string          `json:"formats,omitempty"`
	Keys        [][]byte          `json:"keys"`
	WantsSigned bool              `json:"wants_signed,omitempty"`
	ValidUntil  time.Time         `json:"valid_until,omitzero"`
	Cache       time.Duration     `json:"cache,omitempty"`
}

func (k *keeper) record(e *entity) *record {
	r := &record{
		Of: k.origin(), Read: k.now(), ID: e.id, Login: e.login, Logout: e.logout, LogoutReply: e.logoutReply,
		Formats: e.formats, WantsSigned: e.wantsSigned, ValidUntil: e.validUntil, Cache: e.cache,
	}
	for _, cert := range e.keys {
		r.Keys = append(r.Keys, cert.Raw)
	}
	return r
}

// origin is another for every configuration that could read another provider:
// what an earlier one saved must not be trusted by a later one.
func (k *keeper) origin() string {
	raw, _ := json.Marshal([]string{k.cfg.MetadataURL, k.cfg.MetadataFile, k.cfg.IDPEntityID, k.cfg.MetadataCertificate})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// restore takes what was saved, once, if nothing newer is there. A store that
// cannot be read is asked again.
func (k *keeper) restore(ctx context.Context) {
	k.mu.Lock()
	done := k.restored
	k.mu.Unlock()
	if k.cache == nil || done {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	raw, err := k.cache.Load(ctx)
	if err != nil {
		k.log.Warn("the saved metadata of the provider cannot be read", zap.Error(err))
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.restored = true
	if len(raw) == 0 {
		return
	}
	e, err := k.revive(raw)
	switch {
	case err != nil:
		k.log.Warn("the saved metadata of the provider is not used", zap.Error(err))
	case e != nil && k.have.CompareAndSwap(nil, e):
		k.saved = e.read
	}
}

// revive makes metadata of what record made; nil when it is of another
// configuration.
func (k *keeper) revive(raw []byte) (*known, error) {
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, errors.New("it is not what was saved")
	}
	if r.Of != k.origin() {
		return nil, nil
	}
	e := &entity{
		id: r.ID, login: map[string]string{}, logout: map[string]string{}, logoutReply: map[string]string{},
		formats: r.Formats, wantsSigned: r.WantsSigned, validUntil: r.ValidUntil, cache: r.Cache,
	}
	maps.Copy(e.login, r.Login)
	maps.Copy(e.logout, r.Logout)
	maps.Copy(e.logoutReply, r.LogoutReply)
	for _, der := range r.Keys {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errors.New("it has a certificate that cannot be read")
		}
		e.keys = append(e.keys, cert)
	}
	if e.id == "" || k.cfg.IDPEntityID != "" && e.id != k.cfg.IDPEntityID {
		return nil, errors.New("it is of another provider")
	}
	return &known{e, r.Read}, e.complete()
}
