package plant

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/shopspring/decimal"
	_ "modernc.org/sqlite"
)

// The states that the MES writes into a work order's row.
const (
	Accepted  = "ACCEPTED"
	Rejected  = "REJECTED"
	Started   = "STARTED"
	Finished  = "FINISHED"
	Cancelled = "CANCELLED"
)

// mes is the MES's database: the staging table of work orders that the agent writes, and the bookings that it reads.
type mes struct {
	db   *sql.DB
	zone *time.Location
}

// tables makes what is not there. The staging table is the one that the agent's MES driver writes.
const tables = `
create table if not exists lk_work_order (
  message_id text not null primary key, order_no text not null, revision integer not null, action text not null,
  work_center text not null, item text not null, description text not null, quantity text, unit text not null,
  priority integer not null, lot text not null, planned_start text, planned_end text, operations text not null,
  components text not null, created_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  status text not null default 'NEW', error_text text, changed_at text, answered text, answer_seq integer not null default 0);
create table if not exists mes_consumption (
  id integer primary key autoincrement, order_no text not null, item text not null, quantity text not null, unit text not null,
  lot text, booked_at text not null);
`

func openMES(path string, zone *time.Location) (*mes, error) {
	db, err := sql.Open("sqlite", fileURI(path)+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open MES %q: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(tables); err != nil {
		db.Close()
		return nil, fmt.Errorf("open MES %q: %w", path, err)
	}
	return &mes{db, zone}, nil
}

// row is one revision of a work order.
type row struct {
	messageID, order, action, workCenter, item string
	revision                                   int64
	quantity                                   decimal.Decimal
	components                                 []component
	problem                                    string // why it cannot be taken
}

// component is material that an order needs in all.
type component struct {
	Item      string          `json:"item"`
	Required  decimal.Decimal `json:"required"`
	Unit      string          `json:"unit"`
	Backflush bool            `json:"backflush"`
}

// newOrders reads the rows that were not answered yet, oldest first.
func (m *mes) newOrders(ctx context.Context) ([]row, error) {
	rows, err := m.db.QueryContext(ctx, `select message_id, order_no, revision, action, work_center, item, coalesce(quantity, ''),
		components from lk_work_order where status = 'NEW' order by rowid`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		var quantity, components string
		if err := rows.Scan(&r.messageID, &r.order, &r.revision, &r.action, &r.workCenter, &r.item, &quantity, &components); err != nil {
			return nil, err
		}
		r.read(quantity, components)
		all = append(all, r)
	}
	return all, rows.Err()
}

func (r *row) read(quantity, components string) {
	if r.action == "CANCEL" {
		return
	}
	var err error
	if r.quantity, err = decimal.NewFromString(quantity); err != nil || !r.quantity.IsPositive() {
		r.problem = fmt.Sprintf("quantity %q is not a number above zero", quantity)
		return
	}
	if components == "" {
		return
	}
	if err := json.Unmarshal([]byte(components), &r.components); err != nil {
		r.problem = fmt.Sprintf("components cannot be read: %v", err)
	}
}

// answer writes what became of a row.
func (m *mes) answer(ctx context.Context, messageID, state, reason string) error {
	_, err := m.db.ExecContext(context.WithoutCancel(ctx), `update lk_work_order set status = $1, error_text = $2, changed_at = $3 where message_id = $4`,
		state, reason, m.now(), messageID)
	return err
}

// consume books material.
func (m *mes) consume(ctx context.Context, order string, b booking) error {
	_, err := m.db.ExecContext(context.WithoutCancel(ctx), `insert into mes_consumption (order_no, item, quantity, unit, lot, booked_at) values ($1, $2, $3, $4, '', $5)`,
		order, b.Item, b.take.String(), b.Unit, m.now())
	return err
}

// now is the MES's clock with its offset, to the millisecond.
func (m *mes) now() string { return time.Now().In(m.zone).Format("2006-01-02T15:04:05.000Z07:00") }

// fileURI names a file to SQLite, whatever characters its path has.
func fileURI(path string) string {
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		p = "/" + p // C:/erp.db
	}
	return "file:" + (&url.URL{Path: p}).EscapedPath()
}
