// Package faultdisk is a disk for tests: it forgets what was not synced, fails on demand and runs full.
//
// A Disk stands under a buffer (buffer.Config.Disk) whose files lie in a real folder. It owns the knowledge of what of that
// folder would still be there after a power cut: content counts as stable only once its file was synced, a name only once
// its folder was. Crash writes what a power cut could leave behind into another folder. It promises that everything synced
// is in that image, and that anything else may be there, be missing, or be there in part. It never changes what the buffer
// reads, but for a sync that fails, after which part of what was written is gone, as on Linux.
//
// A sync costs nothing: no real one is made. Files are read whole at each sync, so segments should be small.
package faultdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

const (
	sectorSize = 512  // what a disk writes as a whole
	pageSize   = 4096 // what the operating system writes at a time
)

// Op is something that the buffer asks of its disk.
type Op uint8

// The operations, in the order of buffer.Disk's methods.
const (
	Write Op = iota
	Sync
	SyncDir
	Rename
	Remove
	Truncate
)

func (op Op) String() string {
	return [...]string{"write", "sync", "sync folder", "rename", "remove", "truncate"}[op]
}

// Disk is a buffer.Disk. Its methods may be called from any goroutine. Make one with New.
type Disk struct {
	root string

	mu      sync.Mutex
	rng     *rand.Rand
	free    int64
	before  func(op Op, path string) error
	folders map[string]bool   // that the buffer has spoken of
	live    map[string]*inode // by path, as the buffer sees it
	stable  map[string]*inode // by path, as a power cut leaves it
	pending []change          // of names, not yet synced, in their order
	counts  map[Op]int
}

// inode is the content of a file, whatever its name.
type inode struct {
	content []byte           // on stable storage
	clean   map[int64][]byte // pages that a failed sync gave up: as seen by readers, and not on stable storage
}

// change is one of names: a file comes to be at a path, or is no longer there.
type change struct {
	from, to string // from is empty for a new file, to for a removed one
	node     *inode
}

// New returns a disk over everything below the folder root, all of which counts as stable. rng decides what a failed sync
// loses.
func New(root string, rng *rand.Rand) (*Disk, error) {
	d := &Disk{
		root: root, rng: rng, free: 1 << 50, folders: map[string]bool{}, live: map[string]*inode{}, stable: map[string]*inode{}, counts: map[Op]int{},
	}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		node := &inode{content: content}
		d.live[path], d.stable[path] = node, node
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at disk %q: %w", root, err)
	}
	return d, nil
}

