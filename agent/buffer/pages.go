package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
)

// bbolt trusts its pages: a damaged one can send it into endless recursion or to a panic in a goroutine of its own, and
// neither can be recovered from. So a file that this process has not written itself is walked here first, by reading, not
// by mapping it, and with every number checked before it is used. What passes is a tree that bbolt can walk.

const (
	pageHeaderSize = 16
	elementSize    = 16 // of a branch and of a leaf
	bucketHeader   = 16
	metaSize       = 64
	metaMagic      = 0xED0CDAED
	metaVersion    = 2
	branchPage     = 0x01
	leafPage       = 0x02
	bucketLeaf     = 0x01
	maxDepth       = 32
)

var native = binary.NativeEndian

// pageFile reads the pages of a bbolt file.
type pageFile struct {
	f        *os.File
	pageSize int
	root     uint64
	end      uint64   // pages from here on are not in use
	seen     []uint64 // a bit for each page

	start int64 // of chunk in the file
	chunk []byte
}

// chunkSize is how much of a file is read at once: pages that follow each other mostly lie so.
const chunkSize = 256 << 10

// read returns bytes of the file. They hold until the next call.
func (p *pageFile) read(offset int64, n int) ([]byte, error) {
	if offset < p.start || offset+int64(n) > p.start+int64(len(p.chunk)) {
		if size := max(n, chunkSize); cap(p.chunk) < size {
			p.chunk = make([]byte, size)
		}
		got, err := p.f.ReadAt(p.chunk[:cap(p.chunk)], offset)
		p.start, p.chunk = offset, p.chunk[:got]
		if got < n {
			return nil, err // never nil then
		}
	}
	at := int(offset - p.start)
	return p.chunk[at : at+n : at+n], nil
}

// checkPages walks all pages that the newest meta page of the file refers to. Both meta pages must be whole: where one is
// not, nobody can say whether it was the newest.
func checkPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n := len(readMetas(f)); n == 1 {
		return damaged(errors.New("one of the two meta pages is not whole"))
	}
	return walkPages(f)
}

// walkPages walks all pages that the newest whole meta page refers to.
func walkPages(f *os.File) error {
	p := &pageFile{f: f}
	if err := p.readMeta(); err != nil {
		return damaged(err)
	}
	if err := p.checkTree(p.root); err != nil {
		return damaged(err)
	}
	return nil
}

// metaPage is one of the two pages that say where the tree is.
type metaPage struct {
	offset   int64
	raw      []byte
	pageSize int
	root     uint64
	end      uint64
	txid     uint64
}

// readMeta takes the newer meta page that is whole.
func (p *pageFile) readMeta() error {
	var newest *metaPage
	for _, m := range readMetas(p.f) {
		if newest == nil || m.txid > newest.txid {
			newest = m
		}
	}
	if newest == nil {
		return errors.New("no whole meta page")
	}
	p.pageSize, p.root, p.end = newest.pageSize, newest.root, newest.end
	if stat, err := p.f.Stat(); err == nil {
		p.end = min(p.end, uint64(stat.Size())/uint64(p.pageSize)) // so that no number in a page asks for more memory than that
	}
	return nil
}

// readMetas returns the meta pages that are whole. The second one's place depends on the page size, which only the first
// one tells when it is whole, so all plausible sizes are tried.
func readMetas(f *os.File) []*metaPage {
	var found []*metaPage
	if m := readMeta(f, 0); m != nil {
		found = append(found, m)
	}
	for size := int64(512); size <= 1<<20; size *= 2 {
		if m := readMeta(f, size); m != nil && m.pageSize == int(size) {
			found = append(found, m)
		}
	}
	return found
}

func readMeta(f *os.File, offset int64) *metaPage {
	raw := make([]byte, pageHeaderSize+metaSize)
	if _, err := f.ReadAt(raw, offset); err != nil {
		return nil
	}
	m := raw[pageHeaderSize:]
	sum := fnv.New64a()
	sum.Write(m[:56])
	if native.Uint32(m) != metaMagic || native.Uint32(m[4:]) != metaVersion || native.Uint64(m[56:]) != sum.Sum64() {
		return nil
	}
	size := int(native.Uint32(m[8:]))
	if size < 512 || size > 1<<20 {
		return nil
	}
	return &metaPage{
		offset: offset, raw: raw, pageSize: size,
		root: native.Uint64(m[16:]), end: native.Uint64(m[40:]), txid: native.Uint64(m[48:]),
	}
}

// metaPages returns both meta pages of a file; it is an error when not both are whole.
func metaPages(path string) (older, newer *metaPage, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	metas := readMetas(f)
	if len(metas) != 2 || metas[0].pageSize != metas[1].pageSize {
		return nil, nil, errors.New("there is no commit to go back to")
	}
	if metas[0].txid > metas[1].txid {
		return metas[1], metas[0], nil
	}
	return metas[0], metas[1], nil
}

