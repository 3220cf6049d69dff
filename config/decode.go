package config

import (
	"encoding"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/groupgate/groupgate/claims"
	"github.com/groupgate/groupgate/groups"
	"github.com/groupgate/groupgate/proxy"
)

// decoder walks the tree of a file and a value side by side. After a fault it
// leaves the value as it was and goes on.
type decoder struct {
	*book
	*expander

	fields  map[reflect.Type]map[string]field
	anchors map[string]*ast.AnchorNode
	open    map[string]bool // anchors being unfolded
	copied  int             // values that aliases made
}

// maxCopied bounds what aliases of aliases can unfold to.
const maxCopied = 100_000

// field is one key of a struct.
type field struct {
	index  []int
	secret bool
}

// nullable reports whether a key may stand with nothing behind it. Null is
// a slip everywhere else: "groups:" in a route must not mean that no group is
// needed. The optional file names and such are written empty in templates.
func nullable(key string) bool {
	switch key {
	case "cert_file", "key_file", "ca_file", "idp_entity_id", "preset", "keys", "token",
		"client_key", "client_certificate", "client_key_id", "metadata_file", "metadata_certificate",
		"bind_dn", "bind_password":
		return true
	}
	return false
}

func newDecoder(b *book, e *expander) *decoder {
	return &decoder{
		book:     b,
		expander: e,
		fields:   map[reflect.Type]map[string]field{},
		anchors:  map[string]*ast.AnchorNode{},
		open:     map[string]bool{},
	}
}

// Visit collects anchors; it makes a decoder an [ast.Visitor].
func (d *decoder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		name := a.Name.GetToken().Value
		if _, twice := d.anchors[name]; twice {
			d.faultAt(nodePosition(a), "", "the anchor &%s is set twice", printable(name))
		} else {
			d.anchors[name] = a
		}
	}
	return d
}

// value decodes a node into v, which stands at path. Lists of secrets hold
// secrets.
func (d *decoder) value(path string, n ast.Node, v reflect.Value, f field) {
	if _, noted := d.values[path]; !noted && n != nil {
		d.values[path] = nodePosition(n)
	}
	n, done := d.unwrap(path, n)
	defer done()
	if n == nil {
		return
	}
	if _, null := n.(*ast.NullNode); null {
		if !nullable(path[strings.LastIndexByte(path, '.')+1:]) {
			d.unreadable(path, "nothing stands here: write a value or take the key away")
		}
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		made := reflect.New(v.Type().Elem())
		made.Elem().Set(initial(made.Elem().Type()))
		d.value(path, n, made.Elem(), f)
		v.Set(made)
	case v.Type() == reflect.TypeFor[time.Duration]():
		d.duration(path, n, v)
	case v.Type() == reflect.TypeFor[netip.Prefix]():
		d.prefix(path, n, v)
	case v.CanAddr() && v.Addr().Type().Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		d.textual(path, n, v)
	case v.Kind() == reflect.String:
		d.text(path, n, v, f)
	case v.Kind() == reflect.Bool:
		d.boolean(path, n, v)
	case v.Kind() == reflect.Int:
		d.integer(path, n, v)
	case v.Kind() == reflect.Float64:
		d.share(path, n, v)
	case v.Type() == reflect.TypeFor[claims.URLs]() && !isList(n):
		one := reflect.MakeSlice(v.Type(), 1, 1)
		d.text(path, n, one.Index(0), f)
		v.Set(one)
	case v.Kind() == reflect.Slice:
		d.list(path, n, v, f)
	case v.Kind() == reflect.Map:
		d.pairs(path, n, v, f)
	default:
		d.structure(path, n, v)
	}
}

// initial is what an optional section holds once it is written.
func initial(t reflect.Type) reflect.Value {
	switch t {
	case reflect.TypeFor[groups.GuardConfig]():
		return reflect.ValueOf(groups.DefaultGuard)
	case reflect.TypeFor[claims.SAMLConfig]():
		return reflect.ValueOf(claims.DefaultSAML)
	case reflect.TypeFor[claims.LDAPConfig]():
		return reflect.ValueOf(claims.DefaultLDAP)
	case reflect.TypeFor[claims.GroupSearch]():
		return reflect.ValueOf(claims.DefaultGroupSearch)
	case reflect.TypeFor[claims.LocalConfig]():
		return reflect.ValueOf(claims.DefaultLocal)
	case reflect.TypeFor[proxy.ACMEConfig]():
		return reflect.ValueOf(proxy.DefaultACME)
	}
	return reflect.Zero(t)
}

