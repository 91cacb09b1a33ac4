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
