package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls onChange when the content of any of the files changes, appears
// or goes, until the context ends. The list is asked for again after each
// look, so it may follow a reloaded configuration; a file that is new on it
// is taken as it is. onChange is called from the goroutine that called Watch,
// one call at a time.
//
// Directories are watched, not files: editors and Kubernetes put a new file
// (or a new symbolic link) in the old one's place. Where the system tells
// nothing, as on network file systems, contents are compared every 10 s.
func Watch(ctx context.Context, files func() []string, onChange func()) {
	w := watcher{files: files, onChange: onChange, settle: 200 * time.Millisecond, latest: 2 * time.Second, poll: 10 * time.Second}
	// Without the system's help, polling remains.
	if n, err := fsnotify.NewWatcher(); err == nil {
		defer n.Close()
		w.system = n
	}
	w.run(ctx)
}

type watcher struct {
	files    func() []string
	onChange func()
	settle   time.Duration // how long to wait for the last of several events
	latest   time.Duration // how long after the first of them to look at the latest
	poll     time.Duration
	system   *fsnotify.Watcher // nil: polling alone

	seen map[string]digest
	dirs map[string]bool
}

// digest is of a file's content, or of why it cannot be read.
type digest [sha256.Size]byte

func (w *watcher) run(ctx context.Context) {
	if w.seen == nil {
		w.look()
	}
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	defer settled.Stop()
	waiting := false    // for settled, on behalf of poll
	var first time.Time // of the events that were not looked at yet
	// A store beside the configuration makes events without end: they may not
	// put a look off for ever.
	event := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		settled.Reset(max(0, min(w.settle, w.latest-now.Sub(first))))
	}

	var events chan fsnotify.Event
	var faults chan error
	if w.system != nil {
		events, faults = w.system.Events, w.system.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-events:
			if !open {
				events = nil
			}
			event()
		case _, open := <-faults:
			// An overflow of the queue: something happened, nobody knows what.
			if !open {
				faults = nil
			}
			event()
		case <-poll.C:
			// A file that is being written is not read half-way.
			if _, changed := w.compare(); changed && !waiting {
				waiting = true
				settled.Reset(w.settle)
			}
		case <-settled.C:
			waiting, first = false, time.Time{}
			// Once more after each call: the list of files may be another one
			// now, and a file may have changed while the last change was dealt
			// with.
			for ctx.Err() == nil && w.look() {
				w.onChange()
			}
		}
	}
}

// look takes note of all files and reports whether one that was known changed.
func (w *watcher) look() bool {
	now, changed := w.compare()
	w.seen = now
	return changed
}

// compare reads all files beside what was noted, and notes nothing.
func (w *watcher) compare() (now map[string]digest, changed bool) {
	files := w.files()
	w.follow(files)
	now = make(map[string]digest, len(files))
	for _, f := range files {
		now[f] = sum(f)
		if before, known := w.seen[f]; known && before != now[f] {
			changed = true
		}
	}
	return now, changed
}

// follow watches the directories of the files, and those that links lead to.
func (w *watcher) follow(files []string) {
	if w.system == nil {
		return
	}
	want := map[string]bool{}
	for _, f := range files {
		if abs, err := filepath.Abs(f); err == nil {
			want[filepath.Dir(abs)] = true
		}
		if target, err := filepath.EvalSymlinks(f); err == nil {
			if abs, err := filepath.Abs(target); err == nil {
				want[filepath.Dir(abs)] = true
			}
		}
	}
	for dir := range w.dirs {
		if !want[dir] {
			_ = w.system.Remove(dir) // it may be gone already
		}
	}
	for dir := range want {
		// Adding one that is watched changes nothing, and one that was deleted
		// and made again needs it.
		if w.system.Add(dir) != nil {
			delete(want, dir)
		}
	}
	w.dirs = want
}

// sum answers the digest of a file. Its absence has one too, so that going and
// coming back are changes.
func sum(path string) digest {
	h := sha256.New()
	if err := hashFile(h, path); err != nil {
		h.Reset()
		h.Write([]byte("unreadable: " + cause(err)))
	}
	return digest(h.Sum(nil))
}

// hashFile reads no more than Load would, and never waits on a pipe.
func hashFile(h io.Writer, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(h, io.LimitReader(f, maxFile+1))
	return err
}
