package d365double

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

const stampLayout = "2006-01-02T15:04:05Z"

type row map[string]any

func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, text string) {
	answer(w, status, row{"error": row{"code": "", "message": text}})
}

func (s *System) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token") {
		s.token(w, r)
		return
	}
	if !s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	entity, isData := strings.CutPrefix(r.URL.Path, "/data/")
	switch {
	case r.URL.Path == "/api/services/SysMessageServices/SysMessageService/SendMessage" && r.Method == http.MethodPost:
		s.send(w, r)
	case isData && r.Method == http.MethodGet:
		rows, ok := s.rows(entity)
		if !ok {
			fail(w, http.StatusNotFound, "No HTTP resource was found that matches the request URI")
			return
		}
		s.list(w, r, rows)
	default:
		fail(w, http.StatusNotFound, "No HTTP resource was found that matches the request URI")
	}
}

func (s *System) token(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "LINEKEEPER" || r.FormValue("client_secret") != "secret" || !strings.HasSuffix(r.FormValue("scope"), "/.default") {
		answer(w, http.StatusUnauthorized, row{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
		return
	}
	s.next++
	t := fmt.Sprintf("token%d", s.next)
	s.tokens[t] = true
	answer(w, http.StatusOK, row{"token_type": "Bearer", "expires_in": 3599, "access_token": t})
}

// send queues a message. What it says is looked at only when it is processed.
func (s *System) send(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.traps.Throttle:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusTooManyRequests, "This request has been throttled.")
		return
	case s.traps.Deny:
		fail(w, http.StatusForbidden, "Access denied to the service SysMessageServices.")
		return
	}
	var body struct {
		Company string `json:"_companyId"`
		Queue   string `json:"_messageQueue"`
		Type    string `json:"_messageType"`
		Content string `json:"_messageContent"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Queue != "JmgMES3P" || body.Type == "" {
		fail(w, http.StatusBadRequest, "The parameters are not valid.")
		return
	}
	s.next++
	s.messages = append(s.messages, &message{id: fmt.Sprintf("MSG-%07d", s.next), company: body.Company, kind: body.Type, content: body.Content, status: "Queued", due: time.Now().Add(s.traps.Delay)})
	w.WriteHeader(http.StatusOK) // a service without a result answers with nothing
}

func (s *System) rows(entity string) (rows []row, ok bool) {
	now := time.Now()
	switch entity {
	case "ProductionOrderHeaders":
		for _, o := range s.orders {
			rows = append(rows, row{"dataAreaId": strings.ToLower(o.Company), "ProductionOrderNumber": o.Number, "ItemNumber": o.Item, "UnitSymbol": o.Unit, "ProductionSiteId": o.Site, "ScheduledQuantity": number(o.Quantity),
				"ProductionOrderStatus": o.Status, "ScheduledStartDate": o.changed.Format(stampLayout), "ScheduledEndDate": o.changed.Format(stampLayout), "ModifiedDateTime": o.changed.Format(stampLayout)})
		}
	case "ProductionOrderBOMLines":
		for _, o := range s.orders {
			for _, c := range o.Components {
				rows = append(rows, row{"dataAreaId": strings.ToLower(o.Company), "ProductionOrderNumber": o.Number, "ItemNumber": c.Item, "UnitSymbol": c.Unit, "EstimatedQuantity": number(c.Required), "FlushingPrinciple": c.Flushing})
			}
		}
	case "SysMessages":
		for _, m := range s.messages {
			rows = append(rows, row{"dataAreaId": strings.ToLower(m.company), "MessageId": m.id, "MessageQueue": "JmgMES3P", "MessageType": m.kind, "MessageContent": m.content, "MessageStatus": m.status, "ErrorMessage": m.err})
		}
	case "ReportAsFinishedJournalLines", "PickingListJournalLines":
		for _, j := range s.journals {
			if j.picking != (entity == "PickingListJournalLines") || j.visible.After(now) {
				continue
			}
			x := row{"dataAreaId": "usmf", "JournalNumber": j.number, "ProductionOrderNumber": j.order, "ItemNumber": j.item, "PostedDate": j.date}
			if j.picking {
				x["ConsumptionQuantity"] = number(j.consumed)
			} else {
				x["GoodQuantity"], x["ErrorQuantity"] = number(j.good), number(j.bad)
			}
			if s.traps.KeyField != "" {
				x[s.traps.KeyField] = j.key
			}
			rows = append(rows, x)
		}
	default:
		return nil, false
	}
	return rows, true
}

func (s *System) list(w http.ResponseWriter, r *http.Request, rows []row) {
	v := r.URL.Query()
	if v.Get("cross-company") != "true" {
		rows = slices.DeleteFunc(rows, func(x row) bool { return x["dataAreaId"] != "dat" }) // the account's own company
	}
	if text := v.Get("$filter"); text != "" {
		q, err := parse(text)
		if err != nil {
			fail(w, http.StatusBadRequest, err.Error())
			return
		}
		rows = slices.DeleteFunc(rows, func(x row) bool { return !q(x) })
	}
	if by := v.Get("$orderby"); by != "" {
		slices.SortStableFunc(rows, func(a, b row) int {
			for _, name := range strings.Split(by, ",") {
				if c := strings.Compare(fmt.Sprint(a[name]), fmt.Sprint(b[name])); c != 0 {
					return c
				}
			}
			return 0
		})
	}
	of := len(rows)
	skip, _ := strconv.Atoi(v.Get("$skip"))
	rows = rows[min(skip, len(rows)):]
	if top, err := strconv.Atoi(v.Get("$top")); err == nil {
		rows = rows[:min(top, len(rows))]
	}
	a := row{"@odata.context": "http://" + r.Host + "/data/$metadata"}
	if v.Get("$count") == "true" && skip == 0 {
		a["@odata.count"] = of
	}
	if most := s.traps.MostRows; most > 0 && len(rows) > most {
		rows = rows[:most]
		v.Set("$skip", strconv.Itoa(skip+most))
		if top, err := strconv.Atoi(v.Get("$top")); err == nil {
			v.Set("$top", strconv.Itoa(top-most))
		}
		a["@odata.nextLink"] = "http://" + r.Host + r.URL.Path + "?" + v.Encode()
	}
	if rows == nil {
		rows = []row{}
	}
	a["value"] = rows
	answer(w, http.StatusOK, a)
}

// query is a parsed $filter.
type query func(row) bool

var token = regexp.MustCompile(`\s*(\(|\)|'(?:[^']|'')*'|[A-Za-z0-9_.:+-]+)`)

type parser struct{ words []string }

func parse(text string) (query, error) {
	p := &parser{}
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := token.FindStringSubmatchIndex(rest)
		if m == nil || m[0] != 0 {
			return nil, fmt.Errorf("filter %q cannot be read at %q", text, rest)
		}
		p.words = append(p.words, rest[m[2]:m[3]])
		rest = rest[m[1]:]
	}
	q, err := p.join("or")
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("filter %q has %q too much", text, p.words[0])
	}
	return q, err
}

