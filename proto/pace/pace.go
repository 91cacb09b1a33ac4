// Package pace measures a line by its acknowledgements and says how much may be under way on it.
//
// Both ends of the uplink use it. A line of 64 kbit/s must not hold half a minute of backlog, because what is urgent would
// wait behind it and the line would count as dead; a fast line must be kept full. Package pace promises that what waits on
// the line stays near Queue of its own speed, whatever that is, once a few acknowledgements have come. It never waits,
// never looks at a clock and is not safe for use by several goroutines.
package pace

import "time"

// Config bounds a pace. All fields are needed.
type Config struct {
	// Least, First and Most bound the bytes under way: always allowed, allowed before anything is known, allowed at most.
	Least, First, Most int
	// Queue is how long bytes may wait on the line beyond what it takes by itself.
	Queue time.Duration
}

// small is the size up to which the time of a parcel shows the line itself rather than its own length.
const small = 16 << 10

// Pace is the state of one direction. Make one with New.
type Pace struct {
	c         Config
	budget    int
	under     int
	delivered int64
	base      time.Duration // what the line takes by itself; 0: not known
	rate      float64       // bytes a second
	sure      bool          // rate was measured while the line was full
}

// Parcel is something under way.
type Parcel struct {
	size      int
	at        time.Time
	delivered int64
	alone     bool
	full      bool
}

// New returns a pace that knows nothing of its line.
func New(c Config) *Pace { return &Pace{c: c, budget: c.First} }

// Room reports whether another parcel may be sent. One may always be.
func (p *Pace) Room() bool { return p.under == 0 || p.under < p.budget }

// Budget is how many bytes may be under way.
func (p *Pace) Budget() int { return p.budget }

// Under is how many are.
func (p *Pace) Under() int { return p.under }

// Piece is the size of a parcel that lets acknowledgements come several times within the budget, at most most.
func (p *Pace) Piece(most int) int { return min(max(p.budget/4, p.c.Least/2), most) }

// Rate is the line's speed in bytes a second; sure is false while it was never full, so that it may be faster.
func (p *Pace) Rate() (bytes float64, sure bool) { return p.rate, p.sure }

// Needs is how long what is under way may take, twice over; a line that was never measured is thought to be as slow as
// 1 KiB/s for what exceeds the first budget.
func (p *Pace) Needs() time.Duration {
	if p.rate > 0 {
		return time.Duration(2 * float64(p.under) / p.rate * float64(time.Second))
	}
	return time.Duration(max(0, p.under-p.c.First)) * time.Second >> 10
}

// Send notes a parcel of size bytes that is put on the line.
func (p *Pace) Send(now time.Time, size int) Parcel {
	q := Parcel{size: size, at: now, delivered: p.delivered, alone: p.under == 0}
	p.under += size
	q.full = p.under >= p.budget-p.Piece(p.budget)
	return q
}

// Arrived notes that a parcel was acknowledged.
func (p *Pace) Arrived(now time.Time, q Parcel) {
	p.under -= q.size
	p.delivered += int64(q.size)
	took := max(now.Sub(q.at), time.Microsecond)
	speed := float64(p.delivered-q.delivered) / took.Seconds()
	p.measure(speed, q.full)
	if q.size <= small && (q.alone || p.base == 0 || took < p.base) {
		p.base = took
	}
	switch waited := took - p.base; {
	case waited > p.c.Queue:
		p.budget = min(p.budget, max(p.c.Least, int(speed*(p.base+p.c.Queue).Seconds())))
	case waited < p.c.Queue/2 && q.full:
		p.budget = min(p.c.Most, p.budget+q.size)
	}
}

func (p *Pace) measure(speed float64, full bool) {
	switch {
	case speed > p.rate:
		p.rate = speed
	case full:
		p.rate += (speed - p.rate) / 8
	}
	p.sure = p.sure || full
}
