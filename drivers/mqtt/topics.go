package mqtt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// rules finds the subscription that a message belongs to. It is used by one goroutine only.
type rules struct {
	topics []Topic
	known  map[string]*Topic // answers of the past, nil values included
	warned map[string]bool   // tags whose sender uses QoS 0
}

// knownTopics bounds the remembered answers; a plant has fewer topics than that.
const knownTopics = 10_000

func newRules(topics []Topic) *rules {
	r := &rules{topics: topics, known: map[string]*Topic{}, warned: map[string]bool{}}
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
		if overlap(r.topics[i].pattern.levels, levels) {
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
		out[i] = mqttlink.Subscription{Filter: t.pattern.filter, QoS: 1}
		if t.Retained == "skip" { // as far as the broker can do that
			out[i].Retained = mqttlink.RetainedNotSent
		}
	}
	return out
}

func (r *rules) filters() []string {
	out := make([]string, len(r.topics))
	for i, t := range r.topics {
		out[i] = t.pattern.filter
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
	for i := range topics {
		t := &topics[i]
		if t.Tag == "" || tags[t.Tag] {
			return fmt.Errorf("topics: tag %q of topic %q is empty or used twice", t.Tag, t.Topic)
		}
		tags[t.Tag] = true
		if err := t.validate(); err != nil {
			return fmt.Errorf("topics: %q: %w", t.Tag, err)
		}
		for _, other := range topics[:i] {
			if overlap(t.pattern.levels, other.pattern.levels) {
				return fmt.Errorf("topics: %q (%s) and %q (%s) overlap: a broker may deliver one message twice; narrow one of them, or use a second source with its own client_id",
					other.Tag, other.Topic, t.Tag, t.Topic)
			}
		}
	}
	return nil
}

var formats = []string{"json", "csv", "number", "text", "bytes"}

func (t *Topic) validate() (err error) {
	if t.pattern, err = parsePattern(t.Topic); err != nil {
		return err
	}
	switch {
	case !slices.Contains(formats, t.Format):
		return fmt.Errorf("format %q is none of %s", t.Format, strings.Join(formats, ", "))
	case t.Retained != "skip" && t.Retained != "use":
		return fmt.Errorf("retained %q is neither skip nor use", t.Retained)
	case t.Retained == "use" && t.pattern.shared:
		return errors.New("retained: use has no meaning with a shared subscription: brokers send it no retained messages")
	case t.MaxSize < 1:
		return fmt.Errorf("max_size %d is not above 0 bytes", t.MaxSize)
	}
	if err := t.CSV.Validate(); err != nil {
		return fmt.Errorf("csv: %w", err)
	}
	if err := t.Number.Validate(); err != nil {
		return fmt.Errorf("number: %w", err)
	}
	t.pattern.equipment, err = parseTemplate(t.Equipment)
	if err != nil {
		return fmt.Errorf("equipment: %w", err)
	}
	for _, name := range t.pattern.equipment.names() {
		if _, ok := t.pattern.named[name]; !ok {
			return fmt.Errorf("equipment %q: topic %q has no level {%s}", t.Equipment, t.Topic, name)
		}
	}
	if _, taken := t.pattern.named["equipment"]; taken && t.Equipment != "" {
		return errors.New("equipment: the topic has a level of that name already")
	}
	return nil
}
