package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile  = 4 << 20 // bytes of the configuration, and of a file it names
	maxDepth = 64      // of nesting; the parser recurses and has no bound of its own
)

// readFile reads a regular file of bounded size. A pipe or a device could
// keep a reload waiting for ever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return data, err
}

// cause is an error's text without the path, which the fault names itself.
func cause(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// parse reads the text into a tree. It answers nil after noting a fault.
func (b *book) parse(text string) ast.Node {
	if p, ok := firstOdd(text); ok {
		b.faultAt(p, "", "a byte that is no UTF-8 text, or a control character")
		return nil
	}
	tokens := tokenize(text)
	if t := tooDeep(tokens); t != nil {
		b.faultAt(tokenPosition(t), "", "nested deeper than %d levels", maxDepth)
		return nil
	}
	file, err := parseTokens(tokens)
	if err != nil {
		p, msg := position{1, 1}, err.Error()
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			p, msg = tokenPosition(syntax.Token), syntax.Message
		}
		msg = strings.ReplaceAll(msg, "character '\t'", "a tab")
		b.faultAt(p, "", "not YAML: %s", msg)
		return nil
	}
	return b.onlyDocument(file)
}

// lexing is held while the library cuts a text into tokens: its scanner gives
// its buffer back to a shared pool while the caller still reads from it
// (goccy/go-yaml v1.19.2, scanner.Scan), so two at once would mix their files.
var lexing sync.Mutex

func tokenize(text string) token.Tokens {
	lexing.Lock()
	defer lexing.Unlock()
	return lexer.Tokenize(text)
}

// parseTokens turns a panic of the parser into an error: a reload must not
// end a process that is serving.
func parseTokens(tokens token.Tokens) (f *ast.File, err error) {
	defer func() {
		if recover() != nil {
			f, err = nil, errors.New("the parser cannot make sense of it")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// onlyDocument answers the root of the one document. A second one would be
// read by some tools and passed over by others.
func (b *book) onlyDocument(file *ast.File) ast.Node {
	var root ast.Node
	for i, doc := range file.Docs {
		if d, ok := doc.Body.(*ast.DirectiveNode); ok {
			b.faultAt(nodePosition(d), "", "a %% directive: take the line away")
			return nil
		}
		if i > 0 {
			b.faultAt(tokenPosition(doc.Start), "", "a second document begins here: one file is one configuration")
			return nil
		}
		root = doc.Body
	}
	switch root.(type) {
	case nil, *ast.NullNode:
		b.faultAt(position{1, 1}, "", "the file is empty")
		return nil
	}
	return root
}

// firstOdd finds the first thing that is not text.
func firstOdd(text string) (p position, found bool) {
	p = position{1, 1}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\n':
			p.line, p.column = p.line+1, 0
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85:
			return p, true
		}
		p.column++
		i += size
	}
	return p, false
}

// tooDeep finds the token at which nesting passes the bound: open brackets,
// and dashes, tags and anchors stacked one upon the other. Nesting by
// indentation costs a column a level, which bounds it by the file's size.
func tooDeep(tokens token.Tokens) *token.Token {
	flow, stacked, line := 0, 0, 0
	var before token.Type
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
			stacked = 0
		case token.SequenceEndType, token.MappingEndType:
			flow--
			stacked = 0
		case token.SequenceEntryType, token.MappingKeyType:
			if t.Position.Line != line {
				stacked = 0 // entries of one list, not of lists in lists
			}
			stacked++
		case token.TagType, token.AnchorType:
			stacked++
		default:
			if before != token.AnchorType { // else it is the anchor's name
				stacked = 0
			}
		}
		if flow > maxDepth || stacked > maxDepth {
			return t
		}
		before, line = t.Type, t.Position.Line
	}
	return nil
}

// tokenPosition is the start of the file for a token the parser made up.
func tokenPosition(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// nodePosition is where a reader sees a node begin. The parser gives the ":"
// of the first pair for a mapping, and the text's line for a block scalar.
func nodePosition(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return nodePosition(n.Values[0].Key)
		}
		return tokenPosition(n.Start)
	case *ast.MappingValueNode:
		return nodePosition(n.Key)
	case *ast.LiteralNode:
		return tokenPosition(n.Start)
	}
	return tokenPosition(n.GetToken())
}
