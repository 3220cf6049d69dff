package saml

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/beevik/etree"
)

// is reports whether an element has a name in a namespace.
func is(el *etree.Element, ns, local string) bool {
	return el != nil && el.Tag == local && el.NamespaceURI() == ns
}

// child answers the one child of a name, nil when there is none, an error
// when there are several.
func child(el *etree.Element, ns, local string) (*etree.Element, error) {
	var found *etree.Element
	for _, c := range el.ChildElements() {
		if !is(c, ns, local) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("several %s elements in one %s", local, el.Tag)
		}
		found = c
	}
	return found, nil
}

// needChild is child, and misses one that is not there.
func needChild(el *etree.Element, ns, local string) (*etree.Element, error) {
	c, err := child(el, ns, local)
	if err == nil && c == nil {
		err = fmt.Errorf("%s has no %s", el.Tag, local)
	}
	return c, err
}

func children(el *etree.Element, ns, local string) []*etree.Element {
	var list []*etree.Element
	for _, c := range el.ChildElements() {
		if is(c, ns, local) {
			list = append(list, c)
		}
	}
	return list
}

// attr is the value of an attribute without a namespace.
func attr(el *etree.Element, name string) string {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return a.Value
		}
	}
	return ""
}

func hasAttr(el *etree.Element, name string) bool {
	for _, a := range el.Attr {
		if a.Space == "" && a.Key == name {
			return true
		}
	}
	return false
}

// textOf is all text of an element, comments left out: stopping at the first
// one is how "admin<!---->@evil" once became "admin". ok is false when the
// element holds other elements, where etree's own Text stops.
func textOf(el *etree.Element) (text string, ok bool) {
	var b strings.Builder
	for _, c := range el.Child {
		switch c := c.(type) {
		case *etree.CharData:
			b.WriteString(c.Data)
		case *etree.Comment:
		default:
			return "", false
		}
	}
	return b.String(), true
}

// detach copies an element out of its document, with the namespaces that it
// got from there.
func detach(el *etree.Element) *etree.Element {
	alone := el.Copy()
	inherit(alone, el.Parent())
	return alone
}

// inherit declares on el what is declared around from, and not on el itself.
func inherit(el, from *etree.Element) {
	declared := map[string]bool{}
	for _, a := range el.Attr {
		declared[a.FullKey()] = true
	}
	for at := from; at != nil; at = at.Parent() {
		for _, a := range at.Attr {
			if a.Space != "xmlns" && (a.Space != "" || a.Key != "xmlns") || declared[a.FullKey()] {
				continue
			}
			declared[a.FullKey()] = true
			el.Attr = append(el.Attr, etree.Attr{Space: a.Space, Key: a.Key, Value: a.Value})
		}
	}
}

func base64Text(el *etree.Element) ([]byte, error) {
	text, ok := textOf(el)
	if !ok {
		return nil, fmt.Errorf("%s is not text", el.Tag)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64", el.Tag)
	}
	return raw, nil
}
