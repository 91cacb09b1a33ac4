package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is the connection under the MQTT client. It adds what the client library does not show: when something last came
// in, acknowledgements for a whole batch in one write, and the proof that the broker has read them. The proof is a ping
// behind the acknowledgements: a broker answers in order.
//
// Messages it takes out of the stream itself. The library would hand each through three goroutines, at a fifth of the
// agent's processor time under load; it gets all other packets.
type link struct {
	net.Conn
	patience time.Duration // for one write
	deliver  func(message) // may block: then nothing is read
	heard    atomic.Int64  // nanoseconds of the clock at the last byte that came in

	// What only the reading goroutine uses.
	buffered *bufio.Reader
	arrived  time.Time // when the newest bytes came in
	passing  int       // bytes of the packet that the library is reading
	topics   map[string]string

	writing sync.Mutex
	out     []byte

	mu        sync.Mutex
	acked     uint64        // acknowledgements written
	pings     []uint64      // acked at each ping that is not answered yet
	confirmed atomic.Uint64 // acknowledgements that the broker has certainly read
}

const (
	publishPacket  = 0x30
	pubackPacket   = 0x40
	pingreqPacket  = 0xC0
	pingrespPacket = 0xD0
)

func newLink(c net.Conn, patience time.Duration, deliver func(message)) *link {
	l := &link{Conn: c, patience: patience, deliver: deliver, topics: map[string]string{}}
	l.touch()
	l.buffered = bufio.NewReaderSize(inbound{l}, 64<<10)
	return l
}

// Read gives the client library what is not a message.
func (l *link) Read(p []byte) (int, error) {
	for l.passing == 0 {
		if err := l.packet(); err != nil {
			return 0, err
		}
	}
	n, err := l.buffered.Read(p[:min(len(p), l.passing)])
	l.passing -= n
	return n, err
}

// packet looks at the packet that comes next. A message is delivered, anything else left for the library.
func (l *link) packet() error {
	first, header, rest, err := l.header()
	if err != nil {
		return err
	}
	if first&0xF0 != publishPacket {
		if first == pingrespPacket {
			l.pong()
		}
		l.passing = header + rest
		return nil
	}
	if _, err := l.buffered.Discard(header); err != nil {
		return err
	}
	m, err := l.publish(first, rest)
	if err == nil {
		l.deliver(m)
	}
	return err
}

// header reads ahead to a packet's first byte, the size of its fixed header and how many bytes follow that.
func (l *link) header() (first byte, size, rest int, err error) {
	for size = 2; size <= 5; size++ {
		h, err := l.buffered.Peek(size)
		if err != nil {
			return 0, 0, 0, cutShort(err, len(h) > 0)
		}
		rest |= int(h[size-1]&0x7F) << (7 * (size - 2))
		if h[size-1]&0x80 == 0 {
			return h[0], size, rest, nil
		}
	}
	return 0, 0, 0, errors.New("the broker sent a packet with an impossible length")
}

// cutShort names an end of the connection in the middle of a packet.
func cutShort(err error, began bool) error {
	if began && err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// publish reads a message, of which the fixed header is read and size bytes are left.
func (l *link) publish(first byte, size int) (message, error) {
	m := message{qos: first >> 1 & 3, dup: first&8 != 0, retained: first&1 != 0}
	if m.qos == 3 {
		return m, errors.New("the broker sent a message of an unknown quality of service")
	}
	length, err := l.number(&size)
	if err != nil {
		return m, err
	}
	if int(length) > size {
		return m, fmt.Errorf("the broker sent a message of %d bytes with a topic of %d", size, length)
	}
	if m.topic, err = l.topic(int(length)); err != nil {
		return m, err
	}
	if size -= int(length); m.qos > 0 {
		if m.id, err = l.number(&size); err != nil {
			return m, err
		}
	}
	m.payload, err = l.payload(size)
	m.received, m.freed = l.arrived, l.confirmed.Load() > 0
	return m, cutShort(err, true)
}

// payload reads size bytes; of a long one no more is kept than has come, since a length is easily claimed.
func (l *link) payload(size int) ([]byte, error) {
	if size <= l.buffered.Size() {
		p := make([]byte, size)
		_, err := io.ReadFull(l.buffered, p)
		return p, err
	}
	var p bytes.Buffer
	_, err := io.CopyN(&p, l.buffered, int64(size))
	return p.Bytes(), err
}

// number reads 2 of the bytes that are left of a packet.
func (l *link) number(left *int) (uint16, error) {
	if *left -= 2; *left < 0 {
		return 0, errors.New("the broker sent a message that is too short")
	}
	h, err := l.buffered.Peek(2)
	if err != nil {
		return 0, cutShort(err, true)
	}
	n := binary.BigEndian.Uint16(h)
	_, err = l.buffered.Discard(2)
	return n, err
}

// topic reads a topic; the same topics come again and again, so one copy of each serves.
func (l *link) topic(length int) (string, error) {
	raw, err := l.buffered.Peek(length) // at most 65,535, which the buffer holds
	if err != nil {
		return "", cutShort(err, true)
	}
	name, known := l.topics[string(raw)]
	if !known {
		if len(l.topics) >= knownTopics {
			clear(l.topics)
		}
		name = string(raw)
		l.topics[name] = name
	}
	_, err = l.buffered.Discard(length)
	return name, err
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

// write needs the lock of writing.
func (l *link) write(p []byte) (int, error) {
	if err := l.Conn.SetWriteDeadline(time.Now().Add(l.patience)); err != nil {
		return 0, err
	}
	return l.Conn.Write(p)
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
	if len(l.pings) > 0 {
		l.confirmed.Store(l.pings[0])
		l.pings = l.pings[1:]
	}
}

// progress returns how many acknowledgements were written, and how many of those the broker has certainly read.
func (l *link) progress() (acked, confirmed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.confirmed.Load()
}

// touch makes silence start anew. The reading goroutine calls it.
func (l *link) touch() {
	l.arrived = time.Now()
	l.heard.Store(l.arrived.UnixNano())
}

// silence is how long nothing has come in.
func (l *link) silence() time.Duration { return time.Duration(time.Now().UnixNano() - l.heard.Load()) }

// inbound reads the network.
type inbound struct{ l *link }

func (r inbound) Read(p []byte) (int, error) {
	n, err := r.l.Conn.Read(p)
	if n > 0 {
		r.l.touch()
	}
	return n, err
}
