package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// Compared chooses the orders to reconcile. Zero times do not bound; From is included, To is not.
type Compared struct {
	Plant, OrderNo string
	From, To       time.Time
}

// OrdersToCompare returns at most limit numbers of orders that have facts of a plant and time, in their order, above a number.
func (s *Store) OrdersToCompare(ctx context.Context, f Compared, after string, limit int) ([]string, error) {
	var w where
	w.and("order_no > ?", after)
	w.andText("plant = ?", f.Plant)
	w.andText("order_no = ?", f.OrderNo)
	if !f.From.IsZero() {
		w.and("occurred_at >= ?", us(f.From))
	}
	if !f.To.IsZero() {
		w.and("occurred_at < ?", us(f.To))
	}
	all, err := collect(ctx, s, scanValue[string], "SELECT DISTINCT order_no FROM fact_index"+w.String()+" ORDER BY order_no LIMIT "+fmt.Sprint(limit), w.args...)
	if err == nil {
		all, err = s.correctedTo(ctx, w, all, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("list orders to reconcile: %w", err)
	}
	return all, nil
}

// correctedTo adds the orders that only corrections led facts to.
func (s *Store) correctedTo(ctx context.Context, w where, all []string, limit int) ([]string, error) {
	more, err := collect(ctx, s, scanValue[string], `SELECT DISTINCT order_no FROM (SELECT c.new_order_no AS order_no, x.plant, x.occurred_at
		FROM corrections c JOIN fact_index x ON x.fact_id = c.fact_id WHERE c.new_order_no <> c.old_order_no) moved`+w.String()+" ORDER BY order_no LIMIT "+fmt.Sprint(limit), w.args...)
	if err != nil || len(more) == 0 {
		return all, err
	}
	all = append(all, more...)
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), limit)], nil
}

// OrdersChanged returns the orders whose postings took a step after step number after and not later than until, in at most
// limit steps, and the number of the last step. It returns after itself when there is none.
func (s *Store) OrdersChanged(ctx context.Context, after int64, until time.Time, limit int) (orders []string, last int64, err error) {
	type step struct {
		id, at int64
		order  string
	}
	steps, err := collect(ctx, s, func(r *sql.Rows) (x step, err error) { return x, r.Scan(&x.id, &x.at, &x.order) },
		`SELECT s.id, s.at, p.order_no FROM posting_steps s JOIN postings p ON p.fact_id = s.fact_id WHERE s.id > $1 ORDER BY s.id LIMIT `+fmt.Sprint(limit), after)
	if err != nil {
		return nil, after, fmt.Errorf("list steps of postings: %w", err)
	}
	last = after
	seen := map[string]bool{}
	for _, x := range steps {
		if x.at > us(until) {
			break
		}
		last = x.id
		if x.order != "" && !seen[x.order] {
			seen[x.order] = true
			orders = append(orders, x.order)
		}
	}
	return orders, last, nil
}

// Compared is how far the continuous reconciliation has come: a step number of OrdersChanged.
func (s *Store) Compared(ctx context.Context) (int64, error) {
	text, err := metaText(ctx, s, "compared_step")
	if err != nil || text == "" {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// SetCompared stores it.
func (s *Store) SetCompared(ctx context.Context, step int64) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.setMeta("compared_step", strconv.FormatInt(step, 10)) })
}

// OrderFact is a fact as reconciliation compares it, and the outside system that its posting goes to.
type OrderFact struct {
	reconcile.Fact
	ERP   string
	Agent string
	id    int64
}

const orderFactColumns = `SELECT f.id, f.body, f.key, f.received_at, x.yield, x.scrap, x.rework, x.consumed, x.returned, COALESCE(p.erp, ''), COALESCE(p.state, ''),
	COALESCE(p.class, ''), COALESCE(p.code, ''), COALESCE(p.reason, ''), COALESCE(p.document, ''), COALESCE(p.since, 0), COALESCE(p.tries, 0),
	COALESCE(p.yield, ''), COALESCE(p.scrap, ''), COALESCE(p.rework, ''), COALESCE(p.quantity, ''), COALESCE(m.body, ''), g.key, COALESCE(d.date, ''),
	COALESCE(d.event_date, ''), COALESCE(p.closing, 0)
	FROM fact_index x JOIN facts f ON f.id = x.fact_id LEFT JOIN postings p ON p.fact_id = x.fact_id LEFT JOIN posting_maps m ON m.fact_id = x.fact_id
	LEFT JOIN posting_dates d ON d.fact_id = x.fact_id AND d.approved_by = '' LEFT JOIN aggregate_members n ON n.fact_id = x.fact_id LEFT JOIN aggregates g ON g.id = n.aggregate_id`

