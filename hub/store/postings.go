package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
)

// PostingState is where the posting of one fact stands.
type PostingState string

// The states of a posting.
const (
	PostingDue       PostingState = "due"        // waits for its turn, for a time, or for others (Reason says)
	PostingSending   PostingState = "sending"    // the intent is stored, the ERP may have been asked
	PostingInDoubt   PostingState = "in_doubt"   // the ERP was asked, the answer is not known
	PostingPosted    PostingState = "posted"     // the ERP says that it has it
	PostingVerified  PostingState = "verified"   // it was read back and equals the intent
	PostingParked    PostingState = "parked"     // needs a person, or something that is missing; Code and Reason say what
	PostingNotPosted PostingState = "not_posted" // by policy: needs no effect
	PostingSettled   PostingState = "settled"    // a person decided that it needs no effect any more
)

// Settled reports that nothing more will happen by itself or needs to happen.
func (s PostingState) Settled() bool {
	return s == PostingVerified || s == PostingNotPosted || s == PostingSettled
}

// Posting is the way of one fact into an ERP.
type Posting struct {
	FactID  int64
	ERP     string
	OrderNo string
	Plant   string
	// Closing postings finish their order: they wait until nothing else of it is open.
	Closing  bool
	State    PostingState
	Class    string // of a parked posting: a connector.Class, "waiting", "cannot_tell", "mismatch"
	Code     string
	Reason   string
	NextStep string
	// What is to be posted, after rounding and trimming; nil before the fact's order is known.
	Amounts *Amounts
	// Attempt counts what was sent, Tries the attempts of the present step (for the back-off).
	Attempt    int
	Tries      int
	Intent     []byte
	Document   string
	DocumentID string
	// Since is when the present state (or kind of trouble) began, NextAt the earliest next action.
	Since     time.Time
	NextAt    time.Time
	ChangedAt time.Time
}

// Amounts are the quantities of a posting; those that its kind does not have are zero.
type Amounts struct {
	Yield, Scrap, Rework decimal.Decimal // of a confirmation
	Quantity             decimal.Decimal // of a consumption or a quality decision
}

// Sum adds them all, whatever they are: good for telling how much there is, and whether there is anything.
func (a *Amounts) Sum() decimal.Decimal { return decimal.Sum(a.Yield, a.Scrap, a.Rework, a.Quantity) }

// IsZero reports that there is nothing.
func (a *Amounts) IsZero() bool {
	return a.Yield.IsZero() && a.Scrap.IsZero() && a.Rework.IsZero() && a.Quantity.IsZero()
}

const postingColumns = "SELECT " + ofPosting + " FROM postings p"

const ofPosting = `p.fact_id, p.erp, p.order_no, p.plant, p.closing, p.state, p.class, p.code, p.reason, p.next_step,
	p.yield, p.scrap, p.rework, p.quantity, p.attempt, p.tries, p.intent, p.document, p.document_id, p.since, p.next_at, p.changed_at`

func scanPosting(r *sql.Rows) (Posting, error) {
	var x postingRow
	if err := r.Scan(x.columns()...); err != nil {
		return x.p, err
	}
	return x.posting()
}

// postingRow is what postingColumns read.
type postingRow struct {
	p                              Posting
	since, next, changed, closing  int64
	yield, scrap, rework, quantity string
}

func (x *postingRow) columns() []any {
	p := &x.p
	return []any{&p.FactID, &p.ERP, &p.OrderNo, &p.Plant, &x.closing, &p.State, &p.Class, &p.Code, &p.Reason, &p.NextStep,
		&x.yield, &x.scrap, &x.rework, &x.quantity, &p.Attempt, &p.Tries, &p.Intent, &p.Document, &p.DocumentID, &x.since, &x.next, &x.changed}
}

