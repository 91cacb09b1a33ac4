package buffer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
)

// What this file does to a damaged segment is done in a process of its own where there is one, see SalvageProcess. The file
// is read piece by piece and never mapped, and no number in it is used before it was checked.

// The two things that a salvage process can be asked for.
const (
	salvageRecords = "records" // where the blocks lie: rows of rowSize bytes, and a last one of all ones
	salvageState   = "state"   // the newest whole state, as JSON
)

const (
	rowSize       = 32
	salvageMemory = 512 << 20 // bytes that a salvage process may take
	scanWindow    = 8 << 20
	maxBlock      = MaxRecord + 1<<20 // no block is larger
)

// SalvageProcess is the whole life of a process that reads one damaged segment for a Buffer whose Config names it as its
// Salvager: args are the arguments behind the Salvager's own. It limits its own memory, writes what it finds to out and
// never writes to a file.
func SalvageProcess(args []string, out io.Writer) error {
	limitSelf(salvageMemory)
	debug.SetMemoryLimit(salvageMemory / 2)
	return runSalvage(args, out)
}

func runSalvage(args []string, out io.Writer) error {
	if len(args) != 4 {
		return errors.New("salvage: this command is for the agent's own use")
	}
	first, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return fmt.Errorf("salvage: first record %q: %w", args[2], err)
	}
	end, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return fmt.Errorf("salvage: end %q: %w", args[3], err)
	}
	f, err := os.Open(args[1])
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	defer func() { _ = f.Close() }()
	found, err := findBlocks(f, first, end)
	if err != nil {
		return fmt.Errorf("salvage %q: %w", args[1], err)
	}
	switch args[0] {
	case salvageRecords:
		return writeRows(out, found)
	case salvageState:
		return json.NewEncoder(out).Encode(findState(f, first, found))
	}
	return fmt.Errorf("salvage: nobody can be asked for %q", args[0])
}

// blockRef is where a block lies in a damaged file.
type blockRef struct {
	first, last uint64
	offset      int64 // of its key, which the block follows
	size        int   // of key and block
}

func writeRows(out io.Writer, found []blockRef) error {
	rows := make([]byte, 0, (len(found)+1)*rowSize)
	for _, r := range found {
		rows = binary.BigEndian.AppendUint64(rows, r.first)
		rows = binary.BigEndian.AppendUint64(rows, r.last)
		rows = binary.BigEndian.AppendUint64(rows, uint64(r.offset))
		rows = binary.BigEndian.AppendUint64(rows, uint64(r.size))
	}
	_, err := out.Write(append(rows, endRow...))
	return err
}

var endRow = bytes.Repeat([]byte{0xff}, rowSize)

// readRows takes up what writeRows wrote; whole says that it came to its end.
func readRows(text []byte) (found []blockRef, whole bool) {
	for ; len(text) >= rowSize; text = text[rowSize:] {
		if bytes.Equal(text[:rowSize], endRow) {
			return found, true
		}
		r := blockRef{
			first: binary.BigEndian.Uint64(text), last: binary.BigEndian.Uint64(text[8:]),
			offset: int64(binary.BigEndian.Uint64(text[16:])), size: int(binary.BigEndian.Uint64(text[24:])),
		}
		if r.last < r.first || r.offset < 0 || r.size < 8+blockHeader || r.size > maxBlock {
			return found, false
		}
		found = append(found, r)
	}
	return found, false
}

// findBlocks looks for whole blocks at every byte of the file, whatever the pages around say: bbolt writes a value right
// behind its key, and key and block carry enough to know one by itself. Old copies of a page hold the same blocks again;
// each record is found once, in order. Only records from first up to before end count; end 0 means that it is not known.
func findBlocks(f *os.File, first, end uint64) ([]blockRef, error) {
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if end == 0 {
		end = first + lostNumbers
	}
	var found []blockRef
	w := window{f: f, size: stat.Size()}
	for at := int64(0); at < w.size; {
		b := w.at(at, 8+blockHeader)
		if len(b) < 8+blockHeader {
			break
		}
		if !plausible(b, first, end) {
			at++
			continue
		}
		r, ok := blockIn(w.at(at, maxBlock))
		if !ok {
			at++
			continue
		}
		r.offset = at
		found = append(found, r)
		at += int64(r.size)
	}
	return inOrder(found), nil
}

