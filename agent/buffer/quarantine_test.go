package buffer

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

func quarantine(t *testing.T, b *Buffer, inputs ...Quarantined) {
	t.Helper()
	err := b.Commit(t.Context(), func(tx *Tx) error {
		for _, q := range inputs {
			tx.Quarantine(q)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestQuarantineSurvivesItsSegment(t *testing.T) {
	b := open(t, small(t.TempDir()))
	want := Quarantined{
		Source: "mqtt", Tag: "counter", Code: "bad_json", Item: "qty", Reason: "the payload is not JSON",
		NextStep: "mend the publisher", Payload: []byte{0, 1, 0xff}, At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	quarantine(t, b, want, Quarantined{Item: "second"})
	n := fill(t, b, 4)
	if err := b.Ack(uint64(n)); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	list, err := b.Quarantined(10)
	if err != nil {
		t.Fatal(err)
	}
	want.ID = 1
	if len(list) != 2 || list[0].Item != "second" || fmt.Sprint(list[1]) != fmt.Sprint(want) {
		t.Fatalf("quarantine %+v, want %+v and before it the second", list, want)
	}
	if list[0].At.IsZero() {
		t.Error("an input without a time got none")
	}
	if err := b.RemoveQuarantined(1); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	quarantine(t, b, Quarantined{Item: "third"})
	list, err = b.Quarantined(10)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].ID != 3 || list[1].ID != 2 || b.Stats().Quarantined != 2 {
		t.Errorf("after a removal: %+v, want ids 3 and 2", list)
	}
}

func TestQuarantineDropsItsOldestAndCounts(t *testing.T) {
	b := open(t, Config{Dir: t.TempDir(), DiskReserve: -1})
	big := bytes.Repeat([]byte("p"), MaxQuarantinedPayload+5)
	for i := range 30 {
		quarantine(t, b, Quarantined{Item: fmt.Sprint(i), Payload: big})
	}
	s := b.Stats()
	if s.QuarantineDropped == 0 || s.Quarantined+s.QuarantineDropped != 30 {
		t.Errorf("%d in quarantine, %d dropped of 30", s.Quarantined, s.QuarantineDropped)
	}
	list, err := b.Quarantined(1)
	if err != nil {
		t.Fatal(err)
	}
	if list[0].Item != "29" || len(list[0].Payload) != MaxQuarantinedPayload {
		t.Errorf("newest is %q with %d bytes", list[0].Item, len(list[0].Payload))
	}
	many := make([]Quarantined, MaxQuarantined)
	quarantine(t, b, many...)
	if got := b.Stats(); got.Quarantined != MaxQuarantined || got.QuarantineDropped != 30 {
		t.Errorf("%d in quarantine, %d dropped, want %d and 30", got.Quarantined, got.QuarantineDropped, MaxQuarantined)
	}
	b = reopen(t, b)
	if got := b.Stats(); got.Quarantined != MaxQuarantined || got.QuarantineDropped != 30 {
		t.Errorf("after reopening %d in quarantine, %d dropped", got.Quarantined, got.QuarantineDropped)
	}
}

func TestRetriedInputLeavesTheQuarantineWithItsRecord(t *testing.T) {
	b := open(t, small(t.TempDir()))
	quarantine(t, b, Quarantined{Item: "a"})
	err := b.Commit(t.Context(), func(tx *Tx) error {
		tx.RemoveQuarantined(1)
		tx.Append([]byte("now it works"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	if n := b.Stats().Quarantined; n != 0 {
		t.Errorf("%d in quarantine, want 0", n)
	}
	wantBodies(t, b, "1:now it works")
}
