package saml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of one message. They hold before any parser builds a tree of it: a
// tree costs a multiple of the bytes, and canonicalisation walks the namespace
// declarations in scope for every element.
const (
	maxMessage      = 512 << 10 // bytes, decoded
	maxDepth        = 48
	maxElements     = 16_000
	maxAttributes   = 64      // of one element
	maxDeclarations = 16      // of namespaces, of one element
	maxInScope      = 64      // of namespaces, on the way from the root
	maxScoped       = 160_000 // of namespaces in scope, over all elements
	maxComments     = 500
)

// scan reads a message once, in time linear to its length, and refuses what is
// too large to look at closely and what no SAML message needs: document types
// and with them entities, processing instructions, text or a second element
// beside the root, other encodings than UTF-8, XML 1.1.
func scan(message []byte) error {
	if len(message) > maxMessage {
		return fmt.Errorf("the message is longer than %d bytes", maxMessage)
	}
	if !utf8.Valid(message) {
		return errNotXML // the decoder lets it pass in comments
	}
	dec := xml.NewDecoder(bytes.NewReader(message))
	dec.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errors.New("not UTF-8") }
	s := scanner{}
	for {
		tok, err := dec.RawToken()
		switch {
		case err == io.EOF:
			return s.end()
		case err != nil:
			return errNotXML // the decoder quotes foreign text
		}
		if err := s.token(tok, dec.InputOffset()); err != nil {
			return err
		}
	}
}

var errNotXML = errors.New("not well-formed XML in UTF-8")

type scanner struct {
	open     []xml.Name
	declared []int // namespaces by open element
	inScope  int
	scoped   int // inScope, summed up
	elements int
	comments int
	roots    int
}

func (s *scanner) token(tok xml.Token, at int64) error {
	switch tok := tok.(type) {
	case xml.StartElement:
		return s.start(tok)
	case xml.EndElement:
		if len(s.open) == 0 || s.open[len(s.open)-1] != tok.Name {
			return errors.New("an end tag without its start")
		}
		s.inScope -= s.declared[len(s.open)-1]
		s.open, s.declared = s.open[:len(s.open)-1], s.declared[:len(s.open)-1]
	case xml.CharData:
		if len(s.open) == 0 && len(bytes.TrimLeft(tok, " \t\r\n")) > 0 {
			return errors.New("text outside the root element")
		}
	case xml.ProcInst:
		// The declaration alone, and only where it begins the message.
		if tok.Target != "xml" || s.elements > 0 || int(at) > len(tok.Inst)+len("<?xml ?>")+8 {
			return errors.New("a processing instruction")
		}
	case xml.Comment:
		// Taking one out of a tree moves everything behind it.
		if s.comments++; s.comments > maxComments {
			return fmt.Errorf("more than %d comments", maxComments)
		}
	case xml.Directive:
		return errors.New("a document type or another declaration")
	}
	return nil
}

func (s *scanner) start(el xml.StartElement) error {
	if len(s.open) == 0 {
		if s.roots++; s.roots > 1 {
			return errors.New("a second root element")
		}
	}
	if s.elements++; s.elements > maxElements {
		return fmt.Errorf("more than %d elements", maxElements)
	}
	if len(s.open) >= maxDepth {
		return fmt.Errorf("elements deeper than %d", maxDepth)
	}
	if len(el.Attr) > maxAttributes {
		return fmt.Errorf("more than %d attributes in one element", maxAttributes)
	}
	if !plainName(el.Name) {
		return errors.New("an element name that parsers read differently")
	}
	declarations := 0
	seen := make(map[xml.Name]struct{}, len(el.Attr))
	for _, a := range el.Attr {
		if !plainName(a.Name) {
			return errors.New("an attribute name that parsers read differently")
		}
		if _, twice := seen[a.Name]; twice {
			return errors.New("an attribute twice in one element")
		}
		seen[a.Name] = struct{}{}
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			declarations++
		}
	}
	if declarations > maxDeclarations || s.inScope+declarations > maxInScope {
		return errors.New("too many namespace declarations")
	}
	s.inScope += declarations
	if s.scoped += s.inScope; s.scoped > maxScoped {
		return errors.New("too many namespace declarations for so many elements")
	}
	s.open, s.declared = append(s.open, el.Name), append(s.declared, declarations)
	return nil
}

// plainName is a name with at most one colon, inside: others do not survive
// being written and read again (CVE-2020-29509 to -29511).
func plainName(n xml.Name) bool {
	return n.Local != "" && !strings.Contains(n.Local, ":") && !strings.Contains(n.Space, ":")
}

func (s *scanner) end() error {
	switch {
	case len(s.open) > 0:
		return errors.New("an element without its end")
	case s.roots == 0:
		return errors.New("no root element")
	}
	return nil
}
