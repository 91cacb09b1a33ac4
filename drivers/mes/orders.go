package mes

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// TakesOrders implements signal.OrderReceiver.
func (s *source) TakesOrders() bool { return s.config.WorkOrders != nil }

// Deliver implements signal.OrderReceiver: it inserts one row for each order and revision, or calls the procedure. A revision that is there
// already has no second effect; one that is older than what is there is refused.
func (s *source) Deliver(ctx context.Context, o signal.WorkOrder) error {
	w := s.config.WorkOrders
	if w == nil {
		return &signal.Refused{Reason: "source " + s.env.Source + " is not configured to take work orders"}
	}
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	if w.Procedure != "" {
		return s.delivered(w, w.Procedure, o, s.callProcedure(ctx, w, o))
	}
	err := s.insert(ctx, w, o)
	if class, _ := s.class(err); class == faultTable && w.Create {
		if err := s.makeTable(ctx, w.Table); err != nil { // whatever it is, the order itself is not at fault
			s.reportFailure(answersSection, w.Table, err)
			return err
		}
		err = s.insert(ctx, w, o)
	}
	return s.delivered(w, w.Table, o, err)
}

// delivered turns the error of a delivery to a table or procedure into one that says whether to try again.
func (s *source) delivered(w *WorkOrders, name string, o signal.WorkOrder, err error) error {
	var refused *signal.Refused
	if err == nil || errors.As(err, &refused) {
		if !w.answered() {
			s.env.Reporter.Problem("query:"+answersSection, nil) // nothing else would take it back
		}
		return err
	}
	class, message := s.class(err)
	if class == faultValue || class == faultRaised {
		return &signal.Refused{Reason: fmt.Sprintf("%q refuses order %q revision %d: %s", name, o.OrderNo, o.Revision, message)}
	}
	s.reportFailure(answersSection, name, err)
	return fmt.Errorf("hand order %q revision %d to %q: %s", o.OrderNo, o.Revision, name, s.connector.conceal(err))
}

func (s *source) class(err error) (fault, string) {
	if err == nil {
		return faultOther, ""
	}
	return s.dialect.fault(err)
}

func messageID(o signal.WorkOrder) string { return fmt.Sprintf("%s/%d", o.OrderNo, o.Revision) }

func (s *source) insert(ctx context.Context, w *WorkOrders, o signal.WorkOrder) error {
	statement, err := s.insertStatement(w.Table, o)
	if err != nil {
		return err
	}
	result, err := s.db().ExecContext(ctx, statement.text.String(), statement.args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err == nil && n > 0 {
		return nil
	}
	return s.present(ctx, w.Table, o)
}

// present tells a repeated delivery from one that a newer revision has overtaken.
func (s *source) present(ctx context.Context, table string, o signal.WorkOrder) error {
	q := &statement{d: s.dialect}
	q.add("SELECT COUNT(*) FROM %s WHERE message_id = %s", s.dialect.quote(table), q.arg(messageID(o)))
	var n int
	if err := s.db().QueryRowContext(ctx, q.text.String(), q.args...).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return &signal.Refused{Reason: fmt.Sprintf("a newer revision of order %q was delivered before revision %d", o.OrderNo, o.Revision)}
	}
	return nil
}

// insertStatement makes the INSERT. The database decides in the same statement whether the order is new to it, and whether
// a newer revision is there.
func (s *source) insertStatement(table string, o signal.WorkOrder) (*statement, error) {
	operations, err := json.Marshal(operationsOf(o))
	if err != nil {
		return nil, err
	}
	components, err := json.Marshal(componentsOf(o))
	if err != nil {
		return nil, err
	}
	d, name := s.dialect, s.dialect.quote(table)
	q := &statement{d: d}
	value := func(kind string, v any) string { return d.cast(kind, q.arg(v)) }
	values := []string{
		value("text", messageID(o)), value("text", o.OrderNo), value("integer", o.Revision),
	}
	action := "'CANCEL'"
	if !o.Cancelled {
		action = fmt.Sprintf("CASE WHEN EXISTS (SELECT 1 FROM %s WHERE order_no = %s) THEN 'CHANGE' ELSE 'CREATE' END", name, value("text", o.OrderNo))
	}
	values = append(values, action,
		value("text", o.WorkCenter), value("text", o.Item), value("text", o.Description), value("number", optional(string(o.Quantity))),
		value("text", o.Unit), value("integer", o.Priority), value("text", o.Lot),
		value("time", s.timeText(o.PlannedStart)), value("time", s.timeText(o.PlannedEnd)),
		value("text", string(operations)), value("text", string(components)))
	q.add("INSERT INTO %s (message_id, order_no, revision, action, work_center, item, description, quantity, unit, priority, lot, planned_start, planned_end, operations, components) SELECT %s%s",
		name, strings.Join(values, ", "), d.from)
	q.add(" WHERE NOT EXISTS (SELECT 1 FROM %s WHERE order_no = %s AND revision > %s)", name, value("text", o.OrderNo), value("integer", o.Revision))
	if d.onceCondition != "" {
		q.add(d.onceCondition, name, value("text", messageID(o)))
	}
	q.add("%s", d.onceClause)
	return q, nil
}

