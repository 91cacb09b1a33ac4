package console

import (
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/linekeeper/linekeeper/hub/api"
)

var funcs = template.FuncMap{
	"clock": func(t any) template.HTML { return clock(t, "15:04:05") },
	"exact": func(t any) template.HTML { return clock(t, "15:04:05.000") },
	"stamp": func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") },
	"ago": func(t any) string {
		if at, ok := instant(t); ok {
			return ago(time.Since(at))
		}
		return "never"
	},
	"tone": tone, "words": words, "heading": heading, "what": what, "unit": unit, "orderstep": orderStep, "steptone": stepTone, "factstep": factStep, "value": value, "grouped": grouped,
	"sheetof": sheetOf,
	"objectpath": func(kind, erp, number string) string {
		return "/objects/" + url.PathEscape(kind) + "/" + url.PathEscape(erp) + "/" + url.PathEscape(number)
	},
	"writestep": writeStep,
	"writestates": func() []string {
		return []string{"parked", "in_doubt", "due", "sending", "posted", "verified", "settled"}
	},
	"pair": func(a, b string) [2]string { return [2]string{a, b} },
	"approvable": func(code string) bool {
		return slices.Contains([]string{"late_fact", "doubtful_clock", "over_delivery", "period_closed", "M7/053"}, code)
	},
	"plantsays": func(s api.OrderStep) bool { return s.Origin != "hub" && !strings.HasPrefix(s.Origin, "erp ") },
	"states": func() []string {
		return []string{"parked", "in_doubt", "due", "sending", "posted", "verified", "not_posted", "settled"}
	},
	"orderstates": func() []string {
		return []string{"PLANNED", "RELEASED", "IN_PROGRESS", "HELD", "COMPLETED", "CLOSED", "CANCELLED"}
	},
	"plural": func(n any, one, many string) string {
		switch n := n.(type) {
		case int:
			return plural(int64(n), one, many)
		case uint64:
			return plural(int64(n), one, many)
		case int64:
			return plural(n, one, many)
		}
		return ""
	},
}

func instant(t any) (time.Time, bool) {
	switch t := t.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil {
			return *t, !t.IsZero()
		}
	}
	return time.Time{}, false
}

// clock writes a time of today, or date and time, with the whole in its title.
func clock(t any, format string) template.HTML {
	at, ok := instant(t)
	if !ok {
		return "–"
	}
	at = at.Local()
	if now := time.Now(); at.YearDay() != now.YearDay() || at.Year() != now.Year() {
		format = "2006-01-02 " + format
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, at.Format(time.RFC3339Nano), at.Format("2006-01-02 15:04:05.000 MST"), at.Format(format)))
}

func ago(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// words writes one of our codes as words; an outside system's, such as M7/053, stays as it is.
func words(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r != '_' && r != ' ' && !unicode.IsLetter(r) }) {
		return s
	}
	return strings.ReplaceAll(strings.ToLower(s), "_", " ")
}

