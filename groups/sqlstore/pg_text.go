package sqlstore

import (
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// What people's sources say may hold bytes that PostgreSQL's text does not
// take: 0, and what is not UTF-8. Such a byte travels as the mark and two hex
// digits, and the mark itself as two marks. It is a code point that stands for
// no character (Unicode 23.7), so that this is rare; everything else is stored
// as it is.
const mark = "\uFDD0"

// plain says whether the text needs no marks.
func plain(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 && !strings.Contains(s, mark)
}

// marked is s as PostgreSQL can keep it. It goes by bytes, so that what it makes
// of a JSON document is the document of marked values.
func marked(s string) string {
	if plain(s) {
		return s
	}
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, s[i] == 0:
			b = append(b, mark...)
			b = append(b, hex[s[i]>>4], hex[s[i]&15])
		case s[i:i+n] == mark:
			b = append(b, mark+mark...)
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return string(b)
}

// unmarked undoes marked.
func unmarked(s string) string {
	if !strings.Contains(s, mark) {
		return s
	}
	b := make([]byte, 0, len(s))
	for {
		before, after, found := strings.Cut(s, mark)
		b = append(b, before...)
		switch {
		case !found:
			return string(b)
		case strings.HasPrefix(after, mark):
			b, s = append(b, mark...), after[len(mark):]
		case len(after) >= 2:
			b, s = append(b, unhex(after[0])<<4|unhex(after[1])), after[2:]
		default: // nothing of ours
			b, s = append(b, mark...), after
		}
	}
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// markedArgs are the parameters of a statement, in types that say by
// themselves what they are: behind a pooler there is nobody to ask.
func markedArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			out[i] = marked(a)
		case document:
			out[i] = marked(string(a))
		case int:
			out[i] = int64(a)
		default:
			out[i] = a
		}
	}
	return out
}

// pgRows is a result of PostgreSQL, with its first row read.
type pgRows struct {
	pgx.Rows
	first, more bool
	done        func()
}

// readFirst waits for the first row, so that a fault of the connection shows
// before anybody has seen anything.
func readFirst(r pgx.Rows, done func()) (*rows, error) {
	p := &pgRows{Rows: r, first: true, done: done}
	if p.more = r.Next(); !p.more && r.Err() != nil {
		return nil, r.Err()
	}
	return &rows{pg: p}, nil
}

func (p *pgRows) Next() bool {
	if p.first {
		p.first = false
		return p.more
	}
	return p.Rows.Next()
}

func (p *pgRows) Scan(into ...any) error {
	if err := p.Rows.Scan(into...); err != nil {
		return err
	}
	for _, v := range into {
		switch v := v.(type) {
		case *string:
			*v = unmarked(*v)
		case *any:
			if s, ok := (*v).(string); ok {
				*v = unmarked(s)
			}
		case *int64, *int, *bool, *[]byte:
		default:
			if e := reflect.ValueOf(v).Elem(); e.Kind() == reflect.String {
				e.SetString(unmarked(e.String()))
			}
		}
	}
	return nil
}

func (p *pgRows) Close() error {
	p.Rows.Close()
	if p.done != nil {
		p.done()
		p.done = nil
	}
	return nil
}
