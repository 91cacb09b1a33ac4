// Package faultvfs is a disk for tests of SQLite databases: it forgets what was not synced, fails on demand and runs full.
//
// An FS is registered as a SQLite VFS, under a name of its own, and stands before the system's. It owns the knowledge of
// what of each database file would still be there after a power cut: content counts as stable only once its file was synced,
// a name only once its folder was. Crash writes what a power cut could leave behind into another folder. It promises that
// everything synced is in that image, and that anything else may be there, be missing, or be there in part. It never changes
// what SQLite reads, but for a sync that fails, after which part of what was written is gone, as on Linux.
//
// Locks and the shared memory of the write-ahead log are the system's own. Real syncs are made only when asked for (Real).
package faultvfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	sqlite3 "modernc.org/sqlite/lib"
)

const (
	sectorSize = 512  // what a disk writes as a whole
	pageSize   = 4096 // what the operating system writes at a time
)

// Op is something that SQLite asks of the disk.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Sync
	Truncate
	Delete
)

func (op Op) String() string { return [...]string{"read", "write", "sync", "truncate", "delete"}[op] }

// Code is a result code of SQLite.
type Code int32

// Results that disks give.
const (
	OK        Code = sqlite3.SQLITE_OK
	FullDisk  Code = sqlite3.SQLITE_FULL
	ReadFault Code = sqlite3.SQLITE_IOERR_READ
	WriteFail Code = sqlite3.SQLITE_IOERR_WRITE
	SyncFail  Code = sqlite3.SQLITE_IOERR_FSYNC
	CutFail   Code = sqlite3.SQLITE_IOERR_TRUNCATE
	DelFail   Code = sqlite3.SQLITE_IOERR_DELETE
)

// FS is a file system that can fail. Its methods may be called from any goroutine. Make one with New.
type FS struct {
	vfs registration

	mu     sync.Mutex
	rng    *rand.Rand
	real   bool
	lies   bool
	full   bool
	before func(op Op, path string) Code
	files  map[string]*file // by path
	names  []name           // not yet synced, in their order
	counts map[Op]int
}

// file is what is known of a database file, a journal or a log.
type file struct {
	path string
	disk *os.File // never closed while SQLite has it open: that would give its locks up
	size int64    // on stable storage
	// old is what pages hold on stable storage that were written to since the last sync.
	old map[int64][]byte
	// lost is the same of pages that a failed sync gave up: readers see something else, and no sync brings it.
	lost map[int64][]byte
	log  []change // since the last sync
}

// change is a write, or a truncation when data is nil.
type change struct {
	at   int64 // where data was written, or the size
	data []byte
}

// name is a change of names: a file was made, or removed.
type name struct {
	path string
	made bool
	was  []byte // content on stable storage of a file that was removed
}

// New registers a file system. rng decides what a failed sync loses.
func New(rng *rand.Rand) (*FS, error) {
	f := &FS{rng: rng, files: map[string]*file{}, counts: map[Op]int{}}
	if err := f.register(); err != nil {
		return nil, fmt.Errorf("register a SQLite VFS: %w", err)
	}
	return f, nil
}

// Name is what the parameter "vfs" of a database's address must be.
func (f *FS) Name() string { return f.vfs.name }

// Close takes the file system back. All databases on it must be closed before.
func (f *FS) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range f.files {
		_ = file.disk.Close()
	}
	f.files = map[string]*file{}
	return f.unregister()
}

// Real says whether syncs reach the real disk.
func (f *FS) Real(real bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.real = real
}

// Lie lets syncs say that all is well and make nothing stable: a test that does not notice that tests nothing.
func (f *FS) Lie(lies bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lies = lies
}

func (f *FS) isReal() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.real
}

