package translate

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const threeShifts = `
calendars:
  - name: plant
    posting_date: shift
    shifts:
      - {name: early, from: "06:00", to: "14:00"}
      - {name: late, from: "14:00", to: "22:00"}
      - {name: night, from: "22:00", to: "06:00"}
    exceptions:
      - {name: Christmas, dates: ["2026-12-25..2026-12-26"]}
      - {name: inventory, dates: ["2026-12-26"], shifts: [{name: stocktaking, from: "08:00", to: "12:00"}]}
`

func berlin(t testing.TB) *time.Location {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func plantCalendar(t testing.TB, text string) *calendar {
	t.Helper()
	tr, err := New(rules(t.(failer), text), keys())
	if err != nil {
		t.Fatal(err)
	}
	return tr.calendar
}

// On the days on which the clocks change, each minute still belongs to exactly one shift, and the night has 7 or 9 hours.
func TestShiftsCoverDaysOf23And25Hours(t *testing.T) {
	c := plantCalendar(t, threeShifts)
	for _, day := range []struct {
		date  string
		hours int
		night time.Duration
	}{{"2026-03-28", 23, 7 * time.Hour}, {"2026-10-24", 25, 9 * time.Hour}, {"2026-07-01", 24, 8 * time.Hour}} {
		start, err := time.ParseInLocation("2006-01-02 15:04", day.date+" 06:00", berlin(t))
		if err != nil {
			t.Fatal(err)
		}
		worked := map[string]time.Duration{}
		for i := range day.hours * 60 {
			at := start.Add(time.Duration(i) * time.Minute)
			w := c.at(at)
			worked[w.name+" "+w.date] += time.Minute
			if at.Before(w.start) || !at.Before(w.end) {
				t.Fatalf("%v is said to be in a shift from %v to %v", at, w.start, w.end)
			}
		}
		if got := worked["night "+day.date]; got != day.night || worked["early "+day.date] != 8*time.Hour || worked["late "+day.date] != 8*time.Hour || len(worked) != 3 {
			t.Errorf("from %s on, %v was worked", start, worked)
		}
	}
}

func TestShiftsThatBeginInTheHourThatComesTwiceOrNeverMeetWithoutGap(t *testing.T) {
	c := plantCalendar(t, `
calendars:
  - name: plant
    shifts: [{name: a, from: "22:00", to: "02:30"}, {name: b, from: "02:30", to: "22:00", date: start}]
`)
	for _, day := range []string{"2026-03-29", "2026-10-25"} {
		noon, _ := time.ParseInLocation("2006-01-02 15:04", day+" 12:00", berlin(t))
		b := c.at(noon)
		a := c.at(b.start.Add(-time.Second))
		if a.name != "a" || !a.end.Equal(b.start) {
			t.Errorf("on %s, a ends %v and b begins %v", day, a.end, b.start)
		}
		want := "2026-03-29T01:00:00Z" // the moment of the jump
		if day == "2026-10-25" {
			want = "2026-10-25T00:30:00Z" // the first of the two
		}
		if got := b.start.UTC().Format(time.RFC3339); got != want {
			t.Errorf("on %s, b begins at %s, want %s", day, got, want)
		}
	}
}

func TestHolidaysAndOtherDaysReplaceTheShiftsThatStartOnThem(t *testing.T) {
	c := plantCalendar(t, threeShifts)
	for at, want := range map[string]string{
		"2026-12-25 05:00": "night 2026-12-24", "2026-12-25 07:00": " ", "2026-12-26 09:00": "stocktaking 2026-12-26",
		"2026-12-26 13:00": " ", "2026-12-27 03:00": " ", "2026-12-27 06:00": "early 2026-12-27",
	} {
		when, _ := time.ParseInLocation("2006-01-02 15:04", at, berlin(t))
		if w := c.at(when); w.name+" "+w.date != want {
			t.Errorf("at %s the shift is %q, want %q", at, w.name+" "+w.date, want)
		}
	}
}

func TestFaultsOfCalendarsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		`{name: p, shifts: [{name: a, from: "6", to: "14:00"}]}`:                                            `must be times such as`,
		`{name: p, shifts: [{name: a, from: "06:00", to: "14:00"}, {name: b, from: "13:00", to: "22:00"}]}`: `shifts "a" and "b" overlap`,
		`{name: p, shifts: [{name: a, from: "22:00", to: "07:00"}, {name: b, from: "06:00", to: "14:00"}]}`: `begins before shift "a" of the day before has ended`,
		`{name: p, shifts: [{name: a, from: "06:00", to: "14:00", weekdays: [monday]}]}`:                    `weekday "monday" is none of`,
		`{name: p}`: `has no shifts`,
		`{name: p, posting_date: day, shifts: [{name: a, from: "06:00", to: "14:00"}]}`:                              `posting_date "day" is none of`,
		`{name: p, shifts: [{name: a, from: "06:00", to: "14:00"}], exceptions: [{name: x, dates: ["25.12.2026"]}]}`: `is neither a day`,
	} {
		cfg := rules(t, "calendars:\n  - "+text+"\n")
		var got []string
		for _, err := range cfg.Validate(nil) {
			got = append(got, err.Error())
		}
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s\n gives %q\n want %q", text, got, want)
		}
	}
}

// Each fact names its shift, and the shift's date goes into the books where the plant wants it.
func TestEachFactNamesShiftAndPostingDate(t *testing.T) {
	l := newLine(t, rules(t, threeShifts+`
rules:
  - {name: q, rule: record, source: mes, tag: q, fact: quality_status, fields: {status: payload, lot: "'L'"}}
`))
	l.send("mes", signal.Signal{Tag: "q", Value: "OK", SourceTime: time.Date(2026, 3, 3, 2, 0, 0, 0, berlin(t)), Position: "1"})
	h := l.facts[0].Header
	if h.Shift != "night" || h.ShiftDate != "2026-03-02" || h.PostingDate != "2026-03-02" {
		t.Errorf("header is %v", h)
	}
}

// What is open at the end of a shift is closed then, and a count belongs to the shift of its source's time.
func TestEndOfShiftClosesToTheSecond(t *testing.T) {
	l := newLine(t, rules(t, threeShifts+`
rules:
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, close: {every: 8h, on_shift_end: true}}
`))
	at := func(clock, v string) {
		when, _ := time.ParseInLocation("2006-01-02 15:04:05", "2026-03-02 "+clock, berlin(t))
		l.now = when
		l.send("plc", signal.Signal{Tag: "good", Value: num(v), SourceTime: when})
	}
	at("13:00:00", "100")
	at("13:30:00", "110")
	at("13:59:59", "115")
	if due, want := l.tr.NextTick(l.st), time.Date(2026, 3, 2, 14, 0, 0, 0, berlin(t)); !due.Equal(want) {
		t.Errorf("the next tick is due %v, want %v", due, want)
	}
	first := l.tick(time.Second)
	at("14:00:00", "120")
	at("22:00:00", "140")
	l.tick(time.Hour)
	if len(first) != 1 {
		t.Fatalf("%d facts at the end of the shift, want 1", len(first))
	}
	got := ""
	for _, f := range l.facts {
		got += f.Header.Shift + " " + f.GetProductionConfirmation().GetYield() + ", "
	}
	l.tick(8 * time.Hour)
	last := l.facts[len(l.facts)-1]
	if got += last.Header.Shift + " " + last.GetProductionConfirmation().GetYield(); got != "early 15, late 5, night 20" {
		t.Errorf("facts are %s", got)
	}
}
