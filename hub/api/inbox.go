package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (s *server) inboxRoutes(api huma.API) {
	get(api, "list-inbox", "/v1/inbox", "Everything that a person must see to in one list, oldest first: what, whose, how much, by when, what is proposed", s.listInbox)
	get(api, "get-inbox-entry", "/v1/inbox/{ref}", "One exception with its evidence: what was sent to the outside system and answered, what was corrected, who did what", s.getInbox)
	post(api, "assign-inbox-entry", "/v1/inbox/{ref}/assign", "Give an exception to a role or a person", s.assignInbox)
	post(api, "correct-posting", "/v1/postings/{key}/correct", "Post a fact with another order number, item, lot or date than it says; the fact stays as it came", s.correct)
	post(api, "reverse-posting", "/v1/postings/{key}/reverse", "Take back what is in the books of a fact; nothing comes in its place until it is corrected", s.reverse)
	get(api, "get-evidence", "/v1/facts/{key}/evidence", "What was said with the outside system about a fact, and what was corrected of its posting", s.getEvidence)
	get(api, "list-replays", "/v1/replays", "Replays of many postings, newest first", s.listReplays)
	post(api, "begin-replay", "/v1/replays", "Take parked postings up again one after the other, at a rate; it survives restarts", s.beginReplay)
	post(api, "cancel-replay", "/v1/replays/{id}/cancel", "End a replay; what it has taken up goes on", s.cancelReplay)
	get(api, "count-heals", "/v1/heals", "How many heals there were, and how many of them were wrong", s.countHeals)
}

// InboxEntry is something that a person must see to.
type InboxEntry struct {
	Ref     string    `json:"ref" doc:"Its name, such as posting:12"`
	Kind    string    `json:"kind" enum:"posting,discrepancy,exception,conflict,unreadable,alarm,write"`
	What    string    `json:"what" doc:"One line for a person"`
	Since   time.Time `json:"since"`
	Plant   string    `json:"plant,omitempty"`
	ERP     string    `json:"erp,omitempty"`
	OrderNo string    `json:"order_no,omitempty"`
	// Fact is the key of the fact that it is about.
	Fact string `json:"fact,omitempty"`
	// Write is the key of the write of a business object that it is about.
	Write    string `json:"write,omitempty"`
	State    string `json:"state,omitempty"`
	Code     string `json:"code,omitempty"`
	Severity string `json:"severity" enum:"low,medium,high"`
	Owner    string `json:"owner" doc:"The role that decides"`
	Person   string `json:"person,omitempty" doc:"Who has it; empty for whoever has the role"`
	// Due is the end of its time; Tier counts how often it was outlasted: 0 inbox, 1 the plant's owner, 2 stop.
	Due   time.Time    `json:"due"`
	Tier  int          `json:"tier"`
	Stock []InboxStock `json:"stock" nullable:"false" doc:"Quantities that are not where they should be"`
	Money string       `json:"money" doc:"What that is worth by the configured prices; unknown where an item has none"`
	// Currency is empty where the money is unknown.
	Currency string `json:"currency,omitempty"`
	Why      string `json:"why,omitempty"`
	Proposed string `json:"proposed" doc:"The one thing that is proposed"`
	// Discrepancy is the number of the discrepancy, also of one that is about the same fact.
	Discrepancy int64 `json:"discrepancy,omitempty"`
}

// InboxStock is a quantity of an item.
type InboxStock struct {
	Item     string `json:"item"`
	Kind     string `json:"kind,omitempty"`
	Quantity string `json:"quantity"`
	Unit     string `json:"unit,omitempty"`
}

// InboxEntryLife is an exception with its evidence.
type InboxEntryLife struct {
	InboxEntry
	Said        []Exchange   `json:"said" nullable:"false" doc:"The last exchanges with the outside system, without secrets and cut to a size"`
	Corrections []Correction `json:"corrections" nullable:"false"`
	Steps       []LifeStep   `json:"steps" nullable:"false" doc:"What happened, and what people did about it"`
	Payload     string       `json:"payload,omitempty" doc:"The beginning of what was received"`
}

// Exchange is a request to an outside system and its answer.
type Exchange struct {
	Purpose string    `json:"purpose" enum:"post,look up,read back"`
	At      time.Time `json:"at"`
	Method  string    `json:"method"`
	Address string    `json:"address,omitempty"`
	Request string    `json:"request,omitempty"`
	Status  string    `json:"status,omitempty" doc:"Empty when no answer came"`
	Answer  string    `json:"answer,omitempty"`
	Cut     bool      `json:"cut,omitempty" doc:"There was more"`
}

