package odoo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// byKey reads the transfers that bear a fact's key, oldest first, with their moves. Where the field for the key is copied, a return that a person made
// of one bears it too, and is none of the fact's.
func (c *Connector) byKey(ctx context.Context, s *setup, order, key string) ([]transfer, error) {
	value := key
	if c.cfg.KeyField == "origin" {
		value = origin(order, key)
	}
	all, err := c.transfers(ctx, s, []any{where(c.cfg.KeyField, "=", value)})
	returned := returnsOf(all)
	return slices.DeleteFunc(all, func(t transfer) bool { return returned[t.ID] }), err
}

// returnsOf picks those transfers that take back moves of another one with the same key.
func returnsOf(all []transfer) map[int]bool {
	key := map[int]string{} // by move
	for _, t := range all {
		for _, m := range t.Moves {
			key[m.ID] = t.Key
		}
	}
	back := map[int]bool{}
	for _, t := range all {
		for _, m := range t.Moves {
			if k, ok := key[m.Returns.ID]; ok && k == t.Key {
				back[t.ID] = true
			}
		}
	}
	return back
}

// standing leaves out of several done transfers with one key those that were taken back since: somebody has mended that there were two.
func (c *Connector) standing(ctx context.Context, s *setup, all []transfer) ([]transfer, error) {
	if len(all) < 2 {
		return all, nil
	}
	var ids []int
	for _, t := range all {
		for _, m := range t.Moves {
			ids = append(ids, m.ID)
		}
	}
	returns, err := c.moves(ctx, s, []any{where("origin_returned_move_id", "in", ids), where("state", "=", "done")})
	if err != nil {
		return nil, err
	}
	stands := func(t transfer) bool {
		return slices.ContainsFunc(t.Moves, func(m move) bool {
			return !slices.ContainsFunc(returns, func(r move) bool { return r.Returns.ID == m.ID })
		})
	}
	if !slices.ContainsFunc(all, stands) {
		return all, nil
	}
	return slices.DeleteFunc(all, func(t transfer) bool { return !stands(t) }), nil
}

func (c *Connector) transfers(ctx context.Context, s *setup, domain []any) ([]transfer, error) {
	fields := []string{"name", "state", "origin", "write_date", "write_uid"}
	if c.cfg.KeyField != "origin" {
		fields = append(fields, c.cfg.KeyField)
	}
	var raw []json.RawMessage
	if err := c.client.list(ctx, "stock.picking", domain, fields, "id", 0, &raw); err != nil || len(raw) == 0 {
		return nil, err
	}
	all := make([]transfer, len(raw))
	ids := make([]int, len(raw))
	for i := range raw {
		var named map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(raw[i], &all[i]), json.Unmarshal(raw[i], &named)); err != nil {
			return nil, &lost{cause: fmt.Errorf("read a transfer: %w: %w", errForm, err)}
		}
		var key text
		if err := field1(named, c.cfg.KeyField, &key); err != nil {
			return nil, err
		}
		all[i].Key, ids[i] = string(key), all[i].ID
		if c.cfg.KeyField == "origin" {
			_, all[i].Key = split(string(all[i].Origin))
		}
	}
	moves, err := c.moves(ctx, s, []any{where("picking_id", "in", ids)})
	if err != nil {
		return nil, err
	}
	for _, m := range moves {
		if i := slices.Index(ids, m.Transfer.ID); i >= 0 {
			all[i].Moves = append(all[i].Moves, m)
		}
	}
	return all, nil
}

func document(t *transfer) connector.Document {
	return connector.Document{Number: string(t.Name), ID: fmt.Sprint(t.ID)}
}

// Prepare finds an earlier effect, reads the order and makes the moves.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if no := unsuitable(p); no != nil {
		return nil, no, nil
	}
	in, early, err := c.prepare(ctx, p)
	if no := resting(p.Fact.OrderNo(), err); no != nil {
		return nil, no, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	raw, err := json.Marshal(in)
	return raw, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting) (in intent, early *connector.Outcome, err error) {
	in = intent{Order: orderNo(p), At: time.Now().UTC()}
	s, err := c.known(ctx)
	if err != nil {
		return in, nil, err
	}
	if p.Fact.OrderState != nil {
		early, err = c.prepareState(ctx, s, p, &in)
		return in, early, err
	}
	there, err := c.byKey(ctx, s, in.Order, p.Fact.Key.String())
	if err != nil {
		return in, nil, err
	}
	if i := slices.IndexFunc(there, func(t transfer) bool { return t.State == "done" }); i >= 0 && c.whole(p, there[i].Moves) {
		return in, &connector.Outcome{Result: connector.Posted, Document: document(&there[i])}, nil
	}
	in.There = len(there) > 0
	if !p.Fact.Reverses.IsZero() {
		early, err = c.prepareReversal(ctx, s, p, &in)
	} else {
		early, err = c.plan(ctx, s, p, &in)
	}
	if early != nil && in.There {
		// What is there already may be an effect: what the order says now is no answer to that.
		for _, t := range there {
			if t.State == "done" {
				return in, &connector.Outcome{Result: connector.Posted, Document: document(&t)}, nil
			}
		}
	}
	return in, early, err
}