func optional(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// timeText writes a time as the staging table of this database takes it.
func (s *source) timeText(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case s.config.Driver == "mysql": // no zone in the column
		return t.In(s.zone).Format("2006-01-02 15:04:05.000000")
	}
	return t.In(s.zone).Format("2006-01-02T15:04:05.999999Z07:00")
}

type operation struct {
	Operation   string        `json:"operation"`
	Description string        `json:"description,omitempty"`
	WorkCenter  string        `json:"work_center,omitempty"`
	Quantity    signal.Number `json:"quantity,omitempty"`
	Unit        string        `json:"unit,omitempty"`
}

type component struct {
	Item        string        `json:"item"`
	Description string        `json:"description,omitempty"`
	Required    signal.Number `json:"required,omitempty"`
	Unit        string        `json:"unit,omitempty"`
	Operation   string        `json:"operation,omitempty"`
	Reservation string        `json:"reservation,omitempty"`
	Backflush   bool          `json:"backflush"`
}

func operationsOf(o signal.WorkOrder) []operation {
	out := make([]operation, 0, len(o.Operations))
	for _, x := range o.Operations {
		out = append(out, operation(x))
	}
	return out
}

func componentsOf(o signal.WorkOrder) []component {
	out := make([]component, 0, len(o.Components))
	for _, x := range o.Components {
		out = append(out, component(x))
	}
	return out
}

// makeTable makes the staging table unless it is there.
func (s *source) makeTable(ctx context.Context, table string) error {
	s.making.Lock() // PostgreSQL's IF NOT EXISTS fails when two sessions make the same table at once
	defer s.making.Unlock()
	text := strings.ReplaceAll(s.dialect.create, "lk_work_order", s.dialect.quote(table))
	if s.config.Driver == "sqlserver" { // OBJECT_ID takes the name as text
		text = strings.Replace(s.dialect.create, "lk_work_order", table, 1)
		text = strings.ReplaceAll(text, "TABLE lk_work_order", "TABLE "+s.dialect.quote(table))
	}
	if _, err := s.db().ExecContext(ctx, text); err != nil {
		return fmt.Errorf("make table %q: %w", table, err)
	}
	return nil
}

// answered reports whether answers are read at all.
func (w *WorkOrders) answered() bool { return w.Table != "" || w.Answers.Call != "" }

// word is the status that a word of the MES stands for. One that nobody has translated stays as it is, for the rules.
func (a *Answers) word(status string) string {
	if word, ok := a.Words[status]; ok {
		return word
	}
	if word := strings.ToLower(status); slices.Contains(answerWords, word) {
		return word
	}
	return status
}

var answerWords = []string{signal.AnswerAccepted, signal.AnswerRejected, signal.AnswerStarted, signal.AnswerHeld, signal.AnswerFinished, signal.AnswerCancelled}

// badWord is a translation that means nothing.
func (a *Answers) badWord() string {
	for _, to := range a.Words {
		if !slices.Contains(answerWords, to) {
			return to
		}
	}
	return ""
}

// byCall is the query that reads answers from a procedure. It returns order_no, revision, status, reason, changed_at and the
// column of the cursor, and whatever else it likes.
func (a *Answers) byCall() *Query {
	q := &Query{Tag: a.Tag, Call: a.Call, Arguments: a.Arguments, Version: a.Version, Key: []string{"order_no"}, TimeColumn: "changed_at", Poll: a.Poll}
	q.fill()
	return q
}

