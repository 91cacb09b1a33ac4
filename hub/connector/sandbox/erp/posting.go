package erp

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/shopspring/decimal"
)

// scale is the number of decimals that the ERP keeps.
const scale = 3

// The kinds of documents.
const (
	KindConfirmation = "CONFIRMATION"
	KindMovement     = "MOVEMENT"
	KindStatus       = "STATUS"
)

// The movement codes.
const (
	ReceiptFromOrder = "101"
	ReceiptReversal  = "102"
	IssueToOrder     = "261"
	ReturnFromOrder  = "262"
)

// Error is a refusal: nothing was booked.
type Error struct {
	// Status is the HTTP status, Code the stable message number, Message a sentence.
	Status     int
	Code       string
	Message    string
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Code + " " + e.Message }

func unknownOrder(no string) error {
	return &Error{Status: 404, Code: "CO/017", Message: fmt.Sprintf("Order %q does not exist", no)}
}

func wrongState(o *Order, consequence string) error {
	return &Error{Status: 409, Code: "CO/688", Message: fmt.Sprintf("Order %s is %s: %s", o.No, o.State, consequence)}
}

// Request asks for one document. Kind says which fields count.
type Request struct {
	Kind        string          `json:"kind"`
	ExternalKey string          `json:"external_key"`
	OrderNo     string          `json:"order_no"`
	Operation   string          `json:"operation"`
	Item        string          `json:"item"`
	Yield       decimal.Decimal `json:"yield"`
	Scrap       decimal.Decimal `json:"scrap"`
	Rework      decimal.Decimal `json:"rework"`
	ScrapReason string          `json:"scrap_reason"`
	Final       bool            `json:"final"`
	Person      string          `json:"person"`
	Movement    string          `json:"movement"`
	Quantity    decimal.Decimal `json:"quantity"`
	Unit        string          `json:"unit"`
	Lot         string          `json:"lot"`
	Reservation string          `json:"reservation"`
	State       string          `json:"state"`
	// PostingDate is a calendar date, 2026-11-24; today in UTC when empty.
	PostingDate string `json:"posting_date"`
	// ValidUntil is when the request is no longer taken if it has not arrived; zero means never.
	ValidUntil time.Time `json:"valid_until"`
	// Reverses is the number of a document: the request then takes back all of it, and the other fields do not count.
	Reverses string `json:"reverses"`

	arrived int64 // in milliseconds, 0 for a request that did not come over HTTP
}

// Document is what was booked. Quantities of a reversal are negative.
type Document struct {
	Number      string          `json:"number"`
	Kind        string          `json:"kind"`
	ExternalKey string          `json:"external_key"`
	OrderNo     string          `json:"order_no"`
	Operation   string          `json:"operation,omitempty"`
	Item        string          `json:"item,omitempty"`
	Yield       decimal.Decimal `json:"yield"`
	Scrap       decimal.Decimal `json:"scrap"`
	Rework      decimal.Decimal `json:"rework"`
	Unit        string          `json:"unit,omitempty"`
	ScrapReason string          `json:"scrap_reason,omitempty"`
	Final       bool            `json:"final,omitempty"`
	State       string          `json:"state,omitempty"`
	Person      string          `json:"person,omitempty"`
	Lot         string          `json:"lot,omitempty"`
	PostingDate string          `json:"posting_date"`
	BookedAt    time.Time       `json:"booked_at"`
	Reverses    string          `json:"reverses,omitempty"`
	ReversedBy  string          `json:"reversed_by,omitempty"`
	Lines       []Line          `json:"lines"`
	// Failed are goods movements that could not be booked with the document; they wait to be processed again.
	Failed []Line `json:"failed_movements,omitempty"`

	arrived int64 // of its request; a search as of that instant finds it
}

// Line is one goods movement of a document: 101 receipt, 102 its reversal, 261 issue, 262 return.
type Line struct {
	Movement    string          `json:"movement"`
	Item        string          `json:"item"`
	Quantity    decimal.Decimal `json:"quantity"`
	Unit        string          `json:"unit"`
	Lot         string          `json:"lot,omitempty"`
	Reservation string          `json:"reservation,omitempty"`
}

// effect is what a movement does to the stock: +1 or -1.
func (l Line) effect() decimal.Decimal {
	if l.Movement == ReceiptFromOrder || l.Movement == ReturnFromOrder {
		return l.Quantity
	}
	return l.Quantity.Neg()
}

