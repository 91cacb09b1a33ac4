package opcua

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func note(seq uint32) *message { return &message{seq: seq} }

func numbers(list []*message) (seqs []uint32) {
	for _, m := range list {
		seqs = append(seqs, m.seq)
	}
	return seqs
}

func TestMessagesComeOutInOrder(t *testing.T) {
	now := time.Unix(0, 0)
	const last = 1<<32 - 1
	tests := []struct {
		name  string
		next  uint32
		fresh bool
		in    []uint32
		want  []uint32
		rest  uint32 // the number that is missing afterwards, 0 for none
	}{
		{"in order", 1, true, []uint32{1, 2, 3}, []uint32{1, 2, 3}, 0},
		{"swapped", 1, true, []uint32{2, 1, 3}, []uint32{1, 2, 3}, 0},
		{"backwards", 7, false, []uint32{9, 8, 7}, []uint32{7, 8, 9}, 0},
		{"twice", 1, true, []uint32{1, 1, 2, 2, 1}, []uint32{1, 2}, 0},
		{"early twice", 1, true, []uint32{2, 2, 1}, []uint32{1, 2}, 0},
		{"one missing", 5, false, []uint32{5, 7, 8}, []uint32{5}, 6},
		{"first missing", 1, true, []uint32{2, 3}, nil, 1},
		{"wrap", last - 1, false, []uint32{last - 1, last, 1, 2}, []uint32{last - 1, last, 1, 2}, 0},
		{"swapped over the wrap", last, false, []uint32{2, 1, last}, []uint32{last, 1, 2}, 0},
		{"missing over the wrap", last, false, []uint32{1, 2}, nil, last},
		{"old over the wrap", 2, false, []uint32{last, 1, 2}, []uint32{2}, 0},
		{"a server that begins before 1", 1, true, []uint32{0, 1, 2}, []uint32{0, 1, 2}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrder(tt.next, tt.fresh)
			var got []uint32
			for _, seq := range tt.in {
				got = append(got, numbers(o.take(note(seq), now))...)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			missing := uint32(0)
			if o.missing() {
				missing = o.next
			}
			if missing != tt.rest {
				t.Errorf("missing %d, want %d", missing, tt.rest)
			}
		})
	}
}

func TestSignOfLifeRevealsAMissingMessage(t *testing.T) {
	now := time.Unix(100, 0)
	o := newOrder(4, false)
	o.expect(4, now)
	if o.missing() {
		t.Error("a sign of life with the next number is no gap")
	}
	o.expect(6, now)
	if !o.missing() {
		t.Fatal("messages 4 and 5 exist and are not missed")
	}
	if o.overdue(now.Add(time.Second), 2*time.Second) {
		t.Error("overdue before its time")
	}
	if !o.overdue(now.Add(2*time.Second), 2*time.Second) {
		t.Error("not overdue after its time")
	}
	if got := numbers(o.take(note(4), now)); len(got) != 1 || !o.missing() {
		t.Errorf("got %v, and 5 is missing: %v", got, o.missing())
	}
	o.take(note(5), now)
	if o.missing() {
		t.Error("a gap that is filled is still missed")
	}
	o.expect(3, now)
	if o.missing() || o.next != 6 {
		t.Error("an old sign of life changed something")
	}
}

func TestGivingUpGoesOnBehindTheGap(t *testing.T) {
	now := time.Unix(0, 0)
	o := newOrder(1<<32-2, false)
	o.take(note(3), now)
	o.take(note(4), now)
	o.expect(9, now)
	lost, ready := o.skip()
	if lost != 4 {
		t.Errorf("%d lost, want 4294967294, 4294967295, 1 and 2", lost)
	}
	if d := cmp.Diff([]uint32{3, 4}, numbers(ready)); d != "" {
		t.Error(d)
	}
	lost, ready = o.skip()
	if lost != 4 || len(ready) != 0 || o.next != 9 || o.missing() {
		t.Errorf("lost %d, ready %v, next %d", lost, ready, o.next)
	}
}

func TestDistanceHasNoZero(t *testing.T) {
	for _, tt := range []struct{ a, b, want uint32 }{
		{1, 1, 0}, {1, 2, 1}, {1<<32 - 1, 1, 1}, {1<<32 - 2, 2, 3}, {2, 1, 1<<32 - 2},
	} {
		t.Run(fmt.Sprint(tt.a, tt.b), func(t *testing.T) {
			if got := distance(tt.a, tt.b); got != tt.want {
				t.Errorf("distance is %d, want %d", got, tt.want)
			}
		})
	}
}

// Servers list a message's values item by item; counts must not move to another order because of that.
func TestValuesOfOneMessageComeInTheOrderOfTime(t *testing.T) {
	l := &loop{reader: &reader{sub: newSubscription("", table{})}}
	good, order := &item{tableItem: tableItem{Handle: 1, Tag: "good"}}, &item{tableItem: tableItem{Handle: 2, Tag: "order"}}
	l.sub.add(good)
	l.sub.add(order)
	at := func(it *item, second int, v any) change {
		return change{handle: it.Handle, value: dataValue{value: v, source: time.Unix(int64(second), 0), print: uint64(second)}}
	}
	m := &message{changes: []change{at(good, 10, 1), at(good, 20, 2), at(good, 15, 3), at(good, 40, 4), at(order, 5, "A"), at(order, 30, "B")}}
	var got []any
	for _, s := range l.signals(m, time.Unix(100, 0)) {
		got = append(got, s.Value)
	}
	// 3 was stamped by a clock that went back: it stays behind 2.
	if want := []any{"A", 1, 2, 3, "B", 4}; !slices.Equal(got, want) {
		t.Errorf("values came as %v, want %v", got, want)
	}
}

// A server that has fallen behind sends old values for a while; what it has not sent is lost with it, and the gap begins there.
func TestAGapBeginsWhereTheServerHadFallenBehind(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	now := start.Add(30 * time.Second)
	for _, tt := range []struct {
		name string
		at   time.Duration // of the newest value, by the server's clock
		skew time.Duration
		last bool
		want time.Duration
	}{
		{"behind", 5 * time.Second, 0, false, 5 * time.Second},
		{"behind, with a clock that is ahead", time.Hour + 5*time.Second, time.Hour, false, 5 * time.Second},
		{"nothing more to say", 5 * time.Second, 0, true, 30 * time.Second},
		{"a time in the future", time.Hour, 0, false, 0},
		{"a time long ago", -time.Hour, 0, false, 0},
	} {
		l := &loop{reader: &reader{sub: newSubscription("", table{}), skew: tt.skew}}
		l.sub.heard = start
		m := &message{last: tt.last, changes: []change{{value: dataValue{server: start.Add(tt.at - time.Second)}}, {value: dataValue{source: start.Add(tt.at)}}}}
		if got := l.heardUpTo(m, now).Sub(start); got != tt.want {
			t.Errorf("%s: everything is heard up to %s, want %s", tt.name, got, tt.want)
		}
	}
}
