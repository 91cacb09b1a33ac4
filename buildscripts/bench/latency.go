package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const (
	latencyFacts = 500
	latencyGoal  = 50 * time.Millisecond // 99 of 100 facts
)

// latency sends single facts over a line that is silent between them. The agent's buffer and uplink run in this process, where
// the moments of commit and acknowledgement can be seen; the hub is a process of its own.
func latency(ctx context.Context, dir, binaries string) error {
	l, err := newLine(ctx, dir, binaries, 0)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := l.startHub(ctx); err != nil {
		return err
	}
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "buffer"), DiskReserve: -1})
	if err != nil {
		return err
	}
	defer b.Close()
	acks := &acknowledgements{Buffer: b, arrived: make(chan struct{}, 1)}
	file := func(name string) string { return filepath.Join(dir, "line1", name) }
	up, err := uplink.New(uplink.Config{
		Address: l.uplink, CAFile: file("ca.pem"), CertFile: file("agent.pem"), KeyFile: file("agent.key"), Proxy: "direct",
		Plant: "ulm", Agent: "line1", Version: "bench",
	}, uplink.Deps{Business: acks})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { up.Run(running) })
	defer wg.Wait()
	defer stop()
	var took []time.Duration
	for i := range latencyFacts + 1 {
		pause := time.NewTimer(5*time.Millisecond + rand.N(40*time.Millisecond))
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		d, err := acks.roundTrip(ctx, i)
		if err != nil {
			return err
		}
		if i > 0 { // the first one waits for the connection
			took = append(took, d)
		}
	}
	slices.Sort(took)
	histogram(took)
	p99 := took[len(took)*99/100]
	fmt.Printf("  from the fact to the hub's acknowledgement, both durable: p50 %s, p99 %s, longest %s\n",
		rounded(took[len(took)/2]), rounded(p99), rounded(took[len(took)-1]))
	fmt.Printf("ratio idle_line_ack_p99 %.2f 1.00\n", latencyGoal.Seconds()/p99.Seconds())
	return nil
}

// acknowledgements is a buffer that shows when it is told what the hub holds.
type acknowledgements struct {
	*buffer.Buffer
	arrived chan struct{}
}

func (a *acknowledgements) Ack(seq uint64) error {
	err := a.Buffer.Ack(seq)
	select {
	case a.arrived <- struct{}{}:
	default:
	}
	return err
}

// roundTrip stores one fact and returns how long it took until the hub had it.
func (a *acknowledgements) roundTrip(ctx context.Context, i int) (time.Duration, error) {
	body, err := latencyFact(i)
	if err != nil {
		return 0, err
	}
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	var seq uint64
	begin := time.Now()
	err = a.Commit(ctx, func(tx *buffer.Tx) error {
		seq = tx.Append(body)
		return nil
	})
	for err == nil && a.Stats().AckedSeq < seq {
		select {
		case <-a.arrived:
		case <-ctx.Done():
			err = ctx.Err()
		case <-late.C:
			err = errors.New("the hub acknowledged nothing for 20 s")
		}
	}
	return time.Since(begin), err
}

func latencyFact(i int) ([]byte, error) {
	now := timestamppb.Now()
	position := factkey.Position("msg", "ulm", "bus", "q", messageID(i))
	key := factkey.Of(position)
	return proto.Marshal(&pb.Fact{
		Key:     key[:],
		Header:  &pb.Header{Plant: "ulm", Source: "bus", Rule: "q", OccurredAt: now, RecordedAt: now, TimeZone: "UTC", Position: position},
		Content: &pb.Fact_QualityStatus{QualityStatus: &pb.QualityStatus{OrderNo: "WO-1", Lot: "L1", Status: "OK"}},
	})
}

// histogram prints how often a time lay in each class.
func histogram(took []time.Duration) {
	from := time.Duration(0)
	for _, to := range []time.Duration{1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 100_000} {
		to *= time.Millisecond
		n := 0
		for _, d := range took {
			if d >= from && d < to {
				n++
			}
		}
		label := fmt.Sprintf("%d to %d ms", from.Milliseconds(), to.Milliseconds())
		if to > time.Second {
			label = fmt.Sprintf("above %d ms", from.Milliseconds())
		}
		fmt.Printf("  %14s %5d %s\n", label, n, strings.Repeat("#", (n*60+len(took)-1)/len(took)))
		from = to
	}
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
