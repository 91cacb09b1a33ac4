package recording

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Fact is a fact that rules made in a replay.
type Fact struct {
	Key     string            `json:"key"`
	OrderNo string            `json:"order_no,omitempty"`
	What    string            `json:"what"`
	Kind    string            `json:"kind"`
	Fields  map[string]string `json:"fields"`
	// Event is the number of the event that made it, 0 for what was still open at the end.
	Event uint64 `json:"event"`
	place int    // among the facts of its kind of the same event
}

// Sum is what rules counted of one thing in a replay, open remainders included.
type Sum struct {
	OrderNo   string `json:"order_no,omitempty"`
	Operation string `json:"operation,omitempty"`
	Item      string `json:"item,omitempty"`
	Kind      string `json:"kind"`
	Unit      string `json:"unit"`
	Before    string `json:"before"`
	After     string `json:"after"`
}

// run is what one set of rules made of a recording.
type run struct {
	facts []Fact
	sums  map[Sum]decimal.Decimal // by what is summed, Before and After empty
}

// memory is the state of a replay.
type memory map[string][]byte

func (m memory) State(key string) []byte { return m[key] }

func (m memory) SetState(key string, v []byte) {
	if v == nil {
		delete(m, key)
		return
	}
	m[key] = bytes.Clone(v)
}

func (m memory) EachState(prefix string, f func(key string, v []byte)) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(k, prefix) {
			f(k, m[k])
		}
	}
}

// Replay returns the facts that rules make of a recording, those of what was still open at its end last.
func Replay(h *Header, events []Event, cfg translate.Config) ([]Fact, error) {
	r, err := replay(h, events, cfg)
	if err != nil {
		return nil, err
	}
	return r.facts, nil
}

// replay gives a recording to rules. Keys that no source guarantees are numbered, so that two replays have the same.
func replay(h *Header, events []Event, cfg translate.Config) (*run, error) {
	cfg.Rules = slices.Clone(cfg.Rules)
	for i := range cfg.Rules { // recorded values are masked already
		cfg.Rules[i].Pseudonymise = nil
	}
	n := 0
	tr, err := translate.New(cfg, func() factkey.Key { n++; return factkey.Of("replay|" + strconv.Itoa(n)) })
	if err != nil {
		return nil, err
	}
	st := memory{}
	for k, v := range h.State {
		st[k] = v
	}
	r := &run{}
	before := ledger(tr, st)
	last := h.StartedAt
	for i := range events {
		e := &events[i]
		// A key of its own for each event: a rule that makes one fact more must not shift the keys of all that follow.
		n = int(e.Seq) << 20
		last = e.At
		if err := r.take(e.Seq, step(tr, st, e)); err != nil {
			return nil, err
		}
	}
	r.sums = ledger(tr, st)
	for k, v := range before {
		if is, kept := r.sums[k]; kept { // otherwise it was long over, and has been forgotten
			r.sums[k] = is.Sub(v)
		}
	}
	return r, r.take(0, tr.Tick(st, last.Add(closing)))
}

// closing is when, after the end of a recording, everything still open is closed to be compared.
const closing = 7 * 24 * time.Hour

func step(tr *translate.Translator, st translate.State, e *Event) translate.Result {
	switch {
	case e.Batch != nil:
		return tr.Translate(st, e.At, e.Batch.batch())
	case e.Order != nil:
		tr.Dispatched(st, e.At, *e.Order)
	case e.Tick:
		return tr.Tick(st, e.At)
	case e.Marks != nil:
		return tr.ResumeFrom(st, e.At, toMarks(e.Marks))
	}
	return translate.Result{}
}

func ledger(tr *translate.Translator, st translate.State) map[Sum]decimal.Decimal {
	out := map[Sum]decimal.Decimal{}
	for _, row := range tr.Ledger(st) {
		k := Sum{OrderNo: row.OrderNo, Operation: row.Operation, Item: row.Item, Kind: row.Kind, Unit: row.Unit}
		d, err := decimal.NewFromString(row.Counted)
		if err == nil {
			out[k] = out[k].Add(d)
		}
	}
	return out
}

func (r *run) take(event uint64, res translate.Result) error {
	places := map[string]int{}
	for _, f := range res.Facts {
		var m pb.Fact
		if err := proto.Unmarshal(f.Body, &m); err != nil {
			return fmt.Errorf("read a fact that the rules made: %w", err)
		}
		what, _ := translate.What(&m)
		out := Fact{Key: f.Key.String(), OrderNo: f.OrderNo, What: what, Event: event, Fields: map[string]string{}}
		fields(out.Fields, "", m.ProtoReflect())
		delete(out.Fields, "key")
		if x := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("content")); x != nil {
			out.Kind = string(x.Name())
		}
		out.place = places[out.Kind]
		places[out.Kind]++
		r.facts = append(r.facts, out)
	}
	return nil
}

