package idoc

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/connector/folder"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// intent is what Prepare found for the IDoc, and when.
type intent struct {
	At time.Time `json:"at"`
	// Try counts the fact's IDocs from 1: SAP has refused the ones before for good.
	Try int `json:"try"`
	// Plant, Operation, Unit and Reservation are SAP's own.
	Plant       string `json:"plant"`
	Operation   string `json:"operation,omitempty"`
	Unit        string `json:"unit"`
	Reservation string `json:"reservation,omitempty"`
}

// docnum is the number of a fact's IDoc, 16 digits.
func docnum(key factkey.Key, try int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "idoc %s %d", key, try))
	return fmt.Sprintf("%016d", binary.BigEndian.Uint64(sum[:])%9_999_999_999_999_999+1)
}

// answer is what SAP says of one IDoc.
type answer struct{ docnum, status, code, text, number string }

// say returns the strongest answer to an IDoc: booked, then refused for good, then the last one. Nil when there is none.
func (c *Connector) say(docnum string) (*answer, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	entries, err := os.ReadDir(c.cfg.Answers)
	if err != nil {
		return nil, fmt.Errorf("read folder of answers: %w", err)
	}
	var found *answer
	rank := map[string]int{"53": 2, "68": 1}
	kept := make(map[string][]answer, len(entries)) // what was taken away is forgotten
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.EqualFold(filepath.Ext(e.Name()), ".xml") {
			continue
		}
		id := fmt.Sprintf("%q %d %d", e.Name(), info.Size(), info.ModTime().UnixNano())
		all, known := c.answers[id]
		if !known {
			idocs, err := readFile(filepath.Join(c.cfg.Answers, e.Name()))
			if err != nil {
				continue // it may be on its way: it is read again
			}
			all = answersOf(idocs)
		}
		kept[id] = all
		for i, a := range all {
			if a.docnum == docnum && (found == nil || rank[a.status] >= rank[found.status]) {
				found = &all[i]
			}
		}
	}
	c.answers = kept
	return found, nil
}

func answersOf(idocs []*node) (all []answer) {
	for _, idoc := range idocs {
		for _, s := range idoc.under("E1STATE") {
			a := answer{docnum: pad(s.get("DOCNUM"), 16), status: s.get("STATUS"), code: s.get("STACOD"), text: s.get("STATXT")}
			for i, v := range []string{s.get("STAPA1_LNG", "STAPA1"), s.get("STAPA2_LNG", "STAPA2"), s.get("STAPA3_LNG", "STAPA3"), s.get("STAPA4_LNG", "STAPA4")} {
				a.text = strings.Replace(a.text, fmt.Sprintf("&%d", i+1), v, 1)
				a.text = strings.Replace(a.text, "&", v, min(1, len(v)))
			}
			for _, o := range s.under("E1PRTOB") {
				a.number = cmp.Or(a.number, o.get("OBJKEY", "DOCNUM"))
			}
			all = append(all, a)
		}
	}
	return all
}

func (c *Connector) place(folder, docnum string) string { return filepath.Join(folder, docnum+".xml") }

// temporary is the name of a file that is not handed over yet.
func (c *Connector) temporary(docnum string) string { return filepath.Join(c.cfg.Out, docnum+".tmp") }

// Prepare finds the try that counts, what became of it, and what the IDoc needs of the order.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if early := unsuitable(p); early != nil {
		return nil, early, nil
	}
	if _, early := moveType(p); early != nil {
		return nil, early, nil
	}
	in := intent{At: time.Now(), Try: 1}
	early, err := c.prepare(ctx, p, &in)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	b, err := json.Marshal(in)
	return b, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	for ; ; in.Try++ {
		number := docnum(p.Fact.Key, in.Try)
		a, err := c.say(number)
		switch {
		case err != nil:
			return nil, err
		case a != nil && a.status == "53":
			return &connector.Outcome{Result: connector.Posted, Document: document(number, a)}, nil
		case a != nil && a.status == "68":
			continue
		}
		over, err := c.handedOver(number)
		if err != nil {
			return nil, err
		}
		if over {
			return reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself. SAP lists the IDoc in BD87.", "%s", c.waiting(p, number, a)), nil
		}
		return c.misfit(ctx, p, in)
	}
}

// waiting is a sentence of an IDoc that is not decided.
func (c *Connector) waiting(p connector.Posting, number string, a *answer) string {
	if a == nil {
		return fmt.Sprintf("SAP has not answered IDoc %s of order %s yet.", number, orderNo(p))
	}
	return fmt.Sprintf("IDoc %s of order %s is in status %s: %s. Process it in SAP, or end it with status 68.", number, orderNo(p), a.status, strings.TrimRight(a.text, "."))
}

// handedOver reports that an IDoc was given to SAP: its copy is there, and the file is no more beside its place.
func (c *Connector) handedOver(number string) (bool, error) {
	sent, err := folder.Exists(c.place(c.cfg.Sent, number))
	if err != nil || !sent {
		return false, err
	}
	waits, err := folder.Exists(c.temporary(number))
	return !waits, err
}