// Correction is what was changed of a posting; the fact stays as it came.
type Correction struct {
	At     time.Time        `json:"at"`
	By     string           `json:"by"`
	Note   string           `json:"note"`
	Before CorrectionValues `json:"before"`
	After  CorrectionValues `json:"after"`
	Key    string           `json:"key,omitempty" doc:"The key that it is posted under from then on, where that is not the fact's own"`
}

// CorrectionValues are the four things that can be corrected.
type CorrectionValues struct {
	OrderNo     string `json:"order_no"`
	Item        string `json:"item"`
	Lot         string `json:"lot"`
	PostingDate string `json:"posting_date" doc:"Empty: the date on which it happened"`
}

type inboxInput struct {
	Kind    string `query:"kind" enum:"posting,discrepancy,exception,conflict,unreadable,alarm,write"`
	Plant   string `query:"plant"`
	OrderNo string `query:"order_no"`
	Code    string `query:"code"`
	Owner   string `query:"owner" doc:"Only of this role"`
	Person  string `query:"person" doc:"Only what this person has"`
	Late    bool   `query:"late" doc:"Only what has outlasted its time"`
	Limit   int    `query:"limit" default:"100" minimum:"1" maximum:"500"`
	After   string `query:"after" doc:"The next value of the page before"`
}

// inboxList is one page of the inbox.
type inboxList struct {
	Body struct {
		Items []InboxEntry `json:"items" nullable:"false"`
		Next  string       `json:"next,omitempty"`
	}
}

func (s *server) listInbox(ctx context.Context, in *inboxInput) (*inboxList, error) {
	place, err := parsePlace(in.After)
	if err != nil {
		return nil, huma.Error422UnprocessableEntity(err.Error())
	}
	f := store.InboxFilter{Kind: in.Kind, Plant: in.Plant, OrderNo: in.OrderNo, Code: in.Code, Person: in.Person}
	out := &inboxList{}
	out.Body.Items = []InboxEntry{}
	for {
		rows, err := s.store.Inbox(ctx, f, place, in.Limit)
		if err != nil {
			return nil, fail(err, "the inbox")
		}
		for _, r := range rows {
			place = store.InboxPlace{Since: r.Since, Kind: r.Kind, ID: r.ID}
			if s.surelyNot(r, in) {
				continue
			}
			e, shown, err := s.entry(ctx, r)
			if err != nil {
				return nil, fail(err, "exception "+r.Ref())
			}
			if !shown || in.Owner != "" && e.Owner != in.Owner || in.Late && e.Tier == 0 {
				continue
			}
			if out.Body.Items = append(out.Body.Items, e); len(out.Body.Items) == in.Limit {
				out.Body.Next = placeText(place)
				return out, nil
			}
		}
		if len(rows) < in.Limit {
			return out, nil
		}
	}
}

// surelyNot reports that a row is not chosen, without reading what it is about: there may be very many.
func (s *server) surelyNot(r store.InboxRow, in *inboxInput) bool {
	j, ok := s.inbox.Judge(r)
	return ok && (in.Owner != "" && j.Owner != in.Owner || in.Late && j.Tier == 0)
}

func placeText(p store.InboxPlace) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s %d", p.Since.UnixMicro(), p.Kind, p.ID))
}

func parsePlace(text string) (p store.InboxPlace, err error) {
	if text == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Fields(string(raw))
	if err != nil || len(parts) != 3 {
		return p, errors.New("after is not the next value of a page before")
	}
	at, err := strconv.ParseInt(parts[0], 10, 64)
	if err == nil {
		p.ID, err = strconv.ParseInt(parts[2], 10, 64)
	}
	p.Since, p.Kind = time.UnixMicro(at), parts[1]
	return p, err
}

