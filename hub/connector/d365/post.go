package d365

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const sendMessage = "/api/services/SysMessageServices/SysMessageService/SendMessage"

// Prepare reads the order, the message list and the journals, makes the message, and looks whether its effect is there already.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if no := unsuitable(p); no != nil {
		return nil, no, nil
	}
	o, err := c.order(ctx, p.Fact.OrderNo())
	if errors.Is(err, connector.ErrNotFound) {
		return nil, reject(connector.Fatal, "UNKNOWN_ORDER", "Check the order number at the source; D365 does not have it.", "D365 has no order %q in company %s.", p.Fact.OrderNo(), c.cfg.Company), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	in, no := c.plan(p, o)
	if no != nil {
		return nil, no, nil
	}
	early, err := c.there(ctx, p, &in)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	text, err := json.Marshal(in)
	if err != nil || early != nil {
		return text, early, err
	}
	if s := o.state(); s != object.OrderReleased && s != object.OrderInProgress {
		return nil, reject(connector.Correctable, "ORDER_STATE", "Release or reopen the order in D365, then replay the fact.", "Order %s has status %s in D365.", o.number(), o.head.text("ProductionOrderStatus")), nil
	}
	return text, nil, nil
}

// there looks for the message and its effect before anything is sent, and notes what was before.
func (c *Connector) there(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	messages, err := c.messages(ctx, p, in)
	if err != nil {
		return nil, err
	}
	mine := messages
	c.mu.Lock()
	old, waits := c.forsaken[p.Fact.Key.String()]
	c.mu.Unlock()
	if c.cfg.KeyField == "" {
		if mine = nil; waits {
			mine = fresh(messages, old.Known)
		}
	}
	pending, done, _ := sorted(mine)
	switch {
	case len(pending) > 0:
		return nil, fmt.Errorf("message %s of this fact is still %s", pending[0].text("MessageId"), pending[0].text("MessageStatus"))
	case len(done) > 0:
		if in.Before = nil; waits {
			in.Before = old.Before
		}
		return &connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: done[0].text("MessageId")}}, nil
	}
	before, lines, err := c.journals(ctx, p, in)
	if err != nil {
		return nil, err
	}
	if c.cfg.KeyField != "" && len(lines) > 0 { // the message list is cleaned up now and then
		return &connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: lines[0].text("JournalNumber")}}, nil
	}
	for _, m := range messages {
		in.Known = append(in.Known, m.text("MessageId"))
	}
	in.Before = &before
	return nil, nil
}

// messages reads the messages of the fact's key, or of the message's content where there is no key.
func (c *Connector) messages(ctx context.Context, p connector.Posting, in *intent) (mine []row, err error) {
	word := in.Order
	if c.cfg.KeyField != "" {
		word = p.Fact.Key.String()
	}
	all, err := c.read(ctx, "messages", fmt.Sprintf("MessageQueue eq %s and MessageType eq %s and MessageContent eq %s", quote(queue), quote(in.Type), quote("*"+word+"*")), "MessageId", 0)
	for _, m := range all { // a system that does not filter must not make us believe
		content := m.text("MessageContent")
		if (c.cfg.KeyField == "" && content == in.Content) || (c.cfg.KeyField != "" && strings.Contains(content, word)) {
			mine = append(mine, m)
		}
	}
	return mine, err
}

func fresh(messages []row, known []string) []row {
	return slices.DeleteFunc(slices.Clone(messages), func(m row) bool { return slices.Contains(known, m.text("MessageId")) })
}

func sorted(messages []row) (pending, done, failed []row) {
	for _, m := range messages {
		switch m.text("MessageStatus") {
		case "Processed":
			done = append(done, m)
		case "Failed", "Canceled":
			failed = append(failed, m)
		default:
			pending = append(pending, m)
		}
	}
	return pending, done, failed
}