// factsOfOrder are those that name an order, and those that were corrected to it.
const factsOfOrder = "(SELECT fact_id FROM fact_index WHERE order_no = $1 UNION SELECT fact_id FROM corrections WHERE new_order_no = $1)"

// OrderFacts returns all planned facts that name one order or were corrected to it, with the quantities that counted, oldest first.
// What was corrected has the values that it is posted with; its order may be another one then.
func (s *Store) OrderFacts(ctx context.Context, plant, orderNo string) ([]OrderFact, error) {
	w := where{text: "x.fact_id IN " + factsOfOrder, args: []any{orderNo}}
	w.andText("x.plant = ?", plant)
	all, err := collect(ctx, s, scanOrderFact, orderFactColumns+w.String()+" ORDER BY x.fact_id", w.args...)
	if err == nil {
		err = s.correctFacts(ctx, orderNo, all)
	}
	if err == nil {
		err = s.leftKeys(ctx, orderNo, all)
	}
	if err != nil {
		return nil, fmt.Errorf("read facts of order %q: %w", orderNo, err)
	}
	facts := make([]*reconcile.Fact, len(all))
	for i := range all {
		facts[i] = &all[i].Fact
	}
	reconcile.MarkOpposites(facts)
	return all, nil
}

// correctFacts gives facts the values that they are posted with.
func (s *Store) correctFacts(ctx context.Context, orderNo string, all []OrderFact) error {
	corrections, err := collect(ctx, s, scanCorrection, correctionColumns+" WHERE fact_id IN "+factsOfOrder+" ORDER BY id", orderNo)
	if err != nil || len(corrections) == 0 {
		return err
	}
	byFact := map[int64][]Correction{}
	for _, c := range corrections {
		byFact[c.FactID] = append(byFact[c.FactID], c)
	}
	for i := range all {
		f := &all[i]
		cs := byFact[f.id]
		if len(cs) == 0 {
			continue
		}
		came := f.Fact.Fact
		var texts []string
		for _, c := range cs {
			texts = append(texts, c.Text()+" ("+c.By+")")
			if !c.Key.IsZero() {
				f.Keys = append(f.Keys, c.Key.String())
			}
		}
		f.Fact.Fact = cs[len(cs)-1].Values(came)
		f.Corrected, f.AsCame = strings.Join(texts, "; "), &came
	}
	return nil
}

func scanOrderFact(r *sql.Rows) (f OrderFact, err error) {
	var body, key, aggregate []byte
	var received, since, closing int64
	var class, said string
	var counted [5]string
	var posted [4]string
	err = r.Scan(&f.id, &body, &key, &received, &counted[0], &counted[1], &counted[2], &counted[3], &counted[4], &f.ERP, &f.State, &class, &f.Code, &f.Reason, &f.Document, &since, &f.Tries,
		&posted[0], &posted[1], &posted[2], &posted[3], &said, &aggregate, &f.PostedOn, &f.MovedFrom, &closing)
	if err != nil {
		return f, err
	}
	if f.Books, err = inBooks(said); err != nil {
		return f, err
	}
	if f.Fact.Fact, err = wire.DecodeFact(body); err != nil {
		// It is kept aside already; its postings cannot be compared.
		f.Fact.Fact = object.Fact{Kind: object.KindException}
		copy(f.Key[:], key)
		err = nil
	}
	copy(f.Aggregate[:], aggregate)
	f.ReceivedAt, f.Since = at(received), at(since)
	f.CannotTell, f.Closing = class == "cannot_tell", closing != 0
	if err := f.count(counted); err != nil {
		return f, err
	}
	if posted[0] == "" {
		return f, nil
	}
	f.Amounts = map[object.QuantityKind]decimal.Decimal{}
	for i, k := range []object.QuantityKind{object.Yield, object.Scrap, object.Rework, object.Consumed} {
		if f.Amounts[k], err = decimal.NewFromString(posted[i]); err != nil {
			return f, fmt.Errorf("posting of fact %s: %w", f.Key, err)
		}
	}
	return f, nil
}

