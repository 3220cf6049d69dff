package groupstest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// Remote is a target with its other end, as the suite looks at it.
type Remote struct {
	Target groups.Target
	Liar   *Liar
	Secret string // must never be told
	// Holds lists the groups that the other end has a user in, sorted.
	Holds func(user string) []string
	// Put makes somebody a member there by other hands than ours; nil for an
	// other end that has no memberships of its own.
	Put func(user, group string)
	// Deaf: a success is believed whatever it says.
	Deaf bool
	// Plain: the other end's own search takes no quotation marks and backslashes.
	Plain bool
	// Takes says which names the other end can hold at all; nil: every one. The
	// others are refused, and keep nothing else from being told.
	Takes func(name string) bool
}

// aperson is a person as the directory tells of one who was told of before.
func aperson(id groups.UserID, name string, now, before []string) groups.Person {
	slices.Sort(now)
	p := groups.Person{Event: "evt_" + strings.Join(now, "_"), At: noon, User: groups.User{ID: id, Name: name, Email: name + "@example.com", Display: "A " + name}, Groups: now}
	for _, g := range now {
		if !slices.Contains(before, g) {
			p.Added = append(p.Added, g)
		}
	}
	for _, g := range before {
		if !slices.Contains(now, g) {
			p.Removed = append(p.Removed, g)
		}
	}
	return p
}

func names(all ...string) []string { return all }

// TestTarget runs every promise of groups.Target. open makes a target in front
// of an empty other end.
func TestTarget(t *testing.T, open func(t *testing.T) Remote) {
	for name, test := range targetPromises {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func (r Remote) push(t *testing.T, p groups.Person) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Target.Push(ctx, p); err != nil {
		t.Fatalf("%s in %q: %v", p.User.Name, p.Groups, err)
	}
}

func (r Remote) fails(t *testing.T, p groups.Person) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := r.Target.Push(ctx, p)
	if err == nil {
		t.Fatal("it says that it worked")
	}
	r.silent(t, err)
	return err
}

// silent faults an error that tells what it must not.
func (r Remote) silent(t *testing.T, err error) {
	t.Helper()
	for _, word := range []string{r.Secret, secretCanary} {
		if err != nil && strings.Contains(err.Error(), word) {
			t.Errorf("the error tells what it must not: %v", err)
		}
	}
}

func (r Remote) holds(t *testing.T, user string, want ...string) {
	t.Helper()
	slices.Sort(want)
	same(t, user+" is in", r.Holds(user), want)
}