// journals reads the sums of an order's journals, and the lines of the fact's key where there is one.
func (c *Connector) journals(ctx context.Context, p connector.Posting, in *intent) (s sums, mine []row, err error) {
	entity := "finished"
	if in.Type == picking {
		entity = "picking"
	}
	lines, err := c.read(ctx, entity, "ProductionOrderNumber eq "+quote(in.Order), "JournalNumber", 0)
	if err != nil {
		return s, nil, err
	}
	for _, l := range lines {
		one, err := sum(l)
		if err != nil {
			return s, nil, err
		}
		if l.text("ProductionOrderNumber") != in.Order || (in.Type == picking && l.text("ItemNumber") != in.Item) {
			continue
		}
		s = s.plus(one)
		if c.cfg.KeyField != "" && l.text(c.cfg.KeyField) == p.Fact.Key.String() {
			mine = append(mine, l)
		}
	}
	return s, mine, nil
}

func sum(line row) (s sums, err error) {
	for name, to := range map[string]*decimal.Decimal{"GoodQuantity": &s.Good, "ErrorQuantity": &s.Bad, "ConsumptionQuantity": &s.Taken} {
		text := line.text(name)
		if text == "" {
			continue
		}
		if *to, err = exact(text); err != nil {
			return s, fmt.Errorf("journal %s: %s %q is not a number", line.text("JournalNumber"), name, text)
		}
	}
	return s, nil
}

// exact reads a number. One with a huge exponent is none: comparing it would fill the memory.
func exact(text string) (decimal.Decimal, error) {
	d, err := decimal.NewFromString(text)
	if err == nil && (d.Exponent() > 100 || d.Exponent() < -100) {
		err = fmt.Errorf("exponent %d is out of range", d.Exponent())
	}
	return d, err
}

func readIntent(raw []byte) (in intent, err error) {
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, nil
}

// Post sends the message. It is never posted when the answer comes: it is queued, and what becomes of it is looked up.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	in, err := readIntent(raw)
	if err != nil || in.Content == "" {
		return *reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared, or its intent was damaged.", p.Fact.Key)
	}
	if age := time.Since(in.At); age > c.cfg.Timeout {
		return *reject(connector.Retryable, "STALE_INTENT", "Wait: it is prepared again by itself.", "Posting %s was prepared %s ago: D365 may look different now.", p.Fact.Key, age.Round(time.Second))
	}
	body, err := json.Marshal(map[string]string{"_companyId": c.cfg.Company, "_messageQueue": queue, "_messageType": in.Type, "_messageContent": in.Content})
	if err == nil {
		_, err = c.call(ctx, http.MethodPost, sendMessage, body)
	}
	var l *lost
	var r *refusal
	switch {
	case errors.As(err, &r):
		return refused(in.Order, r)
	case errors.As(err, &l):
		return connector.Outcome{Result: connector.InDoubt, Reason: err.Error()}
	case err != nil:
		return *reject(connector.Retryable, "UNREACHABLE", "Check that D365 runs at "+c.cfg.URL+" and takes client_id and secret.", "D365 could not be reached: %v", err)
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: "D365 has queued the message and has not said yet what became of it."}
}

// refused is the outcome of a refusal by status.
func refused(order string, r *refusal) connector.Outcome {
	o := connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: fmt.Sprintf("HTTP_%d", r.status), RetryAfter: r.retryAfter,
		Reason:   fmt.Sprintf("D365 refused a message on order %s with status %d: %s.", order, r.status, strings.TrimRight(r.text, ".")),
		NextStep: "Mend what the message says, then replay the fact."}
	switch r.status {
	case http.StatusTooManyRequests:
		o.Class, o.NextStep = connector.Retryable, "Wait: it is tried again by itself."
	case http.StatusForbidden:
		o.Class, o.NextStep = connector.Fatal, "Give the hub's user in D365 the right to send messages, then replay the fact."
	}
	return o
}

// Lookup finds out what became of a message.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	all, err := c.messages(ctx, p, &in)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	pending, done, failed := sorted(fresh(all, in.Known))
	switch {
	case len(pending) > 0:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("Message %s is %s.", pending[0].text("MessageId"), pending[0].text("MessageStatus"))}, nil
	case len(done) > 0:
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: done[0].text("MessageId")}}, nil
	case len(failed) > 0:
		m := failed[len(failed)-1]
		return connector.Finding{Presence: connector.Absent, Rejection: reject(connector.Correctable, "MESSAGE_FAILED",
			"Mend what the message says, then replay the fact; do not let the message be processed again as well.",
			"D365 tried message %s on order %s and gave it up: %s.", m.text("MessageId"), in.Order, strings.TrimRight(m.text("ErrorMessage"), "."))}, nil
	}
	return c.lookByJournals(ctx, p, in, asked.Sub(in.At))
}

