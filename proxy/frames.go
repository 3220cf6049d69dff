package proxy

import "encoding/binary"

// frames follows one direction of a WebSocket from frame to frame (RFC 6455
// 5.2). It reads headers and counts payload bytes; it keeps neither and judges
// nothing but where a frame ends. Where that is no longer certain it is lost
// for good: the bytes pass on as they are, and nobody may put a frame between
// them.
type frames struct {
	masked bool // a client's frames are masked, a server's are not (5.1)

	head    [14]byte
	have    int    // bytes of the header under way
	left    uint64 // payload bytes still to come
	closing bool   // the frame under way is a close frame
	closed  bool   // a close frame has passed: no frame may follow it (5.5.1)
	lost    bool
}

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// boundary reports whether a frame may be put in here. Between the fragments
// of a message is such a place for a control frame (5.4).
func (f *frames) boundary() bool { return f.have == 0 && f.left == 0 && !f.closed && !f.lost }

// follow reads on to the end of p.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.step(p):]
	}
}

// finish reads to the end of the frame under way and answers how many bytes
// of p that took: none at a boundary, all when the frame goes on.
func (f *frames) finish(p []byte) int {
	if f.boundary() {
		return 0
	}
	return f.step(p)
}

// step reads to the next end of a frame, at most to the end of p, and answers
// how far it came.
func (f *frames) step(p []byte) int {
	if f.lost || f.closed {
		return len(p)
	}
	n := 0
	for f.left == 0 {
		if n == len(p) {
			return n
		}
		f.head[f.have] = p[n]
		f.have++
		n++
		if f.have == 2 && !f.plausible() {
			f.lost = true
			return len(p)
		}
		if f.have < 2 || f.have < f.headLen() {
			continue
		}
		f.have = 0
		f.left = f.length()
		if f.left>>63 != 0 { // 5.2: the most significant bit must be 0
			f.lost = true
			return len(p)
		}
		f.closing = f.head[0]&0x0f == opClose
		if f.left == 0 {
			f.closed = f.closing
			return n
		}
	}
	take := min(uint64(len(p)-n), f.left)
	f.left -= take
	if f.left == 0 {
		f.closed = f.closing
	}
	return n + int(take)
}

// plausible looks at a header's first two bytes. The reserved bits are an
// extension's business and change no length; an opcode nobody knows might.
func (f *frames) plausible() bool {
	op, control := f.head[0]&0x0f, f.head[0]&0x08 != 0
	switch op {
	case opContinuation, opText, opBinary, opClose, opPing, opPong:
	default:
		return false
	}
	if control && (f.head[0]&0x80 == 0 || f.head[1]&0x7f > 125) { // 5.5
		return false
	}
	return f.head[1]&0x80 != 0 == f.masked
}

func (f *frames) headLen() int {
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.masked {
		n += 4
	}
	return n
}

func (f *frames) length() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}
