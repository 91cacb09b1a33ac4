package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

const (
	postingWorkers = 4 // as many calls as the hub makes to one ERP at a time by default
	postingOrders  = 64
	postingGoal    = 0.9
)

// pace is one ERP's time for a call, and how many facts are posted to it.
type pace struct {
	takes  time.Duration
	facts  int
	settle time.Duration
}

var paces = []pace{
	{time.Millisecond, 19200, time.Second},
	{50 * time.Millisecond, 640, time.Second},
	{500 * time.Millisecond, 128, 1500 * time.Millisecond},
}

var postingPace = flag.Duration("pace", 0, "the only time of the ERP that the part posting measures; all when 0")

// postings measures how fast facts get into the books of an ERP that takes its time for each call, as a share of what that ERP
// allows: the same calls by the same connector, as many side by side, from a program that knows nothing and keeps nothing.
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

func (p pace) measure(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	books, err := slowERP{Dir: dir, Takes: p.takes, Orders: 2 * postingOrders}.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, books.end()) }()
	c, err := sandbox.New(sandbox.Config{Name: "erp", URL: "http://" + books.Addr, User: "linekeeper", Password: "sandbox", Settle: p.settle})
	if err != nil {
		return err
	}
	bare, err := p.bare(ctx, books.Numbers[postingOrders:], c)
	if err != nil {
		return fmt.Errorf("post without a hub: %w", err)
	}
	if err := p.report(books, "connector alone", bare, 0); err != nil {
		return err
	}
	s, err := store.Open(ctx, filepath.Join(dir, "hub.db"), store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := p.fill(ctx, books.Numbers[:postingOrders], s); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	worked := processorTime(os.Getpid())
	took, err := p.drain(ctx, s, c)
	if err != nil {
		return err
	}
	if err := p.report(books, "hub", took, processorTime(os.Getpid())-worked); err != nil {
		return err
	}
	fmt.Printf("ratio posting_%s %.2f %.2f\n", p.takes, bare.Seconds()/took.Seconds(), postingGoal)
	return nil
}

func (p pace) report(books *runningERP, who string, took, worked time.Duration) error {
	calls, busy, err := books.since()
	if err != nil {
		return err
	}
	fmt.Printf("  %6s: %s: %d facts of %d orders verified in %.1f s, %.1f/s; %.2f calls for each, of %s inside the ERP", p.takes, who, p.facts, postingOrders, took.Seconds(),
		float64(p.facts)/took.Seconds(), float64(calls)/float64(p.facts), rounded(busy/time.Duration(calls)))
	if worked > 0 {
		fmt.Printf("; %s of the hub's processor for each", rounded(worked/time.Duration(p.facts)))
	}
	fmt.Println()
	return nil
}

// bare posts and reads back as the hub does: so many calls side by side, one fact of an order after the other, and nothing read
// back before the ERP has settled it.
func (p pace) bare(ctx context.Context, numbers []string, c connector.Connector) (time.Duration, error) {
	began := time.Now()
	errs := make([]error, postingWorkers)
	var workers sync.WaitGroup
	for w := range postingWorkers {
		workers.Go(func() {
			var posted []bareDocument
			for i := w; i < p.facts && errs[w] == nil; i += postingWorkers {
				for len(posted) > 0 && time.Since(posted[0].at) >= p.settle && errs[w] == nil {
					errs[w] = posted[0].verify(ctx, c)
					posted = posted[1:]
				}
				var d bareDocument
				if errs[w] == nil {
					d, errs[w] = p.postBare(ctx, c, numbers[i%postingOrders], i)
					posted = append(posted, d)
				}
			}
			for _, d := range posted {
				time.Sleep(time.Until(d.at.Add(p.settle)))
				if errs[w] == nil {
					errs[w] = d.verify(ctx, c)
				}
			}
		})
	}
	workers.Wait()
	return time.Since(began), errors.Join(errs...)
}

// bareDocument is what was posted without a hub, when, and what reading it back needs.
type bareDocument struct {
	posting connector.Posting
	intent  []byte
	made    connector.Document
	at      time.Time
}

func (p pace) postBare(ctx context.Context, c connector.Connector, no string, i int) (d bareDocument, err error) {
	f := benchFact("alone", no, i, time.Now().UTC())
	d.posting = connector.Posting{Fact: f, Order: benchOrder(no), PostingDate: f.OccurredAt, Attempt: 1}
	intent, early, err := c.Prepare(ctx, d.posting)
	if err != nil {
		return d, err
	}
	if early != nil {
		return d, fmt.Errorf("%s is not new: %+v", f.Key, early)
	}
	out := c.Post(ctx, d.posting, intent)
	if out.Result != connector.Posted {
		return d, fmt.Errorf("%s is not posted: %+v", f.Key, out)
	}
	d.intent, d.made, d.at = intent, out.Document, time.Now()
	return d, nil
}

func (d bareDocument) verify(ctx context.Context, c connector.Connector) error {
	v, err := c.Verify(ctx, d.posting, d.intent, d.made)
	if err == nil && !v.Matches {
		err = fmt.Errorf("%s differs: %+v", d.posting.Fact.Key, v)
	}
	return err
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

// fill makes the orders and the facts in the hub's store.
func (p pace) fill(ctx context.Context, numbers []string, s *store.Store) error {
	var agent store.Agent
	err := s.Update(ctx, func(tx *store.Tx) (err error) {
		for _, no := range numbers {
			if err := tx.PutOrder(store.Order{Agent: "line1", Order: benchOrder(no), Content: []byte("order")}, true); err != nil {
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
		f := benchFact("bench", numbers[i%postingOrders], i, at)
		body, err := wire.EncodeFact(f)
		if err != nil {
			return err
		}
		batch.Records = append(batch.Records, store.Record{Key: f.Key, Body: body})
	}
	_, err = s.AppendFacts(ctx, []store.Batch{batch})
	return err
}

func benchOrder(no string) object.WorkOrder {
	return object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased, Item: "BRACKET-10",
		Quantity: object.Quantity{Value: decimal.NewFromInt(1_000_000), Unit: "C62"}}
}

func benchFact(source, orderNo string, i int, at time.Time) object.Fact {
	position := factkey.Position(source, fmt.Sprint(i))
	return object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "UTC", Position: position, OccurredAt: at, RecordedAt: at,
		Confirmation: &object.Confirmation{OrderNo: orderNo, Item: "BRACKET-10", Unit: "C62", Yield: decimal.NewFromInt(3)}}
}
