package oracle_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/oracle"
	"github.com/linekeeper/linekeeper/hub/connector/oracle/oracledouble"
)

// What an order's totals hold and no transaction shows makes its list an error: it would lack that document.
func TestListThatDoesNotExplainTheTotalsIsAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t)
	two := b.CreateOrder(oracledouble.Order{Organization: "M1", Item: maker, Unit: "Ea", Status: "ORA_RELEASED", Quantity: d("40"),
		Operations: []oracledouble.Operation{{Sequence: 10, Name: "Saw", WorkCenter: "WC1"}, {Sequence: 20, Name: "Assemble", WorkCenter: "WC2"}}})
	confirm := func(operation string) {
		t.Helper()
		p := confirmation(two, "12", "0")
		p.Fact.Confirmation.Operation = operation
		if x := connectortest.Drive(t.Context(), c, p, time.Minute); x.End != connectortest.Settled {
			t.Fatalf("%+v", x)
		}
	}
	confirm("20")
	if all, err := c.Effects(t.Context(), two); err != nil || len(all.Documents) != 1 {
		t.Errorf("%d documents, %v", len(all.Documents), err)
	}
	confirm("10")
	if all, err := c.Effects(t.Context(), two); err == nil || !strings.Contains(err.Error(), "operation 10") {
		t.Errorf("%d documents with an earlier operation, %v", len(all.Documents), err)
	}

	order := b.order(t, "40")
	for _, yield := range []string{"5", "7"} {
		if x := connectortest.Drive(t.Context(), c, confirmation(order, yield, "0"), time.Minute); x.End != connectortest.Settled {
			t.Fatalf("%+v", x)
		}
	}
	hiding := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // rows that the user may not see
		req, err := http.NewRequestWithContext(r.Context(), r.Method, b.proxy.URL+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		req.Header.Del("Accept-Encoding")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		var page map[string]any
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(text, &page)
		}
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(r.URL.Path, "inventoryCompletedTransactions") {
			page["items"] = page["items"].([]any)[1:]
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(hiding.Close)
	all, err := b.connect(t, func(c *oracle.Config) { c.URL = hiding.URL }).Effects(t.Context(), order)
	if err == nil || errors.Is(err, connector.ErrNotFound) || !strings.Contains(err.Error(), "12") {
		t.Errorf("%d of 2 documents, %v", len(all.Documents), err)
	}
}
