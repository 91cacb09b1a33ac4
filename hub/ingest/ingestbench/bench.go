// Package ingestbench measures what the hub's ingest costs over the bare database.
//
// It owns one comparison: as many records, once inserted into the table of facts (one multi-row idempotent INSERT per batch,
// nothing else), once sent by an agent over gRPC and mutual TLS on the loopback, checked, deduplicated, committed and
// acknowledged. Both run in turns on one store that holds many facts already, with the same settings, and the figure is the
// median of the rounds' ratios. It also measures what a hub keeps in memory for an agent that is connected and silent. It
// never measures two things at once.
package ingestbench

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Goal is what the ratio of hub to bare must reach.
const Goal = 0.50

const batchRecords = 256

// Options of Run. Zero means the default.
type Options struct {
	// Rounds of both sides, 5; Batches of 256 records in each, 200.
	Rounds, Batches int
	// Stored is how many facts the store holds before; 10 million, which take 3 GB. Negative: none.
	Stored int
	// Dir is where the databases are made; a temporary folder that is removed again when empty.
	Dir string
}

// Result is what the rounds gave, in records per second.
type Result struct {
	Hub, Bare   []float64
	RecordBytes int
	Stored      int
	Filled      time.Duration // what storing those took
}

// Ratio is the median of the rounds' ratios of hub to bare.
func (r Result) Ratio() float64 {
	ratios := make([]float64, len(r.Hub))
	for i := range ratios {
		ratios[i] = r.Hub[i] / r.Bare[i]
	}
	return median(ratios)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// Print writes a table for people and one line for machines.
func (r Result) Print(w io.Writer) {
	fmt.Fprintf(w, "hub ingest: batches of %d records of %d bytes, gRPC and mutual TLS on the loopback, SQLite synchronous=FULL\n", batchRecords, r.RecordBytes)
	fmt.Fprintf(w, "  the store held %d facts before (made in %.0f s)\n", r.Stored, r.Filled.Seconds())
	for i := range r.Hub {
		fmt.Fprintf(w, "  round %d: bare insert %8.0f rows/s   hub ingest %8.0f rows/s   ratio %.2f\n", i+1, r.Bare[i], r.Hub[i], r.Hub[i]/r.Bare[i])
	}
	fmt.Fprintf(w, "  median:  bare insert %8.0f rows/s   hub ingest %8.0f rows/s\n", median(r.Bare), median(r.Hub))
	fmt.Fprintf(w, "ratio hub_ingest %.2f %.2f\n", r.Ratio(), Goal)
}

// Run measures. It uses one core for each side and takes about a second for each round with the default sizes.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Rounds <= 0 {
		o.Rounds = 5
	}
	if o.Batches <= 0 {
		o.Batches = 200
	}
	if o.Stored == 0 {
		o.Stored = 10_000_000
	}
	o.Stored = max(o.Stored, 0)
	dir, err := os.MkdirTemp(o.Dir, "ingestbench")
	if err != nil {
		return Result{}, fmt.Errorf("make folder of the benchmark: %w", err)
	}
	defer os.RemoveAll(dir)
	sample, _, err := facts(0, 1)
	if err != nil {
		return Result{}, err
	}
	path := filepath.Join(dir, "hub.db")
	r := Result{RecordBytes: len(sample[0]), Stored: o.Stored}
	begun := time.Now()
	if err := fill(ctx, path, o.Stored, sample[0]); err != nil {
		return r, err
	}
	r.Filled = time.Since(begun)
	n := o.Batches * batchRecords
	for i := range o.Rounds {
		bare, err := runBare(ctx, path, 2*i*n, n)
		if err != nil {
			return r, fmt.Errorf("measure bare insert: %w", err)
		}
		hub, err := runHub(ctx, path, fmt.Sprintf("bench%d", i), (2*i+1)*n, n)
		if err != nil {
			return r, fmt.Errorf("measure hub ingest: %w", err)
		}
		r.Bare, r.Hub = append(r.Bare, bare), append(r.Hub, hub)
	}
	return r, nil
}

