package bufferbench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
)

// BacklogOptions say how much waits while is measured. Zero means the value given on the field.
type BacklogOptions struct {
	Large  int // records of the large backlog; 10,000,000
	Small  int // records of the small one; 100,000
	Memory int // records that wait while the memory is looked at; 1,000,000
	Rounds int // 5
}

func (o BacklogOptions) withDefaults() BacklogOptions {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&o.Large, 10_000_000)
	def(&o.Small, 100_000)
	def(&o.Memory, 1_000_000)
	def(&o.Rounds, 5)
	return o
}

// Rates are records per second of one kind of work, each the median of the rounds.
type Rates struct{ Append, Read, Trim float64 }

// BacklogResult is how the buffer does with records that wait.
type BacklogResult struct {
	Options        BacklogOptions
	Small, Large   Rates
	Ratio          Rates   // medians of the rounds' Large/Small
	Steady, Log    float64 // append, read and trim in one, at the large backlog: of the buffer and of the plain log
	SteadyRatio    float64
	Anon, Resident int64         // bytes of this process with the backlog of Memory records, after some of them were read
	Start          time.Duration // to open the large backlog, the longest of three times
}

const (
	backlogGroup = 1000    // records in a commit, and in a reading
	backlogStep  = 100_000 // records of each work in a round
	backlogLimit = 64 << 30
	readTimes    = 10 // that the oldest records are read in a round: once is over too soon to be measured
)

// Backlog measures with a few, with a million and with ten million records that wait. It needs some 6 GB below dir.
func Backlog(ctx context.Context, dir string, o BacklogOptions) (r BacklogResult, err error) {
	r.Options = o.withDefaults()
	large, err := openQueue(filepath.Join(dir, "large"))
	if err != nil {
		return r, err
	}
	defer func() { _ = large.close() }()
	if err := large.fill(ctx, r.Options.Memory); err != nil {
		return r, err
	}
	if err := large.drain(ctx, r.Options.Memory/10); err != nil {
		return r, err
	}
	debug.FreeOSMemory()
	if r.Anon, r.Resident, err = memory(); err != nil {
		return r, err
	}
	if err := large.fill(ctx, r.Options.Large-r.Options.Memory+r.Options.Memory/10); err != nil {
		return r, err
	}
	if r.Start, err = large.reopen(3); err != nil {
		return r, err
	}
	small, err := openQueue(filepath.Join(dir, "small"))
	if err != nil {
		return r, err
	}
	defer func() { _ = small.close() }()
	if err := small.fill(ctx, r.Options.Small); err != nil {
		return r, err
	}
	if err := r.rates(ctx, small, large); err != nil {
		return r, err
	}
	return r, r.steady(ctx, dir, large)
}

// rates does the same work on both, turn by turn, so that a busy moment hits both.
func (r *BacklogResult) rates(ctx context.Context, small, large *queue) error {
	var s, l, ratio [3][]float64
	for range r.Options.Rounds {
		for i, work := range []func(*queue) error{(*queue).appendStep, (*queue).readStep, (*queue).trimStep} {
			var took [2]time.Duration
			times := 1
			if i == 1 {
				times = readTimes
			}
			for range times {
				for j, q := range []*queue{small, large} {
					if err := ctx.Err(); err != nil {
						return err
					}
					start := time.Now()
					if err := work(q); err != nil {
						return err
					}
					took[j] += time.Since(start)
				}
			}
			n := float64(times * backlogStep)
			s[i] = append(s[i], n/took[0].Seconds())
			l[i] = append(l[i], n/took[1].Seconds())
			ratio[i] = append(ratio[i], took[0].Seconds()/took[1].Seconds())
		}
	}
	r.Small = Rates{median(s[0]), median(s[1]), median(s[2])}
	r.Large = Rates{median(l[0]), median(l[1]), median(l[2])}
	r.Ratio = Rates{median(ratio[0]), median(ratio[1]), median(ratio[2])}
	return nil
}

