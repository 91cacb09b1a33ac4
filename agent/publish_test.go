package agent

import (
	"context"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// What is published of a tag is its newest value, and never something that is none.
func TestLatestValueOfATagIsTheNewest(t *testing.T) {
	l := &latest{tags: map[latestKey]signal.Metric{}}
	at := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	l.note(signal.Batch{Source: "press1", Signals: []signal.Signal{
		{Tag: "good", Value: signal.Number("7"), SourceTime: at},
		{Tag: "good", Value: signal.Number("5"), SourceTime: at.Add(-time.Hour)}, // stored by the source while nobody listened
		{Tag: "good", Value: nil, SourceTime: at.Add(time.Second), Problem: &signal.Problem{Code: "bad_value"}},
		{Tag: "state", Value: "run", ReceivedTime: at, Quality: signal.Uncertain},
	}})
	got := map[string]signal.Metric{}
	for _, m := range l.metrics(nil) {
		got[m.Name] = m
	}
	if m := got["Tags/press1/good"]; len(got) != 2 || m.Value != signal.Number("7") || !m.At.Equal(at) {
		t.Errorf("got %+v", got)
	}
	if m := got["Tags/press1/state"]; m.Value != "run" || m.Quality != signal.Uncertain || !m.At.Equal(at) {
		t.Errorf("got %+v", m)
	}
	var nobody *latest
	nobody.note(signal.Batch{Signals: []signal.Signal{{Tag: "x"}}})
	if list := nobody.metrics(nil); len(list) != 0 {
		t.Errorf("nobody publishes, and still there is %v", list)
	}
}

// What a source's own numbering shows as missing goes to the hub, counted, beside the sentence for people.
func TestTheHubIsToldWhatIsMissingByASourcesOwnNumbers(t *testing.T) {
	f := &fake{}
	f.run = func(ctx context.Context, _ []byte, _ signal.Emit) error {
		<-ctx.Done()
		return nil
	}
	fs := fakes{"node": f}
	a := start(t, testConfig(t.TempDir(), fs), fs)
	r := &reporter{board: a.board, source: "node"}
	r.Problem("gap", &signal.Problem{Code: "gap", Item: "g/n", Reason: "3 messages never came", Missing: 3})
	r.Problem("slow", &signal.Problem{Code: "slow", Item: "g/n", Reason: "it is slow"})
	src := a.hubStatus().Sources[0]
	if len(src.Problems) != 2 || len(src.Gaps) != 1 || src.Gaps[0].Missing != 3 || src.Gaps[0].Item != "g/n" || src.Gaps[0].Reason != "3 messages never came" || src.Gaps[0].At == nil {
		t.Errorf("the hub is told %v", src)
	}
	r.Problem("gap", nil)
	if src = a.hubStatus().Sources[0]; len(src.Gaps) != 0 {
		t.Errorf("the hub is told %v", src)
	}
}
