package pace

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var usual = Config{Least: 8 << 10, First: 32 << 10, Most: 8 << 20, Queue: time.Second}

// line is a queue with a speed and a fixed way.
type line struct {
	now   time.Time
	speed float64 // bytes a second
	way   time.Duration
	free  time.Time // when the line has sent everything

	flights []flight
}

type flight struct {
	parcel Parcel
	due    time.Time
	size   int
}

// run keeps p's line as full as it allows for a time, and returns the bytes that arrived and the longest wait of a parcel
// in the second half.
func (l *line) run(p *Pace, span time.Duration, most int) (arrived int, longest time.Duration) {
	begin, end := l.now, l.now.Add(span)
	for l.now.Before(end) {
		for p.Room() {
			size := p.Piece(most)
			if l.free.Before(l.now) {
				l.free = l.now
			}
			l.free = l.free.Add(time.Duration(float64(size) / l.speed * float64(time.Second)))
			l.flights = append(l.flights, flight{p.Send(l.now, size), l.free.Add(l.way), size})
		}
		f := l.flights[0]
		l.flights = l.flights[1:]
		if f.due.After(l.now) {
			l.now = f.due
		}
		p.Arrived(l.now, f.parcel)
		arrived += f.size
		if took := l.now.Sub(f.parcel.at); l.now.Sub(begin) > span/2 && took > longest {
			longest = took
		}
	}
	return arrived, longest
}

func TestEveryLineIsKeptFullAndHoldsLittle(t *testing.T) {
	for _, c := range []struct {
		name  string
		speed float64
		way   time.Duration
		bound time.Duration // of a parcel's time
	}{
		{"9.6 kbit/s", 1200, 200 * time.Millisecond, 15 * time.Second},
		{"64 kbit/s", 8000, 50 * time.Millisecond, 4 * time.Second},
		{"64 kbit/s by satellite", 8000, 700 * time.Millisecond, 5 * time.Second},
		{"1 Mbit/s", 125_000, 30 * time.Millisecond, 2 * time.Second},
		{"1 Gbit/s", 125_000_000, time.Millisecond, 2 * time.Second},
		{"loopback with a slow commit", 50_000_000, 100 * time.Millisecond, 2 * time.Second},
	} {
		l := &line{now: time.Unix(0, 0), speed: c.speed, way: c.way}
		arrived, longest := l.run(New(usual), 2*time.Minute, 256<<10)
		use := float64(arrived) / (c.speed * 120)
		t.Logf("%s: %.0f %% used, a parcel takes %s at most", c.name, use*100, longest.Round(time.Millisecond))
		limit := float64(usual.Most) / c.way.Seconds() / c.speed // by the most that may be under way
		if want := min(0.9, 0.8*limit); use < want || longest > c.bound {
			t.Errorf("%s: used %.2f of the line, want %.2f; a parcel took %s, want at most %s", c.name, use, want, longest, c.bound)
		}
	}
}

func TestLineThatBecomesSlowIsHeldBackAndTakenUpAgain(t *testing.T) {
	l := &line{now: time.Unix(0, 0), speed: 1_000_000, way: 20 * time.Millisecond}
	p := New(usual)
	l.run(p, time.Minute, 256<<10)
	fast := p.Budget()
	l.speed = 8000
	if _, longest := l.run(p, 10*time.Minute, 256<<10); longest > 4*time.Second || p.Budget() > 20<<10 {
		t.Errorf("a parcel takes %s, budget %d", longest, p.Budget())
	}
	l.speed = 1_000_000
	l.run(p, time.Minute, 256<<10)
	if p.Budget() < fast/4 {
		t.Errorf("budget is %d, was %d", p.Budget(), fast)
	}
}

func TestOneLargeRecordDoesNotRaiseTheBudget(t *testing.T) {
	p := New(usual)
	now := time.Unix(0, 0)
	q := p.Send(now, 1<<20)
	if p.Room() || p.Needs() < 10*time.Minute {
		t.Errorf("room %v, needs %s", p.Room(), p.Needs())
	}
	p.Arrived(now.Add(131*time.Second), q)
	if p.Budget() > 32<<10 {
		t.Errorf("budget is %d", p.Budget())
	}
}

func TestBudgetStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := New(usual), time.Unix(0, 0)
		var flights []Parcel
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range 500 {
			now = now.Add(time.Duration(rng.Int64N(int64(3 * time.Second))))
			if len(flights) > 0 && rng.IntN(2) == 0 {
				p.Arrived(now, flights[0])
				flights = flights[1:]
			} else if p.Room() {
				flights = append(flights, p.Send(now, 1+rng.IntN(100_000)))
			}
			under := 0
			for _, f := range flights {
				under += f.size
			}
			if p.Under() != under || p.Budget() < usual.Least || p.Budget() > usual.Most || p.Piece(1000) != 1000 && p.Piece(1000) > 1000 {
				t.Fatalf("under %d (want %d), budget %d", p.Under(), under, p.Budget())
			}
			if len(flights) == 0 && !p.Room() {
				t.Fatal("no room on an empty line")
			}
		}
	})
}
