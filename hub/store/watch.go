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
	TopicMappings   Topic = "mappings"   // definitions of mappings
	TopicObjects    Topic = "objects"    // business objects of outside systems
	TopicWrites     Topic = "writes"     // a write of a business object changed its state
)

// DeliveriesTo is the topic of what waits for one agent.
func DeliveriesTo(agentID int64) Topic {
	return TopicDeliveries + "/" + Topic(strconv.FormatInt(agentID, 10))
}

type watcher struct {
	tell   func()
	topics []Topic
}

// Watch returns a channel that receives after a commit changed one of the topics (any, when none is named), and a function
// that ends it. Bursts are merged: whoever receives must look at everything. The store never waits for a watcher.
func (s *Store) Watch(topics ...Topic) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	return c, s.WatchFunc(func() {
		select {
		case c <- struct{}{}:
		default:
		}
	}, topics...)
}

// WatchFunc calls tell after each such commit until the function that it returns was called: for those who are too many to wait
// each in a goroutine. tell must return at once and may not use the store.
func (s *Store) WatchFunc(tell func(), topics ...Topic) (end func()) {
	w := &watcher{tell: tell, topics: topics}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return func() {
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
		w.tell()
	}
}

func (tx *Tx) touch(t Topic) { tx.touched[t] = struct{}{} }