func (x *postingRow) posting() (p Posting, err error) {
	p = x.p
	p.Closing = x.closing != 0
	p.Since, p.NextAt, p.ChangedAt = at(x.since), at(x.next), at(x.changed)
	if x.yield != "" {
		p.Amounts = &Amounts{}
		p.Amounts.Yield, p.Amounts.Scrap, p.Amounts.Rework, p.Amounts.Quantity, err = four(x.yield, x.scrap, x.rework, x.quantity)
	}
	return p, err
}

func four(a, b, c, d string) (w, x, y, z decimal.Decimal, err error) {
	for i, v := range []*decimal.Decimal{&w, &x, &y, &z} {
		var e error
		if *v, e = decimal.NewFromString([]string{a, b, c, d}[i]); e != nil {
			err = fmt.Errorf("stored quantity: %w", e)
		}
	}
	return
}

const postingFields = `postings (fact_id, erp, order_no, plant, closing, state, class, code, reason, next_step, yield, scrap,
	rework, quantity, attempt, tries, intent, document, document_id, since, next_at, changed_at)`

// fields are the values of postingFields.
func (p *Posting) fields(changed time.Time) []any {
	var yield, scrap, rework, quantity string
	if a := p.Amounts; a != nil {
		yield, scrap, rework, quantity = a.Yield.String(), a.Scrap.String(), a.Rework.String(), a.Quantity.String()
	}
	closing := 0
	if p.Closing {
		closing = 1
	}
	return []any{
		p.FactID, p.ERP, p.OrderNo, p.Plant, closing, string(p.State), p.Class, p.Code, p.Reason, p.NextStep, yield, scrap,
		rework, quantity, p.Attempt, p.Tries, p.Intent, p.Document, p.DocumentID, us(p.Since), us(p.NextAt), us(changed),
	}
}

// PutPosting stores a posting, new or changed.
func (tx *Tx) PutPosting(p Posting) error {
	tx.touch(TopicPostings)
	if err := tx.changeSums(&p); err != nil {
		return err
	}
	_, err := tx.exec("INSERT INTO "+postingFields+`
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
		ON CONFLICT (fact_id) DO UPDATE SET erp = excluded.erp, order_no = excluded.order_no, closing = excluded.closing, state = excluded.state, class = excluded.class,
		code = excluded.code, reason = excluded.reason, next_step = excluded.next_step, yield = excluded.yield, scrap = excluded.scrap,
		rework = excluded.rework, quantity = excluded.quantity, attempt = excluded.attempt, tries = excluded.tries, intent = excluded.intent,
		document = excluded.document, document_id = excluded.document_id, since = excluded.since, next_at = excluded.next_at,
		changed_at = excluded.changed_at`, p.fields(tx.now)...)
	return err
}

// PostingStep is one thing that happened to a posting.
type PostingStep struct {
	FactID   int64
	At       time.Time
	Step     string
	Attempt  int
	Code     string
	Reason   string
	Document string
	By       string
}

// keepFirstStep writes down the step that the planner began a posting with, before the posting changes. Until then the posting
// itself says it: most postings of facts that nobody posts never change.
func (tx *Tx) keepFirstStep(factID int64) error {
	_, err := tx.exec("INSERT INTO "+stepFields+` SELECT fact_id, changed_at, state, attempt, code, reason, document, '' FROM postings
		WHERE fact_id = $1 AND NOT EXISTS (SELECT 1 FROM posting_steps WHERE fact_id = $1)`, factID)
	return err
}

const stepFields = "posting_steps (fact_id, at, step, attempt, code, reason, document, by_whom)"

func (s *PostingStep) fields(now time.Time) []any {
	return []any{s.FactID, us(now), s.Step, s.Attempt, s.Code, s.Reason, s.Document, s.By}
}

// AddPostingStep adds to a fact's life, at the time of the transaction.
func (tx *Tx) AddPostingStep(s PostingStep) error {
	if err := tx.keepFirstStep(s.FactID); err != nil {
		return err
	}
	return tx.addStep(s)
}

