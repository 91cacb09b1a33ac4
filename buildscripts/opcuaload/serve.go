package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/cmd/demo/plant/uaserver"
)

// The user that both servers know, and their namespace.
const (
	user, password = "operator", "secret"
	namespace      = "urn:linekeeper:load"
)

func tag(i int) string { return fmt.Sprintf("Count.%d", i) }

// serve counts each tag up by one in each period, the tags spread over it. What a tag shows is given by the clock alone.
func serve(ctx context.Context, o options) error {
	s, err := uaserver.Start(ctx, uaserver.Config{Dir: o.dir, URI: namespace, User: user, Password: password, Port: o.port})
	if err != nil {
		return err
	}
	last := make([]int64, o.items)
	start := time.Now()
	for i := range last {
		last[i] = o.due(i, start)
		s.AddTag(tag(i), uint32(last[i]))
	}
	var stopping atomic.Bool
	stopped := make(chan int64)
	http.HandleFunc("GET /stop", func(w http.ResponseWriter, _ *http.Request) {
		stopping.Store(true)
		fmt.Fprintln(w, <-stopped)
	})
	http.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, o.due(0, time.Now())) })
	http.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	go http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", o.control), nil)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the library takes ten seconds to close connections that are gone
		case now := <-tick.C:
			end := int64(-1)
			if stopping.Load() {
				end = o.due(0, now) + 1 // all tags come to one count
			}
			for i := range last {
				for last[i] < max(o.due(i, now), end) {
					last[i]++
					s.Set(tag(i), uint32(last[i]))
				}
			}
			if end >= 0 {
				stopped <- end
				<-ctx.Done()
				return nil
			}
		}
	}
}

// due is what a tag shows at a time.
func (o options) due(i int, now time.Time) int64 {
	phase := time.Duration(i) * o.period / time.Duration(o.items)
	return int64((now.Sub(time.UnixMilli(o.base)) - phase) / o.period)
}
