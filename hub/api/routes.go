package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/tally"
)

// list is one page of a list.
type list[T any] struct {
	Body struct {
		Items []T `json:"items" nullable:"false"`
		// Next is the value of "before" for the next page; absent on the last one.
		Next int64 `json:"next,omitempty"`
	}
}

// PageInput chooses one page of a list.
type PageInput struct {
	Limit  int   `query:"limit" default:"100" minimum:"1" maximum:"500" doc:"How many at most"`
	Before int64 `query:"before" doc:"Only entries with a smaller id: the next value of the page before"`
}

// page asks for one row more than is shown: it tells whether there is another page.
func (p PageInput) page() store.Page { return store.Page{Limit: p.Limit + 1, Before: p.Before} }

// paged converts rows read with page; a limit of 0 takes them all.
func paged[R, T any](rows []R, limit int, id func(R) int64, view func(R) T) *list[T] {
	out := &list[T]{}
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
		out.Body.Next = id(rows[limit-1])
	}
	out.Body.Items = make([]T, len(rows))
	for i, r := range rows {
		out.Body.Items[i] = view(r)
	}
	return out
}

func one[T any](v T) *struct{ Body T } { return &struct{ Body T }{v} }

func (s *server) routes(api huma.API) {
	get(api, "list-work-orders", "/v1/work-orders", "Work orders, newest first", s.listOrders)
	get(api, "get-work-order", "/v1/work-orders/{order_no}", "One work order with its revisions and the time of each state", s.getOrder)
	get(api, "list-facts", "/v1/facts", "Facts, newest first", s.listFacts)
	get(api, "get-fact", "/v1/facts/{key}", "A fact's whole life with times", s.getFact)
	get(api, "list-postings", "/v1/postings", "Postings with their facts, newest first", s.listPostings)
	get(api, "count-postings", "/v1/postings/counts", "How many postings are in which state, and since when", s.countPostings)
	get(api, "get-tally", "/v1/tally", "The quantity ledger: counted = stored = received = posted, or a named record says why not", s.getTally)
	get(api, "list-agents", "/v1/agents", "Plant agents, their sources and what they hold", s.listAgents)
	get(api, "list-erps", "/v1/erps", "Outside systems and how far they were read", s.listERPs)
	get(api, "list-exceptions", "/v1/exceptions", "Inputs that did not become facts, with reason and next step", s.listExceptions)
	get(api, "list-asides", "/v1/asides", "Records kept aside: conflicts and unreadable bytes", s.listAsides)
	get(api, "list-alarms", "/v1/alarms", "What a person must look at", s.listAlarms)
	post(api, "replay-postings", "/v1/postings/replay", "Put parked postings back to due", s.replay)
	post(api, "accept-posting", "/v1/postings/{key}/accept", "Settle a parked posting: a person says which document has the effect, or that there shall be none", s.accept)
	post(api, "post-again", "/v1/postings/{key}/post-again", "Post what nobody could tell about: a person vouches that the ERP does not have it", s.postAgain)
	post(api, "approve-posting", "/v1/postings/{key}/approve", "Post what a policy holds, or what was refused for its date: with the date for the books that a person chose", s.approve)
	post(api, "replay-unreadable", "/v1/asides/unreadable/{id}/replay", "Read a record again, after an upgrade", s.replayUnreadable)
	post(api, "close-aside", "/v1/asides/{kind}/{id}/close", "Settle a record kept aside with a note; what is stored stays as it is", s.closeAside)
	post(api, "close-exception", "/v1/exceptions/{id}/close", "Settle an exception with a note", s.closeException)
	post(api, "close-alarm", "/v1/alarms/{id}/close", "Settle an alarm with a note", s.closeAlarm)
	s.reconcileRoutes(api)
	s.inboxRoutes(api)
	s.mappingRoutes(api)
	s.wakeRoute(api)
	s.messageRoutes(api)
	s.objectRoutes(api)
	s.writeRoutes(api)
}

func get[I, O any](api huma.API, id, path, summary string, h func(context.Context, *I) (*O, error)) {
	huma.Register(api, huma.Operation{OperationID: id, Method: "GET", Path: path, Summary: summary}, h)
}

func post[I, O any](api huma.API, id, path, summary string, h func(context.Context, *I) (*O, error)) {
	huma.Register(api, huma.Operation{OperationID: id, Method: "POST", Path: path, Summary: summary, MaxBodyBytes: 64 << 10}, h)
}