// PutPostingStep is PutPosting and AddPostingStep for a posting that was stored before.
func (tx *Tx) PutPostingStep(p Posting, s PostingStep) error {
	if err := tx.PutPosting(p); err != nil {
		return err
	}
	return tx.addStep(s)
}

func (tx *Tx) addStep(s PostingStep) error {
	_, err := tx.exec("INSERT INTO "+stepFields+" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", s.fields(tx.now)...)
	return err
}

// LastStep returns the latest step of a name in a fact's life. ErrNotFound when there is none.
func (tx *Tx) LastStep(factID int64, step string) (PostingStep, error) {
	return first(tx.ctx, tx, func(r *sql.Rows) (s PostingStep, err error) {
		var t int64
		err = r.Scan(&s.FactID, &t, &s.Step, &s.Attempt, &s.Code, &s.Reason, &s.Document, &s.By)
		s.At = at(t)
		return s, err
	}, "SELECT fact_id, at, step, attempt, code, reason, document, by_whom FROM posting_steps WHERE fact_id = $1 AND step = $2 ORDER BY id DESC LIMIT 1", factID, step)
}

// Posting returns the posting of a fact. ErrNotFound when it has none.
func (s *Store) Posting(ctx context.Context, factID int64) (Posting, error) {
	return lookup(ctx, s, scanPosting, postingColumns+" WHERE p.fact_id = $1", factID)
}

// Posting is Store.Posting inside a transaction.
func (tx *Tx) Posting(factID int64) (Posting, error) {
	return first(tx.ctx, tx, scanPosting, postingColumns+" WHERE p.fact_id = $1", factID)
}

// FactByID returns a stored fact without its posting.
func (s *Store) FactByID(ctx context.Context, id int64) (Fact, error) {
	return lookup(ctx, s, scanFact, factColumns+" WHERE f.id = $1", id)
}

// PostingFilter chooses postings; empty fields choose all.
type PostingFilter struct {
	ERP, OrderNo, Plant, Code, Class string
	State                            PostingState
}

// where writes the conditions. Those of an order are found by the index of facts.
func (f PostingFilter) where(w *where) {
	w.andText("p.erp = ?", f.ERP)
	if f.OrderNo != "" {
		w.and("p.order_no || '' = ?", f.OrderNo)
		w.and("p.fact_id IN (SELECT fact_id FROM fact_index WHERE order_no = ? UNION ALL SELECT fact_id FROM corrections WHERE new_order_no = ?)", f.OrderNo, f.OrderNo)
	}
	w.andText("p.plant = ?", f.Plant)
	w.andText("p.code = ?", f.Code)
	w.andText("p.class = ?", f.Class)
	w.andText("p.state = ?", string(f.State))
}

// Postings lists postings with their facts, newest first. Page.Before is a Fact.ID.
func (s *Store) Postings(ctx context.Context, f PostingFilter, page Page) ([]Fact, error) {
	var w where
	w.and("p.fact_id < ?", page.before())
	f.where(&w)
	few, err := s.few(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("list postings: %w", err)
	}
	if few {
		w.and("p.fact_id IN (SELECT fact_id FROM postings p WHERE p.state = ? AND p.code = ? AND "+openPostings+")", string(f.State), f.Code)
	}
	all, err := collect(ctx, s, scanPosting, postingColumns+w.String()+" ORDER BY p.fact_id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list postings: %w", err)
	}
	facts := make([]Fact, len(all))
	for i := range all {
		if facts[i], err = s.FactByID(ctx, all[i].FactID); err != nil {
			return nil, fmt.Errorf("list postings: %w", err)
		}
		facts[i].Posting = &all[i]
	}
	return facts, nil
}

// few reports whether so few open postings have a state and a code that they are to be found by that. Of many, the latest are met
// soon by going through all of the state.
func (s *Store) few(ctx context.Context, f PostingFilter) (bool, error) {
	if f.State == "" || f.Code == "" || f.State.Settled() || f.OrderNo != "" {
		return false, nil
	}
	n, err := s.CountPostings(ctx, PostingFilter{State: f.State, Code: f.Code})
	return n <= 1000, err
}

