package buffer_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/buffer/bufferbench"
)

// BenchmarkCommit shows what one durable commit costs; bufferbench compares it with a plain log.
func BenchmarkCommit(b *testing.B) {
	for _, group := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("records=%d", group), func(b *testing.B) {
			buf, err := buffer.Open(buffer.Config{Dir: b.TempDir(), DiskReserve: -1, Overflow: buffer.DropOldest})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = buf.Close() }()
			record, cursor := make([]byte, 256), make([]byte, 24)
			b.SetBytes(int64(group * len(record)))
			for b.Loop() {
				err := buf.Commit(context.Background(), func(tx *buffer.Tx) error {
					for range group {
						tx.Append(record)
					}
					tx.SetState("cursor", cursor)
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkComparedWithAPlainLog prints the comparison; the figure that counts is the ratio.
func BenchmarkComparedWithAPlainLog(b *testing.B) {
	for b.Loop() {
		results, err := bufferbench.Compare(context.Background(), b.TempDir(), 5)
		if err != nil {
			b.Fatal(err)
		}
		bufferbench.Print(os.Stdout, results)
	}
}

// A small backlog shows that the measurement works; the bench command does it in full.
func TestBacklogIsMeasured(t *testing.T) {
	o := bufferbench.BacklogOptions{Large: 300_000, Small: 110_000, Memory: 100_000, Rounds: 1}
	r, err := bufferbench.Backlog(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r.Print(&text)
	if n := strings.Count(text.String(), "\nratio buffer_backlog_"); n != 7 || r.Small.Read == 0 || r.Large.Trim == 0 || r.SteadyRatio == 0 || r.Start == 0 {
		t.Errorf("%d ratios:\n%s", n, text.String())
	}
}
