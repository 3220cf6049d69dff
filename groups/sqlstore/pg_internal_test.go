package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/groupgate/groupgate/groups"
)

// Every text comes back as it was, PostgreSQL can take it, and no two become
// one: nor inside a JSON document.
func TestMarkedText(t *testing.T) {
	t.Parallel()
	piece := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"\x00", "\xff", "\uFDD0", "\uFDD000", "\xef\xb7", "\x90", "\xed\xa0\x80", `"`, `\`, `\u0000`, "ff"}),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Join(rapid.SliceOf(piece).Draw(t, "pieces"), "")
		m := marked(s)
		if !utf8.ValidString(m) || strings.Contains(m, "\x00") {
			t.Fatalf("%q became %q, which PostgreSQL refuses", s, m)
		}
		_ = unmarked(s) // whatever stands in the database, reading it does not fail
		if got := unmarked(m); got != s {
			t.Fatalf("%q became %q, which became %q", s, m, got)
		}
		var list []string
		if err := json.Unmarshal([]byte(marked(string(jsonList([]string{s, "x"})))), &list); err != nil || len(list) != 2 || list[0] != m {
			t.Fatalf("in a document %q became %q, %v; want %q", s, list, err, m)
		}
	})
	for _, s := range []string{"", "alice", "Älice", "\u2028", "\uFFFD"} {
		if marked(s) != s {
			t.Errorf("%q is stored as %q", s, marked(s))
		}
	}
}

func TestPostgresErrorsHaveOneMeaning(t *testing.T) {
	t.Parallel()
	const secret = "alice@example.com"
	meanings := []error{groups.ErrUnavailable, groups.ErrConflict, groups.ErrNotFound, context.Canceled}
	for code, want := range map[string]error{
		"23505": groups.ErrConflict, "23503": groups.ErrNotFound, "23502": groups.ErrNotFound,
		"40001": groups.ErrUnavailable, "40P01": groups.ErrUnavailable, "53100": groups.ErrUnavailable, "57P01": groups.ErrUnavailable,
		"25006": groups.ErrUnavailable, "08006": groups.ErrUnavailable, "55P03": groups.ErrUnavailable,
		"42703": nil, "22P02": nil, "54000": nil,
	} {
		err := failed("step", fmt.Errorf("x: %w", &pgconn.PgError{Severity: "ERROR", Code: code, Message: "bad value " + secret, Detail: "Key (name)=(" + secret + ")", ConstraintName: "users_name"}))
		for _, m := range meanings {
			if got := errors.Is(err, m); got != (m == want) {
				t.Errorf("%s: is %v: %v (%v)", code, m, got, err)
			}
		}
		if !strings.Contains(err.Error(), code) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := failed("step", fmt.Errorf("x: %w", errLost)); !errors.Is(err, groups.ErrUnavailable) {
		t.Errorf("a lost connection: %v", err)
	}
}

// SM-19: the database's clock is taken over, but not every jitter of the way.
func TestDatabaseClock(t *testing.T) {
	t.Parallel()
	var c dbClock
	log := zap.NewNop()
	look := func(ahead, trip time.Duration) {
		before := steady()
		c.note(before.Add(trip/2+ahead), before, before.Add(trip), log)
	}
	is := func(what string, want time.Duration) {
		t.Helper()
		if off := (time.Until(c.now()) - want).Abs(); off > 50*time.Millisecond {
			t.Errorf("%s: the clock is %v off", what, off)
		}
	}
	is("before any look", 0)
	look(5*time.Minute, 10*time.Millisecond)
	is("five minutes ahead", 5*time.Minute)
	for range clockSamples {
		look(5*time.Minute+3*time.Millisecond, time.Millisecond)
	}
	if got := time.Duration(c.offset.Load()); got != 5*time.Minute {
		t.Errorf("it follows a jitter: %v", got)
	}
	look(time.Hour, time.Second) // one odd answer
	is("after one odd answer", 5*time.Minute)
	for range clockSamples {
		look(-time.Minute, time.Millisecond)
	}
	is("set back", -time.Minute)
}

// What is written for both databases comes out in the words of each.
func TestDialects(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		`id in texts($1)`:                  {`id in (select value from json_each($1))`, `id = any(array(select value from json_array_elements_text($1::json)))`},
		`from ids($2) s`:                   {`from (select value from json_each($2)) s`, `from (select value::bigint as value from json_array_elements_text($2::json)) s`},
		`from tuples($1)`:                  {`from jsonb_each($1)`, `from json_array_elements($1::json)`},
		`least(a, b) greatest(a, b)`:       {`min(a, b) max(a, b)`, `least(a, b) greatest(a, b)`},
		`instr(a, b) unhex(v->>0) +u.name`: {`instr(a, b) unhex(v->>0) +u.name`, `strpos(a, b) decode(v->>0, 'hex') u.name`},
		`a cross join b on x = y`:          {`a cross join b on x = y`, `a join b on x = y`},
		`a cross join b x on x.id = y`:     {`a cross join b x on x.id = y`, `a join b x on x.id = y`},
		`a cross join b where c`:           {`a cross join b where c`, `a cross join b where c`},
	} {
		if got := [2]string{sqliteText(text), postgresText(text)}; got != want {
			t.Errorf("%s:\n%q, want\n%q", text, got, want)
		}
	}
}

// What failed alike with and without encryption is said once, in one line.
func TestOneLine(t *testing.T) {
	t.Parallel()
	a, b := errors.New("lookup db: no such host"), errors.New("hostname resolving error: lookup db: no such host")
	for want, err := range map[string]error{
		"lookup db: no such host":          errors.Join(b, a),
		"lookup db: no such host; refused": errors.Join(a, errors.New("refused"), a),
	} {
		if got := oneLine(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
