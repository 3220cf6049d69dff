package proxy_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/proxy"
)

// bucket is what the throttle should know of one key, written down as plainly
// as it can be: every attempt that went on, for ever.
type bucket struct {
	limit   int
	passed  []time.Duration
	blocked time.Duration
	blocks  int
}

func (b *bucket) lastMinute(at time.Duration) (n int) {
	for _, then := range b.passed {
		if at-then < time.Minute {
			n++
		}
	}
	return n
}

// refuse says whether an attempt may not go on, and notes that it was one too
// many.
func (b *bucket) refuse(at time.Duration) bool {
	last := b.blocked
	if n := len(b.passed); n > 0 {
		last = max(last, b.passed[n-1])
	}
	if b.blocks > 0 && at-last >= time.Hour {
		b.blocks = 0
	}
	if at < b.blocked {
		return true
	}
	if b.lastMinute(at) < b.limit {
		return false
	}
	wait := 15 * time.Minute
	for i, d := 0, 30*time.Second; d < wait; i, d = i+1, 2*d {
		if i == b.blocks {
			wait = d
		}
	}
	b.blocks++
	b.blocked = at + wait
	for b.lastMinute(b.blocked) >= b.limit {
		b.blocked += time.Second
	}
	return true
}

// LD-12: whatever is tried in which order, no more attempts than the limit go
// on in any minute, waits grow, asking while one waits changes nothing, and who
// waited may try again.
func TestThrottleAgreesWithItsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		throttle, start := &proxy.Throttle{}, time.Unix(1_800_000_000, 0)
		model := map[string]*bucket{
			"alice": {limit: 3}, "bob": {limit: 10}, "here": {limit: 12}, "there": {limit: 5},
		}
		at := time.Duration(0)
		for range rapid.IntRange(1, 300).Draw(t, "attempts") {
			// Whole seconds, as the model counts; mostly short ones.
			at += time.Second * time.Duration(rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 70), rapid.IntRange(0, 4000)).Draw(t, "pause"))
			keys := map[string]int{}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"alice", "bob", "here", "there"}), 1, 3, rapid.ID).Draw(t, "keys") {
				keys[name] = model[name].limit
			}
			refused := false
			until := at
			for name := range keys {
				if model[name].refuse(at) {
					refused = true
					until = max(until, model[name].blocked)
				}
			}
			if wait := throttle.Try(start.Add(at), keys); wait != until-at {
				t.Fatalf("at %v for %v: wait %v, want %v", at, keys, wait, until-at)
			}
			for name := range keys {
				b := model[name]
				if !refused {
					b.passed = append(b.passed, at)
				}
				if n := b.lastMinute(at); n > b.limit {
					t.Fatalf("%d attempts for %s went on in a minute", n, name)
				}
			}
		}
	})
}

// LD-12: each block is twice as long as the one before, up to a quarter of an
// hour; it is forgotten after an hour of quiet.
func TestBlocksGrow(t *testing.T) {
	t.Parallel()
	throttle, now := &proxy.Throttle{}, time.Unix(1_800_000_000, 0)
	key := map[string]int{"alice": 10}
	offend := func() time.Duration {
		for range 10 {
			if wait := throttle.Try(now, key); wait != 0 {
				t.Fatalf("refused for %v with room left", wait)
			}
		}
		wait := throttle.Try(now, key)
		now = now.Add(time.Second)
		if again := throttle.Try(now, key); again != wait-time.Second {
			t.Errorf("asking again makes it %v, was %v", again, wait)
		}
		now = now.Add(wait)
		return wait
	}
	// The first is a minute: a shorter one would let 20 through within it.
	for i, minutes := range []int{1, 1, 2, 4, 8, 15, 15, 15} {
		if got := offend(); got != time.Duration(minutes)*time.Minute {
			t.Errorf("block %d lasts %v, want %d minutes", i+1, got, minutes)
		}
	}
	now = now.Add(59 * time.Minute)
	if got := offend(); got != 15*time.Minute {
		t.Errorf("before an hour has passed: %v", got)
	}
	now = now.Add(time.Hour)
	if got := offend(); got != time.Minute {
		t.Errorf("after an hour of quiet: %v", got)
	}
	// Spread over the minute it is the half minute itself.
	now = now.Add(2 * time.Hour)
	for range 10 {
		throttle.Try(now, key)
		now = now.Add(5 * time.Second)
	}
	if got := throttle.Try(now, key); got != 30*time.Second {
		t.Errorf("the shortest block is %v", got)
	}
}