// PostingsAfter returns at most limit postings that match with their facts, oldest first, above a fact id.
func (tx *Tx) PostingsAfter(f PostingFilter, after int64, limit int) ([]Fact, error) {
	var w where
	w.and("p.fact_id > ?", after)
	f.where(&w)
	all, err := collect(tx.ctx, tx, scanPosting, postingColumns+w.String()+" ORDER BY p.fact_id LIMIT "+fmt.Sprint(limit), w.args...)
	if err != nil {
		return nil, err
	}
	facts := make([]Fact, 0, len(all))
	for some := range slices.Chunk(all, bulkRows) {
		args := make([]any, bulkRows)
		for i := range args {
			args[i] = some[min(i, len(some)-1)].FactID
		}
		found, err := collect(tx.ctx, tx, scanFact, factColumns+" WHERE f.id IN ("+in(0, bulkRows)+") ORDER BY f.id", args...)
		if err != nil {
			return nil, err
		}
		if len(found) != len(some) {
			return nil, fmt.Errorf("of %d facts from row %d on %d are there", len(some), some[0].FactID, len(found))
		}
		for i := range found {
			found[i].Posting = &some[i]
		}
		facts = append(facts, found...)
	}
	return facts, nil
}

// CountPostings counts the postings that match.
func (s *Store) CountPostings(ctx context.Context, f PostingFilter) (int64, error) {
	var w where
	q := "SELECT COUNT(*) FROM postings p"
	if f.OrderNo == "" && f.Plant == "" && f.Class == "" { // these are counted already
		q = "SELECT COALESCE(SUM(n), 0) FROM posting_counts"
		w.andText("erp = ?", f.ERP)
		w.andText("code = ?", f.Code)
		w.andText("state = ?", string(f.State))
	} else {
		f.where(&w)
	}
	n, err := first(ctx, s, scanValue[int64], q+w.String(), w.args...)
	if err != nil {
		return 0, fmt.Errorf("count postings: %w", err)
	}
	return n, nil
}

// PostingCount is how many postings of an ERP are in a state with a code.
type PostingCount struct {
	ERP   string
	State PostingState
	Code  string
	Count int64
	// Oldest is the earliest Since; zero for states in which nothing more will happen.
	Oldest time.Time
}

// openPostings is the condition of the indexes over postings that need something yet; a query must say it in the same words.
const openPostings = "p.state NOT IN ('verified', 'not_posted', 'settled')"

// PostingCounts counts all postings by ERP, state and code. It reads kept counts.
func (s *Store) PostingCounts(ctx context.Context) ([]PostingCount, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (c PostingCount, err error) { return c, r.Scan(&c.ERP, &c.State, &c.Code, &c.Count) },
		"SELECT erp, state, code, n FROM posting_counts WHERE n > 0 ORDER BY erp, state, code")
	if err != nil {
		return nil, err
	}
	for i := range all {
		c := &all[i]
		if c.State.Settled() {
			continue
		}
		since, err := first(ctx, s, scanValue[sql.NullInt64],
			"SELECT MIN(p.since) FROM postings p WHERE p.state = $1 AND p.code = $2 AND p.erp = $3 AND "+openPostings, string(c.State), c.Code, c.ERP)
		if err != nil {
			return nil, err
		}
		c.Oldest = at(since.Int64)
	}
	return all, nil
}

// Lane is the sequence of postings of one order in one ERP.
type Lane struct{ ERP, OrderNo string }

// ActiveLanes lists the lanes that have something to do now or later.
func (s *Store) ActiveLanes(ctx context.Context) ([]Lane, error) {
	return collect(ctx, s, func(r *sql.Rows) (l Lane, err error) { return l, r.Scan(&l.ERP, &l.OrderNo) },
		`SELECT erp, order_no FROM postings WHERE state = 'due' UNION SELECT erp, order_no FROM postings WHERE state IN ('sending', 'in_doubt')
		UNION SELECT erp, order_no FROM postings WHERE state = 'posted'`)
}

