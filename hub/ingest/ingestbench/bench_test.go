package ingestbench_test

import (
	"context"
	"os"
	"testing"

	"github.com/linekeeper/linekeeper/hub/ingest/ingestbench"
)

func TestMain(m *testing.M) {
	ingestbench.HubProcess()
	os.Exit(m.Run())
}

func TestIdleStreamsAreCountedInTheHubsProcess(t *testing.T) {
	r, err := ingestbench.RunIdle(context.Background(), ingestbench.IdleOptions{Streams: 5, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Goroutines < 1 || r.Before <= 0 {
		t.Fatalf("measured %+v", r)
	}
}

func TestOneRoundMeasuresBothSides(t *testing.T) {
	r, err := ingestbench.Run(context.Background(), ingestbench.Options{Rounds: 2, Batches: 4, Stored: 1000, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Ratio() <= 0 {
		t.Fatalf("ratio %v", r.Ratio())
	}
}

func BenchmarkIngest(b *testing.B) {
	r, err := ingestbench.Run(context.Background(), ingestbench.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	r.Print(os.Stdout)
}