// unwrap follows anchors and aliases to the node that holds a value; nil
// after a fault. done is to be called once the value is read.
func (d *decoder) unwrap(path string, n ast.Node) (_ ast.Node, done func()) {
	var opened []string
	done = func() {
		for _, name := range opened {
			delete(d.open, name)
		}
	}
	for {
		switch at := n.(type) {
		case *ast.AnchorNode:
			n = at.Value
		case *ast.AliasNode:
			name := at.Value.GetToken().Value
			a := d.anchors[name]
			switch {
			case a == nil || tokenPosition(a.Start).after(nodePosition(at)):
				d.unreadable(path, "*%s: no anchor of that name stands above", printable(name))
				return nil, done
			case d.open[name]:
				d.unreadable(path, "*%s stands inside of what it refers to", printable(name))
				return nil, done
			case !d.spend(path):
				return nil, done
			}
			d.open[name] = true
			opened = append(opened, name)
			n = a.Value
		case *ast.TagNode:
			d.unreadable(path, "a YAML tag (!...): take it away, and write text in quotes")
			return nil, done
		default:
			return n, done
		}
	}
}

// spend counts a value that an alias makes; false once there are too many.
func (d *decoder) spend(path string) bool {
	if d.copied++; d.copied == maxCopied {
		d.unreadable(path, "aliases unfold to more than %d values", maxCopied)
	}
	return d.copied < maxCopied
}

func (p position) after(o position) bool {
	return p.line > o.line || p.line == o.line && p.column > o.column
}

// structure decodes a mapping with known keys.
func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	known := d.fieldsOf(v.Type())
	for key, node := range d.entries(path, n) {
		at := join(path, key)
		f, ok := known[key]
		switch {
		case !ok:
			if len(d.faults) <= maxFaults { // a suggestion takes time
				d.faultAt(d.keys[at], at, "unknown key%s", suggest(key, slices.Sorted(maps.Keys(known))))
			}
		default:
			d.value(at, node, v.FieldByIndex(f.index), f)
		}
	}
}

// pairs decodes a mapping of text to text.
func (d *decoder) pairs(path string, n ast.Node, v reflect.Value, f field) {
	made := reflect.MakeMap(v.Type())
	for key, node := range d.entries(path, n) {
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, key), node, e, f)
		made.SetMapIndex(reflect.ValueOf(key), e)
	}
	v.Set(made)
}

// entries yields the pairs of a mapping whose keys are fit to be looked at.
func (d *decoder) entries(path string, n ast.Node) func(yield func(string, ast.Node) bool) {
	return func(yield func(string, ast.Node) bool) {
		m, ok := n.(ast.MapNode)
		if !ok {
			d.wrong(path, n, "a mapping (key: value)", "")
			return
		}
		for it := m.MapRange(); it.Next(); {
			if len(d.open) > 0 && !d.spend(path) {
				return
			}
			pair := it.KeyValue()
			where := nodePosition(pair.Key)
			switch pair.Key.(type) {
			case *ast.MergeKeyNode:
				d.faultAt(where, path, "the merge key << is not supported: write the keys out, or alias a whole value")
				d.broken[path] = path != "" // what it would have brought is not missing
				continue
			case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
			default:
				d.faultAt(where, path, "a key is plain text, without ?, tag, anchor or alias")
				continue
			}
			key := pair.Key.GetToken().Value
			at := join(path, key)
			if first, twice := d.keys[at]; twice {
				d.faultAt(where, at, "stands twice, first in line %d", first.line)
				continue
			}
			d.keys[at] = where
			if !yield(key, pair.Value) {
				return
			}
		}
	}
}

func isList(n ast.Node) bool { _, is := n.(*ast.SequenceNode); return is }

// list decodes into a new slice, so that an empty list that was written can be
// told from one that was not.
func (d *decoder) list(path string, n ast.Node, v reflect.Value, f field) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(path, n, "a list", ": write [...]")
		return
	}
	made := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		if len(d.open) > 0 && !d.spend(path) {
			break
		}
		d.value(item(path, i), e, made.Index(i), f)
	}
	v.Set(made)
}

// wrong notes a value of the wrong type. It never repeats the value.
func (d *decoder) wrong(path string, n ast.Node, want, hint string) {
	got := "something else"
	switch n.(type) {
	case *ast.NullNode:
		got = "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		got = "a mapping"
	case *ast.SequenceNode:
		got = "a list"
	case *ast.StringNode, *ast.LiteralNode:
		got = "text"
	case *ast.BoolNode:
		got = "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		got = "a number"
	}
	switch {
	case want == "text" && got == "a list":
		hint = ""
	case want == "text" && got == "a mapping":
		// Between brackets a colon makes one, even without a blank behind it.
		hint = ": text with a colon in it needs quotes here"
	}
	d.unreadable(path, "%s where %s is wanted%s", got, want, hint)
}

// fieldsOf answers the keys of a struct type, those of inlined structs too.
func (d *decoder) fieldsOf(t reflect.Type) map[string]field {
	if known, ok := d.fields[t]; ok {
		return known
	}
	known := map[string]field{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		known[name] = field{index: f.Index, secret: f.Tag.Get("secret") == "true"}
	}
	d.fields[t] = known
	return known
}