// LaneWork is what a lane has to do. Doubt is the posting whose outcome is not known, Due the one whose turn it is, Unverified
// the posted one that is to be read back first, LastOfMany the one with which ReadBackAtOnce of them are; each is nil when there is
// none.
type LaneWork struct{ Doubt, Due, Unverified, LastOfMany *Waiting }

// ReadBackAtOnce is how many postings of a lane are read back together at most.
const ReadBackAtOnce = 20

// Waiting is a posting that waits in a lane, and as what. Task reads the rest of it.
type Waiting struct {
	FactID  int64
	State   PostingState
	Closing bool
	NextAt  time.Time
}

func scanWaiting(r *sql.Rows) (w Waiting, err error) {
	var closing, next int64
	err = r.Scan(&w.FactID, &w.State, &closing, &next)
	w.Closing, w.NextAt = closing != 0, at(next)
	return w, err
}

// LaneWork returns what a lane has to do. It is one question, because it is asked before each step of each posting.
func (s *Store) LaneWork(ctx context.Context, l Lane) (w LaneWork, err error) {
	if err := ctx.Err(); err != nil {
		return w, err
	}
	all, err := collect(context.WithoutCancel(ctx), s, scanWaiting, laneWork, l.ERP, l.OrderNo) // as lookup does
	if err != nil {
		return w, fmt.Errorf("read what order %q has to do: %w", l.OrderNo, err)
	}
	for i := range all {
		switch p := &all[i]; p.State {
		case PostingDue:
			w.Due = p
		case PostingPosted:
			w.LastOfMany = p
			if u := w.Unverified; u == nil || p.before(*u) {
				w.Unverified, w.LastOfMany = p, u
			}
		default:
			w.Doubt = p
		}
	}
	return w, nil
}

// before reports that a posting is to be read back before another.
func (w Waiting) before(other Waiting) bool {
	return cmp.Or(w.NextAt.Compare(other.NextAt), cmp.Compare(w.FactID, other.FactID)) < 0
}

// Unverified lists the posted ones of a lane that are to be read back first, ReadBackAtOnce at most, in their order.
func (s *Store) Unverified(ctx context.Context, l Lane) ([]Waiting, error) {
	all, err := collect(ctx, s, scanWaiting, unverified+fmt.Sprint(ReadBackAtOnce), l.ERP, l.OrderNo)
	if err != nil {
		return nil, fmt.Errorf("list what is to be read back of order %q: %w", l.OrderNo, err)
	}
	return all, nil
}

var (
	ofLane   = "SELECT p.fact_id, p.state, p.closing, p.next_at FROM postings p WHERE p.erp = $1 AND p.order_no = $2 AND "
	laneWork = "SELECT * FROM (" + ofLane + "p.state IN ('sending', 'in_doubt') ORDER BY p.fact_id LIMIT 1) UNION ALL SELECT * FROM (" +
		ofLane + "p.state = 'due' AND p.code <> 'collecting' ORDER BY p.closing, p.fact_id LIMIT 1) UNION ALL SELECT * FROM (" +
		unverified + "1) UNION ALL SELECT * FROM (" + unverified + fmt.Sprintf("1 OFFSET %d)", ReadBackAtOnce-1)
	unverified = ofLane + "p.state = 'posted' ORDER BY p.next_at, p.fact_id LIMIT "
)