// whole reports moves that are done and tied to their order. A reversal's are tied to none.
func (c *Connector) whole(p connector.Posting, moves []move) bool {
	if !p.Fact.Reverses.IsZero() || p.Fact.Consumption != nil && p.Fact.Consumption.Movement == object.Return {
		return true
	}
	if f := p.Fact.Confirmation; f != nil && f.Yield.IsZero() {
		return true
	}
	return slices.ContainsFunc(moves, func(m move) bool { return m.RawOf.ID != 0 || m.MadeIn.ID != 0 })
}

// Post makes the transfer as a draft, which has no effect, and finishes it.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	in, err := readIntent(raw)
	if err != nil {
		return *reject(connector.Retryable, "NO_INTENT", byItself, "Posting %s: %v.", p.Fact.Key, err)
	}
	if in.State != "" {
		return c.postState(ctx, in)
	}
	return c.post(ctx, p.Fact.Key.String(), &in)
}

func (c *Connector) post(ctx context.Context, key string, in *intent) connector.Outcome {
	s, err := c.known(ctx)
	if err != nil {
		return *reject(connector.Retryable, "UNREACHABLE", byItself, "Posting %s: %v.", key, err)
	}
	if !in.There {
		var ids []int
		err := c.client.call(ctx, "stock.picking", "create", nil, nil, &ids, arg{"vals_list", []row{c.values(s, key, in)}})
		// A validation error may be a unique key's: then it is there.
		if r, ok := refused(err); err != nil && !(ok && r.name == "odoo.exceptions.ValidationError") {
			return c.outcome(in.Order, err)
		}
		if err != nil {
			there, ferr := c.byKey(ctx, s, in.Order, key)
			if ferr != nil {
				return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%v; and then: %v.", err, ferr)}
			}
			if len(there) == 0 {
				return c.outcome(in.Order, err)
			}
		}
	}
	return c.finish(ctx, s, key, in)
}

// finish takes what bears the fact's key to its end, from wherever it stands. Each step can be repeated, and only one thing has an effect on stock:
// validating one draft, which is the oldest. What else bears the key and has no effect is deleted, so that nobody validates it by hand.
func (c *Connector) finish(ctx context.Context, s *setup, key string, in *intent) connector.Outcome {
	there, err := c.byKey(ctx, s, in.Order, key)
	if err != nil {
		return doubt(err)
	}
	var drafts []transfer
	cancelled := ""
	for i := range there {
		switch there[i].State {
		case "done":
			return c.tie(ctx, in, &there[i], spare(there))
		case "cancel":
			cancelled = string(there[i].Name)
		default:
			drafts = append(drafts, there[i])
		}
	}
	switch {
	case len(drafts) == 0 && cancelled != "":
		return *reject(connector.Correctable, "CANCELLED", "Find out who cancelled it and why; delete it in Odoo and replay the fact, or accept the fact.", "Transfer %s of fact %s on order %s is cancelled in Odoo.", cancelled, key, in.Order)
	case len(drafts) == 0:
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("No transfer of fact %s can be read yet.", key)}
	}
	draft := &drafts[0]
	if no, err := c.mend(ctx, s, key, in, draft); err != nil {
		return doubt(err)
	} else if no != nil {
		return c.discard(ctx, s, key, in, *no)
	}
	return c.validate(ctx, s, key, in, draft, drafts[1:])
}

// doubt is for a failed look at what is there: whether there is an effect is then not known, however it failed.
func doubt(err error) connector.Outcome {
	out := connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("What became of it in Odoo cannot be read: %v.", err)}
	var l *lost
	if errors.As(err, &l) {
		out.RetryAfter = l.retryAfter
	}
	return out
}

