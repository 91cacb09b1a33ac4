package mes

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// orderArguments are what a procedure that takes work orders can be given, in the order in which it is by default.
var orderArguments = []string{"message_id", "order_no", "revision", "action", "work_center", "item", "description", "quantity", "unit", "priority", "lot",
	"planned_start", "planned_end", "operations", "components"}

// argument is one value for the MES, and what the database must take it as.
type argument struct {
	kind  string // of dialect.casts
	value any
}

// orderValues are an order's values by the names of orderArguments. The action says only whether it is cancelled: whether the
// MES knows the order already is its own to see.
func (s *source) orderValues(o signal.WorkOrder) (map[string]argument, error) {
	operations, err := json.Marshal(operationsOf(o))
	if err != nil {
		return nil, err
	}
	components, err := json.Marshal(componentsOf(o))
	if err != nil {
		return nil, err
	}
	action := "STORE"
	if o.Cancelled {
		action = "CANCEL"
	}
	return map[string]argument{
		"message_id": {"text", messageID(o)}, "order_no": {"text", o.OrderNo}, "revision": {"integer", o.Revision}, "action": {"text", action},
		"work_center": {"text", o.WorkCenter}, "item": {"text", o.Item}, "description": {"text", o.Description},
		"quantity": {"number", optional(string(o.Quantity))}, "unit": {"text", o.Unit}, "priority": {"integer", o.Priority}, "lot": {"text", o.Lot},
		"planned_start": {"time", s.timeText(o.PlannedStart)}, "planned_end": {"time", s.timeText(o.PlannedEnd)},
		"operations": {"text", string(operations)}, "components": {"text", string(components)},
	}, nil
}

// callProcedure hands an order to the MES's procedure in one transaction. It is nil when the procedure says 0.
func (s *source) callProcedure(ctx context.Context, w *WorkOrders, o signal.WorkOrder) error {
	values, err := s.orderValues(o)
	if err != nil {
		return err
	}
	q := &statement{d: s.dialect}
	list := make([]string, len(w.Arguments))
	for i, name := range w.Arguments {
		list[i] = q.arg(values[name].value)
		if s.config.Driver != "sqlserver" { // EXEC takes no expressions, and finds the types by itself
			list[i] = s.dialect.cast(values[name].kind, list[i])
		}
	}
	after := s.procedureStatement(q, w, list)
	code, words, err := s.outcome(ctx, q, after)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(code), 10, 64)
	switch {
	case err != nil:
		return &polling.ProblemError{Problem: signal.Problem{Code: "procedure_answer", Item: w.Procedure, Reason: fmt.Sprintf("procedure %q answers %q where a code was expected: 0 for taken", w.Procedure, code),
			NextStep: "let the procedure answer with a code and words, or correct returns"}}
	case n == 0:
		return nil
	case slices.Contains(w.Again, n):
		return &polling.ProblemError{Problem: signal.Problem{Code: "procedure_later", Item: w.Procedure, Reason: fmt.Sprintf("procedure %q wants order %q later: code %d %s", w.Procedure, o.OrderNo, n, words),
			NextStep: "nothing: it is tried again by itself"}}
	}
	return &signal.Refused{Reason: fmt.Sprintf("procedure %q refuses order %q revision %d with code %d: %s", w.Procedure, o.OrderNo, o.Revision, n, words)}
}

// procedureStatement writes the call; after is what reads its outcome on the same connection, where the call returns none.
func (s *source) procedureStatement(q *statement, w *WorkOrders, list []string) (after string) {
	name, arguments := s.dialect.quote(w.Procedure), strings.Join(list, ", ")
	driver := s.config.Driver
	switch {
	case driver == "postgres" && w.Returns == "out":
		q.add("CALL %s(%s, NULL, NULL)", name, arguments)
	case driver == "mysql" && w.Returns == "out":
		q.add("CALL %s(%s, @lk_code, @lk_words)", name, arguments)
		return "SELECT @lk_code, @lk_words"
	case driver == "sqlserver" && w.Returns == "out":
		q.add("SET NOCOUNT ON; DECLARE @lk_code bigint, @lk_words nvarchar(1000); EXEC %s %s, @lk_code OUTPUT, @lk_words OUTPUT; SELECT @lk_code, @lk_words", name, arguments)
	case driver == "sqlserver" && w.Returns == "code":
		q.add("SET NOCOUNT ON; DECLARE @lk_code int; EXEC @lk_code = %s %s; SELECT @lk_code, N''", name, arguments)
	default:
		s.call(q, w.Procedure, list)
	}
	return ""
}

// outcome runs a call and returns the code and the words of the last row that it gives.
func (s *source) outcome(ctx context.Context, q *statement, after string) (code, words string, err error) {
	conn, err := s.db().Conn(ctx)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return "", "", err
	}
	defer tx.Rollback()
	if after != "" {
		if _, err := tx.ExecContext(ctx, q.text.String(), q.args...); err != nil {
			return "", "", err
		}
		q = (&statement{d: s.dialect}).add("%s", after)
	}
	rows, err := tx.QueryContext(ctx, q.text.String(), q.args...)
	if err != nil {
		return "", "", err
	}
	code, words, err = lastRow(rows)
	if err != nil {
		return "", "", err
	}
	return code, words, tx.Commit()
}

// lastRow reads the first two columns of the last row of all results.
func lastRow(rows *sql.Rows) (code, words string, err error) {
	defer rows.Close()
	for {
		columns, err := rows.Columns()
		if err != nil {
			return "", "", err
		}
		for rows.Next() {
			values := make([]sql.NullString, max(len(columns), 2))
			into := make([]any, len(columns))
			for i := range into {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return "", "", err
			}
			code, words = values[0].String, values[1].String
		}
		if !rows.NextResultSet() {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return "", "", err
	}
	if code == "" {
		return "", "", &polling.ProblemError{Problem: signal.Problem{Code: "procedure_answer", Reason: "the procedure of work_orders returns no row with a code: whether it has the order is not known",
			NextStep: "let the procedure answer with a code and words, or correct returns"}}
	}
	return code, words, nil
}
