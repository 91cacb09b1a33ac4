package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Calendar says which shift the plant works when. Its times are wall clock times of the plant's zone. The days on which the
// clocks change have 23 or 25 hours, and so has the shift that works then: a time that the clock jumps over stands for the
// moment of the jump, a time that comes twice for the first of the two.
type Calendar struct {
	Name string `yaml:"name"`
	// WorkCenters are those that the calendar is for. Default: all that no other calendar names.
	WorkCenters []string `yaml:"work_centers"`
	// PostingDate is calendar (default: a fact goes into the books at the plant's local date) or shift (at the shift's date).
	PostingDate string  `yaml:"posting_date"`
	Shifts      []Shift `yaml:"shifts"`
	// Exceptions replace the shifts of single days. The last one that names a day counts.
	Exceptions []DayException `yaml:"exceptions"`
}

// Shift is one shift of a day.
type Shift struct {
	Name string `yaml:"name"`
	// From and To are wall clock times such as "22:00"; a To that is not after From is on the next day. "24:00" is midnight.
	From string `yaml:"from"`
	To   string `yaml:"to"`
	// Weekdays are the days on which the shift starts: mon, tue, wed, thu, fri, sat, sun. Default: all. In an exception it must
	// be empty.
	Weekdays []string `yaml:"weekdays"`
	// Date is start (default: the shift has the date of the day on which it starts) or end.
	Date string `yaml:"date"`
}

// DayException is one or more days with other shifts.
type DayException struct {
	Name string `yaml:"name"`
	// Dates are days (2026-12-25) and ranges of days (2026-12-24..2027-01-01).
	Dates []string `yaml:"dates"`
	// Shifts are those that start on these days. Default: none, the plant is closed.
	Shifts []Shift `yaml:"shifts"`
}

// calendar is a Calendar ready for work.
type calendar struct {
	name    string
	zone    *time.Location
	byShift bool // the posting date is the shift's
	week    [7][]span
	days    []days
}

// span is a shift of a day: minutes of its wall clock, to above 24 hours on the next day.
type span struct {
	name     string
	from, to int
	dateEnd  bool
}

type days struct {
	from, to string
	shifts   []span
}

// worked is a shift that was, or will be, worked: the instants from start to before end.
type worked struct {
	name, date string
	start, end time.Time
}

// at returns the shift at t. Without a shift, its name is empty and end is when the next one within two days begins, zero
// without one.
func (c *calendar) at(t time.Time) worked {
	y, m, d := t.In(c.zone).Date()
	var next time.Time
	for off := -1; off <= 2; off++ {
		day := time.Date(y, m, d+off, 0, 0, 0, 0, time.UTC)
		for _, s := range c.on(day) {
			w := s.worked(day, c.zone)
			if !t.Before(w.start) && t.Before(w.end) {
				return w
			}
			if w.start.After(t) && w.end.After(w.start) && (next.IsZero() || w.start.Before(next)) {
				next = w.start
			}
		}
	}
	return worked{end: next}
}

func (c *calendar) on(day time.Time) []span {
	date := day.Format(time.DateOnly)
	for i := len(c.days) - 1; i >= 0; i-- {
		if x := &c.days[i]; x.from <= date && date <= x.to {
			return x.shifts
		}
	}
	return c.week[day.Weekday()]
}

func (s *span) worked(day time.Time, zone *time.Location) worked {
	w := worked{name: s.name, date: day.Format(time.DateOnly), start: wall(day, s.from, zone), end: wall(day, s.to, zone)}
	if s.dateEnd && s.to > 24*60 {
		w.date = day.AddDate(0, 0, 1).Format(time.DateOnly)
	}
	return w
}

// wall is the instant at which the clocks of a zone show a time of a day (minutes, also of the next day): the first where
// they show it twice, that of the jump where they never do.
func wall(day time.Time, minutes int, zone *time.Location) time.Time {
	y, m, d := day.Date()
	t := time.Date(y, m, d, 0, minutes, 0, 0, zone)
	want := time.Date(y, m, d, 0, minutes, 0, 0, time.UTC)
	_, offset := t.Zone()
	shown := t.Add(time.Duration(offset) * time.Second).UTC()
	start, end := t.ZoneBounds()
	switch {
	case shown.After(want):
		return start
	case shown.Before(want):
		return end
	case start.IsZero():
		return t
	}
	_, before := start.Add(-time.Nanosecond).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(start) {
		return first
	}
	return t
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// calendars compiles all calendars into t and returns their faults.
func (t *Translator) addCalendars(list []Calendar) (errs []error) {
	names := map[string]bool{}
	for i := range list {
		cfg := &list[i]
		fault := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("calendars: calendar %q: %s", cfg.Name, fmt.Sprintf(format, args...)))
		}
		if cfg.Name == "" || names[cfg.Name] {
			fault("needs a name of its own")
		}
		names[cfg.Name] = true
		c := compileCalendar(cfg, t.zone, fault)
		if len(cfg.WorkCenters) == 0 {
			if t.calendar != nil {
				fault("is the second one without work_centers; only one can be for all others")
			}
			t.calendar = c
		}
		for _, center := range cfg.WorkCenters {
			if t.calendars[center] != nil {
				fault("work centre %q has another calendar already", center)
			}
			t.calendars[center] = c
		}
	}
	return errs
}

