package jobcontrol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"
)

// coder writes or reads, by the same description of each structure, so that both can't differ.
type coder struct {
	reading bool
	b       []byte // what was written, or what is left to read
	err     error
	depth   int
}

// maxDepth bounds parameters within parameters.
const maxDepth = 20

var errShort = errors.New("the bytes end too early")

func (c *coder) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// take reads n bytes; nil after an error.
func (c *coder) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.b) {
		c.fail(errShort)
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *coder) byte(v *byte) {
	if !c.reading {
		c.b = append(c.b, *v)
		return
	}
	if p := c.take(1); p != nil {
		*v = p[0]
	}
}

func (c *coder) uint32(v *uint32) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint32(c.b, *v)
		return
	}
	if p := c.take(4); p != nil {
		*v = binary.LittleEndian.Uint32(p)
	}
}

func (c *coder) int32(v *int32) {
	u := uint32(*v)
	c.uint32(&u)
	*v = int32(u)
}

func (c *coder) int16(v *int16) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint16(c.b, uint16(*v))
		return
	}
	if p := c.take(2); p != nil {
		*v = int16(binary.LittleEndian.Uint16(p))
	}
}

// string is a text; the null text and the empty one are the same here.
func (c *coder) string(v *string) {
	n := int32(len(*v))
	if n == 0 {
		n = -1
	}
	c.int32(&n)
	switch {
	case !c.reading:
		c.b = append(c.b, *v...)
	case n > 0:
		*v = string(c.take(int(n)))
	default:
		*v = ""
	}
}

// text is a LocalizedText.
func (c *coder) text(v *Text) {
	const hasLocale, hasText = 1, 2
	var mask byte
	if v.Locale != "" {
		mask |= hasLocale
	}
	if v.Text != "" {
		mask |= hasText
	}
	c.byte(&mask)
	if mask&hasLocale != 0 {
		c.string(&v.Locale)
	}
	if mask&hasText != 0 {
		c.string(&v.Text)
	}
}

// time is a DateTime: hundreds of nanoseconds since 1601, 0 for none.
func (c *coder) time(v *time.Time) {
	if !c.reading {
		var ticks int64
		if !v.IsZero() {
			ticks = v.Unix()*1e7 + int64(v.Nanosecond()/100) + epoch
		}
		c.b = binary.LittleEndian.AppendUint64(c.b, uint64(max(ticks, 0)))
		return
	}
	p := c.take(8)
	if p == nil {
		return
	}
	ticks := int64(binary.LittleEndian.Uint64(p))
	if *v = (time.Time{}); ticks > 0 && ticks < last {
		*v = time.Unix((ticks-epoch)/1e7, (ticks-epoch)%1e7*100).UTC()
	}
}

// epoch is 1970 in hundreds of nanoseconds since 1601; last is the end of the year 9999, which stands for "no end".
const (
	epoch = 116444736000000000
	last  = 2650467743990000000
)

// variant is a value of any built-in type. The library reads it; what makes it panic is an error here.
func (c *coder) variant(v **ua.Variant) {
	if !c.reading {
		if *v == nil {
			c.b = append(c.b, 0)
			return
		}
		b, err := (*v).Encode()
		if err != nil {
			c.fail(err)
		}
		c.b = append(c.b, b...)
		return
	}
	if c.err != nil {
		return
	}
	n, err := decodeVariant(v, c.b)
	if err != nil || n > len(c.b) {
		c.fail(fmt.Errorf("a value cannot be read: %w", errors.Join(err)))
		return
	}
	c.b = c.b[n:]
}

func decodeVariant(v **ua.Variant, b []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	const array, diagnostics, nested = 0x80, 25, 23 // DataValue, Variant, DiagnosticInfo
	if len(b) >= 5 && b[0]&array != 0 {
		// The library believes a length, again in each value within.
		n := int32(binary.LittleEndian.Uint32(b[1:]))
		if kind := b[0] & 0x3f; int64(n) > int64(len(b)-5) || n < -1 || kind >= nested && kind <= diagnostics {
			return 0, fmt.Errorf("an array of %d elements of type %d cannot be in %d bytes", n, kind, len(b)-5)
		}
	}
	*v = &ua.Variant{}
	return (*v).Decode(b)
}

// mask is the list of the optional fields that are there.
func (c *coder) mask(present ...bool) uint32 {
	var m uint32
	for i, p := range present {
		if p {
			m |= 1 << i
		}
	}
	c.uint32(&m)
	if c.reading && m>>len(present) != 0 {
		c.fail(fmt.Errorf("the mask of optional fields is %#x, and there are only %d such fields", m, len(present)))
		return 0
	}
	return m
}

// list codes an array: its length, then its elements inline. least is the smallest size of one element in bytes, so that no
// length can promise more than the bytes hold.
func list[T any](c *coder, v *[]T, least int, one func(*coder, *T)) {
	n := int32(len(*v))
	c.int32(&n)
	if c.reading {
		*v = nil
		if c.err != nil || n <= 0 {
			return
		}
		if int(n) > len(c.b)/least {
			c.fail(errShort)
			return
		}
		*v = make([]T, n)
	}
	if c.depth++; c.depth > maxDepth {
		c.fail(errors.New("values are nested too deep"))
	}
	for i := range *v {
		if c.err != nil {
			break
		}
		one(c, &(*v)[i])
	}
	c.depth--
}

// done is what was written, or an error.
func encode(f func(*coder)) ([]byte, error) {
	c := &coder{}
	f(c)
	return c.b, c.err
}

// decode reads all of b.
func decode(b []byte, f func(*coder)) (int, error) {
	c := &coder{reading: true, b: b}
	f(c)
	if c.err != nil {
		return 0, c.err
	}
	return len(b) - len(c.b), nil
}
