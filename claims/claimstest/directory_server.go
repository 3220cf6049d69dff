package claimstest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// Tags of operations (RFC 4511 4.2 and on).
const (
	tagBindRequest    = 0
	tagBindResponse   = 1
	tagUnbindRequest  = 2
	tagSearchRequest  = 3
	tagSearchEntry    = 4
	tagSearchDone     = 5
	tagAbandonRequest = 16
	tagSearchRef      = 19
	tagExtRequest     = 23
	tagExtResponse    = 24
)

const (
	startTLSName   = "1.3.6.1.4.1.1466.20037"
	disconnectName = "1.3.6.1.4.1.1466.20036"
	pagingName     = "1.2.840.113556.1.4.319"
)

var errHangUp = errors.New("the connection is over")

// SetOffline closes everything, or listens again where it did before.
func (d *Directory) SetOffline(offline bool) error {
	if !offline {
		return d.listen()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ln := range d.listeners {
		_ = ln.Close()
	}
	d.listeners = nil
	for conn := range d.open {
		_ = conn.Close()
	}
	return nil
}

func (d *Directory) listen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners != nil {
		return nil
	}
	for i, address := range d.addresses {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		d.addresses[i] = ln.Addr().String()
		d.listeners = append(d.listeners, ln)
		d.ended.Go(func() { d.accept(ln, i == 1) })
	}
	return nil
}

func (d *Directory) accept(ln net.Listener, secure bool) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.accepted++
		c := &directoryConn{d: d, conn: conn, number: d.accepted}
		d.open[conn] = struct{}{}
		if d.listeners == nil { // it went offline meanwhile
			_ = conn.Close()
		}
		d.mu.Unlock()
		d.ended.Go(func() {
			c.serve(secure)
			_ = conn.Close()
			d.mu.Lock()
			delete(d.open, conn)
			d.mu.Unlock()
		})
	}
}

// directoryConn is one connection. It answers one message after another.
type directoryConn struct {
	d       *Directory
	conn    net.Conn
	number  int
	secure  bool
	bound   bool
	boundAs string
}

func (c *directoryConn) serve(secure bool) {
	if secure && c.secureNow() != nil {
		return
	}
	for {
		message, err := ber.ReadPacket(c.conn)
		if err != nil {
			return
		}
		if c.d.lies().HangAccept {
			c.hang()
			return
		}
		if c.answer(message) != nil {
			return
		}
	}
}

