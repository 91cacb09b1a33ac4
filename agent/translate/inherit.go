package translate

import "time"

// redeal begins a new epoch for steps that are dealt out anew: positions of before mean something else.
func (w *work) redeal(r *rule, c *counter) {
	w.close(c)
	c.Dealt = nil
	if r.share != nil {
		from := r.share.from
		c.Dealt = &from
	}
	if c.Line != "" {
		c.Epoch, c.Told, c.Before, c.Fresh = c.Epoch+1, false, nil, false
	}
}

// lately is how long a counter may have stood still to be taken up under another name.
const lately = time.Hour

// inherit lets a counter whose rule got outputs, or lost them, go on where the counter of before stood, so that the change costs
// no step. What stood still for long is not taken up: the rule may have been away in between.
func (w *work) inherit(r *rule) {
	old := w.before(r)
	if old == nil {
		return
	}
	if age := w.now.Sub(old.Seen); age > lately || age < -lately {
		return
	}
	for _, to := range w.t.byTag[r.source][r.tag] {
		if to.kind != kindCounter || to.scale != nil {
			continue
		}
		if cell := w.counter(to); cell.v.Line == "" {
			cell.v = counter{Source: to.source, Tag: to.meter, Line: w.newLine(), Epoch: 1, At: old.Raw, Raw: old.Raw, Seen: old.Seen, Clock: old.Clock, Boot: old.Boot}
			cell.dirty = true
		}
	}
}

// before takes the newest counter away that counted the tag of r under another name.
func (w *work) before(r *rule) (newest *counter) {
	var keys []string
	if r.meter != r.tag {
		keys = append(keys, r.source+sep+r.tag)
	}
	for _, key := range keysUnder(w.st, prefixCounter+r.source+sep+r.tag+"#") {
		keys = append(keys, r.source+sep+r.tag+"#"+key)
	}
	for _, key := range keys {
		cell := w.counters.get(w.st, key)
		if cell.v.Line == "" || w.t.byMeter[[2]string{r.source, cell.v.Tag}] != nil {
			continue
		}
		w.close(&cell.v)
		if old := cell.v; newest == nil || old.Seen.After(newest.Seen) {
			newest = &old
		}
		cell.v, cell.dirty = counter{}, true
	}
	return newest
}
