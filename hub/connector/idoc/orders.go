package idoc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// maxFile is the longest file that is read.
const maxFile = 64 << 20

// files lists a folder's XML files, oldest name first, and what tells one state of the folder from another.
func files(folder string) (paths []string, state string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, "", fmt.Errorf("read folder: %w", err)
	}
	sum := sha256.New()
	for _, e := range entries {
		if !strings.EqualFold(filepath.Ext(e.Name()), ".xml") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // taken away just now, or no file
		}
		fmt.Fprintf(sum, "%q %d %d\n", e.Name(), info.Size(), info.ModTime().UnixNano())
		paths = append(paths, filepath.Join(folder, e.Name()))
	}
	return paths, hex.EncodeToString(sum.Sum(nil)), nil
}

// readFile reads a file's IDocs.
func readFile(path string) ([]*node, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes, more than %d", info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := read(data)
	if err != nil {
		return nil, err
	}
	return root.all("IDOC"), nil
}

// version orders IDocs of one order: when it was made, then its number.
func version(idoc *node) string {
	for _, control := range idoc.all("EDI_DC40") {
		return fmt.Sprintf("%8s%6s%32s", control.get("CREDAT"), control.get("CRETIM"), control.get("DOCNUM"))
	}
	return ""
}

// ListChanged returns all orders of the folder whenever a file of it is new or another. A time of change would leave out files
// that were copied with the time they had elsewhere.
func (c *Connector) ListChanged(_ context.Context, cursor string) (connector.Changes, error) {
	paths, state, err := files(c.cfg.In)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	out := connector.Changes{Cursor: state}
	if state == cursor {
		return out, nil
	}
	newest, unreadable := c.newest(paths, state)
	out.Unreadable = unreadable
	for _, no := range slices.Sorted(keys(newest)) {
		o, err := c.workOrder(newest[no])
		if err != nil {
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: no, ERPKey: no, Reason: fmt.Sprintf("Order %s: %v.", no, err)})
			continue
		}
		out.Orders = append(out.Orders, o)
	}
	return out, nil
}

func keys(m map[string]*node) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// newest is the latest IDoc of each order. It is kept until the folder is another.
func (c *Connector) newest(paths []string, state string) (map[string]*node, []connector.Unreadable) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.orders != nil && c.state == state {
		return c.orders, nil
	}
	orders, versions := map[string]*node{}, map[string]string{}
	var unreadable []connector.Unreadable
	for _, path := range paths {
		idocs, err := readFile(path)
		if err != nil && !os.IsNotExist(err) {
			name := filepath.Base(path)
			unreadable = append(unreadable, connector.Unreadable{OrderNo: name, ERPKey: name, Reason: fmt.Sprintf("File %s cannot be read: %v.", name, err)})
		}
		for _, idoc := range idocs {
			for _, head := range idoc.all("E1AFKOL") {
				no := unpad(head.get("AUFNR"))
				if v := version(idoc); no != "" && v >= versions[no] {
					orders[no], versions[no] = head, v
				}
			}
		}
	}
	if len(unreadable) == 0 {
		c.orders, c.state = orders, state
	}
	return orders, unreadable
}

// Get reads one order.
func (c *Connector) Get(_ context.Context, no string) (object.WorkOrder, error) {
	paths, state, err := files(c.cfg.In)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", no, err)
	}
	newest, _ := c.newest(paths, state)
	head := newest[no]
	if head == nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q from folder in: %w", no, connector.ErrNotFound)
	}
	o, err := c.workOrder(head)
	if err != nil {
		return o, fmt.Errorf("get order %q: %w", no, err)
	}
	return o, nil
}

// states are SAP's system states, the strongest first.
var states = []struct {
	code  string
	state object.OrderState
}{
	{"I0076", object.OrderCancelled}, {"I0013", object.OrderCancelled}, {"I0046", object.OrderClosed}, {"I0045", object.OrderCompleted},
	{"I0043", object.OrderHeld}, {"I0009", object.OrderCompleted}, {"I0010", object.OrderInProgress}, {"I0002", object.OrderReleased},
	{"I0001", object.OrderPlanned},
}