// plausible looks at the numbers of a key and a block's head only.
func plausible(b []byte, first, end uint64) bool {
	last := binary.BigEndian.Uint64(b)
	if last < first || last >= end {
		return false
	}
	from, count := binary.BigEndian.Uint64(b[12:]), uint64(binary.BigEndian.Uint32(b[44:]))
	return from >= first && from <= last && last-from+1 == count
}

func blockIn(b []byte) (blockRef, bool) {
	size := blockSize(b[8:])
	if size == 0 {
		return blockRef{}, false
	}
	head, err := decodeBlock(b[:8], b[8:8+size])
	if err != nil {
		return blockRef{}, false
	}
	return blockRef{first: head.first, last: head.last, size: 8 + size}, true
}

// inOrder leaves, in the order of their records, the blocks that bring something which those before them do not have.
func inOrder(found []blockRef) []blockRef {
	slices.SortFunc(found, func(x, y blockRef) int {
		return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(y.last, x.last), cmp.Compare(x.offset, y.offset))
	})
	left, next := found[:0], uint64(0)
	for _, r := range found {
		if r.last >= next {
			left, next = append(left, r), r.last+1
		}
	}
	return left
}

// window reads a file front to back. Where a page can not be read it has zeros.
type window struct {
	f     *os.File
	size  int64
	start int64
	b     []byte
}

// at returns the bytes from an offset on: n of them, or as many as the file has.
func (w *window) at(offset int64, n int) []byte {
	have := w.start + int64(len(w.b))
	want := min(offset+int64(n), w.size)
	if offset < w.start || want > have {
		w.fill(offset, max(int(want-offset), int(min(scanWindow, w.size-offset))))
	}
	b := w.b[offset-w.start:]
	return b[:min(len(b), n)]
}

func (w *window) fill(offset int64, n int) {
	if cap(w.b) < n {
		w.b = make([]byte, n)
	}
	w.start, w.b = offset, w.b[:n]
	if _, err := w.f.ReadAt(w.b, offset); err == nil {
		return
	}
	for at := 0; at < n; at += pageSize {
		page := w.b[at:min(at+pageSize, n)]
		if _, err := w.f.ReadAt(page, offset+int64(at)); err != nil {
			clear(page)
		}
	}
}

// foundState is the newest state that a damaged segment holds as a whole.
type foundState struct {
	// Newer is set when a newer program wrote the segment: what it has to say about that.
	Newer string `json:"newer,omitempty"`
	Found bool   `json:"found"`
	// Newest says that no commit came after it: neither was there one, nor can there have been.
	Newest bool `json:"newest"`
	// EndKnown says that Last is the last record that was ever stored in the segment.
	EndKnown   bool              `json:"end_known"`
	Why        string            `json:"why,omitempty"` // not found, or not the newest
	Info       info              `json:"info"`
	Acked      uint64            `json:"acked"`
	Last       uint64            `json:"last"` // the last record stored by then, one less than the first when none was
	Known      []sealedSegment   `json:"known"`
	State      map[string][]byte `json:"state"`
	Quarantine []foundEntry      `json:"quarantine"`
	Sequence   uint64            `json:"sequence"`

	upTo uint64 // record with which the state came
}

type foundEntry struct {
	ID    uint64 `json:"id"`
	Value []byte `json:"value"` // with its checksum
}

// read reads the block and checks it.
func (r blockRef) read(f *os.File) (block, error) {
	b := make([]byte, r.size)
	if _, err := f.ReadAt(b, r.offset); err != nil {
		return block{}, err
	}
	head, err := decodeBlock(b[:8], b[8:])
	if err == nil && (head.first != r.first || head.last != r.last) {
		err = fmt.Errorf("records %d to %d where %d to %d should be", head.first, head.last, r.first, r.last)
	}
	return head, err
}

// commitRoot is the page from which one commit's tree hangs.
type commitRoot struct {
	page, txid uint64
}

