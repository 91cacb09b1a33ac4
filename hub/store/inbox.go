package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The kinds of exceptions that a person must see to.
const (
	InboxPosting     = "posting"     // parked, or in doubt; ID is the fact's
	InboxDiscrepancy = "discrepancy" // live
	InboxException   = "exception"   // an input that did not become a fact
	InboxConflict    = "conflict"    // another fact under a known key
	InboxUnreadable  = "unreadable"
	InboxAlarm       = "alarm"
	InboxWrite       = "write" // parked, or in doubt
)

// InboxRow is one exception. Code of a discrepancy is its type, Agent of an alarm its subject.
type InboxRow struct {
	Kind                      string
	ID                        int64
	Since                     time.Time
	Plant, ERP, OrderNo       string
	Code, Class, State, Agent string
	// Owner and Person are set where somebody has said whose it is.
	Owner, Person string
}

// Ref is the name of the row, such as "posting:12".
func (r InboxRow) Ref() string { return r.Kind + ":" + strconv.FormatInt(r.ID, 10) }

// ParseRef reads a name that Ref wrote.
func ParseRef(ref string) (kind string, id int64, err error) {
	kind, text, ok := strings.Cut(ref, ":")
	id, err = strconv.ParseInt(text, 10, 64)
	switch kind {
	case InboxPosting, InboxDiscrepancy, InboxException, InboxConflict, InboxUnreadable, InboxAlarm, InboxWrite:
	default:
		ok = false
	}
	if !ok || err != nil || id <= 0 {
		return "", 0, fmt.Errorf("%q names no exception: write it like posting:12", ref)
	}
	return kind, id, nil
}

// InboxFilter chooses exceptions; empty fields choose all.
type InboxFilter struct{ Ref, Kind, Plant, OrderNo, Code, Person string }

// InboxPlace is where a page of the inbox ends.
type InboxPlace struct {
	Since time.Time
	Kind  string
	ID    int64
}

// alarmPlant is the plant that an alarm is about; empty for none.
const alarmPlant = `COALESCE((SELECT a.plant FROM agents a WHERE a.plant || '/' || a.agent = m.subject
		OR m.code = '` + AlarmSourceDown + `' AND SUBSTR(m.subject, 1, LENGTH(a.plant) + LENGTH(a.agent) + 2) = a.plant || '/' || a.agent || '/'
		OR m.code IN ('` + AlarmNoOrder + `', '` + AlarmNoPlant + `') AND a.plant = m.subject LIMIT 1), '')`

const inboxRows = `SELECT i.kind, i.id, i.since, i.plant, i.erp, i.order_no, i.code, i.class, i.state, i.agent, COALESCE(o.owner, ''), COALESCE(o.person, '') FROM (
	SELECT 'posting' AS kind, p.fact_id AS id, p.since, p.plant, p.erp, p.order_no, p.code, p.class, p.state, '' AS agent FROM postings p
		WHERE p.state IN ('parked', 'in_doubt')
	UNION ALL SELECT 'discrepancy', id, first_at, plant, erp, order_no, type, '', state, '' FROM discrepancies WHERE closed_at = 0
	UNION ALL SELECT 'exception', e.id, e.occurred_at, a.plant, '', '', e.code, '', '', a.agent FROM exceptions e JOIN agents a ON a.id = e.agent_id WHERE e.closed_at = 0
	UNION ALL SELECT 'conflict', c.id, c.received_at, a.plant, '', '', 'conflict', '', '', a.agent FROM conflicts c JOIN agents a ON a.id = c.agent_id WHERE c.closed_at = 0
	UNION ALL SELECT 'unreadable', u.id, u.received_at, a.plant, '', '', 'unreadable', '', '', a.agent FROM unreadable u JOIN agents a ON a.id = u.agent_id WHERE u.closed_at = 0
	UNION ALL SELECT 'alarm', m.id, m.first_at, ` + alarmPlant + `, '', '', m.code, '', '', m.subject
		FROM alarms m WHERE m.closed_at = 0
	UNION ALL SELECT 'write', w.id, w.since, '', w.erp, '', w.code, w.class, w.state, '' FROM business_writes w
		WHERE ` + openWrites + ` AND w.state || '' IN ('parked', 'in_doubt')
	) i LEFT JOIN inbox_owners o ON o.ref = i.kind || ':' || i.id`

