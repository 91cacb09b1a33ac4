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

// A cursor is: version, length of the table, table (JSON, deflated; or, with a flag, the name of the file that it lies in), next
// sequence number, flags, time of the last message in nanoseconds, since when a gap waits to be filled likewise, number of items with a last value,
// and for each in the table's order half of the value's print and its time. A print tells the item's last value from all others,
// so that a server which repeats it after a reconnect is not believed twice; half of it is enough for that one comparison. The
// time says from where on a history is news.
const (
	cursorVersion = 2
	// maxPrints bounds the cursor's size: with more items a restarted agent may see each item's last value once more, and fills
	// no gap.
	maxPrints = 4096
	// maxTable bounds the memory that a broken cursor can take.
	maxTable = 64 << 20

	flagFresh = 1
	flagFile  = 2
)

type position struct {
	next  uint32
	fresh bool
	// heard is up to when everything that the server had to say has come.
	heard time.Time
	// unfilled is since when values are missing that the server's history may have; zero when there is no such gap.
	unfilled time.Time
	lasts    []last
	// file is true when the cursor names its table instead of holding it.
	file bool
}

// last is what is known of an item's last value.
type last struct {
	print uint32
	at    int64 // in steps of 100 ns since 1970; 0 when it had none
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
	if len(p.lasts) > maxPrints {
		p.lasts = nil
	}
	b := make([]byte, 0, len(table)+12*len(p.lasts)+48)
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, uint64(len(table)))
	b = append(b, table...)
	b = binary.LittleEndian.AppendUint32(b, p.next)
	flags := byte(0)
	if p.fresh {
		flags |= flagFresh
	}
	if p.file {
		flags |= flagFile
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, nanoseconds(p.heard))
	b = binary.LittleEndian.AppendUint64(b, nanoseconds(p.unfilled))
	b = binary.AppendUvarint(b, uint64(len(p.lasts)))
	for _, v := range p.lasts {
		b = binary.LittleEndian.AppendUint32(b, v.print)
		b = binary.LittleEndian.AppendUint64(b, uint64(v.at))
	}
	return b
}

func nanoseconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func fromNanoseconds(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

var errCut = errors.New("decode the cursor: it is cut off")

// decodeCursor also reads version 1, which had neither the gap nor the times. dir is the source's folder.
func decodeCursor(dir string, b []byte) (*table, position, error) {
	var p position
	if len(b) == 0 || b[0] != cursorVersion && b[0] != 1 {
		return nil, p, errors.New("decode the cursor: another version wrote it")
	}
	old := b[0] == 1
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > uint64(len(b)-1-n) {
		return nil, p, errCut
	}
	b = b[1+n:]
	packed, b := b[:size], b[size:]
	fixed, each := 4+1+8+8, 4+8
	if old {
		fixed, each = 4+1+8, 4
	}
	if len(b) < fixed {
		return nil, p, errCut
	}
	p.next = binary.LittleEndian.Uint32(b)
	p.fresh, p.file = b[4]&flagFresh != 0, b[4]&flagFile != 0
	if p.file {
		var err error
		if packed, err = findTable(dir, packed); err != nil {
			return nil, p, err
		}
	}
	t, err := decodeTable(packed)
	if err != nil {
		return nil, p, err
	}
	p.heard = fromNanoseconds(binary.LittleEndian.Uint64(b[5:]))
	if !old {
		p.unfilled = fromNanoseconds(binary.LittleEndian.Uint64(b[13:]))
	}
	b = b[fixed:]
	count, n := binary.Uvarint(b)
	if n <= 0 || count > maxPrints || len(b)-n != int(count)*each {
		return nil, p, errCut
	}
	if count != 0 && int(count) != len(t.Items) {
		return nil, p, errors.New("decode the cursor: last values and items do not match")
	}
	for b = b[n:]; len(b) > 0; b = b[each:] {
		v := last{print: binary.LittleEndian.Uint32(b)}
		if !old {
			v.at = int64(binary.LittleEndian.Uint64(b[4:]))
		}
		p.lasts = append(p.lasts, v)
	}
	return t, p, nil
}
