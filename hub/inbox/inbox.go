// Package inbox makes one readable entry of each exception that a person must see to: what, since when, how much, whose, by when, what
// is proposed.
//
// It owns what an exception is called and who it belongs to, for everybody who shows exceptions or tells of them. It promises that a
// fact about which there are a posting and a discrepancy stands there once. It never changes anything.
package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Entry is something that a person must see to.
type Entry struct {
	Ref   string // its name, such as posting:12
	Kind  string // one of store's
	What  string // one line for a person
	Since time.Time
	// Plant, ERP, OrderNo and Fact are what it is about, as far as that is known.
	Plant, ERP, OrderNo, Fact string
	Write                     string // the key of the write of a business object that it is about
	State, Code               string
	Severity                  reconcile.Severity
	Owner                     string // the role that decides
	Person                    string // who has it; empty for whoever has the role
	// Due is the end of its time; Tier counts how often it was outlasted: 0 inbox, 1 the plant's owner, 2 stop.
	Due   time.Time
	Tier  int
	Stock []Stock // quantities that are not where they should be
	// Money is what that is worth by the configured prices, in Currency; not Priced where an item has none.
	Money    decimal.Decimal
	Priced   bool
	Why      string
	Proposed string
	// Discrepancy is the number of the discrepancy, also of one that is about the same fact.
	Discrepancy int64
}

// Stock is a quantity of an item.
type Stock struct {
	Item, Kind string
	Quantity   decimal.Decimal
	Unit       string
}

// Reader reads entries. All fields are needed.
type Reader struct {
	Store  *store.Store
	Policy reconcile.Policy // prices and times
	Now    func() time.Time
}

// Judged is what is known of a row without reading what it is about.
type Judged struct {
	Owner    string
	Severity reconcile.Severity
	Due      time.Time
	Tier     int
}

// Judge says whose a row is and how long it has waited; false for a discrepancy, which says that itself.
func (rd *Reader) Judge(r store.InboxRow) (Judged, bool) {
	if r.Kind == store.InboxDiscrepancy {
		return Judged{}, false
	}
	return rd.judged(r, triage(r)), true
}

func triage(r store.InboxRow) reconcile.Triage {
	switch r.Kind {
	case store.InboxPosting:
		return reconcile.TriagePosting(r.State, r.Class, r.Code)
	case store.InboxWrite:
		return triageWrite(r)
	case store.InboxAlarm:
		return reconcile.TriageAlarm(r.Code)
	}
	return reconcile.TriageOther(r.Kind)
}

func (rd *Reader) judged(r store.InboxRow, t reconcile.Triage) Judged {
	return Judged{Owner: cmp.Or(r.Owner, string(t.Owner)), Severity: t.Severity, Due: r.Since.Add(rd.Policy.TimeFor(t.Severity)), Tier: rd.Policy.TierOf(t.Severity, rd.Now().Sub(r.Since))}
}

// Entry makes a row readable. A discrepancy about a fact whose posting is in the list itself is not shown beside it.
func (rd *Reader) Entry(ctx context.Context, r store.InboxRow) (e Entry, shown bool, err error) {
	e = Entry{Ref: r.Ref(), Kind: r.Kind, Since: r.Since, Plant: r.Plant, ERP: r.ERP, OrderNo: r.OrderNo, Code: r.Code, State: r.State, Person: r.Person}
	shown = true
	t := triage(r)
	worth := map[string]decimal.Decimal{}
	switch r.Kind {
	case store.InboxPosting:
		err = rd.postingEntry(ctx, r, &e, worth)
	case store.InboxWrite:
		err = rd.writeEntry(ctx, r, &e)
	case store.InboxDiscrepancy:
		t, shown, err = rd.discrepancyEntry(ctx, r, &e, worth)
	default:
		err = rd.otherEntry(ctx, r, &e)
	}
	if errors.Is(err, store.ErrNotFound) {
		return e, false, nil // it was settled just now
	}
	if err != nil {
		return e, false, err
	}
	j := rd.judged(r, t)
	e.Severity, e.Owner, e.Proposed = j.Severity, j.Owner, cmp.Or(e.Proposed, t.Proposed)
	if e.Due.IsZero() {
		e.Due, e.Tier = j.Due, j.Tier
	}
	e.Money, e.Priced = rd.Policy.Worth(worth)
	return e, shown, nil
}

func (rd *Reader) postingEntry(ctx context.Context, r store.InboxRow, e *Entry, worth map[string]decimal.Decimal) error {
	f, err := rd.Store.FactByID(ctx, r.ID)
	if err != nil {
		return err
	}
	p, err := rd.Store.Posting(ctx, r.ID)
	if err != nil {
		return err
	}
	c, err := rd.Store.Correction(ctx, r.ID)
	if err != nil {
		return err
	}
	x := c.Values(f.Fact)
	e.Fact, e.Why, e.Proposed = f.Fact.Key.String(), p.Reason, ""
	var parts []string
	for _, l := range x.FactQuantities() {
		e.Stock = append(e.Stock, Stock{l.Item, string(l.Kind), l.Received, l.Unit})
		worth[l.Item] = worth[l.Item].Add(l.Received.Abs())
		parts = append(parts, fmt.Sprintf("%s %s %s of %s", l.Received, l.Unit, l.Kind, cmp.Or(l.Item, "the order's item")))
	}
	if o := x.OrderState; o != nil {
		parts = append(parts, "order "+strings.ToLower(string(o.State)))
	}
	e.What = cmp.Or(strings.Join(parts, ", "), string(x.Kind)) + waits[r.State]
	if p.Class == "waiting" {
		e.What = strings.Replace(e.What, "waits for a person", "waits", 1)
	}
	if p.NextStep != "" && r.State == "parked" {
		e.Proposed = p.NextStep
	}
	return rd.sameFact(ctx, f.Fact, e)
}