// LD-12: a million names take bounded memory, and do not make it forgotten who
// was blocked.
func TestAMillionNamesTakeBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many times as long under the race detector")
	}
	throttle, now := &proxy.Throttle{}, time.Unix(1_800_000_000, 0)
	victim := map[string]int{"alice": 10}
	for range 11 {
		throttle.Try(now, victim)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1_000_000 {
		throttle.Try(now, map[string]int{fmt.Sprintf("%d %s", i, strings.Repeat("n", 200)): 10})
	}
	if n := throttle.Keys(); n != proxy.MaxThrottled {
		t.Errorf("%d keys are remembered, want %d", n, proxy.MaxThrottled)
	}
	if grown := int64(heap() - before); grown > 48<<20 {
		t.Errorf("they take %d bytes", grown)
	}
	if throttle.Try(now.Add(time.Second), victim) == 0 {
		t.Error("who was blocked is forgotten")
	}
	throttle.Sweep(now.Add(time.Minute))
	if n := throttle.Keys(); n != 1 {
		t.Errorf("a minute later %d keys are remembered, want the blocked one", n)
	}
	throttle.Sweep(now.Add(2 * time.Hour))
	if n := throttle.Keys(); n != 0 {
		t.Errorf("two hours later %d keys are remembered", n)
	}
}

// LD-12, LD-15: the spellings of one person's name are one, those of two people
// are not.
func TestCanonicalUser(t *testing.T) {
	t.Parallel()
	for _, spelling := range []string{
		"alice", "Alice", "ALICE", " alice ", "\talice\u3000", `CORP\Alice`, `corp\alice`, "alice@corp", "ALICE@corp.example.com", "alice ",
		"ａｌｉｃｅ", "ＡＬＩＣＥ＠corp", "CORP＼alice", `CORP\alice@corp`, "al\u00adice", "\ufeffalice", "ali\u200bce", "𝐚𝐥𝐢𝐜𝐞", "alicE", "a\u200dlice",
	} {
		if got := proxy.CanonicalUser(spelling); got != "alice" {
			t.Errorf("%q is %q", spelling, got)
		}
	}
	for spelling, want := range map[string]string{
		"bob": "bob", "alice.b": "alice.b", "Jörg": "jörg", "Jo\u0308rg": "jörg", "straße": "strasse", "@alice": "@alice", `corp\`: `corp\`,
		"mary  ann": "mary ann", "": "", "  ": "", strings.Repeat("a", 257): "",
	} {
		if got := proxy.CanonicalUser(spelling); got != want {
			t.Errorf("%q is %q, want %q", spelling, got, want)
		}
	}
}

func FuzzCanonicalUser(f *testing.F) {
	for _, seed := range []string{"alice", `CORP\Alice@corp`, "ａｌｉｃｅ＠corp", "İ", "ǰ\u0323", "\xff\xfe", "a@b\\c@d", "@@", `\\`, "ﷺ", "a \u00ad b", "\u1fb3\u0345"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		once := proxy.CanonicalUser(name)
		if again := proxy.CanonicalUser(once); again != once && len(once) <= 256 {
			t.Errorf("%q is %q, and that is %q", name, once, again)
		}
		if !utf8.ValidString(once) {
			t.Errorf("%q is %q", name, once)
		}
		if len(name) > 200 || !utf8.ValidString(name) {
			return
		}
		spellings := []string{" " + name, name + "\t"}
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_0123456789") == "" && name != "" {
			spellings = append(spellings, strings.ToUpper(name), strings.ToLower(name), `CORP\`+name, name+"@corp.example.com")
		}
		for _, same := range spellings {
			if got := proxy.CanonicalUser(same); got != once {
				t.Errorf("%q is %q, but %q is %q", name, once, same, got)
			}
		}
	})
}
