package migrate

import (
	"slices"
	"strings"
)

// environment reads lines NAME=value.
func (r *reader) environment() error {
	for l := range strings.Lines(r.text) {
		text := strings.TrimSpace(l)
		if text != "" && text[0] != '#' {
			name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(text, "export ")), "=")
			if !ok || !envLine.MatchString(name+"=") {
				return r.fault("not NAME=value")
			}
			value = strings.TrimSpace(value)
			if n := len(value); n > 1 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
				value = value[1 : n-1]
			}
			if own, ours := strings.CutPrefix(name, r.prefix); ours && own != "" {
				if err := r.one(own, r.line(), value, false); err != nil {
					return err
				}
			}
		}
		r.at += len(l)
	}
	return nil
}

// commandLine reads --name=value, --name value and --name, with quotes and
// line continuations as a shell has them.
func (r *reader) commandLine() error {
	words, lines, err := r.words()
	if err != nil {
		return err
	}
	begun := false
	for i := 0; i < len(words); i++ {
		flag := strings.TrimLeft(words[i], "-")
		if flag == words[i] || flag == "" {
			if begun && words[i] != "-" {
				return &Fault{r.out.file, lines[i], "a word that belongs to no option"}
			}
			continue // the program, or the dash of a list
		}
		begun = true
		name, value, has := strings.Cut(flag, "=")
		bare := strings.ToLower(strings.ReplaceAll(name, "-", "_"))
		switch {
		case has:
		case slices.Contains(r.bools, bare):
			value = "true"
		case i+1 < len(words) && !strings.HasPrefix(words[i+1], "--"):
			i++
			value = words[i]
		default:
			return &Fault{r.out.file, lines[i], "an option without its value"}
		}
		if err := r.one(name, lines[i], value, true); err != nil {
			return err
		}
	}
	return nil
}

// words cuts the text as a shell does, as far as quotes go. Nothing is
// expanded.
func (r *reader) words() (words []string, lines []int, err error) {
	var word strings.Builder
	within, began := false, 0
	end := func() {
		if within {
			words, lines = append(words, word.String()), append(lines, began)
			word.Reset()
			within = false
		}
	}
	begin := func() {
		if !within {
			within, began = true, r.line()
		}
	}
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '\\' && r.at+1 < len(r.text) && r.text[r.at+1] == '\n':
			r.at++
			end()
		case c == '\\' && r.at+1 < len(r.text):
			begin()
			r.at++
			word.WriteByte(r.text[r.at])
		case c == '"' || c == '\'':
			begin()
			n := strings.IndexByte(r.text[r.at+1:], c)
			if n < 0 {
				return nil, nil, r.fault("a quote that nothing closes")
			}
			word.WriteString(r.text[r.at+1 : r.at+1+n])
			r.at += n + 1
		case c == '#' && !within:
			n := strings.IndexByte(r.text[r.at:], '\n')
			if n < 0 {
				n = len(r.text) - r.at
			}
			r.at += n - 1
		case c == ' ' || c == '\t' || c == '\n':
			end()
		default:
			begin()
			word.WriteByte(c)
		}
	}
	end()
	return words, lines, nil
}
