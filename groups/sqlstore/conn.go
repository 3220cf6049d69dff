package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/groupgate/groupgate/groups"
)

// rows is a result that is being read: SQLite's, or PostgreSQL's. It is no
// interface, through which each row would cost an allocation.
type rows struct {
	lite *sql.Rows
	pg   *pgRows
}

// Next goes to the next row.
func (r *rows) Next() bool {
	if r.lite != nil {
		return r.lite.Next()
	}
	return r.pg.Next()
}

// Scan reads the row.
func (r *rows) Scan(into ...any) error {
	if r.lite != nil {
		return r.lite.Scan(into...)
	}
	return r.pg.Scan(slices.Clone(into)...)
}

// Err is what ended the rows before their end.
func (r *rows) Err() error {
	if r.lite != nil {
		return r.lite.Err()
	}
	return r.pg.Err()
}

// Close lets go of the connection.
func (r *rows) Close() error {
	if r.lite != nil {
		return r.lite.Close()
	}
	return r.pg.Close()
}

// querier runs one reading statement. Texts are few and fixed, so that each is
// put into the words of the database and prepared once; see dialect.go.
type querier interface {
	query(ctx context.Context, text string, args ...any) (*rows, error)
}

// statements keeps what was prepared, by its text.
type statements struct {
	prepare func(ctx context.Context, text string) (*sql.Stmt, error)
	mu      sync.Mutex
	byText  map[string]*sql.Stmt
}

// get never lets go of a statement: the texts of EventQuery and LoginFilter
// depend on which fields are set, all others are fixed.
func (s *statements) get(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.Lock()
	st := s.byText[text]
	s.mu.Unlock()
	if st != nil {
		return st, nil
	}
	// Not under the lock: it may have to wait for a connection.
	st, err := s.prepare(ctx, sqliteText(text))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.byText[text]; first != nil {
		return first, st.Close()
	}
	if s.byText == nil {
		s.byText = map[string]*sql.Stmt{}
	}
	s.byText[text] = st
	return st, nil
}

// close must come before the connection's: database/sql does not know of
// statements that were prepared on a held connection, and SQLite keeps a
// connection, with its log and locks, open until its last statement goes.
func (s *statements) close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, st := range s.byText {
		errs = append(errs, st.Close())
	}
	s.byText = nil
	return errors.Join(errs...)
}

func (s *statements) query(ctx context.Context, text string, args ...any) (*rows, error) {
	st, err := s.get(ctx, text)
	if err != nil {
		return nil, err
	}
	r, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	return &rows{lite: r}, nil
}

func (s *statements) exec(ctx context.Context, text string, args ...any) (int64, error) {
	st, err := s.get(ctx, text)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// list reads all rows of a statement.
func list[T any](ctx context.Context, q querier, step string, scan func(*rows, *T) error, text string, args ...any) ([]T, error) {
	var out []T
	err := each(ctx, q, func(r *rows) error {
		var v T
		err := scan(r, &v)
		out = append(out, v)
		return err
	}, text, args...)
	if err != nil {
		return nil, failed(step, err)
	}
	return out, nil
}

// each calls fn for every row of a statement.
func each(ctx context.Context, q querier, fn func(*rows) error, text string, args ...any) error {
	r, err := q.query(ctx, text, args...)
	if err != nil {
		return err
	}
	for err == nil && r.Next() {
		err = fn(r)
	}
	err = errors.Join(err, r.Err(), r.Close())
	if t, ok := q.(*tx); ok {
		return t.note(ctx, err)
	}
	return err
}

// one reads the only row of a statement; none is ErrNotFound.
func one[T any](ctx context.Context, q querier, step string, scan func(*rows, *T) error, text string, args ...any) (*T, error) {
	all, err := list(ctx, q, step, scan, text, args...)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, failed(step, groups.ErrNotFound)
	}
	return &all[0], nil
}

func scanValue[T any](r *rows, v *T) error { return r.Scan(v) }

// limitOf is a statement's limit; none given means all.
func limitOf(n int) int64 {
	if n <= 0 {
		return 1<<63 - 1
	}
	return int64(n)
}

// micros writes a time; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// when reads what micros wrote.
func when(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// fold maps ASCII upper case to lower case and leaves every other byte alone.
func fold(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// document is a JSON parameter in the making: a byte 0 in it stands for itself,
// which JSON would write as an escape.
type document string

// Value is the parameter for SQLite.
func (d document) Value() (driver.Value, error) {
	return strings.ReplaceAll(string(d), "\x00", `\u0000`), nil
}

// jsonRows writes rows of text as one JSON parameter: [["a","b"],["c","d"]].
func jsonRows[T any](all []T, columns func(T) []string) document {
	b := []byte{'['}
	for i, row := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, s := range columns(row) {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, s)
		}
		b = append(b, ']')
	}
	return document(append(b, ']'))
}

// jsonList writes one JSON array of text.
func jsonList(all []string) document {
	b := []byte{'['}
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, s)
	}
	return document(append(b, ']'))
}

// jsonUsers writes one JSON array of ids.
func jsonUsers(all []groups.UserID) document {
	return jsonNumbers(all)
}

func jsonNumbers[T ~int64](all []T) document {
	b := []byte{'['}
	for i, id := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%d", int64(id))
	}
	return document(append(b, ']'))
}

// appendJSON quotes s and keeps every byte. encoding/json would put U+FFFD for
// what is not UTF-8, and the value would never again equal what the directory
// has: values are compared byte for byte. SQLite takes any byte from 0x20 on.
// For 0 see document.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 && c != 0:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
