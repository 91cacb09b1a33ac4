package translate

import (
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// serial compiles a rule for pieces that are scanned one by one: a record whose identity is the number scanned. A number that
// comes again is the same piece, for as long as the agent remembers it (some 16,000 numbers of the source); the hub, which
// stores a key once, tells the later ones.
func (c *compiler) serial(r *rule) {
	cfg := c.cfg
	r.fact, r.serial = factConfirmation, true
	value := cfg.Value
	fallback(&value, "payload")
	r.id = c.expr("value", value, false)
	r.when = c.expr("when", cfg.When, false)
	r.position = factkey.Position("serial", c.t.plant, r.source, r.name)
	made := map[string]field{"": fYield, kindYield: fYield, kindScrap: fScrap, kindRework: fRework}
	counts, ok := made[cfg.Counts]
	if !ok {
		c.fault("counts", "%q is none of yield, scrap, rework", cfg.Counts)
	}
	if cfg.Reason != "" && counts == fYield {
		c.fault("reason", "is for scrap and rework")
	}
	unit := cfg.Unit
	fallback(&unit, "C62")
	c.map1(r, fSerial, r.id)
	c.map1(r, counts, &expr{src: "1", lit: signal.Number("1")})
	c.map1(r, fUnit, &expr{src: unit, lit: c.unit(unit)})
	if cfg.Item != "" {
		c.map1(r, fItem, &expr{src: cfg.Item, lit: cfg.Item})
	}
	for _, f := range []struct {
		key, src string
		to       field
	}{
		{"order", cfg.Order, fOrder}, {"operation", cfg.Operation, fOperation}, {"lot", cfg.Lot, fLot}, {"person", cfg.Person, fPerson},
		{"reason", cfg.Reason, fScrapReason}, {"occurred_at", cfg.OccurredAt, fOccurredAt},
	} {
		c.map1(r, f.to, c.expr(f.key, f.src, false))
	}
	if r.orderOfRun = !r.has[fOrder]; r.orderOfRun && cfg.WorkCenter == "" {
		c.fault("work_center", "is missing; it says whose order the piece is counted on, unless order: does")
	}
}

func (c *compiler) map1(r *rule, f field, e *expr) {
	if e != nil {
		r.has[f] = true
		r.fields = append(r.fields, mapped{f, e})
	}
}

// blank tells that a scanner shows nothing.
func (w *work) blank(r *rule, in *scope) bool {
	v, err := r.id.eval(in)
	if err != nil || !(v == nil || v == "") {
		return false
	}
	w.say(r.name, "skipped", "no number is shown")
	return true
}
