package saml

import (
	"time"

	"go.uber.org/zap"
)

// warn says that something runs out, once for each of 30, 14 and 7 days and
// for the end. Metadata by address is renewed long before; that it is not is
// said when that fails.
func (k *keeper) warn() {
	e := k.have.Load()
	if e == nil {
		return
	}
	if at := e.certificateEnds(k.now()); k.runsOut("certificate", at) {
		k.log.Warn("a certificate by which the provider signs runs out; signatures are still believed then, while the metadata has it",
			zap.Time("not_after", at))
	}
	if k.cfg.MetadataURL == "" && !e.validUntil.IsZero() && k.runsOut("metadata", e.validUntil) {
		k.log.Warn("the metadata in metadata_file runs out: nobody can sign in after that", zap.Time("valid_until", e.validUntil))
	}
}

func (k *keeper) runsOut(what string, at time.Time) bool {
	left, days := at.Sub(k.now()), -1
	for _, d := range []int{30, 14, 7, 0} {
		if left <= time.Duration(d)*24*time.Hour {
			days = d
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.warned == nil {
		k.warned = map[string]int{}
	}
	before, told := k.warned[what]
	if days < 0 {
		delete(k.warned, what)
		return false
	}
	k.warned[what] = days
	return !told || before != days
}

// certificateEnds is when the first of the certificates that still hold runs
// out: an old one that stays beside the new is no alarm. When none holds, the
// last to have ended.
func (e *entity) certificateEnds(now time.Time) time.Time {
	var soonest, last time.Time
	for _, c := range e.keys {
		if c.NotAfter.After(now) && (soonest.IsZero() || c.NotAfter.Before(soonest)) {
			soonest = c.NotAfter
		}
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	if soonest.IsZero() {
		return last
	}
	return soonest
}