func optionalRow[T any](v T, err error) (*T, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// OpenBeside counts the postings of an order that are not settled, without the one named and other closing ones, and returns
// the first of them as the example to show.
func (s *Store) OpenBeside(ctx context.Context, orderNo string, factID int64) (n int64, example *Posting, err error) {
	const open = " FROM postings p WHERE p.order_no = $1 AND p.state NOT IN ('verified', 'not_posted', 'settled') AND p.fact_id <> $2 AND p.closing = 0"
	n, err = first(ctx, s, scanValue[int64], "SELECT COUNT(*)"+open, orderNo, factID)
	if err != nil || n == 0 {
		return n, nil, err
	}
	example, err = optionalRow(first(ctx, s, scanPosting, postingColumns+open[len(" FROM postings p"):]+" ORDER BY p.fact_id LIMIT 1", orderNo, factID))
	return n, example, err
}

// OrdersAtOnce is how many orders Admissible looks at.
const OrdersAtOnce = bulkRows

// Admissible lists the fact ids of at most limit parked postings of some orders that waited for these and need not any more,
// above after and in the order of facts: those with code unknown whose order is known by now, and those with code unrouted
// whose order has a plant.
func (tx *Tx) Admissible(orders []string, unknown, unrouted string, after int64, limit int) (ids []int64, err error) {
	// The first condition on the state is that of the index over open postings; the second is written so that no other index
	// serves it: many postings may be parked, and few of these orders.
	return collect(tx.ctx, tx, scanValue[int64], `SELECT p.fact_id FROM postings p
		WHERE p.order_no IN (`+in(4, OrdersAtOnce)+`) AND p.fact_id > $3
		AND p.state NOT IN ('verified', 'not_posted', 'settled') AND p.state || '' = 'parked' AND p.code IN ($1, $2)
		AND EXISTS (SELECT 1 FROM work_orders w WHERE w.order_no = p.order_no AND (p.code = $1 OR w.plant <> ''))
		ORDER BY p.fact_id LIMIT $4`, padded([]any{unknown, unrouted, after, limit}, orders)...)
}

// ParkedOrders lists the order numbers of postings that are parked with a code.
func (s *Store) ParkedOrders(ctx context.Context, code string) ([]string, error) {
	return collect(ctx, s, scanValue[string], "SELECT DISTINCT p.order_no FROM postings p WHERE p.state = 'parked' AND p.code = $1 AND "+openPostings, code)
}

// padded appends bulkRows values to the arguments, the last one repeated, so that a statement has one text.
func padded(args []any, values []string) []any {
	for i := range bulkRows {
		args = append(args, values[min(i, len(values)-1)])
	}
	return args
}

// KnownOrders returns those of some order numbers that the hub knows, with a plant only when routed is true.
func (s *Store) KnownOrders(ctx context.Context, numbers []string, routed bool) (known []string, err error) {
	for len(numbers) > 0 {
		n := min(len(numbers), bulkRows)
		args := padded([]any{routed}, numbers[:n])
		found, err := collect(ctx, s, scanValue[string],
			"SELECT DISTINCT order_no FROM work_orders WHERE order_no IN ("+in(1, bulkRows)+") AND (plant <> '' OR NOT $1)", args...)
		if err != nil {
			return nil, err
		}
		known, numbers = append(known, found...), numbers[n:]
	}
	return known, nil
}

// PlanCursor returns the id of the last fact that was planned.
func (tx *Tx) PlanCursor() (int64, error) { return planCursor(tx.ctx, tx) }

func planCursor(ctx context.Context, db querier) (int64, error) {
	v, err := first(ctx, db, scanValue[int64], "SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'planned'")
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return v, err
}

// SetPlanCursor moves the planner's cursor.
func (tx *Tx) SetPlanCursor(id int64) error {
	_, err := tx.exec("INSERT INTO meta (name, value) VALUES ('planned', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value", fmt.Sprint(id))
	return err
}

// FactByID is Store.FactByID inside a transaction.
func (tx *Tx) FactByID(id int64) (Fact, error) {
	return first(tx.ctx, tx, scanFact, factColumns+" WHERE f.id = $1", id)
}

// FactByKey returns a stored fact by its key, without its posting. ErrNotFound when there is none.
func (tx *Tx) FactByKey(key factkey.Key) (Fact, error) {
	k := short(key)
	return first(tx.ctx, tx, scanFact, factColumns+" WHERE f.key = $1", k[:])
}

// Planned is what the planner made of one new fact.
type Planned struct {
	Fact Fact
	// Lines are the quantities that count, Trimmed what was left out and why.
	Lines   []object.FactLine
	Trimmed string
	// Posting is nil for a source exception. Receipt goes to the fact's agent; nil for none.
	Posting *Posting
	Receipt *pb.Receipt
}

// AddPlanned stores what the planner made of new facts: one row of the index each, and where there is one the posting, whose
// first step it is, and the receipt; and it adds them to the tally.
func (tx *Tx) AddPlanned(all []Planned) error {
	var index, postings [][]any
	var receipts []Delivery
	var s sums
	for i := range all {
		p := &all[i]
		row := p.row()
		index = append(index, p.index(&row, tx.now))
		if x := p.Posting; x != nil {
			row.take(x)
			s.count(x.ERP, x.State, x.Code, 1)
			postings = append(postings, x.fields(tx.now))
		}
		lines, err := row.lines()
		if err != nil {
			return err
		}
		s.add(lines, 1)
		if p.Receipt != nil {
			d, err := receiptTo(p.Fact.AgentID, p.Fact.Fact.Key.String(), p.Receipt)
			if err != nil {
				return err
			}
			receipts = append(receipts, d)
		}
	}
	if len(postings) > 0 {
		tx.touch(TopicPostings)
	}
	return errors.Join(tx.insertRows(indexFields, index), tx.insertRows(postingFields, postings), tx.deliver(receipts...), tx.addSums(&s))
}

const indexFields = `fact_index (fact_id, agent_id, plant, source, kind, order_no, operation, item, unit, yield, scrap, rework,
	consumed, returned, occurred_at, planned_at, trimmed)`

// row is what the index says of the fact.
func (p *Planned) row() (x posted) {
	f := &p.Fact.Fact
	x.key = f.Key[:10]
	x.line.Plant, x.line.OrderNo = f.Plant, f.OrderNo()
	if c := f.Confirmation; c != nil {
		x.line.Operation, x.line.Item, x.line.Unit = c.Operation, c.Item, c.Unit
	} else if c := f.Consumption; c != nil {
		x.line.Operation, x.line.Item, x.line.Unit = c.Operation, c.Item, c.Quantity.Unit
	}
	sum := func(kind object.QuantityKind) string {
		for _, l := range p.Lines {
			if l.Kind == kind {
				return l.Received.String()
			}
		}
		return "0"
	}
	x.yield, x.scrap, x.rework = sum(object.Yield), sum(object.Scrap), sum(object.Rework)
	x.consumed, x.back = sum(object.Consumed), sum(object.Returned)
	return x
}

func (p *Planned) index(x *posted, now time.Time) []any {
	f, l := &p.Fact.Fact, &x.line
	return []any{
		p.Fact.ID, p.Fact.AgentID, l.Plant, f.Source, string(f.Kind), l.OrderNo, l.Operation, l.Item, l.Unit, x.yield, x.scrap,
		x.rework, x.consumed, x.back, us(f.OccurredAt), us(now), p.Trimmed,
	}
}

// Residue returns what rounding left over for a ledger line in an ERP.
func (tx *Tx) Residue(erp string, k object.LedgerKey) (decimal.Decimal, error) {
	of := residueKey(erp, k)
	if v, known := tx.residues[of]; known {
		return v, nil
	}
	v, err := tx.residue(erp, k)
	if err == nil {
		tx.setResidue(of, v)
	}
	return v, err
}

type residueOf struct {
	erp  string
	line object.LedgerKey
}

// residueKey leaves out the plant, which the table does not have.
func residueKey(erp string, k object.LedgerKey) residueOf {
	k.Plant = ""
	return residueOf{erp, k}
}

func (tx *Tx) setResidue(of residueOf, v decimal.Decimal) {
	if tx.residues == nil {
		tx.residues = map[residueOf]decimal.Decimal{}
	}
	tx.residues[of] = v
}

func (tx *Tx) residue(erp string, k object.LedgerKey) (decimal.Decimal, error) {
	v, err := first(tx.ctx, tx, scanValue[string], `SELECT value FROM residues
		WHERE erp = $1 AND order_no = $2 AND operation = $3 AND item = $4 AND kind = $5 AND unit = $6`,
		erp, k.OrderNo, k.Operation, k.Item, string(k.Kind), k.Unit)
	if errors.Is(err, ErrNotFound) {
		return decimal.Decimal{}, nil
	}
	if err != nil {
		return decimal.Decimal{}, err
	}
	return decimal.NewFromString(v)
}

// SetResidue stores what rounding left over.
func (tx *Tx) SetResidue(erp string, k object.LedgerKey, v decimal.Decimal) error {
	tx.setResidue(residueKey(erp, k), v)
	_, err := tx.exec(`INSERT INTO residues (erp, order_no, operation, item, kind, unit, value) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (erp, order_no, operation, item, kind, unit) DO UPDATE SET value = excluded.value`,
		erp, k.OrderNo, k.Operation, k.Item, string(k.Kind), k.Unit, v.String())
	return err
}

// Exception is an input of a source that did not become a fact.
type Exception struct {
	ID         int64
	FactID     int64
	Agent      string // "plant/agent"
	Source     string
	Code       string
	Item       string
	Reason     string
	NextStep   string
	Excerpt    []byte
	OccurredAt time.Time
	ClosedAt   time.Time
	Note       string
}

// AddException stores the source exception that a fact carries.
func (tx *Tx) AddException(f Fact) error {
	tx.touch(TopicFacts)
	e := f.Fact.Exception
	step := ""
	if e.Step != nil {
		body, err := json.Marshal(e.Step)
		if err != nil {
			return err
		}
		step = string(body)
	}
	_, err := tx.exec(`INSERT INTO exceptions (fact_id, agent_id, source, code, item, reason, next_step, excerpt, occurred_at, step)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, f.ID, f.AgentID, f.Fact.Source, e.Code, e.Item, e.Reason, e.NextStep, e.Excerpt, us(f.Fact.OccurredAt), step)
	return err
}

// ExceptionFilter chooses exceptions; empty fields choose all, Closed also those that are settled.
type ExceptionFilter struct {
	Plant, Source, Code string
	Closed              bool
}

// Exceptions lists source exceptions, newest first.
func (s *Store) Exceptions(ctx context.Context, f ExceptionFilter, page Page) ([]Exception, error) {
	var w where
	w.and("e.id < ?", page.before())
	w.andText("a.plant = ?", f.Plant)
	w.andText("e.source = ?", f.Source)
	w.andText("e.code = ?", f.Code)
	if !f.Closed {
		w.and("e.closed_at = 0")
	}
	return collect(ctx, s, func(r *sql.Rows) (e Exception, err error) {
		var occurred, closed int64
		err = r.Scan(&e.ID, &e.FactID, &e.Agent, &e.Source, &e.Code, &e.Item, &e.Reason, &e.NextStep, &e.Excerpt, &occurred, &closed, &e.Note)
		e.OccurredAt, e.ClosedAt = at(occurred), at(closed)
		return e, err
	}, `SELECT e.id, e.fact_id, a.plant || '/' || a.agent, e.source, e.code, e.item, e.reason, e.next_step, e.excerpt, e.occurred_at, e.closed_at, e.note
		FROM exceptions e JOIN agents a ON a.id = e.agent_id`+w.String()+" ORDER BY e.id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
}

// CloseException settles an exception with a note. ErrNotFound when none is open there.
func (s *Store) CloseException(ctx context.Context, id int64, note string) error {
	return s.closeRow(ctx, "exceptions", id, note)
}
