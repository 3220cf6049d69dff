package claims

import (
	"context"
	"errors"
	"slices"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// Binds and StartTLS are read here and not by the library: it takes every
// answer with that message id for the right one, and a result code that cannot
// be read for 0, which is success.

var errAnswer = errors.New("the answer is one that cannot be read")

// bind is a simple bind (RFC 4511 section 4.2), before start. An error that
// isResult is the server's answer.
func (c *ldapConn) bind(ctx context.Context, dn, password string) error {
	if password == "" {
		return errors.New("a bind without a password is none") // RFC 4513 section 5.1.2
	}
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationBindRequest, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, int64(3), ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, dn, ""))
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, password, ""))
	return c.do(ctx, func() error { return c.exchange(p, ldap.ApplicationBindResponse) })
}

func startTLSRequest() *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationExtendedRequest, nil, "")
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "1.3.6.1.4.1.1466.20037", "")) // RFC 4511 section 4.14.1
	return p
}

// exchange sends a request and reads its one answer, whose tag is known.
func (c *ldapConn) exchange(request *ber.Packet, answer ber.Tag) error {
	c.lastID++
	m := ber.NewSequence("")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, c.lastID, ""))
	m.AppendChild(request)
	if _, err := c.stream.Write(m.Bytes()); err != nil {
		return err
	}
	// It reads no byte behind the message, so that nothing which came in clear
	// is taken for something that came over TLS.
	got, err := ber.ReadPacket(c.stream)
	if err != nil {
		return err
	}
	return readResult(got, c.lastID, answer)
}

// readResult holds a message to the letter of RFC 4511 sections 4.1.1 and
// 4.1.9. It answers nil for success.
func readResult(m *ber.Packet, id int64, answer ber.Tag) error {
	if !isOf(m, ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence) || len(m.Children) < 2 {
		return errAnswer
	}
	if len(m.Children) > 2 && !areControls(m.Children[2]) {
		return errAnswer
	}
	op := m.Children[1]
	if got, ok := numberOf(m.Children[0], ber.TagInteger); !ok || got != id {
		return errAnswer
	}
	if !isOf(op, ber.ClassApplication, ber.TypeConstructed, answer) || len(op.Children) < 3 {
		return errAnswer
	}
	code, ok := numberOf(op.Children[0], ber.TagEnumerated)
	text := isOf(op.Children[1], ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString) &&
		isOf(op.Children[2], ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString)
	switch {
	case !ok || !text || code < 0:
		return errAnswer
	case code == ldap.LDAPResultSuccess:
		return nil
	case code >= ldap.ErrorNetwork: // from there on the library names its own faults
		code = ldap.LDAPResultOther
	}
	return &ldap.Error{ResultCode: uint16(code), Err: errors.New(string(op.Children[2].ByteValue))}
}

// areControls reads no more than the form (RFC 4511 section 4.1.11): none was
// asked for, so none means anything.
func areControls(p *ber.Packet) bool {
	if !isOf(p, ber.ClassContext, ber.TypeConstructed, 0) {
		return false
	}
	return !slices.ContainsFunc(p.Children, func(c *ber.Packet) bool {
		return !isOf(c, ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence) || len(c.Children) == 0 ||
			!isOf(c.Children[0], ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString)
	})
}

func isOf(p *ber.Packet, class ber.Class, kind ber.Type, tag ber.Tag) bool {
	return p.ClassType == class && p.TagType == kind && p.Tag == tag
}

func numberOf(p *ber.Packet, tag ber.Tag) (int64, bool) {
	n, ok := p.Value.(int64)
	return n, ok && isOf(p, ber.ClassUniversal, ber.TypePrimitive, tag) && len(p.ByteValue) > 0 && len(p.ByteValue) <= 4
}
