package groups

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// What people's sources said last, for whoever writes a rule: which claims
// there are, and which values they hold. Nothing here writes.

// Bounds of the summary that is kept in memory.
const (
	maxSeenClaims = 200
	maxSeenValues = 20_000   // of one claim
	maxSeenBytes  = 48 << 20 // of all values, with what keeping one costs
	maxSeenLength = 1 << 10  // bytes of one value; nobody picks a longer one
	seenOverhead  = 160      // bytes that a value costs beside its text

	seenFresh = time.Minute            // an older summary is made again when it is asked for
	seenLimit = 2 * time.Minute        // of making one
	seenWait  = 250 * time.Millisecond // for the very first
)

// SeenValue is a value of a claim, and how many people carry it.
type SeenValue struct {
	Value  string `json:"value"`
	People int    `json:"people"`
}

// SeenClaim is a claim, and how many people have it with text in it.
type SeenClaim struct {
	Claim  string `json:"claim"`
	People int    `json:"people"`
	// Usual: the source's settings or a rule name it.
	Usual bool `json:"usual"`
}

// Seen is a part of the summary. It is as of a time: zero means that the
// first one is still being made.
type Seen[T any] struct {
	Items []T
	// Complete is false when the summary had no room for all values: others are
	// there, and few people carry them.
	Complete bool
	// More is true when the limit left some out.
	More bool
	AsOf time.Time
}

// seenCache keeps the last summary.
type seenCache struct {
	mu     sync.Mutex
	last   *summary
	making chan struct{} // closed when the one that is made now is there; nil when none is
}

// summary counts the values of all claims. It is not changed once it is made.
type summary struct {
	at      time.Time
	sources map[string]int
	claims  map[string]*claimTally
	bytes   int
	full    bool // claims were left out
}

type claimTally struct {
	people tally
	values map[string]*tally
	lossy  bool // values were left out
}

// tally counts people, each once: for every source, and over all.
type tally struct {
	all    int32
	by     []int32
	user   UserID // who was counted last
	source int
}

func (t *tally) count(user UserID, source, sources int) {
	if t.by == nil {
		t.by, t.source = make([]int32, sources), -1
	}
	if t.user == user && t.source == source {
		return
	}
	if t.user != user {
		t.all++
	}
	t.by[source]++
	t.user, t.source = user, source
}

func (t *tally) of(source int) int {
	if source < 0 {
		return int(t.all)
	}
	return int(t.by[source])
}

// seen answers the last summary, and has a new one made when it is old. It is
// nil while there is none.
func (d *Directory) seen(ctx context.Context) *summary {
	c := &d.summary
	c.mu.Lock()
	if (c.last == nil || d.now().Sub(c.last.at) > seenFresh) && c.making == nil {
		c.making = make(chan struct{})
		go d.makeSummary(context.WithoutCancel(ctx), c.making)
	}
	last, making := c.last, c.making
	c.mu.Unlock()
	if last != nil {
		return last
	}
	wait := time.NewTimer(seenWait)
	defer wait.Stop()
	select {
	case <-making:
	case <-wait.C:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (d *Directory) makeSummary(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, seenLimit)
	defer cancel()
	fresh, err := d.summarise(ctx)
	if err != nil {
		d.log.Warn("values that people carry were not counted", zap.Error(err))
	}
	c := &d.summary
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.last = fresh
	}
	c.making = nil
	close(done)
}

func (d *Directory) summarise(ctx context.Context) (*summary, error) {
	st := d.state.Load()
	s := &summary{at: d.now(), sources: map[string]int{}, claims: map[string]*claimTally{}}
	for name, src := range st.sources {
		if src.Local == nil {
			s.sources[name] = len(s.sources)
		}
	}
	err := d.store.EachIdentity(ctx, func(rec *IdentityRecord) error {
		if source, counts := s.sources[rec.Source]; counts && !rec.gone() {
			s.add(rec, source)
		}
		return nil
	})
	return s, err
}

func (s *summary) add(rec *IdentityRecord, source int) {
	rec.Claims.Each(func(name string, values []string) {
		c := s.claims[name]
		if c == nil {
			if len(s.claims) == maxSeenClaims {
				s.full = true
				return
			}
			c = &claimTally{values: map[string]*tally{}}
			s.claims[name] = c
		}
		c.people.count(rec.User, source, len(s.sources))
		for _, v := range values {
			if t := s.value(c, v); t != nil {
				t.count(rec.User, source, len(s.sources))
			}
		}
	})
}

