package claimstest

import (
	"bytes"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// Malformed is an answer that no server should give.
type Malformed struct {
	Name string
	// Lax: the client library takes it for a success.
	Lax bool
	// Bytes are the answer to a bind or a search with that message id.
	Bytes func(kind string, messageID int64) []byte
}

// MalformedAnswers are such answers, for [DirectoryKnobs].Raw. None of them is
// a success by the letter, and none is more than 64 KiB.
func MalformedAnswers() []Malformed {
	// ok would be the answer of a server that is content.
	ok := func(kind string, id int64) *ber.Packet {
		tag := ber.Tag(tagBindResponse)
		if kind == "search" {
			tag = tagSearchDone
		}
		return message(id, resultPacket(tag, &Result{}))
	}
	fixed := func(b ...byte) func(string, int64) []byte {
		return func(string, int64) []byte { return append([]byte{}, b...) } // nil would be no answer of Raw's
	}
	// inner replaces the operation of the message.
	inner := func(op []byte) func(string, int64) []byte {
		return func(_ string, id int64) []byte {
			return wrap(0x30, append(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, "").Bytes(), op...))
		}
	}
	return []Malformed{
		{"nothing", false, fixed()},
		{"zeros", false, fixed(make([]byte, 64)...)},
		{"text", false, fixed([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")...)},
		{"truncated", false, func(kind string, id int64) []byte {
			whole := ok(kind, id).Bytes()
			return whole[:len(whole)-3]
		}},
		{"length beyond the end", false, func(kind string, id int64) []byte {
			whole := ok(kind, id).Bytes()
			whole[1] += 40
			return whole
		}},
		{"length too short", false, func(kind string, id int64) []byte {
			whole := ok(kind, id).Bytes()
			whole[1] -= 2
			return whole
		}},
		{"length of 2 GiB", false, fixed(0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01)},
		{"length of nine bytes", false, fixed(0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"length without an end", false, fixed(0x30, 0x80, 0x02, 0x01, 0x01)},
		{"nested without an end", false, fixed(bytes.Repeat([]byte{0x30, 0x80}, 20_000)...)},
		{"not a sequence", false, fixed(0x04, 0x03, 'a', 'b', 'c')},
		{"empty sequence", false, fixed(0x30, 0x00)},
		{"no operation", false, inner(nil)},
		{"message id is text", false, func(kind string, _ int64) []byte {
			return wrap(0x30, append([]byte{0x04, 0x01, '1'}, ok(kind, 1).Children[1].Bytes()...))
		}},
		{"message id of twelve bytes", false, func(kind string, _ int64) []byte {
			return wrap(0x30, append(append([]byte{0x02, 0x0c}, bytes.Repeat([]byte{0x7f}, 12)...), ok(kind, 1).Children[1].Bytes()...))
		}},
		{"of another message", false, func(kind string, id int64) []byte { return ok(kind, id+1000).Bytes() }},
		{"of another operation", true, func(kind string, id int64) []byte {
			return message(id, resultPacket(tagExtResponse+2, &Result{})).Bytes()
		}},
		{"operation is primitive", false, inner([]byte{0x41, 0x01, 0x00})},
		{"operation is empty", false, inner([]byte{0x61, 0x00})},
		{"result code is text", false, inner(wrap(0x61, []byte{0x04, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00}))},
		{"result code is empty", false, inner(wrap(0x61, []byte{0x04, 0x00}))},
		{"result code of nine bytes", true, inner(wrap(0x61, append(wrap(0x0a, bytes.Repeat([]byte{1}, 9)), 0x04, 0x00, 0x04, 0x00)))},
		{"entry without a name", false, inner([]byte{0x64, 0x00})},
		{"entry without attributes", false, inner(wrap(0x64, []byte{0x04, 0x01, 'a'}))},
		{"entry of numbers", false, inner(wrap(0x64, []byte{0x02, 0x01, 0x01, 0x02, 0x01, 0x01}))},
		{"attribute without values", false, inner(wrap(0x64, append([]byte{0x04, 0x01, 'a'}, wrap(0x30, wrap(0x30, []byte{0x04, 0x02, 'c', 'n'}))...)))},
		{"attribute of numbers", false, inner(wrap(0x64, append([]byte{0x04, 0x01, 'a'}, wrap(0x30, wrap(0x30, []byte{0x02, 0x01, 1, 0x31, 0x03, 0x02, 0x01, 1}))...)))},
		{"continuation without an address", false, inner([]byte{0x73, 0x00})},
		{"controls that are none", false, func(kind string, id int64) []byte {
			m := ok(kind, id)
			return wrap(0x30, append(append([]byte{}, m.Data.Bytes()...), 0xa0, 0x03, 0x04, 0x01, 'x'))
		}},
		{"paging of nothing", false, func(_ string, id int64) []byte {
			control := ber.NewSequence("")
			control.AppendChild(octets(pagingName))
			control.AppendChild(octets("\x30\x03\x02\x01"))
			return message(id, resultPacket(tagSearchDone, &Result{Code: 80}), control).Bytes()
		}},
		{"notice of disconnection", false, func(string, int64) []byte { return disconnection() }},
	}
}

// disconnection is the server's word that it ends the connection (RFC 4511
// 4.4.1).
func disconnection() []byte {
	p := resultPacket(tagExtResponse, &Result{Code: 52, Message: "shutting down"})
	p.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 10, disconnectName, "responseName"))
	return message(0, p).Bytes()
}

// wrap puts a tag and a length before bytes.
func wrap(tag byte, b []byte) []byte {
	if len(b) < 0x80 {
		return append([]byte{tag, byte(len(b))}, b...)
	}
	return append([]byte{tag, 0x82, byte(len(b) >> 8), byte(len(b))}, b...)
}