type ordersInput struct {
	PageInput
	Plant      string `query:"plant"`
	ERP        string `query:"erp"`
	State      string `query:"state" enum:"PLANNED,RELEASED,IN_PROGRESS,HELD,COMPLETED,CLOSED,CANCELLED"`
	Item       string `query:"item"`
	Search     string `query:"search" doc:"Part of the order number"`
	Unroutable bool   `query:"unroutable" doc:"Only orders that nobody gets"`
}

func (s *server) listOrders(ctx context.Context, in *ordersInput) (*list[WorkOrder], error) {
	rows, err := s.store.Orders(ctx, store.OrderFilter{Plant: in.Plant, ERP: in.ERP, State: in.State, Item: in.Item, Search: in.Search, Unroutable: in.Unroutable}, in.page())
	if err != nil {
		return nil, fail(err, "the list of work orders")
	}
	return paged(rows, in.Limit, func(o store.Order) int64 { return o.ID }, workOrder), nil
}

// OrderLife is a work order with everything that happened to it.
type OrderLife struct {
	WorkOrder
	Revisions []Revision  `json:"revisions" nullable:"false"`
	Timeline  []OrderStep `json:"timeline" nullable:"false"`
}

// Revision is what one revision of a work order said.
type Revision struct {
	Revision int64     `json:"revision"`
	State    string    `json:"state"`
	Quantity Quantity  `json:"quantity"`
	At       time.Time `json:"at"`
}

type orderInput struct {
	OrderNo string `path:"order_no"`
	ERP     string `query:"erp" doc:"Needed only where two ERPs use the same number"`
}

func (s *server) getOrder(ctx context.Context, in *orderInput) (*struct{ Body OrderLife }, error) {
	o, revisions, steps, err := s.store.OrderTimeline(ctx, in.ERP, in.OrderNo)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("work order %q", in.OrderNo))
	}
	v := OrderLife{WorkOrder: workOrder(o), Revisions: []Revision{}, Timeline: []OrderStep{}}
	for _, r := range revisions {
		v.Revisions = append(v.Revisions, Revision{r.Revision, string(r.State), quantity(r.Quantity), r.RevisedAt})
	}
	for _, x := range steps {
		v.Timeline = append(v.Timeline, OrderStep{x.Step, x.Revision, x.At, x.Origin, x.Reason, x.Operation})
		if isFloor(x.Step) {
			v.FloorState = x.Step
		}
	}
	return one(v), nil
}

type factsInput struct {
	PageInput
	Plant   string `query:"plant"`
	OrderNo string `query:"order_no"`
	Kind    string `query:"kind" enum:"production_confirmation,material_consumption,quality_status,order_state,source_exception"`
	Source  string `query:"source"`
	State   string `query:"state" enum:"due,sending,in_doubt,posted,verified,parked,not_posted,settled" doc:"State of the posting"`
}

func (s *server) listFacts(ctx context.Context, in *factsInput) (*list[Fact], error) {
	rows, err := s.store.Facts(ctx, store.FactFilter{Plant: in.Plant, OrderNo: in.OrderNo, Kind: in.Kind, Source: in.Source, Outcome: in.State}, in.page())
	if err != nil {
		return nil, fail(err, "the list of facts")
	}
	return paged(rows, in.Limit, func(f store.Fact) int64 { return f.ID }, fact), nil
}

// FactLife is a fact with everything that happened to it.
type FactLife struct {
	Fact
	Life []LifeStep `json:"life" nullable:"false"`
	// Mapping is absent where the posting says what the fact says.
	Mapping *PostingMapping `json:"mapping,omitempty" doc:"How the posting is said in the outside system's words, and which versions made that so"`
}

// KeyInput names a fact.
type KeyInput struct {
	Key string `path:"key" doc:"16 base32 characters, or the UUID form"`
}

func (s *server) getFact(ctx context.Context, in *KeyInput) (*struct{ Body FactLife }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	f, steps, err := s.store.Life(ctx, in.Key)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("fact %q", in.Key))
	}
	v := FactLife{Fact: fact(f), Life: []LifeStep{}}
	if v.Mapping, err = s.saidAs(ctx, f.ID); err != nil {
		return nil, fail(err, fmt.Sprintf("the mapping of fact %q", in.Key))
	}
	for _, x := range steps {
		v.Life = append(v.Life, LifeStep(x))
	}
	return one(v), nil
}

