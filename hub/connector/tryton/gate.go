package tryton

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/linekeeper/linekeeper/proto/factkey"
)

// A gate is what a new object is tied to. Tryton keeps no key unique, and a new purchase has no record before it that its making
// could be compared with. So each making also touches a gate, in the same transaction: a cancelled stock move of nothing, which
// is there for its timestamp only. Of two makings that read the gate before either, Tryton takes one back, and one that arrives
// late finds the gate touched. A key always goes through the same gate; there are several so that keys seldom meet.
const gates = 8

const gateNote = "Linekeeper gate %d: ties the making of documents together; do not delete"

// gate is a move, and its timestamp when it was read.
type gate struct {
	Move      int    `json:"move"`
	Timestamp string `json:"timestamp"`
}

// gatekeeper knows the gates that were found.
type gatekeeper struct {
	mu    sync.Mutex
	moves map[int][]gateRow // by gate
}

// gateRow is a move as it is read. Born tells it from another one that has its id since Tryton's database was put back to a copy.
type gateRow struct {
	ID    int             `json:"id"`
	Stamp string          `json:"_timestamp"`
	Born  json.RawMessage `json:"create_date"`
}

// gate reads the gates of a key; it makes one where there is none. Two hubs that make the first at one time both go on with both
// of them if either can see the other's: whoever looks last sees both, and touches both.
func (c *Connector) gate(ctx context.Context, key factkey.Key) ([]gate, error) {
	n := int(key[0]) % gates
	c.gates.mu.Lock()
	defer c.gates.mu.Unlock()
	known := c.gates.moves[n]
	rows, err := c.readGate(ctx, n, known)
	// Somebody deleted it, or the database is another one now: it is found or made again.
	if k := kindOf(err); len(known) > 0 && (err != nil && (k == refused || k == denied) || err == nil && !slices.EqualFunc(rows, known, sameGate)) {
		rows, err = c.readGate(ctx, n, nil)
	}
	if err != nil {
		return nil, err
	}
	c.gates.moves[n] = rows
	out := make([]gate, len(rows))
	for i, r := range rows {
		out[i] = gate{r.ID, r.Stamp}
	}
	return out, nil
}

func sameGate(a, b gateRow) bool { return a.ID == b.ID && bytes.Equal(a.Born, b.Born) }

// readGate reads the moves of a gate, which it finds or makes where none are known.
func (c *Connector) readGate(ctx context.Context, n int, known []gateRow) (rows []gateRow, err error) {
	var moves []int
	for _, r := range known {
		moves = append(moves, r.ID)
	}
	if len(moves) == 0 {
		moves, err = c.findGate(ctx, n)
		if err == nil && len(moves) == 0 {
			if err = c.makeGate(ctx, n); err == nil {
				moves, err = c.findGate(ctx, n)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	err = c.client.call(ctx, &rows, nil, "stock.move.read", moves, []string{"_timestamp", "create_date"})
	slices.SortFunc(rows, func(a, b gateRow) int { return a.ID - b.ID })
	return rows, err
}

func (c *Connector) findGate(ctx context.Context, n int) ([]int, error) {
	var rows []struct{ Resource string }
	err := c.client.call(ctx, &rows, nil, "ir.note.search_read", []any{[]any{"message", "=", fmt.Sprintf(gateNote, n)}}, 0, nil, [][]string{{"id", "ASC"}}, []string{"resource"})
	if err != nil {
		return nil, err
	}
	var moves []int
	for _, r := range rows {
		if id, err := strconv.Atoi(strings.TrimPrefix(r.Resource, "stock.move,")); err == nil {
			moves = append(moves, id)
		}
	}
	if len(moves) == 0 {
		return nil, nil
	}
	var there []int
	err = c.client.call(ctx, &there, nil, "stock.move.search", []any{idsIn(moves)}, 0, nil, [][]string{{"id", "ASC"}})
	return there, err
}

func (c *Connector) makeGate(ctx context.Context, n int) error {
	var products []struct {
		ID   int `json:"id"`
		Unit int `json:"default_uom"`
	}
	err := c.client.call(ctx, &products, nil, "product.product.search_read", []any{[]any{"type", "=", "goods"}}, 0, 1, [][]string{{"id", "ASC"}}, []string{"default_uom"})
	if err != nil {
		return err
	}
	house, early, err := c.anyWarehouse(ctx)
	if err != nil {
		return err
	}
	if len(products) == 0 || early {
		return &callError{kind: refused, method: "stock.move.create", text: "there is no item or no warehouse yet"}
	}
	company, err := c.client.company(ctx)
	if err != nil {
		return err
	}
	var made []int
	err = c.client.call(ctx, &made, nil, "stock.move.create", []any{map[string]any{"product": products[0].ID, "uom": products[0].Unit, "quantity": 0,
		"from_location": house.Storage.ID, "to_location": house.input(), "company": company}})
	if err != nil {
		return err
	}
	if err := c.client.call(ctx, nil, nil, "stock.move.cancel", made); err != nil {
		return err
	}
	row := map[string]any{"resource": ref{"stock.move", made[0]}.String(), "message": fmt.Sprintf(gateNote, n)}
	return c.client.call(ctx, nil, nil, "ir.note.create", []any{row})
}

// anyWarehouse is the first warehouse.
func (c *Connector) anyWarehouse(ctx context.Context) (w warehouse, none bool, err error) {
	var ids []int
	err = c.client.call(ctx, &ids, nil, "stock.location.search", []any{[]any{"type", "=", "warehouse"}}, 0, 1, [][]string{{"id", "ASC"}})
	if err != nil || len(ids) == 0 {
		return w, true, err
	}
	w, err = c.master.warehouseOf(ctx, ids[0])
	return w, false, err
}

// touched is what writes a gate along with whatever it is nested in.
func touched(gs []gate) []any {
	var out []any
	for _, g := range gs {
		out = append(out, []any{"write", []int{g.Move}, map[string]any{}})
	}
	return out
}

// stamps of gates, for the context of a call.
func stamps(gs []gate) map[string]string {
	all := map[string]string{}
	for _, g := range gs {
		all[ref{"stock.move", g.Move}.String()] = g.Timestamp
	}
	return all
}

// closeGate touches the gates, so that a making which is still on its way finds them changed; false when they were changed since
// they were read.
func (c *Connector) closeGate(ctx context.Context, gs []gate) (bool, error) {
	ids := make([]int, len(gs))
	for i, g := range gs {
		ids[i] = g.Move
	}
	err := c.client.call(ctx, nil, map[string]any{"_timestamp": stamps(gs)}, "stock.move.write", ids, map[string]any{})
	if kindOf(err) == outdated && err != nil {
		return false, nil
	}
	return err == nil, err
}
