package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Errors that callers may look for.
var (
	// ErrInUse is Open's answer when another process has the folder open.
	ErrInUse = errors.New("buffer is in use by another process")
	// ErrNewerFormat is Open's answer to a folder that a newer program wrote.
	ErrNewerFormat = errors.New("buffer was written by a newer program")
	// ErrFull is Commit's answer when its context ended while the buffer had no room.
	ErrFull = errors.New("buffer is full")
	// ErrClosed is the answer of all methods after Close.
	ErrClosed = errors.New("buffer is closed")
)

// Overflow is what happens when the limit or the disk's reserve is reached.
type Overflow uint8

// The ways to overflow.
const (
	Block      Overflow = iota // Commit waits: nothing is ever dropped
	DropOldest                 // the oldest segment is deleted and its unacknowledged records counted as dropped
)

// Defaults and limits.
const (
	DefaultLimit       = 2 << 30
	DefaultDiskReserve = 1 << 30
	DefaultSegmentSize = 64 << 20
	// MaxRecord is the size of the largest record, in bytes.
	MaxRecord = 16 << 20

	minSegmentSize  = 128 << 10
	maxGroupRecords = 1 << 16
	maxGroupBytes   = 4 << 20
	maxDamage       = 100
	maxDelta        = 1 << 10  // bytes of state in a block
	maxUnflushed    = 64 << 10 // bytes of such state that a start has to put together
	heldPoll        = 500 * time.Millisecond
)

// Config says where a buffer lies and how much it may hold.
type Config struct {
	// Dir is the buffer's own folder; it is made when it is missing.
	Dir string
	// Limit is how many bytes of unacknowledged records may lie there; 0 means DefaultLimit. The files take some more:
	// up to a segment of acknowledged records, the state and the quarantine.
	Limit int64
	// DiskReserve is how many bytes must stay free on the disk; 0 means DefaultDiskReserve, -1 none.
	DiskReserve int64
	// SegmentSize is where a file is closed and the next one begun, in bytes; 0 means DefaultSegmentSize. It is made
	// smaller where the limit is small, at least four segments to the limit.
	SegmentSize int64
	// Overflow is what happens at Limit and DiskReserve.
	Overflow Overflow
	// Salvager is a program and its first arguments that does what SalvageProcess does with the rest: it reads damaged
	// segments in a process of its own. Empty means that this process does it, with the same checks but no limit of memory.
	Salvager []string
	// Disk is asked to sync, to rename and for free space; nil means the real one.
	Disk Disk
	// Now gives the time of records; nil means time.Now.
	Now func() time.Time
	// Logger gets what an operator should know; nil means none.
	Logger *slog.Logger

	salvageStateTime, salvageTime time.Duration // a test's own
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("open buffer: no folder given")
	}
	if c.Limit < 0 || c.DiskReserve < -1 || c.SegmentSize < 0 || c.Overflow > DropOldest {
		return c, fmt.Errorf("open buffer %q: limit %d, disk reserve %d, segment size %d: a size can not be negative",
			c.Dir, c.Limit, c.DiskReserve, c.SegmentSize)
	}
	if c.Limit == 0 {
		c.Limit = DefaultLimit
	}
	if c.DiskReserve == 0 {
		c.DiskReserve = DefaultDiskReserve
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = DefaultSegmentSize
	}
	c.SegmentSize = max(min(c.SegmentSize, c.Limit/4), minSegmentSize)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.salvageTime == 0 {
		c.salvageStateTime, c.salvageTime = salvageStateTime, salvageTime
	}
	if c.Disk == nil {
		c.Disk = systemDisk{}
	}
	return c, nil
}

// Buffer is an open folder. Its methods may be called from any goroutine.
type Buffer struct {
	cfg  Config
	lock *os.File

	// What only the caller that leads touches, see commit.
	active         *segment
	mustRoll       bool
	pack           []byte
	unflushed      map[string]bool // keys whose value lies only in blocks
	unflushedBytes int             // of those blocks' deltas
	lastGroup      int             // how many callers shared the last commit

	// What is found out while the buffer is opened.
	rescuedQuarantine []pair // of a damaged segment
	wentBack          bool   // the state is older than what was committed
	missing           uint64 // number of the newest segment, when its file is gone

	readMu  sync.Mutex // the segments' mappings
	handles []*segment // sealed segments that are mapped, the latest used last
	block   []Entry    // memory for the entries of a block; what they refer to may be gone

	stateMu sync.RWMutex
	state   map[string][]byte // committed; the values are never changed in place

	mu                      sync.Mutex
	segments                []*segment // oldest first; the last one is written
	info                    info
	infoVersion, infoStored uint64 // differ when info has to be written
	acked                   uint64
	ackedDirty              bool
	ackedStored             uint64 // acked as it is on the disk
	queue                   []*request
	held                    string // why callers wait, empty when they do not
	trouble                 string // why the last write failed, empty when it did not
	quarantine              quarantineIndex
	free                    int64 // free bytes on the disk, when last looked at
	freeAt                  time.Time
	freeBytes               int64 // committed since then
	samples                 []sample
	oldest                  oldest
	closed                  bool
	changed                 chan struct{} // closed and replaced when records are committed

	rescuing   bool // segments that were set aside are looked through
	background sync.WaitGroup
	stopped    context.Context // ends with Close
	stop       context.CancelFunc
	opened     time.Time

	leading bool
	idle    *sync.Cond // nobody leads any more
	closer  sync.Once
	result  error // of Close
}

