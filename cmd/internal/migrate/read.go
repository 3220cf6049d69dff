package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const maxFile = 1 << 20

// settings are what a file says, each option once.
type settings struct {
	file string
	all  []setting
	used map[string]bool
}

type setting struct {
	name   string // as in the file's own spelling: lower case with "_"
	values []string
	line   int
}

// read understands three ways to write options: a .cfg file (TOML without
// tables), an environment file, and a command line, also as a list in YAML.
func (p *product) read(name string, text []byte) (*settings, error) {
	r := &reader{product: p, text: strings.TrimPrefix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\ufeff"),
		out: &settings{file: name, used: map[string]bool{}}}
	switch {
	case len(text) > maxFile:
		return nil, r.fault("larger than %d KiB: not a configuration", maxFile>>10)
	case !utf8.ValidString(r.text) || strings.ContainsFunc(r.text, func(c rune) bool { return c < ' ' && c != '\t' && c != '\n' }):
		return nil, r.fault("not text")
	}
	var err error
	switch r.form() {
	case "env":
		err = r.environment()
	case "flags":
		err = r.commandLine()
	case "alpha":
		err = r.fault("this looks like YAML, such as an alpha configuration: options are read from a .cfg file, an environment file or a command line")
	default:
		err = r.assignments()
	}
	if err != nil {
		return nil, err
	}
	known := 0
	for i := range r.out.all {
		s := &r.out.all[i]
		if p.knows(s.name) {
			known++
		}
		for _, v := range s.values {
			if strings.Contains(v, "${env:") || strings.Contains(v, "${file:") {
				return nil, &Fault{name, s.line, s.name + ": holds ${env: or ${file:, which would mean something else to groupgate"}
			}
		}
	}
	if known == 0 {
		return nil, &Fault{name, 1, "no option of " + p.name + " stands here"}
	}
	return r.out, nil
}

// reader is at one place of a text.
type reader struct {
	*product
	text string
	at   int
	out  *settings
}

func (r *reader) line() int { return strings.Count(r.text[:min(r.at, len(r.text))], "\n") + 1 }

// fault never repeats what stands there: it may be a secret.
func (r *reader) fault(format string, args ...any) error {
	return &Fault{r.out.file, r.line(), fmt.Sprintf(format, args...)}
}

var (
	envLine  = regexp.MustCompile(`^(export\s+)?[A-Z][A-Z0-9_]*=`)
	flagLine = regexp.MustCompile(`(^|[\s"'])--?[a-z][a-z0-9-]+`)
	tomlLine = regexp.MustCompile(`^[A-Za-z0-9_-]+\s*=`)
	yamlLine = regexp.MustCompile(`^[A-Za-z]+:(\s|$)`)
)

// form looks at the first line that says something.
func (r *reader) form() string {
	for l := range strings.Lines(r.text) {
		switch l = strings.TrimSpace(l); {
		case l == "" || l[0] == '#':
		case envLine.MatchString(l):
			return "env"
		case tomlLine.MatchString(l) && l[0] != '-':
			return "toml"
		case yamlLine.MatchString(l) && !flagLine.MatchString(l):
			if l != "args:" && l != "command:" {
				return "alpha"
			}
			return "flags"
		default:
			if flagLine.MatchString(r.text) {
				return "flags"
			}
			return "toml"
		}
	}
	return "toml"
}

// one notes an option that is one text. A list may be written so, with commas,
// as the other proxies take it.
func (r *reader) one(name string, line int, value string, again bool) error {
	values := []string{value}
	if slices.Contains(r.lists, r.named(name)) {
		values = nil
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				values = append(values, part)
			}
		}
	}
	return r.put(name, line, values, again)
}

// named brings a name into the spelling of a .cfg file.
func (r *reader) named(name string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	if !r.knows(name) && r.knows(name+"s") {
		name += "s" // a flag that may be given several times
	}
	return name
}

// put notes an option; again says that a second one adds to the first.
func (r *reader) put(name string, line int, values []string, again bool) error {
	name = r.named(name)
	for i := range r.out.all {
		if s := &r.out.all[i]; s.name == name {
			if !again {
				return &Fault{r.out.file, line, fmt.Sprintf("%s stands in line %d already", name, s.line)}
			}
			s.values = append(s.values, values...)
			return nil
		}
	}
	r.out.all = append(r.out.all, setting{name, values, line})
	return nil
}