type postingsInput struct {
	PageInput
	PostingFilter
}

// PostingFilter chooses postings; empty fields choose all.
type PostingFilter struct {
	ERP     string `query:"erp" json:"erp,omitempty"`
	Plant   string `query:"plant" json:"plant,omitempty"`
	OrderNo string `query:"order_no" json:"order_no,omitempty"`
	Code    string `query:"code" json:"code,omitempty"`
	State   string `query:"state" json:"state,omitempty" enum:"due,sending,in_doubt,posted,verified,parked,not_posted,settled"`
}

func (f PostingFilter) filter() store.PostingFilter {
	return store.PostingFilter{ERP: f.ERP, Plant: f.Plant, OrderNo: f.OrderNo, Code: f.Code, State: store.PostingState(f.State)}
}

func (s *server) listPostings(ctx context.Context, in *postingsInput) (*list[Fact], error) {
	rows, err := s.store.Postings(ctx, in.filter(), in.page())
	if err != nil {
		return nil, fail(err, "the list of postings")
	}
	return paged(rows, in.Limit, func(f store.Fact) int64 { return f.ID }, fact), nil
}

// PostingCount is how many postings are in one state with one code.
type PostingCount struct {
	ERP    string     `json:"erp"`
	State  string     `json:"state"`
	Code   string     `json:"code,omitempty"`
	Count  int64      `json:"count"`
	Oldest *time.Time `json:"oldest,omitempty"`
}

func (s *server) countPostings(ctx context.Context, _ *struct{}) (*list[PostingCount], error) {
	rows, err := s.store.PostingCounts(ctx)
	if err != nil {
		return nil, fail(err, "the counts")
	}
	return paged(rows, 0, nil, func(c store.PostingCount) PostingCount {
		return PostingCount{c.ERP, string(c.State), c.Code, c.Count, when(c.Oldest)}
	}), nil
}

type tallyInput struct {
	Plant   string `query:"plant"`
	OrderNo string `query:"order_no"`
}

func (s *server) getTally(ctx context.Context, in *tallyInput) (*struct{ Body Tally }, error) {
	edge, facts, err := s.store.TallyInput(ctx, store.TallyFilter{Plant: in.Plant, OrderNo: in.OrderNo})
	if err != nil {
		return nil, fail(err, "the tally")
	}
	return one(tallyView(s.o.Now(), tally.Of(edge, facts))), nil
}

func (s *server) listAgents(ctx context.Context, _ *struct{}) (*list[Agent], error) {
	rows, err := s.store.Agents(ctx)
	if err != nil {
		return nil, fail(err, "the list of agents")
	}
	return paged(rows, 0, nil, agent), nil
}

func (s *server) listERPs(ctx context.Context, _ *struct{}) (*list[ERP], error) {
	rows, err := s.store.Cursors(ctx)
	if err != nil {
		return nil, fail(err, "the list of outside systems")
	}
	var all []ERP
	health := s.health()
	for _, c := range rows {
		v := ERP{Name: c.ERP, OKAt: when(c.OKAt), FailedAt: when(c.FailedAt), Error: c.Error, ChangedAt: when(c.ChangedAt)}
		if h, ok := health[c.ERP]; ok {
			v.Posting = h.view()
			delete(health, c.ERP)
		}
		all = append(all, v)
	}
	for _, name := range slices.Sorted(maps.Keys(health)) { // configured, and not read yet
		all = append(all, ERP{Name: name, Posting: health[name].view()})
	}
	return paged(all, 0, nil, func(v ERP) ERP { return v }), nil
}

// health is how the talk about postings goes, by system; never nil.
func (s *server) health() map[string]ERPHealth {
	if s.o.Health == nil {
		return map[string]ERPHealth{}
	}
	return s.o.Health()
}

type exceptionsInput struct {
	PageInput
	Plant  string `query:"plant"`
	Source string `query:"source"`
	Code   string `query:"code"`
	Closed bool   `query:"closed" doc:"Also those that were settled"`
}

func (s *server) listExceptions(ctx context.Context, in *exceptionsInput) (*list[Exception], error) {
	rows, err := s.store.Exceptions(ctx, store.ExceptionFilter{Plant: in.Plant, Source: in.Source, Code: in.Code, Closed: in.Closed}, in.page())
	if err != nil {
		return nil, fail(err, "the list of exceptions")
	}
	return paged(rows, in.Limit, func(e store.Exception) int64 { return e.ID }, func(e store.Exception) Exception {
		return Exception{e.ID, e.Agent, e.Source, e.Code, e.Item, e.Reason, e.NextStep, string(e.Excerpt), e.OccurredAt, when(e.ClosedAt), e.Note}
	}), nil
}

