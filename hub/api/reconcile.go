package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Reconciler is what the API needs of the part that compares with the outside systems.
type Reconciler interface {
	// Start compares now and heals what the rules allow.
	Start(ctx context.Context, f store.Compared) (store.Reconciliation, error)
	// Statement hands over the lines of each order; it changes nothing.
	Statement(ctx context.Context, f store.Compared, give func([]reconcile.Line) error) error
	// Act carries out what is proposed; Undo takes a heal back that was wrong, or only counts it when that was done by hand.
	Act(ctx context.Context, id int64, by, note string) error
	Undo(ctx context.Context, id int64, by, note string, byHand bool) error
}

// Discrepancy is one disagreement between the plant and an outside system.
type Discrepancy struct {
	ID        int64            `json:"id"`
	Type      string           `json:"type"`
	Subject   string           `json:"subject"`
	State     string           `json:"state" enum:"OPEN,HEALING,HEALED,ESCALATED,ACCEPTED"`
	Plant     string           `json:"plant"`
	ERP       string           `json:"erp"`
	OrderNo   string           `json:"order_no,omitempty"`
	Item      string           `json:"item,omitempty"`
	Left      DiscrepancySide  `json:"left"`
	Right     DiscrepancySide  `json:"right"`
	Delta     string           `json:"delta"`
	Unit      string           `json:"unit,omitempty"`
	Severity  string           `json:"severity" enum:"low,medium,high"`
	Owner     string           `json:"owner" doc:"The role that decides"`
	Assigned  string           `json:"assigned,omitempty" doc:"The person who has it"`
	FirstSeen time.Time        `json:"first_seen"`
	LastSeen  time.Time        `json:"last_seen"`
	Due       time.Time        `json:"due" doc:"End of the time in which it has to be settled; then it is escalated"`
	Tier      int              `json:"tier" doc:"0 inbox, 1 the plant's owner, 2 stop of the business it concerns"`
	Why       string           `json:"why" doc:"Why it is healed without a person, or why not"`
	Note      string           `json:"note,omitempty"`
	Proposed  ProposedAction   `json:"proposed"`
	Facts     []string         `json:"facts" nullable:"false"`
	Evidence  []ProofOfFinding `json:"evidence" nullable:"false"`
}

// DiscrepancySide is what one system says.
type DiscrepancySide struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ProposedAction is what would settle it.
type ProposedAction struct {
	Kind     string `json:"kind"`
	Text     string `json:"text"`
	Document string `json:"document,omitempty"`
	Fact     string `json:"fact,omitempty"`
	Write    string `json:"write,omitempty" doc:"The key of a write of a business object"`
}

// ProofOfFinding is one thing that shows it.
type ProofOfFinding struct {
	Kind string `json:"kind"`
	Ref  string `json:"ref"`
	Text string `json:"text"`
}

// DiscrepancyLife is a discrepancy with everything that happened to it.
type DiscrepancyLife struct {
	Discrepancy
	Steps []DiscrepancyStep `json:"steps" nullable:"false"`
	Heals []DiscrepancyHeal `json:"heals" nullable:"false"`
}

// DiscrepancyStep is one thing that happened.
type DiscrepancyStep struct {
	At   time.Time `json:"at"`
	Step string    `json:"step"`
	By   string    `json:"by,omitempty" doc:"Empty for the hub itself"`
	Note string    `json:"note,omitempty"`
}

// DiscrepancyHeal is what was done, without a person or because one wanted it.
type DiscrepancyHeal struct {
	At       time.Time  `json:"at"`
	Action   string     `json:"action"`
	Made     string     `json:"made,omitempty" doc:"The document that it made"`
	By       string     `json:"by,omitempty" doc:"Who wanted it; empty for the hub itself"`
	Note     string     `json:"note,omitempty"`
	UndoneAt *time.Time `json:"undone_at,omitempty" doc:"It was wrong and was taken back"`
	UndoneBy string     `json:"undone_by,omitempty"`
}

// Reconciliation is one comparison of many orders.
type Reconciliation struct {
	ID            int64      `json:"id"`
	Kind          string     `json:"kind"`
	Plant         string     `json:"plant,omitempty"`
	StartedAt     time.Time  `json:"started_at"`
	EndedAt       *time.Time `json:"ended_at,omitempty"`
	Orders        int64      `json:"orders"`
	Facts         int64      `json:"facts"`
	Documents     int64      `json:"documents"`
	Found         int64      `json:"found"`
	Begun         int64      `json:"begun" doc:"Heals that were begun"`
	Unasked       int64      `json:"unasked" doc:"Orders whose system could not list its documents: nothing of them is called missing"`
	Writes        int64      `json:"writes" doc:"Verified writes of business objects that were read back, of a comparison of everything"`
	UnaskedWrites int64      `json:"unasked_writes" doc:"Writes whose system did not answer: nothing of them is called missing"`
	Error         string     `json:"error,omitempty"`
}

