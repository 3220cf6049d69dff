package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
)

// frame builds one frame (RFC 6455 5.2) with the shortest form of its length.
func frame(first byte, masked bool, payload string) []byte {
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0) // a mask that changes nothing
	}
	return append(b, payload...)
}

// places is another reading of RFC 6455 5.2, of the whole at once: the offsets
// at which a frame of ours might stand.
func places(data []byte, masked bool) []int {
	at := []int{0}
	for pos := 0; ; {
		rest := data[pos:]
		if len(rest) < 2 {
			return at
		}
		op, n, head := rest[0]&15, uint64(rest[1]&127), 2
		if !strings.ContainsRune("\x00\x01\x02\x08\x09\x0a", rune(op)) || (rest[1] >= 128) != masked ||
			op >= 8 && (rest[0] < 128 || n > 125) {
			return at
		}
		if n == 126 && len(rest) >= 4 {
			n, head = uint64(rest[2])<<8|uint64(rest[3]), 4
		} else if n == 127 && len(rest) >= 10 {
			n, head = binary.BigEndian.Uint64(rest[2:10]), 10
		} else if n >= 126 {
			return at
		}
		if masked {
			head += 4
		}
		if len(rest) < head || n > uint64(len(rest)-head) || op == 8 {
			return at
		}
		pos += head + int(n)
		at = append(at, pos)
	}
}

// cut is data in pieces of the sizes given, over and over.
func cut(data, sizes []byte) [][]byte {
	var out [][]byte
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(sizes) > 0 {
			n = min(n, 1+int(sizes[i%len(sizes)]))
		}
		out = append(out, data[:n])
		data = data[n:]
	}
	return out
}

type memory struct{ bytes.Buffer }

func (*memory) Close() error { return nil }

// followed holds the follower to places, and one leg of a socket to passing
// what it gets; when the socket ends after some pieces, to putting the close
// frame at the next place and nothing after it.
func followed(t *testing.T, data []byte, masked bool, sizes []byte, after int) {
	t.Helper()
	at, pieces := places(data, masked), cut(data, sizes)
	f, pos := frames{masked: masked}, 0
	if !f.boundary() {
		t.Error("the beginning is no boundary")
	}
	for _, p := range pieces {
		f.follow(p)
		pos += len(p)
		if got, want := f.boundary(), slices.Contains(at, pos); got != want {
			t.Errorf("%x in pieces of %v: boundary at %d is %v", data, sizes, pos, got)
		}
	}
	to := &memory{}
	s := newSocket(&memory{}, func() {}, newBufferPool())
	l := &leg{s: s, to: to, frames: frames{masked: masked}}
	pos = 0
	for i, p := range pieces {
		if i == after {
			s.code.Store(uint32(closeGoingAway))
			l.close()
			break
		}
		if err := l.pass(p); err != nil {
			t.Error(err)
		}
		pos += len(p)
	}
	want := data
	if after < len(pieces) {
		for _, p := range pieces[after:] {
			if err := l.pass(p); err != nil {
				t.Error(err)
			}
		}
		i, _ := slices.BinarySearch(at, pos)
		if i < len(at) {
			want = append(slices.Clone(data[:at[i]]), 0x88)
			got := to.Bytes()
			if tail, found := bytes.CutPrefix(got, want); !found || !isGoingAway(tail, masked) {
				t.Errorf("%x in pieces of %v, ended at %d: got %x", data, sizes, pos, got)
			}
			return
		}
	}
	if !bytes.Equal(to.Bytes(), want) {
		t.Errorf("%x in pieces of %v came out as %x", data, sizes, to.Bytes())
	}
}

// isGoingAway reports whether b is what follows the first byte of a close
// frame of code 1001.
func isGoingAway(b []byte, masked bool) bool {
	if !masked {
		return bytes.Equal(b, []byte{2, 0x03, 0xe9})
	}
	return len(b) == 7 && b[0] == 0x82 && b[5]^b[1] == 0x03 && b[6]^b[2] == 0xe9
}

// SC-21: the follower finds the ends of frames whatever the pieces, and what
// passes it comes out as it went in.
func FuzzFrames(f *testing.F) {
	for _, masked := range []bool{false, true} {
		message := slices.Concat(frame(0x01, masked, "Hel"), frame(0x89, masked, "ping"), frame(0x80, masked, "lo"),
			frame(0x82, masked, strings.Repeat("b", 300)), frame(0x81, masked, ""))
		f.Add(message, masked, []byte{0}, 3)
		f.Add(message, masked, []byte{}, 0)
		f.Add(message, !masked, []byte{6, 1}, 2)
		f.Add(slices.Concat(message, frame(0x88, masked, "\x03\xe8"), []byte("after")), masked, []byte{7}, 60)
		f.Add(slices.Concat(message, frame(0x82, masked, strings.Repeat("c", 1<<16))), masked, []byte{250, 3}, 10)
		f.Add([]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1}, masked, []byte{0}, 4)
		f.Add([]byte{0x09, 1, 'x', 0x83, 0}, masked, []byte{0}, 1)
		f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), masked, []byte{2}, 3)
	}
	f.Fuzz(func(t *testing.T, data []byte, masked bool, sizes []byte, after int) {
		if len(data) > 1<<20 || len(sizes) > 1<<10 {
			return
		}
		followed(t, data, masked, sizes, max(after, 0))
	})
}

// What passes an open socket costs no memory.
func TestFramesCostNoAllocation(t *testing.T) {
	s := newSocket(&nowhere{}, func() {}, newBufferPool())
	for size, p := range map[string][]byte{"small": frame(0x81, true, "hello"), "large": frame(0x82, true, strings.Repeat("x", 100_000))} {
		if n := testing.AllocsPerRun(100, func() {
			if err := s.up.pass(p); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("a %s frame costs %v allocations", size, n)
		}
	}
}

type nowhere struct{}

func (nowhere) Read([]byte) (int, error)    { return 0, io.EOF }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

func BenchmarkFrame(b *testing.B) {
	s := newSocket(&nowhere{}, func() {}, newBufferPool())
	p := frame(0x81, true, "hello")
	b.ReportAllocs()
	for b.Loop() {
		_ = s.up.pass(p)
	}
}
