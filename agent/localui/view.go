package localui

import (
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

// most is how many rows of a list the page shows; the JSON has all.
const most = 50

// view is what the page's template writes: words, no decisions.
type view struct {
	at   time.Time
	zone *time.Location

	Assets  string // version of the assets
	Admin   bool   // there is a part for admins
	Title   string
	Plant   string
	Agent   string
	Version string
	Clock   instant
	ZoneTag string
	Started instant
	Uptime  string
	Config  string
	Data    string
	Contact string

	Banner     banner
	Safe       safe
	Sources    []sourceView
	Uplink     uplinkView
	Orders     []orderView
	Receipts   []receiptView
	Quarantine []entryView
	Ledger     []ledgerView

	MoreOrders, MoreReceipts, MoreQuarantine int
	Rejected, InDoubt                        int // receipts
	Remainders                               int
}

// badge is a state as shape, word and colour. Tone is one of ok, busy, warn, off, bad, idle.
type badge struct{ Tone, Word string }

type banner struct {
	badge
	Icon   string
	Since  instant
	For    string
	Reason string
	Next   string
	Also   []status.Finding
}

type safe struct {
	Tone, Answer, Text string
	Tiles              []tile
	Percent            int
	Telemetry          string
}

type tile struct {
	Label, Value, Note, Tone string
	Meter                    bool
}

type sourceView struct {
	badge
	Name, Kind, Reason string
	State              string
	Since              instant
	For                string
	Data               string
	DataAt             instant
	Signals            string
	Problems           []status.Problem
}

type uplinkView struct {
	badge
	Hub, Reason, Code, Next string
	Since                   instant
	For                     string
	LastAck                 instant
	LastAckAgo              string
	NextTry                 string
	Skew                    string
	Way                     string // said only when it is not the direct one
}

type orderView struct {
	badge
	status.Order
	Pieces string // the unit as people say it
	Steps  []stepView
}

type stepView struct {
	status.OrderStep
	When    instant
	Tone    string
	ShowRev bool
}

type receiptView struct {
	badge
	status.Receipt
	When, Stored instant
}

type entryView struct {
	status.Entry
	When instant
}

type ledgerView struct {
	status.Ledger
	Pieces   string
	Open     string
	OpenTone string
}

func (s *server) view(snap status.Snapshot) *view {
	v := &view{at: snap.At, zone: s.deps.Zone, Assets: s.version, Admin: s.deps.Admin != nil}
	if v.at.IsZero() {
		v.at = time.Now()
	}
	v.Plant, v.Agent, v.Version = snap.Plant, snap.Agent, snap.Version
	v.Config, v.Data, v.Contact = snap.ConfigPath, snap.DataDir, snap.Contact
	v.Clock = v.instant(v.at)
	v.ZoneTag = v.at.In(v.zone).Format("2 Jan 2006 · MST")
	v.Started, v.Uptime = v.instant(snap.StartedAt), v.ago(snap.StartedAt)
	v.Banner = v.banner(snap)
	v.Title = v.Banner.Word + " · " + snap.Plant + "/" + snap.Agent
	v.Safe = v.safe(snap)
	v.Uplink = v.uplink(snap)
	for _, src := range snap.Sources {
		v.Sources = append(v.Sources, v.source(src))
	}
	v.lists(snap)
	return v
}

func (v *view) lists(snap status.Snapshot) {
	orders, more := first(snap.WorkOrders)
	v.MoreOrders = more
	for _, o := range orders {
		v.Orders = append(v.Orders, v.order(o))
	}
	for _, r := range snap.Receipts {
		switch r.Outcome {
		case "rejected":
			v.Rejected++
		case "in_doubt":
			v.InDoubt++
		}
	}
	receipts, more := first(troubleFirst(snap.Receipts))
	v.MoreReceipts = more
	for _, r := range receipts {
		v.Receipts = append(v.Receipts, receiptView{badgeOf(r.Outcome), r, v.instant(r.At), v.instant(r.StoredAt)})
	}
	entries, _ := first(snap.Quarantine)
	for _, e := range entries {
		v.Quarantine = append(v.Quarantine, entryView{e, v.instant(e.At)})
	}
	if more := int(snap.Quarantined) - len(entries); more > 0 {
		v.MoreQuarantine = more
	}
	for _, l := range snap.Ledger {
		row := ledgerView{Ledger: l, Pieces: unitWord(l.Unit), Open: remainder(l.Counted, l.Stored)}
		if row.Open != "0" {
			row.OpenTone = "busy"
			v.Remainders++
		}
		if strings.HasPrefix(row.Open, "-") || row.Open == "" {
			row.OpenTone = "bad" // more stored than counted: somebody must look
		}
		v.Ledger = append(v.Ledger, row)
	}
}

func first[T any](list []T) (shown []T, more int) {
	if len(list) <= most {
		return list, 0
	}
	return list[:most], len(list) - most
}

// troubleFirst puts receipts that need a person before the others and keeps the order otherwise.
func troubleFirst(list []status.Receipt) []status.Receipt {
	var trouble, rest []status.Receipt
	for _, r := range list {
		if r.Outcome == "rejected" || r.Outcome == "in_doubt" {
			trouble = append(trouble, r)
		} else {
			rest = append(rest, r)
		}
	}
	return append(trouble, rest...)
}

var banners = map[string]banner{
	status.OK:       {badge: badge{"ok", "OK"}, Icon: "ok"},
	status.Degraded: {badge: badge{"warn", "DEGRADED"}, Icon: "warn"},
	status.Offline:  {badge: badge{"off", "OFFLINE – collecting and storing"}, Icon: "off"},
	status.Losing:   {badge: badge{"bad", "LOSING DATA"}, Icon: "bad"},
}

func (v *view) banner(snap status.Snapshot) banner {
	b, known := banners[snap.State]
	if !known {
		b = banner{badge: badge{"warn", strings.ToUpper(snap.State)}, Icon: "warn"}
	}
	b.Since, b.For = v.instant(snap.Since), v.ago(snap.Since)
	b.Reason, b.Next = sentence(snap.Reason), sentence(snap.NextStep)
	also, _ := first(snap.Also)
	for _, f := range also {
		b.Also = append(b.Also, status.Finding{State: f.State, Reason: sentence(f.Reason), NextStep: sentence(f.NextStep)})
	}
	if snap.State == status.OK && b.Reason == "" {
		b.Reason = "All sources are read, and the hub takes what they say."
	}
	return b
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	r := []rune(s)
	r[0] = []rune(strings.ToUpper(string(r[0])))[0]
	s = string(r)
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

func (v *view) safe(snap status.Snapshot) safe {
	b := snap.Business
	s := safe{Tone: "ok", Answer: "Yes."}
	full := time.Duration(b.FullInSeconds) * time.Second
	if b.Limit > 0 {
		s.Percent = int(min(max(b.Bytes, 0)*100/b.Limit, 100))
	}
	switch {
	case snap.State == status.Losing:
		s.Tone, s.Answer, s.Text = "bad", "Not all of it.", "What is stored stays stored, but new data is at risk now."
	case b.Dropped > 0:
		s.Tone, s.Answer, s.Text = "bad", "Not all of it.", "Production records were lost from this disk."
	case b.Pending == 0:
		s.Text = "The hub holds everything that was collected."
	case snap.Uplink.State == "connected":
		s.Text = "It is on this disk, and the hub is taking it over."
	default:
		s.Text = "It is on this disk and goes to the hub as soon as the line is back."
	}
	untilFull, note, tone := "not filling", "at the present rate", ""
	if full > 0 {
		untilFull = span(full)
		if full < 24*time.Hour {
			tone = "warn"
		}
	}
	if b.Held {
		untilFull, note, tone = "full", "sources held back", "bad"
	}
	oldest := tile{Label: "Oldest of them", Value: "–", Note: "none waits"}
	if !b.Oldest.IsZero() {
		oldest.Value, oldest.Note = v.ago(b.Oldest), "since "+v.instant(b.Oldest).Short
	}
	s.Tiles = []tile{
		{Label: "Waiting for hub", Value: count(b.Pending), Note: plural(int(b.Pending), "record", "records") + " on disk"},
		oldest,
		{Label: "Buffer used", Value: size(b.Bytes), Note: fmt.Sprintf("%d%s%% of %s", s.Percent, narrow, size(b.Limit)), Meter: true, Tone: fillTone(s.Percent)},
		{Label: "Time until full", Value: untilFull, Note: note, Tone: tone},
		{Label: "Dropped", Value: count(b.Dropped), Note: "facts", Tone: badIf(b.Dropped > 0)},
		{Label: "Kept aside", Value: count(snap.Quarantined), Note: "unusable inputs", Tone: warnIf(snap.Quarantined > 0)},
		{Label: "Free disk", Value: freeDisk(snap.FreeDisk), Note: "for the buffer"},
		{Label: "Readings", Value: count(snap.Telemetry.Pending), Note: count(snap.Telemetry.Dropped) + " dropped", Tone: warnIf(snap.Telemetry.Dropped > 0)},
	}
	return s
}

func freeDisk(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return size(n)
}

func fillTone(percent int) string {
	switch {
	case percent >= 95:
		return "bad"
	case percent >= 75:
		return "warn"
	}
	return ""
}

func badIf(b bool) string {
	if b {
		return "bad"
	}
	return ""
}

func warnIf(b bool) string {
	if b {
		return "warn"
	}
	return ""
}

// badges give each state its tone; the word is the state's own.
var badges = map[string]badge{
	"ok": {"ok", "ok"}, "connected": {"ok", "connected"}, "connecting": {"busy", "connecting"}, "failed": {"bad", "failed"},
	"held": {"bad", "held back"}, "stopped": {"idle", "stopped"}, "offline": {"off", "offline"}, "refused": {"bad", "refused"},
	"sent": {"idle", "sent"}, "stored": {"busy", "stored"}, "delivered": {"busy", "delivered"}, "accepted": {"busy", "accepted"},
	"rejected": {"bad", "rejected"}, "started": {"ok", "started"}, "finished": {"ok", "finished"}, "cancelled": {"idle", "cancelled"},
	"superseded": {"idle", "superseded"}, "buffered": {"busy", "buffered"}, "received": {"busy", "at the hub"}, "posted": {"ok", "posted"},
	"verified": {"ok", "verified"}, "in_doubt": {"warn", "in doubt"}, "not_posted": {"idle", "not posted"},
}

func badgeOf(state string) badge {
	if b, ok := badges[state]; ok {
		return b
	}
	return badge{"idle", state}
}

func (v *view) source(src status.Source) sourceView {
	b := badgeOf(src.State)
	if b.Tone == "ok" && len(src.Problems) > 0 {
		b = badge{"warn", fmt.Sprintf("%d %s", len(src.Problems), plural(len(src.Problems), "problem", "problems"))}
	}
	return sourceView{
		badge: b, Name: src.Name, Kind: src.Kind, State: badgeOf(src.State).Word, Reason: sentence(src.Reason), Since: v.instant(src.Since), For: v.ago(src.Since),
		Data: v.ago(src.LastData), DataAt: v.instant(src.LastData), Signals: count(src.Signals), Problems: src.Problems,
	}
}

func (v *view) uplink(snap status.Snapshot) uplinkView {
	u := snap.Uplink
	out := uplinkView{
		badge: badgeOf(u.State), Hub: u.Hub, Reason: sentence(u.Reason), Code: u.Code, Next: sentence(u.NextStep), Since: v.instant(u.Since), For: v.ago(u.Since),
		LastAck: v.instant(u.LastAck), LastAckAgo: v.ago(u.LastAck), Skew: skewWords(snap.HubClockSkew),
	}
	if u.State == "connected" && u.Way == "websocket" {
		out.Way = "inside a WebSocket, because: " + u.WayReason
	}
	if u.State != "connected" && !u.NextTry.IsZero() {
		out.NextTry = "now"
		if d := u.NextTry.Sub(v.at); d >= time.Second {
			out.NextTry = "in " + span(d)
		}
	}
	return out
}

// orderBadge differs in one word: an order that is held is the machine's pause, not a full buffer.
func orderBadge(state string) badge {
	if state == "held" {
		return badge{"warn", "held"}
	}
	return badgeOf(state)
}

func (v *view) order(o status.Order) orderView {
	b := orderBadge(o.State)
	out := orderView{badge: b, Order: o, Pieces: unitWord(o.Unit)}
	revision := int64(-1)
	for i, s := range o.History {
		step := stepView{OrderStep: s, When: v.instant(s.At), Tone: orderBadge(s.State).Tone}
		if s.Revision > 0 && s.Revision != revision && (i > 0 || s.Revision > 1) {
			step.ShowRev = true
		}
		if s.Revision > 0 {
			revision = s.Revision
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}