func (c *Connector) workOrder(head *node) (object.WorkOrder, error) {
	site := head.get("WERKS")
	o := object.WorkOrder{OrderNo: unpad(head.get("AUFNR")), ERP: c.cfg.Name, ERPKey: head.get("AUFNR"), Site: cmp.Or(c.cfg.Sites[site], site),
		Item: unpad(head.get("MATNR_LONG", "MATNR")), ItemDescription: head.get("MATXT")}
	var has []string
	for _, s := range head.all("E1JSTKL") {
		if s.get("INACT") != "X" {
			has = append(has, s.get("STAT"))
		}
	}
	i := slices.IndexFunc(states, func(s struct {
		code  string
		state object.OrderState
	}) bool {
		return slices.Contains(has, s.code)
	})
	if i < 0 {
		return o, fmt.Errorf("none of its states %v is known", has)
	}
	o.State = states[i].state
	var err error
	if o.Quantity, err = c.quantity(head.get("GAMNG", "BMENGE"), head.get("GMEIN", "BMEINS")); err != nil {
		return o, err
	}
	for _, part := range head.all("E1AFPOL") {
		o.Lot = cmp.Or(o.Lot, part.get("CHARG"))
		if text := part.get("UEBTO"); text != "" && o.OverPercent == nil {
			v, err := decimal.NewFromString(text)
			if err != nil || v.IsNegative() || v.Exponent() > 20 || v.Exponent() < -20 {
				return o, fmt.Errorf("over-delivery tolerance %.40q (UEBTO) is not a percentage", text)
			}
			o.OverPercent = &v
		}
		o.OverUnlimited = o.OverUnlimited || part.get("UEBTK") == "X"
	}
	o.PlannedStart, o.PlannedEnd = c.instant(head.get("GSTRS"), head.get("GSUZS")), c.instant(head.get("GLTRS"), head.get("GLUZS"))
	for _, op := range head.under("E1AFVOL") {
		q, err := c.quantity(op.get("MGVRG"), op.get("MEINH"))
		if err != nil {
			return o, fmt.Errorf("operation %s: %w", op.get("VORNR"), err)
		}
		o.Operations = append(o.Operations, object.Operation{Operation: op.get("VORNR"), Description: op.get("LTXA1"), WorkCenter: op.get("ARBPL"), Quantity: q})
		for _, part := range op.all("E1RESBL") {
			if err := c.component(&o, part, op.get("VORNR")); err != nil {
				return o, err
			}
		}
	}
	for _, part := range head.all("E1RESBL") {
		if err := c.component(&o, part, ""); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (c *Connector) component(o *object.WorkOrder, part *node, operation string) error {
	if part.get("XLOEK") == "X" {
		return nil
	}
	item := unpad(part.get("MATNR_LONG", "MATNR"))
	q, err := c.quantity(part.get("BDMNG"), part.get("MEINS"))
	if err != nil {
		return fmt.Errorf("component %s: %w", item, err)
	}
	reservation := ""
	if r := part.get("RSNUM"); r != "" {
		reservation = r + "/" + part.get("RSPOS")
	}
	o.Components = append(o.Components, object.Component{Item: item, Required: q, Operation: operation, Reservation: reservation,
		Backflush: part.get("RGEKZ") == "X"})
	return nil
}

func (c *Connector) quantity(text, unit string) (object.Quantity, error) {
	ours, known := c.unit[unit]
	if !known {
		return object.Quantity{}, fmt.Errorf("unit %q of SAP is not mapped: add it to units", unit)
	}
	v, err := decimal.NewFromString(text)
	if err != nil || v.Exponent() > 20 || v.Exponent() < -20 {
		return object.Quantity{}, fmt.Errorf("%.40q is not a quantity", text)
	}
	return object.Quantity{Value: v, Unit: ours}, nil
}

// instant is zero for what is no date; SAP writes zeros for none.
func (c *Connector) instant(date, clock string) time.Time {
	t, err := time.ParseInLocation("20060102150405", date+cmp.Or(clock, "000000"), c.cfg.zone)
	if err != nil {
		return time.Time{}
	}
	return t
}

// unpad takes the zeros away that SAP puts before a number; other names stay.
func unpad(s string) string {
	if digits(s) {
		return cmp.Or(strings.TrimLeft(s, "0"), s)
	}
	return s
}

// pad puts zeros before a number.
func pad(s string, n int) string {
	if digits(s) && len(s) < n {
		return strings.Repeat("0", n-len(s)) + s
	}
	return s
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