func document(number string, a *answer) connector.Document {
	return connector.Document{Number: cmp.Or(a.number, number), ID: number}
}

// rejection is SAP's last word.
func rejection(p connector.Posting, number string, a *answer) *connector.Outcome {
	return reject(connector.Correctable, cmp.Or(a.code, "IDOC_68"), "Mend in SAP what it says, then replay the fact: it gets a new IDoc.",
		"SAP refused IDoc %s of order %s: %s.", number, orderNo(p), strings.TrimRight(cmp.Or(a.text, "no reason given"), "."))
}

func readIntent(raw []byte) (in intent, err error) {
	if err = json.Unmarshal(raw, &in); err == nil && (in.Try < 1 || in.At.IsZero()) {
		err = errors.New("it is not one of this connector")
	}
	if err != nil {
		err = fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, err
}

// Post hands the IDoc over and waits a little for SAP's answer.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	if early := unsuitable(p); early != nil {
		return *early
	}
	in, err := readIntent(raw)
	if err != nil {
		return *reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared: %v.", p.Fact.Key, err)
	}
	number, data := docnum(p.Fact.Key, in.Try), c.build(p, in)
	if out := c.put(p, number, data); out != nil {
		return *out
	}
	exchange.Note(ctx, "IDoc", c.place(c.cfg.Out, number), data, "handed over", nil)
	deadline := time.Now().Add(c.cfg.Wait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		a, err := c.say(number)
		switch {
		case err == nil && a != nil && a.status == "53":
			return connector.Outcome{Result: connector.Posted, Document: document(number, a)}
		case err == nil && a != nil && a.status == "68":
			return *rejection(p, number, a)
		case time.Now().After(deadline) || ctx.Err() != nil:
			return connector.Outcome{Result: connector.InDoubt, Reason: c.waiting(p, number, a)}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// put brings the IDoc to its place. Nil means that it is handed over, now or before.
func (c *Connector) put(p connector.Posting, number string, data []byte) *connector.Outcome {
	c.putting.Lock()
	defer c.putting.Unlock()
	failed := func(err error) *connector.Outcome { // before the last step SAP sees nothing
		return reject(connector.Retryable, "FOLDER", "Look at the folder's rights and space: it is tried again by itself.",
			"The IDoc of order %s cannot be written: %v.", orderNo(p), err)
	}
	copied := c.place(c.cfg.Sent, number)
	before, err := os.ReadFile(copied)
	switch {
	case err == nil && !bytes.Contains(before, []byte("<SERIAL>"+p.Fact.Key.String()+"</SERIAL>")):
		return reject(connector.Fatal, "NUMBER_TAKEN", "Do it in SAP by hand, then accept the fact with its document.",
			"IDoc number %s of order %s belongs to another fact already.", number, orderNo(p))
	case err == nil:
		if over, err := c.handedOver(number); err == nil && over {
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return failed(err)
	default:
		if err := folder.Write(c.temporary(number), data); err != nil {
			return failed(err)
		}
		if err := folder.Write(copied+".new", data); err != nil {
			return failed(err)
		}
		if err := folder.Rename(copied+".new", copied); err != nil {
			return failed(err)
		}
	}
	if err := folder.Rename(c.temporary(number), c.place(c.cfg.Out, number)); err != nil {
		return &connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("Whether IDoc %s of order %s was handed over is unknown: %v.", number, orderNo(p), err)}
	}
	return nil
}

// Lookup asks what SAP says, and hands over what was not yet.
func (c *Connector) Lookup(_ context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	number, asked := docnum(p.Fact.Key, in.Try), time.Now()
	a, err := c.say(number)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	switch {
	case a != nil && a.status == "53":
		return connector.Finding{Presence: connector.Found, Document: document(number, a)}, nil
	case a != nil && a.status == "68":
		out := rejection(p, number, a)
		return connector.Finding{Presence: connector.Absent, Reason: out.Reason, Rejection: out}, nil
	}
	over, err := c.handedOver(number)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	switch {
	case !over && a == nil:
		return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("IDoc %s was not handed over.", number)}, nil
	case a == nil && asked.Sub(in.At) > c.cfg.AnswerWithin:
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("SAP has not answered IDoc %s of order %s within %s: look for it in BD87.",
			number, orderNo(p), c.cfg.AnswerWithin)}, nil
	}
	return connector.Finding{Presence: connector.NotFoundYet, Reason: c.waiting(p, number, a)}, nil
}

// Verify compares the IDoc that was sent with the posting, and asks SAP's word again.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	a, err := c.say(doc.ID)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	if a == nil || a.status != "53" {
		return connector.Verification{Difference: fmt.Sprintf("SAP does not say any more that IDoc %s is booked.", doc.ID)}, nil
	}
	data, err := os.ReadFile(c.place(c.cfg.Sent, doc.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return connector.Verification{Difference: fmt.Sprintf("The copy of IDoc %s is missing in the folder sent.", doc.ID)}, nil
	}
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	root, err := read(data)
	if err != nil {
		return connector.Verification{Difference: fmt.Sprintf("The copy of IDoc %s cannot be read: %v.", doc.ID, err)}, nil
	}
	for _, want := range c.essence(p) {
		found := root.under(want.name)
		if len(found) != 1 || found[0].text != want.text {
			return connector.Verification{Difference: fmt.Sprintf("IDoc %s does not have %s %q of the fact.", doc.ID, want.name, want.text)}, nil
		}
	}
	return connector.Verification{Matches: true}, nil
}