// value finds the tally of a value. Where there is no room left, values that
// one person carries make room: those are names and addresses, not groups.
func (s *summary) value(c *claimTally, v string) *tally {
	if t := c.values[v]; t != nil {
		return t
	}
	if len(v) > maxSeenLength {
		c.lossy = true
		return nil
	}
	cost := len(v) + seenOverhead
	if len(c.values) >= maxSeenValues || s.bytes+cost > maxSeenBytes {
		if c.lossy && len(c.values) > maxSeenValues/2 {
			return nil // that was tried, and most values stayed
		}
		c.lossy = true
		for old, t := range c.values {
			if t.all <= 1 {
				delete(c.values, old)
				s.bytes -= len(old) + seenOverhead
			}
		}
		if len(c.values) >= maxSeenValues || s.bytes+cost > maxSeenBytes {
			return nil
		}
	}
	t := &tally{}
	c.values[strings.Clone(v)] = t
	s.bytes += cost
	return t
}

// source is the number of a source; -1 of "", all of them.
func (s *summary) source(name string) (number int, known bool) {
	if name == "" {
		return -1, true
	}
	number, known = s.sources[name]
	return number, known
}

// SeenValues lists values that a claim had when people were last seen, those
// of most people first: of one source, or of all. Query is a part of the
// value, ASCII case not told apart.
func (d *Directory) SeenValues(ctx context.Context, source, claim, query string, limit int) Seen[SeenValue] {
	out := Seen[SeenValue]{Items: []SeenValue{}}
	s := d.seen(ctx)
	if s == nil {
		return out
	}
	out.AsOf, out.Complete = s.at, !s.full
	number, known := s.source(source)
	c := s.claims[claim]
	if !known || c == nil {
		return out
	}
	out.Complete = !c.lossy
	query = lowerASCII(query)
	for v, t := range c.values {
		if n := t.of(number); n > 0 && strings.Contains(lowerASCII(v), query) {
			out.Items = append(out.Items, SeenValue{v, n})
		}
	}
	slices.SortFunc(out.Items, func(a, b SeenValue) int {
		return cmp.Or(cmp.Compare(b.People, a.People), strings.Compare(a.Value, b.Value))
	})
	out.cut(limit)
	return out
}

// SeenClaims lists claims that people's statements had when they were last
// seen. The usual ones come first, whether anybody has them or not.
func (d *Directory) SeenClaims(ctx context.Context, source string, limit int) Seen[SeenClaim] {
	out := Seen[SeenClaim]{Items: []SeenClaim{}}
	usual := d.usualClaims(source)
	s := d.seen(ctx)
	if s == nil {
		s = &summary{}
	}
	out.AsOf, out.Complete = s.at, !s.full
	number, known := s.source(source)
	for name := range usual {
		if s.claims[name] == nil {
			out.Items = append(out.Items, SeenClaim{name, 0, true})
		}
	}
	for name, c := range s.claims {
		n := 0
		if known {
			n = c.people.of(number)
		}
		if n > 0 || usual[name] {
			out.Items = append(out.Items, SeenClaim{name, n, usual[name]})
		}
	}
	slices.SortFunc(out.Items, func(a, b SeenClaim) int {
		if a.Usual != b.Usual {
			return map[bool]int{true: -1, false: 1}[a.Usual]
		}
		return cmp.Or(cmp.Compare(b.People, a.People), strings.Compare(a.Claim, b.Claim))
	})
	out.cut(limit)
	return out
}

func (s *Seen[T]) cut(limit int) {
	if len(s.Items) > limit {
		s.Items, s.More = s.Items[:limit:limit], true
	}
}

// usualClaims are those that settings or rules name of a source, or of any.
func (d *Directory) usualClaims(source string) map[string]bool {
	st, out := d.state.Load(), map[string]bool{}
	for name, src := range st.sources {
		if src.Local != nil || source != "" && name != source {
			continue
		}
		for _, c := range slices.Concat(src.Groups.Claims, st.rules.Claims(name)) {
			out[c] = true
		}
	}
	return out
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
