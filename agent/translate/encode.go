package translate

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// wire writes a message field by field, the fields in the order of their numbers, so that it comes out as proto.Marshal writes
// it. Confirmations and consumptions are nearly all that an agent makes, and written like this they cost a fraction.
type wire struct {
	b   []byte
	bad bool // a text is no UTF-8: nobody could read the message
	was *written
}

// written is what the header before was written as, in the parts that facts of one rule and one moment have in common.
type written struct {
	names         stretch[names]
	circumstances stretch[circumstances]
}

// stretch is a part of a message and what it says.
type stretch[K comparable] struct {
	says K
	b    []byte
}

// names are the fields 1 to 3 of a header, circumstances the fields 5 to 7.
type (
	names         struct{ plant, source, rule string }
	circumstances struct {
		recorded        bool
		seconds         int64
		nanos           int32
		zone, equipment string
	}
)

// appendFact appends the encoded fact to b, byte by byte what proto.Marshal would make. was is of the fact before.
func appendFact(b []byte, f *pb.Fact, was *written) ([]byte, error) {
	w := wire{b: b, was: was}
	w.bytes(1, f.Key)
	if f.Header != nil {
		at := w.open(2)
		w.header(f.Header)
		w.close(at)
	}
	switch c := f.Content.(type) {
	case *pb.Fact_ProductionConfirmation:
		at := w.open(3)
		w.confirmation(c.ProductionConfirmation)
		w.close(at)
	case *pb.Fact_MaterialConsumption:
		at := w.open(4)
		w.consumption(c.MaterialConsumption)
		w.close(at)
	default: // seldom
		return proto.MarshalOptions{}.MarshalAppend(b, f)
	}
	if w.bad {
		return b, errors.New("a text is not UTF-8")
	}
	return w.b, nil
}

func (w *wire) header(h *pb.Header) {
	again(w, &w.was.names, names{h.Plant, h.Source, h.Rule}, h, (*wire).names)
	w.time(4, h.OccurredAt)
	r := h.RecordedAt
	again(w, &w.was.circumstances, circumstances{r != nil, r.GetSeconds(), r.GetNanos(), h.TimeZone, h.Equipment}, h, (*wire).circumstances)
	w.bytes(8, h.Reverses)
	w.text(9, h.Position)
	w.flag(10, h.ClockSuspect)
	w.text(11, h.Shift)
	w.text(12, h.ShiftDate)
	w.text(13, h.PostingDate)
}

func (w *wire) names(h *pb.Header) {
	w.text(1, h.Plant)
	w.text(2, h.Source)
	w.text(3, h.Rule)
}

func (w *wire) circumstances(h *pb.Header) {
	w.time(5, h.RecordedAt)
	w.text(6, h.TimeZone)
	w.text(7, h.Equipment)
}

// again writes what the last stretch of its kind was written as, if that said the same. What nobody could read is not remembered.
func again[K comparable](w *wire, last *stretch[K], says K, h *pb.Header, write func(*wire, *pb.Header)) {
	if last.says == says {
		w.b = append(w.b, last.b...)
		return
	}
	at := len(w.b)
	write(w, h)
	if *last = (stretch[K]{b: last.b[:0]}); !w.bad {
		last.says, last.b = says, append(last.b, w.b[at:]...)
	}
}

func (w *wire) confirmation(c *pb.ProductionConfirmation) {
	w.text(1, c.OrderNo)
	w.text(2, c.Operation)
	w.text(3, c.Item)
	w.text(4, c.Yield)
	w.text(5, c.Scrap)
	w.text(6, c.Rework)
	w.text(7, c.Unit)
	w.text(8, c.ScrapReason)
	w.flag(9, c.Final)
	w.time(10, c.StartedAt)
	w.time(11, c.FinishedAt)
	w.counterRange(12, c.CounterRange)
	w.text(13, c.Lot)
	w.text(14, c.Person)
	w.text(15, c.Shift)
	w.text(16, c.Serial)
	w.text(17, c.ScrapReasonText)
}

func (w *wire) consumption(c *pb.MaterialConsumption) {
	w.text(1, c.OrderNo)
	w.text(2, c.Operation)
	w.text(3, c.Item)
	if c.Quantity != nil {
		at := w.open(4)
		w.text(1, c.Quantity.Value)
		w.text(2, c.Quantity.Unit)
		w.close(at)
	}
	w.text(5, c.Lot)
	w.number(6, int64(c.Movement))
	w.text(7, c.Reservation)
	w.counterRange(8, c.CounterRange)
}

func (w *wire) counterRange(n protowire.Number, r *pb.CounterRange) {
	if r == nil {
		return
	}
	at := w.open(n)
	w.text(1, r.Tag)
	w.text(2, r.Epoch)
	w.text(3, r.From)
	w.text(4, r.To)
	w.close(at)
}

func (w *wire) text(n protowire.Number, s string) {
	if s == "" {
		return
	}
	w.bad = w.bad || !utf8.ValidString(s)
	w.tag(n, protowire.BytesType)
	w.varint(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *wire) bytes(n protowire.Number, v []byte) {
	if len(v) > 0 {
		w.tag(n, protowire.BytesType)
		w.b = protowire.AppendBytes(w.b, v)
	}
}

func (w *wire) flag(n protowire.Number, set bool) {
	if set {
		w.number(n, 1)
	}
}

func (w *wire) number(n protowire.Number, v int64) {
	if v != 0 {
		w.tag(n, protowire.VarintType)
		w.varint(uint64(v))
	}
}

func (w *wire) tag(n protowire.Number, t protowire.Type) { w.varint(protowire.EncodeTag(n, t)) }

// varint is protowire.AppendVarint, of which nearly all numbers take one byte.
func (w *wire) varint(v uint64) {
	if v < 1<<7 {
		w.b = append(w.b, byte(v))
		return
	}
	w.b = protowire.AppendVarint(w.b, v)
}

func (w *wire) time(n protowire.Number, t *timestamppb.Timestamp) {
	if t == nil {
		return
	}
	at := w.open(n)
	w.number(1, t.Seconds)
	w.number(2, int64(t.Nanos))
	w.close(at)
}

// open begins a message within the message, and leaves room for a length of one byte.
func (w *wire) open(n protowire.Number) (at int) {
	w.tag(n, protowire.BytesType)
	w.b = append(w.b, 0)
	return len(w.b)
}

// close ends the message that began at at.
func (w *wire) close(at int) {
	n := len(w.b) - at
	if n < 1<<7 {
		w.b[at-1] = byte(n)
		return
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	w.b = append(w.b, make([]byte, more)...)
	copy(w.b[at+more:], w.b[at:at+n])
	protowire.AppendVarint(w.b[:at-1], uint64(n))
}

// The facts of a call are encoded one behind the other, in pieces that grow.
const (
	roomForFact  = 512
	largestPiece = 32 << 10
)

// encode returns the bytes of the fact that is filled in.
func (e *encoder) encode() []byte {
	if cap(e.piece)-len(e.piece) < roomForFact {
		e.piece = make([]byte, 0, min(max(2*cap(e.piece), roomForFact), largestPiece))
	}
	at := len(e.piece)
	all, err := appendFact(e.piece, &e.fact, &e.was)
	if err != nil {
		// Every text was checked to be UTF-8, so there is nothing that an input could do to get here.
		panic(fmt.Sprintf("encode fact %q: %v", e.header.Position, err))
	}
	e.piece = all
	return all[at:len(all):len(all)]
}
