package files

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/b2mml"
)

// TakesOrders implements signal.OrderReceiver.
func (s *source) TakesOrders() bool { return s.config.WorkOrders != nil }

// HoldsOrders implements signal.OrderHolder.
func (s *source) HoldsOrders() bool { return s.config.WorkOrders != nil && s.config.WorkOrders.Holds }

// Deliver implements signal.OrderReceiver. The order is written as x.tmp beside its place, on the disk; then this agent notes
// that it is about to lay it down; then it gets its name in one step. After a crash the .tmp file tells whether that step was
// done, even when the receiver took the file away since.
func (s *source) Deliver(ctx context.Context, o signal.WorkOrder) error {
	w := s.config.WorkOrders
	if w == nil {
		return &signal.Refused{Reason: "source " + s.env.Source + " is not configured to take work orders"}
	}
	s.delivery.Lock()
	defer s.delivery.Unlock()
	if s.orders == nil {
		d, err := openDeliveries(filepath.Join(s.env.Dir, "delivered"))
		if err != nil {
			return err
		}
		s.orders = d
	}
	state := s.orders.state(o)
	if state == delivered {
		return nil
	}
	if latest := s.orders.latest[o.OrderNo]; latest > o.Revision && state != laying {
		return &signal.Refused{Reason: fmt.Sprintf("revision %d of order %q was delivered before revision %d", latest, o.OrderNo, o.Revision)}
	}
	content, err := w.text(o, time.Now().In(s.zone))
	if err != nil {
		return &signal.Refused{Reason: fmt.Sprintf("order %q cannot be written as %s: %v", o.OrderNo, w.Format, err)}
	}
	st, err := s.link.get(ctx)
	if err != nil {
		return err
	}
	err = s.lay(st, w, o, state, content)
	if st.lost(err) {
		s.link.drop(st)
	}
	s.showDelivery(w.Folder, err)
	if err != nil {
		return fmt.Errorf("lay order %q revision %d into %s: %w", o.OrderNo, o.Revision, w.Folder, err)
	}
	return nil
}

func (s *source) showDelivery(folder string, err error) {
	if err == nil {
		s.env.Reporter.Problem("work_orders", nil)
		return
	}
	s.env.Reporter.Problem("work_orders", &signal.Problem{Code: "order_not_written", Item: folder, Reason: "a work order cannot be laid into the folder: " + err.Error(),
		NextStep: "check the folder, the room on it and the agent's rights; it is tried again by itself"})
}

