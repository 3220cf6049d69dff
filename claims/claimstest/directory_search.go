package claimstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// operational attributes of a plain server are sent only when asked for by
// name, or by "+"; constructed ones of an Active Directory by name alone.
var (
	operational = []string{"memberof", "entryuuid", "nsaccountlock", "pwdaccountlockedtime"}
	constructed = []string{"msds-user-account-control-computed"}
)

// readSearch reads a search and makes its filter ready. The directory is
// locked.
func (d *Directory) readSearch(m *ber.Packet) (SearchQuery, matcher, error) {
	p := m.Children[1].Children
	if len(p) != 8 {
		return SearchQuery{}, nil, errFilter
	}
	number := func(i int) int {
		n, _ := p[i].Value.(int64) // what is no number is 0
		return int(n)
	}
	q := SearchQuery{Base: p[0].Data.String(), Scope: number(1), SizeLimit: number(3), TimeLimit: number(4)}
	for _, a := range p[7].Children {
		q.Attributes = append(q.Attributes, a.Data.String())
	}
	size, cookie := pagingOf(m)
	q.PageSize, q.NextPage = size, cookie != ""
	fits, text, err := d.compile(p[6], 0)
	q.Filter = text
	return q, fits, err
}

// pagingOf reads the control of RFC 2696.
func pagingOf(m *ber.Packet) (size int, cookie string) {
	if len(m.Children) < 3 {
		return 0, ""
	}
	for _, control := range m.Children[2].Children {
		if len(control.Children) < 2 || control.Children[0].Data.String() != pagingName {
			continue
		}
		raw, err := ber.DecodePacketErr(control.Children[len(control.Children)-1].Data.Bytes())
		if err != nil || len(raw.Children) != 2 {
			continue
		}
		n, _ := raw.Children[0].Value.(int64)
		return int(n), raw.Children[1].Data.String()
	}
	return 0, ""
}

func pagingControl(cookie string) *ber.Packet {
	value := ber.NewSequence("realSearchControlValue")
	value.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 0, "size"))
	value.AppendChild(octets(cookie))
	control := ber.NewSequence("control")
	control.AppendChild(octets(pagingName))
	control.AppendChild(octets(string(value.Bytes())))
	return control
}

func (c *directoryConn) search(id int64, m *ber.Packet, o Operation, k DirectoryKnobs) error {
	c.d.mu.Lock()
	query, fits, err := c.d.readSearch(m)
	var found []Found
	var done *Result
	if err == nil {
		found, done = c.d.find(query, fits, c.bound)
	}
	c.d.mu.Unlock()
	o.Search = query
	c.d.note(o)
	if err != nil {
		return c.result(id, tagSearchDone, &Result{Code: 2, Message: err.Error()})
	}
	if k.HangSearch != nil && k.HangSearch(query) {
		c.hang()
		return errHangUp
	}
	if k.SearchResult != nil {
		if r := k.SearchResult(query); r != nil {
			if r.Entries >= 0 {
				found = found[:min(r.Entries, len(found))]
			}
			return c.entries(id, query, k, found, r)
		}
	}
	if done != nil {
		return c.result(id, tagSearchDone, done)
	}
	if k.Rewrite != nil {
		found = k.Rewrite(query, found)
	}
	if query.PageSize > 0 && !c.d.opts.NoPaging {
		return c.page(id, m, query, k, found)
	}
	limit := k.MaxPage
	if limit == 0 && c.d.opts.AD {
		limit = 1000
	}
	done = &Result{}
	if query.SizeLimit > 0 && (limit == 0 || query.SizeLimit < limit) {
		limit = query.SizeLimit
	}
	if limit > 0 && len(found) > limit {
		found, done = found[:limit], &Result{Code: 4, Message: "there are more"}
	}
	return c.entries(id, query, k, found, done)
}

