package status

import (
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)

// calm is a snapshot with nothing wrong.
func calm() Snapshot {
	return Snapshot{
		At: at, Uplink: Uplink{State: "connected", Since: at.Add(-time.Hour)},
		Business:  Buffer{Limit: 1000, Bytes: 10},
		Telemetry: Buffer{Limit: 1000, Bytes: 10},
		Sources:   []Source{{Name: "press1", State: "ok"}, {Name: "old", State: "stopped"}},
	}
}

func TestGravestFindingDecidesTheState(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *Snapshot)
		state  string
		reason string
	}{
		{"all is well", func(*Snapshot) {}, OK, ""},
		{"many records on their way are no trouble", func(s *Snapshot) { s.Business.Pending = 100_000 }, OK, ""},
		{"a source has failed", func(s *Snapshot) { s.Sources[0].State, s.Sources[0].Reason = "failed", "no route" }, Degraded, "source press1: no route"},
		{"a source connects", func(s *Snapshot) { s.Sources[0].State, s.Sources[0].Since = "connecting", at.Add(-30*time.Second) }, OK, ""},
		{"a source does not connect", func(s *Snapshot) { s.Sources[0].State, s.Sources[0].Since = "connecting", at.Add(-2*time.Minute) }, Degraded, "does not connect"},
		{"a source has a problem", func(s *Snapshot) {
			s.Sources[0].Problems = []Problem{{Code: "bad_node", Item: "ns=2;s=x", Reason: "not there"}}
		}, Degraded, "ns=2;s=x: not there"},
		{"quarantine", func(s *Snapshot) { s.Quarantined = 3 }, Degraded, "3 inputs"},
		{"quarantine overflows", func(s *Snapshot) { s.QuarantineDropped = 7 }, Degraded, "7 inputs that could not be used were pushed out"},
		{"a buffer file was damaged", func(s *Snapshot) { s.Business.Dropped, s.BufferDamage = 3, "records 5 to 7 are lost" }, Degraded, "records 5 to 7 are lost"},
		{"inbox was damaged", func(s *Snapshot) { s.InboxDamage = "the inbox was damaged" }, Degraded, "the inbox was damaged"},
		{"work order not taken", func(s *Snapshot) { s.WorkOrders = []Order{{OrderNo: "1001", State: "rejected", Reason: "no tool"}} }, Degraded, "1001 was not taken: no tool"},
		{"clock a little off", func(s *Snapshot) { s.HubClockSkew = "-30s" }, OK, ""},
		{"clock off", func(s *Snapshot) { s.HubClockSkew = "-41m0s" }, Degraded, "clock"},
		{"hub slower than the plant", func(s *Snapshot) { s.Business.FullInSeconds = 3600 }, Degraded, "full in 60 min"},
		{"buffer fills", func(s *Snapshot) { s.Business.FullInSeconds = 3*3600 + 1800 }, Degraded, "full in 3 h"},
		{"first seconds", func(s *Snapshot) { s.Uplink = Uplink{State: "connecting", Since: at.Add(-time.Second)} }, Degraded, "connecting to the hub"},
		{"hub never answered", func(s *Snapshot) { s.Uplink = Uplink{State: "connecting", Since: at.Add(-2 * time.Minute)} }, Offline, "not answered"},
		{"hub not reached", func(s *Snapshot) { s.Uplink = Uplink{State: "offline", Reason: "hub name not found"} }, Offline, "hub name not found"},
		{"hub says no", func(s *Snapshot) { s.Uplink = Uplink{State: "refused", Reason: "unknown agent"} }, Offline, "unknown agent"},
		{"offline and a source has failed", func(s *Snapshot) {
			s.Sources[0].State = "failed"
			s.Uplink = Uplink{State: "offline", Reason: "connection refused"}
		}, Offline, "connection refused (and 1 more)"},
		{"buffer full", func(s *Snapshot) {
			s.Uplink.State, s.Business.Held, s.Sources[0].State = "offline", true, "held"
		}, Losing, "held back: press1"},
		{"readings dropped long ago", func(s *Snapshot) { s.Telemetry.Dropped = 5 }, OK, ""},
		{"readings being dropped", func(s *Snapshot) { s.Telemetry.Dropped, s.Telemetry.Bytes = 5, 800 }, Losing, "readings are being dropped, 5"},
		{"facts lost", func(s *Snapshot) { s.Business.Dropped = 1 }, Degraded, "1 production records were lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := calm()
			s.State, s.Reason = Losing, "left over"
			c.change(&s)
			Judge(&s)
			if s.State != c.state || !strings.Contains(s.Reason, c.reason) || (c.reason == "") != (s.Reason == "") {
				t.Errorf("judged %q %q, want %q %q", s.State, s.Reason, c.state, c.reason)
			}
		})
	}
}

func TestExitCodesGrowWithGravity(t *testing.T) {
	for want, state := range []string{OK, Degraded, Offline, Losing} {
		if got := ExitCode(state); got != want {
			t.Errorf("exit code of %q is %d, want %d", state, got, want)
		}
	}
	if ExitCode("nonsense") != 1 {
		t.Error("an unknown state must not look healthy")
	}
}

func TestNewestReceiptIsFirst(t *testing.T) {
	list := []Receipt{{Key: "a", At: at}, {Key: "b", StoredAt: at.Add(time.Hour)}, {Key: "c", At: at.Add(time.Minute), StoredAt: at.Add(-time.Hour)}}
	NewestFirst(list)
	if got := list[0].Key + list[1].Key + list[2].Key; got != "bca" {
		t.Errorf("order is %s, want bca", got)
	}
}

func TestWhatElseIsWrongIsListedGravestFirst(t *testing.T) {
	s := calm()
	s.Uplink = Uplink{State: "offline", Reason: "connection refused"}
	s.Quarantined, s.Business.Held = 3, true
	Judge(&s)
	if s.State != Losing || len(s.Also) != 2 || s.Also[0].State != Offline || s.Also[1].State != Degraded || s.Also[1].NextStep == "" {
		t.Fatalf("state %s, also %+v", s.State, s.Also)
	}
	healed := calm()
	healed.Also = s.Also
	Judge(&healed)
	if len(healed.Also) != 0 {
		t.Errorf("a healthy agent keeps %+v", healed.Also)
	}
}