// count puts what counted in place of what the fact says: an overlapping counter range counts once. Reversals stay below zero
// by their own mark, so that their quantities are stored without the sign.
func (f *OrderFact) count(counted [5]string) error {
	var v [5]decimal.Decimal
	for i := range v {
		var err error
		if v[i], err = decimal.NewFromString(counted[i]); err != nil {
			return fmt.Errorf("quantity of fact %s: %w", f.Key, err)
		}
		if !f.Reverses.IsZero() {
			v[i] = v[i].Neg()
		}
	}
	if c := f.Confirmation; c != nil {
		x := *c
		x.Yield, x.Scrap, x.Rework = v[0], v[1], v[2]
		f.Confirmation = &x
	}
	if c := f.Consumption; c != nil {
		x := *c
		x.Quantity.Value = v[3].Add(v[4])
		f.Consumption = &x
	}
	return nil
}

// Discrepancy is a stored discrepancy with what happened to it.
type Discrepancy struct {
	reconcile.Discrepancy
	Steps []DiscrepancyStep
	Heals []Heal
}

// DiscrepancyStep is one thing that happened to a discrepancy.
type DiscrepancyStep struct {
	ID   int64
	At   time.Time
	Step string
	By   string
	Note string
}

// Heal is something that was done about a discrepancy, without a person or because one wanted it.
type Heal struct {
	ID            int64
	DiscrepancyID int64
	OrderNo       string
	At            time.Time
	Action        reconcile.Action
	Books         bool // it counts against the limits
	Made          string
	By            string // empty for the hub itself
	UndoneAt      time.Time
	UndoneBy      string
	Note          string
}

func scanDiscrepancy(r *sql.Rows) (d reconcile.Discrepancy, err error) {
	var id int64
	var body string
	if err := r.Scan(&id, &body); err != nil {
		return d, err
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		return d, fmt.Errorf("stored discrepancy %d: %w", id, err)
	}
	d.ID = id
	return d, nil
}

// DiscrepancyFilter chooses discrepancies; empty fields choose all. Live chooses those about which something has to happen.
type DiscrepancyFilter struct {
	Plant, ERP, OrderNo, Type, State string
	Live                             bool
}

// Discrepancies lists discrepancies, newest first. Page.Before is an ID.
func (s *Store) Discrepancies(ctx context.Context, f DiscrepancyFilter, page Page) ([]reconcile.Discrepancy, error) {
	var w where
	w.and("id < ?", page.before())
	w.andText("plant = ?", f.Plant)
	w.andText("erp = ?", f.ERP)
	w.andText("order_no = ?", f.OrderNo)
	w.andText("type = ?", f.Type)
	w.andText("state = ?", f.State)
	if f.Live {
		w.and("closed_at = 0")
	}
	all, err := collect(ctx, s, scanDiscrepancy, "SELECT id, body FROM discrepancies"+w.String()+" ORDER BY id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list discrepancies: %w", err)
	}
	return all, nil
}

// Discrepancy returns one with its life.
func (s *Store) Discrepancy(ctx context.Context, id int64) (d Discrepancy, err error) {
	if d.Discrepancy, err = first(ctx, s, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1", id); err != nil {
		return d, fmt.Errorf("read discrepancy %d: %w", id, err)
	}
	d.Steps, err = collect(ctx, s, func(r *sql.Rows) (x DiscrepancyStep, err error) {
		var t int64
		err = r.Scan(&x.ID, &t, &x.Step, &x.By, &x.Note)
		x.At = at(t)
		return x, err
	}, "SELECT id, at, step, by_whom, note FROM discrepancy_steps WHERE discrepancy_id = $1 ORDER BY id", id)
	if err == nil {
		d.Heals, err = collect(ctx, s, scanHeal, healColumns+" WHERE discrepancy_id = $1 ORDER BY id", id)
	}
	if err != nil {
		return d, fmt.Errorf("read discrepancy %d: %w", id, err)
	}
	return d, nil
}

const healColumns = "SELECT id, discrepancy_id, order_no, at, books, action, made, by_whom, undone_at, undone_by, note FROM heals"