// page sends a page. The cookie is how many came before.
func (c *directoryConn) page(id int64, m *ber.Packet, q SearchQuery, k DirectoryKnobs, found []Found) error {
	size, cookie := pagingOf(m)
	if limit := k.MaxPage; limit > 0 {
		size = min(size, limit)
	} else if c.d.opts.AD {
		size = min(size, 1000)
	}
	from := 0
	if cookie != "" {
		n, err := strconv.Atoi(cookie)
		if err != nil || n < 0 || n > len(found) {
			return c.result(id, tagSearchDone, &Result{Code: 53, Message: "nobody gave this cookie"})
		}
		from = n
	}
	to := min(from+size, len(found))
	next := ""
	done := &Result{}
	switch {
	case q.SizeLimit > 0 && to > q.SizeLimit: // of all pages together
		to, done = max(from, q.SizeLimit), &Result{Code: 4, Message: "there are more"}
	case k.PagesEndless:
		next = "0"
	case to < len(found):
		next = strconv.Itoa(to)
	}
	return c.entries(id, q, k, found[from:to], done, pagingControl(next))
}

// entries sends what was found, continuations, and the end.
func (c *directoryConn) entries(id int64, q SearchQuery, k DirectoryKnobs, found []Found, done *Result, controls ...*ber.Packet) error {
	for _, f := range found {
		if err := c.send(message(id, entryPacket(f))); err != nil {
			return err
		}
	}
	for k.EntriesEndless {
		one := Found{DN: "cn=again," + c.d.BaseDN, Attributes: []FoundAttribute{{"cn", []string{"again"}}}}
		if len(found) > 0 {
			one = found[0]
		}
		if err := c.send(message(id, entryPacket(one))); err != nil {
			return err
		}
	}
	urls := k.Continuations
	if c.d.opts.AD && q.Scope == 2 && keyOf(q.Base) == keyOf(c.d.BaseDN) {
		urls = append(slices.Clip(urls), "ldap://"+c.d.Domain+"/"+c.d.configuration())
	}
	for _, url := range urls {
		p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tagSearchRef, nil, "continuation")
		p.AppendChild(octets(url))
		if err := c.send(message(id, p)); err != nil {
			return err
		}
	}
	return c.result(id, tagSearchDone, done, controls...)
}

func entryPacket(f Found) *ber.Packet {
	attributes := ber.NewSequence("attributes")
	for _, a := range f.Attributes {
		values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "values")
		for _, v := range a.Values {
			values.AppendChild(octets(v))
		}
		one := ber.NewSequence("attribute")
		one.AppendChild(octets(a.Name))
		one.AppendChild(values)
		attributes.AppendChild(one)
	}
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tagSearchEntry, nil, "entry")
	p.AppendChild(octets(f.DN))
	p.AppendChild(attributes)
	return p
}

// find is the honest answer to a search, or how it ends without one. The
// directory is locked.
func (d *Directory) find(q SearchQuery, fits matcher, bound bool) ([]Found, *Result) {
	if q.Base == "" && q.Scope == 0 {
		return []Found{d.rootDSE(q)}, nil
	}
	if !bound && !d.opts.Anonymous {
		if d.opts.AD {
			return nil, &Result{Code: 1, Message: "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must be completed on the connection., data 0, v4563"}
		}
		return nil, &Result{Code: 50}
	}
	if _, err := parseDN(q.Base); err != nil {
		return nil, &Result{Code: 34}
	}
	base := keyOf(q.Base)
	top := d.entries[base]
	if top == nil {
		return nil, &Result{Code: 32}
	}
	var found []Found
	take := func(e *stored) {
		if fits(e) == isTrue {
			found = append(found, Found{DN: e.DN, Attributes: d.selected(e, q.Attributes)})
		}
	}
	if q.Scope == 0 {
		take(top)
		return found, nil
	}
	// The configuration of an Active Directory is a tree of its own.
	apart := keyOf(d.configuration())
	for _, e := range d.order {
		if d.opts.AD && below(e.key, apart) && !below(base, apart) {
			continue
		}
		if q.Scope == 1 && parentOf(e.key) == base || q.Scope == 2 && below(e.key, base) {
			take(e)
		}
	}
	return found, nil
}