// facts makes n facts of one counter, the first of them number from.
func facts(from, n int) (records [][]byte, keys []factkey.Key, err error) {
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	for i := from; i < from+n; i++ {
		to := decimal.NewFromInt(int64(5 * (i + 1)))
		position := factkey.Position("counter", "ulm", "press1", "good", "kx7q2m4t.1", to.String())
		f := object.Fact{
			Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press1", Rule: "press1-good", TimeZone: "UTC",
			OccurredAt: at, RecordedAt: at, Equipment: "ulm/hall1/press1", Position: position,
			Confirmation: &object.Confirmation{
				OrderNo: fmt.Sprintf("10%05d", i/200), Operation: "0010", Item: "HOUSING-4711", Unit: "C62", Yield: decimal.NewFromInt(5),
				StartedAt: at, FinishedAt: at, Lot: "L2026-11-24", Shift: "early",
				CounterRange: &object.CounterRange{Tag: "good", Epoch: "kx7q2m4t.1", From: to.Sub(decimal.NewFromInt(5)), To: to},
			},
		}
		body, err := wire.EncodeFact(f)
		if err != nil {
			return nil, nil, err
		}
		records, keys = append(records, body), append(keys, f.Key)
	}
	return records, keys, nil
}

// runBare inserts with the settings of the hub's store into its table, and does nothing else.
func runBare(ctx context.Context, path string, from, n int) (perSecond float64, err error) {
	records, keys, err := facts(from, n)
	if err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=wal_autocheckpoint(16000)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-32768)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	insert, err := db.PrepareContext(ctx, "INSERT OR FAIL INTO facts (key, position_id, seq, received_at, body) VALUES "+
		strings.TrimSuffix(strings.Repeat("(?,?,?,?,?),", batchRecords), ",")+" ON CONFLICT DO NOTHING")
	if err != nil {
		return 0, err
	}
	defer insert.Close()
	start := time.Now()
	for i := 0; i < len(records); i += batchRecords {
		args := make([]any, 0, 5*batchRecords)
		for k := i; k < i+batchRecords; k++ {
			args = append(args, keys[k][:10], 1, from+k, start.UnixMicro(), records[k])
		}
		if _, err := insert.ExecContext(ctx, args...); err != nil { // its own transaction
			return 0, err
		}
	}
	return float64(len(records)) / time.Since(start).Seconds(), nil
}

type everybody struct{}

func (everybody) Known(string, string) bool { return true }

func runHub(ctx context.Context, path, generation string, from, n int) (perSecond float64, err error) {
	records, _, err := facts(from, n)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	ca, err := NewAuthority()
	if err != nil {
		return 0, err
	}
	serverTLS, err := ca.Server()
	if err != nil {
		return 0, err
	}
	agentTLS, err := ca.Agent("ulm", "edge1")
	if err != nil {
		return 0, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	hub := ingest.New(ingest.Options{Store: s, Directory: everybody{}})
	server := grpc.NewServer(append(ingest.ServerOptions(), grpc.Creds(credentials.NewTLS(serverTLS)))...)
	pb.RegisterUplinkServer(server, hub)
	ran := make(chan error, 2)
	go func() { ran <- hub.Run(ctx) }()
	go func() { ran <- server.Serve(l) }()
	perSecond, err = send(ctx, l.Addr().String(), credentials.NewTLS(agentTLS), generation, records)
	cancel()
	server.Stop()
	<-ran
	<-ran
	return perSecond, err
}

// send is an agent with a window of 32 batches; the time ends with the last acknowledgement.
func send(ctx context.Context, address string, creds credentials.TransportCredentials, generation string, records [][]byte) (float64, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stream, err := pb.NewUplinkClient(conn).Connect(ctx)
	if err != nil {
		return 0, err
	}
	hello := &pb.Hello{Protocol: ingest.Protocol, Plant: "ulm", Agent: "edge1", Instance: "bench"}
	if err := stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: hello}}); err != nil {
		return 0, err
	}
	down, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	if down.GetHelloAck() == nil {
		return 0, fmt.Errorf("hub answered hello with %v", down)
	}
	start := time.Now()
	window := make(chan struct{}, 32)
	sent := make(chan error, 1)
	go func() { sent <- sendBatches(stream, generation, records, window) }()
	for acked := 0; acked < len(records); {
		down, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		a := down.GetBatchAck()
		if a == nil || len(a.GetVerdicts()) > 0 {
			return 0, fmt.Errorf("hub answered a batch with %v", down)
		}
		acked = int(a.GetSeq())
		<-window
	}
	took := time.Since(start).Seconds()
	return float64(len(records)) / took, <-sent
}

func sendBatches(stream grpc.BidiStreamingClient[pb.Up, pb.Down], generation string, records [][]byte, window chan<- struct{}) error {
	for i := 0; i < len(records); i += batchRecords {
		window <- struct{}{}
		b := &pb.Batch{Stream: pb.Stream_STREAM_BUSINESS, Generation: generation, FirstSeq: uint64(i + 1), Records: records[i : i+batchRecords]}
		if err := stream.Send(&pb.Up{Kind: &pb.Up_Batch{Batch: b}}); err != nil {
			return err
		}
	}
	return nil
}