// heading is words for the beginning of a line.
func heading(s string) string {
	s = words(s)
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// unit writes the common units of UN/ECE Recommendation 20 as people do.
func unit(code string) string {
	if s, ok := map[string]string{
		"C62": "pcs", "KGM": "kg", "GRM": "g", "TNE": "t", "LTR": "l", "MLT": "ml", "MTR": "m", "MMT": "mm", "MTK": "m²", "MTQ": "m³", "HUR": "h", "MIN": "min", "SEC": "s",
	}[code]; ok {
		return s
	}
	return code
}

// tone is the class of a state: its colour and its symbol.
func tone(state string) string {
	switch state {
	case "verified", "ok", "delivered", "HEALED", "COMPLETED", "CLOSED", "FINISHED", "connected", "effective":
		return "good"
	case "parked", "failed", "dropped", "losing", "ESCALATED", "REJECTED", "CANCELLED", "high", "rejected", "write_missing", "write_differs":
		return "bad"
	case "in_doubt", "held", "OPEN", "degraded", "offline", "HELD", "connecting", "stopped", "not connected", "medium", "running", "proposed":
		return "warn"
	case "not_posted", "settled", "low", "cancelled", "superseded", "draft":
		return "quiet"
	}
	return "info"
}

// orderStep says in plain words what happened to a work order.
func orderStep(s api.OrderStep) string {
	if erp, ok := strings.CutPrefix(s.Origin, "erp "); ok {
		if state, ok := strings.CutPrefix(s.Step, "posted "); ok && s.Operation != "" {
			return fmt.Sprintf("ERP %s was told: operation %s is %s", erp, s.Operation, words(state))
		} else if ok {
			return fmt.Sprintf("ERP %s was told: %s", erp, words(state))
		}
		return fmt.Sprintf("ERP %s says: %s", erp, words(s.Step))
	}
	if s.Operation != "" {
		return operationStep(s)
	}
	if text, ok := map[string]string{
		"queued": "Queued for the plant", "sent": "Sent to the plant", "stored": "Stored by the plant's agent", "withdrawn": "Withdrawn before the plant had it",
		"DELIVERED": "Handed to the machine or MES", "ACCEPTED": "Accepted on the shop floor", "REJECTED": "Refused on the shop floor",
		"STARTED": "Started on the shop floor", "HELD": "Held on the shop floor", "FINISHED": "Finished on the shop floor", "CANCELLED": "Cancelled on the shop floor",
	}[s.Step]; ok {
		return text
	}
	return words(s.Step)
}

// operationStep says what happened to one operation of an order.
func operationStep(s api.OrderStep) string {
	if s.Step == "last operation finished" {
		return fmt.Sprintf("Operation %s is the last one: the order is at its end", s.Operation)
	}
	return fmt.Sprintf("Operation %s %s on the shop floor", s.Operation, words(s.Step))
}

func stepTone(step string) string {
	switch step {
	case "posted", "verified", "receipt stored", "accepted":
		return "good"
	case "rejected", "parked", "differs", "conflict", "write_missing", "write_differs":
		return "bad"
	case "in_doubt", "retry", "unreachable", "absent":
		return "warn"
	}
	return tone(step)
}

// factStep says in plain words what happened to a fact.
func factStep(step string) string {
	if text, ok := map[string]string{
		"occurred": "Happened at the source", "recorded": "Stored by the agent", "received": "Stored by the hub", "planned": "Planned for its work order",
		"due": "Waits for its turn", "sending": "Sent to the ERP", "posted": "Posted", "verified": "Read back from the ERP and found equal", "in_doubt": "The ERP did not answer: it is being looked up",
		"absent": "Not in the ERP: it may be sent again", "rejected": "Refused by the ERP", "parked": "Waits for a person", "retry": "Refused for now, tried again later",
		"unreachable": "The ERP cannot be reached, tried again later", "released": "What was missing has come", "mapped": "Said anew: the mappings have changed", "replayed": "Taken up again", "approved": "Approved by a person", "held": "Held by a policy",
		"waits": "Waits for other operations of the order", "collected": "Made one document with others", "apart": "Goes by itself", "date moved": "Got another date for the books", "period closed": "Refused for its date",
		"order shut": "Refused: the order is completed", "accepted": "Settled by a person",
		"differs": "The ERP's document says something else", "not_posted": "Needs no posting", "conflict": "Another fact came under the same key",
		"corrected": "Corrected by a person or a heal", "reversing": "Being taken back in the ERP", "taken back": "Taken back in the ERP", "not taken back": "The ERP did not take it back",
		"posted anew":  "Due again under a new key",
		"receipt sent": "Receipt sent to the plant", "receipt stored": "The plant has the receipt",
	}[step]; ok {
		return text
	}
	return words(step)
}

// writeStep says in plain words what happened to a write of a business object.
func writeStep(step string) string {
	if text, ok := map[string]string{
		"due": "Wanted", "posted": "Taken by the ERP", "found": "Looked up: the ERP has it", "not found yet": "Looked up: not seen yet", "cannot tell": "The ERP cannot tell: a person decides",
		"differs": "The ERP's object says something else", "renewed": "Brought forward: it is looked for by its key", "write_missing": "Read back again: the ERP does not have it any more",
		"write_differs": "Read back again: the ERP's object says something else now", "stands again": "Read back again: it stands",
	}[step]; ok {
		return text
	}
	return factStep(step)
}

// value writes one field of a fact's content.
func value(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprint(v)
	}
	if q, ok := m["value"]; ok {
		return fmt.Sprintf("%v %s", q, unit(fmt.Sprint(m["unit"])))
	}
	if _, ok := m["from"]; ok {
		return fmt.Sprintf("%v from %v to %v, epoch %v", m["tag"], m["from"], m["to"], m["epoch"])
	}
	return fmt.Sprint(v)
}

// what says in a few words what a fact says.
func what(f api.Fact) string {
	text := func(k string) string {
		s, _ := f.Content[k].(string)
		return s
	}
	switch f.Kind {
	case "production_confirmation":
		var parts []string
		for _, k := range []struct{ key, name string }{{"yield", "good"}, {"scrap", "scrap"}, {"rework", "rework"}} {
			if v := text(k.key); v != "" && v != "0" {
				parts = append(parts, fmt.Sprintf("%s %s %s", v, unit(text("unit")), k.name))
			}
		}
		if len(parts) == 0 {
			parts = append(parts, "nothing")
		}
		return strings.Join(parts, ", ") + " of " + text("item")
	case "material_consumption":
		done := "consumed"
		if text("movement") == "RETURN" {
			done = "returned"
		}
		return fmt.Sprintf("%s of %s %s", value(f.Content["quantity"]), text("item"), done)
	case "order_state":
		return "order " + strings.ToLower(text("state"))
	case "quality_status":
		return strings.TrimSpace(fmt.Sprintf("quality of %s: %s", strings.TrimSpace(text("item")+" "+text("lot")), words(text("status"))))
	}
	return strings.TrimSpace(words(text("code")) + " " + text("item"))
}
