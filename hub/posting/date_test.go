package posting

import (
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

func TestPostingDateIsTheShiftsWhereThePlantSaysSo(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	f := object.Fact{OccurredAt: time.Date(2026, 3, 2, 1, 30, 0, 0, zone)}
	for set, want := range map[string]string{"": "2026-03-02", "2026-03-01": "2026-03-01"} {
		f.PostingDate = set
		if got := postingDate(f).Format(time.RFC3339); got != want+"T00:00:00Z" {
			t.Errorf("with %q the posting date is %s, want %s", set, got, want)
		}
	}
}
