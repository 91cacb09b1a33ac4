package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// publish sends n messages at QoS 1 with at most 1,000 unacknowledged, and calls each before the message of that number. It
// speaks MQTT 3.1.1 itself, because a full client would take the processor that is to be measured.
func publish(ctx context.Context, broker string, n int, each func(i int)) error {
	c, err := net.Dial("tcp", broker)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	w := bufio.NewWriterSize(c, 64<<10)
	w.Write([]byte("\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05bench"))
	if err := w.Flush(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 64<<10)
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		return err
	}
	const window = 1000
	slots := make(chan struct{}, window)
	read := make(chan error, 1)
	go func() {
		ack := make([]byte, 4)
		for range n {
			if _, err := io.ReadFull(r, ack); err != nil {
				read <- err
				return
			}
			<-slots
		}
		read <- nil
	}()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for i := range n {
		select {
		case slots <- struct{}{}:
		default:
			if err := w.Flush(); err != nil {
				return err
			}
			select {
			case slots <- struct{}{}:
			case err := <-read:
				return err
			}
		}
		if each != nil {
			each(i)
		}
		writePublish(w, i, now)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return <-read
}

func messageID(i int) string { return fmt.Sprintf("m%09d", i) }

func writePublish(w *bufio.Writer, i int, now string) {
	body := fmt.Sprintf(`{"id":"m%09d","order":"WO-%05d","lot":"L%06d","status":"OK","ts":%q,"note":"`, i, i%500, i%1000, now)
	body += strings.Repeat("x", max(0, messageBytes-len(body)-2)) + `"}`
	const topic = "bench/q"
	length := 2 + len(topic) + 2 + len(body)
	w.WriteByte(0x32)
	for length > 127 {
		w.WriteByte(byte(length&127 | 128))
		length >>= 7
	}
	w.WriteByte(byte(length))
	var n [2]byte
	binary.BigEndian.PutUint16(n[:], uint16(len(topic)))
	w.Write(n[:])
	w.WriteString(topic)
	binary.BigEndian.PutUint16(n[:], uint16(i%65535+1))
	w.Write(n[:])
	w.WriteString(body)
}
