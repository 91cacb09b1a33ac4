package checking_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// machine is a counter, the agent's own translator and what it remembers. What it makes goes to the hub as it is.
type machine struct {
	*plant
	tr   *translate.Translator
	kept map[string][]byte
	at   time.Time
}

func (m *machine) State(key string) []byte { return m.kept[key] }

func (m *machine) SetState(key string, v []byte) {
	if m.kept[key] = bytes.Clone(v); v == nil {
		delete(m.kept, key)
	}
}

func (m *machine) EachState(prefix string, f func(key string, v []byte)) {
	for _, k := range slices.Sorted(maps.Keys(m.kept)) {
		if strings.HasPrefix(k, prefix) {
			f(k, m.kept[k])
		}
	}
}

// newMachine has one counter with a rule's further keys.
func newMachine(p *plant, rule string) *machine {
	p.t.Helper()
	var rules struct{ Rules []translate.Rule }
	text := "rules:\n  - {name: good, rule: counter, source: press, tag: good, counts: yield, work_center: press1, order: '\"" + p.orders[0] + "\"', operation: '\"0010\"', item: BRACKET-10, unit: C62, " + rule + "}"
	if err := yaml.Load([]byte(text), &rules); err != nil {
		p.t.Fatal(err)
	}
	tr, err := translate.New(translate.Config{Plant: "ulm", Agent: "line1", Zone: "Europe/Berlin", Rules: rules.Rules}, factkey.Random)
	if err != nil {
		p.t.Fatal(err)
	}
	return &machine{plant: p, tr: tr, kept: map[string][]byte{}, at: time.Now().Add(-time.Hour)}
}

// shows lets the counter show values, seconds apart, and then time pass until all of it is told.
func (m *machine) shows(values ...any) {
	m.t.Helper()
	for _, v := range values {
		if boot, ok := v.(string); ok && strings.HasPrefix(boot, "boot ") {
			m.take(m.tr.Translate(m, m.at, signal.Batch{Source: "press", Signals: []signal.Signal{{Tag: "boot", Value: boot, ReceivedTime: m.at}}}))
			continue
		}
		m.at = m.at.Add(5 * time.Second)
		m.take(m.tr.Translate(m, m.at, signal.Batch{Source: "press", Signals: []signal.Signal{{Tag: "good", Value: signal.Number(fmt.Sprint(v)), ReceivedTime: m.at}}}))
	}
	m.at = m.at.Add(2 * time.Minute)
	m.take(m.tr.Tick(m, m.at))
}

func (m *machine) take(res translate.Result) {
	m.t.Helper()
	var records []store.Record
	for _, f := range res.Facts {
		fact, err := wire.DecodeFact(f.Body)
		if err != nil {
			m.t.Fatal(err)
		}
		records = append(records, store.Record{Key: f.Key, Body: f.Body})
		if m.seq++; fact.Exception == nil {
			m.facts = append(m.facts, fact)
			m.made[m.orders[0]] = m.made[m.orders[0]].Add(fact.Confirmation.Yield)
		}
	}
	if len(records) == 0 {
		return
	}
	if _, err := m.s.AppendFacts(m.t.Context(), []store.Batch{{AgentID: m.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: m.seq - uint64(len(records)) + 1, Records: records}}); err != nil {
		m.t.Fatal(err)
	}
}

// planned waits until the planner has seen all that was sent.
func (p *plant) planned() {
	p.t.Helper()
	realparts.Eventually(p.t, 20*time.Second, "the planner has come to the end", func() error {
		_, facts, err := p.s.Unplanned(p.t.Context(), 1)
		if err == nil && len(facts) > 0 {
			err = fmt.Errorf("facts from %d on are not planned", facts[0].ID)
		}
		return err
	})
}

// inbox lists what a person sees, by kind and code.
func (p *plant) inbox() (all []api.InboxEntry) {
	p.t.Helper()
	var list struct{ Items []api.InboxEntry }
	if err := json.Unmarshal(p.call("GET", "/v1/inbox", "", http.StatusOK), &list); err != nil {
		p.t.Fatal(err)
	}
	return list.Items
}