func (s *server) reconcileRoutes(api huma.API) {
	get(api, "list-discrepancies", "/v1/discrepancies", "Disagreements between plant and outside systems, newest first", s.listDiscrepancies)
	get(api, "get-discrepancy", "/v1/discrepancies/{id}", "One discrepancy with evidence and everything that happened to it", s.getDiscrepancy)
	post(api, "accept-discrepancy", "/v1/discrepancies/{id}/accept", "It stays as it is, with a note; it comes again when one side changes", s.acceptDiscrepancy)
	post(api, "assign-discrepancy", "/v1/discrepancies/{id}/assign", "Give it to a person", s.assignDiscrepancy)
	post(api, "act-on-discrepancy", "/v1/discrepancies/{id}/act", "Carry out the proposed action", s.actOnDiscrepancy)
	post(api, "undo-heal", "/v1/discrepancies/{id}/undo", "Take back the last heal, which was wrong; it is counted", s.undoHeal)
	get(api, "list-reconciliations", "/v1/reconciliations", "Comparisons of many orders, newest first", s.listReconciliations)
	post(api, "reconcile", "/v1/reconciliations", "Compare now, and heal what the rules allow; without any choice, also what was written of business objects", s.startReconciliation)
	get(api, "get-statement", "/v1/reconciliations/statement", "From each sum down to the counter range and the document, as CSV or JSON lines; changes nothing", s.statement)
}

func discrepancy(d reconcile.Discrepancy) Discrepancy {
	v := Discrepancy{
		ID: d.ID, Type: string(d.Type), Subject: d.Subject, State: string(d.State), Plant: d.Plant, ERP: d.ERP, OrderNo: d.OrderNo, Item: d.Item,
		Left: DiscrepancySide(d.Left), Right: DiscrepancySide(d.Right), Delta: d.Delta.String(), Unit: d.Unit, Severity: string(d.Severity), Owner: string(d.Owner),
		Assigned: d.Assigned, FirstSeen: d.FirstSeen, LastSeen: d.LastSeen, Due: d.Due, Tier: d.Tier, Why: d.Why, Note: d.Note, Facts: []string{}, Evidence: []ProofOfFinding{},
		Proposed: ProposedAction{string(d.Proposed.Kind), d.Proposed.Text, d.Proposed.Document, d.Proposed.Fact, d.Proposed.Write},
	}
	v.Facts = append(v.Facts, d.Facts...)
	for _, e := range d.Evidence {
		v.Evidence = append(v.Evidence, ProofOfFinding(e))
	}
	return v
}

type discrepanciesInput struct {
	PageInput
	Plant   string `query:"plant"`
	ERP     string `query:"erp"`
	OrderNo string `query:"order_no"`
	Type    string `query:"type"`
	State   string `query:"state" enum:"OPEN,HEALING,HEALED,ESCALATED,ACCEPTED"`
	Live    bool   `query:"live" doc:"Only those about which something has to happen"`
}

func (s *server) listDiscrepancies(ctx context.Context, in *discrepanciesInput) (*list[Discrepancy], error) {
	rows, err := s.store.Discrepancies(ctx, store.DiscrepancyFilter{Plant: in.Plant, ERP: in.ERP, OrderNo: in.OrderNo, Type: in.Type, State: in.State, Live: in.Live}, in.page())
	if err != nil {
		return nil, fail(err, "the list of discrepancies")
	}
	return paged(rows, in.Limit, func(d reconcile.Discrepancy) int64 { return d.ID }, discrepancy), nil
}

func (s *server) getDiscrepancy(ctx context.Context, in *IDInput) (*struct{ Body DiscrepancyLife }, error) {
	d, err := s.store.Discrepancy(ctx, in.ID)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("discrepancy %d", in.ID))
	}
	v := DiscrepancyLife{Discrepancy: discrepancy(d.Discrepancy), Steps: []DiscrepancyStep{}, Heals: []DiscrepancyHeal{}}
	for _, x := range d.Steps {
		v.Steps = append(v.Steps, DiscrepancyStep{x.At, x.Step, x.By, x.Note})
	}
	for _, h := range d.Heals {
		v.Heals = append(v.Heals, DiscrepancyHeal{h.At, h.Action.Text, h.Made, h.By, h.Note, when(h.UndoneAt), h.UndoneBy})
	}
	return one(v), nil
}

// decided turns the error of a decision about a discrepancy into an answer.
func decided(err error, id int64) (*struct{ Body Done }, error) {
	switch {
	case err == nil:
		return one(Done{Count: 1}), nil
	case errors.Is(err, store.ErrNotFound):
		return nil, huma.Error404NotFound(fmt.Sprintf("there is no discrepancy %d, or nothing of it to take back", id))
	case errors.Is(err, store.ErrNotLive), errors.Is(err, ErrConflict):
		return nil, huma.Error409Conflict(err.Error())
	}
	return nil, huma.Error500InternalServerError("the hub could not do that: " + err.Error())
}

func (s *server) acceptDiscrepancy(ctx context.Context, in *closeInput) (*struct{ Body Done }, error) {
	err := s.store.DecideDiscrepancy(ctx, in.ID, "accepted", caller(ctx), in.Body.Note, func(d *reconcile.Discrepancy) {
		d.State, d.Note = reconcile.Accepted, in.Body.Note
	})
	return decided(err, in.ID)
}