// Inbox lists what a person must see to, oldest first, at most limit rows after a place.
func (s *Store) Inbox(ctx context.Context, f InboxFilter, after InboxPlace, limit int) ([]InboxRow, error) {
	var w where
	w.and("(i.since > ? OR i.since = ? AND (i.kind > ? OR i.kind = ? AND i.id > ?))", us(after.Since), us(after.Since), after.Kind, after.Kind, after.ID)
	w.andText("i.kind || ':' || i.id = ?", f.Ref)
	w.andText("i.kind = ?", f.Kind)
	w.andText("i.plant = ?", f.Plant)
	w.andText("i.order_no = ?", f.OrderNo)
	w.andText("i.code = ?", f.Code)
	w.andText("o.person = ?", f.Person)
	all, err := collect(ctx, s, func(r *sql.Rows) (x InboxRow, err error) {
		var t int64
		err = r.Scan(&x.Kind, &x.ID, &t, &x.Plant, &x.ERP, &x.OrderNo, &x.Code, &x.Class, &x.State, &x.Agent, &x.Owner, &x.Person)
		x.Since = at(t)
		return x, err
	}, inboxRows+w.String()+" ORDER BY i.since, i.kind, i.id LIMIT "+fmt.Sprint(limit), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list what a person must see to: %w", err)
	}
	return all, nil
}

// InboxStep is something that a person said about an exception.
type InboxStep struct {
	At             time.Time
	Step, By, Note string
}

// AssignInbox says whose an exception is: a role, a person, or both; what is empty stays. It is written down.
func (s *Store) AssignInbox(ctx context.Context, ref, owner, person, by, note string) error {
	err := s.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec(`INSERT INTO inbox_owners (ref, owner, person, at) VALUES ($1, $2, $3, $4) ON CONFLICT (ref) DO UPDATE SET
			owner = CASE WHEN excluded.owner = '' THEN inbox_owners.owner ELSE excluded.owner END,
			person = CASE WHEN excluded.person = '' THEN inbox_owners.person ELSE excluded.person END, at = excluded.at`, ref, owner, person, us(tx.now))
		if err != nil {
			return err
		}
		return tx.AddInboxStep(ref, strings.TrimSpace("given to "+strings.TrimSpace(owner+" "+person)), by, note)
	})
	if err != nil {
		return fmt.Errorf("give %s to somebody: %w", ref, err)
	}
	return nil
}

// AddInboxStep writes down what a person said or did about an exception.
func (tx *Tx) AddInboxStep(ref, step, by, note string) error {
	_, err := tx.exec("INSERT INTO inbox_steps (ref, at, step, by_whom, note) VALUES ($1, $2, $3, $4, $5)", ref, us(tx.now), step, by, note)
	return err
}

// InboxSteps returns what was said about an exception, oldest first.
func (s *Store) InboxSteps(ctx context.Context, ref string) ([]InboxStep, error) {
	return collect(ctx, s, func(r *sql.Rows) (x InboxStep, err error) {
		var t int64
		err = r.Scan(&t, &x.Step, &x.By, &x.Note)
		x.At = at(t)
		return x, err
	}, "SELECT at, step, by_whom, note FROM inbox_steps WHERE ref = $1 ORDER BY id", ref)
}

// LiveDiscrepancies counts the live discrepancies by type.
func (s *Store) LiveDiscrepancies(ctx context.Context) (map[string]int64, error) {
	type row struct {
		kind string
		n    int64
	}
	all, err := collect(ctx, s, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.kind, &x.n) },
		"SELECT type, COUNT(*) FROM discrepancies WHERE closed_at = 0 GROUP BY type")
	if err != nil {
		return nil, fmt.Errorf("count discrepancies: %w", err)
	}
	out := map[string]int64{}
	for _, x := range all {
		out[x.kind] = x.n
	}
	return out, nil
}
