package store

import (
	"slices"
	"strconv"
)

// Topic is a part of the store that can be watched.
type Topic string

// The topics. A commit that changed a part announces its topic once.
const (
	TopicFacts      Topic = "facts"      // new facts, conflicts, unreadable records
	TopicOrders     Topic = "orders"     // work orders and their timeline
	TopicDeliveries Topic = "deliveries" // something waits for an agent, or was stored by one
	TopicPostings   Topic = "postings"   // a posting changed its state
	TopicAgents     Topic = "agents"     // agents, their status, alarms
)

// DeliveriesTo is the topic of what waits for one agent.
func DeliveriesTo(agentID int64) Topic {
	return TopicDeliveries + "/" + Topic(strconv.FormatInt(agentID, 10))
}

type watcher struct {
	c      chan struct{}
	topics []Topic
}

// Watch returns a channel that receives after a commit changed one of the topics (any, when none is named), and a function
// that ends it. Bursts are merged: whoever receives must look at everything. The store never waits for a watcher.
func (s *Store) Watch(topics ...Topic) (<-chan struct{}, func()) {
	w := &watcher{c: make(chan struct{}, 1), topics: topics}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w.c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

func (s *Store) announce(touched map[Topic]struct{}) {
	if len(touched) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		if len(w.topics) > 0 && !slices.ContainsFunc(w.topics, func(t Topic) bool { _, ok := touched[t]; return ok }) {
			continue
		}
		select {
		case w.c <- struct{}{}:
		default:
		}
	}
}

func (tx *Tx) touch(t Topic) { tx.touched[t] = struct{}{} }