// complete makes an answer of a row that a procedure returned.
func (a *Answers) complete(row map[string]any) map[string]any {
	status, _ := row["status"].(string)
	row["status"] = a.word(strings.TrimSpace(status))
	if _, ok := row["revision"].(signal.Number); !ok {
		row["revision"] = signal.Number("0")
	}
	for _, name := range []string{"reason", "changed_at"} {
		if _, ok := row[name]; !ok {
			row[name] = nil
		}
	}
	if row["reason"] == nil {
		row["reason"] = ""
	}
	return row
}

// answers reads what the MES wrote into the status of the staging table's rows. The table itself remembers what was taken;
// the cursor holds only what is durable and perhaps not written there.
type answers struct {
	*source
	book   *polling.Book
	config *WorkOrders

	ready bool
	state answersState
}

// answersState is the answers' part of the cursor: the taken status and its number by message.
type answersState struct {
	Taken map[string]taken `json:"taken,omitempty"`
}

type taken struct {
	Status string `json:"status"`
	Seq    int64  `json:"seq"`
}

const answersAtATime = 500

func (a *answers) step(ctx context.Context) (more bool, err error) {
	if !a.ready {
		a.state = answersState{}
		if _, err := a.book.Part(answersSection, &a.state); err != nil {
			return false, err
		}
		a.ready = true
	}
	defer func() { a.ready = err == nil }()
	if err := a.confirm(ctx); err != nil {
		return false, err
	}
	signals, err := a.read(ctx)
	if class, _ := a.class(err); class == faultTable && a.config.Create {
		return true, a.makeTable(ctx, a.config.Table)
	}
	if err != nil || len(signals) == 0 {
		return false, err
	}
	if err := a.book.Commit(ctx, answersSection, a.state, signals); err != nil {
		return false, err
	}
	return len(signals) == answersAtATime, a.confirm(ctx)
}

// confirm writes into the table which answers were taken. A repetition finds another number there and changes nothing.
func (a *answers) confirm(ctx context.Context) error {
	if len(a.state.Taken) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	tx, err := a.db().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for id, t := range a.state.Taken {
		q := &statement{d: a.dialect}
		q.add("UPDATE %s SET answered = %s, answer_seq = %s WHERE message_id = %s AND answer_seq = %s",
			a.dialect.quote(a.config.Table), q.arg(t.Status), q.arg(t.Seq), q.arg(id), q.arg(t.Seq-1))
		if _, err := tx.ExecContext(ctx, q.text.String(), q.args...); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	a.state.Taken = nil
	return nil
}

// read returns the answers that were not taken yet and notes them in the state.
func (a *answers) read(ctx context.Context) ([]signal.Signal, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	q := &statement{d: a.dialect}
	changed := fmt.Sprintf(a.dialect.text, "changed_at")
	q.add("SELECT message_id, order_no, revision, status, error_text, %s, answer_seq FROM %s", changed, a.dialect.quote(a.config.Table))
	q.add(" WHERE status <> COALESCE(answered, 'NEW') ORDER BY changed_at, message_id ").add(a.dialect.limit, answersAtATime)
	rows, err := a.db().QueryContext(ctx, q.text.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var signals []signal.Signal
	a.state.Taken = map[string]taken{}
	now := time.Now()
	for rows.Next() {
		var (
			id, order, status string
			revision, seq     int64
			reason, at        sql.NullString
		)
		if err := rows.Scan(&id, &order, &revision, &status, &reason, &at, &seq); err != nil {
			return nil, err
		}
		seq++
		a.state.Taken[id] = taken{Status: status, Seq: seq}
		signals = append(signals, a.signal(id, order, revision, strings.TrimSpace(status), reason.String, at.String, seq, now))
	}
	return signals, rows.Err()
}

func (a *answers) signal(id, order string, revision int64, status, reason, changed string, seq int64, now time.Time) signal.Signal {
	value := map[string]any{"message_id": id, "order_no": order, "revision": signal.Number(fmt.Sprint(revision)),
		"status": a.config.Answers.word(status), "error_text": reason, "reason": reason, "changed_at": nil, "answer_seq": signal.Number(fmt.Sprint(seq))}
	out := signal.Signal{Tag: a.config.Answers.Tag, Value: value, ReceivedTime: now,
		Position: fmt.Sprintf("%s|%s|%d:%s", a.config.Table, escape(id), seq, escape(status))}
	if t, ok := parseTime(changed, a.zone); ok {
		value["changed_at"], out.SourceTime = t, t
	} else if changed != "" {
		value["changed_at"] = changed
	}
	return out
}