func spare(all []transfer) (ids []int) {
	for _, t := range all {
		if t.State != "done" && t.State != "cancel" {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// mend compares a draft with what was asked for. Odoo before 17 gives all moves of a new transfer the places of its head: those are put right
// while it is a draft. Any other difference is somebody's, and it is not validated.
func (c *Connector) mend(ctx context.Context, s *setup, key string, in *intent, t *transfer) (*connector.Outcome, error) {
	left := slices.Clone(t.Moves)
	same := func(a, b decimal.Decimal) bool { return a.Sub(b).Abs().LessThan(decimal.New(5, -c.cfg.Precision-1)) }
	for _, l := range in.Lines {
		fits := func(m move) bool {
			return m.Product.ID == l.Product && m.Unit.ID == l.Unit && m.Returns.ID == l.Returns && same(m.Demand.Decimal, l.Quantity) &&
				(same(m.Done.Decimal, l.Quantity) || s.picked && m.Done.IsZero())
		}
		i := slices.IndexFunc(left, func(m move) bool { return fits(m) && m.From.ID == l.From && m.To.ID == l.To })
		if i < 0 {
			if i = slices.IndexFunc(left, fits); i >= 0 {
				if err := c.replace(ctx, t, left[i].ID, l); err != nil {
					return nil, err
				}
			}
		}
		if i < 0 {
			return reject(connector.Correctable, "DRAFT_CHANGED", "Find out who or what changed it, then replay the fact.",
				"Transfer %s of fact %s on order %s has no move of %s of %q as the fact says; it was not validated.", t.Name, key, in.Order, l.Quantity, l.Item), nil
		}
		left = slices.Delete(left, i, i+1)
	}
	if len(left) > 0 {
		return reject(connector.Correctable, "DRAFT_CHANGED", "Find out who or what changed it, then replay the fact.",
			"Transfer %s of fact %s on order %s has a move of %q that the fact does not say; it was not validated.", t.Name, key, in.Order, left[0].Product.Name), nil
	}
	return nil, nil
}

// replace gives a move of a draft its places: its lines first, because they are what is booked and the move is what is looked at.
func (c *Connector) replace(ctx context.Context, t *transfer, id int, l line) error {
	var lines []struct {
		ID int `json:"id"`
	}
	if err := c.client.list(ctx, "stock.move.line", []any{where("move_id", "=", id)}, []string{"move_id"}, "id", 0, &lines); err != nil {
		return err
	}
	ids := make([]int, len(lines))
	for i := range lines {
		ids[i] = lines[i].ID
	}
	places := arg{"vals", row{"location_id": l.From, "location_dest_id": l.To}}
	var ok bool
	if len(ids) > 0 {
		if err := c.client.call(ctx, "stock.move.line", "write", ids, nil, &ok, places); err != nil {
			return err
		}
	}
	if err := c.client.call(ctx, "stock.move", "write", []int{id}, nil, &ok, places); err != nil {
		return err
	}
	for i := range t.Moves {
		if t.Moves[i].ID == id {
			t.Moves[i].From, t.Moves[i].To = ref{ID: l.From}, ref{ID: l.To}
		}
	}
	return nil
}

// validate makes a draft take effect, in one transaction. An answer that is an action of the user interface means that Odoo asks something first
// and has done nothing; or that it has done it and shows something: the state tells.
func (c *Connector) validate(ctx context.Context, s *setup, key string, in *intent, t *transfer, others []transfer) connector.Outcome {
	var answer json.RawMessage
	words := row{"skip_backorder": true, "skip_immediate": true, "skip_sms": true, "cancel_backorder": true, "picking_ids_not_to_backorder": []int{t.ID}, "button_validate_picking_ids": []int{t.ID}}
	err := c.client.call(ctx, "stock.picking", "button_validate", []int{t.ID}, words, &answer)
	var asks struct {
		Model string `json:"res_model"`
		Name  text   `json:"name"`
	}
	switch {
	case err != nil:
		out := c.outcome(in.Order, err)
		if out.Result == connector.Rejected && out.Class != connector.Retryable {
			return c.discard(ctx, s, key, in, out)
		}
		return out
	case json.Unmarshal(answer, &asks) == nil && len(answer) > 0 && answer[0] == '{':
		var now []struct {
			State string `json:"state"`
		}
		if err := c.client.list(ctx, "stock.picking", []any{where("id", "=", t.ID)}, []string{"state"}, "id", 1, &now); err != nil {
			return doubt(err)
		}
		if len(now) == 0 || now[0].State != "done" {
			return c.discard(ctx, s, key, in, *reject(connector.Correctable, "ODOO_ASKS", "Switch off in Odoo what asks, for operation type "+c.cfg.OperationType+"; then replay the fact.",
				"Odoo asks %q (%s) before it validates transfer %s on order %s, and has booked nothing.", asks.Name, asks.Model, t.Name, in.Order))
		}
	case string(answer) != "true" && string(answer) != "null":
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("Odoo answered %.100q when transfer %s was validated.", answer, t.Name)}
	}
	return c.tie(ctx, in, t, spare(others))
}

// tie makes done moves count in their order, and what was taken back no longer. Odoo merges moves that are tied while they are drafts with those that
// it planned itself, so they are tied only now. It is the same however often it is done.
func (c *Connector) tie(ctx context.Context, in *intent, t *transfer, spare []int) connector.Outcome {
	ids := map[string][]int{}
	for _, l := range in.Lines {
		for _, m := range t.Moves {
			if l.Tie != "" && m.Product.ID == l.Product && m.To.ID == l.To && (l.Tie == tieRaw && m.RawOf.ID == 0 || l.Tie == tieMade && m.MadeIn.ID == 0) {
				ids[l.Tie] = append(ids[l.Tie], m.ID)
			}
		}
	}
	for field, moves := range ids {
		if out := c.write(ctx, in, moves, field, in.Part); out != nil {
			return *out
		}
	}
	for _, u := range in.Untie {
		if out := c.write(ctx, in, []int{u.Move}, u.Field, false); out != nil {
			return *out
		}
	}
	if len(spare) > 0 {
		var ok bool
		if err := c.client.call(ctx, "stock.picking", "unlink", spare, nil, &ok); err != nil {
			if _, no := refused(err); !no {
				return doubt(err)
			}
		}
	}
	return connector.Outcome{Result: connector.Posted, Document: document(t)}
}

// write sets one field of moves; what Odoo refuses for good is left to Verify, which shows it.
func (c *Connector) write(ctx context.Context, in *intent, moves []int, field string, value any) *connector.Outcome {
	var ok bool
	err := c.client.call(ctx, "stock.move", "write", moves, nil, &ok, arg{"vals", row{field: value}})
	if err == nil {
		return nil
	}
	if out := c.outcome(in.Order, err); out.Result == connector.InDoubt || out.Class == connector.Retryable {
		o := doubt(err)
		return &o
	}
	return nil
}

// discard deletes the drafts of a fact that was refused for good. While they are not known to be gone nobody may be told that nothing is there.
func (c *Connector) discard(ctx context.Context, s *setup, key string, in *intent, out connector.Outcome) connector.Outcome {
	there, err := c.byKey(ctx, s, in.Order, key)
	if err != nil {
		return doubt(err)
	}
	for i := range there {
		if there[i].State == "done" {
			return c.tie(ctx, in, &there[i], spare(there))
		}
	}
	if ids := spare(there); len(ids) > 0 {
		var ok bool
		err := c.client.call(ctx, "stock.picking", "unlink", ids, nil, &ok)
		r, no := refused(err)
		switch {
		case no && r.name != "odoo.exceptions.MissingError":
			out.NextStep += fmt.Sprintf(" Odoo did not let the draft %s be deleted (%s): delete it by hand.", there[0].Name, plain(r.says))
		case err != nil && !no:
			return doubt(err)
		}
	}
	return out
}

// Lookup finds by key what became of a posting, and finishes a draft that was left behind.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	fail := func(err error) (connector.Finding, error) {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	in, err := readIntent(raw)
	if err != nil {
		return fail(err)
	}
	asked := time.Now()
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	if in.State != "" {
		return c.lookUpState(ctx, s, in, asked)
	}
	there, err := c.byKey(ctx, s, in.Order, p.Fact.Key.String())
	if err != nil {
		return fail(err)
	}
	if len(there) == 0 {
		if c.early(in, asked) {
			return connector.Finding{Presence: connector.NotFoundYet, Reason: "No transfer has the key, and what Odoo reads from may lag behind."}, nil
		}
		return connector.Finding{Presence: connector.Absent, Reason: "No transfer has the key, and one that is made late is a draft, which has no effect."}, nil
	}
	out := c.finish(ctx, s, p.Fact.Key.String(), &in)
	switch {
	case out.Result == connector.Posted:
		return connector.Finding{Presence: connector.Found, Document: out.Document}, nil
	case out.Result == connector.Rejected && out.Class != connector.Retryable:
		return connector.Finding{Presence: connector.Absent, Reason: out.Reason, Rejection: &out}, nil
	}
	return connector.Finding{Presence: connector.NotFoundYet, Reason: out.Reason}, nil
}

// early reports that what was written since an intent was perhaps not readable yet when Odoo was asked.
func (c *Connector) early(in intent, asked time.Time) bool {
	return c.cfg.ReadDelay > 0 && asked.Sub(in.At) < c.cfg.ReadDelay+c.cfg.Timeout
}