func (p *parser) take() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *parser) is(word string) bool {
	if len(p.words) > 0 && p.words[0] == word {
		p.take()
		return true
	}
	return false
}

func (p *parser) join(word string) (query, error) {
	next := p.one
	if word == "or" {
		next = func() (query, error) { return p.join("and") }
	}
	a, err := next()
	for err == nil && p.is(word) {
		left := a
		var b query
		b, err = next()
		a = func(r row) bool { return left(r) && b(r) }
		if word == "or" {
			a = func(r row) bool { return left(r) || b(r) }
		}
	}
	return a, err
}

func (p *parser) one() (query, error) {
	if p.is("(") {
		q, err := p.join("or")
		if err == nil && !p.is(")") {
			err = fmt.Errorf("a bracket is not closed")
		}
		return q, err
	}
	name, op, value := p.take(), p.take(), p.take()
	if value == "" || !strings.Contains(" eq ne gt ge lt le ", " "+op+" ") {
		return nil, fmt.Errorf("property %q lacks operator or value", name)
	}
	if strings.HasPrefix(value, "'") {
		value = strings.ReplaceAll(value[1:len(value)-1], "''", "'")
	}
	return func(r row) bool { return matches(fmt.Sprint(r[name]), op, value) }, nil
}

// matches compares; an asterisk in a text stands for anything, as D365 has it.
func matches(have, op, want string) bool {
	c := strings.Compare(have, want)
	if strings.Contains(want, "*") {
		ok, _ := regexp.MatchString("(?s)^"+strings.ReplaceAll(regexp.QuoteMeta(want), `\*`, ".*")+"$", have)
		c = map[bool]int{true: 0, false: 1}[ok]
	}
	switch op {
	case "eq":
		return c == 0
	case "ne":
		return c != 0
	case "gt":
		return c > 0
	case "ge":
		return c >= 0
	case "lt":
		return c < 0
	}
	return c <= 0
}