func compileCalendar(cfg *Calendar, zone *time.Location, fault func(string, ...any)) *calendar {
	c := &calendar{name: cfg.Name, zone: zone, byShift: cfg.PostingDate == "shift"}
	if p := cfg.PostingDate; p != "" && p != "shift" && p != "calendar" {
		fault("posting_date %q is none of calendar, shift", p)
	}
	if len(cfg.Shifts) == 0 {
		fault("has no shifts")
	}
	for _, s := range cfg.Shifts {
		sp := compileShift(&s, fault)
		for day := range c.week {
			if len(s.Weekdays) == 0 || slices.Contains(s.Weekdays, weekdays[day]) {
				c.week[day] = append(c.week[day], sp)
			}
		}
		for _, day := range s.Weekdays {
			if !slices.Contains(weekdays, day) {
				fault("shift %q: weekday %q is none of %s", s.Name, day, strings.Join(weekdays, ", "))
			}
		}
	}
	for day := range c.week {
		overlap(weekdays[day], c.week[(day+6)%7], c.week[day], fault)
	}
	for _, x := range cfg.Exceptions {
		c.except(&x, fault)
	}
	return c
}

// overlap names shifts of one day, or of the day before, that are worked at the same time.
func overlap(day string, before, today []span, fault func(string, ...any)) {
	for i, a := range today {
		for _, b := range before {
			if b.to-24*60 > a.from {
				fault("on %s, shift %q begins before shift %q of the day before has ended", day, a.name, b.name)
			}
		}
		for _, b := range today[:i] {
			if a.from < b.to && b.from < a.to {
				fault("on %s, shifts %q and %q overlap", day, b.name, a.name)
			}
		}
	}
}

func compileShift(s *Shift, fault func(string, ...any)) span {
	from, okFrom := clock(s.From)
	to, okTo := clock(s.To)
	if s.Name == "" {
		fault("a shift has no name")
	}
	if !okFrom || !okTo || from == 24*60 {
		fault("shift %q: from %q and to %q must be times such as \"06:00\"", s.Name, s.From, s.To)
	}
	if to <= from {
		to += 24 * 60
	}
	if s.Date != "" && s.Date != "start" && s.Date != "end" {
		fault("shift %q: date %q is none of start, end", s.Name, s.Date)
	}
	return span{name: s.Name, from: from, to: to, dateEnd: s.Date == "end"}
}

// clock reads "22:30" as minutes.
func clock(text string) (int, bool) {
	h, m, ok := strings.Cut(text, ":")
	hours, err1 := strconv.Atoi(h)
	minutes, err2 := strconv.Atoi(m)
	ok = ok && err1 == nil && err2 == nil && len(m) == 2 && len(h) > 0 && len(h) <= 2
	return hours*60 + minutes, ok && hours >= 0 && minutes >= 0 && minutes < 60 && hours*60+minutes <= 24*60
}

func (c *calendar) except(x *DayException, fault func(string, ...any)) {
	var shifts []span
	for _, s := range x.Shifts {
		if len(s.Weekdays) > 0 {
			fault("exception %q: shift %q must not have weekdays", x.Name, s.Name)
		}
		shifts = append(shifts, compileShift(&s, fault))
	}
	overlap("exception "+strconv.Quote(x.Name), nil, shifts, fault)
	if len(x.Dates) == 0 {
		fault("exception %q names no dates", x.Name)
	}
	for _, text := range x.Dates {
		from, to, ranged := strings.Cut(text, "..")
		if !ranged {
			to = from
		}
		_, err1 := time.Parse(time.DateOnly, from)
		_, err2 := time.Parse(time.DateOnly, to)
		if err1 != nil || err2 != nil || to < from {
			fault("exception %q: %q is neither a day (2026-12-25) nor a range of days (2026-12-24..2026-12-26)", x.Name, text)
		}
		c.days = append(c.days, days{from, to, shifts})
	}
}

// calendarOf is the calendar of a work centre; nil without one.
func (t *Translator) calendarOf(center string) *calendar {
	if c := t.calendars[center]; c != nil {
		return c
	}
	return t.calendar
}

// shift is the calendar's at, which remembers the last answer: the facts of a batch lie close together.
func (w *work) shift(c *calendar, t time.Time) worked {
	if c == nil || t.IsZero() {
		return worked{}
	}
	if last, ok := w.shifts[c]; ok && last.name != "" && !t.Before(last.start) && t.Before(last.end) {
		return last
	}
	s := c.at(t)
	if w.shifts == nil {
		w.shifts = map[*calendar]worked{}
	}
	w.shifts[c] = s
	return s
}