// lay brings an order from its state to delivered.
func (s *source) lay(st store, w *WorkOrders, o signal.WorkOrder, state deliveryState, content []byte) error {
	final := st.join(w.Folder, w.name(o))
	part := final + ".tmp"
	if state == laying {
		if _, err := st.stat(part); errors.Is(err, fs.ErrNotExist) {
			return s.orders.note(o, delivered) // the last step was done, and the receiver may have taken the file
		} else if err != nil {
			return err
		}
	} else {
		if _, err := st.stat(final); err == nil {
			return s.orders.note(o, delivered) // laid down by an agent whose folder was restored since
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := st.write(part, content); err != nil {
			return err
		}
		if err := st.sync(w.Folder); err != nil {
			return err
		}
		if err := s.orders.note(o, laying); err != nil {
			return err
		}
	}
	if err := st.rename(part, final); err != nil {
		return err
	}
	if err := st.sync(w.Folder); err != nil {
		return err
	}
	return s.orders.note(o, delivered)
}

// name is the file's: order and revision, with what a file system may not like written as %XX.
func (w *WorkOrders) name(o signal.WorkOrder) string {
	var b strings.Builder
	for i := range len(o.OrderNo) {
		c := o.OrderNo[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	ext := map[string]string{"b2mml": ".xml", "json": ".json", "csv": ".csv"}[w.Format]
	return fmt.Sprintf("%s_%d%s", b.String(), o.Revision, ext)
}

func (w *WorkOrders) text(o signal.WorkOrder, now time.Time) ([]byte, error) {
	switch w.Format {
	case "json":
		return json.MarshalIndent(orderJSON(o, now), "", "  ")
	case "csv":
		return w.csvText(o)
	}
	return b2mml.Write(o, w.B2MML, now)
}

func orderJSON(o signal.WorkOrder, now time.Time) map[string]any {
	m := map[string]any{"message_id": b2mml.MessageID(o.OrderNo, o.Revision), "order_no": o.OrderNo, "revision": o.Revision, "cancelled": o.Cancelled, "held": o.Held, "written_at": now.Format(time.RFC3339)}
	put := func(m map[string]any, key, text string) {
		if text != "" {
			m[key] = text
		}
	}
	quantity := func(m map[string]any, key string, n signal.Number) {
		if n != "" {
			m[key] = n
		}
	}
	for key, text := range map[string]string{"plant": o.Plant, "work_center": o.WorkCenter, "item": o.Item, "description": o.Description, "unit": o.Unit, "lot": o.Lot,
		"planned_start": timeText(o.PlannedStart, now), "planned_end": timeText(o.PlannedEnd, now)} {
		put(m, key, text)
	}
	quantity(m, "quantity", o.Quantity)
	if o.Priority != 0 {
		m["priority"] = o.Priority
	}
	operations, components := []any{}, []any{}
	for _, x := range o.Operations {
		p := map[string]any{"operation": x.Operation}
		put(p, "description", x.Description)
		put(p, "work_center", x.WorkCenter)
		put(p, "unit", x.Unit)
		quantity(p, "quantity", x.Quantity)
		operations = append(operations, p)
	}
	for _, x := range o.Components {
		p := map[string]any{"item": x.Item, "backflush": x.Backflush}
		for key, text := range map[string]string{"description": x.Description, "unit": x.Unit, "operation": x.Operation, "reservation": x.Reservation} {
			put(p, key, text)
		}
		quantity(p, "required", x.Required)
		components = append(components, p)
	}
	m["operations"], m["components"] = operations, components
	return m
}

// timeText writes a time in the zone of another one.
func timeText(t, like time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(like.Location()).Format(time.RFC3339)
}

// orderColumns are those that a CSV line of an order can have.
var orderColumns = []string{"message_id", "order_no", "revision", "action", "plant", "work_center", "item", "description", "quantity", "unit", "priority", "lot", "planned_start", "planned_end",
	"component", "component_description", "component_quantity", "component_unit", "component_operation", "reservation", "backflush"}

func (w *WorkOrders) csvText(o signal.WorkOrder) ([]byte, error) {
	columns := w.CSV.Columns
	if len(columns) == 0 {
		columns = orderColumns
	}
	var b bytes.Buffer
	out := csv.NewWriter(&b)
	out.Comma = rune(w.CSV.Delimiter[0])
	out.UseCRLF = true
	lines := o.Components
	if len(lines) == 0 {
		lines = []signal.Component{{}}
	}
	if err := out.Write(columns); err != nil {
		return nil, err
	}
	for _, c := range lines {
		fields := w.fields(o, c)
		row := make([]string, len(columns))
		for i, name := range columns {
			row[i] = fields[name]
		}
		if err := out.Write(row); err != nil {
			return nil, err
		}
	}
	out.Flush()
	return b.Bytes(), out.Error()
}

func (w *WorkOrders) fields(o signal.WorkOrder, c signal.Component) map[string]string {
	number := func(n signal.Number) string { return strings.Replace(string(n), ".", w.CSV.Decimal, 1) }
	zoned := time.Now().UTC()
	m := map[string]string{"message_id": b2mml.MessageID(o.OrderNo, o.Revision), "order_no": o.OrderNo, "revision": strconv.FormatInt(o.Revision, 10), "action": "RELEASE",
		"plant": o.Plant, "work_center": o.WorkCenter, "item": o.Item, "description": o.Description, "quantity": number(o.Quantity), "unit": o.Unit, "lot": o.Lot,
		"planned_start": timeText(o.PlannedStart, zoned), "planned_end": timeText(o.PlannedEnd, zoned), "component": c.Item, "component_description": c.Description,
		"component_quantity": number(c.Required), "component_unit": c.Unit, "component_operation": c.Operation, "reservation": c.Reservation, "backflush": ""}
	switch {
	case o.Cancelled:
		m["action"] = "CANCEL"
	case o.Held:
		m["action"] = "HOLD"
	}
	if o.Priority != 0 {
		m["priority"] = strconv.Itoa(int(o.Priority))
	}
	if c.Item != "" {
		m["backflush"] = strconv.FormatBool(c.Backflush)
	}
	return m
}

// deliveryState is how far an order's revision has come.
type deliveryState string

const (
	laying    deliveryState = "laying" // x.tmp is complete; while it is there, the last step was not done
	delivered deliveryState = "delivered"
)

// deliveries remembers what was laid down, in a file of lines that are synced one by one.
type deliveries struct {
	path   string
	states map[string]deliveryState // by message id
	latest map[string]int64         // by order
	lines  int
}

type deliveryLine struct {
	Order    string        `json:"order"`
	Revision int64         `json:"revision"`
	State    deliveryState `json:"state"`
}

// manyDeliveries is how many lines make the file worth being written anew.
const manyDeliveries = 200_000

func openDeliveries(path string) (*deliveries, error) {
	d := &deliveries{path: path, states: map[string]deliveryState{}, latest: map[string]int64{}}
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the list of delivered orders: %w", err)
	}
	whole := raw[:bytes.LastIndexByte(raw, '\n')+1]
	for text := range bytes.Lines(whole) {
		var l deliveryLine
		if json.Unmarshal(text, &l) == nil {
			d.apply(l)
		}
	}
	if len(whole) < len(raw) {
		if err := os.Truncate(path, int64(len(whole))); err != nil {
			return nil, fmt.Errorf("mend the list of delivered orders: %w", err)
		}
	}
	return d, d.shrink()
}

func (d *deliveries) apply(l deliveryLine) {
	d.lines++
	d.states[b2mml.MessageID(l.Order, l.Revision)] = l.State
	d.latest[l.Order] = max(d.latest[l.Order], l.Revision)
}

func (d *deliveries) state(o signal.WorkOrder) deliveryState {
	return d.states[b2mml.MessageID(o.OrderNo, o.Revision)]
}

// note makes a state durable.
func (d *deliveries) note(o signal.WorkOrder, state deliveryState) error {
	l := deliveryLine{o.OrderNo, o.Revision, state}
	if err := appendLine(d.path, l); err != nil {
		return fmt.Errorf("note the order's delivery: %w", err)
	}
	d.apply(l)
	return nil
}

func appendLine(path string, l any) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	end, err := f.Seek(0, 2)
	if err == nil {
		if _, err = f.Write(append(text, '\n')); err == nil {
			err = f.Sync()
		}
		if err != nil {
			f.Truncate(end)
		}
	}
	return errors.Join(err, f.Close())
}

// shrink keeps the latest revision of each order when the file has become long.
func (d *deliveries) shrink() error {
	if d.lines < manyDeliveries {
		return nil
	}
	var b bytes.Buffer
	states, lines := map[string]deliveryState{}, 0
	for order, revision := range d.latest {
		id := b2mml.MessageID(order, revision)
		text, err := json.Marshal(deliveryLine{order, revision, d.states[id]})
		if err != nil {
			return err
		}
		states[id] = d.states[id]
		lines++
		b.Write(append(text, '\n'))
	}
	if err := (local{}).write(d.path+".part", b.Bytes()); err != nil {
		return err
	}
	d.states, d.lines = states, lines
	return os.Rename(d.path+".part", d.path)
}