func (d *Directory) rootDSE(q SearchQuery) Found {
	a := map[string][]string{
		"objectClass": {"top"}, "namingContexts": {d.BaseDN}, "supportedLDAPVersion": {"3"},
		"supportedExtension": {startTLSName}, "supportedControl": {pagingName},
	}
	if d.opts.NoPaging {
		delete(a, "supportedControl")
	}
	if d.opts.AD {
		a["supportedCapabilities"] = []string{"1.2.840.113556.1.4.800", "1.2.840.113556.1.4.1670", "1.2.840.113556.1.4.1791"}
		a["defaultNamingContext"] = []string{d.BaseDN}
		a["configurationNamingContext"] = []string{d.configuration()}
		a["dnsHostName"] = []string{"dc1." + d.Domain}
	}
	if d.knobs.RootDSE != nil {
		d.knobs.RootDSE(a)
	}
	var f Found
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if d.opts.AD && wants(q.Attributes, name) || wantsByName(q.Attributes, name) || name == "objectClass" && wants(q.Attributes, name) {
			f.Attributes = append(f.Attributes, FoundAttribute{name, a[name]})
		}
	}
	return f
}

// wants says whether a list of attributes asks for a usual one.
func wants(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, "*") || wantsByName(list, name)
}

func wantsByName(list []string, name string) bool {
	return slices.ContainsFunc(list, func(asked string) bool {
		asked, _, _ = strings.Cut(asked, ";")
		return asked == "+" || strings.EqualFold(asked, name)
	})
}

// selected is what a search sends of an entry.
func (d *Directory) selected(e *stored, list []string) []FoundAttribute {
	names := maps.Clone(e.names)
	if _, has := names["memberof"]; !has && len(d.valuesOf(e, "memberOf")) > 0 {
		names["memberof"] = "memberOf"
	}
	var attributes []FoundAttribute
	for _, lower := range slices.Sorted(maps.Keys(names)) {
		hidden := d.opts.AD && slices.Contains(constructed, lower) || !d.opts.AD && slices.Contains(operational, lower)
		if hidden && !wantsByName(list, lower) || !wants(list, lower) {
			continue
		}
		a := FoundAttribute{Name: names[lower]}
		for _, v := range d.valuesOf(e, lower) {
			a.Values = append(a.Values, v.raw)
		}
		attributes = append(attributes, d.ranged(a, list)...)
	}
	return attributes
}

// ranged sends a part of a long attribute, as Active Directory does ("Range
// Retrieval of Attribute Values").
func (d *Directory) ranged(a FoundAttribute, list []string) []FoundAttribute {
	step := d.knobs.RangeStep
	if step == 0 {
		if !d.opts.AD {
			return []FoundAttribute{a}
		}
		step = 1500
	}
	from, to, asked := rangeAsked(list, a.Name)
	if !asked && len(a.Values) <= step {
		return []FoundAttribute{a}
	}
	all := a.Values
	switch d.knobs.RangeLie {
	case "endless":
		part := make([]string, 0, step)
		for i := range step {
			part = append(part, all[(from+i)%len(all)])
		}
		return []FoundAttribute{{rangeName(a.Name, from, from+step-1), part}}
	case "back":
		return []FoundAttribute{{rangeName(a.Name, 0, min(step, len(all))-1), all[:min(step, len(all))]}}
	case "hole":
		if from > 0 {
			from++
		}
	case "silent":
		if from > 0 {
			return nil
		}
	}
	if from >= len(all) {
		return nil
	}
	end := from + step
	if to >= 0 {
		end = min(end, to+1)
	}
	if end >= len(all) {
		return []FoundAttribute{{rangeName(a.Name, from, -1), all[from:]}}
	}
	part := FoundAttribute{rangeName(a.Name, from, end-1), all[from:end]}
	if !asked { // the attribute itself is there, and empty
		return []FoundAttribute{{Name: a.Name}, part}
	}
	return []FoundAttribute{part}
}

func rangeName(name string, from, to int) string {
	if to < 0 {
		return name + ";range=" + strconv.Itoa(from) + "-*"
	}
	return name + ";range=" + strconv.Itoa(from) + "-" + strconv.Itoa(to)
}

// rangeAsked reads "name;range=from-to"; to is -1 for "*".
func rangeAsked(list []string, name string) (from, to int, asked bool) {
	for _, one := range list {
		base, option, _ := strings.Cut(one, ";")
		if !strings.EqualFold(base, name) || len(option) < 6 || !strings.EqualFold(option[:6], "range=") {
			continue
		}
		low, high, _ := strings.Cut(option[6:], "-")
		from, err := strconv.Atoi(low)
		if err != nil || from < 0 {
			return 0, -1, false
		}
		to, err := strconv.Atoi(high)
		if err != nil {
			to = -1
		}
		return from, to, true
	}
	return 0, -1, false
}
