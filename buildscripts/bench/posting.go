package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

const (
	postingWorkers = 4 // as many calls as the hub makes to one ERP at a time by default
	postingOrders  = 64
	postingCalls   = 3 // of each posting, one after the other: look whether it is there, post, read back
	postingGoal    = 0.9
)

// pace is one ERP's time for a call, and how many facts are posted to it.
type pace struct {
	takes  time.Duration
	facts  int
	settle time.Duration
}

var paces = []pace{
	{time.Millisecond, 9600, time.Second},
	{50 * time.Millisecond, 640, time.Second},
	{500 * time.Millisecond, 128, 1500 * time.Millisecond},
}

var postingPace = flag.Duration("pace", 0, "the only time of the ERP that the part posting measures; all when 0")

// postings measures how fast facts get into the books of an ERP that takes its time for each call, as a share of what that
// time allows: so many calls side by side, and for each fact so many one after the other.
func postings(ctx context.Context, dir, _ string) error {
	for _, p := range paces {
		if *postingPace != 0 && *postingPace != p.takes {
			continue
		}
		if err := p.measure(ctx, filepath.Join(dir, p.takes.String())); err != nil {
			return err
		}
	}
	return nil
}

// slowERP is the sandbox with a time that each call takes at least, and a count of what it really took.
type slowERP struct {
	api         http.Handler
	takes       time.Duration
	calls, busy atomic.Int64 // busy in nanoseconds
}

func (e *slowERP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/login") {
		e.api.ServeHTTP(w, r)
		return
	}
	began := time.Now()
	time.Sleep(e.takes)
	e.api.ServeHTTP(w, r)
	e.calls.Add(1)
	e.busy.Add(int64(time.Since(began)))
}

func (p pace) measure(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	books, err := erp.Open(filepath.Join(dir, "erp.db"), erp.Options{})
	if err != nil {
		return err
	}
	defer books.Close()
	if err := books.SeedDemo(ctx); err != nil {
		return err
	}
	slow := &slowERP{api: books.Handler(), takes: p.takes}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: slow}
	go server.Serve(l)
	defer server.Close()
	c, err := sandbox.New(sandbox.Config{Name: "erp", URL: "http://" + l.Addr().String(), User: "linekeeper", Password: "sandbox", Settle: p.settle})
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, filepath.Join(dir, "hub.db"), store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := p.fill(ctx, books, s); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	worked := processorTime(os.Getpid())
	took, err := p.drain(ctx, s, c)
	if err != nil {
		return err
	}
	worked = (processorTime(os.Getpid()) - worked) / time.Duration(p.facts)
	each := time.Duration(slow.busy.Load() / slow.calls.Load())
	ideal := time.Duration(p.facts*postingCalls) * each / postingWorkers
	fmt.Printf("  %6s: %d facts of %d orders verified in %.1f s, %.1f/s; %.2f calls for each, of %s at the ERP\n", p.takes, p.facts, postingOrders, took.Seconds(),
		float64(p.facts)/took.Seconds(), float64(slow.calls.Load())/float64(p.facts), rounded(each))
	fmt.Printf("          ideal: %d calls one after the other, %d orders side by side: %.1f/s; hub and ERP work %s of a processor for each, and have %d\n",
		postingCalls, postingWorkers, float64(p.facts)/ideal.Seconds(), rounded(worked), runtime.NumCPU())
	fmt.Printf("ratio posting_%s %.2f %.2f\n", p.takes, ideal.Seconds()/took.Seconds(), postingGoal)
	return nil
}

// drain runs the engine until everything is verified.
func (p pace) drain(ctx context.Context, s *store.Store, c connector.Connector) (took time.Duration, err error) {
	e := posting.New(posting.Options{Store: s, Connectors: map[string]connector.Connector{"erp": c}, Workers: postingWorkers})
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var broke error
	wg.Go(func() { broke = e.Run(running) })
	began := time.Now()
	err = await(ctx, 10*time.Minute, 50*time.Millisecond, func() error { return p.verified(ctx, s) })
	took = time.Since(began)
	stop()
	wg.Wait()
	return took, errors.Join(err, broke)
}

func (p pace) verified(ctx context.Context, s *store.Store) error {
	counts, err := s.PostingCounts(ctx)
	if err != nil {
		return err
	}
	for _, n := range counts {
		if n.State == store.PostingVerified && n.Count == int64(p.facts) {
			return nil
		}
	}
	return fmt.Errorf("%d facts are not verified: %+v", p.facts, counts)
}

// fill makes the orders at both sides, and the facts in the hub's store.
func (p pace) fill(ctx context.Context, books *erp.ERP, s *store.Store) error {
	var numbers []string
	for range postingOrders {
		no, err := books.ReleaseOrder(ctx, erp.Order{Item: "BRACKET-10", Quantity: decimal.NewFromInt(1_000_000), Site: "1000", WorkCenter: "press1",
			PlannedStart: benchTime, PlannedEnd: benchTime.AddDate(1, 0, 0)})
		if err != nil {
			return err
		}
		numbers = append(numbers, no)
	}
	var agent store.Agent
	err := s.Update(ctx, func(tx *store.Tx) (err error) {
		for _, no := range numbers {
			o := object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased, Item: "BRACKET-10",
				Quantity: object.Quantity{Value: decimal.NewFromInt(1_000_000), Unit: "C62"}}
			if err := tx.PutOrder(store.Order{Agent: "line1", Order: o, Content: []byte("order")}, true); err != nil {
				return err
			}
		}
		agent, err = tx.AgentByName("ulm", "line1")
		return err
	})
	if err != nil {
		return err
	}
	batch := store.Batch{AgentID: agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1}
	at := time.Now().UTC()
	for i := range p.facts {
		position := factkey.Position("bench", fmt.Sprint(i))
		f := object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "UTC", Position: position, OccurredAt: at, RecordedAt: at,
			Confirmation: &object.Confirmation{OrderNo: numbers[i%postingOrders], Item: "BRACKET-10", Unit: "C62", Yield: decimal.NewFromInt(3)}}
		body, err := wire.EncodeFact(f)
		if err != nil {
			return err
		}
		batch.Records = append(batch.Records, store.Record{Key: f.Key, Body: body})
	}
	_, err = s.AppendFacts(ctx, []store.Batch{batch})
	return err
}
