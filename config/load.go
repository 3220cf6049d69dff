package config

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Load reads, expands and checks the configuration file. Its error is
// [Faults]: everything that is wrong, each fault with its position. It reads
// the environment, the files that ${file:} names, and certificates; it changes
// nothing and contacts nobody.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Faults{{File: path, Line: 1, Column: 1, Msg: "cannot be read: " + cause(err)}}
	}
	return load(path, string(data), newExpander())
}

func load(path, text string, e *expander) (*Config, error) {
	text = strings.TrimPrefix(text, "\ufeff") // editors on Windows begin a file with it
	b := newBook(path, text)
	root := b.parse(text)
	if root == nil {
		return nil, b.err()
	}
	cfg := Default()
	cfg.path = path
	d := newDecoder(b, e)
	ast.Walk(d, root)
	d.value("", root, reflect.ValueOf(cfg).Elem(), field{})
	cfg.read = slices.Sorted(maps.Keys(e.read))

	c := &checker{book: b, cfg: cfg, base: filepath.Base(path)}
	c.check()
	if err := b.err(); err != nil {
		return nil, err
	}
	cfg.fill()
	return cfg, nil
}
