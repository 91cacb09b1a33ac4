package sqltables

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/shopspring/decimal"
)

// intent is what Prepare found: when, by the hub's clock, and whether a rejected row of the fact was there.
type intent struct {
	At    time.Time `json:"at"`
	Again bool      `json:"again,omitempty"`
}

// status is what a row says of itself.
type status int

const (
	isNew status = iota
	isPosted
	isRejected
)

func (c *Connector) status(r row) status {
	if c.cfg.Postings.Columns["status"] == "" {
		return isPosted
	}
	s := text(r["status"])
	switch {
	case slices.Contains(c.cfg.Postings.Posted, s):
		return isPosted
	case slices.Contains(c.cfg.Postings.Rejected, s):
		return isRejected
	}
	return isNew
}

// document is what the job wrote, or the fact's key where it writes none.
func (c *Connector) document(r row) connector.Document {
	key := text(r["fact_key"])
	return connector.Document{Number: cmp.Or(text(r["document"]), key), ID: key}
}

func (c *Connector) rejection(r row) *connector.Outcome {
	code, why := text(r["error_code"]), cmp.Or(text(r["error"]), "no reason given")
	class := connector.Correctable
	if known, ok := classes[c.cfg.Postings.ErrorClasses[code]]; ok {
		class = known
	}
	next := "Mend what the ERP says, then replay the fact."
	if class == connector.Retryable {
		next = "Wait: it is tried again by itself."
	}
	return reject(class, cmp.Or(code, "REFUSED"), next, "The ERP refused a posting on order %s: %s.", text(r["order_no"]), strings.TrimRight(why, "."))
}

// find reads the row with a value in a key column, nil when there is none.
func (c *Connector) find(ctx context.Context, a asker, key, lock string) (row, error) {
	p := c.cfg.Postings
	found, err := c.rows(ctx, a, p.Table, p.Columns, "WHERE "+c.d.table(p.Columns["fact_key"])+" = ?"+lock, key)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// Prepare looks whether the row is there, and whether the posting fits its order.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	in := intent{At: time.Now()}
	early, err := c.prepare(ctx, p, &in)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	b, err := json.Marshal(in)
	return b, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	if early := c.unsuitable(p); early != nil {
		return early, nil
	}
	if unique, err := c.uniqueKey(ctx); err != nil {
		return nil, err
	} else if !unique {
		return reject(connector.Fatal, "NOT_UNIQUE", "Make a UNIQUE index on that column alone, then replay the fact.",
			"Column %s of table %s is not UNIQUE: a fact could be posted twice.", c.cfg.Postings.Columns["fact_key"], c.cfg.Postings.Table), nil
	}
	r, err := c.find(ctx, c.db, p.Fact.Key.String(), "")
	if err != nil {
		return nil, err
	}
	if r != nil {
		switch c.status(r) {
		case isPosted:
			return &connector.Outcome{Result: connector.Posted, Document: c.document(r)}, nil
		case isNew:
			return reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "The ERP has not processed the row of fact %s of order %s yet.",
				p.Fact.Key, orderNo(p)), nil
		}
		in.Again = true
	}
	if !p.Fact.Reverses.IsZero() { // what is done already can be taken back in every state of the order, if the ERP lets it
		return c.reversible(ctx, c.db, p, "")
	}
	return c.misfit(ctx, p)
}

// reversible refuses to take back what is not there, or what another fact took back.
func (c *Connector) reversible(ctx context.Context, a asker, p connector.Posting, lock string) (*connector.Outcome, error) {
	key := p.Fact.Reverses.String()
	original, err := c.find(ctx, a, key, lock)
	if err != nil {
		return nil, err
	}
	switch {
	case original == nil || c.status(original) == isRejected:
		return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in the ERP what became of that fact, then replay or accept this one.",
			"No posting of fact %s is there to be reversed.", key), nil
	case c.status(original) == isNew:
		return reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "The posting of fact %s is not processed yet.", key), nil
	}
	t := c.cfg.Postings
	others, err := c.rows(ctx, a, t.Table, t.Columns, "WHERE "+c.d.table(t.Columns["reverses"])+" = ?", key)
	for _, o := range others {
		if text(o["fact_key"]) != p.Fact.Key.String() && c.status(o) != isRejected {
			return reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact with its document.",
				"Fact %s is reversed already, by %s.", key, text(o["fact_key"])), nil
		}
	}
	return nil, err
}