// entry makes a row readable, as the API says it.
func (s *server) entry(ctx context.Context, r store.InboxRow) (InboxEntry, bool, error) {
	e, shown, err := s.inbox.Entry(ctx, r)
	v := InboxEntry{Ref: e.Ref, Kind: e.Kind, What: e.What, Since: e.Since, Plant: e.Plant, ERP: e.ERP, OrderNo: e.OrderNo, Fact: e.Fact, Write: e.Write, State: e.State, Code: e.Code,
		Severity: string(e.Severity), Owner: e.Owner, Person: e.Person, Due: e.Due, Tier: e.Tier, Stock: []InboxStock{}, Money: "unknown", Why: e.Why, Proposed: e.Proposed, Discrepancy: e.Discrepancy}
	for _, x := range e.Stock {
		v.Stock = append(v.Stock, InboxStock{x.Item, x.Kind, x.Quantity.String(), x.Unit})
	}
	if e.Priced {
		v.Money, v.Currency = e.Money.String(), s.o.Currency
	}
	return v, shown, err
}

// RefInput names an exception.
type RefInput struct {
	Ref string `path:"ref" doc:"Such as posting:12"`
}

// row finds an exception that is open.
func (s *server) row(ctx context.Context, ref string) (store.InboxRow, error) {
	if _, _, err := store.ParseRef(ref); err != nil {
		return store.InboxRow{}, huma.Error422UnprocessableEntity(err.Error())
	}
	rows, err := s.store.Inbox(ctx, store.InboxFilter{Ref: ref}, store.InboxPlace{}, 1)
	if err == nil && len(rows) == 0 {
		return store.InboxRow{}, huma.Error404NotFound("there is no open exception " + ref)
	}
	if err != nil {
		return store.InboxRow{}, fail(err, "exception "+ref)
	}
	return rows[0], nil
}

func (s *server) getInbox(ctx context.Context, in *RefInput) (*struct{ Body InboxEntryLife }, error) {
	r, err := s.row(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	e, _, err := s.entry(ctx, r)
	if err != nil {
		return nil, fail(err, "exception "+in.Ref)
	}
	v := InboxEntryLife{InboxEntry: e, Said: []Exchange{}, Corrections: []Correction{}, Steps: []LifeStep{}}
	if err := s.evidence(ctx, r, &v); err != nil {
		return nil, fail(err, "the evidence of "+in.Ref)
	}
	steps, err := s.store.InboxSteps(ctx, in.Ref)
	if err != nil {
		return nil, fail(err, "what people did about "+in.Ref)
	}
	for _, x := range steps {
		v.Steps = append(v.Steps, LifeStep{At: x.At, Step: x.Step, By: x.By, Reason: x.Note})
	}
	told, err := s.store.NoticesOf(ctx, in.Ref)
	if err != nil {
		return nil, fail(err, "who was told of "+in.Ref)
	}
	for _, x := range told {
		v.Steps = append(v.Steps, LifeStep{At: x.At, Step: "message to " + x.Receiver, Reason: "in message " + x.Message})
	}
	return one(v), nil
}

func (s *server) evidence(ctx context.Context, r store.InboxRow, v *InboxEntryLife) error {
	switch r.Kind {
	case store.InboxPosting:
		_, life, err := s.store.Life(ctx, v.Fact)
		if err != nil {
			return err
		}
		for _, x := range life {
			v.Steps = append(v.Steps, LifeStep(x))
		}
		v.Said, v.Corrections, err = s.said(ctx, r.ID)
		return err
	case store.InboxWrite:
		key, err := writeKey(v.Write)
		if err != nil {
			return err
		}
		w, err := s.writeLife(ctx, key)
		v.Said, v.Steps = w.Said, append(v.Steps, w.Life...)
		return err
	case store.InboxDiscrepancy:
		d, err := s.store.Discrepancy(ctx, r.ID)
		for _, x := range d.Steps {
			v.Steps = append(v.Steps, LifeStep{At: x.At, Step: x.Step, By: x.By, Reason: x.Note})
		}
		return err
	case store.InboxException:
		all, err := s.store.Exceptions(ctx, store.ExceptionFilter{}, store.Page{Limit: 1, Before: r.ID + 1})
		if err == nil && len(all) > 0 {
			v.Payload = strings.ToValidUTF8(string(all[0].Excerpt), "\uFFFD")
		}
		return err
	}
	return nil
}

func correction(c store.Correction) Correction {
	v := Correction{At: c.At, By: c.By, Note: c.Note, Before: CorrectionValues(c.Before), After: CorrectionValues(c.After)}
	if !c.Key.IsZero() {
		v.Key = c.Key.String()
	}
	return v
}

// Evidence is what shows how a fact came into the books.
type Evidence struct {
	Fact        Fact         `json:"fact"`
	Said        []Exchange   `json:"said" nullable:"false"`
	Corrections []Correction `json:"corrections" nullable:"false"`
	// Now are the values that it is posted with as it stands.
	Now CorrectionValues `json:"now"`
}

func (s *server) getEvidence(ctx context.Context, in *KeyInput) (*struct{ Body Evidence }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	f, err := s.store.FactByKey(ctx, in.Key)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("fact %q", in.Key))
	}
	v := Evidence{Fact: fact(f), Said: []Exchange{}, Corrections: []Correction{}, Now: CorrectionValues(store.ValuesOf(f.Fact))}
	if v.Said, v.Corrections, err = s.said(ctx, f.ID); err != nil {
		return nil, fail(err, fmt.Sprintf("the evidence of fact %q", in.Key))
	}
	if n := len(v.Corrections); n > 0 {
		v.Now = v.Corrections[n-1].After
	}
	return one(v), nil
}