// Post books a request in one transaction. A refusal is an *Error. Two requests with one external key are two documents.
func (e *ERP) Post(ctx context.Context, r Request) (Document, error) { return e.post(ctx, r, fate{}) }

func (e *ERP) post(ctx context.Context, r Request, f fate) (doc Document, err error) {
	if f.misbook {
		r.Yield = r.Yield.Sub(decimal.NewFromInt(1))
	}
	err = e.inTx(func(tx *statements) error {
		doc, err = e.book(tx, r, f.half)
		return err
	})
	return doc, err
}

// checkKey refuses an external key that is there already, when the ERP was set to.
func (e *ERP) checkKey(tx *statements, key string) error {
	if key == "" || !e.Faults().UniqueKeys {
		return nil
	}
	number, err := first(tx, scanValue[string], `select number from document where external_key = $1`, key)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &Error{Status: 409, Code: "00/409", Message: fmt.Sprintf("External key %q is used by document %s", key, number)}
}

// book makes a document; half leaves its goods movements for Reprocess.
func (e *ERP) book(tx *statements, r Request, half bool) (Document, error) {
	if r.PostingDate == "" {
		r.PostingDate = e.now().UTC().Format(time.DateOnly)
	}
	if err := errors.Join(e.checkKey(tx, r.ExternalKey), e.checkPeriod(tx, r.PostingDate)); err != nil {
		return Document{}, err
	}
	doc := Document{
		Kind: r.Kind, ExternalKey: r.ExternalKey, OrderNo: r.OrderNo, Operation: r.Operation, PostingDate: r.PostingDate,
		BookedAt: e.now().UTC().Truncate(time.Second), Person: r.Person, Lot: r.Lot, Lines: []Line{}, arrived: r.arrived,
	}
	if r.Reverses != "" {
		if err := reverse(tx, &doc, r.Reverses); err != nil {
			return Document{}, err
		}
	}
	o, err := readOrder(tx, doc.OrderNo)
	if err != nil {
		return Document{}, err
	}
	if o.State == Created {
		return Document{}, &Error{Status: 409, Code: "CO/106", Message: fmt.Sprintf("Order %s is not released", o.No)}
	}
	if o.State == Closed || o.State == Completed || o.State == Cancelled || (o.State == Finished && e.finishCloses && r.Kind != KindStatus) {
		return Document{}, wrongState(&o, "nothing can be posted to it")
	}
	if r.Reverses == "" {
		err = e.fill(tx, &doc, &o, r)
	}
	if err != nil {
		return Document{}, err
	}
	if half {
		doc.Lines, doc.Failed = []Line{}, doc.Lines
	}
	return doc, e.store(tx, &doc)
}

func (e *ERP) checkPeriod(tx *statements, date string) error {
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		return &Error{Status: 400, Code: "00/088", Message: fmt.Sprintf("Posting date %q is not a date like 2026-11-24", date)}
	}
	open, err := first(tx, scanValue[bool], `select open from period where period = $1`, date[:7])
	switch {
	case err == nil && !open:
		return &Error{Status: 422, Code: "M7/053", Message: fmt.Sprintf("Posting period %s is closed: posting date %s is not possible", date[:7], date)}
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	}
	return nil
}

// fill works out a document of its own right.
func (e *ERP) fill(tx *statements, doc *Document, o *Order, r Request) error {
	switch r.Kind {
	case KindConfirmation:
		return e.confirm(tx, doc, o, r)
	case KindMovement:
		return e.withdraw(tx, doc, o, r)
	case KindStatus:
		return e.setState(tx, doc, o, r)
	}
	return &Error{Status: 400, Code: "00/001", Message: fmt.Sprintf("Kind %q of document is unknown", r.Kind)}
}

