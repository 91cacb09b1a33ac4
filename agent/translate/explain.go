package translate

import (
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Explained is what one signal became, and why.
type Explained struct {
	Source  string            `json:"source"`
	Tag     string            `json:"tag"`
	Topic   string            `json:"topic,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Value   string            `json:"value"`
	Quality string            `json:"quality"`
	Status  string            `json:"status,omitempty"`
	At      time.Time         `json:"at"`
	Steps   []Step            `json:"steps"`
}

// Step is one thing that a rule, or the lack of one, did with a signal.
type Step struct {
	// Rule is empty for what concerns no rule.
	Rule string `json:"rule,omitempty"`
	// Outcome is fact, exception, counted, baseline, unchanged, waiting, reading, kept, skipped, repeated or no_rule.
	Outcome string `json:"outcome"`
	// Text says it in words. Key is the fact's or the exception's, OrderNo its order.
	Text    string `json:"text"`
	Key     string `json:"key,omitempty"`
	OrderNo string `json:"order_no,omitempty"`
}

// TranslateExplained is Translate that also says what became of each signal. Facts that are made later, when their time
// comes, are explained by TickExplained.
func (t *Translator) TranslateExplained(st State, now time.Time, b signal.Batch) (Result, []Explained) {
	w := t.begin(st, now)
	w.explain = &explainer{all: make([]Explained, 0, len(b.Signals)), batch: true}
	res := w.batch(b)
	return res, w.explain.all
}

// TickExplained is Tick that also says what was closed: one Explained of each source that closed something, with no tag.
func (t *Translator) TickExplained(st State, now time.Time) (Result, []Explained) {
	w := t.begin(st, now)
	w.explain = &explainer{}
	res := w.tick()
	return res, w.explain.all
}

type explainer struct {
	all   []Explained
	batch bool // a signal is being worked on: all that happens is its doing
}

// begin starts the explanation of a signal.
func (x *explainer) begin(source string, s *signal.Signal, at time.Time) {
	value := plain(s.Value)
	if s.Problem != nil && s.Value == nil {
		value = readable(string(s.Payload[:min(len(s.Payload), maxExcerpt)]))
	}
	x.all = append(x.all, Explained{
		Source: source, Tag: readable(s.Tag), Topic: utf8Text(s.Topic), Labels: s.Labels, Value: value, Quality: s.Quality.String(), Status: utf8Text(s.Status), At: at,
		Steps: []Step{},
	})
}

// add notes a step; source is whose fact it is, empty for what concerns the signal itself.
func (x *explainer) add(source string, at time.Time, s Step) {
	if n := len(x.all); n == 0 || !x.batch && source != "" && x.all[n-1].Source != source {
		x.all = append(x.all, Explained{Source: source, At: at})
	}
	last := &x.all[len(x.all)-1]
	last.Steps = append(last.Steps, s)
}

// say notes a step where somebody asked for explanations. Callers on the way of each signal ask themselves first, so that
// nothing is put into words for nobody.
func (w *work) say(rule, outcome, format string, args ...any) {
	if w.explain != nil {
		w.explain.add("", w.now, Step{Rule: rule, Outcome: outcome, Text: fmt.Sprintf(format, args...)})
	}
}
