package sparkplug

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// rebirthPause is the least between two births that somebody asked for.
const rebirthPause = time.Second

// edgeRun is the edge node at work; one goroutine owns it.
type edgeRun struct {
	*driver
	edge *edge

	session  *mqttlink.Session
	death    []byte
	hostTime int64     // of the last word about the primary host on this connection
	bornAt   time.Time // of the last birth on this connection
	asked    bool      // a birth was asked for and has not been sent yet
}

// runEdge publishes what the agent knows until ctx ends.
func (d *driver) runEdge(ctx context.Context) {
	r := &edgeRun{driver: d, edge: d.edge}
	d.again(ctx, roleEdge, r.once)
}

func (r *edgeRun) topic(kind string) string {
	return namespace + "/" + r.edge.config.Group + "/" + kind + "/" + r.edge.config.Node
}

// once makes one connection, with a number of its own, and works with it until it ends.
func (r *edgeRun) once(ctx context.Context) (*mqttlink.Options, error) {
	bdSeq, err := nextBdSeq(filepath.Join(r.env.Dir, "bdseq"))
	if err != nil {
		return nil, err
	}
	r.edge.connecting(bdSeq)
	r.death = r.edge.death()
	options := r.options(r.config.ClientID+"-edge", &mqttlink.Publication{Topic: r.topic("NDEATH"), Payload: r.death, QoS: 1})
	r.session, err = mqttlink.Connect(ctx, options)
	if err != nil {
		return &options, err
	}
	r.env.Reporter.Problem("connect:"+roleEdge, nil)
	r.bornAt, r.asked, r.hostTime = time.Time{}, false, 0
	err = r.serve(ctx)
	if !r.bornAt.IsZero() && (err == nil || ctx.Err() != nil) {
		r.die(context.WithoutCancel(ctx))
	}
	r.edge.ended()
	r.session.Close()
	return &options, err
}

// die says that the node ends: a broker keeps the will back when it was told farewell.
func (r *edgeRun) die(ctx context.Context) {
	if err := publish(ctx, r.session, mqttlink.Publication{Topic: r.topic("NDEATH"), Payload: r.death, QoS: 1}); err != nil {
		r.env.Logger.Debug("publish the node's death", "source", r.env.Source, "err", err)
	}
}

var errHostGone = errors.New("the primary host is offline")

// serve works until the connection ends, ctx does, or the primary host goes offline (nil).
func (r *edgeRun) serve(ctx context.Context) error {
	granted := make(chan error, 1)
	var subscribing sync.WaitGroup
	defer subscribing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	subscribing.Go(func() { granted <- r.subscribe(ctx) })
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	primary := r.edge.config.PrimaryHost
	subscribed, listening := false, primary == ""
	if !listening {
		r.status.set(roleEdge, signal.StateOK, fmt.Sprintf("waits for the primary host %q", primary))
	}
	var batch []mqttlink.Message
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.session.Done():
			return r.session.Err()
		case err := <-granted:
			if err != nil {
				return err
			}
			subscribed = true
		case <-r.session.Ready():
			batch = r.session.Take(batch, batchMessages)
			online, err := r.heard(batch, listening)
			if errors.Is(err, errHostGone) {
				return nil
			}
			if err != nil {
				return err
			}
			listening = online
		case <-r.edge.changed:
		case <-again.C:
		}
		if !subscribed || !listening {
			continue
		}
		if err := r.tell(ctx); err != nil {
			return err
		}
		if r.asked {
			again.Reset(max(time.Until(r.bornAt.Add(rebirthPause)), 0))
		}
	}
}

func (r *edgeRun) subscribe(ctx context.Context) error {
	list := []mqttlink.Subscription{{Filter: r.topic("NCMD"), QoS: 1}}
	if p := r.edge.config; p.PrimaryHost != "" {
		list = append(list, mqttlink.Subscription{Filter: stateTopicOf(p.StateFormat, p.PrimaryHost), QoS: 1})
	}
	grants, err := r.session.Subscribe(ctx, list)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for _, g := range grants {
		if g.Refused != nil {
			return fmt.Errorf("subscribe to %q: the broker refuses it: %s", g.Filter, g.Refused)
		}
	}
	return nil
}

// heard takes what hosts say, and returns whether there is one to be told something.
func (r *edgeRun) heard(batch []mqttlink.Message, listening bool) (bool, error) {
	p := r.edge.config
	for i := range batch {
		m := &batch[i]
		if m.Topic == r.topic("NCMD") {
			r.asked = r.asked || rebirthAsked(m.Payload)
			continue
		}
		online, at, ok := readState(p.StateFormat, m.Payload)
		if !ok || p.PrimaryHost == "" || at < r.hostTime {
			continue // an old will
		}
		renewed := listening && at > r.hostTime
		r.hostTime = at
		if listening && (!online || renewed) {
			return false, errHostGone // it goes away, or has been away
		}
		listening = online
	}
	if _, err := r.session.Acknowledge(batch); err != nil {
		return false, fmt.Errorf("acknowledge messages: %w", err)
	}
	return listening, nil
}

// tell sends what is news: a birth when one is needed or was asked for, then data.
func (r *edgeRun) tell(ctx context.Context) error {
	now := time.Now()
	wanted := r.asked && now.Sub(r.bornAt) >= rebirthPause
	if r.edge.needsBirth() || wanted {
		if err := r.publish(ctx, "NBIRTH", r.edge.birth(now)); err != nil {
			return err
		}
		r.bornAt, r.asked = now, false
		r.status.set(roleEdge, signal.StateOK, "")
	}
	if r.bornAt.IsZero() {
		return nil // nothing is known yet
	}
	for {
		b := r.edge.data(now)
		if b == nil {
			return nil
		}
		if err := r.publish(ctx, "NDATA", b); err != nil {
			return err
		}
	}
}

func (r *edgeRun) publish(ctx context.Context, kind string, body []byte) error {
	if err := publish(ctx, r.session, mqttlink.Publication{Topic: r.topic(kind), Payload: body}); err != nil {
		return fmt.Errorf("publish %s: %w", kind, err)
	}
	return nil
}

// nextBdSeq returns the number of the next session and makes it durable before it is used.
func nextBdSeq(path string) (uint64, error) {
	last := -1
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n >= 0 && n < 256 {
			last = n
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("read the edge node's session number: %w", err)
	}
	next := (last + 1) % 256
	if err := replaceFile(path, fmt.Appendf(nil, "%d\n", next)); err != nil {
		return 0, fmt.Errorf("store the edge node's session number: %w", err)
	}
	return uint64(next), nil
}