func (e *ERP) confirm(tx *statements, doc *Document, o *Order, r Request) error {
	if r.Item != "" && r.Item != o.Item {
		return &Error{Status: 422, Code: "CO/119", Message: fmt.Sprintf("Order %s makes item %q, not %q", o.No, o.Item, r.Item)}
	}
	if err := checkQuantity(o.Item, o.Unit, r.Unit, r.Yield, r.Scrap, r.Rework); err != nil {
		return err
	}
	if r.Operation != "" && !hasOperation(o, r.Operation) {
		return &Error{Status: 422, Code: "RU/002", Message: fmt.Sprintf("Order %s has no operation %q", o.No, r.Operation)}
	}
	doc.Item, doc.Unit, doc.Yield, doc.Scrap, doc.Rework = o.Item, o.Unit, r.Yield, r.Scrap, r.Rework
	doc.ScrapReason, doc.Final = r.ScrapReason, r.Final
	if r.Yield.IsPositive() {
		doc.Lines = append(doc.Lines, Line{Movement: ReceiptFromOrder, Item: o.Item, Quantity: r.Yield, Unit: o.Unit, Lot: r.Lot})
	}
	made := r.Yield.Add(r.Scrap)
	for _, c := range o.Components {
		if c.Backflush && made.IsPositive() {
			need := c.Required.Mul(made).DivRound(o.Quantity, scale)
			doc.Lines = append(doc.Lines, Line{Movement: IssueToOrder, Item: c.Item, Quantity: need, Unit: c.Unit, Reservation: c.Reservation})
		}
	}
	return e.begin(tx, o)
}

// begin starts an order with the first thing that is posted to it.
func (e *ERP) begin(tx *statements, o *Order) error {
	if o.State != Released {
		return nil
	}
	o.State = Started
	return e.storeHeader(tx, *o)
}

func hasOperation(o *Order, operation string) bool {
	for _, op := range o.Operations {
		if op.Operation == operation {
			return true
		}
	}
	return false
}

func (e *ERP) withdraw(tx *statements, doc *Document, o *Order, r Request) error {
	if r.Movement != IssueToOrder && r.Movement != ReturnFromOrder {
		return &Error{Status: 422, Code: "M7/001", Message: fmt.Sprintf("Movement %q is not possible for an order: use 261 or 262", r.Movement)}
	}
	it, err := readItem(tx, r.Item)
	if err != nil {
		return err
	}
	if err := checkQuantity(it.Item, it.Unit, r.Unit, r.Quantity); err != nil {
		return err
	}
	if !r.Quantity.IsPositive() {
		return &Error{Status: 422, Code: "M7/018", Message: fmt.Sprintf("Enter a quantity of item %q above zero", r.Item)}
	}
	doc.Item, doc.Unit = it.Item, it.Unit
	doc.Lines = append(doc.Lines, Line{Movement: r.Movement, Item: it.Item, Quantity: r.Quantity, Unit: it.Unit, Lot: r.Lot, Reservation: r.Reservation})
	return e.begin(tx, o)
}

func checkQuantity(item, unit, given string, amounts ...decimal.Decimal) error {
	if given != unit {
		return &Error{Status: 422, Code: "BM/302", Message: fmt.Sprintf("Unit %q is not defined for item %q, which is kept in %s", given, item, unit)}
	}
	for _, a := range amounts {
		if a.IsNegative() {
			return &Error{Status: 422, Code: "M7/018", Message: fmt.Sprintf("Quantity %s of item %q is below zero", a, item)}
		}
		if !a.Equal(a.Truncate(scale)) {
			return &Error{Status: 422, Code: "BM/314", Message: fmt.Sprintf("Quantity %s of item %q has more than %d decimals", a, item, scale)}
		}
	}
	return nil
}

// rank orders the states that the shop floor can reach.
var rank = map[string]int{Released: 1, Started: 2, Finished: 3}

func (e *ERP) setState(tx *statements, doc *Document, o *Order, r Request) error {
	if rank[r.State] < rank[Started] {
		return &Error{Status: 400, Code: "CO/100", Message: fmt.Sprintf("State %q cannot be set", r.State)}
	}
	if rank[o.State] >= rank[r.State] {
		return &Error{Status: 409, Code: "CO/101", Message: fmt.Sprintf("Order %s is already %s", o.No, o.State)}
	}
	doc.State, o.State = r.State, r.State
	return e.storeHeader(tx, *o)
}