// Post puts the row there and waits a little for the job.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	var in intent
	if early := c.unsuitable(p); early != nil {
		return *early
	}
	if err := json.Unmarshal(raw, &in); err != nil || in.At.IsZero() {
		return *reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared, or its intent was damaged.", p.Fact.Key)
	}
	if out := c.write(ctx, p); out != nil {
		return *out
	}
	return c.await(ctx, p)
}

// write makes the row in one transaction. Nil means that a row is there now, whoever made it.
func (c *Connector) write(ctx context.Context, p connector.Posting) *connector.Outcome {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	refused := func(err error) *connector.Outcome { // the commit was not sent: nothing has happened
		class := c.d.class(err)
		next := "Mend what the database says, then replay the fact."
		if class == connector.Retryable {
			next = "Wait: it is tried again by itself."
		}
		return reject(class, cmp.Or(c.d.code(err), "DATABASE"), next, "The database refused a posting on order %s: %v.", orderNo(p), err)
	}
	tx, err := c.db.BeginTx(ctx, &sql.TxOptions{Isolation: c.d.isolation})
	if err != nil {
		return refused(err)
	}
	defer tx.Rollback()
	if !p.Fact.Reverses.IsZero() {
		if early, err := c.reversible(ctx, tx, p, c.d.lock); err != nil {
			return refused(err)
		} else if early != nil {
			return early
		}
	}
	r, err := c.find(ctx, tx, p.Fact.Key.String(), c.d.lock)
	switch {
	case err != nil:
		return refused(err)
	case r != nil && c.status(r) != isRejected:
		return nil
	}
	statement, args := c.statement(p, r != nil)
	if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
		if starts(c.d.code(err), c.d.duplicate) && c.isThere(ctx, tx, p) {
			return nil // another worker was first
		}
		return refused(err)
	}
	err = tx.Commit()
	noteRow(ctx, c.cfg.Postings.Table, statement, args, err)
	if err != nil {
		if starts(c.d.code(err), c.d.retryable[:1]) && c.d.dollars { // a serialization failure is an answer: it was rolled back
			return refused(err)
		}
		return &connector.Outcome{Result: connector.InDoubt, Code: "COMMIT", Reason: fmt.Sprintf("The answer to the commit of order %s's posting is unknown: %v.", orderNo(p), err)}
	}
	return nil
}

// noteRow records the row as evidence.
func noteRow(ctx context.Context, table, statement string, args []any, err error) {
	text, answer := statement, "committed"
	for i, a := range args {
		text += fmt.Sprintf("\n%d: %v", i+1, a)
	}
	if err != nil {
		answer = err.Error()
	}
	exchange.Note(ctx, "SQL", table, []byte(text), answer, nil)
}

// isThere looks after the transaction ended which could not make the row.
func (c *Connector) isThere(ctx context.Context, tx *sql.Tx, p connector.Posting) bool {
	tx.Rollback()
	r, err := c.find(ctx, c.db, p.Fact.Key.String(), "")
	return err == nil && r != nil
}

// statement makes the row, or makes a rejected one new again.
func (c *Connector) statement(p connector.Posting, again bool) (string, []any) {
	t := c.cfg.Postings
	var names []string
	var args []any
	set := func(field string, v any) {
		if column := t.Columns[field]; column != "" {
			names, args = append(names, c.d.table(column)), append(args, v)
		}
	}
	for _, v := range c.values(p) {
		set(v.field, c.argument(v))
	}
	set("status", t.New)
	if !again {
		return c.d.number(fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", c.d.table(t.Table), strings.Join(names, ", "),
			strings.TrimSuffix(strings.Repeat("?, ", len(args)), ", "))), args
	}
	for _, field := range []string{"error", "error_code", "document"} {
		set(field, nil)
	}
	return c.d.number(fmt.Sprintf("UPDATE %s SET %s = ? WHERE %s = ?", c.d.table(t.Table), strings.Join(names, " = ?, "), c.d.table(t.Columns["fact_key"]))),
		append(args, p.Fact.Key.String())
}

// await reads the row until the job has processed it or the time is over.
func (c *Connector) await(ctx context.Context, p connector.Posting) connector.Outcome {
	deadline := time.Now().Add(c.cfg.Wait)
	doubt := func(format string, args ...any) connector.Outcome {
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf(format, args...)}
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		r, err := c.find(ctx, c.db, p.Fact.Key.String(), "")
		switch {
		case err != nil:
			return doubt("The row of fact %s cannot be read back: %v.", p.Fact.Key, err)
		case r == nil:
			return doubt("The row of fact %s is gone.", p.Fact.Key)
		case c.status(r) == isPosted:
			return connector.Outcome{Result: connector.Posted, Document: c.document(r)}
		case c.status(r) == isRejected:
			return *c.rejection(r)
		case time.Now().After(deadline):
			return doubt("The ERP has not processed the row of fact %s yet.", p.Fact.Key)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return doubt("Nobody waited for the row of fact %s.", p.Fact.Key)
		}
	}
}