// secureNow begins TLS.
func (c *directoryConn) secureNow() error {
	conn := tls.Server(c.conn, c.d.certs.config(c.d.lies()))
	if c.d.lies().HangAccept {
		c.hang()
		return errHangUp
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := conn.Handshake(); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	c.conn, c.secure = conn, true
	return nil
}

// hang takes everything and says nothing until the connection is over.
func (c *directoryConn) hang() { _, _ = io.Copy(io.Discard, c.conn) }

// answer does what a message asks for. An error ends the connection.
func (c *directoryConn) answer(message *ber.Packet) error {
	if len(message.Children) < 2 {
		return errHangUp
	}
	id, isNumber := message.Children[0].Value.(int64)
	request := message.Children[1]
	if !isNumber || request.ClassType != ber.ClassApplication {
		return errHangUp
	}
	kind := kindOf(request)
	o := Operation{Kind: kind, TLS: c.secure, Conn: c.number, BoundAs: c.boundAs}
	switch kind {
	case "bind", "search":
		// Noted where they are read.
	default:
		c.d.note(o)
	}
	k := c.d.lies()
	if k.Delay > 0 {
		time.Sleep(k.Delay)
	}
	if k.Raw != nil {
		if raw := k.Raw(kind, id); raw != nil {
			c.noteRequest(o, message)
			if _, err := c.conn.Write(raw); err != nil || k.CloseAfterRaw {
				return errHangUp
			}
			return nil
		}
	}
	switch kind {
	case "bind":
		return c.bind(id, request, o, k)
	case "search":
		return c.search(id, message, o, k)
	case "starttls":
		return c.startTLS(id, k)
	case "abandon":
		return nil
	case "unbind":
		return errHangUp
	}
	if request.Tag == tagExtRequest {
		return c.result(id, tagExtResponse, &Result{Code: 2, Message: "unknown extended operation"})
	}
	return errHangUp
}

// noteRequest notes a bind or a search that is not going to be answered as one.
func (c *directoryConn) noteRequest(o Operation, message *ber.Packet) {
	switch o.Kind {
	case "bind":
		o.DN, o.Password, _ = readBind(message.Children[1])
		c.d.note(o)
	case "search":
		c.d.mu.Lock()
		o.Search, _, _ = c.d.readSearch(message)
		c.d.mu.Unlock()
		c.d.note(o)
	}
}

func kindOf(request *ber.Packet) string {
	switch request.Tag {
	case tagBindRequest:
		return "bind"
	case tagUnbindRequest:
		return "unbind"
	case tagSearchRequest:
		return "search"
	case tagAbandonRequest:
		return "abandon"
	case tagExtRequest:
		if len(request.Children) > 0 && request.Children[0].Data.String() == startTLSName {
			return "starttls"
		}
	}
	return "other"
}

func (c *directoryConn) startTLS(id int64, k DirectoryKnobs) error {
	switch k.StartTLS {
	case "refuse":
		return c.result(id, tagExtResponse, &Result{Code: 52, Message: "TLS is unavailable"})
	case "unknown":
		return c.result(id, tagExtResponse, &Result{Code: 2, Message: "unsupported extended operation"})
	case "close":
		return errHangUp
	}
	if c.secure {
		return c.result(id, tagExtResponse, &Result{Code: 1, Message: "TLS is there already"})
	}
	if err := c.result(id, tagExtResponse, &Result{}); err != nil || k.StartTLS == "clear" {
		return err
	}
	return c.secureNow()
}

func readBind(request *ber.Packet) (dn, password string, err error) {
	if len(request.Children) != 3 || request.Children[2].ClassType != ber.ClassContext || request.Children[2].Tag != 0 {
		return "", "", errors.New("not a simple bind")
	}
	return request.Children[1].Data.String(), request.Children[2].Data.String(), nil
}

func (c *directoryConn) bind(id int64, request *ber.Packet, o Operation, k DirectoryKnobs) error {
	c.bound, c.boundAs = false, "" // RFC 4511 4.2.1, whatever comes of it
	dn, password, err := readBind(request)
	if err != nil {
		c.d.note(o)
		return c.result(id, tagBindResponse, &Result{Code: 7, Message: "simple binds only"})
	}
	o.DN, o.Password = dn, password
	c.d.note(o)
	if k.HangBind {
		c.hang()
		return errHangUp
	}
	var r *Result
	if k.BindResult != nil {
		r = k.BindResult(dn)
	}
	if r == nil {
		r = c.d.tryBind(dn, password)
	}
	if r.Code == 0 {
		c.bound, c.boundAs = dn != "" && password != "", dn
	}
	return c.result(id, tagBindResponse, r)
}

// tryBind is the honest answer to a bind.
func (d *Directory) tryBind(dn, password string) *Result {
	if password == "" { // anonymous, or unauthenticated: a success (RFC 4513 5.1.2)
		return &Result{}
	}
	refused := func(data string) *Result {
		if d.opts.AD {
			return ADRefusal(data)
		}
		return &Result{Code: 49}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.bindEntry(dn)
	switch {
	case e == nil:
		return refused("525")
	case e.Account == AccountLocked:
		return refused("775")
	case e.Password == "" || e.Password != password:
		return refused("52e")
	}
	if code := adSubCode(e.Account); d.opts.AD && code != "" {
		return refused(code)
	}
	return &Result{}
}

// bindEntry finds who binds. Active Directory knows people by two more names.
func (d *Directory) bindEntry(dn string) *stored {
	if e := d.entries[keyOf(dn)]; e != nil || !d.opts.AD {
		return e
	}
	domain, account, _ := strings.Cut(dn, `\`)
	for _, e := range d.order {
		for _, v := range e.values["userprincipalname"] {
			if v.prepared == prepare(dn) {
				return e
			}
		}
		for _, v := range e.values["samaccountname"] {
			if strings.EqualFold(domain, d.NetBIOS) && v.prepared == prepare(account) {
				return e
			}
		}
	}
	return nil
}

// result sends the end of an operation.
func (c *directoryConn) result(id int64, tag ber.Tag, r *Result, controls ...*ber.Packet) error {
	return c.send(message(id, resultPacket(tag, r), controls...))
}

func (c *directoryConn) send(p *ber.Packet) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := c.conn.Write(p.Bytes())
	return err
}

func message(id int64, operation *ber.Packet, controls ...*ber.Packet) *ber.Packet {
	m := ber.NewSequence("LDAPMessage")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, "messageID"))
	m.AppendChild(operation)
	if len(controls) > 0 {
		all := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "controls")
		for _, c := range controls {
			all.AppendChild(c)
		}
		m.AppendChild(all)
	}
	return m
}

func resultPacket(tag ber.Tag, r *Result) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "result")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, r.Code, "resultCode"))
	p.AppendChild(octets(""))
	p.AppendChild(octets(r.Message))
	if len(r.Referrals) > 0 {
		referral := ber.Encode(ber.ClassContext, ber.TypeConstructed, 3, nil, "referral")
		for _, url := range r.Referrals {
			referral.AppendChild(octets(url))
		}
		p.AppendChild(referral)
	}
	return p
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}
