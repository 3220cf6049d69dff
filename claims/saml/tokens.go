package saml

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

// byteOrderMark stands before the metadata of Entra ID.
var byteOrderMark = []byte("\xef\xbb\xbf")

// tokens reads the tokens of metadata, which is too long for [scan], and stops
// where one could cost more memory than the entity that is looked for. It is an
// [xml.TokenReader].
type tokens struct {
	raw   *xml.Decoder
	meter *meter
	depth int
	until int64 // offset at which the entity being read is too long; 0: none
	err   error // why it stopped, in words of ours
}

// meter counts what is read, in all and since the last token.
type meter struct {
	in         io.Reader
	all, since int64
	err        error
}

func (m *meter) Read(p []byte) (int, error) {
	switch {
	case m.err != nil:
		return 0, m.err
	case m.all > maxMetadata:
		m.err = fmt.Errorf("metadata of more than %d bytes", maxMetadata)
	case m.since > maxEntity:
		m.err = fmt.Errorf("the metadata has a piece of more than %d bytes", maxEntity)
	}
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.in.Read(p)
	m.all, m.since = m.all+int64(n), m.since+int64(n)
	if err != nil && err != io.EOF {
		m.err = errors.New("the metadata broke off")
		err = m.err
	}
	return n, err
}

func newTokens(in io.Reader) *tokens {
	t := &tokens{meter: &meter{in: in}}
	buffered := bufio.NewReader(t.meter)
	if start, _ := buffered.Peek(len(byteOrderMark)); bytes.Equal(start, byteOrderMark) {
		_, _ = buffered.Discard(len(byteOrderMark)) // what was peeked at
	}
	t.raw = xml.NewDecoder(buffered)
	t.raw.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errNoXML }
	return t
}

// limit bounds what is read from here on; 0 takes the bound away.
func (t *tokens) limit(n int64) {
	t.until = 0
	if n > 0 {
		t.until = t.raw.InputOffset() + n
	}
}

// fault is why reading stopped. The decoder quotes what it read, which is
// foreign text.
func (t *tokens) fault(err error) error {
	switch {
	case err == nil:
		return nil
	case t.err != nil:
		return t.err
	case t.meter.err != nil:
		return t.meter.err
	default:
		return errNoXML
	}
}

func (t *tokens) Token() (xml.Token, error) {
	if t.err != nil {
		return nil, t.err
	}
	t.meter.since = 0
	tok, err := t.raw.RawToken()
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case xml.StartElement:
		if t.depth++; t.depth > maxDepth {
			t.err = fmt.Errorf("the metadata has elements deeper than %d", maxDepth)
		} else if len(tok.Attr) > maxAttributes {
			t.err = fmt.Errorf("the metadata has more than %d attributes in one element", maxAttributes)
		}
	case xml.EndElement:
		t.depth--
	case xml.Directive:
		t.err = errors.New("the document has a document type: it is a page, not SAML metadata")
	}
	if t.until > 0 && t.raw.InputOffset() > t.until {
		t.err = fmt.Errorf("the metadata has an entity of more than %d bytes", maxEntity)
	}
	if t.err != nil {
		return nil, t.err
	}
	return tok, nil
}

// walkTokens reads to the end.
func walkTokens(t *tokens) error {
	dec := xml.NewTokenDecoder(t)
	for {
		if _, err := dec.Token(); err == io.EOF {
			return nil
		} else if err != nil {
			return t.fault(err)
		}
	}
}
