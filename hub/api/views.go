package api

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func itoa(n int) string { return strconv.Itoa(n) }

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}

// Quantity is decimal text and its unit.
type Quantity struct {
	Value string `json:"value" doc:"Decimal text" example:"12.5"`
	Unit  string `json:"unit" doc:"UN/ECE Recommendation 20" example:"KGM"`
}

func quantity(q object.Quantity) Quantity { return Quantity{q.Value.String(), q.Unit} }

// WorkOrder is the latest revision of a work order.
type WorkOrder struct {
	ID              int64       `json:"id"`
	OrderNo         string      `json:"order_no"`
	Revision        int64       `json:"revision"`
	ERP             string      `json:"erp"`
	ERPKey          string      `json:"erp_key,omitempty"`
	Plant           string      `json:"plant"`
	Agent           string      `json:"agent" doc:"Who gets it; empty when nobody does"`
	Unroutable      string      `json:"unroutable,omitempty" doc:"Why nobody gets it"`
	Site            string      `json:"site,omitempty"`
	WorkCenter      string      `json:"work_center,omitempty"`
	Item            string      `json:"item"`
	ItemDescription string      `json:"item_description,omitempty"`
	Quantity        Quantity    `json:"quantity"`
	State           string      `json:"state" doc:"The ERP's state"`
	FloorState      string      `json:"floor_state,omitempty" doc:"The last state the shop floor reported"`
	Priority        int32       `json:"priority,omitempty"`
	PlannedStart    *time.Time  `json:"planned_start,omitempty"`
	PlannedEnd      *time.Time  `json:"planned_end,omitempty"`
	Lot             string      `json:"lot,omitempty"`
	Operations      []Operation `json:"operations,omitempty"`
	Components      []Component `json:"components,omitempty"`
	SentRevision    int64       `json:"sent_revision" doc:"Highest revision queued for the plant"`
	ChangedAt       time.Time   `json:"changed_at"`
}

// Operation is one step of a work order.
type Operation struct {
	Operation   string   `json:"operation"`
	Description string   `json:"description,omitempty"`
	WorkCenter  string   `json:"work_center,omitempty"`
	Quantity    Quantity `json:"quantity"`
}

