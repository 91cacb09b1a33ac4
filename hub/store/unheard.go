package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// The codes of alarms that begin and end by themselves.
const (
	AlarmERPSilent   = "erp_does_not_answer" // subject: the ERP
	AlarmAgentSilent = "agent_silent"        // subject: "plant/agent"
	AlarmAgentNever  = "agent_never_came"    // work orders wait for an agent that was never there
	AlarmAgentLosing = "agent_losing_data"
	AlarmFactsStuck  = "facts_stuck"    // at an agent that is connected
	AlarmClock       = "clock_differs"  // an agent's from the hub's
	AlarmSourceDown  = "source_down"    // subject: "plant/agent/source"
	AlarmNoRoute     = "order_unrouted" // subject: "erp/site/work centre"
	AlarmNotMapped   = "order_unmapped" // subject: the ERP and the word
	AlarmNoOrder     = "facts_without_order"
	AlarmNoPlant     = "facts_without_plant"
)

// AgentAlarms are the codes of alarms about agents. A cut line takes many agents of many plants at once.
func AgentAlarms() []string {
	return []string{AlarmAgentSilent, AlarmAgentNever, AlarmAgentLosing, AlarmFactsStuck, AlarmClock, AlarmSourceDown}
}

// OrderAlarms are the codes of alarms about work orders that nobody gets and facts whose order is missing.
func OrderAlarms() []string {
	return []string{AlarmNoRoute, AlarmNotMapped, AlarmNoOrder, AlarmNoPlant}
}

// What the hub notes of an alarm that has ended by itself.
const (
	EndedAnswers  = "it answers again"
	EndedHeard    = "it is heard of again"
	EndedWell     = "it is well again"
	EndedNone     = "there are none any more"
	EndedUnknown  = "it is not configured any more"
	EndedUnlooked = "the hub does not look for it any more"
)

// EndedItself reports whether an alarm has ended without a person.
func (a Alarm) EndedItself() bool {
	return !a.ClosedAt.IsZero() && slices.Contains([]string{EndedAnswers, EndedHeard, EndedWell, EndedNone, EndedUnknown, EndedUnlooked}, a.Note)
}

const alarmColumns = "SELECT id, subject, code, reason, next_step, first_at, last_at, times, closed_at, note FROM alarms"

func scanAlarm(r *sql.Rows) (a Alarm, err error) {
	var f, l, c int64
	err = r.Scan(&a.ID, &a.Subject, &a.Code, &a.Reason, &a.NextStep, &f, &l, &a.Times, &c, &a.Note)
	a.FirstAt, a.LastAt, a.ClosedAt = at(f), at(l), at(c)
	return a, err
}

