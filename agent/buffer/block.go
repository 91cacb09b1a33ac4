package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A block is what one bbolt value holds: consecutive records of one group of commits. All numbers are big-endian:
//
//	0  checksum (CRC-32C) of all that follows and of the key
//	4  sequence number of the first record
//	12 time of the commit, nanoseconds since 1970
//	20 records in this segment up to and with this block
//	28 bytes of blocks in this segment up to and with this block
//	36 records in this block
//	40 bytes of state that changed with them
//	44 that state, the lengths of the records, uvarint, then their bodies
const (
	blockHeader = 44
	// blockPage is a page less a block's share of keys and bbolt's headers: two blocks of n times that just fit into 2n pages.
	blockPage = 4044
	// maxBlockPages bounds a block, and with it what a damaged page takes along.
	maxBlockPages = 8
)

// blockTarget is where a block is closed when so many bytes of bodies are left of a commit. bbolt keeps two blocks to a
// leaf, writes each leaf by itself, and writes the last leaf again with the next commit. So a large commit begins with
// large blocks, which cost few writes, and ends with small ones, of which the next commit has little to repeat.
func blockTarget(left int) int { return blockPage * min(max(left/(4*blockPage), 1), maxBlockPages) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("checksum does not match")

// block is a decoded block header; lengths and bodies stay encoded in rest.
type block struct {
	first    uint64
	last     uint64
	storedAt time.Time
	records  uint64 // in the segment, up to and with this block
	bytes    int64  // in the segment, up to and with this block
	count    int
	delta    []byte
	rest     []byte
}

// appendBlock encodes a block of up to target bytes behind dst. It takes the records bodies[0:n] that fit (at least one) and
// returns n. In the head, records and bytes are what the segment holds before this block.
func appendBlock(dst []byte, head block, bodies [][]byte, target int) ([]byte, int) {
	start := len(dst)
	size, n := blockHeader+len(head.delta), 0
	for n < len(bodies) {
		more := uvarintLen(len(bodies[n])) + len(bodies[n])
		if n > 0 && size+more > target {
			break
		}
		size += more
		n++
	}
	dst = append(dst, make([]byte, blockHeader)...)
	dst = append(dst, head.delta...)
	for _, body := range bodies[:n] {
		dst = binary.AppendUvarint(dst, uint64(len(body)))
	}
	for _, body := range bodies[:n] {
		dst = append(dst, body...)
	}
	v := dst[start:]
	binary.BigEndian.PutUint64(v[4:], head.first)
	binary.BigEndian.PutUint64(v[12:], uint64(head.storedAt.UnixNano()))
	binary.BigEndian.PutUint64(v[20:], head.records+uint64(n))
	binary.BigEndian.PutUint64(v[28:], uint64(head.bytes)+uint64(size))
	binary.BigEndian.PutUint32(v[36:], uint32(n))
	binary.BigEndian.PutUint32(v[40:], uint32(len(head.delta)))
	binary.BigEndian.PutUint32(v, blockSum(seqKey(head.first+uint64(n)-1), v))
	return dst, n
}

// retotal gives a block new running totals.
func retotal(key, v []byte, records uint64, bytes int64) {
	binary.BigEndian.PutUint64(v[20:], records)
	binary.BigEndian.PutUint64(v[28:], uint64(bytes))
	binary.BigEndian.PutUint32(v, blockSum(key, v))
}

// blockRoom is an upper bound of what appendBlock needs for the bodies.
func blockRoom(bodies [][]byte) int {
	room := 0
	for _, body := range bodies {
		room += len(body) + binary.MaxVarintLen32
	}
	return room + blockHeader*(2+2*room/blockPage)
}

func blockSum(key, v []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[4:])
}

// decodeBlock checks a block and decodes its header. The result refers to v.
func decodeBlock(key, v []byte) (block, error) {
	if len(key) != 8 || len(v) < blockHeader {
		return block{}, fmt.Errorf("key of %d bytes, value of %d", len(key), len(v))
	}
	if binary.BigEndian.Uint32(v) != blockSum(key, v) {
		return block{}, errChecksum
	}
	delta := uint64(binary.BigEndian.Uint32(v[40:]))
	if delta > uint64(len(v)-blockHeader) {
		return block{}, fmt.Errorf("%d bytes of state in a value of %d", delta, len(v))
	}
	b := block{
		first:    binary.BigEndian.Uint64(v[4:]),
		last:     binary.BigEndian.Uint64(key),
		storedAt: time.Unix(0, int64(binary.BigEndian.Uint64(v[12:]))).UTC(),
		records:  binary.BigEndian.Uint64(v[20:]),
		bytes:    int64(binary.BigEndian.Uint64(v[28:])),
		count:    int(binary.BigEndian.Uint32(v[36:])),
		delta:    v[blockHeader : blockHeader+delta],
		rest:     v[blockHeader+delta:],
	}
	if b.count == 0 || b.count > len(b.rest) || b.last-b.first != uint64(b.count)-1 {
		return block{}, fmt.Errorf("%d records between sequence numbers %d and %d", b.count, b.first, b.last)
	}
	return b, nil
}

