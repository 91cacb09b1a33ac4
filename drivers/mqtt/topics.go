package mqtt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// rules finds the subscription that a message belongs to. It is used by one goroutine only.
type rules struct {
	topics []Topic
	levels [][]string
	known  map[string]*Topic // answers of the past, nil values included
	warned map[string]bool   // tags whose sender uses QoS 0
}

// knownTopics bounds the remembered answers; a plant has fewer topics than that.
const knownTopics = 10_000

func newRules(topics []Topic) *rules {
	r := &rules{topics: topics, known: map[string]*Topic{}, warned: map[string]bool{}}
	for _, t := range topics {
		r.levels = append(r.levels, strings.Split(t.Filter, "/"))
	}
	return r
}

// find returns nil for a topic that no subscription of the configuration covers.
func (r *rules) find(topic string) *Topic {
	if t, ok := r.known[topic]; ok {
		return t
	}
	var found *Topic
	levels := strings.Split(topic, "/")
	for i := range r.topics {
		if overlap(r.levels[i], levels) {
			found = &r.topics[i]
			break
		}
	}
	if len(r.known) >= knownTopics {
		clear(r.known)
	}
	r.known[topic] = found
	return found
}

func (r *rules) subscriptions() []mqttlink.Subscription {
	out := make([]mqttlink.Subscription, len(r.topics))
	for i, t := range r.topics {
		out[i] = mqttlink.Subscription{Filter: t.Filter, QoS: 1}
		if t.Retained == "skip" {
			out[i].Retained = mqttlink.RetainedNotSent
		}
	}
	return out
}

func (r *rules) filters() []string {
	out := make([]string, len(r.topics))
	for i, t := range r.topics {
		out[i] = t.Filter
	}
	slices.Sort(out)
	return out
}

// overlap reports whether some topic is covered by both filters; a topic is a filter without wildcards.
func overlap(a, b []string) bool {
	// Topics that start with $ are the broker's own: a wildcard in the first place does not cover them.
	if len(a) > 0 && len(b) > 0 && a[0] != b[0] && (strings.HasPrefix(a[0], "$") || strings.HasPrefix(b[0], "$")) {
		return false
	}
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == "#" || b[0] == "#":
			return true
		case a[0] != "+" && b[0] != "+" && a[0] != b[0]:
			return false
		}
		a, b = a[1:], b[1:]
	}
	rest := slices.Concat(a, b)
	return len(rest) == 0 || rest[0] == "#" // "a/#" covers "a" itself
}

func validateTopics(topics []Topic) error {
	tags := map[string]bool{}
	for i, t := range topics {
		if t.Tag == "" || tags[t.Tag] {
			return fmt.Errorf("topics: tag %q of topic %q is empty or used twice", t.Tag, t.Filter)
		}
		tags[t.Tag] = true
		if err := validateFilter(t.Filter); err != nil {
			return fmt.Errorf("topics: %q: %w", t.Tag, err)
		}
		switch {
		case t.Format != "json" && t.Format != "text" && t.Format != "bytes":
			return fmt.Errorf("topics: %q: format %q is none of json, text, bytes", t.Tag, t.Format)
		case t.Retained != "skip" && t.Retained != "use":
			return fmt.Errorf("topics: %q: retained %q is neither skip nor use", t.Tag, t.Retained)
		case t.MaxSize < 1:
			return fmt.Errorf("topics: %q: max_size %d is not above 0 bytes", t.Tag, t.MaxSize)
		}
		for _, other := range topics[:i] {
			if overlap(strings.Split(t.Filter, "/"), strings.Split(other.Filter, "/")) {
				return fmt.Errorf("topics: %q (%s) and %q (%s) overlap: a broker may deliver one message twice; narrow one of them, or use a second source with its own client_id",
					other.Tag, other.Filter, t.Tag, t.Filter)
			}
		}
	}
	return nil
}

func validateFilter(f string) error {
	if f == "" || strings.ContainsRune(f, 0) || len(f) > 65535 {
		return fmt.Errorf("topic %q is empty or too long", f)
	}
	if strings.HasPrefix(f, "$share/") {
		return fmt.Errorf("topic %q: a shared subscription spreads messages over several clients and loses their order", f)
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		if l == "#" && i < len(levels)-1 || len(l) > 1 && strings.ContainsAny(l, "+#") {
			return fmt.Errorf("topic %q: + and # must fill a whole level, # only the last", f)
		}
	}
	return nil
}