// Open opens the folder for this process alone, or makes it. It returns ErrInUse when another process has it and
// ErrNewerFormat when a newer program wrote it. Damaged segments do not stop it; see Damaged.
func Open(cfg Config) (*Buffer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", cfg.Dir, explain(err))
	}
	lock, err := lockDir(cfg.Dir)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("%w: nothing can be written there: give the folder to the user that this program runs as, and see that its disk is not read-only", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open buffer %q: %w", cfg.Dir, err)
	}
	b := &Buffer{
		cfg: cfg, lock: lock,
		state:     map[string][]byte{},
		unflushed: map[string]bool{},
		changed:   make(chan struct{}),
		opened:    time.Now(),
	}
	b.stopped, b.stop = context.WithCancel(context.Background())
	b.idle = sync.NewCond(&b.mu)
	if err := b.load(); err != nil {
		b.stop()
		b.closeFiles()
		return nil, fmt.Errorf("open buffer %q: %w", cfg.Dir, explain(err))
	}
	return b, nil
}

// Close waits for the commit that is under way, makes the acknowledged position durable and gives the folder free. Commits
// that wait for room get ErrClosed. Closing again returns what the first call returned.
func (b *Buffer) Close() error {
	b.closer.Do(func() {
		b.mu.Lock()
		b.closed = true
		b.stop()
		close(b.changed)
		for b.leading {
			b.idle.Wait()
		}
		for _, r := range b.queue {
			r.answer(ErrClosed)
		}
		b.queue, b.held = nil, ""
		b.mu.Unlock()
		b.background.Wait()
		err := b.flush()
		if closeErr := b.closeFiles(); err == nil {
			err = closeErr
		}
		if err != nil {
			b.result = fmt.Errorf("close buffer %q: %w", b.cfg.Dir, explain(err))
		}
	})
	return b.result
}

// flush writes what only lies in memory: the acknowledged position, damage, counts.
func (b *Buffer) flush() error {
	if !b.dirty() {
		return nil
	}
	return b.write(&group{})
}

func (b *Buffer) dirty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ackedDirty || b.infoVersion != b.infoStored
}

func (b *Buffer) closeFiles() error {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	var errs []error
	for _, s := range b.handles {
		errs = append(errs, s.close())
	}
	b.handles = nil
	if b.active != nil {
		err := b.active.seal()
		if err == nil && !b.active.doubtful {
			err = noteNewest(b.lock, b.active, noteClosed)
		}
		errs = append(errs, err)
	}
	errs = append(errs, b.lock.Close())
	return errors.Join(errs...)
}

// State returns the committed value of a key, nil when there is none. It must not be changed.
func (b *Buffer) State(key string) []byte {
	b.stateMu.RLock()
	defer b.stateMu.RUnlock()
	return b.state[key]
}

// EachState calls fn with each committed key that starts with prefix, in ascending order. The values must not be changed.
func (b *Buffer) EachState(prefix string, fn func(key string, v []byte)) {
	var pairs []pair
	b.stateMu.RLock()
	for key, v := range b.state {
		if strings.HasPrefix(key, prefix) {
			pairs = append(pairs, pair{[]byte(key), v})
		}
	}
	b.stateMu.RUnlock()
	slices.SortFunc(pairs, func(x, y pair) int { return bytes.Compare(x.key, y.key) })
	for _, p := range pairs {
		fn(string(p.key), p.value)
	}
}

// Generation returns the random id of the numbering. It changes when NewGeneration is called, and by itself when the
// newest segment was damaged, because state and sequence then went back in time.
func (b *Buffer) Generation() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.info.Generation
}

// NewGeneration starts a new generation, durably. Pending records keep their sequence numbers.
func (b *Buffer) NewGeneration() error {
	return b.Update(context.Background(), func(tx *Tx) error {
		tx.NewGeneration()
		return nil
	})
}

// pending returns the unacknowledged records and about how many bytes they take. mu is held.
func (b *Buffer) pending() (count uint64, bytes int64) {
	for _, s := range b.segments {
		n, size := s.unacked(b.acked)
		count, bytes = count+n, bytes+size
	}
	return count, bytes
}

// lastReadable returns the highest sequence number that can be read now. mu is held.
func (b *Buffer) lastReadable() (last uint64) {
	for i, s := range b.segments {
		if s.rescue != nil && !s.rescue.done && b.endOf(i) > b.acked+1 {
			return last
		}
		if s.count > 0 {
			last = s.last
		}
	}
	return last
}

// room says why there is none: "limit" or "disk", or nothing. mu is held.
func (b *Buffer) room() string {
	if _, bytes := b.pending(); bytes >= b.cfg.Limit {
		return heldLimit
	}
	if b.cfg.DiskReserve < 0 {
		return ""
	}
	if b.diskIsLow() {
		return heldDisk
	}
	return ""
}

const (
	heldLimit = "limit"
	heldDisk  = "disk"
)

// diskIsLow looks at the disk: always when it was low or is near to it, else once in a second or each MiB. A disk that can
// not be asked counts as having room, its write errors then speak for themselves. mu is held.
func (b *Buffer) diskIsLow() bool {
	now := b.cfg.Now()
	age := now.Sub(b.freeAt)
	if b.free > 2*b.cfg.DiskReserve && b.freeBytes < 1<<20 && age >= 0 && age < time.Second {
		return false
	}
	free, err := b.cfg.Disk.Free(b.cfg.Dir)
	if err != nil {
		return false
	}
	b.free, b.freeAt, b.freeBytes = free, now, 0
	return free < b.cfg.DiskReserve
}

func (b *Buffer) segmentPath(number, first uint64) string {
	return filepath.Join(b.cfg.Dir, segmentName(number, first))
}