// overwrite changes a few bytes of a file, durably when disk is given.
func overwrite(disk Disk, path string, offset int64, bytes []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes, offset)
	if err == nil && disk != nil {
		err = disk.Sync(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// page reads a page with its overflow and checks its header.
func (p *pageFile) page(id uint64) ([]byte, error) {
	if id < 2 || id >= p.end {
		return nil, fmt.Errorf("page %d is outside of the file's %d pages", id, p.end)
	}
	head, err := p.read(int64(id)*int64(p.pageSize), p.pageSize)
	if err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(native.Uint32(head[12:]))
	if native.Uint64(head) != id || overflow >= p.end-id {
		return nil, fmt.Errorf("page %d calls itself %d with %d more", id, native.Uint64(head), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if p.see(i) {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
	}
	if overflow == 0 {
		return head, nil
	}
	whole, err := p.read(int64(id)*int64(p.pageSize), (int(overflow)+1)*p.pageSize)
	if err != nil {
		return nil, fmt.Errorf("read page %d and %d more: %w", id, overflow, err)
	}
	return whole, nil
}

// see says that a page was there before, and remembers it.
func (p *pageFile) see(id uint64) (before bool) {
	if n := int(id/64) + 1; n > len(p.seen) {
		p.seen = append(p.seen, make([]uint64, n-len(p.seen))...)
	}
	bit := uint64(1) << (id % 64)
	before = p.seen[id/64]&bit != 0
	p.seen[id/64] |= bit
	return before
}

// checkTree walks a bucket's tree from its root page.
func (p *pageFile) checkTree(root uint64) error {
	w := treeWalk{p: p}
	return w.page(root, 0)
}

// treeWalk is one walk through the tree of one bucket, whose keys must ascend from page to page.
type treeWalk struct {
	p    *pageFile
	prev []byte
	// least is the key under which the page that is being walked is looked for: no key in it is lower.
	least []byte
	// each is given the elements of the leaves, when it is set; buckets among them are then not entered. Key and value hold
	// only during the call.
	each func(flags uint32, key, value []byte) error
}

func (w *treeWalk) page(id uint64, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d lies %d deep", id, depth)
	}
	page, err := w.p.page(id)
	if err != nil {
		return err
	}
	if leadsOn(page) {
		page = bytes.Clone(page) // other pages are read before its end is reached
	}
	if err := w.elements(page, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// leadsOn says that a page refers to others.
func leadsOn(page []byte) bool {
	if native.Uint16(page[8:]) != leafPage {
		return true
	}
	for i := range min(int(native.Uint16(page[10:])), (len(page)-pageHeaderSize)/elementSize) {
		if native.Uint32(page[pageHeaderSize+i*elementSize:])&bucketLeaf != 0 {
			return true
		}
	}
	return false
}

func (w *treeWalk) elements(page []byte, depth int) error {
	flags, count := native.Uint16(page[8:]), int(native.Uint16(page[10:]))
	if pageHeaderSize+count*elementSize > len(page) {
		return fmt.Errorf("%d elements in %d bytes", count, len(page))
	}
	for i := range count {
		at := pageHeaderSize + i*elementSize
		var err error
		switch flags {
		case branchPage:
			err = w.branch(page[at:], depth)
		case leafPage:
			err = w.leaf(page[at:])
		default:
			err = fmt.Errorf("flags %#x", flags)
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	if flags == branchPage && count == 0 {
		return errors.New("branch without children")
	}
	return nil
}

func (w *treeWalk) branch(e []byte, depth int) error {
	key, err := slice(e, native.Uint32(e), native.Uint32(e[4:]))
	if err != nil {
		return err
	}
	if w.each == nil { // else each key is met, wherever it would be looked for
		if bytes.Compare(key, w.least) < 0 || w.prev != nil && bytes.Compare(w.prev, key) >= 0 {
			return fmt.Errorf("page under key %x after %x and %x", key, w.least, w.prev)
		}
		w.least = append(w.least[:0], key...)
	}
	return w.page(native.Uint64(e[8:]), depth+1)
}

func (w *treeWalk) leaf(e []byte) error {
	pos, ksize, vsize := native.Uint32(e[4:]), native.Uint32(e[8:]), native.Uint32(e[12:])
	key, err := slice(e, pos, ksize)
	if err != nil {
		return err
	}
	value, err := slice(e[uint64(pos)+uint64(ksize):], 0, vsize)
	if err != nil {
		return err
	}
	if w.prev != nil && bytes.Compare(w.prev, key) >= 0 {
		return fmt.Errorf("key %x after %x", key, w.prev)
	}
	if bytes.Compare(key, w.least) < 0 {
		return fmt.Errorf("key %x in a page under key %x, where nobody would find it", key, w.least)
	}
	w.prev = append(w.prev[:0], key...)
	if w.each != nil {
		return w.each(native.Uint32(e), key, value)
	}
	if native.Uint32(e)&bucketLeaf != 0 {
		return w.bucket(value)
	}
	return nil
}

// bucket walks a bucket inside a leaf: it has a tree of its own, or one page inline.
func (w *treeWalk) bucket(v []byte) error {
	if len(v) < bucketHeader {
		return fmt.Errorf("bucket of %d bytes", len(v))
	}
	if root := native.Uint64(v); root != 0 {
		return w.p.checkTree(root)
	}
	inner := treeWalk{p: w.p}
	return inner.inline(v[bucketHeader:])
}

func (w *treeWalk) inline(page []byte) error {
	if len(page) < pageHeaderSize || native.Uint16(page[8:]) != leafPage {
		return errors.New("inline bucket is not a leaf")
	}
	return w.elements(page, 0)
}

// eachIn gives fn the keys and values of a bucket, whose value in its parent's leaf is v.
func (p *pageFile) eachIn(v []byte, fn func(key, value []byte) error) error {
	if len(v) < bucketHeader {
		return fmt.Errorf("bucket of %d bytes", len(v))
	}
	w := treeWalk{p: p, each: func(_ uint32, key, value []byte) error { return fn(key, value) }}
	if root := native.Uint64(v); root != 0 {
		return w.page(root, 0)
	}
	return w.inline(v[bucketHeader:])
}

func slice(b []byte, pos, size uint32) ([]byte, error) {
	if uint64(pos)+uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes at %d reach over the page's end", size, pos)
	}
	return b[pos : pos+size], nil
}
