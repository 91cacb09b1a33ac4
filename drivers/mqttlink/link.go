package mqttlink

import (
	"bufio"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is the connection under the MQTT client. It adds what the client library does not show: when something last came
// in, acknowledgements for a whole batch in one write, and the proof that the broker has read them. The proof is a ping
// behind the acknowledgements: a broker answers in order.
type link struct {
	net.Conn
	buffered *bufio.Reader
	patience time.Duration // for one write
	heard    atomic.Int64  // nanoseconds of the clock at the last byte that came in
	scan     packetScan    // used by the reading goroutine only
	gate     func() bool   // waits until more may be read, and reports whether it had to
	opening  []byte        // the first bytes that came in: the broker's answer to the connect
	spoken   atomic.Bool   // something came in

	writing sync.Mutex
	out     []byte
	broken  error // of the first write that failed: behind a piece of a packet, all would be taken for its rest

	mu        sync.Mutex
	acked     uint64        // acknowledgements written
	pings     []uint64      // acked at each ping that is not answered yet
	confirmed atomic.Uint64 // acknowledgements that the broker has certainly read
	// freedAfter is how many PUBLISH packets came before the first of those was certain.
	freedAfter atomic.Uint64
}

const (
	pubackPacket   = 0x40
	pingreqPacket  = 0xC0
	pingrespPacket = 0xD0
	publishKind    = 3 // the upper half of the first byte
	openingBytes   = 4
)

func newLink(c net.Conn, patience time.Duration, gate func() bool) *link {
	l := &link{Conn: c, patience: patience, gate: gate}
	l.touch()
	l.freedAfter.Store(math.MaxUint64)
	l.buffered = bufio.NewReaderSize(inbound{l}, 64<<10)
	return l
}

// Read serves the small reads of the client library from a buffer, and nothing while the window is full.
func (l *link) Read(p []byte) (int, error) {
	if l.gate() {
		l.touch() // nothing was heard because nobody listened
	}
	return l.buffered.Read(p)
}

// Write is called with one whole packet.
func (l *link) Write(p []byte) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if len(p) == 2 && p[0] == pingreqPacket {
		l.note(0)
	}
	return l.write(p)
}

// SetWriteDeadline leaves the patience for a write as it is: the library's is for something else.
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// write needs the lock of writing.
func (l *link) write(p []byte) (int, error) {
	if l.broken != nil {
		return 0, l.broken
	}
	if err := l.Conn.SetWriteDeadline(time.Now().Add(l.patience)); err != nil {
		return 0, err
	}
	n, err := l.Conn.Write(p)
	if err != nil && !l.spoken.Load() {
		err = l.refusal(err)
	}
	l.broken = err
	return n, err
}

// refusal returns why the connect could not be written, where the broker has told. A broker of TLS 1.3 refuses a certificate when
// the handshake is over for the client, and may be gone before the connect is written.
func (l *link) refusal(err error) error {
	if e := l.Conn.SetReadDeadline(time.Now().Add(settlePatience)); e != nil {
		return err
	}
	_, told := l.buffered.Peek(1)
	var alert *net.OpError
	if errors.As(told, &alert) && alert.Op == "remote error" {
		return told
	}
	return err
}

// acknowledge writes a PUBACK for each id and a ping behind them. It returns how many it may have written.
func (l *link) acknowledge(ids []uint16) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.out = l.out[:0]
	for _, id := range ids {
		l.out = append(l.out, pubackPacket, 2, byte(id>>8), byte(id))
	}
	l.out = append(l.out, pingreqPacket, 0)
	l.note(len(ids))
	n, err := l.write(l.out)
	return min((n+3)/4, len(ids)), err
}

// ping writes a ping.
func (l *link) ping() error {
	_, err := l.Write([]byte{pingreqPacket, 0})
	return err
}

// note counts acknowledgements and the ping that is written behind them.
func (l *link) note(acks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked += uint64(acks)
	l.pings = append(l.pings, l.acked)
}

// pong takes the answer to the oldest ping.
func (l *link) pong() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pings) == 0 {
		return
	}
	if l.confirmed.Load() == 0 && l.pings[0] > 0 {
		l.freedAfter.Store(l.scan.publishes)
	}
	l.confirmed.Store(l.pings[0])
	l.pings = l.pings[1:]
}

// progress returns how many acknowledgements were written, and how many of those the broker has certainly read.
func (l *link) progress() (acked, confirmed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.confirmed.Load()
}

// touch makes silence start anew.
func (l *link) touch() { l.heard.Store(time.Now().UnixNano()) }

// silence is how long nothing has come in.
func (l *link) silence() time.Duration { return time.Duration(time.Now().UnixNano() - l.heard.Load()) }

// inbound reads the network and looks at the packets that pass.
type inbound struct{ l *link }

func (r inbound) Read(p []byte) (int, error) {
	n, err := r.l.Conn.Read(p)
	if n > 0 {
		r.l.touch()
		r.l.spoken.Store(true)
		if missing := openingBytes - len(r.l.opening); missing > 0 {
			r.l.opening = append(r.l.opening, p[:min(n, missing)]...)
		}
		r.l.scan.read(p[:n], r.l.pong)
	}
	return n, err
}

// packetScan finds the borders of packets in a stream.
type packetScan struct {
	inHeader  bool // the first byte was seen, the length is not complete
	kind      byte
	shift     uint
	rest      uint64 // bytes of the packet still to come
	publishes uint64 // PUBLISH packets that have begun
}

// read goes through a piece of the stream and calls pong at the end of each PINGRESP in it.
func (s *packetScan) read(p []byte, pong func()) {
	for len(p) > 0 {
		if s.inHeader {
			s.rest |= uint64(p[0]&0x7F) << s.shift
			s.shift += 7
			s.inHeader = p[0]&0x80 != 0
			if !s.inHeader && s.kind == pingrespPacket {
				pong()
			}
			p = p[1:]
			continue
		}
		if s.rest > 0 {
			n := min(s.rest, uint64(len(p)))
			s.rest -= n
			p = p[n:]
			continue
		}
		s.inHeader, s.kind, s.shift = true, p[0], 0
		if s.kind>>4 == publishKind {
			s.publishes++
		}
		p = p[1:]
	}
}

// wholePackets is a link for a library that locks its connection and then writes a packet in pieces: they leave in one write
// when it unlocks.
type wholePackets struct {
	*link
	pieces []byte
}

func (w *wholePackets) Lock() { w.writing.Lock() }

// Unlock sends what was written since Lock. An error closes the connection, which the reading side reports after what had come
// before it: that may say why.
func (w *wholePackets) Unlock() {
	defer w.writing.Unlock()
	if len(w.pieces) == 0 {
		return
	}
	if _, err := w.write(w.pieces); err != nil {
		time.AfterFunc(settlePatience, func() { w.Close() })
	}
	w.pieces = w.pieces[:0]
}

// Write needs the lock.
func (w *wholePackets) Write(p []byte) (int, error) {
	w.pieces = append(w.pieces, p...)
	return len(p), nil
}
