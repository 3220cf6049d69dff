package sqlstore

import (
	"sync"

	"github.com/groupgate/groupgate/groups"
)

// watchers are told of notices.
type watchers struct {
	mu  sync.RWMutex
	fns []func(groups.Notice)
}

// Watch registers fn for every notice.
func (w *watchers) Watch(fn func(groups.Notice)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A new slice each time: deliver reads the old one without the lock.
	w.fns = append(w.fns[:len(w.fns):len(w.fns)], fn)
}

func (w *watchers) deliver(notices ...groups.Notice) {
	w.mu.RLock()
	fns := w.fns
	w.mu.RUnlock()
	for _, n := range notices {
		for _, fn := range fns {
			fn(n)
		}
	}
}