// Before sets a function that is called before each operation with its file or folder, and whose error is what the operation returns; nil ends it. It
// may call Crash, and must not call the buffer.
func (d *Disk) Before(fn func(op Op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = fn
}

// Fail lets every operation of these kinds fail with err, and nothing when err is nil. EIO, ENOSPC and EROFS are what disks
// give. A sync that fails loses part of what was written since the last one.
func (d *Disk) Fail(err error, ops ...Op) {
	if err == nil {
		d.Before(nil)
		return
	}
	d.Before(func(op Op, path string) error {
		if slices.Contains(ops, op) {
			return &fs.PathError{Op: op.String(), Path: path, Err: err}
		}
		return nil
	})
}

// FailSync lets the next n syncs of files fail with EIO.
func (d *Disk) FailSync(n int) {
	d.Before(func(op Op, path string) error {
		if op != Sync || n == 0 {
			return nil
		}
		n--
		return &fs.PathError{Op: op.String(), Path: path, Err: syscall.EIO}
	})
}

// Full lets every write fail with ENOSPC and nothing be free, or ends that.
func (d *Disk) Full(full bool) {
	if !full {
		d.SetFree(1 << 50)
		d.Fail(nil)
		return
	}
	d.SetFree(0)
	d.Fail(syscall.ENOSPC, Write)
}

// SetFree sets how many bytes are free.
func (d *Disk) SetFree(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = n
}

// Count returns how often an operation was asked for.
func (d *Disk) Count(op Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// ask counts an operation and calls the function that may refuse it, without holding mu.
func (d *Disk) ask(op Op, path string) error {
	d.mu.Lock()
	d.counts[op]++
	before := d.before
	if op == SyncDir {
		d.folders[filepath.Clean(path)] = true
	} else {
		d.folders[filepath.Dir(path)] = true
	}
	d.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(op, path)
}

// BeforeWrite implements buffer.Disk.
func (d *Disk) BeforeWrite(path string, _ int64) error { return d.ask(Write, path) }

// Free implements buffer.Disk.
func (d *Disk) Free(dir string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.folders[filepath.Clean(dir)] = true
	return d.free, nil
}

// Sync implements buffer.Disk.
func (d *Disk) Sync(f *os.File) error {
	err := d.ask(Sync, f.Name())
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.node(f.Name())
	if err != nil {
		return errors.Join(err, d.drop(f, node))
	}
	now, err := os.ReadFile(f.Name()) // f may be open for writing alone
	if err != nil {
		return err
	}
	for page, seen := range node.clean {
		if !bytes.Equal(pageOf(now, page), seen) {
			delete(node.clean, page) // written again, so it is dirty again
			continue
		}
		copy(pageOf(now, page), pageOf(grown(node.content, int64(len(now))), page))
	}
	node.content = now
	return nil
}

// drop is what a failed sync does: each page that was to be written is on the disk, or is not; and what is not may be seen
// by readers until the operating system needs the memory, or be gone at once. None of them is written by the next sync.
func (d *Disk) drop(f *os.File, node *inode) error {
	now, err := os.ReadFile(f.Name()) // f may be open for writing alone
	if err != nil {
		return err
	}
	if node.clean == nil {
		node.clean = map[int64][]byte{}
	}
	was := grown(node.content, int64(len(now)))
	for page := range (int64(len(now)) + pageSize - 1) / pageSize {
		old, seen := pageOf(was, page), pageOf(now, page)
		if bytes.Equal(old, seen) {
			continue
		}
		switch d.rng.IntN(3) {
		case 0:
			copy(old, seen)
		case 1:
			node.clean[page] = bytes.Clone(seen)
		case 2:
			if _, err := f.WriteAt(old, page*pageSize); err != nil {
				return err
			}
		}
	}
	node.content = was
	return nil
}

// SyncDir implements buffer.Disk.
func (d *Disk) SyncDir(dir string) error {
	if err := d.ask(SyncDir, dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.discover(); err != nil {
		return err
	}
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		synced := c.dir() == filepath.Clean(dir)
		if synced {
			c.apply(d.stable)
		}
		return synced
	})
	return nil
}

// Rename implements buffer.Disk.
func (d *Disk) Rename(from, to string) error {
	if err := d.ask(Rename, from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.node(from)
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d.change(change{from: from, to: to, node: node})
	return nil
}

// Remove implements buffer.Disk.
func (d *Disk) Remove(path string) error {
	if err := d.ask(Remove, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	node := d.live[path]
	if err := os.Remove(path); err != nil {
		return err
	}
	if node != nil {
		d.change(change{from: path, node: node})
	}
	return nil
}

// Truncate implements buffer.Disk.
func (d *Disk) Truncate(path string, size int64) error {
	if err := d.ask(Truncate, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node(path)
	return os.Truncate(path, size)
}

// node returns the file that lies at a path now. One that was not known was made since the last look. mu is held.
func (d *Disk) node(path string) *inode {
	node := d.live[path]
	if node == nil {
		node = &inode{}
		d.change(change{to: path, node: node})
	}
	return node
}

// change notes a change of names. mu is held.
func (d *Disk) change(c change) {
	c.apply(d.live)
	d.pending = append(d.pending, c)
}

// dir is the folder whose sync makes the change stable.
func (c change) dir() string {
	if c.from != "" {
		return filepath.Dir(c.from)
	}
	return filepath.Dir(c.to)
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" && names[c.from] == c.node {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

// discover looks for files that were made, or removed by others, since the last look. mu is held.
func (d *Disk) discover() error {
	for dir := range d.folders {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		there := map[string]bool{}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); e.Type().IsRegular() {
				there[path] = true
				d.node(path)
			}
		}
		for path, node := range d.live {
			if filepath.Dir(path) == dir && !there[path] {
				d.change(change{from: path, node: node})
			}
		}
	}
	return nil
}

// Crash writes into the folder dst, which must not exist or be empty, what a power cut at this moment could leave of root.
// Files in folders that no buffer has spoken of are copied as they are.
func (d *Disk) Crash(rng *rand.Rand, dst string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.discover(); err != nil {
		return err
	}
	names := d.cutNames(rng)
	err := filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(d.target(dst, path), 0o750)
		case d.folders[filepath.Dir(path)] || !entry.Type().IsRegular():
			return nil
		}
		return copyFile(path, d.target(dst, path))
	})
	if err != nil {
		return err
	}
	for _, path := range sorted(names) {
		if !d.folders[filepath.Dir(path)] {
			continue
		}
		if err := os.WriteFile(d.target(dst, path), d.cutContent(rng, names[path]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) target(dst, path string) string {
	return filepath.Join(dst, strings.TrimPrefix(path, d.root))
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// cutNames returns which file lies where after the cut. Most file systems keep the order of such changes, so usually the
// first few of them are there; POSIX promises no order, so now and then any are.
func (d *Disk) cutNames(rng *rand.Rand) map[string]*inode {
	names := map[string]*inode{}
	for path, node := range d.stable {
		names[path] = node
	}
	any, first := rng.IntN(4) == 0, rng.IntN(len(d.pending)+1)
	for i, c := range d.pending {
		if any && rng.IntN(2) == 0 || !any && i < first {
			c.apply(names)
		}
	}
	return names
}

// cutContent returns what is left of a file: all that was synced, and of the rest nothing, all, some pages, or some sectors.
func (d *Disk) cutContent(rng *rand.Rand, node *inode) []byte {
	now := node.content
	for path, other := range d.live {
		if other == node {
			if content, err := os.ReadFile(path); err == nil {
				now = content
			}
		}
	}
	mode, unit := rng.IntN(4), int64(pageSize)
	if mode == 0 || bytes.Equal(now, node.content) {
		return node.content
	}
	if mode == 3 {
		unit = sectorSize
	}
	image := grown(node.content, int64(max(len(now), len(node.content))))
	chance := 1 + rng.IntN(9) // of ten, that a unit is there
	var written []int64
	for at := int64(0); at < int64(len(now)); at += unit {
		part := now[at:min(at+unit, int64(len(now)))]
		if bytes.Equal(image[at:at+int64(len(part))], part) || d.given(node, at, part) {
			continue
		}
		if mode == 1 || rng.IntN(10) < chance {
			copy(image[at:], part)
			written = append(written, at)
		}
	}
	if mode == 2 && len(written) > 0 { // the one that was being written is torn
		at := written[rng.IntN(len(written))]
		keep := at + sectorSize*int64(1+rng.IntN(pageSize/sectorSize-1))
		end := min(at+pageSize, int64(len(image)))
		if keep < end {
			copy(image[keep:end], grown(node.content, int64(len(image)))[keep:end])
		}
	}
	if mode == 1 || rng.IntN(2) == 0 {
		return image[:len(now)]
	}
	return image[:len(node.content)]
}

// given says that a failed sync gave up the page at an offset: it is never written unless it changes.
func (d *Disk) given(node *inode, at int64, part []byte) bool {
	seen, ok := node.clean[at/pageSize]
	if !ok {
		return false
	}
	in := at % pageSize
	return in+int64(len(part)) <= int64(len(seen)) && bytes.Equal(seen[in:in+int64(len(part))], part)
}

// pageOf returns a page of a content, shorter at its end.
func pageOf(content []byte, page int64) []byte {
	from := min(page*pageSize, int64(len(content)))
	return content[from:min(from+pageSize, int64(len(content)))]
}

// grown returns a copy of a content with at least size bytes.
func grown(content []byte, size int64) []byte {
	out := make([]byte, max(int64(len(content)), size))
	copy(out, content)
	return out
}

func sorted(names map[string]*inode) []string {
	paths := make([]string, 0, len(names))
	for path := range names {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}
