package config

import (
	"errors"
	"os"
	"strings"
)

// expander replaces ${env:NAME} and ${file:PATH} inside text.
type expander struct {
	env  func(string) (string, bool)
	read map[string]bool // every file that was asked for, read or not
}

// expand answers the text with every reference replaced, whether there was
// one, and what is wrong. What a reference yields is not looked at again, so
// a secret may hold "${". An error names references, never what they hold.
func (e *expander) expand(text string) (out string, replaced bool, err error) {
	var b strings.Builder
	rest := text
	for {
		env, file := strings.Index(rest, "${env:"), strings.Index(rest, "${file:")
		at := env
		if env < 0 || file >= 0 && file < env {
			at = file
		}
		if at < 0 {
			// Anything else with a "$" is the value's own: a rule's template.
			return b.String() + rest, replaced, nil
		}
		b.WriteString(rest[:at])
		end := strings.IndexByte(rest[at:], '}')
		if end < 0 {
			return "", replaced, errors.New(rest[at:at+strings.IndexByte(rest[at:], ':')+1] + " without a closing }")
		}
		kind, name, _ := strings.Cut(rest[at+2:at+end], ":")
		value, err := e.look(kind, name)
		if err != nil {
			return "", true, err
		}
		replaced = true
		b.WriteString(value)
		rest = rest[at+end+1:]
	}
}

// look answers what one reference stands for.
func (e *expander) look(kind, name string) (string, error) {
	if name == "" {
		return "", errors.New("${" + kind + ":} does not say which")
	}
	if kind == "env" {
		value, set := e.env(name)
		if !set {
			return "", errors.New("the environment variable " + quote(name) + " is not set")
		}
		return value, nil
	}
	e.read[name] = true
	data, err := readFile(name)
	if err != nil {
		return "", errors.New("the file " + quote(name) + " cannot be read: " + cause(err))
	}
	text, cut := strings.CutSuffix(string(data), "\n")
	if cut {
		text = strings.TrimSuffix(text, "\r")
	}
	return text, nil
}

func newExpander() *expander { return &expander{env: os.LookupEnv, read: map[string]bool{}} }