// lookByJournals answers where no message is there: it may have been processed and cleaned up, be late, or be lost.
// The messages were asked for age after the intent.
func (c *Connector) lookByJournals(ctx context.Context, p connector.Posting, in intent, age time.Duration) (connector.Finding, error) {
	now, lines, err := c.journals(ctx, p, &in)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	reason := "The message list does not have the message."
	switch {
	case len(lines) > 0:
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: lines[0].text("JournalNumber")}}, nil
	case c.cfg.KeyField == "" && (!c.cfg.SingleWriter || in.Before == nil) && age > c.cfg.Settle:
		return connector.Finding{Presence: connector.CannotTell, Reason: reason + " Others may post on order " + in.Order + ", so its journals do not say more; set single_writer if nobody does."}, nil
	case c.cfg.KeyField == "" && in.Before != nil && !now.equal(*in.Before):
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("%s The journals of order %s went from %s to %s all the same.", reason, in.Order, *in.Before, now)}, nil
	case c.cfg.AbsentAfter < 0 && age > c.cfg.Settle:
		return connector.Finding{Presence: connector.CannotTell, Reason: reason + " A late request cannot be excluded."}, nil
	case c.cfg.AbsentAfter < 0 || age <= c.cfg.AbsentAfter:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: reason}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, first := c.forsaken[p.Fact.Key.String()]; !first {
		c.forsaken[p.Fact.Key.String()] = in
	}
	return connector.Finding{Presence: connector.Absent, Reason: reason}, nil
}

// Verify reads the journals back.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	now, lines, err := c.journals(ctx, p, &in)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	v := connector.Verification{Matches: true}
	if c.cfg.KeyField != "" {
		v = c.compareLines(p, in, lines)
	} else if in.Before != nil {
		v = c.compareSums(p, in, now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := p.Fact.Key.String()
	if v.NotYet {
		since, waits := c.missing[key]
		if !waits {
			since = asked
			c.missing[key] = since
		}
		if asked.Sub(since) <= c.cfg.Settle {
			return connector.Verification{NotYet: true}, nil
		}
		v = connector.Verification{Difference: fmt.Sprintf("Message %s on order %s is processed, and no journal shows its effect.", doc.Number, in.Order)}
	}
	delete(c.missing, key)
	delete(c.forsaken, key)
	return v, nil
}

func (c *Connector) compareLines(p connector.Posting, in intent, lines []row) connector.Verification {
	if len(lines) == 0 {
		return connector.Verification{NotYet: true}
	}
	if len(lines) > 1 {
		return connector.Verification{Difference: fmt.Sprintf("%d journal lines of order %s carry key %s, in journals %s and %s.", len(lines), in.Order, p.Fact.Key, lines[0].text("JournalNumber"), lines[1].text("JournalNumber"))}
	}
	have, err := sum(lines[0])
	if want := change(p); err != nil || !have.equal(want) {
		return connector.Verification{Difference: fmt.Sprintf("Journal %s has %s, wanted %s.", lines[0].text("JournalNumber"), have, want)}
	}
	return connector.Verification{Matches: true}
}

func (c *Connector) compareSums(p connector.Posting, in intent, now sums) connector.Verification {
	switch want := in.Before.plus(change(p)); {
	case now.equal(want):
		return connector.Verification{Matches: true}
	case now.equal(*in.Before):
		return connector.Verification{NotYet: true}
	case !c.cfg.SingleWriter: // others post too: the processed message is what is known
		return connector.Verification{Matches: true}
	default:
		return connector.Verification{Difference: fmt.Sprintf("The journals of order %s have %s, wanted %s.", in.Order, now, want)}
	}
}
