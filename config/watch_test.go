package config

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

// watched runs a watcher over files of a folder until the test ends.
type watched struct {
	t       *testing.T
	dir     string
	changes chan struct{}

	mu    sync.Mutex
	files []string
}

func watchFiles(t *testing.T, polling bool, files ...string) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir(), changes: make(chan struct{}, 100)}
	for _, f := range files {
		w.files = append(w.files, filepath.Join(w.dir, f))
	}
	return w.start(polling)
}

func (w *watched) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.files
}

func (w *watched) add(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files[:len(w.files):len(w.files)], path)
}

func (w *watched) start(polling bool) *watched {
	w.t.Helper()
	ready := make(chan struct{})
	var once sync.Once
	under := watcher{
		files: func() []string {
			defer once.Do(func() { close(ready) })
			return w.list()
		},
		onChange: func() { w.changes <- struct{}{} },
		settle:   100 * time.Millisecond,
		latest:   time.Second,
		poll:     time.Hour,
	}
	if polling {
		under.poll = 10 * time.Millisecond
	} else {
		system, err := fsnotify.NewWatcher()
		if err != nil {
			w.t.Fatal(err)
		}
		under.system = system
	}
	// The first look is taken here, so that the test knows what was seen.
	under.look()
	<-ready
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		under.run(ctx)
	}()
	w.t.Cleanup(func() {
		stop()
		<-done
		if under.system != nil {
			under.system.Close()
		}
	})
	return w
}

func (w *watched) write(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *watched) changed(what string) {
	w.t.Helper()
	select {
	case <-w.changes:
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s: not noticed", what)
	}
	w.quiet(what)
}

// quiet waits for several of the watcher's turns.
func (w *watched) quiet(what string) {
	w.t.Helper()
	select {
	case <-w.changes:
		w.t.Errorf("%s: noticed once more", what)
	case <-time.After(250 * time.Millisecond):
	}
}

func TestAChangeIsNoticedHoweverItIsMade(t *testing.T) {
	t.Parallel()
	for _, polling := range []bool{false, true} {
		name := "told by the system"
		if polling {
			name = "by polling"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watchFiles(t, polling, "config.yaml")
			path := w.write("config.yaml", "one")
			w.changed("made")
			w.write("config.yaml", "two")
			w.changed("written in place")
			w.write("config.yaml", "two")
			w.quiet("written with the same content")
			if err := os.Rename(w.write("new", "three"), path); err != nil {
				t.Fatal(err)
			}
			w.changed("replaced by renaming")
			w.write("unrelated", "x")
			w.quiet("another file of the folder")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			w.changed("removed")
			w.write("config.yaml", "three")
			w.changed("made again")
		})
	}
}

// Kubernetes mounts a ConfigMap as links through ..data, which it swaps whole:
// the names in the folder themselves never change.
func TestASwappedLinkIsNoticed(t *testing.T) {
	t.Parallel()
	for _, polling := range []bool{false, true} {
		w := &watched{t: t, dir: t.TempDir(), changes: make(chan struct{}, 100)}
		version := func(name, content string) {
			if err := os.Mkdir(filepath.Join(w.dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			w.write(filepath.Join(name, "config.yaml"), content)
		}
		link := func(target, name string) {
			if err := os.Symlink(target, filepath.Join(w.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		version("..one", "one")
		version("..two", "two")
		version("..same", "two")
		link("..one", "..data")
		link(filepath.Join("..data", "config.yaml"), "config.yaml")
		w.files = []string{filepath.Join(w.dir, "config.yaml")}
		w.start(polling)
		for _, swap := range []struct {
			to      string
			changes bool
		}{{"..two", true}, {"..same", false}, {"..one", true}} {
			link(swap.to, "..tmp")
			if err := os.Rename(filepath.Join(w.dir, "..tmp"), filepath.Join(w.dir, "..data")); err != nil {
				t.Fatal(err)
			}
			if swap.changes {
				w.changed(swap.to)
			} else {
				w.quiet(swap.to)
			}
		}
	}
}

func TestAFileThatIsNamedLaterIsFollowed(t *testing.T) {
	t.Parallel()
	w := watchFiles(t, false, "config.yaml")
	w.write("config.yaml", "one")
	w.changed("made")
	other := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(other, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.add(other)
	w.write("config.yaml", "names the secret")
	w.changed("the configuration")
	if err := os.WriteFile(other, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.changed("the secret")
}

func TestManyWritesAreOneChange(t *testing.T) {
	t.Parallel()
	w := watchFiles(t, false, "a", "b")
	for range 5 {
		w.write("a", time.Now().String())
		w.write("b", time.Now().String())
	}
	w.changed("a burst")
}

func TestWatchEndsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, stop := context.WithCancel(context.Background())
	path := filepath.Join(t.TempDir(), "config.yaml")
	started, done := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		Watch(ctx, func() []string { once.Do(func() { close(started) }); return []string{path} }, func() {})
	}()
	<-started
	stop()
	<-done
}

// A store beside the configuration writes all the time. Its events must not
// put the reload off for as long as it does.
func TestChangeIsSeenAmongTheEventsOfOthers(t *testing.T) {
	t.Parallel()
	system, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	dir, seen := t.TempDir(), make(chan struct{}, 100)
	file := filepath.Join(dir, "config.yaml")
	w := watcher{
		files: func() []string { return []string{file} }, onChange: func() { seen <- struct{}{} },
		settle: 3 * time.Second, latest: 4 * time.Second, poll: time.Hour, system: system,
	}
	w.look()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	defer func() { stop(); <-done }()
	if err := os.WriteFile(file, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	late := time.After(12 * time.Second)
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, "store.db-wal"), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-seen:
			return
		case <-late:
			t.Fatal("not seen while another file of the folder was written to")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
