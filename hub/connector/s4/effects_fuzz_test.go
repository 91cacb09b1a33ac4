package s4_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
)

// talker answers a request by its path.
type talker func(path string) string

func (a talker) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(a(r.URL.Path))), Request: r}, nil
}

// FuzzEffects gives any text as SAP's answer to the questions for an order's documents: whatever is listed has a number, a state
// and quantities of a sane size, and pairs belong together.
func FuzzEffects(f *testing.F) {
	b := newBench(f, s4double.Traps{PageSize: 100})
	order := b.order(f, "40")
	c := b.connect(f)
	settledF := func(err error) {
		if err != nil {
			f.Fatal(err)
		}
	}
	settledF(b.ConfirmByHand(order, "0010", "8"))
	settledF(b.ConfirmByHand(order, "0010", "5"))
	all, err := c.Effects(f.Context(), order)
	settledF(err)
	settledF(b.CancelByHand(all.Documents[0].Number))
	// the answers of a real conversation, without what is empty, are where the fuzzer begins
	empty := regexp.MustCompile(`"\w+":(""|"0"|"0\.0+"|null|false|0|"PT00H00M00S"|\{"__deferred":\{[^}]*\}\}),`)
	var texts []string
	for _, path := range []string{"API_MATERIAL_DOCUMENT_SRV/A_MaterialDocumentItem", "API_PROD_ORDER_CONFIRMATION_2_SRV/ProdnOrdConf2?$expand=to_ProdnOrdConfMatlDocItm", "API_MATERIAL_DOCUMENT_SRV/A_MaterialDocumentHeader?$expand=to_MaterialDocumentItem",
		"API_PRODUCTION_ORDER_2_SRV/A_ProductionOrder_2('" + order + "')?$expand=to_ProductionOrderItem,to_ProductionOrderOperation,to_ProductionOrderComponent"} {
		req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, b.proxy.URL+"/sap/opu/odata/sap/"+path, nil)
		settledF(err)
		req.SetBasicAuth("LINEKEEPER", "secret")
		resp, err := http.DefaultClient.Do(req)
		settledF(err)
		text, err := io.ReadAll(resp.Body)
		settledF(err)
		resp.Body.Close()
		texts = append(texts, empty.ReplaceAllString(string(text), ""))
	}
	f.Add(texts[0], texts[1], texts[2])
	f.Add(`{"d":{"results":[]}}`, `{"d":{"results":[{"ConfirmationGroup":"1","ConfirmationCount":"1","OrderID":"`+order+`","IsReversed":true}]}}`, `{"d":{"results":null}}`)
	f.Add(`{"d":{"results":[],"__count":"9"}}`, ``, `<html>`)
	var answers [3]string
	s4.Through(c, talker(func(path string) string {
		switch {
		case strings.Contains(path, "A_MaterialDocumentItem"):
			return answers[0]
		case strings.Contains(path, "ProdnOrdConf2"):
			return answers[1]
		case strings.Contains(path, "A_MaterialDocumentHeader"):
			return answers[2]
		}
		return texts[3]
	}))
	answers = [3]string(texts[:3])
	if all, err := c.Effects(f.Context(), order); err != nil || len(all.Documents) != 3 {
		f.Fatalf("%d documents to begin with, %v", len(all.Documents), err)
	}
	f.Fuzz(func(t *testing.T, items, confs, headers string) {
		answers = [3]string{items, confs, headers}
		all, err := c.Effects(t.Context(), order)
		if err != nil {
			if len(all.Documents) > 0 {
				t.Errorf("%d documents beside the error %v", len(all.Documents), err)
			}
			return
		}
		by := map[string]object.Effect{}
		for _, e := range all.Documents {
			if e.Number == "" || e.State != object.EffectBooked || e.OrderNo != order {
				t.Errorf("%+v", e)
			}
			for _, q := range e.Quantities {
				if len(q.Value.String()) > 100 {
					t.Errorf("document %s has a quantity of %d characters", e.Number, len(q.Value.String()))
				}
			}
			by[e.Number] = e
		}
		for _, e := range all.Documents {
			if old, there := by[e.Reverses]; there && e.Reverses != "" && old.ReversedBy == "" && old.Kind == object.KindConfirmation {
				t.Errorf("%+v reverses %+v, which does not know", e, old)
			}
		}
	})
}