// blockSize returns the size of a block that v begins with, 0 when v does not look like one. It does not check the sum.
func blockSize(v []byte) int {
	if len(v) < blockHeader {
		return 0
	}
	count, delta := uint64(binary.BigEndian.Uint32(v[36:])), uint64(binary.BigEndian.Uint32(v[40:]))
	if delta+count > uint64(len(v)-blockHeader) {
		return 0
	}
	at, bodies := blockHeader+int(delta), uint64(0)
	for range count {
		length, n := binary.Uvarint(v[at:])
		if n <= 0 || length > MaxRecord {
			return 0
		}
		at, bodies = at+n, bodies+length
		if bodies > uint64(len(v)-at) {
			return 0
		}
	}
	return at + int(bodies)
}

// entries returns the records of the block; the bodies refer to it.
func (b block) entries() ([]Entry, error) { return b.appendEntries(make([]Entry, 0, b.count)) }

// appendEntries appends the records of the block to dst; the bodies refer to it.
func (b block) appendEntries(dst []Entry) ([]Entry, error) {
	bodies := b.rest
	for i := range b.count {
		length, n := binary.Uvarint(bodies)
		if n <= 0 || length > uint64(len(bodies)) {
			return dst, fmt.Errorf("length of record %d", b.first+uint64(i))
		}
		bodies = bodies[n:]
	}
	lengths := b.rest
	for i := range b.count {
		length, n := binary.Uvarint(lengths)
		if length > uint64(len(bodies)) {
			return dst, fmt.Errorf("end of record %d", b.first+uint64(i))
		}
		dst = append(dst, Entry{Seq: b.first + uint64(i), StoredAt: b.storedAt, Body: bodies[:length:length]})
		lengths, bodies = lengths[n:], bodies[length:]
	}
	return dst, nil
}

// appendDelta encodes changed state: length and bytes of each key, then 0 where it was deleted, else length + 1 and bytes
// of its value.
func appendDelta(dst []byte, state map[string][]byte) []byte {
	for key, v := range state {
		dst = append(binary.AppendUvarint(dst, uint64(len(key))), key...)
		if v == nil {
			dst = append(dst, 0)
		} else {
			dst = append(binary.AppendUvarint(dst, uint64(len(v))+1), v...)
		}
	}
	return dst
}

// applyDelta does to state what appendDelta encoded.
func applyDelta(state map[string][]byte, delta []byte) error {
	for len(delta) > 0 {
		key, rest, err := lengthAndBytes(delta, 0)
		if err != nil {
			return err
		}
		if len(rest) > 0 && rest[0] == 0 {
			delete(state, string(key))
			delta = rest[1:]
			continue
		}
		v, rest, err := lengthAndBytes(rest, 1)
		if err != nil {
			return err
		}
		state[string(key)], delta = append(make([]byte, 0, len(v)), v...), rest
	}
	return nil
}

// lengthAndBytes reads a uvarint, that many bytes less minus, and returns what is behind them.
func lengthAndBytes(from []byte, minus uint64) (found, rest []byte, err error) {
	length, n := binary.Uvarint(from)
	if n <= 0 || length < minus || length-minus > uint64(len(from)-n) {
		return nil, nil, errors.New("state in a block can not be read")
	}
	end := n + int(length-minus)
	return from[n:end], from[end:], nil
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func uvarintLen(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// sealed puts a checksum over key and value before a small value.
func sealed(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), sum), value...)
}

// unsealed returns a copy of the value that sealed was given.
func unsealed(key, v []byte) ([]byte, error) {
	if len(v) < 4 {
		return nil, fmt.Errorf("value of %d bytes", len(v))
	}
	if binary.BigEndian.Uint32(v) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[4:]) {
		return nil, errChecksum
	}
	return append(make([]byte, 0, len(v)-4), v[4:]...), nil
}