// findState looks for the newest commit whose state is whole, records apart. With both meta pages whole only the commits
// that they name count: a later one was never finished. Where one is gone, the commit after the other one may count, too.
func findState(f *os.File, first uint64, blocks []blockRef) foundState {
	roots, metas := findRoots(f)
	none := foundState{Why: "no page is left that a state could hang from"}
	for i, root := range roots {
		s, err := readState(f, root.page, first, blocks)
		if err != nil {
			if errors.Is(err, ErrNewerFormat) {
				return foundState{Newer: err.Error()}
			}
			if i == 0 {
				none.Why = err.Error()
			}
			continue
		}
		s.Found = true
		switch last := len(blocks) - 1; {
		case i > 0:
			s.Why = fmt.Sprintf("of the commits in the file, the last %d are not whole", i)
		case metas == 0 || metas == 1 && !followsMeta(f, root):
			s.Why = "the page that names the last commit is gone"
		case metas < 2 && last >= 0 && blocks[last].last > s.Last:
			s.Why = fmt.Sprintf("there are records up to %d, the state ends at %d", blocks[last].last, s.Last)
		default:
			s.EndKnown = true
			s.Newest = s.upTo == s.Last
			if !s.Newest {
				s.Why = fmt.Sprintf("records %d and on, which state came with, are missing", s.upTo+1)
			}
		}
		return s
	}
	return none
}

// findRoots returns the roots of commits, the newest first, and how many meta pages are whole.
func findRoots(f *os.File) (roots []commitRoot, whole int) {
	metas := readMetas(f)
	for _, m := range metas {
		if m.pageSize == pageSize {
			roots, whole = append(roots, commitRoot{m.root, m.txid}), whole+1
		}
	}
	if whole < 2 {
		known := uint64(0)
		if whole == 1 {
			known = roots[0].txid
		}
		for _, r := range scanRoots(f) {
			if whole == 0 || r.txid == known+1 {
				roots = append(roots, r)
			}
		}
	}
	slices.SortFunc(roots, func(x, y commitRoot) int { return cmp.Compare(y.txid, x.txid) })
	return roots, whole
}

// followsMeta says that the commit is the one after that of the only whole meta page: nothing newer can have been finished,
// because its meta page would lie where the whole one lies.
func followsMeta(f *os.File, root commitRoot) bool {
	metas := readMetas(f)
	return len(metas) == 1 && root.txid == metas[0].txid+1
}

// scanRoots looks for pages that are the root of a commit by what is in them.
func scanRoots(f *os.File) (roots []commitRoot) {
	stat, err := f.Stat()
	if err != nil {
		return nil
	}
	pages := uint64(stat.Size()) / pageSize
	for id := uint64(2); id < pages; id++ {
		head := make([]byte, pageHeaderSize)
		if _, err := f.ReadAt(head, int64(id)*pageSize); err != nil {
			continue
		}
		if native.Uint64(head) != id || native.Uint16(head[8:]) != leafPage || int(native.Uint16(head[10:])) != len(summed)+1 {
			continue
		}
		buckets, err := newPageFile(f).buckets(id)
		if err != nil {
			continue
		}
		proof, err := readSmall(f, buckets[string(bucketMeta)], keyProof, 16)
		if err == nil {
			roots = append(roots, commitRoot{id, binary.BigEndian.Uint64(proof)})
		}
	}
	return roots
}

func newPageFile(f *os.File) *pageFile {
	p := &pageFile{f: f, pageSize: pageSize}
	if stat, err := f.Stat(); err == nil {
		p.end = uint64(stat.Size()) / pageSize
	}
	return p
}

// buckets returns the buckets in the tree of a root page by name.
func (p *pageFile) buckets(root uint64) (map[string][]byte, error) {
	found := map[string][]byte{}
	w := treeWalk{p: p, each: func(flags uint32, key, value []byte) error {
		if flags&bucketLeaf != 0 {
			found[string(key)] = bytes.Clone(value)
		}
		return nil
	}}
	if err := w.page(root, 0); err != nil {
		return nil, err
	}
	return found, nil
}

