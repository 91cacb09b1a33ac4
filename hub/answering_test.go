package hub

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

func TestAnERPThatDoesNotAnswerStandsInTheInboxUntilItDoes(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	health := map[string]posting.Health{"s4": {OK: true}, "erp2": {OK: true}}
	begin := func(names ...string) *answering {
		return &answering{store: s, names: names, health: func() map[string]posting.Health { return health }, log: slog.New(slog.DiscardHandler)}
	}
	a := begin("s4", "erp2")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// during lets time pass, and returns the open alarms as "subject: reason".
	during := func(d time.Duration) string {
		t.Helper()
		for end := now.Add(d); now.Before(end); now = now.Add(10 * time.Second) {
			if err := a.look(t.Context(), now); err != nil {
				t.Fatal(err)
			}
		}
		open, err := s.OpenAlarms(t.Context(), store.AlarmERPSilent, "")
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for name, why := range open {
			all = append(all, name+": "+why)
		}
		return strings.Join(all, "; ")
	}
	wants := func(got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("alarms %q, want %q", got, want)
		}
	}
	wants(during(time.Hour), "")
	health["s4"] = posting.Health{Reason: "connection refused"}
	wants(during(20*time.Second), "") // a moment is none
	health["s4"] = posting.Health{OK: true}
	wants(during(20*time.Second), "")
	health["s4"] = posting.Health{Reason: "connection refused"}
	wants(during(50*time.Second), "s4: postings wait: connection refused")
	wants(during(time.Hour), "s4: postings wait: connection refused")
	health["s4"] = posting.Health{OK: true}
	wants(during(30*time.Second), "s4: postings wait: connection refused") // it may come and go
	wants(during(time.Minute), "")
	if all, err := s.Alarms(t.Context(), true, store.Page{}); err != nil || len(all) != 1 || all[0].Times != 1 || all[0].Note != "it answers again" || !strings.Contains(all[0].NextStep, "goes on by itself") {
		t.Errorf("%+v %v", all, err)
	}
	// The other way fails, and the hub is started anew.
	if err := s.SetCursorError(t.Context(), "erp2", "log-in refused"); err != nil {
		t.Fatal(err)
	}
	wants(during(time.Minute), "erp2: changed work orders cannot be read: log-in refused")
	a = begin("s4", "erp2")
	wants(during(time.Minute), "erp2: changed work orders cannot be read: log-in refused")
	a = begin("s4")
	wants(during(time.Minute), "")
}
