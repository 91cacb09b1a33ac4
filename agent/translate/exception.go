package translate

import (
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// mergeFor is how long further exceptions of one (source, tag, code) are only counted after one became a fact.
	mergeFor = time.Minute
	// maxExcerpt is how many bytes of an input travel with an exception.
	maxExcerpt = 1024
)

// reject puts an input aside and tells of it. Of inputs that are equal byte for byte within a minute one is kept.
func (w *work) reject(source string, s *signal.Signal, rule string, p signal.Problem) {
	payload := s.Payload
	if payload == nil {
		payload = []byte(plain(s.Value))
	}
	w.quarantine(source, s, rule, p, nil, payload)
}

// rejectStep is reject of a counter's value that went back.
func (w *work) rejectStep(r *rule, s *signal.Signal, p signal.Problem, step *stepBack) {
	w.quarantine(r.source, s, r.name, p, step, []byte(plain(s.Value)))
}

func (w *work) quarantine(source string, s *signal.Signal, rule string, p signal.Problem, step *stepBack, payload []byte) {
	key, again := w.except(source, s, rule, p, step, payload)
	if again || w.muted {
		return
	}
	w.res.Quarantined = append(w.res.Quarantined, Quarantined{
		Key: key, Source: source, Tag: s.Tag, Topic: s.Topic, Rule: rule, Code: p.Code, Item: p.Item, Reason: p.Reason,
		NextStep: p.NextStep, Payload: payload, At: w.now,
	})
}

// note tells of something without putting an input aside: nothing of it is left to be replayed.
func (w *work) note(r *rule, s *signal.Signal, code, reason, next string) {
	w.noteStep(r, s, code, reason, next, nil)
}

// noteStep is note of a counter that went back.
func (w *work) noteStep(r *rule, s *signal.Signal, code, reason, next string, step *stepBack) {
	w.except(r.source, s, r.name, signal.Problem{Code: code, Item: s.Tag, Reason: reason, NextStep: next}, step, []byte(plain(s.Value)))
}

// except makes the exception's fact, at most one per (source, tag, code) and minute. again says that the very same input was
// told of within that minute.
func (w *work) except(source string, s *signal.Signal, rule string, p signal.Problem, step *stepBack, payload []byte) (key factkey.Key, again bool) {
	if w.muted {
		return key, true
	}
	hash := fnvStart
	for _, b := range payload {
		hash = fnvByte(hash, b)
	}
	item := p.Item
	if s.Topic != "" && !strings.Contains(item, s.Topic) {
		item = strings.TrimSpace(item + " (" + s.Topic + ")")
	}
	c := w.merges.get(w.st, source+sep+s.Tag+sep+p.Code)
	m := &c.v
	c.dirty = true
	if age := w.now.Sub(m.At); len(m.Key) == len(key) && age >= 0 && age < mergeFor {
		again = m.Hash == hash && m.Item == item
		m.N++
		if m.Hash = hash; !m.Step.undecided() || m.N == 1 || step.undecided() { // one that waits for a person is not told over by one that does not
			m.Rule, m.Item, m.Reason, m.NextStep, m.Step = rule, item, p.Reason, p.NextStep, step
		}
		w.due(m.At.Add(mergeFor))
		w.sayExcept(rule, p, factkey.Key(m.Key))
		return factkey.Key(m.Key), again
	}
	key = w.t.newKey()
	*m = merge{At: w.now, Key: key[:], N: m.N, Hash: hash, Rule: rule, Item: item, Reason: p.Reason, NextStep: p.NextStep, Step: step}
	w.tell(source, p.Code, m, w.timeOf(s), payload)
	w.sayExcept(rule, p, key)
	return key, false
}

func (w *work) sayExcept(rule string, p signal.Problem, key factkey.Key) {
	if w.explain != nil {
		w.explain.add("", w.now, Step{Rule: rule, Outcome: "exception", Key: key.String(), Text: utf8Text(p.Code + ": " + p.Reason + " (" + p.NextStep + ")")})
	}
}

// tell encodes the exception that m describes.
func (w *work) tell(source, code string, m *merge, at time.Time, payload []byte) {
	reason := m.Reason
	if m.N > 0 {
		reason = fmt.Sprintf("%s (and %d more like it)", reason, m.N)
	}
	m.N = 0
	e := &pb.SourceException{
		Code: utf8Text(code), Item: utf8Text(m.Item), Reason: utf8Text(reason), NextStep: utf8Text(m.NextStep),
		PayloadExcerpt: payload[:min(len(payload), maxExcerpt)], CounterStep: m.Step.proto(),
	}
	w.enc.fact.Content = &pb.Fact_SourceException{SourceException: e}
	w.emit(head{key: factkey.Key(m.Key), source: source, rule: m.Rule, occurred: at, exception: true}, "", nil)
}

func (s *stepBack) proto() *pb.CounterStep {
	if s == nil {
		return nil
	}
	m := &pb.CounterStep{Tag: utf8Text(s.Tag), Epoch: s.Epoch, Last: s.Last.String(), Now: s.Now.String(), At: timestamppb.New(s.At), Booted: s.Booted, Outcome: s.Outcome}
	if !s.LastAt.IsZero() {
		m.LastAt = timestamppb.New(s.LastAt)
	}
	if s.Modulus.IsPositive() {
		m.Modulus = s.Modulus.String()
	}
	if s.Most.IsPositive() {
		m.MaxPerSecond = s.Most.String()
	}
	return m
}

func utf8Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// tickMerge reports what was only counted, when its minute is over.
func (w *work) tickMerge(key string) {
	c := w.merges.get(w.st, key)
	m := &c.v
	if m.N == 0 {
		return
	}
	if age := w.now.Sub(m.At); age >= 0 && age < mergeFor {
		w.due(m.At.Add(mergeFor))
		return
	}
	source, rest, _ := strings.Cut(key, sep)
	_, code, _ := strings.Cut(rest, sep)
	k := w.t.newKey()
	m.N-- // the last one is the one told
	m.Key, m.At = k[:], w.now
	w.tell(source, code, m, w.now, nil)
	c.dirty = true
}

// ignored tells once per tag that no rule takes it; from then on it is ignored.
func (w *work) ignored(source string, s *signal.Signal) {
	key := prefixIgnored + source + sep + s.Tag
	if len(w.st.State(key)) > 0 {
		w.say("", "no_rule", "no rule takes this tag")
		return
	}
	w.say("", "no_rule", "no rule takes this tag")
	w.st.SetState(key, []byte{'1'})
	w.reject(source, s, "", signal.Problem{
		Code: "no_rule", Item: s.Tag, Reason: fmt.Sprintf("no rule takes tag %q of source %q; it is ignored from now on", s.Tag, source),
		NextStep: "add a rule for the tag (rule: reading keeps it as telemetry), or remove it from the source",
	})
}
