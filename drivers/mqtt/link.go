package mqtt

import (
	"bufio"
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

	writing sync.Mutex
	out     []byte

	mu        sync.Mutex
	acked     uint64        // acknowledgements written
	pings     []uint64      // acked at each ping that is not answered yet
	confirmed atomic.Uint64 // acknowledgements that the broker has certainly read
}

const (
	pubackPacket   = 0x40
	pingreqPacket  = 0xC0
	pingrespPacket = 0xD0
)

func newLink(c net.Conn, patience time.Duration) *link {
	l := &link{Conn: c, patience: patience}
	l.touch()
	l.buffered = bufio.NewReaderSize(inbound{l}, 64<<10)
	return l
}

// Read serves the small reads of the client library from a buffer.
func (l *link) Read(p []byte) (int, error) { return l.buffered.Read(p) }

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
		for range r.l.scan.pingresps(p[:n]) {
			r.l.pong()
		}
	}
	return n, err
}

// packetScan finds the borders of packets in a stream.
type packetScan struct {
	inHeader bool // the first byte was seen, the length is not complete
	kind     byte
	shift    uint
	rest     uint64 // bytes of the packet still to come
}

// pingresps returns how many PINGRESP packets end in this piece of the stream.
func (s *packetScan) pingresps(p []byte) int {
	found := 0
	for len(p) > 0 {
		if s.inHeader {
			s.rest |= uint64(p[0]&0x7F) << s.shift
			s.shift += 7
			s.inHeader = p[0]&0x80 != 0
			if !s.inHeader && s.kind == pingrespPacket {
				found++
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
		*s = packetScan{inHeader: true, kind: p[0]}
		p = p[1:]
	}
	return found
}
