package recording

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrFull says that a recording has reached its size.
var ErrFull = errors.New("the recording has reached its size")

// Writer writes a recording. It is not for use by several goroutines.
type Writer struct {
	out   counting
	z     *gzip.Writer
	limit int64
	raw   int64 // bytes since the last flush
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewWriter writes the header. limit is how many bytes may be written; what is in it is whole then.
func NewWriter(w io.Writer, h Header, limit int64) (*Writer, error) {
	out := &Writer{out: counting{w: w}, limit: limit}
	out.z = gzip.NewWriter(&out.out)
	return out, out.line(h)
}

// flushEvery bounds what a crash takes along, and how far the size may be passed.
const flushEvery = 256 << 10

func (w *Writer) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write a line of the recording: %w", err)
	}
	return w.Line(b)
}

// Line writes an event that is JSON already.
func (w *Writer) Line(b []byte) error {
	if w.out.n+w.raw/2 > w.limit {
		return ErrFull
	}
	if _, err := w.z.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	if w.raw += int64(len(b)); w.raw < flushEvery {
		return nil
	}
	return w.Flush()
}

// Flush makes what was written readable.
func (w *Writer) Flush() error {
	w.raw = 0
	if err := w.z.Flush(); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	return nil
}

// Bytes is how much was written.
func (w *Writer) Bytes() int64 { return w.out.n }

// Close ends the recording; the file is the caller's.
func (w *Writer) Close() error {
	if err := w.z.Close(); err != nil {
		return fmt.Errorf("end the recording: %w", err)
	}
	return nil
}