func scanHeal(r *sql.Rows) (h Heal, err error) {
	var t, undone, books int64
	var action string
	if err := r.Scan(&h.ID, &h.DiscrepancyID, &h.OrderNo, &t, &books, &action, &h.Made, &h.By, &undone, &h.UndoneBy, &h.Note); err != nil {
		return h, err
	}
	h.At, h.UndoneAt, h.Books = at(t), at(undone), books != 0
	return h, json.Unmarshal([]byte(action), &h.Action)
}

// MergeDiscrepancies brings the discrepancies of one order up to date with what was found, in one transaction: the second of
// two checks at once sees what the first has stored. It returns what changed, with the ids.
func (s *Store) MergeDiscrepancies(ctx context.Context, plant, erp, orderNo string, found []reconcile.Finding, p reconcile.Policy) ([]reconcile.Change, error) {
	return s.merge(ctx, plant, erp, orderNo, found, p, true)
}

// MergeUnasked is MergeDiscrepancies of an order whose system did not list its documents: what only they can show stays as it is.
func (s *Store) MergeUnasked(ctx context.Context, plant, erp, orderNo string, found []reconcile.Finding, p reconcile.Policy) ([]reconcile.Change, error) {
	return s.merge(ctx, plant, erp, orderNo, found, p, false)
}