func (p *plant) sources() {
	p.t.Helper()
	p.planned()
	if err := p.check.Sources(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

func TestACounterThatWentBackIsOneDiscrepancyUntilAPersonDecides(t *testing.T) {
	p := newPlant(t)
	m := newMachine(p, "reset: hold")
	m.shows(500, 510, 3, 5)
	p.planned()
	if all := p.inbox(); len(all) != 1 || all[0].Kind != store.InboxException {
		t.Fatalf("before the comparison: %+v", all)
	}
	p.sources()
	p.sources()
	all := p.inbox()
	if len(all) != 1 || all[0].Kind != store.InboxDiscrepancy || all[0].Code != string(reconcile.CounterReset) || all[0].Owner != "automation" || all[0].Due.Before(time.Now()) || all[0].Tier != 1 {
		t.Fatalf("%+v", all)
	}
	d := p.only(reconcile.CounterReset)
	if d.State != reconcile.Escalated || d.Subject != "counter ulm/line1/press/good" || d.Left.Value != "510" || d.Right.Value != "3" || !strings.Contains(d.Proposed.Text, "up to 3") || len(d.Evidence) != 2 {
		t.Errorf("%+v", d)
	}
	if f, err := p.s.FactByKey(t.Context(), d.Evidence[1].Ref); err != nil || f.Fact.Exception == nil || f.Fact.Exception.Step == nil {
		t.Errorf("the evidence leads to %+v %v", f, err)
	}
	// It happens again before anybody has looked: still one, with the evidence of both.
	m.shows(900, 2)
	p.sources()
	if d = p.only(reconcile.CounterReset); d.Times != 2 || len(d.Evidence) != 4 || d.Left.Value != "900" {
		t.Errorf("%+v", d)
	}
	if err := p.check.Act(t.Context(), d.ID, "anna", "count it"); !errors.Is(err, checking.ErrByHand) {
		t.Errorf("the hub cannot count it, and said %v", err)
	}
	p.call("POST", fmt.Sprintf("/v1/discrepancies/%d/accept", d.ID), `{"note":"12 pieces booked by hand"}`, http.StatusOK)
	if all := p.inbox(); len(all) != 0 {
		t.Errorf("after the decision: %+v", all)
	}
	if d = p.only(reconcile.CounterReset); d.State != reconcile.Accepted || d.Steps[len(d.Steps)-1].By != "local" || d.Steps[len(d.Steps)-1].Note != "12 pieces booked by hand" {
		t.Errorf("%+v", d)
	}
	p.all()
	if all := p.inbox(); len(all) != 0 {
		t.Errorf("what was decided came again: %+v", all)
	}
	m.shows(500, 3) // another event that looks like the first
	p.sources()
	if all := p.inbox(); len(all) != 1 || all[0].Discrepancy == d.ID {
		t.Errorf("the next one: %+v", all)
	}
}

// What the agent decides by itself, and certainly, nobody has to see; what it decides by a rule somebody accepts.
func TestWhatTheAgentDecidesAboutACounterIsKeptAndShownAsFarAsItIsCertain(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		values     []any
		want       reconcile.Type
		state      reconcile.State
		shown      int
	}{
		{"boot", "boot: tags.boot", []any{"boot 1", 500, 510, "boot 2", 3, 5}, reconcile.CounterReset, reconcile.Healed, 0},
		{"no mark of the device", "equipment: press1", []any{500, 510, 3, 5}, reconcile.CounterReset, reconcile.Open, 1},
		{"held", "reset: hold", []any{500, 510, 3, 5}, reconcile.CounterReset, reconcile.Escalated, 1},
		{"rework", "equipment: press1", []any{500, 510, 505, 512}, reconcile.CounterStep, reconcile.Healed, 0},
		{"below what is confirmed", `close: {quantity: "5"}`, []any{500, 510, 506, 507, 512}, reconcile.CounterStep, reconcile.Escalated, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(t)
			m := newMachine(p, c.rule)
			m.shows(c.values...)
			p.verified()
			if run := p.all(); run.Found != 0 || run.Error != "" {
				t.Errorf("%+v", run)
			}
			d := p.only(c.want)
			if d.State != c.state || d.Note == "" || len(d.Evidence) == 0 {
				t.Errorf("%+v", d)
			}
			if all := p.inbox(); len(all) != c.shown {
				t.Errorf("the inbox shows %+v", all)
			}
			exceptions, err := p.s.Exceptions(t.Context(), store.ExceptionFilter{Closed: true}, store.Page{})
			for _, x := range exceptions {
				if x.Note != fmt.Sprintf("it is discrepancy %d", d.ID) {
					t.Errorf("exception %d: %q", x.ID, x.Note)
				}
			}
			if err != nil || len(exceptions) != 1 {
				t.Errorf("%+v %v", exceptions, err)
			}
		})
	}
}

