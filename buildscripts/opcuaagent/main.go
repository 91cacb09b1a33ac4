// Command opcuaagent is the agent's way from an OPC UA server to the disk, and nothing else: the driver, and the buffer that makes each
// batch durable together with its cursor. It is measured, and it proves what it got: each tag must count v, v+1, v+2.
//
// It owns that proof. It promises that what GET /stats tells is durable. It never judges a gap: whoever started it knows what was
// done to the server.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	linekeeper "github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/drivers/opcua"
)

// Stats is what GET /stats answers.
type Stats struct {
	// Values are durable. Missing were stepped over between two of one tag, Doubled came again, Jumps counts the places where
	// values are missing.
	Values, Missing, Doubled, Jumps int64
	// Tags have had a value; Least and Most are the smallest and largest last value of a tag.
	Tags        int
	Least, Most int64
	// Batches are the transactions, CursorBytes the size of the last cursor.
	Batches     int64
	CursorBytes int
	// Bad values are of another quality than good; Marked carry the server's word that its queue lost others.
	Bad, Marked int64
	State       string
	Gaps        []string
	Problems    map[string]string
}

// sink makes batches durable and checks what is in them. It is the driver's reporter, too.
type sink struct {
	buffer *buffer.Buffer
	mu     sync.Mutex
	stats  Stats
	last   map[string]int64
	record []byte
}

func main() {
	dir := flag.String("dir", "", "folder of the source and of the buffer")
	section := flag.String("config", "", "file with the source's section")
	status := flag.Int("status", 0, "HTTP port of GET /stats")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *section, *status); err != nil {
		fmt.Fprintln(os.Stderr, "opcuaagent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, section string, status int) error {
	raw, err := os.ReadFile(section)
	if err != nil {
		return err
	}
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "buffer"), Limit: 1 << 30, DiskReserve: -1})
	if err != nil {
		return err
	}
	defer b.Close()
	s := &sink{buffer: b, last: map[string]int64{}, stats: Stats{Problems: map[string]string{}}}
	env := linekeeper.Env{Plant: "hamburg", Agent: "line1", Source: "press", Dir: dir, ConfigDir: filepath.Dir(section), Zone: time.UTC, Reporter: s,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	d, err := opcua.Kind.New(env, func(into any) error { return config.Parse(section, raw, into) })
	if err != nil {
		return err
	}
	http.HandleFunc("GET /stats", s.answer)
	go http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", status), nil)
	go s.drain(ctx)
	return d.Run(ctx, b.State("cursor"), s.emit)
}

// emit stores a batch as one record, with its cursor.
func (s *sink) emit(ctx context.Context, batch linekeeper.Batch) error {
	s.record = s.record[:0]
	for i := range batch.Signals {
		g := &batch.Signals[i]
		s.record = append(binary.AppendUvarint(s.record, uint64(len(g.Tag))), g.Tag...)
		v, ok := g.Value.(linekeeper.Number)
		if !ok {
			v = linekeeper.Number(fmt.Sprint(g.Value))
		}
		s.record = append(binary.AppendUvarint(s.record, uint64(len(v))), v...)
		s.record = binary.AppendVarint(s.record, g.SourceTime.UnixNano())
		s.record = append(s.record, byte(g.Quality))
	}
	err := s.buffer.Commit(ctx, func(tx *buffer.Tx) error {
		if len(s.record) > 0 {
			tx.Append(append([]byte{}, s.record...))
		}
		if batch.Cursor != nil {
			tx.SetState("cursor", batch.Cursor)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.check(batch)
	return nil
}

// check counts what is durable now.
func (s *sink) check(batch linekeeper.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Batches++
	s.stats.CursorBytes = len(batch.Cursor)
	for i := range batch.Signals {
		g := &batch.Signals[i]
		s.stats.Values++
		if g.Status != "Good" {
			s.stats.Marked++
		}
		n, ok := g.Value.(linekeeper.Number)
		v, err := strconv.ParseInt(string(n), 10, 64)
		if !ok || err != nil || g.Quality != linekeeper.Good {
			s.stats.Bad++
			continue
		}
		if was, known := s.last[g.Tag]; known {
			switch {
			case v > was+1:
				s.stats.Missing += v - was - 1
				s.stats.Jumps++
			case v <= was:
				s.stats.Doubled++
			}
		}
		s.last[g.Tag] = v
	}
}

// drain acknowledges what is stored, as a hub would, so that the buffer stays small.
func (s *sink) drain(ctx context.Context) {
	last := uint64(0)
	for ctx.Err() == nil {
		if s.buffer.Wait(ctx, last) != nil {
			return
		}
		entries, err := s.buffer.Read(last, 1000, 8<<20)
		if err != nil || len(entries) == 0 {
			return
		}
		last = entries[len(entries)-1].Seq
		if s.buffer.Ack(last) != nil {
			return
		}
	}
}

func (s *sink) answer(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Tags = len(s.last)
	out.Least = -1
	for _, v := range s.last {
		if out.Least < 0 || v < out.Least {
			out.Least = v
		}
		out.Most = max(out.Most, v)
	}
	json.NewEncoder(w).Encode(out)
}

// State implements signal.Reporter.
func (s *sink) State(state linekeeper.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.State = string(state) + " " + reason
}

// Problem implements signal.Reporter.
func (s *sink) Problem(key string, p *linekeeper.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil {
		delete(s.stats.Problems, key)
		return
	}
	s.stats.Problems[key] = p.Reason
	if key == "gap" {
		s.stats.Gaps = append(s.stats.Gaps, p.Reason)
	}
}