var targetPromises = map[string]func(*testing.T, Remote){
	"it holds what it is told, and once": func(t *testing.T, r Remote) {
		r.push(t, aperson(1, "alice", names("a", "b"), nil))
		r.holds(t, "alice", "a", "b")
		r.push(t, aperson(1, "alice", names("a", "b"), nil)) // the answer was lost
		r.push(t, aperson(1, "alice", names("a", "b"), names("a", "b")))
		r.holds(t, "alice", "a", "b")
		r.push(t, aperson(2, "bob", names("b"), nil))
		r.push(t, aperson(1, "alice", names("b", "c"), names("a", "b")))
		r.holds(t, "alice", "b", "c")
		r.holds(t, "bob", "b")
		r.push(t, aperson(1, "alice", nil, names("b", "c")))
		r.push(t, aperson(1, "alice", nil, names("b", "c")))
		r.holds(t, "alice")
		r.holds(t, "bob", "b")
	},
	"nobody is made for nothing": func(t *testing.T, r Remote) {
		r.push(t, aperson(1, "alice", nil, names("a")))
		r.holds(t, "alice")
	},
	"what others did stays": func(t *testing.T, r Remote) {
		if r.Put == nil {
			return
		}
		r.Put("alice", "theirs")
		r.Put("carol", "a")
		r.push(t, aperson(1, "alice", names("a", "b"), nil))
		r.holds(t, "alice", "a", "b", "theirs")
		r.holds(t, "carol", "a")
		r.push(t, aperson(1, "alice", names("b"), names("a", "b")))
		r.holds(t, "alice", "b", "theirs")
		r.holds(t, "carol", "a")
	},
	"who is gone is in no group of ours": func(t *testing.T, r Remote) {
		r.push(t, aperson(1, "alice", names("a", "b"), nil))
		gone := aperson(1, "alice", nil, names("a", "b"))
		gone.Gone, gone.Was, gone.User = true, names("alice"), groups.User{ID: 1, Name: "alice"}
		r.push(t, gone)
		r.push(t, gone)
		r.holds(t, "alice")
	},
	"a new user name takes the memberships along": func(t *testing.T, r Remote) {
		r.push(t, aperson(1, "alice", names("a", "b"), nil))
		p := aperson(1, "alicia", names("b", "c"), names("a", "b"))
		p.Was = names("alice")
		r.push(t, p)
		r.push(t, p)
		r.holds(t, "alicia", "b", "c")
		r.holds(t, "alice")
	},
	"of somebody gone whose name is another's by now nothing is taken": func(t *testing.T, r Remote) {
		r.push(t, aperson(2, "alice", names("a"), nil))
		gone := aperson(1, "alice", nil, names("a"))
		gone.Gone = true // Was is empty: the directory saw to it
		r.push(t, gone)
		if r.Put != nil {
			r.holds(t, "alice", "a")
		}
	},
	"names are taken as they are": func(t *testing.T, r Remote) {
		person := `o"brien\@example.com`
		odd := names(`quo"te`, `back\slash`, "com,ma", "Žluťoučký kůň", "a/b?c#d&e=f+g%20", "<b>&amp;", "a", "A")
		if r.Plain {
			person, odd = "o'brien@example.com", slices.DeleteFunc(odd, func(s string) bool { return strings.ContainsAny(s, `"\`) })
		}
		if r.Takes != nil {
			person = "o'brien@example.com"
			all := odd
			odd = slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !r.Takes(s) })
			if err := r.fails(t, aperson(1, person, slices.Clone(all), nil)); !errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("names it cannot hold: %v", err)
			}
			r.holds(t, person, odd...)
			if err := r.fails(t, aperson(2, `o"brien\@example.com`, names("a"), nil)); !errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("a user name it cannot hold: %v", err)
			}
		}
		r.push(t, aperson(1, person, odd, nil))
		r.holds(t, person, odd...)
		r.push(t, aperson(1, person, names("A"), odd))
		r.holds(t, person, "A")
	},
	"every step may fail once": func(t *testing.T, r Remote) {
		// Each time into a group that is there, and one that has to be made.
		before, now := names("a", "b"), names("b", "c", "d")
		r.push(t, aperson(1, "alice", now, nil))
		r.push(t, aperson(1, "alice", before, now))
		r.Liar.Count()
		now = names("b", "c", "e")
		r.push(t, aperson(1, "alice", now, before))
		steps := r.Liar.Count()
		if steps == 0 {
			t.Fatal("nothing was asked")
		}
		for i := range steps {
			r.push(t, aperson(1, "alice", before, append(names("a"), now...)))
			now = names("b", "c", fmt.Sprint("d", i))
			r.Liar.Lie(status(500), i)
			r.Liar.Count()
			err := r.Target.Push(t.Context(), aperson(1, "alice", now, before))
			if failed := r.Liar.Count() > i; failed != (err != nil) {
				t.Errorf("step %d failed: %v; it says %v", i, failed, err)
			}
			r.silent(t, err)
			r.Liar.Lie(nil, 0)
			// What was told and not confirmed is told again, or taken away.
			p := aperson(1, "alice", now, nil)
			p.Removed = names("a")
			r.push(t, p)
			r.holds(t, "alice", now...)
		}
	},
	"a status says whether to come again": func(t *testing.T, r Remote) {
		p := aperson(1, "alice", names("a"), nil)
		for _, code := range []int{400, 401, 403, 404, 410, 413, 422} {
			r.Liar.Lie(status(code), 0)
			if err := r.fails(t, p); !errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("%d is no refusal: %v", code, err)
			}
		}
		for _, code := range []int{408, 425, 429, 500, 502, 503, 504} {
			for _, after := range []string{"", "7", time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat), "soon", "-1"} {
				r.Liar.Lie(status(code, "Retry-After", after), 0)
				err := r.fails(t, p)
				if errors.Is(err, groups.ErrTargetRefused) {
					t.Errorf("%d is a refusal: %v", code, err)
				}
				busy, is := errors.AsType[*groups.TargetBusy](err)
				if wants := after != "" && after != "soon" && after != "-1"; is != wants || is && (busy.After < 5*time.Second || busy.After > 7*time.Second) {
					t.Errorf("%d, Retry-After %q: %+v", code, after, err)
				}
			}
		}
		r.Liar.Lie(nil, 0)
		r.push(t, p)
		r.holds(t, "alice", "a")
	},
	"redirects are not followed": func(t *testing.T, r Remote) {
		var reached atomic.Int64
		elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			reached.Add(1)
			w.WriteHeader(http.StatusNoContent)
		}))
		t.Cleanup(elsewhere.Close)
		for _, code := range []int{301, 302, 303, 307, 308} {
			r.Liar.Lie(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, code) }, 0)
			if err := r.fails(t, aperson(1, "alice", names("a"), nil)); !errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("%d: %v", code, err)
			}
		}
		if reached.Load() > 0 {
			t.Error("it went there")
		}
	},
	"an answer without an end is not waited for": func(t *testing.T, r Remote) {
		p := aperson(1, "alice", names("a"), nil)
		r.Liar.Lie(func(w http.ResponseWriter, r *http.Request) {
			block := []byte(strings.Repeat("x", 64<<10))
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, 0)
		if err := r.fails(t, p); errors.Is(err, groups.ErrTargetRefused) {
			t.Errorf("without an end: %v", err)
		}
		r.Liar.Lie(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := r.Target.Push(ctx, p); err == nil || errors.Is(err, groups.ErrTargetRefused) {
			t.Errorf("silence: %v", err)
		}
		r.Liar.Lie(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0)
		if err := r.fails(t, p); errors.Is(err, groups.ErrTargetRefused) {
			t.Errorf("cut off: %v", err)
		}
	},
	"nonsense is no success": func(t *testing.T, r Remote) {
		if r.Deaf {
			return
		}
		for _, body := range []string{"", "null", "[]", "{}", "<html>", `{"totalResults":"many"}`, `{"id":7}`, `"`} {
			r.Liar.Lie(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(body))
			}, 0)
			if err := r.fails(t, aperson(1, "alice", names("a"), nil)); errors.Is(err, groups.ErrTargetRefused) {
				t.Errorf("%q: %v", body, err)
			}
		}
		r.Liar.Lie(nil, 0)
		r.push(t, aperson(1, "alice", names("a"), nil))
		r.holds(t, "alice", "a")
	},
}
