package mqttlink

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func TestPingAnswersAreFoundHoweverTheStreamIsCut(t *testing.T) {
	var stream []byte
	publish := append([]byte{0x32, 0xAC, 0x02}, bytes.Repeat([]byte{pingrespPacket, 0}, 150)...) // a payload that looks like answers
	for range 3 {
		stream = append(stream, publish...)
		stream = append(stream, pingrespPacket, 0)
	}
	for size := 1; size <= len(stream); size += 7 {
		var s packetScan
		found := 0
		for rest := stream; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			s.read(rest[:min(size, len(rest))], func() { found++ })
		}
		if found != 3 || s.publishes != 3 {
			t.Fatalf("pieces of %d bytes: %d answers, %d messages", size, found, s.publishes)
		}
	}
}

func TestAcknowledgementsAreOneWriteAndCountAsReadAfterThePing(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := newLink(here, time.Minute, func() bool { return false })
	defer l.Close()
	go func() {
		buffer := make([]byte, 10)
		io.ReadFull(there, buffer)
		there.Write(append(buffer[:0], 0x32, 0, pingrespPacket, 0))
	}()
	if n, err := l.acknowledge([]uint16{1, 0x1234}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := io.ReadFull(l, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if acked, confirmed := l.progress(); acked != 2 || confirmed != 2 {
		t.Errorf("acknowledged %d, read %d", acked, confirmed)
	}
}

// FuzzPacketScan gives a broker's stream in two pieces: where it is cut must not matter, and nothing may be found that whole
// packets do not hold.
func FuzzPacketScan(f *testing.F) {
	f.Add([]byte{pingrespPacket, 0, 0x32, 3, 1, 2, 3, pingrespPacket, 0}, 3)
	f.Add([]byte{0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}, 5)
	f.Add([]byte{0x40, 2, pingrespPacket, 0, 0x90, 3, pingrespPacket, 0, 0}, 4)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole, pieces := 0, 0
		var a, b packetScan
		a.read(stream, func() { whole++ })
		cut = min(max(cut, 0), len(stream))
		b.read(stream[:cut], func() { pieces++ })
		b.read(stream[cut:], func() { pieces++ })
		if whole != pieces || a != b {
			t.Fatalf("%x cut at %d: %d answers and %+v, then %d and %+v", stream, cut, whole, a, pieces, b)
		}
		if whole > bytes.Count(stream, []byte{pingrespPacket}) {
			t.Fatalf("%x: %d answers", stream, whole)
		}
	})
}