// Before sets a function that is called before each operation on a database, its journal or its log; anything but OK is what
// the operation returns. nil ends it. It may call Crash, and must not use the database.
func (f *FS) Before(fn func(op Op, path string) Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

// Fail lets every operation of these kinds fail with the code, on files whose name ends in suffix.
func (f *FS) Fail(code Code, suffix string, ops ...Op) {
	f.Before(func(op Op, path string) Code {
		if slices.Contains(ops, op) && strings.HasSuffix(path, suffix) {
			return code
		}
		return OK
	})
}

// Full lets every write fail that would make a file longer, or ends that.
func (f *FS) Full(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

// Count returns how often an operation was asked for.
func (f *FS) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// ask counts an operation and calls the function that may refuse it, without holding mu.
func (f *FS) ask(op Op, path string) Code {
	f.mu.Lock()
	f.counts[op]++
	before := f.before
	f.mu.Unlock()
	if before == nil {
		return OK
	}
	return before(op, path)
}

// opened notes a file that SQLite has opened. made says that it was not there before.
func (f *FS) opened(path string, made bool) (*file, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.files[path]; known != nil {
		return known, nil
	}
	disk, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	stat, err := disk.Stat()
	if err != nil {
		return nil, err
	}
	file := &file{path: path, disk: disk, size: stat.Size(), old: map[int64][]byte{}, lost: map[int64][]byte{}}
	f.files[path] = file
	if made {
		f.names = append(f.names, name{path: path, made: true})
	}
	return file, nil
}

// mayWrite says whether a write fits on the disk.
func (f *FS) mayWrite(file *file, end int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.full || end <= file.length()
}

// write does a write with the function that makes it, and notes it.
func (f *FS) write(file *file, data []byte, at int64, do func() Code) Code {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := file.remember(at, at+int64(len(data)))
	code := do()
	if code != OK {
		return code
	}
	file.log = append(file.log, change{at, slices.Clone(data)})
	for _, page := range whole {
		file.log = append(file.log, change{page * pageSize, file.page(page)})
	}
	return OK
}

func (f *FS) truncate(file *file, size int64, do func() Code) Code {
	f.mu.Lock()
	defer f.mu.Unlock()
	file.remember(size, file.length())
	code := do()
	if code == OK {
		file.log = append(file.log, change{at: size})
	}
	return code
}

// remember keeps the pages of a range as they are on stable storage. Those that a failed sync gave up are dirty again, as a
// whole: they are returned.
func (file *file) remember(from, to int64) (whole []int64) {
	for page := from / pageSize; page*pageSize < to; page++ {
		if _, ok := file.old[page]; ok {
			continue
		}
		if was, ok := file.lost[page]; ok {
			file.old[page] = was
			delete(file.lost, page)
			whole = append(whole, page)
			continue
		}
		file.old[page] = file.page(page)
	}
	return whole
}

func (file *file) length() int64 {
	stat, err := file.disk.Stat()
	if err != nil {
		return 0
	}
	return stat.Size()
}

// page reads a page as SQLite sees it; what lies behind the end is missing.
func (file *file) page(page int64) []byte {
	p := make([]byte, pageSize)
	n, _ := file.disk.ReadAt(p, page*pageSize)
	return p[:n]
}

// synced makes what was written stable.
func (f *FS) synced(file *file, names bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lies {
		return
	}
	file.settle()
	if names {
		f.syncNames(filepath.Dir(file.path))
	}
}

func (file *file) settle() {
	clear(file.old)
	file.log, file.size = nil, file.length()
}

// drop is what a failed sync does: each page that was to be written is on the disk, or is not; and what is not may be seen
// by readers until the operating system needs the memory, or be gone at once. None of them is written by the next sync.
func (f *FS) drop(file *file) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := file.length()
	for _, page := range slices.Sorted(maps.Keys(file.old)) {
		was := make([]byte, min(pageSize, max(end-page*pageSize, 0)))
		copy(was, file.old[page])
		switch f.rng.IntN(3) {
		case 1:
			file.lost[page] = was
		case 2:
			_, _ = file.disk.WriteAt(was, page*pageSize)
		}
	}
	file.settle()
}

// syncNames makes the names in a folder stable. mu is held.
func (f *FS) syncNames(dir string) {
	f.names = slices.DeleteFunc(f.names, func(n name) bool { return filepath.Dir(n.path) == dir })
}

// deleted notes a file that SQLite has removed.
func (f *FS) deleted(path string, sync bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := name{path: path}
	if file := f.files[path]; file != nil {
		gone.was = file.stable()
		_ = file.disk.Close()
		delete(f.files, path)
	}
	f.names = append(f.names, gone)
	if sync {
		f.syncNames(filepath.Dir(path))
	}
}

// content is the file as SQLite sees it.
func (file *file) content() []byte {
	all, err := io.ReadAll(io.NewSectionReader(file.disk, 0, 1<<62))
	if err != nil {
		return nil
	}
	return all
}

// stable is the file as it is on stable storage.
func (file *file) stable() []byte {
	image := sized(file.content(), file.size)
	for _, pages := range []map[int64][]byte{file.lost, file.old} {
		for page, was := range pages {
			if page*pageSize < file.size {
				clear(image[page*pageSize : min((page+1)*pageSize, file.size)])
				copy(image[page*pageSize:], was)
			}
		}
	}
	return image
}

// Crash writes into the folder dst what a power cut at this moment could leave of the database at path, of its journal and
// of its log. Other files beside it whose names begin with the database's are copied as they are, but for the shared
// memory, which no power cut leaves.
func (f *FS) Crash(rng *rand.Rand, path, dst string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	beside, err := filepath.Glob(path + "*")
	if err != nil {
		return err
	}
	images := map[string][]byte{}
	for _, p := range beside {
		if file := f.files[p]; file != nil {
			images[p] = file.cut(rng)
			continue
		}
		if strings.HasSuffix(p, "-shm") {
			continue
		}
		content, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		images[p] = content
	}
	f.cutNames(rng, path, images)
	if err := os.MkdirAll(dst, 0o750); err != nil {
		return err
	}
	for p, image := range images {
		if err := os.WriteFile(filepath.Join(dst, filepath.Base(p)), image, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// cutNames takes back the last few changes of names.
func (f *FS) cutNames(rng *rand.Rand, path string, images map[string][]byte) {
	kept := rng.IntN(len(f.names) + 1)
	for _, n := range slices.Backward(f.names[kept:]) {
		switch {
		case !strings.HasPrefix(n.path, path):
		case n.made:
			delete(images, n.path)
		default:
			images[n.path] = n.was
		}
	}
}

// cut returns what is left of a file: all that was synced, and of the rest nothing, all, the first changes, or some; the
// last one that is there may be torn.
func (file *file) cut(rng *rand.Rand) []byte {
	image := file.stable()
	mode, chance := rng.IntN(4), 1+rng.IntN(9)
	first := rng.IntN(len(file.log) + 1)
	for i, c := range file.log {
		switch {
		case mode == 0, mode == 2 && i > first, mode == 3 && rng.IntN(10) >= chance:
			continue
		case c.data == nil:
			image = sized(image, c.at)
			continue
		}
		image = sized(image, max(int64(len(image)), c.at+int64(len(c.data))))
		if mode == 1 || mode == 2 && i < first {
			copy(image[c.at:], c.data)
			continue
		}
		for at := int64(0); at < int64(len(c.data)); {
			end := min((c.at+at)/sectorSize*sectorSize+sectorSize-c.at, int64(len(c.data)))
			if rng.IntN(10) < chance {
				copy(image[c.at+at:], c.data[at:end])
			}
			at = end
		}
	}
	return image
}

func sized(content []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, content)
	return out
}