// sameFact adds what the rules propose for a fact that a discrepancy is about too.
func (rd *Reader) sameFact(ctx context.Context, f object.Fact, e *Entry) error {
	if f.OrderNo() == "" {
		return nil
	}
	all, err := rd.Store.Discrepancies(ctx, store.DiscrepancyFilter{OrderNo: f.OrderNo(), Live: true}, store.Page{Limit: 50})
	for _, d := range all {
		if d.Subject == "fact "+f.Key.String() {
			e.Discrepancy, e.Proposed = d.ID, d.Proposed.Text
			if d.State == reconcile.Healing {
				e.Proposed += " (begun)"
			}
		}
	}
	return err
}

func (rd *Reader) discrepancyEntry(ctx context.Context, r store.InboxRow, e *Entry, worth map[string]decimal.Decimal) (t reconcile.Triage, shown bool, err error) {
	d, err := rd.Store.Discrepancy(ctx, r.ID)
	if err != nil {
		return t, false, err
	}
	t = reconcile.Triage{Owner: d.Owner, Severity: d.Severity, Proposed: d.Proposed.Text}
	e.What = fmt.Sprintf("%s of %s: %s says %s, %s says %s", strings.ReplaceAll(string(d.Type), "_", " "), d.Subject, d.Left.Name, d.Left.Value, d.Right.Name, d.Right.Value)
	e.Why, e.Discrepancy, e.Due, e.Tier, e.Person = cmp.Or(d.Note, d.Why), d.ID, d.Due, d.Tier, cmp.Or(e.Person, d.Assigned)
	if d.Proposed.Write != "" {
		shown, err = rd.aboutWrite(ctx, d.Discrepancy, e)
		return t, shown, err
	}
	if len(d.Facts) == 1 {
		e.Fact = d.Facts[0]
	}
	if d.Item != "" && !d.Delta.IsZero() {
		e.Stock = append(e.Stock, Stock{Item: d.Item, Quantity: d.Delta, Unit: d.Unit})
		worth[d.Item] = d.Delta.Abs()
	}
	if e.Fact == "" || d.Subject != "fact "+e.Fact {
		return t, true, nil
	}
	f, err := rd.Store.FactByKey(ctx, e.Fact)
	if errors.Is(err, store.ErrNotFound) {
		return t, true, nil
	}
	inList := err == nil && f.Posting != nil && (f.Posting.State == store.PostingParked || f.Posting.State == store.PostingInDoubt)
	return t, !inList, err
}

func (rd *Reader) otherEntry(ctx context.Context, r store.InboxRow, e *Entry) error {
	page := store.Page{Limit: 1, Before: r.ID + 1}
	origin := strings.Trim(r.Plant+"/"+r.Agent, "/")
	switch r.Kind {
	case store.InboxException:
		all, err := rd.Store.Exceptions(ctx, store.ExceptionFilter{}, page)
		if err != nil || len(all) == 0 || all[0].ID != r.ID {
			return errors.Join(err, store.ErrNotFound)
		}
		x := all[0]
		e.What, e.Why, e.Proposed = fmt.Sprintf("input of source %s at %s is no fact: %s %s", x.Source, x.Agent, strings.ReplaceAll(x.Code, "_", " "), x.Item), x.Reason, x.NextStep
	case store.InboxAlarm:
		all, err := rd.Store.Alarms(ctx, false, page)
		if err != nil || len(all) == 0 || all[0].ID != r.ID {
			return errors.Join(err, store.ErrNotFound)
		}
		x := all[0]
		e.What, e.Why, e.Proposed = x.Subject+": "+strings.ReplaceAll(x.Code, "_", " "), x.Reason, x.NextStep
	case store.InboxConflict:
		all, err := rd.Store.Conflicts(ctx, false, page)
		if err != nil || len(all) == 0 || all[0].ID != r.ID {
			return errors.Join(err, store.ErrNotFound)
		}
		e.Fact, e.What, e.Why = all[0].Key, "another fact came under key "+all[0].Key+" from "+origin, "the first one counts, the second is kept aside"
	case store.InboxUnreadable:
		all, err := rd.Store.UnreadableRecords(ctx, false, page)
		if err != nil || len(all) == 0 || all[0].ID != r.ID {
			return errors.Join(err, store.ErrNotFound)
		}
		e.What, e.Why = "a record from "+origin+" cannot be read", all[0].Reason
	}
	return nil
}
