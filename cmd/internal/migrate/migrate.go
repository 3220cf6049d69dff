// Package migrate writes a groupgate configuration from that of another proxy,
// and says what of it has no counterpart. It reads text and writes text: whether
// the outcome is fit to run is said by "groupgate check".
//
// # Design
//
// A setting is translated where groupgate can do the same or less: what would
// let more people in than before is written as a comment, for a person to
// decide about. Secrets stay where they are: the outcome refers to the old
// file's, or to an environment variable, and no message repeats a value.
package migrate

import (
	"fmt"
	"slices"
	"strings"
)

// Result is what became of a configuration.
type Result struct {
	Config string   // YAML
	Lacks  []string // what was not translated, and what that means; a line each, in the order of the file
}

// Fault is why a file cannot be read.
type Fault struct {
	File string
	Line int // from 1
	Msg  string
}

func (f *Fault) Error() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Msg) }

// product is another proxy: its options by the name they have in its file.
type product struct {
	name   string
	prefix string // of its environment variables
	lists  []string
	bools  []string
	others []string // text, numbers and durations
	// means says of an option that has no counterpart what that means; empty for
	// one that groupgate needs no word for.
	means map[string]string
}

func (p *product) knows(name string) bool {
	return slices.Contains(p.lists, name) || slices.Contains(p.bools, name) || slices.Contains(p.others, name)
}

// migration is one file on its way.
type migration struct {
	*product
	*settings
	out   output
	lacks []lack
	needs []string // what has to be done by hand in any case
}

type lack struct {
	line int
	text string
}

// lack notes what a setting cannot become.
func (m *migration) lack(s setting, format string, args ...any) {
	m.lacks = append(m.lacks, lack{s.line, fmt.Sprintf("%s:%d: %s: %s", m.file, s.line, s.name, fmt.Sprintf(format, args...))})
}

// need notes what has to be done whatever the file says.
func (m *migration) need(format string, args ...any) {
	m.needs = append(m.needs, m.file+": "+fmt.Sprintf(format, args...))
}

// result lists what nothing was made of, and ends the migration.
func (m *migration) result() *Result {
	for _, s := range m.all {
		if m.used[s.name] {
			continue
		}
		what := m.means[s.name]
		switch {
		case !m.knows(s.name):
			m.lack(s, "is no option of %s that is known here", m.name)
		case slices.Contains(m.bools, s.name) && !s.on(): // it was off
		case what != "":
			m.lack(s, "%s", what)
		}
	}
	slices.SortStableFunc(m.lacks, func(a, b lack) int { return a.line - b.line })
	r := &Result{Config: m.out.String()}
	for _, l := range m.lacks {
		r.Lacks = append(r.Lacks, l.text)
	}
	r.Lacks = append(r.Lacks, m.needs...)
	return r
}

// take answers a setting and takes note that something was made of it.
func (s *settings) take(name string) (setting, bool) {
	for _, one := range s.all {
		if one.name == name {
			s.used[name] = true
			return one, true
		}
	}
	return setting{name: name}, false
}

// usual is the comment beside what holds unless the file says otherwise.
func (p *product) usual() string { return "the default of " + p.name }

// text is a setting's one value; empty when there is none.
func (s setting) text() string {
	if len(s.values) == 0 {
		return ""
	}
	return s.values[len(s.values)-1]
}

func (s setting) on() bool {
	switch strings.ToLower(s.text()) {
	case "true", "1", "t":
		return true
	}
	return false
}

// from is the comment beside what was made of the setting.
func (s setting) from() string { return fmt.Sprintf("%s, line %d", s.name, s.line) }
