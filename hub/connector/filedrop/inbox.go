package filedrop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// record is the latest that came of an order. Seq grows with each record that is kept; it is the cursor.
type record struct {
	Seq   int64           `json:"seq"`
	Order string          `json:"order"`
	File  string          `json:"file"`
	Row   json.RawMessage `json:"row"`

	row any
}

// inbox takes files with orders. What it took stands in the folder state, one file for each order and one for each content.
type inbox struct {
	c      *Connector
	cfg    Orders
	zone   *time.Location
	at     generic.Expr
	orders *generic.Orders

	mu     sync.Mutex
	loaded bool
	seq    int64
	latest map[string]*record
	sizes  map[string]watch // files that are watched until they stay the same
	// troubles are files that could not be taken, to be told with the next page. Refused ones have a reason beside them as well.
	troubles []connector.Unreadable
}

// watch is how a file was first seen, and when.
type watch struct {
	entry
	since time.Time
}

func newInbox(c *Connector, zone *time.Location) (*inbox, error) {
	b := &inbox{c: c, cfg: *c.cfg.Orders, zone: zone, latest: map[string]*record{}, sizes: map[string]watch{}}
	var err error
	if b.at, err = generic.Compile(b.cfg.At, "body"); err != nil {
		return nil, wrong("orders.at: %w", err)
	}
	b.orders, err = generic.NewOrders(b.cfg.Map, generic.OrderConfig{ERP: c.cfg.Name, Site: c.cfg.Site, States: c.cfg.States, Units: c.units, Zone: zone})
	if err != nil {
		return nil, wrong("orders.map: %w", err)
	}
	return b, nil
}

// changes takes what has come, and returns a page of orders behind the cursor.
func (b *inbox) changes(from string) (out connector.Changes, err error) {
	since := int64(0)
	if from != "" {
		if since, err = strconv.ParseInt(from, 10, 64); err != nil || since < 0 {
			return out, fmt.Errorf("cursor %.40q is not one of this connector; clear it to read all orders again", from)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(); err != nil {
		return out, err
	}
	if since > b.seq { // the folder state was put back, or made anew
		since = 0
	}
	var all []*record
	for _, r := range b.latest {
		if r.Seq > since {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(x, y *record) int { return int(x.Seq - y.Seq) })
	if len(all) > b.cfg.PageSize {
		all, out.More = all[:b.cfg.PageSize], true
	}
	out.Unreadable, b.troubles = b.troubles, nil
	for _, r := range all {
		since = r.Seq
		w, err := b.orders.Read(r.row)
		if err != nil {
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: r.Order, ERPKey: r.Order, Reason: fmt.Sprintf("Order %s of file %s: %v.", r.Order, r.File, err)})
			continue
		}
		out.Orders = append(out.Orders, w)
	}
	out.Cursor = strconv.FormatInt(since, 10)
	return out, nil
}

// order is the latest that came of one.
func (b *inbox) order(no string) (object.WorkOrder, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(); err != nil {
		return object.WorkOrder{}, err
	}
	r := b.latest[no]
	if r == nil {
		return object.WorkOrder{}, connector.ErrNotFound
	}
	w, err := b.orders.Read(r.row)
	if err != nil {
		return w, fmt.Errorf("file %s: %w", r.File, err)
	}
	return w, nil
}

// load reads the folder state, once.
func (b *inbox) load() error {
	if b.loaded {
		return nil
	}
	if err := b.c.folders(); err != nil {
		return err
	}
	for _, folder := range []string{b.stateOf("orders"), b.stateOf("taken")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("make folder %s: %w", folder, err)
		}
	}
	all, err := b.c.local.list(b.stateOf("orders"))
	if err != nil {
		return err
	}
	for _, e := range all {
		if !strings.HasSuffix(e.name, ".json") {
			continue
		}
		name := filepath.Join(b.stateOf("orders"), e.name)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		r := &record{}
		if json.Unmarshal(text, r) == nil {
			r.row, _ = generic.ReadJSON(r.Row)
		}
		if r.row == nil || r.Seq <= 0 || r.Order == "" {
			return fmt.Errorf("read %s: it is damaged: put it back from a backup, or delete it and let its order be sent again", name)
		}
		b.latest[r.Order], b.seq = r, max(b.seq, r.Seq)
	}
	b.loaded = true
	return nil
}

func (b *inbox) stateOf(what string) string { return filepath.Join(b.cfg.State, what) }

// take reads the files that are whole, oldest first.
func (b *inbox) take() error {
	if err := b.load(); err != nil {
		return err
	}
	all, err := b.c.store.list(b.cfg.Folder)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(x, y entry) int {
		if n := x.at.Compare(y.at); n != 0 {
			return n
		}
		return strings.Compare(x.name, y.name)
	})
	there := map[string]bool{}
	for _, e := range all {
		there[e.name] = true
	}
	watched := b.sizes
	b.sizes = map[string]watch{}
	for _, e := range all {
		if fits, _ := path.Match(b.cfg.Files, e.name); !fits || !b.whole(e, watched, there) {
			continue
		}
		err := b.takeFile(e, there)
		switch {
		case errors.Is(err, fs.ErrPermission): // it stops no neighbour
			b.trouble(e.name, err.Error()+": give the hub's account the right to read it and to move it away")
		case err != nil:
			return fmt.Errorf("take file %s: %w", e.name, err)
		}
	}
	return nil
}