// readSmall reads a sealed value of a known size from a bucket.
func readSmall(f *os.File, bucket, key []byte, size int) ([]byte, error) {
	var raw []byte
	err := newPageFile(f).eachIn(bucket, func(k, v []byte) error {
		if bytes.Equal(k, key) {
			raw = bytes.Clone(v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v, err := unsealed(key, raw)
	if err == nil && len(v) != size {
		err = fmt.Errorf("value of %d bytes", len(v))
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	return v, nil
}

// readState reads all but the records of one commit, and proves that nothing of it is missing.
func readState(f *os.File, root, first uint64, blocks []blockRef) (s foundState, err error) {
	buckets, err := newPageFile(f).buckets(root)
	if err != nil {
		return s, err
	}
	if err := checkFormatIn(f, buckets[string(bucketMeta)]); err != nil {
		return s, err
	}
	kept, err := readSmall(f, buckets[string(bucketMeta)], keyKept, 16)
	if err != nil {
		return s, err
	}
	s.Last = binary.BigEndian.Uint64(kept[8:])
	var seqs [3]uint64
	for i, key := range [][]byte{keyAcked, keyFlushed, keyFirst} {
		v, err := readSmall(f, buckets[string(bucketMeta)], key, 8)
		if err != nil {
			return s, err
		}
		seqs[i] = seqOf(v)
	}
	if seqs[2] != first {
		return s, fmt.Errorf("it is the file of records from %d on", seqs[2])
	}
	s.Acked = seqs[0]
	sum, err := s.readBuckets(f, buckets)
	if err != nil {
		return s, err
	}
	if want := binary.BigEndian.Uint64(kept); sum != want {
		return s, fmt.Errorf("%w: sum %x instead of %x", errUnproved, sum, want)
	}
	return s, s.applyDeltas(f, blocks, seqs[1])
}

func checkFormatIn(f *os.File, meta []byte) error {
	return newPageFile(f).eachIn(meta, func(k, v []byte) error {
		if bytes.Equal(k, keyFormat) {
			return checkVersion(v)
		}
		return nil
	})
}

func (s *foundState) readBuckets(f *os.File, buckets map[string][]byte) (sum uint64, err error) {
	s.State = map[string][]byte{}
	read := func(bucket int, use func(key, v []byte) error) {
		if err != nil {
			return
		}
		name := summed[bucket].name
		err = newPageFile(f).eachIn(buckets[string(name)], func(key, v []byte) error {
			sum += item(bucket, v)
			return use(key, v)
		})
		if err != nil {
			err = fmt.Errorf("bucket %q: %w", name, err)
		}
	}
	read(inInfo, func(key, v []byte) error {
		text, err := unsealed(key, v)
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		if bytes.Equal(key, keyInfo) {
			return json.Unmarshal(text, &s.Info)
		}
		if bytes.Equal(key, keySegments) {
			return json.Unmarshal(text, &s.Known)
		}
		return nil
	})
	read(inState, func(key, v []byte) error {
		value, err := unsealed(key, v)
		s.State[string(key)] = value
		return err
	})
	read(inQuarantine, func(key, v []byte) error {
		if _, err := unsealed(key, v); err == nil && len(key) == 8 {
			s.Quarantine = append(s.Quarantine, foundEntry{seqOf(key), bytes.Clone(v)})
		}
		return nil // a bad entry is left behind: it is not worth a state
	})
	if err == nil {
		s.Sequence = native.Uint64(buckets[string(bucketQuarantine)][8:])
	}
	return sum, err
}

// applyDeltas adds what the blocks behind flushed changed, up to the first one that is missing: the state is then that of the
// commit before.
func (s *foundState) applyDeltas(f *os.File, blocks []blockRef, flushed uint64) error {
	next := flushed + 1
	for _, r := range blocks {
		if r.last < next || r.first > s.Last {
			continue
		}
		if r.first > next {
			break
		}
		head, err := r.read(f)
		if err == nil {
			err = applyDelta(s.State, head.delta)
		}
		if err != nil {
			return err
		}
		next = r.last + 1
	}
	s.upTo = s.Last
	if next <= s.Last {
		s.upTo = next - 1
	}
	return nil
}