// AlarmsByID reads alarms by their numbers, open or closed; unknown numbers are left out.
func (s *Store) AlarmsByID(ctx context.Context, ids []int64) (all []Alarm, err error) {
	for part := range slices.Chunk(ids, 500) {
		args := make([]any, len(part))
		for i, id := range part {
			args[i] = id
		}
		some, err := collect(ctx, s, scanAlarm, alarmColumns+" WHERE id IN ("+in(0, len(part))+")", args...)
		if err != nil {
			return nil, fmt.Errorf("read alarms: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// LatestAlarms returns the newest alarm of each subject and code among codes, open or closed.
func (s *Store) LatestAlarms(ctx context.Context, codes []string) ([]Alarm, error) {
	args := make([]any, len(codes))
	for i, c := range codes {
		args[i] = c
	}
	all, err := collect(ctx, s, scanAlarm, alarmColumns+" WHERE id IN (SELECT MAX(id) FROM alarms WHERE code IN ("+in(0, len(codes))+") GROUP BY subject, code)", args...)
	if err != nil {
		return nil, fmt.Errorf("read the latest alarms: %w", err)
	}
	return all, nil
}

// AlarmCounts counts the open alarms by code.
func (s *Store) AlarmCounts(ctx context.Context) (map[string]int64, error) {
	type row struct {
		code string
		n    int64
	}
	all, err := collect(ctx, s, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.code, &x.n) },
		"SELECT code, COUNT(*) FROM alarms WHERE closed_at = 0 GROUP BY code")
	if err != nil {
		return nil, fmt.Errorf("count alarms: %w", err)
	}
	out := make(map[string]int64, len(all))
	for _, x := range all {
		out[x.code] = x.n
	}
	return out, nil
}

// MappingMissing begins the reason why nobody gets an order that cannot be said in the plant's words.
const MappingMissing = "mapping_missing: "

// Unrouted are released work orders that nobody gets for one reason.
type Unrouted struct {
	ERP, Reason string
	Count       int64
	Example     Order // the one known longest
}

// Unrouted groups the released work orders that nobody gets, or whose changes do not go down, by their reasons. One that an agent has and
// no route leads to any more stays with it, and is left out.
func (s *Store) Unrouted(ctx context.Context) ([]Unrouted, error) {
	type group struct {
		Unrouted
		id int64
	}
	groups, err := collect(ctx, s, func(r *sql.Rows) (g group, err error) { return g, r.Scan(&g.ERP, &g.Reason, &g.Count, &g.id) },
		`SELECT erp || '', unroutable, COUNT(*), MIN(id) FROM work_orders WHERE unroutable <> '' AND state || '' IN ($1, $2, $3)
			AND (sent = 0 OR SUBSTR(unroutable, 1, $4) = $5) GROUP BY erp || '', unroutable ORDER BY MIN(id)`, // the texts that are no columns lead to the index of those that nobody gets
		string(object.OrderReleased), string(object.OrderInProgress), string(object.OrderHeld), len(MappingMissing), MappingMissing)
	if err != nil {
		return nil, fmt.Errorf("look for work orders that nobody gets: %w", err)
	}
	var out []Unrouted
	for _, g := range groups {
		if g.Example, err = first(ctx, s, scanOrder, orderColumns+" WHERE id = $1", g.id); err != nil {
			return nil, fmt.Errorf("read work order %d that nobody gets: %w", g.id, err)
		}
		out = append(out, g.Unrouted)
	}
	return out, nil
}

// Orderless are postings of a plant that have waited for their order for long.
type Orderless struct {
	Plant, Code   string
	Count, Orders int64
	Example       string // the order of the oldest
	Since         time.Time
}

// Orderless groups parked postings with one of codes that have waited since before a time, by plant and code.
func (s *Store) Orderless(ctx context.Context, codes []string, before time.Time) ([]Orderless, error) {
	var out []Orderless
	for _, code := range codes {
		some, err := collect(ctx, s, func(r *sql.Rows) (o Orderless, err error) {
			var since int64
			err = r.Scan(&o.Plant, &o.Count, &o.Orders, &since)
			o.Code, o.Since = code, at(since)
			return o, err
		}, `SELECT p.plant, COUNT(*), COUNT(DISTINCT p.order_no), MIN(p.since) FROM postings p
			WHERE p.state = 'parked' AND p.code = $1 AND p.since <= $2 AND `+openPostings+` GROUP BY p.plant ORDER BY p.plant`, code, us(before))
		if err != nil {
			return nil, fmt.Errorf("look for postings that wait for their order: %w", err)
		}
		for _, o := range some {
			o.Example, err = first(ctx, s, scanValue[string], `SELECT p.order_no FROM postings p
				WHERE p.state = 'parked' AND p.code = $1 AND p.since = $2 AND p.plant = $3 AND `+openPostings+` ORDER BY p.fact_id LIMIT 1`, code, us(o.Since), o.Plant)
			if errors.Is(err, ErrNotFound) {
				continue // it goes on just now
			}
			if err != nil {
				return nil, fmt.Errorf("read a posting that waits for its order: %w", err)
			}
			out = append(out, o)
		}
	}
	return out, nil
}