// reverse fills doc with the opposite of a document.
func reverse(tx *statements, doc *Document, number string) error {
	old, err := readDocument(tx, number, math.MaxInt64)
	if err != nil {
		return err
	}
	if old.Kind == KindStatus || old.Reverses != "" {
		return &Error{Status: 422, Code: "M7/060", Message: fmt.Sprintf("Document %s cannot be reversed: it is itself a reversal or only sets a state", number)}
	}
	if old.ReversedBy != "" {
		return &Error{Status: 409, Code: "M7/061", Message: fmt.Sprintf("Document %s is already reversed by %s", number, old.ReversedBy)}
	}
	if len(old.Failed) > 0 {
		return &Error{Status: 409, Code: "CO/690", Message: fmt.Sprintf("Document %s has %d goods movements that failed: process them first", number, len(old.Failed))}
	}
	doc.Kind, doc.OrderNo, doc.Operation, doc.Item, doc.Unit = old.Kind, old.OrderNo, old.Operation, old.Item, old.Unit
	doc.Yield, doc.Scrap, doc.Rework, doc.Reverses = old.Yield.Neg(), old.Scrap.Neg(), old.Rework.Neg(), number
	opposite := map[string]string{ReceiptFromOrder: ReceiptReversal, IssueToOrder: ReturnFromOrder, ReturnFromOrder: IssueToOrder}
	for _, l := range old.Lines {
		l.Movement = opposite[l.Movement]
		doc.Lines = append(doc.Lines, l)
	}
	return nil
}

func (e *ERP) store(tx *statements, d *Document) error {
	n, err := next(tx, "document", 4_900_000_001)
	if err != nil {
		return err
	}
	d.Number = fmt.Sprint(n)
	_, err = tx.Exec(`insert into document (number, kind, external_key, order_no, operation, item, yield, scrap, rework, unit, scrap_reason,
		final, state, person, lot, posting_date, booked_at, reverses, arrived)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`,
		d.Number, d.Kind, d.ExternalKey, d.OrderNo, d.Operation, d.Item, d.Yield.String(), d.Scrap.String(), d.Rework.String(), d.Unit,
		d.ScrapReason, d.Final, d.State, d.Person, d.Lot, d.PostingDate, d.BookedAt.Unix(), d.Reverses, d.arrived)
	if err != nil {
		return err
	}
	for i, l := range d.Lines {
		if err := move(tx, l.Item, l.effect()); err != nil {
			return err
		}
		if err := storeLine(tx, "document_line", d.Number, i+1, l); err != nil {
			return err
		}
	}
	for i, l := range d.Failed {
		if err := storeLine(tx, "failed_line", d.Number, i+1, l); err != nil {
			return err
		}
	}
	return nil
}

func storeLine(tx *statements, table, number string, line int, l Line) error {
	_, err := tx.Exec(`insert into `+table+` (number, line, movement, item, quantity, unit, lot, reservation) values ($1, $2, $3, $4, $5, $6, $7, $8)`,
		number, line, l.Movement, l.Item, l.Quantity.String(), l.Unit, l.Lot, l.Reservation)
	return err
}

// Reprocess books the goods movements that failed, and returns how many.
func (e *ERP) Reprocess(ctx context.Context) (n int, err error) {
	err = e.inTx(func(tx *statements) error {
		docs, err := readDocuments(tx, ` where d.number in (select number from failed_line)`)
		if err != nil {
			return err
		}
		n = 0
		for _, d := range docs {
			if err := bookFailed(tx, &d); err != nil {
				return err
			}
			n += len(d.Failed)
		}
		return nil
	})
	return n, err
}

// ReprocessDocument books the goods movements of one document that failed, all or none, and returns the document. What is booked is not
// booked again.
func (e *ERP) ReprocessDocument(_ context.Context, number string) (doc Document, err error) {
	err = e.inTx(func(tx *statements) error {
		old, err := readDocument(tx, number, math.MaxInt64)
		if err == nil && len(old.Failed) > 0 {
			if err = e.checkPeriod(tx, old.PostingDate); err == nil {
				err = bookFailed(tx, &old)
			}
		}
		if err == nil {
			doc, err = readDocument(tx, number, math.MaxInt64)
		}
		return err
	})
	return doc, err
}