// steady lets records come and go at the large backlog, in the buffer and in a plain log.
func (r *BacklogResult) steady(ctx context.Context, dir string, large *queue) error {
	log, err := openLogQueue(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.close() }()
	if err := log.fill(r.Options.Large); err != nil {
		return err
	}
	var ours, logs, ratios []float64
	for range r.Options.Rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		var took [2]time.Duration
		for range turns {
			for j, cycle := range []func() error{large.cycle, log.cycle} {
				start := time.Now()
				for range backlogStep / backlogGroup / turns {
					if err := cycle(); err != nil {
						return err
					}
				}
				took[j] += time.Since(start)
			}
		}
		n := float64(backlogStep / backlogGroup / turns * turns * backlogGroup)
		ours, logs = append(ours, n/took[0].Seconds()), append(logs, n/took[1].Seconds())
		ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
	}
	r.Steady, r.Log, r.SteadyRatio = median(ours), median(logs), median(ratios)
	return nil
}

// memory returns what of this process only memory holds, and all that is resident, mapped files included.
func memory() (anon, resident int64, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, nil // not measured on this system
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "RssAnon":
			anon = n << 10
		case "VmRSS":
			resident = n << 10
		}
	}
	return anon, resident, nil
}

// queue is a buffer with the position of its reader.
type queue struct {
	dir     string
	b       *buffer.Buffer
	records [][]byte
	read    uint64 // the last record that was read
	trimmed uint64
}

func openQueue(dir string) (*queue, error) {
	q := &queue{dir: dir, records: make([][]byte, backlogGroup)}
	for i := range q.records {
		q.records[i] = filled(recordSize, byte(i))
	}
	return q, q.open()
}

func (q *queue) open() (err error) {
	q.b, err = buffer.Open(buffer.Config{Dir: q.dir, DiskReserve: -1, Limit: backlogLimit})
	return err
}

func (q *queue) close() error { return q.b.Close() }

// reopen returns the longest time that it takes to open the buffer until it has stored something.
func (q *queue) reopen(times int) (longest time.Duration, err error) {
	for range times {
		if err := q.b.Close(); err != nil {
			return 0, err
		}
		start := time.Now()
		if err := q.open(); err != nil {
			return 0, err
		}
		if err := q.commit(1); err != nil {
			return 0, err
		}
		longest = max(longest, time.Since(start))
	}
	return longest, nil
}

func (q *queue) commit(n int) error {
	return q.b.Commit(context.Background(), func(tx *buffer.Tx) error {
		for _, r := range q.records[:n] {
			tx.Append(r)
		}
		tx.SetState("cursor/mes", q.records[0][:24])
		return nil
	})
}

func (q *queue) fill(ctx context.Context, n int) error {
	for range n / backlogGroup {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := q.commit(backlogGroup); err != nil {
			return err
		}
	}
	return nil
}

func (q *queue) drain(ctx context.Context, n int) error {
	for range n / backlogGroup {
		if err := errors.Join(ctx.Err(), q.readGroup(), q.trimGroup()); err != nil {
			return err
		}
	}
	return nil
}

func (q *queue) steps(work func() error) error {
	for range backlogStep / backlogGroup {
		if err := work(); err != nil {
			return err
		}
	}
	return nil
}

func (q *queue) appendStep() error {
	return q.steps(func() error { return q.commit(backlogGroup) })
}

// readStep reads the oldest records that are there.
func (q *queue) readStep() error {
	q.read = q.trimmed
	return q.steps(q.readGroup)
}

func (q *queue) trimStep() error { return q.steps(q.trimGroup) }

func (q *queue) readGroup() error {
	entries, err := q.b.Read(q.read, backlogGroup, 16<<20)
	if err == nil && len(entries) < backlogGroup {
		err = fmt.Errorf("only %d records were there behind %d", len(entries), q.read)
	}
	if err != nil {
		return err
	}
	q.read = entries[len(entries)-1].Seq
	return nil
}

// trimGroup acknowledges a group, and makes that durable: the next commit would do it in passing.
func (q *queue) trimGroup() error {
	q.trimmed += backlogGroup
	if err := q.b.Ack(q.trimmed); err != nil {
		return err
	}
	return q.b.Update(context.Background(), func(*buffer.Tx) error { return nil })
}

// cycle appends, reads and trims a group; the commit makes the acknowledgement before it durable.
func (q *queue) cycle() error {
	if err := errors.Join(q.commit(backlogGroup), q.readGroup()); err != nil {
		return err
	}
	q.trimmed += backlogGroup
	return q.b.Ack(q.trimmed)
}

// logQueue is the plain log with a reader at its other end, which checks each record's sum, and files that are deleted when
// they were read. Its position goes into the log with each commit.
type logQueue struct {
	*log
	records [][]byte
	r       *bufio.Reader
	in      *os.File
	reading int
}

