// Package files reads what an MES lays into folders, of this computer, of a share or of an SFTP server, and lays work orders
// into them.
//
// It owns the folders that it is given: it moves files from the folder to processing, then to done or error. It promises that a
// file is taken whole and once, by its content and not by its name, also when the agent dies between any two steps; that a
// refused file lies beside the reason; that one bad record, file or folder leaves the others alone; and that an order's
// revision is laid down once. It never takes a file that is still growing, and never relies on notifications: it always looks.
package files

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "files", Sample: sample, New: newDriver, Discover: discover, Explore: newExplorer, Tags: "feeds"}

type source struct {
	env    signal.Env
	config Config
	zone   *time.Location
	link   *link

	delivery sync.Mutex // of one order at a time
	orders   *deliveries
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	s, err := newSource(env, decode, true)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// newExplorer makes a driver that only looks around: it needs no feeds.
func newExplorer(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	s, err := newSource(env, decode, false)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func newSource(env signal.Env, decode func(into any) error, needFeeds bool) (*source, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	if err := c.fill(env); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil && (needFeeds || len(c.Feeds) > 0 || c.WorkOrders != nil) {
		return nil, err
	}
	zone := env.Zone
	if c.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(c.Zone); err != nil {
			return nil, fmt.Errorf("zone %q is unknown: write an IANA name such as Europe/Berlin", c.Zone)
		}
	}
	if zone == nil {
		zone = time.UTC
	}
	s := &source{env: env, config: c, zone: zone, link: &link{dial: func(context.Context) (store, error) { return local{}, nil }}}
	if c.SFTP != nil {
		s.link.dial = c.SFTP.dial
	}
	return s, nil
}

// Run implements signal.Driver.
func (s *source) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	s.env.Reporter.State(signal.StateConnecting, "")
	sweep(s.env.Dir)
	b, err := openBook(s, cursor, emit)
	if err != nil {
		return err
	}
	feeds, err := s.openFeeds(b)
	if err != nil {
		return err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { s.link.close(); close(closed) }) // ends what waits for a server
	wake, unwatch := s.watch()
	for attempt := 0; ctx.Err() == nil; {
		began := time.Now()
		next, err := s.round(ctx, feeds)
		rest := max(shortest, 4*time.Since(began)) // a busy folder costs a fifth of a core at most
		if err != nil && ctx.Err() == nil {
			s.failed(err)
			next = time.Now().Add(buffering.Wait(attempt) + buffering.FirstWait)
			if refusedLogin(err) {
				next = next.Add(loginWait)
			}
			attempt++
		} else {
			attempt = 0
		}
		await(ctx, next, wake, feeds, rest)
	}
	unwatch()
	if !stop() {
		<-closed
	}
	s.link.close()
	for _, f := range feeds {
		clear(f.raised)
		f.settleProblems()
	}
	s.env.Reporter.State(signal.StateStopped, "")
	return nil
}

func (s *source) openFeeds(b *book) ([]*feed, error) {
	var feeds []*feed
	for _, c := range s.config.feeds() {
		x, err := openIndex(filepath.Join(s.env.Dir, "taken-"+url.PathEscape(c.Tag)), c.Remember)
		if err != nil {
			return nil, err
		}
		f := &feed{source: s, config: *c, index: x, book: b, seen: map[string]observation{}, parked: map[string]finished{}, refused: map[string]refusal{},
			problems: map[string]bool{}, raised: map[string]bool{}}
		if w := s.config.WorkOrders; w != nil && w.Answers != nil && c == &w.Answers.Feed {
			f.answers = w.Answers
		}
		feeds = append(feeds, f)
	}
	return feeds, nil
}

// round scans each feed whose time has come, and returns when the next one has to be. The error says that there is no store.
func (s *source) round(ctx context.Context, feeds []*feed) (time.Time, error) {
	st, err := s.link.get(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var firstFault error
	well := len(feeds) == 0
	for _, f := range feeds {
		if time.Now().Before(f.due) {
			well = true
			continue
		}
		soon, err := f.scan(ctx, st)
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
		if st.lost(err) {
			s.forget(st, feeds)
			return time.Time{}, fmt.Errorf("the connection was lost: %w", err)
		}
		f.settleProblems()
		f.due = time.Now().Add(f.config.Scan)
		if soon {
			f.due = time.Now().Add(min(f.config.Scan, max(f.config.Settle, 50*time.Millisecond)))
		}
		if err == nil {
			well = true
		} else if firstFault == nil {
			firstFault = err
		}
	}
	if !well {
		s.env.Reporter.State(signal.StateFailed, firstFault.Error())
	} else {
		s.env.Reporter.State(signal.StateOK, "")
		s.env.Reporter.Problem("connection", nil)
	}
	next := time.Now().Add(time.Hour)
	if len(feeds) == 0 {
		next = time.Now().Add(aliveInterval)
	}
	for _, f := range feeds {
		if f.due.Before(next) {
			next = f.due
		}
	}
	return next, s.alive(st, len(feeds))
}

// alive sees that a server which only takes orders is still there.
func (s *source) alive(st store, feeds int) error {
	if feeds > 0 {
		return nil
	}
	_, err := st.stat(s.config.WorkOrders.Folder)
	if st.lost(err) {
		s.link.drop(st)
		return err
	}
	if err != nil {
		return problem("folder_missing", s.config.WorkOrders.Folder, "the folder for work orders cannot be found: "+err.Error(), "correct work_orders: folder, or make it")
	}
	return nil
}

func (s *source) forget(st store, feeds []*feed) {
	s.link.drop(st)
	for _, f := range feeds {
		f.ready = false
		clear(f.raised)
	}
}

// loginWait keeps the server from locking a user out whose password is wrong.
const loginWait = 30 * time.Second

func refusedLogin(err error) bool {
	var own *problemError
	return errors.As(err, &own) && own.problem.Code == "login_refused"
}

// failed shows that there is no connection.
func (s *source) failed(err error) {
	s.env.Logger.Warn("reach folders", "source", s.env.Source, "err", err)
	s.env.Reporter.State(signal.StateFailed, err.Error())
	var own *problemError
	if errors.As(err, &own) {
		s.env.Reporter.Problem("connection", &own.problem)
	}
}

// watch reports changes in folders of this computer. It only makes things faster: other computers' changes on a share are
// never reported, and a queue can overflow.
func (s *source) watch() (wake <-chan struct{}, stop func()) {
	news := make(chan struct{}, 1)
	if s.config.SFTP != nil {
		return news, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return news, func() {}
	}
	for _, f := range s.config.feeds() {
		if err := w.Add(f.Folder); err != nil {
			s.env.Logger.Debug("watch folder", "source", s.env.Source, "folder", f.Folder, "err", err)
		}
	}
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		events, faults := w.Events, w.Errors
		for events != nil || faults != nil {
			var ok bool
			select {
			case _, ok = <-events:
				if !ok {
					events = nil
				}
			case _, ok = <-faults:
				if !ok {
					faults = nil
				}
			}
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}()
	return news, func() { w.Close(); done.Wait() }
}

// shortest is how soon after a scan a notification can cause the next: our own moves are reported, too.
const shortest = 200 * time.Millisecond

// await waits until the next scan is due, or until something changed and rest is over.
func await(ctx context.Context, next time.Time, wake <-chan struct{}, feeds []*feed, rest time.Duration) {
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
		if polling.Pause(ctx, min(rest, max(time.Until(next), 0))) != nil {
			return
		}
		for _, f := range feeds {
			f.due = time.Time{}
		}
	}
}
