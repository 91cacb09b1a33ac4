package tryton

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// move is a stock move of a production.
type move struct {
	ID       int         `json:"id"`
	State    string      `json:"state"`
	Quantity json.Number `json:"quantity"`
	Unit     int         `json:"uom"`
	Product  struct {
		ID   int    `json:"id"`
		Code string `json:"code"`
		Unit int    `json:"default_uom"` // where it is asked for
	} `json:"product."`
	From   location `json:"from_location."`
	To     location `json:"to_location."`
	Input  *int     `json:"production_input"`
	Output *int     `json:"production_output"`
}

var moveFields = []string{"state", "quantity", "uom", "product.code", "from_location.code", "from_location.type",
	"to_location.code", "to_location.type", "production_input", "production_output"}

var notCancelled = []any{"state", "!=", "cancelled"}

func idsIn(ids []int) []any { return []any{"id", "in", ids} }

func idsOf(moves []move) []int {
	ids := make([]int, len(moves))
	for i, m := range moves {
		ids[i] = m.ID
	}
	return ids
}

func allDone(moves []move) bool {
	return !slices.ContainsFunc(moves, func(m move) bool { return m.State != "done" })
}

// moves searches stock moves, oldest first.
func (c *Connector) moves(ctx context.Context, domain ...any) ([]move, error) {
	var rows []move
	err := c.client.call(ctx, &rows, nil, "stock.move.search_read", domain, 0, nil, [][]string{{"id", "ASC"}}, moveFields)
	return rows, err
}

func (m plannedMove) is(x move) bool {
	q, err := decimal.NewFromString(x.Quantity.String())
	side := inputs
	if x.Output != nil {
		side = outputs
	}
	return err == nil && side == m.Side && x.Product.ID == m.Product && x.Unit == m.Unit && x.From.ID == m.From && x.To.ID == m.To && same(q, m.Quantity, m.Digits)
}

// document names an effect: by order and moves for people, by record ids for us.
func document(number string, ids []int) connector.Document {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(id)
	}
	return connector.Document{Number: number + "/" + strings.Join(texts, "+"), ID: strings.Join(texts, ",")}
}

// Post implements connector.Connector.
func (c *Connector) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	in, err := parseIntent(intent)
	if err != nil {
		return *reject(connector.Fatal, "bad_intent", err.Error(), "Replay the fact.")
	}
	if p.Fact.Kind == object.KindOrderState {
		return c.postState(ctx, p, in)
	}
	if in.Adopt != nil {
		return c.complete(ctx, p, in, in.Adopt, false)
	}
	return c.create(ctx, p, in)
}

// create adds the moves as drafts, if and only if the order is still as Prepare read it, and completes them.
func (c *Connector) create(ctx context.Context, p connector.Posting, in intent) connector.Outcome {
	values, err := c.addition(ctx, in, p.PostingDate)
	if err != nil {
		return c.beforeEffect(p, err)
	}
	err = c.client.call(ctx, nil, asRead(in.Order, in.Timestamp), "production.write", []int{in.Order}, values)
	if err != nil && kindOf(err) != outdated && kindOf(err) != refused {
		return c.settle(ctx, p, in, err)
	}
	// A gateway may send a request twice: the order can have changed because this posting is in it. And what comes after Tryton's
	// commit can be refused, in the server's own language.
	ids, odd, lookErr := c.ours(ctx, p, in, err == nil)
	switch {
	case lookErr != nil:
		return doubt(lookErr)
	case odd != "":
		return connector.Outcome{Result: connector.InDoubt, Reason: odd}
	case len(ids) > 0:
		return c.complete(ctx, p, in, ids, err == nil)
	case kindOf(err) == refused:
		return c.settle(ctx, p, in, err)
	case err == nil:
		return connector.Outcome{Result: connector.InDoubt, Reason: "Tryton accepted the moves of order " + p.Fact.OrderNo() + " and does not show them"}
	}
	return changed(p)
}

func changed(p connector.Posting) connector.Outcome {
	return *reject(connector.Retryable, "order_changed", fmt.Sprintf("order %q was changed in Tryton while it was being posted to", p.Fact.OrderNo()),
		"Nothing: it is tried again.")
}