type asidesInput struct {
	PageInput
	Kind   string `query:"kind" enum:"conflict,unreadable" required:"true"`
	Closed bool   `query:"closed"`
}

func (s *server) listAsides(ctx context.Context, in *asidesInput) (*list[Aside], error) {
	read := s.store.Conflicts
	if in.Kind == "unreadable" {
		read = s.store.UnreadableRecords
	}
	rows, err := read(ctx, in.Closed, in.page())
	if err != nil {
		return nil, fail(err, "the list of records kept aside")
	}
	return paged(rows, in.Limit, func(a store.Aside) int64 { return a.ID }, func(a store.Aside) Aside {
		return Aside{a.ID, in.Kind, a.Key, a.Agent, a.Seq, a.ReceivedAt, a.Reason, a.Body, when(a.ClosedAt), a.Note}
	}), nil
}

type alarmsInput struct {
	PageInput
	Closed bool `query:"closed"`
}

func (s *server) listAlarms(ctx context.Context, in *alarmsInput) (*list[Alarm], error) {
	rows, err := s.store.Alarms(ctx, in.Closed, in.page())
	if err != nil {
		return nil, fail(err, "the list of alarms")
	}
	return paged(rows, in.Limit, func(a store.Alarm) int64 { return a.ID }, func(a store.Alarm) Alarm {
		return Alarm{a.ID, a.Subject, a.Code, a.Reason, a.NextStep, a.FirstAt, a.LastAt, a.Times, when(a.ClosedAt)}
	}), nil
}

// Replay chooses what is put back to due: one fact, or all parked postings that match.
type Replay struct {
	Key string `json:"key,omitempty" doc:"One fact; without it every parked posting that matches the other fields, of which one of erp, plant, order_no and code must be there"`
	PostingFilter
	All    bool `json:"all,omitempty" doc:"Really every parked posting, when nothing else chooses"`
	DryRun bool `json:"dry_run,omitempty" doc:"Only count what would be put back"`
}

// fault says why it is not clear what shall be replayed, empty when it is.
func (r Replay) fault() string {
	chosen := r.ERP != "" || r.Plant != "" || r.OrderNo != "" || r.Code != ""
	switch {
	case r.Key != "" && (chosen || r.All):
		return "a key names one posting: leave out the other fields"
	case r.Key == "" && !chosen && !r.All:
		return "choose what to replay by key, erp, plant, order_no or code; all: true replays every parked posting (dry_run: true counts them first)"
	}
	return ""
}

type replayInput struct{ Body Replay }

// Done says how many were concerned.
type Done struct {
	Count int `json:"count"`
	// DryRun: nothing was done.
	DryRun bool `json:"dry_run,omitempty"`
}

func (s *server) replay(ctx context.Context, in *replayInput) (*struct{ Body Done }, error) {
	if why := in.Body.fault(); why != "" {
		return nil, huma.Error422UnprocessableEntity(why)
	}
	if in.Body.DryRun {
		return s.countParked(ctx, in.Body)
	}
	if in.Body.Key != "" {
		if err := badKey(in.Body.Key); err != nil {
			return nil, err
		}
		if err := s.poster.ReplayFact(ctx, in.Body.Key, caller(ctx)); err != nil {
			return nil, refusal(err, fmt.Sprintf("parked posting %q", in.Body.Key))
		}
		return one(Done{Count: 1}), nil
	}
	n, err := s.poster.Replay(ctx, in.Body.filter(), caller(ctx))
	if err != nil {
		return nil, refusal(err, "parked posting that matches")
	}
	return one(Done{Count: n}), nil
}

// countParked counts what a replay would take up.
func (s *server) countParked(ctx context.Context, r Replay) (*struct{ Body Done }, error) {
	if r.Key == "" {
		f := r.filter()
		f.State = store.PostingParked
		n, err := s.store.CountPostings(ctx, f)
		if err != nil {
			return nil, fail(err, "the parked postings")
		}
		return one(Done{Count: int(n), DryRun: true}), nil
	}
	if err := badKey(r.Key); err != nil {
		return nil, err
	}
	f, err := s.store.FactByKey(ctx, r.Key)
	if err != nil {
		return nil, refusal(err, fmt.Sprintf("parked posting %q", r.Key))
	}
	done := Done{DryRun: true}
	if f.Posting != nil && f.Posting.State == store.PostingParked {
		done.Count = 1
	}
	return one(done), nil
}