// assignments reads TOML without tables: that is all an option can be.
func (r *reader) assignments() error {
	for {
		r.blank(true)
		if r.at >= len(r.text) {
			return nil
		}
		line := r.line()
		n := strings.IndexFunc(r.text[r.at:], func(c rune) bool {
			return c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
		})
		if n <= 0 {
			return r.fault("no option begins here: name = value is wanted")
		}
		name := r.text[r.at : r.at+n]
		r.at += n
		r.blank(false)
		if r.peek() != '=' {
			return r.fault("no \"=\" behind the name of an option")
		}
		r.at++
		r.blank(false)
		several := r.peek() == '['
		values, err := r.value()
		if err == nil && several {
			err = r.put(name, line, values, false)
		} else if err == nil {
			err = r.one(name, line, values[0], false)
		}
		if err != nil {
			return err
		}
		r.blank(false)
		if c := r.peek(); c != 0 && c != '\n' && c != '#' {
			return r.fault("more than one value")
		}
	}
}

func (r *reader) peek() byte {
	if r.at >= len(r.text) {
		return 0
	}
	return r.text[r.at]
}

// blank passes over blanks, and over line ends and comments where they mean
// nothing.
func (r *reader) blank(lines bool) {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == ' ' || c == '\t' || lines && c == '\n':
			r.at++
		case lines && c == '#':
			n := strings.IndexByte(r.text[r.at:], '\n')
			if n < 0 {
				n = len(r.text) - r.at
			}
			r.at += n
		default:
			return
		}
	}
}

// value reads text, a list of texts, or a word such as true or 168h.
func (r *reader) value() ([]string, error) {
	switch c := r.peek(); c {
	case '[':
		return r.array()
	case '"', '\'':
		s, err := r.quote()
		return []string{s}, err
	default:
		n := strings.IndexAny(r.text[r.at:], " \t\n#,]")
		if n < 0 {
			n = len(r.text) - r.at
		}
		word := r.text[r.at : r.at+n]
		if word == "" || strings.ContainsAny(word, "\"'[{=") {
			return nil, r.fault("not a value: text in quotes, a list in brackets, a number, true or false")
		}
		r.at += n
		return []string{word}, nil
	}
}

func (r *reader) array() ([]string, error) {
	r.at++
	out := []string{}
	for {
		r.blank(true)
		switch r.peek() {
		case 0:
			return nil, r.fault("a list that nothing closes")
		case ']':
			r.at++
			return out, nil
		case '[':
			return nil, r.fault("a list in a list")
		}
		one, err := r.value()
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
		r.blank(true)
		switch r.peek() {
		case ',':
			r.at++
		case ']', 0:
		default:
			return nil, r.fault("no comma between two entries of a list")
		}
	}
}

// quote reads a text of TOML: basic or literal, on one line or on several.
func (r *reader) quote() (string, error) {
	c := r.text[r.at : r.at+1]
	mark := c
	if strings.HasPrefix(r.text[r.at:], c+c+c) {
		mark = c + c + c
	}
	start := r.at + len(mark)
	for at := start; at < len(r.text); at++ {
		switch {
		case strings.HasPrefix(r.text[at:], mark):
			raw := r.text[start:at]
			r.at = at + len(mark)
			if len(mark) == 3 {
				raw = strings.TrimPrefix(raw, "\n")
			}
			if c == "'" {
				return raw, nil
			}
			return r.unescape(raw)
		case r.text[at] == '\n' && len(mark) == 1:
			return "", r.fault("a quote that nothing closes")
		case r.text[at] == '\\' && c == `"`:
			at++
		}
	}
	return "", r.fault("a quote that nothing closes")
}

func (r *reader) unescape(raw string) (string, error) {
	if !strings.Contains(raw, `\`) {
		return raw, nil
	}
	var b strings.Builder
	for rest := raw; rest != ""; {
		if rest[0] != '\\' { // also a bare quote or line end, of a text on several lines
			b.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		c, _, tail, err := strconv.UnquoteChar(rest, '"')
		if err != nil {
			return "", r.fault("a backslash that escapes nothing")
		}
		b.WriteRune(c)
		rest = tail
	}
	return b.String(), nil
}