// fields writes a message as names and texts.
func fields(into map[string]string, prefix string, m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := prefix + string(fd.Name())
		switch {
		case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp":
			seconds := v.Message().Get(fd.Message().Fields().ByName("seconds")).Int()
			nanos := v.Message().Get(fd.Message().Fields().ByName("nanos")).Int()
			into[name] = time.Unix(seconds, nanos).UTC().Format(time.RFC3339Nano)
		case fd.Message() != nil:
			fields(into, name+".", v.Message())
		case fd.Enum() != nil:
			into[name] = string(fd.Enum().Values().ByNumber(v.Enum()).Name())
		case fd.Kind() == protoreflect.BytesKind:
			into[name] = string(v.Bytes())
		default:
			into[name] = v.String()
		}
		return true
	})
}

// Change is a fact that both rules make, and differently.
type Change struct {
	Before Fact `json:"before"`
	After  Fact `json:"after"`
	// Fields are the names of those that differ; "key" is among them when the fact has another identity.
	Fields []string `json:"fields"`
}

// Difference is what a change of the rules would have made of a recording.
type Difference struct {
	RulesBefore string    `json:"rules_before"`
	RulesAfter  string    `json:"rules_after"`
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	Events      int       `json:"events"`
	Signals     int       `json:"signals"`
	FactsBefore int       `json:"facts_before"`
	FactsAfter  int       `json:"facts_after"`
	Same        int       `json:"same"`
	Missing     []Fact    `json:"missing"`
	Added       []Fact    `json:"added"`
	Changed     []Change  `json:"changed"`
	Sums        []Sum     `json:"sums"`
}

// Equal says that nothing would have been different.
func (d *Difference) Equal() bool {
	return len(d.Missing)+len(d.Added)+len(d.Changed)+len(d.Sums) == 0
}

// Compare replays a recording under two sets of rules.
func Compare(h *Header, events []Event, before, after translate.Config) (*Difference, error) {
	was, err := replay(h, events, before)
	if err != nil {
		return nil, fmt.Errorf("the rules of before: %w", err)
	}
	is, err := replay(h, events, after)
	if err != nil {
		return nil, fmt.Errorf("the changed rules: %w", err)
	}
	d := &Difference{From: h.StartedAt, To: h.StartedAt, Events: len(events), FactsBefore: len(was.facts), FactsAfter: len(is.facts), Missing: []Fact{}, Added: []Fact{}, Changed: []Change{}, Sums: []Sum{}}
	for _, e := range events {
		if e.Batch != nil {
			d.Signals += len(e.Batch.Signals)
		}
		if e.At.After(d.To) {
			d.To = e.At
		}
	}
	d.facts(was.facts, is.facts)
	d.sums(was.sums, is.sums)
	return d, nil
}

// facts pairs facts by their keys, and what is left by the event that made them.
func (d *Difference) facts(before, after []Fact) {
	left := pair(before, after, func(f *Fact) string { return f.Key }, d.compare)
	missing, added := left[0], left[1]
	left = pair(missing, added, func(f *Fact) string { return fmt.Sprintf("%d %s %d", f.Event, f.Kind, f.place) }, d.compare)
	d.Missing, d.Added = append(d.Missing, left[0]...), append(d.Added, left[1]...)
}

func pair(before, after []Fact, by func(*Fact) string, same func(a, b Fact)) (left [2][]Fact) {
	at := map[string]int{}
	for i := range after {
		at[by(&after[i])] = i
	}
	taken := make([]bool, len(after))
	for i := range before {
		j, ok := at[by(&before[i])]
		if !ok || taken[j] {
			left[0] = append(left[0], before[i])
			continue
		}
		taken[j] = true
		same(before[i], after[j])
	}
	for j := range after {
		if !taken[j] {
			left[1] = append(left[1], after[j])
		}
	}
	return left
}

func (d *Difference) compare(a, b Fact) {
	var names []string
	if a.Key != b.Key {
		names = append(names, "key")
	}
	for name := range a.Fields {
		if a.Fields[name] != b.Fields[name] {
			names = append(names, name)
		}
	}
	for name := range b.Fields {
		if _, ok := a.Fields[name]; !ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		d.Same++
		return
	}
	slices.Sort(names)
	d.Changed = append(d.Changed, Change{a, b, names})
}

func (d *Difference) sums(before, after map[Sum]decimal.Decimal) {
	all := maps.Clone(before)
	for k := range after {
		all[k] = decimal.Decimal{}
	}
	for k := range all {
		was, is := before[k], after[k]
		if !was.Equal(is) {
			k.Before, k.After = was.String(), is.String()
			d.Sums = append(d.Sums, k)
		}
	}
	slices.SortFunc(d.Sums, func(a, b Sum) int {
		return cmp.Or(cmp.Compare(a.OrderNo, b.OrderNo), cmp.Compare(a.Item, b.Item), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Unit, b.Unit))
	})
}
