package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with a configuration file.
type Fault struct {
	File   string // as it was given to Load
	Line   int    // from 1
	Column int    // from 1, in characters
	Key    string // path of the key, such as rules[3].regexp; empty for the file as a whole
	Msg    string
}

// String is FILE:LINE:COLUMN: key: fault.
func (f Fault) String() string {
	at := f.File + ":" + strconv.Itoa(f.Line) + ":" + strconv.Itoa(f.Column) + ": "
	if f.Key != "" {
		at += f.Key + ": "
	}
	return at + f.Msg
}

// Faults is the error of [Load]: all that is wrong, in the order of the file.
type Faults []Fault

// Error puts each fault on a line of its own.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// maxFaults bounds what a file that is no configuration at all can make us
// say.
const maxFaults = 200

type position struct{ line, column int }

// book knows where everything in a file stands and collects what is wrong
// with it.
type book struct {
	file   string
	widths []int // of each line, in characters

	values   map[string]position // of the value at a path
	keys     map[string]position // of the key itself; list entries have none
	expanded map[string]bool     // the value at the path came from ${env:} or ${file:}
	faulty   map[string]bool
	inside   map[string]bool // a fault stands at or under the path
	broken   map[string]bool // the path's value could not be read at all
	faults   Faults
}

func newBook(file, text string) *book {
	b := &book{
		file:     file,
		values:   map[string]position{},
		keys:     map[string]position{},
		expanded: map[string]bool{},
		faulty:   map[string]bool{},
		inside:   map[string]bool{},
		broken:   map[string]bool{},
	}
	for line := range strings.SplitSeq(text, "\n") {
		b.widths = append(b.widths, len([]rune(line)))
	}
	return b
}

// written reports whether the file has the key.
func (b *book) written(path string) bool {
	_, key := b.keys[path]
	return key
}

// at finds a path's position: its value's, else that of the nearest key above
// it that the file has.
func (b *book) at(path string) position {
	if p, ok := b.values[path]; ok {
		return p
	}
	for path != "" {
		path = above(path)
		if p, ok := b.keys[path]; ok {
			return p
		}
		if p, ok := b.values[path]; ok {
			return p
		}
	}
	return position{1, 1}
}

// above is the path of the section or list that a path is in.
func above(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// fault notes what is wrong with the value at a path. A path is faulted once,
// and nothing is missing in what could not be read: what follows from a fault
// is not a second one.
func (b *book) fault(path, format string, args ...any) {
	if b.faulty[path] {
		return
	}
	for p := path; p != ""; {
		if p = above(p); b.broken[p] {
			return
		}
	}
	b.faultAt(b.at(path), path, format, args...)
}

// unreadable is fault for a value that yields nothing to look at further.
func (b *book) unreadable(path, format string, args ...any) {
	b.fault(path, format, args...)
	b.broken[path] = true
}

func (b *book) faultAt(p position, path, format string, args ...any) {
	b.faulty[path] = true
	for at := path; !b.inside[at]; at = above(at) {
		b.inside[at] = true
	}
	if len(b.faults) > maxFaults {
		return
	}
	// The parser's positions can lie beside the text after odd line breaks.
	p.line = min(max(p.line, 1), len(b.widths))
	p.column = min(max(p.column, 1), b.widths[p.line-1]+1)
	msg := strings.NewReplacer("\r", "", "\n", " ").Replace(fmt.Sprintf(format, args...))
	b.faults = append(b.faults, Fault{b.file, p.line, p.column, shownKeys.Replace(path), msg})
}

// err answers the faults in the order of the file, or nil.
func (b *book) err() error {
	if len(b.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(b.faults, func(x, y Fault) int {
		return cmp.Or(x.Line-y.Line, x.Column-y.Column, strings.Compare(x.Key, y.Key))
	})
	if len(b.faults) > maxFaults {
		b.faults = b.faults[:maxFaults]
		last := &b.faults[maxFaults-1]
		*last = Fault{last.File, last.Line, last.Column, "", "there are more faults: mend these first"}
	}
	return b.faults
}

// show quotes a value for a message, unless it came from outside the file:
// then it may be a secret that stands at the wrong key.
func (b *book) show(path, value string) string {
	if b.expanded[path] {
		return "the value"
	}
	return quote(value)
}

func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "..."
	}
	return strconv.Quote(s)
}

// explain gives an error's text only when the value it may repeat stands in
// the file for everybody to see.
func (b *book) explain(path string, err error) string {
	if b.expanded[path] {
		return "the value that was put in here is not valid"
	}
	return err.Error()
}

// Dots and brackets of a key are told apart from those of a path by an
// escape, which people do not get to see.
var (
	pathKeys  = strings.NewReplacer(".", `\x2e`, "[", `\x5b`)
	shownKeys = strings.NewReplacer(`\x2e`, ".", `\x5b`, "[")
)

// join appends a key to a path. A key that would make the path ambiguous or
// break the line is quoted.
func join(path, key string) string {
	plain := key != "" && len(key) <= 64
	for _, r := range key {
		plain = plain && (r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !plain {
		key = pathKeys.Replace(quote(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