// Rollovers and plain counting raise nothing.
func TestACounterThatOnlyCountsRaisesNothing(t *testing.T) {
	p := newPlant(t)
	m := newMachine(p, `modulus: "100", max_per_second: "10"`)
	m.shows(90, 95, 99, 3, 3, 40)
	m.shows(80, 5, 20)
	p.verified()
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) > 0 || len(p.inbox()) > 0 {
		t.Errorf("%+v %v", all, err)
	}
	if got := p.made[p.orders[0]].String(); got != "130" {
		t.Errorf("%s were counted", got)
	}
}

// What belongs to no order grows old as well.
func TestACounterNobodyLooksAtGoesUp(t *testing.T) {
	p := newPlant(t)
	newMachine(p, "equipment: press1").shows(500, 510, 3, 5)
	p.sources()
	p.policy(func(policy *reconcile.Policy) {
		policy.SLA = map[reconcile.Severity]time.Duration{reconcile.Low: time.Nanosecond}
	})
	if d := p.only(reconcile.CounterReset); d.Tier != 0 {
		t.Fatalf("%+v", d)
	}
	if err := p.s.DecideDiscrepancy(t.Context(), p.only(reconcile.CounterReset).ID, "test", "test", "its time is over", func(d *reconcile.Discrepancy) { d.Due = time.Now().Add(-time.Second) }); err != nil {
		t.Fatal(err)
	}
	p.sources()
	if d := p.only(reconcile.CounterReset); d.Tier != 1 || d.State != reconcile.Escalated {
		t.Errorf("%+v", d)
	}
}

// A Sparkplug node numbers its messages, and the agent tells of those that never came for as long as it shows the problem.
func TestASourceWhoseNumbersJumpIsOneDiscrepancyHoweverOftenTheAgentSaysSo(t *testing.T) {
	p := newPlant(t)
	say := func(gaps ...*pb.SourceGap) {
		t.Helper()
		if err := p.s.SetStatus(t.Context(), p.agent.ID, &pb.AgentStatus{State: "ok", Sources: []*pb.SourceStatus{{Name: "node", Kind: "sparkplug", State: "ok", Gaps: gaps}}}); err != nil {
			t.Fatal(err)
		}
		p.sources()
	}
	first := &pb.SourceGap{Item: "G/N", Reason: "10:00: 3 messages of the node (numbers 4 to 6) never came", Missing: 3}
	say()
	p.none("in order")
	say(first)
	say(first)
	d := p.only(reconcile.SequenceGap)
	if d.State != reconcile.Escalated || d.Subject != "source ulm/line1/node G/N" || d.Delta.String() != "3" || d.Times != 1 || len(d.Evidence) != 1 {
		t.Errorf("%+v", d)
	}
	say(&pb.SourceGap{Item: "G/N", Reason: "10:05: 1 messages of the node (numbers 9 to 9) never came", Missing: 1})
	if d = p.only(reconcile.SequenceGap); d.Times != 2 || len(d.Evidence) != 2 {
		t.Errorf("%+v", d)
	}
	if err := p.s.DecideDiscrepancy(t.Context(), d.ID, "accepted", "anna", "nothing was made then", func(d *reconcile.Discrepancy) { d.State = reconcile.Accepted }); err != nil {
		t.Fatal(err)
	}
	say(first)
	say(&pb.SourceGap{Item: "G/N", Reason: "10:05: 1 messages of the node (numbers 9 to 9) never came", Missing: 1})
	if d = p.only(reconcile.SequenceGap); d.State != reconcile.Accepted {
		t.Errorf("what was decided came again: %+v", d)
	}
}
