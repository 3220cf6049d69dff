package config

import (
	"encoding"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/invopop/jsonschema"
)

// scalar answers the text of a node that is text, expanded.
func (d *decoder) scalar(path string, n ast.Node, want, hint string) (string, bool) {
	var s string
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = n.Value.Value
	default:
		d.wrong(path, n, want, hint)
		return "", false
	}
	s, replaced, err := d.expand(s)
	if replaced {
		d.expanded[path] = true
	}
	if err != nil {
		d.fault(path, "%s", err)
		return "", false
	}
	return s, true
}

// text takes quoted, plain and block text, and nothing that YAML reads as
// another type: "group: 007" would otherwise mean group 7 to the next tool.
func (d *decoder) text(path string, n ast.Node, v reflect.Value, f field) {
	s, ok := d.scalar(path, n, "text", ": put it in quotes")
	if !ok {
		return
	}
	v.SetString(s)
	if s == "" && f.secret {
		d.fault(path, "the secret is empty")
		return
	}
	if allowed := enum(v.Type()); allowed != nil && !slices.Contains(allowed, s) {
		d.fault(path, "%s is none of %s%s", d.show(path, s), strings.Join(allowed, ", "), d.meant(path, s, allowed))
	}
}

// meant suggests one of the words that were allowed.
func (d *decoder) meant(path, s string, allowed []string) string {
	if near := nearest(s, allowed); near != "" && !d.expanded[path] {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// enum answers the words that a text type allows; nil when it allows any.
func enum(t reflect.Type) []string {
	d, ok := reflect.Zero(t).Interface().(interface{ JSONSchema() *jsonschema.Schema })
	if !ok {
		return nil
	}
	var words []string
	for _, w := range d.JSONSchema().Enum {
		words = append(words, w.(string))
	}
	return words
}

// textual decodes a type that reads itself from text or a number.
func (d *decoder) textual(path string, n ast.Node, v reflect.Value) {
	var s string
	if i, ok := n.(*ast.IntegerNode); ok {
		if s = i.Token.Value; len(s) > 1 && strings.ContainsAny(s[:2], "0_") && s[0] < '1' {
			d.fault(path, "write the number in plain decimal digits")
			return
		}
	} else if s, ok = d.scalar(path, n, "text or a whole number", ""); !ok {
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
		d.fault(path, "%s", d.explain(path, err))
	}
}

func (d *decoder) duration(path string, n ast.Node, v reflect.Value) {
	const want = `a duration such as "5m" or "1h30m"`
	s, ok := d.scalar(path, n, want, "")
	if !ok {
		return
	}
	t, err := time.ParseDuration(s)
	switch {
	case err != nil:
		d.fault(path, "%s is not %s", d.show(path, s), want)
	case t <= 0:
		d.fault(path, "a duration is greater than zero")
	default:
		v.SetInt(int64(t))
	}
}

func (d *decoder) boolean(path string, n ast.Node, v reflect.Value) {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.wrong(path, n, "true or false", "")
		return
	}
	v.SetBool(b.Value)
}

// integer takes decimal digits only: YAML reads 010 as 8 and 1_0 as 10.
func (d *decoder) integer(path string, n ast.Node, v reflect.Value) {
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		d.wrong(path, n, "a whole number", "")
		return
	}
	value, err := strconv.Atoi(i.Token.Value)
	if err != nil || strconv.Itoa(value) != i.Token.Value {
		d.fault(path, "write the number in plain decimal digits")
		return
	}
	v.SetInt(int64(value))
}

// share takes a number from 0 to 1 as people write one: YAML also has .inf,
// .nan, 0x1 and 1e-1.
func (d *decoder) share(path string, n ast.Node, v reflect.Value) {
	const want = "a number from 0 to 1, such as 0.1"
	var s string
	switch n := n.(type) {
	case *ast.IntegerNode:
		s = n.Token.Value
	case *ast.FloatNode:
		s = n.Token.Value
	case *ast.InfinityNode, *ast.NanNode:
		s = n.GetToken().Value
	default:
		d.wrong(path, n, want, "")
		return
	}
	share, err := strconv.ParseFloat(s, 64)
	if err != nil || share < 0 || share > 1 || strings.Trim(s, "0123456789.") != "" {
		d.fault(path, "%s is not %s", quote(s), want)
		return
	}
	v.SetFloat(share)
}

// prefix takes a network, or an address for the network of itself alone.
func (d *decoder) prefix(path string, n ast.Node, v reflect.Value) {
	const want = "a network such as 10.0.0.0/8 or an address"
	s, ok := d.scalar(path, n, want, "")
	if !ok {
		return
	}
	p, err := netip.ParsePrefix(s)
	if a, e := netip.ParseAddr(s); e == nil && a.Zone() == "" {
		a = a.Unmap()
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		d.fault(path, "%s is not %s", d.show(path, s), want)
	case p.Addr().Is4In6():
		d.fault(path, "write an IPv4 network as such, not inside of IPv6")
	case p != p.Masked() && d.expanded[path]:
		d.fault(path, "the network has bits set behind its length")
	case p != p.Masked():
		d.fault(path, "%s has bits set behind its length: write %s", p, p.Masked())
	default:
		v.Set(reflect.ValueOf(p))
	}
}