// Lookup reads the row. What was lost may come while Settle lasts, and is let in only once even then.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var in intent
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return connector.Finding{}, fmt.Errorf("look up %s: read intent %.100q: %w", p.Fact.Key, raw, err)
		}
	}
	late := time.Since(in.At) < c.cfg.Settle // when it is asked: the answer may be read long after it was given
	r, err := c.find(ctx, c.db, p.Fact.Key.String(), "")
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	switch {
	case r == nil && late, r != nil && c.status(r) == isRejected && in.Again && late:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("No new row has key %s; its statement may still run.", p.Fact.Key)}, nil
	case r == nil:
		return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("No row has key %s.", p.Fact.Key)}, nil
	case c.status(r) == isPosted:
		return connector.Finding{Presence: connector.Found, Document: c.document(r)}, nil
	case c.status(r) == isRejected:
		return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("The ERP refused the row with key %s.", p.Fact.Key), Rejection: c.rejection(r)}, nil
	}
	return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("The ERP has not processed the row with key %s yet.", p.Fact.Key)}, nil
}

// Verify compares the row with the posting.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, _ []byte, doc connector.Document) (connector.Verification, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	r, err := c.find(ctx, c.db, p.Fact.Key.String(), "")
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return c.compare(p, doc, r), nil
}

// keysAtOnce is how many rows are read by one statement.
const keysAtOnce = 50

// VerifyMany implements connector.ManyVerifier: it reads the rows of all postings by one statement. A key that the database finds in a
// row which says it in another way is read alone.
func (c *Connector) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	there, odd := map[string]row{}, false
	for some := range slices.Chunk(all, keysAtOnce) {
		column := c.d.table(c.cfg.Postings.Columns["fact_key"])
		keys := make([]any, len(some))
		for i, q := range some {
			keys[i] = q.Posting.Fact.Key.String()
		}
		rows, err := c.rows(ctx, c.db, c.cfg.Postings.Table, c.cfg.Postings.Columns, "WHERE "+column+" IN ("+strings.TrimSuffix(strings.Repeat("?, ", len(keys)), ", ")+")", keys...)
		if err != nil {
			return nil, fmt.Errorf("verify %d postings, %s first: %w", len(all), all[0].Posting.Fact.Key, err)
		}
		for _, r := range rows {
			key := text(r["fact_key"])
			odd = odd || !slices.Contains(keys, any(key))
			there[key] = r
		}
	}
	answers := make([]connector.Verification, len(all))
	for i, q := range all {
		if r := there[q.Posting.Fact.Key.String()]; r != nil || !odd {
			answers[i] = c.compare(q.Posting, q.Document, r)
		} else {
			answers[i].Alone = true
		}
	}
	return answers, nil
}

// compare says whether the row is as the posting was meant; nil when there is none.
func (c *Connector) compare(p connector.Posting, doc connector.Document, r row) connector.Verification {
	differ := func(format string, args ...any) connector.Verification {
		return connector.Verification{Difference: fmt.Sprintf(format, args...)}
	}
	switch {
	case r == nil:
		return differ("No row has key %s, and document %s was posted for it.", p.Fact.Key, doc.Number)
	case c.status(r) == isRejected:
		return connector.Verification{Difference: "The row was posted and is refused now: " + c.rejection(r).Reason}
	case c.status(r) == isNew:
		return connector.Verification{NotYet: true}
	}
	for _, v := range c.values(p) {
		if c.cfg.Postings.Columns[v.field] == "" {
			continue
		}
		switch want := v.v.(type) {
		case decimal.Decimal:
			if got, err := number(r[v.field]); err != nil || !got.Equal(want) {
				return differ("%s of item %s is %s in the row, and %s in the fact.", v.field, text(r["item"]), text(r[v.field]), want)
			}
		case string:
			if got := text(r[v.field]); v.must && got != want {
				return differ("%s is %q in the row, and %q in the fact.", v.field, got, want)
			}
		}
	}
	return connector.Verification{Matches: true}
}