type assignInput struct {
	IDInput
	Body struct {
		Person string `json:"person" minLength:"1"`
		Note   string `json:"note,omitempty"`
	}
}

func (s *server) assignDiscrepancy(ctx context.Context, in *assignInput) (*struct{ Body Done }, error) {
	err := s.store.DecideDiscrepancy(ctx, in.ID, "assigned to "+in.Body.Person, caller(ctx), in.Body.Note, func(d *reconcile.Discrepancy) { d.Assigned = in.Body.Person })
	return decided(err, in.ID)
}

// noReconciler answers where nothing compares.
func noReconciler() error {
	return huma.Error501NotImplemented("this hub compares nothing with outside systems")
}

func (s *server) actOnDiscrepancy(ctx context.Context, in *closeInput) (*struct{ Body Done }, error) {
	if s.o.Reconciler == nil {
		return nil, noReconciler()
	}
	return decided(s.o.Reconciler.Act(ctx, in.ID, caller(ctx), in.Body.Note), in.ID)
}

type undoInput struct {
	IDInput
	Body struct {
		Note   string `json:"note" minLength:"3"`
		ByHand bool   `json:"by_hand,omitempty" doc:"It was taken back in the outside system already: only count it"`
	}
}

func (s *server) undoHeal(ctx context.Context, in *undoInput) (*struct{ Body Done }, error) {
	if s.o.Reconciler == nil {
		return nil, noReconciler()
	}
	return decided(s.o.Reconciler.Undo(ctx, in.ID, caller(ctx), in.Body.Note, in.Body.ByHand), in.ID)
}

func reconciliation(r store.Reconciliation) Reconciliation {
	return Reconciliation{r.ID, r.Kind, r.Plant, r.StartedAt, when(r.EndedAt), r.Orders, r.Facts, r.Documents, r.Found, r.Begun, r.Unasked, r.Writes, r.UnaskedWrites, r.Error}
}

func (s *server) listReconciliations(ctx context.Context, in *PageInput) (*list[Reconciliation], error) {
	rows, err := s.store.Reconciliations(ctx, in.page())
	if err != nil {
		return nil, fail(err, "the list of reconciliations")
	}
	return paged(rows, in.Limit, func(r store.Reconciliation) int64 { return r.ID }, reconciliation), nil
}

type reconcileInput struct {
	Body struct {
		Plant   string    `json:"plant,omitempty"`
		OrderNo string    `json:"order_no,omitempty"`
		From    time.Time `json:"from,omitempty" required:"false" doc:"Orders with facts that occurred at or after"`
		To      time.Time `json:"to,omitempty" required:"false" doc:"Orders with facts that occurred before"`
	}
}

func (s *server) startReconciliation(ctx context.Context, in *reconcileInput) (*struct{ Body Reconciliation }, error) {
	if s.o.Reconciler == nil {
		return nil, noReconciler()
	}
	r, err := s.o.Reconciler.Start(ctx, store.Compared{Plant: in.Body.Plant, OrderNo: in.Body.OrderNo, From: in.Body.From, To: in.Body.To})
	if err != nil {
		return nil, huma.Error500InternalServerError("the comparison did not come to its end: " + err.Error())
	}
	return one(reconciliation(r)), nil
}

type statementInput struct {
	Plant   string    `query:"plant"`
	OrderNo string    `query:"order_no"`
	From    time.Time `query:"from"`
	To      time.Time `query:"to"`
	Format  string    `query:"format" enum:"csv,json" default:"csv" doc:"csv, or one JSON object a line"`
}

// statement writes line after line: it never holds more than one order. What fails in the middle ends it with a line that says so.
func (s *server) statement(_ context.Context, in *statementInput) (*huma.StreamResponse, error) {
	if s.o.Reconciler == nil {
		return nil, noReconciler()
	}
	f := store.Compared{Plant: in.Plant, OrderNo: in.OrderNo, From: in.From, To: in.To}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		out := csv.NewWriter(c.BodyWriter())
		lines := json.NewEncoder(c.BodyWriter())
		header := reconcile.Header()
		write := func(fields []string) error {
			if in.Format == "csv" {
				return out.Write(fields)
			}
			row := make(map[string]string, len(fields))
			for i, name := range header {
				if fields[i] != "" {
					row[name] = fields[i]
				}
			}
			return lines.Encode(row)
		}
		c.SetHeader("Content-Type", "application/x-ndjson")
		if in.Format == "csv" {
			c.SetHeader("Content-Type", "text/csv; charset=utf-8; header=present")
			out.Write(header)
		}
		err := s.o.Reconciler.Statement(c.Context(), f, func(all []reconcile.Line) error {
			for _, l := range all {
				if err := write(l.Fields()); err != nil {
					return err
				}
			}
			out.Flush()
			return out.Error()
		})
		if err != nil {
			broken := make([]string, len(header))
			broken[0], broken[len(broken)-1] = "incomplete", err.Error()
			write(broken)
		}
		out.Flush()
	}}, nil
}
