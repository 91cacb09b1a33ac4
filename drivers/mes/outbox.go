package mes

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Outbox is a table that triggers fill with every change of other tables.
type Outbox struct {
	Table      string   `yaml:"table"`      // default lk_outbox
	Taken      string   `yaml:"taken"`      // "delete" (default), "mark"
	Operations []string `yaml:"operations"` // of insert, update, delete; default insert, update
	Create     bool     `yaml:"create"`
}

// byOutbox finds changes in a table that triggers fill. A row stays there until what it says is durable, so that it does not
// matter when its transaction commits; the cursor holds only the rows that are durable and perhaps still there.
type byOutbox struct {
	Taken []outboxRow `json:"taken,omitempty"`
}

// outboxRow identifies a row of the outbox. The time tells it from one with the same number in a table that was made anew.
type outboxRow struct {
	ID int64  `json:"i"`
	At string `json:"t"`
}

const outboxAtATime = 100 // rows that one statement takes away

func newByOutbox(p *poller) (finder, error) {
	if p.state.Outbox == nil {
		p.state.Outbox = &byOutbox{}
	}
	return p.state.Outbox, nil
}

func (f *byOutbox) find(ctx context.Context, p *poller) ([]row, bool, error) {
	if time.Now().After(p.triggersDue) {
		if err := p.checkTriggers(ctx); err != nil {
			return nil, false, err
		}
	}
	o := p.query.Outbox
	s := &statement{d: p.dialect}
	s.add("SELECT id, op, row_data, old_data, %s FROM %s WHERE source = %s AND taken_at IS NULL ORDER BY id ", fmt.Sprintf(p.dialect.text, "changed_at"),
		p.dialect.quote(o.Table), s.arg(p.query.Table)).add(p.dialect.limit, p.limit())
	images, err := f.read(ctx, p, s)
	if class, _ := p.class(err); class == faultTable {
		return nil, false, p.missingOutbox(ctx, err)
	}
	if err != nil {
		return nil, false, err
	}
	var rows []row
	for _, x := range images {
		f.Taken = append(f.Taken, x.outboxRow)
		if slices.Contains(o.Operations, x.op) {
			rows = append(rows, p.fromImage(x))
		}
	}
	if len(rows) == 0 { // nobody wants these
		return nil, len(images) == p.limit(), f.takeAway(ctx, p)
	}
	return rows, len(images) == p.limit(), nil
}

// image is one row of the outbox.
type image struct {
	outboxRow
	op       string
	now, old []byte
}

func (f *byOutbox) read(ctx context.Context, p *poller, s *statement) ([]image, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	rows, err := p.db().QueryContext(ctx, s.text.String(), s.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []image
	for rows.Next() {
		var x image
		if err := rows.Scan(&x.ID, &x.op, &x.now, &x.old, &x.At); err != nil {
			return nil, err
		}
		x.op = strings.ToLower(strings.TrimSpace(x.op))
		out = append(out, x)
	}
	return out, rows.Err()
}

// takeAway deletes or marks the rows whose contents are durable. A repetition changes nothing.
func (f *byOutbox) takeAway(ctx context.Context, p *poller) error {
	o, at := p.query.Outbox, fmt.Sprintf(p.dialect.text, "changed_at")
	for part := range slices.Chunk(f.Taken, outboxAtATime) {
		s := &statement{d: p.dialect}
		if o.Taken == "mark" {
			s.add("UPDATE %s SET taken_at = %s WHERE ", p.dialect.quote(o.Table), p.dialect.outbox.clock)
		} else {
			s.add("DELETE FROM %s WHERE ", p.dialect.quote(o.Table))
		}
		for i, x := range part {
			if i > 0 {
				s.add(" OR ")
			}
			s.add("id = %s AND %s = %s", s.arg(x.ID), at, s.arg(x.At))
		}
		if err := p.exec(ctx, s); err != nil {
			return fmt.Errorf("take rows out of %q: %w", o.Table, err)
		}
	}
	f.Taken = nil
	return nil
}

// fromImage makes a row of the change: its columns as they are now (a deleted row's as they were), and beside them lk_op,
// lk_changed_at and, of an updated row, lk_old.
func (p *poller) fromImage(x image) row {
	r := row{version: "o" + strconv.FormatInt(x.ID, 10) + "@" + x.At}
	values, err := p.decodeImage(x.now)
	var old map[string]any
	if err == nil && len(x.old) > 0 {
		old, err = p.decodeImage(x.old)
	}
	if err != nil {
		r.payload = slices.Concat(x.now, x.old)
		r.problem = &signal.Problem{Code: "bad_json", Item: p.query.Outbox.Table,
			Reason:   fmt.Sprintf("row %d of %q holds no image of a row: %v", x.ID, p.query.Outbox.Table, err),
			NextStep: "compare the triggers of the table with the statement that the agent wrote for them"}
		return r
	}
	for _, k := range p.query.Key {
		r.key = append(r.key, values[k])
	}
	values["lk_op"] = x.op
	if old != nil {
		values["lk_old"] = old
	}
	values["lk_changed_at"] = x.At
	if t, ok := parseTime(x.At, time.UTC); ok {
		values["lk_changed_at"] = t
	}
	r.values = values
	return r
}

// decodeImage reads a row's image in JSON. Its values become what a SELECT of the columns would give.
func (p *poller) decodeImage(raw []byte) (map[string]any, error) {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var values map[string]any
	if err := dec.Decode(&values); err != nil {
		return nil, err
	}
	if values == nil {
		return nil, fmt.Errorf("it is null")
	}
	for name, v := range values {
		c := column{name: name}
		if i := p.column(name); i >= 0 {
			c = p.columns[i]
		}
		value, err := c.fromJSON(v, p.config.Driver, p.zone)
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	return values, nil
}

// fromJSON turns a value of an image into a signal's value.
func (c column) fromJSON(v any, driver string, zone *time.Location) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if c.kind == kindTime { // MySQL's seconds since 1970
			return epoch(string(v))
		}
		if c.kind == kindBool {
			return v != "0", nil
		}
	case map[string]any:
		if text, ok := v["$hex"]; ok && len(v) == 1 && c.kind != kindJSON {
			return fromHex(text)
		}
	case string:
		if c.kind != kindBytes {
			return c.text(v, zone)
		}
		if driver == "sqlserver" {
			return base64.StdEncoding.DecodeString(v)
		}
		return fromHex(strings.TrimPrefix(v, `\x`))
	}
	return v, nil
}

func fromHex(v any) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, nil
	}
	return hex.DecodeString(text)
}

// epoch reads seconds since 1970 with a decimal fraction.
func epoch(text string) (any, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no time", text)
	}
	nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no time", text)
	}
	return time.Unix(seconds, nanos).UTC(), nil
}
