package oracledouble

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

const root = "/fscmRestApi/resources/11.13.18.05/"

// stampLayout is how time stamps are written.
const stampLayout = "2006-01-02T15:04:05.000+00:00"

func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

func fail(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/vnd.oracle.adf.error+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(row{"title": http.StatusText(status), "status": strconv.Itoa(status), "o:errorCode": code,
		"o:errorDetails": []row{{"detail": text, "o:errorCode": code}}})
}

func answer(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	json.NewEncoder(&b).Encode(v)
	w.Header().Set("Content-Type", "application/vnd.oracle.adf.resourcecollection+json")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

func (s *System) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if user, password, _ := r.BasicAuth(); user != "LINEKEEPER" || password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	resource, ok := strings.CutPrefix(r.URL.Path, root)
	posts := resource == "operationTransactions" || resource == "materialTransactions"
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "", "Not Found")
	case posts && r.Method == http.MethodPost:
		s.post(w, r, resource)
	case posts:
		fail(w, http.StatusMethodNotAllowed, "", "GET action not supported")
	case r.Method != http.MethodGet:
		fail(w, http.StatusMethodNotAllowed, "", r.Method+" is not supported")
	case resource == "workOrders":
		var rows []row
		for _, o := range s.orders {
			rows = append(rows, s.orderRow(o, r.URL.Query().Get("expand")))
		}
		s.list(w, r, rows)
	case resource == "inventoryCompletedTransactions" && s.traps.NoCompletedRead:
		fail(w, http.StatusForbidden, "", "You do not have the privilege to view inventory transactions.")
	case resource == "inventoryCompletedTransactions":
		s.list(w, r, s.completed())
	default:
		fail(w, http.StatusNotFound, "", "Not Found")
	}
}

func (s *System) orderRow(o *Order, expand string) row {
	r := row{"WorkOrderId": o.ID, "WorkOrderNumber": o.Number, "OrganizationCode": o.Organization, "ItemNumber": o.Item, "UOMCode": o.Unit,
		"PlannedStartQuantity": number(o.Quantity), "WorkOrderStatusCode": o.Status, "LastUpdateDate": o.changed.Format(stampLayout),
		"PlannedStartDate": o.changed.Format(stampLayout), "PlannedCompletionDate": o.changed.Add(8 * time.Hour).Format(stampLayout)}
	if !strings.Contains(expand, "WorkOrderOperation") {
		return r
	}
	ops := []row{}
	for _, op := range o.Operations {
		x := row{"OperationSequenceNumber": op.Sequence, "OperationName": op.Name, "WorkCenterCode": op.WorkCenter,
			"CompletedQuantity": number(s.sum(o, op.Sequence, "", complete, completeOp)), "ScrappedQuantity": number(s.sum(o, op.Sequence, "", scrap))}
		if strings.Contains(expand, "WorkOrderOperationMaterial") {
			materials := []row{}
			for _, c := range o.Components {
				if c.Operation == op.Sequence {
					net := s.sum(o, op.Sequence, c.Item, issue).Sub(s.sum(o, op.Sequence, c.Item, giveBack))
					materials = append(materials, row{"ItemNumber": c.Item, "UOMCode": c.Unit, "Quantity": number(c.Required), "IssuedQuantity": number(net), "SupplyType": c.Supply})
				}
			}
			x["WorkOrderOperationMaterial"] = row{"items": materials, "count": len(materials), "hasMore": false}
		}
		ops = append(ops, x)
	}
	r["WorkOrderOperation"] = ops
	return r
}

// sum adds up what can be seen already.
func (s *System) sum(o *Order, sequence int, item string, kinds ...string) (sum decimal.Decimal) {
	now := time.Now()
	for _, x := range s.done {
		if x.order == o && x.sequence == sequence && (item == "" || x.item == item) && slices.Contains(kinds, x.kind) && !x.visible.After(now) {
			sum = sum.Add(x.quantity)
		}
	}
	return sum
}

func (s *System) completed() (rows []row) {
	now := time.Now()
	for _, x := range s.done {
		if !x.inventory() || x.visible.After(now) {
			continue
		}
		q := x.quantity
		if x.kind == issue {
			q = q.Neg()
		}
		ref := x.ref
		if s.traps.NoReference {
			ref = ""
		}
		rows = append(rows, row{"TransactionId": x.id, "TransactionReference": ref, "ItemNumber": x.item, "TransactionQuantity": number(q), "TransactionUOMCode": x.unit,
			"TransactionSourceName": x.order.Number, "TransactionDate": x.date, "OrganizationCode": x.order.Organization})
	}
	return rows
}

// list answers q, orderBy, limit and offset.
func (s *System) list(w http.ResponseWriter, r *http.Request, rows []row) {
	v := r.URL.Query()
	if text := v.Get("q"); text != "" {
		if version, _ := strconv.Atoi(r.Header.Get("REST-Framework-Version")); version < 2 && strings.ContainsAny(text, " (") {
			fail(w, http.StatusBadRequest, "27520", "The query syntax of framework version 1 does not know this.")
			return
		}
		q, err := parse(text)
		if err != nil {
			fail(w, http.StatusBadRequest, "27520", err.Error())
			return
		}
		rows = slices.DeleteFunc(rows, func(x row) bool { return !q(x) })
	}
	if by := v.Get("orderBy"); by != "" {
		slices.SortStableFunc(rows, func(a, b row) int {
			for _, name := range strings.Split(by, ",") {
				name, _, _ = strings.Cut(name, ":")
				if c := strings.Compare(fmt.Sprint(a[name]), fmt.Sprint(b[name])); c != 0 {
					return c
				}
			}
			return 0
		})
	}
	limit, most := 25, 499
	if n, err := strconv.Atoi(v.Get("limit")); err == nil {
		limit = n
	}
	if s.traps.MostRows > 0 {
		most = s.traps.MostRows
	}
	limit = min(limit, most)
	offset, _ := strconv.Atoi(v.Get("offset"))
	rest := rows[min(offset, len(rows)):]
	page := rest[:min(limit, len(rest))]
	if page == nil {
		page = []row{}
	}
	answer(w, http.StatusOK, row{"items": page, "count": len(page), "hasMore": len(rest) > len(page), "limit": limit, "offset": offset})
}
