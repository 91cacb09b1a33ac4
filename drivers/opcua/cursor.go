package opcua

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// table is the part of the cursor that changes only with the subscription and its items.
type table struct {
	// Endpoint is where the subscription was made.
	Endpoint string `json:"endpoint"`
	// Started is the server's own start time: another one is another life of the server, which has forgotten everything.
	Started time.Time `json:"started"`
	// Subscription is its id, 0 when there is none.
	Subscription uint32 `json:"subscription"`
	// Publishing, KeepAlive and Lifetime are what the server granted.
	Publishing time.Duration `json:"publishing"`
	KeepAlive  time.Duration `json:"keep_alive"`
	Lifetime   time.Duration `json:"lifetime"`
	// NextHandle is never used before: handles are not used again within a subscription.
	NextHandle uint32      `json:"next_handle"`
	Items      []tableItem `json:"items"`
}

// tableItem is one monitored item: what the client handle in a notification means.
type tableItem struct {
	Handle uint32 `json:"h"`
	ID     uint32 `json:"id"`
	Tag    string `json:"tag"`
	Node   string `json:"node"`
	// URI is the namespace that the node's index meant when it was first resolved.
	URI      string        `json:"u,omitempty"`
	Sampling time.Duration `json:"s"`
	Queue    uint32        `json:"q"`
	Deadband float64       `json:"d,omitempty"`
	Percent  float64       `json:"p,omitempty"`
	// Granted is the queue that the server made, Rate how often it looks.
	Granted uint32        `json:"g"`
	Rate    time.Duration `json:"r,omitempty"`
}

// A cursor is: version, length of the table, table (JSON, deflated: it is written with each message), next sequence number,
// whether no message has come yet, time of the last message in nanoseconds, number of prints, and half a print for each
// item in the table's order. A print tells the item's last value from all others, so that a server which repeats it after a
// reconnect is not believed twice; half of it is enough for that one comparison.
const (
	cursorVersion = 1
	// maxPrints bounds the cursor's size: with more items a restarted agent may see each item's last value once more.
	maxPrints = 4096
	// maxTable bounds the memory that a broken cursor can take.
	maxTable = 64 << 20
)

type position struct {
	next   uint32
	fresh  bool
	heard  time.Time
	prints []uint32
}

func encodeTable(t *table) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		err = json.NewEncoder(w).Encode(t)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("encode the item table: %v", err)) // it holds texts and numbers, and memory does not fail
	}
	return b.Bytes()
}

func decodeTable(b []byte) (*table, error) {
	t := &table{}
	r := flate.NewReader(bytes.NewReader(b))
	if err := json.NewDecoder(io.LimitReader(r, maxTable)).Decode(t); err != nil {
		return nil, fmt.Errorf("decode the cursor: %w", err)
	}
	return t, nil
}

func encodeCursor(table []byte, p position) []byte {
	if len(p.prints) > maxPrints {
		p.prints = nil
	}
	b := make([]byte, 0, len(table)+4*len(p.prints)+32)
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, uint64(len(table)))
	b = append(b, table...)
	b = binary.LittleEndian.AppendUint32(b, p.next)
	if p.fresh {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(p.heard.UnixNano()))
	b = binary.AppendUvarint(b, uint64(len(p.prints)))
	for _, v := range p.prints {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func decodeCursor(b []byte) (*table, position, error) {
	var p position
	if len(b) == 0 || b[0] != cursorVersion {
		return nil, p, errors.New("decode the cursor: another version wrote it")
	}
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > uint64(len(b)-1-n) {
		return nil, p, errors.New("decode the cursor: it is cut off")
	}
	b = b[1+n:]
	t, err := decodeTable(b[:size])
	if err != nil {
		return nil, p, err
	}
	b = b[size:]
	if len(b) < 13 {
		return nil, p, errors.New("decode the cursor: it is cut off")
	}
	p.next = binary.LittleEndian.Uint32(b)
	p.fresh = b[4] == 1
	p.heard = time.Unix(0, int64(binary.LittleEndian.Uint64(b[5:])))
	count, n := binary.Uvarint(b[13:])
	if n <= 0 || count > maxPrints || uint64(len(b)-13-n) != 4*count {
		return nil, p, errors.New("decode the cursor: it is cut off")
	}
	if count != 0 && count != uint64(len(t.Items)) {
		return nil, p, errors.New("decode the cursor: prints and items do not match")
	}
	for b = b[13+n:]; len(b) > 0; b = b[4:] {
		p.prints = append(p.prints, binary.LittleEndian.Uint32(b))
	}
	return t, p, nil
}