// trouble notes a file that cannot be taken.
func (b *inbox) trouble(file, reason string) {
	x := connector.Unreadable{OrderNo: file, ERPKey: file, Reason: fmt.Sprintf("File %s: %s.", file, strings.TrimRight(reason, "."))}
	if !slices.Contains(b.troubles, x) {
		b.troubles = append(b.troubles, x)
	}
}

// whole reports that a file is written to its end.
func (b *inbox) whole(e entry, watched map[string]watch, there map[string]bool) bool {
	switch b.cfg.Ready {
	case "marker":
		return !strings.HasSuffix(e.name, b.cfg.Marker) && there[e.name+b.cfg.Marker]
	case "stable":
		w, seen := watched[e.name]
		if !seen || w.size != e.size || !w.at.Equal(e.at) {
			w = watch{e, time.Now()}
		}
		b.sizes[e.name] = w
		return time.Since(w.since) >= b.cfg.StableFor
	}
	return !strings.HasSuffix(e.name, ".tmp") && !strings.HasPrefix(e.name, ".")
}

// takeFile keeps a file's records and then moves it away. A crash in between takes it again, which changes nothing.
func (b *inbox) takeFile(e entry, there map[string]bool) error {
	data, err := b.c.store.read(b.c.store.join(b.cfg.Folder, e.name))
	var large *tooLarge
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.As(err, &large):
		return b.refuse(e, large.Error(), there)
	case err != nil:
		return err
	}
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	mark := filepath.Join(b.stateOf("taken"), hash)
	if again, err := b.c.local.exists(mark); err != nil {
		return err
	} else if again {
		return b.move(e, b.cfg.Archive, there)
	}
	rows, err := b.decode(data)
	if err != nil {
		return b.refuse(e, err.Error(), there)
	}
	for i, row := range rows {
		if b.orders.Number(row) == "" {
			return b.refuse(e, fmt.Sprintf("record %d has no order number: correct the export, or orders.map.order_no", i+1), there)
		}
	}
	for _, row := range rows {
		if err := b.keep(row, e.name); err != nil {
			return err
		}
	}
	if err := b.c.local.write(mark, []byte(e.name+"\n")); err != nil {
		return err
	}
	return b.move(e, b.cfg.Archive, there)
}

// keep makes a record the latest of its order, unless it is the same or older.
func (b *inbox) keep(row any, file string) error {
	no := b.orders.Number(row)
	text, err := generic.JSON(row)
	if err != nil {
		return err
	}
	before := b.latest[no]
	if before != nil && (bytes.Equal(before.Row, text) || b.older(row, before.row)) {
		return nil
	}
	r := &record{Seq: b.seq + 1, Order: no, File: file, Row: text, row: row}
	line, err := generic.JSON(r)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(no))
	name := filepath.Join(b.stateOf("orders"), hex.EncodeToString(sum[:16]))
	if err := b.c.local.write(name+".new", line); err != nil {
		return err
	}
	if err := b.c.local.rename(name+".new", name+".json"); err != nil {
		return err
	}
	b.seq, b.latest[no] = r.Seq, r
	return nil
}

// older reports that a record says of itself that it was made before another.
func (b *inbox) older(row, than any) bool {
	x, errX := b.orders.Changed(row)
	y, errY := b.orders.Changed(than)
	if errX != nil || errY != nil || x == nil || y == nil {
		return false
	}
	m, errM := generic.Decimal(x)
	n, errN := generic.Decimal(y)
	if errM == nil && errN == nil {
		return m.LessThan(n)
	}
	s, _, errS := generic.ReadTime(x, b.zone)
	t, _, errT := generic.ReadTime(y, b.zone)
	return errS == nil && errT == nil && s.Before(t)
}

// refuse moves a file to the folder errors, behind a file that says why.
func (b *inbox) refuse(e entry, reason string, there map[string]bool) error {
	b.trouble(e.name, reason)
	text := fmt.Sprintf("File: %s\nReason: %s.\nNext step: correct what writes it, then put it into %s again under another name.\n", e.name, strings.TrimRight(reason, "."), b.cfg.Folder)
	if err := b.c.store.write(b.c.store.join(b.cfg.Errors, e.name+".reason.txt"), []byte(text)); err != nil {
		return err
	}
	return b.move(e, b.cfg.Errors, there)
}

// move puts a file into another folder, under a name of its own, and its marker with it.
func (b *inbox) move(e entry, folder string, there map[string]bool) error {
	st := b.c.store
	names := []string{e.name}
	if b.cfg.Ready == "marker" && there[e.name+b.cfg.Marker] {
		names = append(names, e.name+b.cfg.Marker)
	}
	for _, name := range names {
		to := name
		if taken, err := st.exists(st.join(folder, to)); err != nil {
			return err
		} else if taken {
			to = time.Now().UTC().Format("20060102T150405.000000000") + "-" + name
		}
		if err := st.rename(st.join(b.cfg.Folder, name), st.join(folder, to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// decode reads a file's records.
func (b *inbox) decode(data []byte) ([]any, error) {
	switch b.cfg.Format {
	case "csv":
		rows, err := readCSV(data, b.cfg.Delimiter)
		if err != nil {
			return nil, fmt.Errorf("it is no CSV: %w", err)
		}
		return rows, nil
	case "b2mml":
		return schedules(data)
	}
	body, err := generic.ReadJSON(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	v, err := b.at.Value(map[string]any{"body": body})
	if err != nil {
		return nil, fmt.Errorf("orders.at: %w", err)
	}
	if rows, ok := v.([]any); ok {
		return rows, nil
	}
	return []any{v}, nil
}