// Component is material that a work order needs.
type Component struct {
	Item        string   `json:"item"`
	Description string   `json:"description,omitempty"`
	Required    Quantity `json:"required"`
	Operation   string   `json:"operation,omitempty"`
	Reservation string   `json:"reservation,omitempty"`
	Backflush   bool     `json:"backflush"`
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func workOrder(o store.Order) WorkOrder {
	w := o.Order
	v := WorkOrder{
		ID: o.ID, OrderNo: w.OrderNo, Revision: w.Revision, ERP: w.ERP, ERPKey: w.ERPKey, Plant: w.Plant, Agent: o.Agent, Unroutable: o.Unroutable,
		Site: w.Site, WorkCenter: w.WorkCenter, Item: w.Item, ItemDescription: w.ItemDescription, Quantity: quantity(w.Quantity),
		State: string(w.State), Priority: w.Priority, PlannedStart: when(w.PlannedStart), PlannedEnd: when(w.PlannedEnd), Lot: w.Lot,
		SentRevision: o.Sent, ChangedAt: o.ChangedAt,
	}
	for _, x := range w.Operations {
		v.Operations = append(v.Operations, Operation{x.Operation, x.Description, x.WorkCenter, quantity(x.Quantity)})
	}
	for _, x := range w.Components {
		v.Components = append(v.Components, Component{x.Item, x.Description, quantity(x.Required), x.Operation, x.Reservation, x.Backflush})
	}
	return v
}

// OrderStep is one point of a work order's timeline.
type OrderStep struct {
	Step     string    `json:"step"`
	Revision int64     `json:"revision,omitempty"`
	At       time.Time `json:"at"`
	Origin   string    `json:"origin"`
	Reason   string    `json:"reason,omitempty"`
	// Operation is set where the step is of one operation and not of the order.
	Operation string `json:"operation,omitempty" doc:"Where the step is of one operation and not of the order"`
}

// Fact is a fact and where its posting stands.
type Fact struct {
	ID         int64          `json:"id"`
	Key        string         `json:"key" doc:"16 characters; the key the ERP document carries"`
	UUID       string         `json:"uuid"`
	Kind       string         `json:"kind"`
	Plant      string         `json:"plant"`
	Agent      string         `json:"agent"`
	Source     string         `json:"source"`
	Rule       string         `json:"rule,omitempty"`
	Equipment  string         `json:"equipment,omitempty"`
	Position   string         `json:"position,omitempty" doc:"What the key was made from"`
	OrderNo    string         `json:"order_no,omitempty"`
	OccurredAt time.Time      `json:"occurred_at"`
	ReceivedAt time.Time      `json:"received_at"`
	Shift      string         `json:"shift,omitempty" doc:"Of the plant's calendar"`
	ShiftDate  string         `json:"shift_date,omitempty" doc:"The date that the plant gives the shift"`
	Content    map[string]any `json:"content"`
	Trimmed    string         `json:"trimmed,omitempty" doc:"What an overlapping counter range repeated"`
	Posting    *Posting       `json:"posting,omitempty"`
}

// Posting is where a fact stands on its way into the ERP.
type Posting struct {
	ERP      string     `json:"erp"`
	State    string     `json:"state"`
	Class    string     `json:"class,omitempty"`
	Code     string     `json:"code,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	NextStep string     `json:"next_step,omitempty"`
	Document string     `json:"document,omitempty"`
	Attempt  int        `json:"attempt"`
	Since    time.Time  `json:"since"`
	NextAt   *time.Time `json:"next_at,omitempty"`
}

func posting(p *store.Posting) *Posting {
	if p == nil {
		return nil
	}
	return &Posting{ERP: p.ERP, State: string(p.State), Class: p.Class, Code: p.Code, Reason: p.Reason, NextStep: p.NextStep, Document: p.Document,
		Attempt: p.Attempt, Since: p.Since, NextAt: when(p.NextAt)}
}

func fact(f store.Fact) Fact {
	x := &f.Fact
	return Fact{
		ID: f.ID, Key: x.Key.String(), UUID: x.Key.UUID(), Kind: string(x.Kind), Plant: x.Plant, Agent: f.Agent, Source: x.Source, Rule: x.Rule,
		Equipment: x.Equipment, Position: x.Position, OrderNo: x.OrderNo(), OccurredAt: x.OccurredAt, ReceivedAt: f.ReceivedAt,
		Shift: x.Shift, ShiftDate: x.ShiftDate, Content: content(x), Trimmed: f.Trimmed, Posting: posting(f.Posting),
	}
}

// content shows what a fact says, without its empty fields.
func content(f *object.Fact) map[string]any {
	m := map[string]any{}
	put := func(name string, v any) {
		switch v := v.(type) {
		case string:
			if v == "" {
				return
			}
		case time.Time:
			if v.IsZero() {
				return
			}
		}
		m[name] = v
	}
	switch {
	case f.Confirmation != nil:
		c := f.Confirmation
		put("operation", c.Operation)
		put("item", c.Item)
		put("yield", c.Yield.String())
		put("scrap", c.Scrap.String())
		put("rework", c.Rework.String())
		put("unit", c.Unit)
		put("scrap_reason", c.ScrapReason)
		put("scrap_reason_text", c.ScrapReasonText)
		put("serial", c.Serial)
		put("lot", c.Lot)
		put("shift", c.Shift)
		put("started_at", c.StartedAt)
		put("finished_at", c.FinishedAt)
		if c.Final {
			put("final", true)
		}
		putRange(put, c.CounterRange)
	case f.Consumption != nil:
		c := f.Consumption
		put("operation", c.Operation)
		put("item", c.Item)
		put("quantity", quantity(c.Quantity))
		put("movement", string(c.Movement))
		put("lot", c.Lot)
		put("reservation", c.Reservation)
		putRange(put, c.CounterRange)
	case f.Quality != nil:
		q := f.Quality
		put("item", q.Item)
		put("lot", q.Lot)
		put("serial", q.Serial)
		put("status", q.Status)
		put("disposition", q.Disposition)
		put("reason", q.Reason)
	case f.OrderState != nil:
		s := f.OrderState
		put("state", string(s.State))
		put("operation", s.Operation)
		put("reason", s.Reason)
		if s.Revision > 0 {
			put("revision", s.Revision)
		}
	case f.Exception != nil:
		e := f.Exception
		put("code", e.Code)
		put("item", e.Item)
		put("reason", e.Reason)
		put("next_step", e.NextStep)
	}
	return m
}

// putRange shows the evidence of the machine's counter.
func putRange(put func(string, any), r *object.CounterRange) {
	if r != nil {
		put("counter_range", map[string]string{"tag": r.Tag, "epoch": r.Epoch, "from": r.From.String(), "to": r.To.String()})
	}
}

// LifeStep is one thing that happened to a fact.
type LifeStep struct {
	At       time.Time `json:"at"`
	Step     string    `json:"step"`
	Attempt  int       `json:"attempt,omitempty"`
	Code     string    `json:"code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Document string    `json:"document,omitempty"`
	By       string    `json:"by,omitempty"`
}

// Agent is a plant agent as the hub knows it.
type Agent struct {
	Plant             string         `json:"plant"`
	Agent             string         `json:"agent"`
	Version           string         `json:"version,omitempty"`
	Connected         bool           `json:"connected"`
	ConnectedAt       *time.Time     `json:"connected_at,omitempty"`
	DisconnectedAt    *time.Time     `json:"disconnected_at,omitempty"`
	SeenAt            *time.Time     `json:"seen_at,omitempty"`
	State             string         `json:"state,omitempty" doc:"What it said of itself last: ok, degraded, offline, losing"`
	Reason            string         `json:"reason,omitempty"`
	StatusAt          *time.Time     `json:"status_at,omitempty"`
	Pending           uint64         `json:"pending" doc:"Facts it had not yet handed over, at status_at"`
	PendingBytes      int64          `json:"pending_bytes"`
	OldestPending     *time.Time     `json:"oldest_pending,omitempty"`
	Quarantined       uint64         `json:"quarantined"`
	TelemetryDropped  uint64         `json:"telemetry_dropped"`
	Sources           []SourceStatus `json:"sources" nullable:"false"`
	DeliveriesWaiting int64          `json:"deliveries_waiting" doc:"Work orders and receipts not yet stored at the plant"`
}

// SourceStatus is one source of an agent.
type SourceStatus struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	State    string     `json:"state"`
	Reason   string     `json:"reason,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	LastData *time.Time `json:"last_data,omitempty"`
	Signals  uint64     `json:"signals"`
	Problems []string   `json:"problems,omitempty"`
}

func agent(a store.Agent) Agent {
	v := Agent{
		Plant: a.Plant, Agent: a.Agent, Version: a.Version, Connected: a.Connected(), ConnectedAt: when(a.ConnectedAt), DisconnectedAt: when(a.DisconnectedAt),
		SeenAt: when(a.SeenAt), StatusAt: when(a.StatusAt), DeliveriesWaiting: a.DeliveryLast - a.DeliveryStored, Sources: []SourceStatus{},
	}
	st := a.Status
	if st == nil {
		return v
	}
	v.State, v.Reason, v.Pending, v.PendingBytes = st.State, st.Reason, st.BusinessPending, st.BusinessBytes
	v.Quarantined, v.TelemetryDropped = st.Quarantined, st.TelemetryDropped
	if st.OldestPending != nil {
		v.OldestPending = when(st.OldestPending.AsTime())
	}
	for _, s := range st.Sources {
		x := SourceStatus{Name: s.Name, Kind: s.Kind, State: s.State, Reason: s.Reason, Signals: s.Signals, Problems: s.Problems}
		if s.Since != nil {
			x.Since = when(s.Since.AsTime())
		}
		if s.LastData != nil {
			x.LastData = when(s.LastData.AsTime())
		}
		v.Sources = append(v.Sources, x)
	}
	return v
}

// Exception is an input of a source that did not become a fact.
type Exception struct {
	ID         int64      `json:"id"`
	Agent      string     `json:"agent"`
	Source     string     `json:"source"`
	Code       string     `json:"code"`
	Item       string     `json:"item"`
	Reason     string     `json:"reason"`
	NextStep   string     `json:"next_step,omitempty"`
	Payload    string     `json:"payload,omitempty" doc:"The beginning of what was received"`
	OccurredAt time.Time  `json:"occurred_at"`
	ClosedAt   *time.Time `json:"closed_at,omitempty"`
	Note       string     `json:"note,omitempty"`
}

// Aside is a record kept aside: another fact under a known key, or bytes that could not be read.
type Aside struct {
	ID         int64      `json:"id"`
	Kind       string     `json:"kind" enum:"conflict,unreadable"`
	Key        string     `json:"key,omitempty"`
	Agent      string     `json:"agent"`
	Seq        uint64     `json:"seq"`
	ReceivedAt time.Time  `json:"received_at"`
	Reason     string     `json:"reason,omitempty"`
	Body       []byte     `json:"body" doc:"The record as received, base64"`
	ClosedAt   *time.Time `json:"closed_at,omitempty"`
	Note       string     `json:"note,omitempty"`
}

// Alarm is something a person must look at.
type Alarm struct {
	ID       int64      `json:"id"`
	Subject  string     `json:"subject"`
	Code     string     `json:"code"`
	Reason   string     `json:"reason"`
	NextStep string     `json:"next_step"`
	FirstAt  time.Time  `json:"first_at"`
	LastAt   time.Time  `json:"last_at"`
	Times    int64      `json:"times"`
	ClosedAt *time.Time `json:"closed_at,omitempty"`
}

// ERP is an outside system and how far the hub has read it.
type ERP struct {
	Name      string     `json:"name"`
	OKAt      *time.Time `json:"ok_at,omitempty" doc:"When it answered last"`
	FailedAt  *time.Time `json:"failed_at,omitempty" doc:"When it failed last, absent when it answered since"`
	Error     string     `json:"error,omitempty"`
	ChangedAt *time.Time `json:"changed_at,omitempty"`
	// Posting is how the talk about postings goes, absent for a system that is not configured any more.
	Posting *ERPPosting `json:"posting,omitempty"`
}

// ERPPosting is how the talk with an outside system about postings goes.
type ERPPosting struct {
	OK     bool       `json:"ok"`
	Since  *time.Time `json:"since,omitempty"`
	Reason string     `json:"reason,omitempty" doc:"Of the last failure, while not ok"`
	// PausedUntil is when the system is tried again after too many calls failed in a row.
	PausedUntil *time.Time `json:"paused_until,omitempty" doc:"It is left in peace until then, because too many calls failed in a row"`
}

func (h ERPHealth) view() *ERPPosting {
	return &ERPPosting{OK: h.OK, Since: when(h.Since), Reason: h.Reason, PausedUntil: when(h.PausedUntil)}
}

// isFloor tells the shop floor's states from the other steps of a timeline.
func isFloor(step string) bool {
	switch object.FloorState(step) {
	case object.FloorDelivered, object.FloorAccepted, object.FloorRejected, object.FloorStarted, object.FloorHeld, object.FloorFinished, object.FloorCancelled:
		return true
	}
	return false
}