type acceptInput struct {
	KeyInput
	Body struct {
		Document string `json:"document,omitempty" doc:"Number of the ERP document that has the effect; empty when there shall be none"`
		Note     string `json:"note" minLength:"3" doc:"Why; it stays with the fact"`
	}
}

func (s *server) accept(ctx context.Context, in *acceptInput) (*struct{ Body Done }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	if err := s.poster.Accept(ctx, in.Key, in.Body.Document, in.Body.Note, caller(ctx)); err != nil {
		return nil, refusal(err, fmt.Sprintf("parked posting %q", in.Key))
	}
	return one(Done{Count: 1}), nil
}

type againInput struct {
	KeyInput
	Body struct {
		Note string `json:"note" minLength:"3" doc:"How it is known that the ERP does not have it"`
	}
}

func (s *server) postAgain(ctx context.Context, in *againInput) (*struct{ Body Done }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	if err := s.poster.PostAgain(ctx, in.Key, in.Body.Note, caller(ctx)); err != nil {
		return nil, refusal(err, fmt.Sprintf("parked posting %q", in.Key))
	}
	return one(Done{Count: 1}), nil
}

type approveInput struct {
	KeyInput
	Body struct {
		PostingDate string `json:"posting_date,omitempty" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" doc:"Date for the books, such as 2026-11-01; without it the fact's own"`
		Note        string `json:"note" minLength:"3" doc:"Why; it stays with the fact"`
	}
}

func (s *server) approve(ctx context.Context, in *approveInput) (*struct{ Body Done }, error) {
	if err := badKey(in.Key); err != nil {
		return nil, err
	}
	if err := s.poster.Approve(ctx, in.Key, in.Body.PostingDate, in.Body.Note, caller(ctx)); err != nil {
		return nil, refusal(err, fmt.Sprintf("parked posting %q", in.Key))
	}
	return one(Done{Count: 1}), nil
}

// IDInput names a row.
type IDInput struct {
	ID int64 `path:"id"`
}

func (s *server) replayUnreadable(ctx context.Context, in *IDInput) (*struct{ Body Done }, error) {
	err := s.store.ReplayUnreadable(ctx, in.ID)
	if errors.Is(err, store.ErrUnreadable) {
		return nil, huma.Error409Conflict(err.Error())
	}
	if err != nil {
		return nil, refusal(err, fmt.Sprintf("unreadable record %d", in.ID))
	}
	return one(Done{Count: 1}), nil
}

type closeAsideInput struct {
	IDInput
	Kind string `path:"kind" enum:"conflict,unreadable"`
	Body struct {
		Note string `json:"note" minLength:"3" doc:"Why; it stays with the record"`
	}
}

func (s *server) closeAside(ctx context.Context, in *closeAsideInput) (*struct{ Body Done }, error) {
	settle := s.store.CloseConflict
	if in.Kind == "unreadable" {
		settle = s.store.CloseUnreadable
	}
	if err := settle(ctx, in.ID, note(ctx, in.Body.Note)); err != nil {
		return nil, refusal(err, fmt.Sprintf("open %s record %d", in.Kind, in.ID))
	}
	return one(Done{Count: 1}), nil
}

type closeInput struct {
	IDInput
	Body struct {
		Note string `json:"note" minLength:"3"`
	}
}

func (s *server) closeException(ctx context.Context, in *closeInput) (*struct{ Body Done }, error) {
	if err := s.store.CloseException(ctx, in.ID, note(ctx, in.Body.Note)); err != nil {
		return nil, refusal(err, fmt.Sprintf("open exception %d", in.ID))
	}
	return one(Done{Count: 1}), nil
}

func (s *server) closeAlarm(ctx context.Context, in *closeInput) (*struct{ Body Done }, error) {
	if err := s.store.CloseAlarm(ctx, in.ID, note(ctx, in.Body.Note)); err != nil {
		return nil, refusal(err, fmt.Sprintf("open alarm %d", in.ID))
	}
	return one(Done{Count: 1}), nil
}

func note(ctx context.Context, text string) string { return text + " (" + caller(ctx) + ")" }