func (s *Store) merge(ctx context.Context, plant, erp, orderNo string, found []reconcile.Finding, p reconcile.Policy, asked bool) (changes []reconcile.Change, err error) {
	if len(found) == 0 { // as of most orders: that needs no writer
		live, err := s.Discrepancies(ctx, DiscrepancyFilter{OrderNo: orderNo, Live: true}, Page{Limit: 1})
		if err != nil || len(live) == 0 {
			return nil, err
		}
	}
	err = s.Update(ctx, func(tx *Tx) error {
		known, err := collect(tx.ctx, tx, scanDiscrepancy, `SELECT id, body FROM discrepancies WHERE order_no = $1 AND plant = $2 AND erp = $3
			AND (closed_at = 0 OR state = 'ACCEPTED') ORDER BY id`, orderNo, plant, erp)
		if err != nil || len(known) == 0 && len(found) == 0 {
			return err
		}
		// A subject may be known from another order or plant: then that one goes on.
		for _, f := range found {
			d, err := first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE type = $1 AND subject = $2 AND closed_at = 0", string(f.Type), f.Subject)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			known = append(known, d)
		}
		if !asked {
			known = slices.DeleteFunc(known, func(d reconcile.Discrepancy) bool {
				again := slices.ContainsFunc(found, func(f reconcile.Finding) bool { return f.Type == d.Type && f.Subject == d.Subject })
				return d.State.Live() && d.Type.ByDocuments() && !again
			})
		}
		changes, err = tx.merge(orderNo, known, found, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store discrepancies of order %q: %w", orderNo, err)
	}
	return changes, nil
}

// merge stores what is found now beside what was known, and what of it may be healed.
func (tx *Tx) merge(orderNo string, known []reconcile.Discrepancy, found []reconcile.Finding, p reconcile.Policy) ([]reconcile.Change, error) {
	used, err := tx.healed(orderNo)
	if err != nil {
		return nil, err
	}
	changes := reconcile.Merge(tx.now, known, found, used, p)
	for i := range changes {
		if err := tx.putChange(&changes[i]); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// healed counts the heals of an order, and those of all orders in the last 24 hours.
func (tx *Tx) healed(orderNo string) (used reconcile.Used, err error) {
	if used.Order, err = first(tx.ctx, tx, scanValue[int], "SELECT COUNT(*) FROM heals WHERE order_no = $1 AND books = 1", orderNo); err != nil {
		return used, err
	}
	used.Day, err = first(tx.ctx, tx, scanValue[int], "SELECT COUNT(*) FROM heals WHERE at > $1 AND books = 1", us(tx.now.Add(-24*time.Hour)))
	return used, err
}

// putChange stores a change, its step, and the heal that it begins.
func (tx *Tx) putChange(c *reconcile.Change) error {
	if err := tx.putDiscrepancy(&c.Discrepancy); err != nil {
		return err
	}
	if c.Begin {
		action, err := json.Marshal(c.Proposed)
		if err != nil {
			return err
		}
		books := 0
		if c.Proposed.Kind.Undo() != reconcile.NoAction {
			books = 1
		}
		_, err = tx.exec("INSERT INTO heals (discrepancy_id, order_no, at, books, action) VALUES ($1, $2, $3, $4, $5)", c.ID, c.OrderNo, us(tx.now), books, string(action))
		if err != nil {
			return err
		}
	}
	if c.Step == "seen" {
		return nil
	}
	return tx.AddDiscrepancyStep(c.ID, c.Step, "", c.Note)
}

func (tx *Tx) putDiscrepancy(d *reconcile.Discrepancy) error {
	closed := int64(0)
	if !d.State.Live() {
		closed = us(tx.now)
	}
	if d.ID == 0 {
		res, err := tx.exec(`INSERT INTO discrepancies (type, subject, plant, erp, order_no, state, first_at, last_at, due_at, closed_at, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '{}')`, string(d.Type), d.Subject, d.Plant, d.ERP, d.OrderNo, string(d.State), us(d.FirstSeen), us(d.LastSeen), us(d.Due), closed)
		if err == nil {
			d.ID, err = res.LastInsertId()
		}
		if err != nil {
			return err
		}
	}
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE discrepancies SET state = $2, last_at = $3, due_at = $4, closed_at = $5, body = $6 WHERE id = $1`,
		d.ID, string(d.State), us(d.LastSeen), us(d.Due), closed, string(body))
	return err
}

// AddDiscrepancyStep writes down what happened to a discrepancy. by is empty for the hub itself.
func (tx *Tx) AddDiscrepancyStep(id int64, step, by, note string) error {
	_, err := tx.exec("INSERT INTO discrepancy_steps (discrepancy_id, at, step, by_whom, note) VALUES ($1, $2, $3, $4, $5)", id, us(tx.now), step, by, note)
	return err
}

// ErrNotLive says that a discrepancy is closed already.
var ErrNotLive = errors.New("the discrepancy is closed already")

// DecideDiscrepancy lets a person change a live discrepancy; the step is written down with the person's name and note.
func (s *Store) DecideDiscrepancy(ctx context.Context, id int64, step, by, note string, change func(*reconcile.Discrepancy)) error {
	err := s.Update(ctx, func(tx *Tx) error {
		d, err := first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1", id)
		if err != nil {
			return err
		}
		if !d.State.Live() {
			return fmt.Errorf("%w: it is %s", ErrNotLive, d.State)
		}
		change(&d)
		if err := tx.putDiscrepancy(&d); err != nil {
			return err
		}
		return tx.AddDiscrepancyStep(id, step, by, note)
	})
	if err != nil {
		return fmt.Errorf("decide about discrepancy %d: %w", id, err)
	}
	return nil
}

// BeginHeal writes down that a person has the proposed action of a live discrepancy carried out, before that is done. It counts no
// limit. ErrNotLive when the discrepancy is closed.
func (s *Store) BeginHeal(ctx context.Context, id int64, by, note string) error {
	err := s.Update(ctx, func(tx *Tx) error {
		d, err := first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1", id)
		if err != nil {
			return err
		}
		if !d.State.Live() {
			return fmt.Errorf("%w: it is %s", ErrNotLive, d.State)
		}
		action, err := json.Marshal(d.Proposed)
		if err != nil {
			return err
		}
		d.State, d.Note, d.BegunAt = reconcile.Healing, note, tx.now
		_, err = tx.exec("INSERT INTO heals (discrepancy_id, order_no, at, books, action, by_whom) VALUES ($1, $2, $3, 0, $4, $5)", id, d.OrderNo, us(tx.now), string(action), by)
		return errors.Join(err, tx.putDiscrepancy(&d), tx.AddDiscrepancyStep(id, "acted", by, note))
	})
	if err != nil {
		return fmt.Errorf("act on discrepancy %d: %w", id, err)
	}
	return nil
}

// DropHeal takes back that the latest heal of a discrepancy was begun: it could not be carried out, and nothing has changed. The
// discrepancy waits for a person, and the rules begin nothing more about it.
func (s *Store) DropHeal(ctx context.Context, id int64, why string) error {
	return s.Update(ctx, func(tx *Tx) error {
		d, err := first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1", id)
		if err != nil || !d.State.Live() {
			return err
		}
		d.State, d.Note, d.Heals = reconcile.Open, why, reconcile.MostHeals
		if d.Tier > 0 {
			d.State = reconcile.Escalated
		}
		_, err = tx.exec("DELETE FROM heals WHERE id = (SELECT MAX(id) FROM heals WHERE discrepancy_id = $1) AND made = '' AND undone_at = 0", id)
		return errors.Join(err, tx.putDiscrepancy(&d), tx.AddDiscrepancyStep(id, "not carried out", "", why))
	})
}

// SetHealMade notes what the latest heal of a discrepancy has come to.
func (s *Store) SetHealMade(ctx context.Context, discrepancy int64, made, note string) error {
	return s.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec("UPDATE heals SET made = $2, note = $3 WHERE id = (SELECT MAX(id) FROM heals WHERE discrepancy_id = $1)", discrepancy, made, note)
		return err
	})
}

// UndoHeal marks a heal as wrong: it was taken back. ErrNotFound when there is none that was not.
func (s *Store) UndoHeal(ctx context.Context, id int64, by, note string) error {
	return s.Update(ctx, func(tx *Tx) error {
		return mustChange(tx.exec("UPDATE heals SET undone_at = $2, undone_by = $3, note = $4 WHERE id = $1 AND undone_at = 0", id, us(tx.now), by, note))
	})
}

// HealCounts is how many heals there were and how many of them were wrong.
type HealCounts struct{ Made, Undone int64 }

// CountHeals counts them.
func (s *Store) CountHeals(ctx context.Context) (c HealCounts, err error) {
	return first(ctx, s, func(r *sql.Rows) (c HealCounts, err error) { return c, r.Scan(&c.Made, &c.Undone) },
		"SELECT COUNT(*), COALESCE(SUM(CASE WHEN undone_at <> 0 THEN 1 ELSE 0 END), 0) FROM heals")
}

// Reconciliation is one run over many orders.
type Reconciliation struct {
	ID                       int64
	Kind                     string // nightly, asked
	Plant                    string
	StartedAt, EndedAt       time.Time
	Orders, Facts, Documents int64
	Found, Begun             int64
	Unasked                  int64 // orders whose system could not be asked or cannot list
	Writes, UnaskedWrites    int64 // of business objects that were read back, or could not be
	Error                    string
}

// PutReconciliation stores a run, new (ID 0) or changed.
func (s *Store) PutReconciliation(ctx context.Context, r *Reconciliation) error {
	return s.Update(ctx, func(tx *Tx) error {
		if r.ID == 0 {
			res, err := tx.exec("INSERT INTO reconciliations (kind, plant, started_at) VALUES ($1, $2, $3)", r.Kind, r.Plant, us(r.StartedAt))
			if err == nil {
				r.ID, err = res.LastInsertId()
			}
			return err
		}
		_, err := tx.exec(`UPDATE reconciliations SET ended_at = $2, orders = $3, facts = $4, documents = $5, found = $6, begun = $7, unasked = $8, error = $9, writes = $10, unasked_writes = $11
			WHERE id = $1`, r.ID, us(r.EndedAt), r.Orders, r.Facts, r.Documents, r.Found, r.Begun, r.Unasked, r.Error, r.Writes, r.UnaskedWrites)
		return err
	})
}

// Reconciliations lists runs, newest first.
func (s *Store) Reconciliations(ctx context.Context, page Page) ([]Reconciliation, error) {
	return collect(ctx, s, func(r *sql.Rows) (x Reconciliation, err error) {
		var start, end int64
		err = r.Scan(&x.ID, &x.Kind, &x.Plant, &start, &end, &x.Orders, &x.Facts, &x.Documents, &x.Found, &x.Begun, &x.Unasked, &x.Error, &x.Writes, &x.UnaskedWrites)
		x.StartedAt, x.EndedAt = at(start), at(end)
		return x, err
	}, `SELECT id, kind, plant, started_at, ended_at, orders, facts, documents, found, begun, unasked, error, writes, unasked_writes FROM reconciliations WHERE id < $1 ORDER BY id DESC LIMIT $2`, page.before(), page.limit())
}