// addition is what the one write adds to the order.
func (c *Connector) addition(ctx context.Context, in intent, date time.Time) (map[string]any, error) {
	sides := map[string][]any{}
	for _, m := range in.Moves {
		if m.NewLot != "" {
			lot, err := c.makeLot(ctx, m.NewLot, m.Product)
			if err != nil {
				return nil, err
			}
			m.Lot = lot
		}
		sides[m.Side] = append(sides[m.Side], m.values(in.Company, date))
	}
	values := map[string]any{}
	for side, rows := range sides {
		values[side] = []any{[]any{"create", rows}}
	}
	if t := in.Target; t != nil {
		values[outputs] = append(values[outputs].([]any), []any{"write", []int{t.Move}, map[string]any{"quantity": number(t.Rest)}})
	}
	return values, nil
}

func (c *Connector) makeLot(ctx context.Context, number string, product int) (int, error) {
	if id, err := c.findLot(ctx, number, product); id != 0 || err != nil {
		return id, err
	}
	var ids []int
	err := c.client.call(ctx, &ids, nil, "stock.lot.create", []any{map[string]any{"number": number, "product": product}})
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// ours finds the moves that the posting's write added: newer than the intent, made by this account, equal to the plan. A
// reason is returned when something is there that cannot be told. Accepted says that Tryton has just accepted the write:
// then nobody else can have added to the order since Prepare read it.
func (c *Connector) ours(ctx context.Context, p connector.Posting, in intent, accepted bool) (ids []int, odd string, err error) {
	if in.Adopt != nil {
		moves, err := c.moves(ctx, idsIn(in.Adopt), notCancelled)
		return idsOf(moves), "", err
	}
	uid, err := c.client.uid(ctx)
	if err != nil {
		return nil, "", err
	}
	moves, err := c.moves(ctx, []any{"id", ">", in.After}, []any{"create_uid", "=", uid}, notCancelled,
		[]any{"OR", []any{"production_input", "=", in.Order}, []any{"production_output", "=", in.Order}})
	if err != nil || len(moves) == 0 {
		return nil, "", err
	}
	if !accepted {
		if moves, err = c.withoutForeign(ctx, p, moves); err != nil || len(moves) == 0 {
			return nil, "", err
		}
	}
	left := slices.Clone(moves)
	for _, m := range in.Moves {
		i := slices.IndexFunc(left, m.is)
		if i < 0 {
			break
		}
		ids = append(ids, left[i].ID)
		left = slices.Delete(left, i, i+1)
	}
	if len(ids) == len(in.Moves) && len(left) == 0 {
		return ids, "", nil
	}
	return nil, fmt.Sprintf("order %q has new moves %v of this account that are not what was to be posted; compare them with fact %s and settle it",
		p.Fact.OrderNo(), idsOf(moves), p.Fact.Key), nil
}

// withoutForeign drops moves that carry another fact's key.
func (c *Connector) withoutForeign(ctx context.Context, p connector.Posting, moves []move) ([]move, error) {
	notes, err := c.notes(ctx, idsOf(moves))
	if err != nil {
		return nil, err
	}
	own := noteText(p)
	return slices.DeleteFunc(moves, func(m move) bool {
		text, ok := notes[m.ID]
		return ok && text != own
	}), nil
}

const notePrefix = "Linekeeper fact "

// reversesWord stands in the note between the key of a reversal and that of the fact it takes back.
const reversesWord = " reverses "

func noteText(p connector.Posting) string {
	text := notePrefix + p.Fact.Key.String()
	if !p.Fact.Reverses.IsZero() {
		text += reversesWord + p.Fact.Reverses.String()
	}
	return text
}

func moveRefs(ids []int) []string {
	refs := make([]string, len(ids))
	for i, id := range ids {
		refs[i] = "stock.move," + strconv.Itoa(id)
	}
	return refs
}

// notes returns the fact keys noted on moves, by move.
func (c *Connector) notes(ctx context.Context, ids []int) (map[int]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []struct {
		Resource, Message string
	}
	err := c.client.call(ctx, &rows, nil, "ir.note.search_read",
		[]any{[]any{"resource", "in", moveRefs(ids)}, []any{"message", "like", notePrefix + "%"}}, 0, nil, nil, []string{"resource", "message"})
	if err != nil {
		return nil, err
	}
	notes := make(map[int]string, len(rows))
	for _, r := range rows {
		id, err := strconv.Atoi(strings.TrimPrefix(r.Resource, "stock.move,"))
		if err != nil {
			return nil, fmt.Errorf("read Tryton's note: resource %q is no stock move", r.Resource)
		}
		notes[id] = r.Message
	}
	return notes, nil
}

// noted returns those of the moves that carry the posting's key.
func (c *Connector) noted(ctx context.Context, ids []int, p connector.Posting) ([]int, error) {
	notes, err := c.notes(ctx, ids)
	if err != nil {
		return nil, err
	}
	var found []int
	for id, text := range notes {
		if text == noteText(p) {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found, nil
}

// complete notes the key on the drafts and does them. Every step may be repeated; fresh says that none was made before.
func (c *Connector) complete(ctx context.Context, p connector.Posting, in intent, ids []int, fresh bool) connector.Outcome {
	if err := c.note(ctx, p, ids, fresh); err != nil {
		return c.withdraw(ctx, p, in, ids, err)
	}
	if err := c.do(ctx, p, ids); err != nil {
		return c.withdraw(ctx, p, in, ids, err)
	}
	moves, err := c.moves(ctx, idsIn(ids), notCancelled)
	if err != nil {
		return doubt(err)
	}
	if len(moves) != len(ids) || !allDone(moves) { // someone cancelled them before they were done
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("the moves %v of order %q are not done, though Tryton did not object", ids, p.Fact.OrderNo())}
	}
	if in.State != stateRunning {
		if err := c.start(ctx, in.Order); err != nil && mayPass(err) {
			return doubt(err) // posted; the look-up tries the start again
		}
	}
	return connector.Outcome{Result: connector.Posted, Document: document(p.Fact.OrderNo(), ids)}
}

// mayPass tells trouble on the way from an answer of Tryton's.
func mayPass(err error) bool {
	switch kindOf(err) {
	case unknown, failed, notSent, locked, outdated:
		return true
	}
	return false
}

func (c *Connector) note(ctx context.Context, p connector.Posting, ids []int, fresh bool) error {
	if !fresh {
		have, err := c.noted(ctx, ids, p)
		if err != nil {
			return err
		}
		ids = slices.DeleteFunc(slices.Clone(ids), func(id int) bool { return slices.Contains(have, id) })
	}
	if len(ids) == 0 {
		return nil
	}
	rows := make([]map[string]any, len(ids))
	for i, ref := range moveRefs(ids) {
		rows[i] = map[string]any{"resource": ref, "message": noteText(p)}
	}
	return c.client.call(ctx, nil, nil, "ir.note.create", rows)
}

// do does the moves. Tryton warns of dates in the future, and a plant east of the server is a day ahead of it: that
// warning, and no other, is confirmed.
func (c *Connector) do(ctx context.Context, p connector.Posting, ids []int) error {
	err := c.client.call(ctx, nil, nil, "stock.move.do", ids)
	var warning *callError
	if !errors.As(err, &warning) || warning.kind != warned || !strings.HasSuffix(warning.name, ".effective_date_future") {
		return err
	}
	if p.PostingDate.After(tomorrow()) {
		return err
	}
	uid, uidErr := c.client.uid(ctx)
	if uidErr != nil {
		return uidErr
	}
	row := map[string]any{"user": uid, "name": warning.name, "always": false}
	if err := c.client.call(ctx, nil, nil, "res.user.warning.create", []any{row}); err != nil {
		return err
	}
	return c.client.call(ctx, nil, nil, "stock.move.do", ids)
}

// withdraw takes drafts back that Tryton refuses to do, so that nobody does them later, and says why. When it is not known
// what became of them, they stay and the outcome is in doubt.
func (c *Connector) withdraw(ctx context.Context, p connector.Posting, in intent, ids []int, why error) connector.Outcome {
	switch kindOf(why) {
	case refused, warned:
	default:
		return doubt(why)
	}
	moves, err := c.moves(ctx, idsIn(ids))
	if err != nil {
		return doubt(errors.Join(why, err))
	}
	sides := map[string][]int{}
	for _, m := range moves {
		side := inputs
		if m.Output != nil {
			side = outputs
		}
		sides[side] = append(sides[side], m.ID)
	}
	values := map[string]any{}
	for side, mine := range sides {
		values[side] = []any{[]any{"delete", mine}}
	}
	if t := in.Target; t != nil && sides[outputs] != nil {
		values[outputs] = append(values[outputs].([]any), []any{"write", []int{t.Move}, map[string]any{"quantity": number(t.Was)}})
	}
	if err := c.client.call(ctx, nil, nil, "production.write", []int{in.Order}, values); err != nil {
		return doubt(errors.Join(why, err))
	}
	return c.beforeEffect(p, why)
}

// settle says what a failed write means. When Tryton broke down inside it asks at once, so that a mistake that lasts shows
// its text instead of being looked up for ever.
func (c *Connector) settle(ctx context.Context, p connector.Posting, in intent, err error) connector.Outcome {
	switch kindOf(err) {
	case unknown:
		return doubt(err)
	case failed:
		f, lookErr := c.lookUpMoves(ctx, p, in)
		if lookErr != nil || f.Presence != connector.Absent {
			return doubt(err)
		}
	}
	return c.beforeEffect(p, err)
}

// Lookup implements connector.Connector.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, intent []byte) (connector.Finding, error) {
	in, err := parseIntent(intent)
	if err != nil {
		return connector.Finding{Presence: connector.CannotTell, Reason: err.Error()}, nil
	}
	if p.Fact.Kind == object.KindOrderState {
		return c.lookUpState(ctx, p, in)
	}
	return c.lookUpMoves(ctx, p, in)
}

func (c *Connector) lookUpMoves(ctx context.Context, p connector.Posting, in intent) (connector.Finding, error) {
	reason := ""
	for range 3 {
		o, err := c.read(ctx, in.Order)
		if kindOf(err) == refused {
			return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("order %q is no longer in Tryton", p.Fact.OrderNo())}, nil
		}
		if err != nil {
			return connector.Finding{}, err
		}
		ids, odd, err := c.ours(ctx, p, in, false)
		switch {
		case err != nil:
			return connector.Finding{}, err
		case odd != "":
			return connector.Finding{Presence: connector.CannotTell, Reason: odd}, nil
		case len(ids) == 0:
			f, err := c.outrun(ctx, o)
			if err != nil || f.Presence == connector.Absent {
				f.Reason = reason
				return f, err
			}
			reason = f.Reason
			continue
		}
		out := c.complete(ctx, p, in, ids, false)
		switch out.Result {
		case connector.Posted:
			return connector.Finding{Presence: connector.Found, Document: out.Document}, nil
		case connector.InDoubt:
			return connector.Finding{}, errors.New(out.Reason)
		}
		reason = out.Reason // taken back; look again
	}
	return connector.Finding{Presence: connector.NotFoundYet, Reason: reason}, nil
}

// outrun changes nothing but the order's timestamp, so that a request which is still on its way can no longer match it: what
// is not there then is Absent. It is NotFoundYet when the order was changed since it was read, or when Tryton refuses any
// change of it now, as it does where a stock period was closed.
func (c *Connector) outrun(ctx context.Context, o order) (connector.Finding, error) {
	err := c.client.call(ctx, nil, asRead(o.ID, o.Timestamp), "production.write", []int{o.ID}, map[string]any{})
	if err == nil {
		return connector.Finding{Presence: connector.Absent}, nil
	}
	yet := connector.Finding{Presence: connector.NotFoundYet}
	switch kindOf(err) {
	case outdated:
		yet.Reason = fmt.Sprintf("order %q is being changed in Tryton", o.Number)
		return yet, nil
	case refused:
		yet.Reason = fmt.Sprintf("order %q cannot be changed in Tryton now, which would show what became of the posting: %s", o.Number, err)
		return yet, nil
	}
	return connector.Finding{}, err
}