func bookFailed(tx *statements, d *Document) error {
	for i, l := range d.Failed {
		if err := errors.Join(move(tx, l.Item, l.effect()), storeLine(tx, "document_line", d.Number, len(d.Lines)+i+1, l)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`delete from failed_line where number = $1`, d.Number)
	return err
}

const documentColumns = `d.number, d.kind, d.external_key, d.order_no, d.operation, d.item, d.yield, d.scrap, d.rework, d.unit, d.scrap_reason,
	d.final, d.state, d.person, d.lot, d.posting_date, d.booked_at, d.reverses,
	coalesce((select r.number from document r where r.reverses = d.number), '') from document d`

func scanDocument(row scanner) (d Document, err error) {
	var booked int64
	err = row.Scan(&d.Number, &d.Kind, &d.ExternalKey, &d.OrderNo, &d.Operation, &d.Item, &d.Yield, &d.Scrap, &d.Rework, &d.Unit, &d.ScrapReason,
		&d.Final, &d.State, &d.Person, &d.Lot, &d.PostingDate, &booked, &d.Reverses, &d.ReversedBy)
	d.BookedAt = time.Unix(booked, 0).UTC()
	return d, err
}

func scanLine(row scanner) (l Line, err error) {
	return l, row.Scan(&l.Movement, &l.Item, &l.Quantity, &l.Unit, &l.Lot, &l.Reservation)
}

// readDocument reads a document that arrived until an instant in milliseconds.
func readDocument(q querier, number string, until int64) (Document, error) {
	docs, err := readDocuments(q, ` where d.number = $1 and d.arrived <= $2`, number, until)
	if err != nil {
		return Document{}, err
	}
	if len(docs) == 0 {
		return Document{}, &Error{Status: 404, Code: "M7/010", Message: fmt.Sprintf("Document %q does not exist", number)}
	}
	return docs[0], nil
}

func readDocuments(q querier, where string, args ...any) ([]Document, error) {
	docs, err := collect(q, scanDocument, `select `+documentColumns+where+` order by d.number`, args...)
	for i := range docs {
		for table, into := range map[string]*[]Line{"document_line": &docs[i].Lines, "failed_line": &docs[i].Failed} {
			if err != nil {
				return docs, err
			}
			*into, err = collect(q, scanLine, `select movement, item, quantity, unit, lot, reservation from `+table+` where number = $1 order by line`, docs[i].Number)
		}
	}
	return docs, err
}

// accept queues a request to be booked after delay and returns its ticket.
func (e *ERP) accept(ctx context.Context, r Request, delay time.Duration) (ticket int64, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	err = e.inTx(func(tx *statements) error {
		if _, err := readOrder(tx, r.OrderNo); err != nil && r.Reverses == "" {
			return err
		}
		ticket, err = first(tx, scanValue[int64], `insert into queue (external_key, due_at, request, state) values ($1, $2, $3, 'WAITING') returning ticket`,
			r.ExternalKey, e.now().Add(delay).UnixMilli(), string(text))
		return err
	})
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return ticket, err
}

// bookLater books queued requests when they are due, until ctx ends.
func (e *ERP) bookLater(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
		wait := time.Second
		for {
			due, err := e.bookNext(ctx)
			if err != nil || due < 0 {
				break
			}
			if due > 0 {
				wait = min(due, wait) // the clock may be set meanwhile
				break
			}
		}
		timer.Reset(wait)
	}
}

// bookNext books one due request. It returns 0 when it did, the time until the next is due, or -1 when the queue is empty.
func (e *ERP) bookNext(ctx context.Context) (time.Duration, error) {
	type queued struct {
		ticket, dueAt int64
		text          string
	}
	q, err := first(&e.read, func(row scanner) (q queued, err error) { return q, row.Scan(&q.ticket, &q.dueAt, &q.text) },
		`select ticket, due_at, request from queue where state = 'WAITING' order by due_at, ticket limit 1`)
	if errors.Is(err, sql.ErrNoRows) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if due := time.UnixMilli(q.dueAt).Sub(e.now()); due > 0 {
		return due, nil
	}
	var r Request
	if err := json.Unmarshal([]byte(q.text), &r); err != nil {
		return -1, err
	}
	err = e.inTx(func(tx *statements) error {
		if _, err := e.book(tx, r, false); err != nil {
			return err
		}
		_, err := tx.Exec(`update queue set state = 'BOOKED' where ticket = $1`, q.ticket)
		return err
	})
	var refused *Error
	if errors.As(err, &refused) {
		err = e.change(`update queue set state = 'FAILED', code = $1, message = $2 where ticket = $3`, refused.Code, refused.Message, q.ticket)
	}
	return 0, err
}

// SetPeriod opens or closes a posting period such as 2026-11. A period that was never set is open.
func (e *ERP) SetPeriod(ctx context.Context, period string, open bool) error {
	if _, err := time.Parse("2006-01", period); err != nil {
		return fmt.Errorf("set period %q: it does not look like 2026-11", period)
	}
	return e.change(`insert into period (period, open) values ($1, $2) on conflict (period) do update set open = excluded.open`, period, open)
}