// said reads the exchanges about a posting, and its corrections.
func (s *server) said(ctx context.Context, id int64) ([]Exchange, []Correction, error) {
	said, corrections := []Exchange{}, []Correction{}
	exchanges, err := s.store.Exchanges(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range exchanges {
		said = append(said, Exchange(x))
	}
	all, err := s.store.Corrections(ctx, id)
	for _, c := range all {
		corrections = append(corrections, correction(c))
	}
	return said, corrections, err
}

type assignEntryInput struct {
	RefInput
	Body struct {
		Owner  string `json:"owner,omitempty" enum:"production,controlling,planning,warehouse,quality,master data,automation" doc:"A role"`
		Person string `json:"person,omitempty"`
		Note   string `json:"note,omitempty"`
	}
}

func (s *server) assignInbox(ctx context.Context, in *assignEntryInput) (*struct{ Body Done }, error) {
	if in.Body.Owner == "" && strings.TrimSpace(in.Body.Person) == "" {
		return nil, huma.Error422UnprocessableEntity("name a role (owner) or a person")
	}
	r, err := s.row(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	if r.Kind == store.InboxDiscrepancy {
		to := strings.TrimSpace(in.Body.Owner + " " + in.Body.Person)
		err := s.store.DecideDiscrepancy(ctx, r.ID, "assigned to "+to, caller(ctx), in.Body.Note, func(d *reconcile.Discrepancy) { d.Assigned = cmp.Or(in.Body.Person, d.Assigned) })
		if err != nil {
			return decided(err, r.ID)
		}
	}
	if err := s.store.AssignInbox(ctx, in.Ref, in.Body.Owner, strings.TrimSpace(in.Body.Person), caller(ctx), in.Body.Note); err != nil {
		return nil, refusal(err, "exception "+in.Ref)
	}
	return one(Done{Count: 1}), nil
}

type correctInput struct {
	KeyInput
	Body struct {
		OrderNo     string `json:"order_no,omitempty" doc:"Empty: as it is"`
		Item        string `json:"item,omitempty"`
		Lot         string `json:"lot,omitempty"`
		PostingDate string `json:"posting_date,omitempty" example:"2026-11-26"`
		Note        string `json:"note" minLength:"3" doc:"Why; it stays with the fact"`
	}
}

func (s *server) correct(ctx context.Context, in *correctInput) (*struct{ Body Done }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	b := in.Body
	if err := s.poster.Correct(ctx, in.Key, store.Values{OrderNo: b.OrderNo, Item: b.Item, Lot: b.Lot, PostingDate: b.PostingDate}, b.Note, caller(ctx)); err != nil {
		return nil, refusal(err, fmt.Sprintf("posting %q", in.Key))
	}
	return one(Done{Count: 1}), nil
}

func (s *server) reverse(ctx context.Context, in *againInput) (*struct{ Body Done }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	if err := s.poster.Reverse(ctx, in.Key, in.Body.Note, caller(ctx)); err != nil {
		return nil, refusal(err, fmt.Sprintf("posting %q", in.Key))
	}
	return one(Done{Count: 1}), nil
}

// BulkReplay is a replay of many postings.
type BulkReplay struct {
	ID        int64         `json:"id,omitempty"`
	At        *time.Time    `json:"at,omitempty"`
	By        string        `json:"by,omitempty"`
	Note      string        `json:"note,omitempty"`
	Filter    PostingFilter `json:"filter"`
	PerMinute int           `json:"per_minute"`
	State     string        `json:"state" enum:"running,done,cancelled,dry_run"`
	Total     int64         `json:"total" doc:"Postings that match; those parked later are not taken"`
	Taken     int64         `json:"taken"`
	Skipped   int64         `json:"skipped" doc:"Were not parked any more, or could not be taken up: reason says why the last one was not"`
	EndedAt   *time.Time    `json:"ended_at,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	// Examples are keys of the first postings, in a dry run.
	Examples []string `json:"examples,omitempty"`
}

func bulkReplay(r store.Replay) BulkReplay {
	return BulkReplay{ID: r.ID, At: when(r.At), By: r.By, Note: r.Note, PerMinute: r.PerMinute, State: string(r.State), Total: r.Total, Taken: r.Taken, Skipped: r.Skipped,
		EndedAt: when(r.EndedAt), Reason: r.Reason, Filter: PostingFilter{ERP: r.Filter.ERP, Plant: r.Filter.Plant, OrderNo: r.Filter.OrderNo, Code: r.Filter.Code}}
}

func (s *server) listReplays(ctx context.Context, in *PageInput) (*list[BulkReplay], error) {
	rows, err := s.store.Replays(ctx, in.page())
	if err != nil {
		return nil, fail(err, "the list of replays")
	}
	return paged(rows, in.Limit, func(r store.Replay) int64 { return r.ID }, bulkReplay), nil
}

type beginReplayInput struct {
	Body struct {
		PostingFilter
		All       bool   `json:"all,omitempty" doc:"Really every parked posting, when nothing else chooses"`
		PerMinute int    `json:"per_minute,omitempty" minimum:"1" maximum:"6000" default:"60"`
		DryRun    bool   `json:"dry_run,omitempty" doc:"Only count what would be taken up, with examples"`
		Note      string `json:"note" minLength:"3" doc:"Why; it stays with the replay"`
	}
}

const replayExamples = 20

func (s *server) beginReplay(ctx context.Context, in *beginReplayInput) (*struct{ Body BulkReplay }, error) {
	b := in.Body
	if why := (Replay{PostingFilter: b.PostingFilter, All: b.All}).fault(); why != "" {
		return nil, huma.Error422UnprocessableEntity(why)
	}
	r := store.Replay{By: caller(ctx), Note: b.Note, Filter: b.filter(), PerMinute: b.PerMinute}
	r.Filter.State = store.PostingParked
	if !b.DryRun {
		if err := s.store.BeginReplay(ctx, &r); err != nil {
			return nil, fail(err, "the parked postings")
		}
		return one(bulkReplay(r)), nil
	}
	n, err := s.store.CountPostings(ctx, r.Filter)
	if err != nil {
		return nil, fail(err, "the parked postings")
	}
	some, err := s.store.Postings(ctx, r.Filter, store.Page{Limit: replayExamples})
	if err != nil {
		return nil, fail(err, "the parked postings")
	}
	r.Total, r.State = n, "dry_run"
	v := bulkReplay(r)
	for _, f := range some {
		v.Examples = append(v.Examples, f.Fact.Key.String())
	}
	return one(v), nil
}

func (s *server) cancelReplay(ctx context.Context, in *closeInput) (*struct{ Body Done }, error) {
	if err := s.store.CancelReplay(ctx, in.ID, caller(ctx), in.Body.Note); err != nil {
		return nil, refusal(err, fmt.Sprintf("running replay %d", in.ID))
	}
	return one(Done{Count: 1}), nil
}

// HealCounts is how many heals there were.
type HealCounts struct {
	Made   int64  `json:"made"`
	Undone int64  `json:"undone" doc:"Those that were wrong and were taken back"`
	Share  string `json:"share" doc:"Undone of made, in percent; 0 when there was none"`
}

func (s *server) countHeals(ctx context.Context, _ *struct{}) (*struct{ Body HealCounts }, error) {
	n, err := s.store.CountHeals(ctx)
	if err != nil {
		return nil, fail(err, "the heals")
	}
	v := HealCounts{Made: n.Made, Undone: n.Undone, Share: "0"}
	if n.Made > 0 {
		v.Share = decimal.NewFromInt(n.Undone*100).DivRound(decimal.NewFromInt(n.Made), 2).String()
	}
	return one(v), nil
}
