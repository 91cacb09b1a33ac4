package opcua

import (
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// watchItems says which of the nodes that are expected to speak have been silent for too long. Their silence may be right: a
// server sends a value only when it changes.
func (r *reader) watchItems(now time.Time) {
	if now.Before(r.nextLook) {
		return
	}
	r.nextLook = now.Add(time.Second)
	for _, it := range r.sub.list {
		n, ok := r.node(it.Tag)
		if !ok || n.ExpectEvery == 0 || r.silent[it.Tag] || now.Sub(it.seen) <= n.ExpectEvery {
			continue
		}
		r.silent[it.Tag] = true
		r.log.Warn("tag is silent", "source", r.env.Source, "tag", it.Tag, "since", it.seen, "expect_every", n.ExpectEvery)
		r.problem("silent:"+it.Tag, &signal.Problem{Code: "silent", Item: it.Tag,
			Reason: fmt.Sprintf("tag %q has not changed since %s, expected is a change every %s; the server itself answers", it.Tag,
				it.seen.In(r.zone()).Format(time.DateTime), n.ExpectEvery),
			NextStep: "look whether the machine stands; if not, whether its program still writes node " + n.Node})
	}
}

// heardAgain takes a silent tag's problem away.
func (r *reader) heardAgain(it *item) {
	delete(r.silent, it.Tag)
	r.log.Info("tag speaks again", "source", r.env.Source, "tag", it.Tag)
	r.problem("silent:"+it.Tag, nil)
}