func openLogQueue(dir string) (*logQueue, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s, err := openLog(dir, false)
	if err != nil {
		return nil, err
	}
	q := &logQueue{log: s.(*log), records: make([][]byte, backlogGroup)}
	for i := range q.records {
		q.records[i] = filled(recordSize, byte(i))
	}
	return q, nil
}

func (q *logQueue) fill(n int) error {
	for range n / backlogGroup {
		if err := q.append(); err != nil {
			return err
		}
	}
	return nil
}

func (q *logQueue) append() error {
	return q.log.commit(q.records, q.records[0][:24], stateKey(0), q.records[0][:24])
}

func (q *logQueue) cycle() error { return errors.Join(q.append(), q.readGroup()) }

// readGroup reads the records of one commit, which its cursor and its state follow.
func (q *logQueue) readGroup() error {
	for range backlogGroup + 2 {
		if err := q.readRecord(); err != nil {
			return err
		}
	}
	return nil
}

func (q *logQueue) readRecord() error {
	var head [8]byte
	for {
		if q.in == nil {
			q.reading++
			in, err := os.Open(q.log.path(q.reading))
			if err != nil {
				return err
			}
			q.in, q.r = in, bufio.NewReaderSize(in, 1<<20)
		}
		_, err := io.ReadFull(q.r, head[:])
		if err == nil {
			break
		}
		if err != io.EOF {
			return err
		}
		_ = q.in.Close()
		q.in = nil
		if err := os.Remove(q.log.path(q.reading)); err != nil {
			return err
		}
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := io.ReadFull(q.r, body); err != nil {
		return err
	}
	return checkSum(body, binary.LittleEndian.Uint32(head[4:]))
}

func (q *logQueue) close() error {
	if q.in != nil {
		_ = q.in.Close()
	}
	return q.log.close()
}

// Goals of the backlog.
const (
	goalBacklog = 0.75
	goalSteady  = 0.5
	goalStart   = 2 * time.Second
	goalAnon    = 40 << 20
	goalRSS     = 150 << 20
)

// Print writes tables for people and the lines "ratio NAME VALUE GOAL".
func (r BacklogResult) Print(w io.Writer) {
	fmt.Fprintf(w, "%-34s %12s %12s %12s\n", "records that wait", "append/s", "read/s", "trim/s")
	fmt.Fprintf(w, "%-34d %12.0f %12.0f %12.0f\n", r.Options.Small, r.Small.Append, r.Small.Read, r.Small.Trim)
	fmt.Fprintf(w, "%-34d %12.0f %12.0f %12.0f\n", r.Options.Large, r.Large.Append, r.Large.Read, r.Large.Trim)
	fmt.Fprintf(w, "%-34s %12.2f %12.2f %12.2f\n\n", "ratio", r.Ratio.Append, r.Ratio.Read, r.Ratio.Trim)
	fmt.Fprintf(w, "steady append, read and trim with %d waiting: %.0f/s, plain log %.0f/s, ratio %.2f\n", r.Options.Large, r.Steady, r.Log, r.SteadyRatio)
	fmt.Fprintf(w, "start with %d waiting: %v until something is stored\n", r.Options.Large, r.Start.Round(time.Millisecond))
	if r.Resident > 0 {
		fmt.Fprintf(w, "memory with %d waiting, a tenth of it just read: %d MiB anonymous, %d MiB resident\n", r.Options.Memory, r.Anon>>20, r.Resident>>20)
	}
	fmt.Fprintf(w, "ratio buffer_backlog_append %.2f %.2f\nratio buffer_backlog_read %.2f %.2f\nratio buffer_backlog_trim %.2f %.2f\n",
		r.Ratio.Append, goalBacklog, r.Ratio.Read, goalBacklog, r.Ratio.Trim, goalBacklog)
	fmt.Fprintf(w, "ratio buffer_backlog_steady %.2f %.2f\n", r.SteadyRatio, goalSteady)
	fmt.Fprintf(w, "ratio buffer_backlog_start %.2f 1.00\n", goalStart.Seconds()/r.Start.Seconds())
	if r.Resident > 0 {
		fmt.Fprintf(w, "ratio buffer_backlog_anonymous %.2f 1.00\nratio buffer_backlog_resident %.2f 1.00\n", goalAnon/float64(r.Anon), goalRSS/float64(r.Resident))
	}
}
