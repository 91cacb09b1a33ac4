package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// smallFile is what is held in memory; a larger content is copied into the source's own folder, so that nobody can change it
// while it is read and a lost connection costs no half-read records.
const smallFile = 16 << 20

// content is what a file held at one moment.
type content struct {
	hash  string
	entry entry
	small []byte
	spool string // path of the copy of a large one
}

// errChanged says that a file changed while it was read.
var errChanged = errors.New("the file changed while it was read")

// spoolError is a fault of this computer, not of the file.
type spoolError struct{ error }

func (e spoolError) Unwrap() error { return e.error }

// load reads a file whole.
func (f *feed) load(ctx context.Context, st store, path string, e entry) (*content, error) {
	in, err := st.open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c := &content{entry: e}
	sum := sha256.New()
	if f.config.Identity == identityName {
		fmt.Fprintf(sum, "%s\x00", e.name)
	}
	size, err := c.copy(ctx, f.env.Dir, in, sum)
	if err != nil {
		c.drop()
		return nil, err
	}
	c.hash = hex.EncodeToString(sum.Sum(nil)[:16])
	after, err := st.stat(path)
	if err != nil {
		c.drop()
		return nil, err
	}
	if size != e.size || !after.same(e) {
		c.drop()
		return nil, errChanged
	}
	return c, nil
}

// copy reads all of it. The library's own way of copying, where it has one, keeps many requests under way.
func (c *content) copy(ctx context.Context, dir string, in io.Reader, sum hash.Hash) (int64, error) {
	w := &bounded{ctx: ctx, sum: sum, left: c.entry.size}
	if c.entry.size <= smallFile {
		b := bytes.NewBuffer(make([]byte, 0, c.entry.size))
		w.to = b
		n, err := io.Copy(w, in)
		c.small = b.Bytes()
		return n, err
	}
	out, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return 0, spoolError{err}
	}
	defer out.Close()
	c.spool, w.to = out.Name(), out
	return io.Copy(w, in)
}

// bounded passes on what a file had when it was looked at, and ends when there is more.
type bounded struct {
	ctx  context.Context
	to   io.Writer
	sum  hash.Hash
	left int64
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, w.ctx.Err()
	}
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errChanged
	}
	w.sum.Write(p)
	if n, err := w.to.Write(p); err != nil {
		return n, spoolError{err}
	}
	return len(p), nil
}

func (c *content) open() (io.ReadCloser, error) {
	if c.spool == "" {
		return io.NopCloser(bytes.NewReader(c.small)), nil
	}
	return os.Open(c.spool)
}

func (c *content) drop() {
	if c.spool != "" {
		os.Remove(c.spool)
	}
	c.small, c.spool = nil, ""
}

// sweep removes copies that a killed agent left.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "spool-*")) // the pattern is good
	for _, path := range left {
		os.Remove(path)
	}
}