// essence is what an IDoc must carry of a posting, whatever else it carries.
func (c *Connector) essence(p connector.Posting) []*node {
	all := []*node{field("SERIAL", p.Fact.Key.String())}
	if x := p.Fact.Confirmation; x != nil {
		return append(all, field("AUFNR", pad(orderNo(p), 12)), field("LMNGA", x.Yield.StringFixed(scale)), field("XMNGA", x.Scrap.StringFixed(scale)),
			field("RMNGA", x.Rework.StringFixed(scale)), field("MEINH", c.back[x.Unit]), field("BUDAT", p.PostingDate.Format("20060102")))
	}
	x := p.Fact.Consumption
	kind, _ := moveType(p)
	return append(all, field("ORDERID", pad(orderNo(p), 12)), c.material(x.Item), field("MOVE_TYPE", kind),
		field("ENTRY_QNT", x.Quantity.Value.StringFixed(scale)), field("ENTRY_UOM", c.back[x.Quantity.Unit]), field("PSTNG_DATE", p.PostingDate.Format("20060102")))
}

// material is an item in the field that has room for it.
func (c *Connector) material(item string) *node {
	if c.cfg.MaterialLength > 18 {
		return field("MATERIAL_LONG", pad(item, c.cfg.MaterialLength))
	}
	return field("MATERIAL", pad(item, c.cfg.MaterialLength))
}

// moveType is SAP's movement type of a consumption: what a mapping says, else its own. Prepare refuses what the mapping does not know.
func moveType(p connector.Posting) (string, *connector.Outcome) {
	if p.Fact.Consumption == nil {
		return "", nil
	}
	own := "261"
	if p.Fact.Consumption.Movement == object.Return {
		own = "262"
	}
	return p.MovementType(p.Fact.Moves(), own)
}

// build makes the IDoc. The same fact and intent give the same bytes.
func (c *Connector) build(p connector.Posting, in intent) []byte {
	at := p.Fact.RecordedAt.In(c.cfg.zone)
	day, clock := at.Format("20060102"), at.Format("150405")
	kind, message := c.cfg.Movement, "MBGMCR"
	if p.Fact.Confirmation != nil {
		kind, message = c.cfg.Confirmation, c.cfg.ConfirmationMessage
	}
	set := func(name string) *node { return field(name, c.cfg.Control[name]) }
	control := seg("EDI_DC40", field("TABNAM", "EDI_DC40"), set("MANDT"), field("DOCNUM", docnum(p.Fact.Key, in.Try)), field("DIRECT", "2"), field("IDOCTYP", kind),
		field("MESTYP", message), set("SNDPOR"), set("SNDPRT"), set("SNDPRN"), set("RCVPOR"), set("RCVPRT"), set("RCVPRN"),
		field("CREDAT", day), field("CRETIM", clock), field("SERIAL", p.Fact.Key.String()))
	posted := p.PostingDate.Format("20060102")
	if x := p.Fact.Confirmation; x != nil {
		record, reason := c.cfg.Partial, ""
		if x.Final {
			record = c.cfg.Final
		}
		if !x.Scrap.IsZero() {
			reason = c.cfg.ScrapReasons[x.ScrapReason]
		}
		return write(kind, control, seg(c.cfg.ConfirmationSegment, field("SATZA", record), field("ERDAT", day), field("ERTIM", clock), field("BUDAT", posted),
			field("WERKS", in.Plant), field("AUFNR", pad(orderNo(p), 12)), field("VORNR", pad(in.Operation, 4)), field("LMNGA", x.Yield.StringFixed(scale)),
			field("XMNGA", x.Scrap.StringFixed(scale)), field("RMNGA", x.Rework.StringFixed(scale)), field("MEINH", in.Unit), field("GRUND", reason)))
	}
	x := p.Fact.Consumption
	move, _ := moveType(p)
	reservation, item, _ := strings.Cut(in.Reservation, "/")
	return write(kind, control, seg("E1MBGMCR",
		seg("E1BP2017_GM_HEAD_01", field("PSTNG_DATE", posted), field("DOC_DATE", day), field("REF_DOC_NO", p.Fact.Key.String())),
		seg("E1BP2017_GM_CODE", field("GM_CODE", "03")),
		seg("E1BP2017_GM_ITEM_CREATE", c.material(x.Item), field("PLANT", in.Plant), field("STGE_LOC", c.cfg.StorageLocations[in.Plant]),
			field("BATCH", x.Lot), field("MOVE_TYPE", move), field("ENTRY_QNT", x.Quantity.Value.StringFixed(scale)), field("ENTRY_UOM", in.Unit),
			field("ORDERID", pad(orderNo(p), 12)), field("RESERV_NO", reservation), field("RES_ITEM", item))))
}
