package s4double_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/shopspring/decimal"
)

var d = decimal.RequireFromString

const (
	orders = "/sap/opu/odata/sap/API_PRODUCTION_ORDER_2_SRV/"
	confs  = "/sap/opu/odata/sap/API_PROD_ORDER_CONFIRMATION_2_SRV/"
	docs   = "/sap/opu/odata/sap/API_MATERIAL_DOCUMENT_SRV/"
	stocks = "/sap/opu/odata/sap/API_MATERIAL_STOCK_SRV/"
)

// desk is a system and a person who speaks OData with it.
type desk struct {
	*s4double.System
	t       testing.TB
	url     string
	cookies []*http.Cookie
	token   string
}

func open(t testing.TB, o s4double.Options) *desk {
	t.Helper()
	s := s4double.New(o)
	s.PutMaterial(s4double.Material{Number: "FG226", Unit: "PC", UnitISO: "PCE"})
	s.PutMaterial(s4double.Material{Number: "RM124", Unit: "KG", UnitISO: "KGM", Decimals: 3})
	s.PutStock("RM124", "1710", "171B", d("100"))
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return &desk{System: s, t: t, url: server.URL}
}

func (k *desk) order() string {
	return k.CreateOrder(s4double.Order{Material: "FG226", Plant: "1710", StorageLocation: "171A", Quantity: d("10"), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", WorkCenter: "ASSEMBLY"}, {Number: "0020", WorkCenter: "TESTING"}},
		Components: []s4double.Component{{Material: "RM124", StorageLocation: "171B", Operation: "0010", Required: d("20"), Backflush: true}}})
}

func (k *desk) send(method, path string, body any, header map[string]string) (int, http.Header, []byte) {
	k.t.Helper()
	var text []byte
	switch b := body.(type) {
	case string:
		text = []byte(b)
	case nil:
	default:
		text, _ = json.Marshal(b)
	}
	r, err := http.NewRequest(method, k.url+strings.ReplaceAll(path, " ", "%20"), bytes.NewReader(text))
	if err != nil {
		k.t.Fatal(err)
	}
	r.SetBasicAuth("LINEKEEPER", "secret")
	for n, v := range header {
		r.Header.Set(n, v)
	}
	for _, c := range k.cookies {
		r.AddCookie(c)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// login fetches a token in a session.
func (k *desk) login(service string) {
	k.t.Helper()
	r, _ := http.NewRequest("GET", k.url+service, nil)
	r.SetBasicAuth("LINEKEEPER", "secret")
	r.Header.Set("X-CSRF-Token", "Fetch")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	resp.Body.Close()
	k.cookies, k.token = resp.Cookies(), resp.Header.Get("X-CSRF-Token")
}

func (k *desk) post(path string, body any, header ...string) (int, http.Header, []byte) {
	k.t.Helper()
	h := map[string]string{"X-CSRF-Token": k.token, "Content-Type": "application/json"}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	return k.send("POST", path, body, h)
}

func (k *desk) get(path string) map[string]any {
	k.t.Helper()
	status, _, text := k.send("GET", path, nil, nil)
	var in struct {
		D map[string]any `json:"d"`
	}
	if status != 200 || json.Unmarshal(text, &in) != nil {
		k.t.Fatalf("GET %s: %d %s", path, status, text)
	}
	return in.D
}

func (k *desk) rows(path string) []map[string]any {
	k.t.Helper()
	list, _ := k.get(path)["results"].([]any)
	var out []map[string]any
	for _, r := range list {
		out = append(out, r.(map[string]any))
	}
	return out
}

func code(text []byte) string {
	var in struct {
		Error struct {
			Code       string `json:"code"`
			Innererror struct {
				Errordetails []any `json:"errordetails"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &in) != nil || len(in.Error.Innererror.Errordetails) == 0 {
		return "not an error of SAP's: " + string(text)
	}
	return in.Error.Code
}

func confirmation(order, operation, yield string) map[string]any {
	return map[string]any{"OrderID": order, "OrderOperation": operation, "ConfirmationYieldQuantity": yield, "ConfirmationUnitISOCode": "PCE",
		"ExternalSystemConfirmation": "a7c6e446-75e9-8f5a-8066-09f68bb10667", "PostingDate": fmt.Sprintf("/Date(%d)/", time.Now().UTC().Truncate(24*time.Hour).UnixMilli())}
}

func TestTokenHangsOnItsSession(t *testing.T) {
	k := open(t, s4double.Options{})
	order := k.order()
	try := func(want int, why string) {
		t.Helper()
		if status, h, text := k.post(confs+"ProdnOrdConf2", confirmation(order, "0020", "1")); status != want {
			t.Errorf("%s: %d %s (%s), want %d", why, status, text, h.Get("X-CSRF-Token"), want)
		}
	}
	try(403, "no token")
	k.login(confs)
	try(201, "token and cookies")
	cookies := k.cookies
	k.cookies = nil
	try(403, "token without its cookies")
	k.cookies = cookies
	k.ExpireSessions()
	try(403, "ended session")
	if status, h, _ := k.post(confs+"ProdnOrdConf2", "{}"); status != 403 || h.Get("X-CSRF-Token") != "Required" {
		t.Errorf("an ended session is told %d %q", status, h.Get("X-CSRF-Token"))
	}
	for path, why := range map[string]string{strings.TrimSuffix(confs, "/"): "without the slash", confs + "?$format=json": "with options"} {
		if status, h, _ := k.send("GET", path, nil, map[string]string{"X-CSRF-Token": "Fetch"}); status < 400 || h.Get("X-CSRF-Token") != "" {
			t.Errorf("a token is given %s: %d", why, status)
		}
	}
	if status, _, _ := k.send("HEAD", confs, nil, map[string]string{"X-CSRF-Token": "Fetch"}); status < 400 {
		t.Errorf("HEAD gives %d", status)
	}
}

func TestSharedSessionLosesItsToken(t *testing.T) {
	k := open(t, s4double.Options{})
	k.SetTraps(s4double.Traps{SharedSessionsBreak: true})
	order := k.order()
	k.login(confs)
	post := func() int {
		status, _, _ := k.post(confs+"ProdnOrdConf2", confirmation(order, "0010", "1"))
		return status
	}
	if status := post(); status != 201 {
		t.Errorf("one request after the other gives %d", status)
	}
	release := k.Hold(k.cookies)
	if status := post(); status != 403 {
		t.Errorf("two requests at once give %d, want 403", status)
	}
	release()
	if status := post(); status != 403 {
		t.Errorf("the token is back without being fetched: %d", status)
	}
	k.login(confs)
	if status := post(); status != 201 {
		t.Errorf("with a new token it gives %d", status)
	}
}

func TestWhatTheMetadataDoNotAllowIsRefused(t *testing.T) {
	k := open(t, s4double.Options{})
	order := k.order()
	k.login(confs)
	for name, change := range map[string]func(map[string]any){
		"unknown property":  func(m map[string]any) { m["Yield"] = "1" },
		"number as number":  func(m map[string]any) { m["ConfirmationYieldQuantity"] = 1 },
		"four decimals":     func(m map[string]any) { m["ConfirmationYieldQuantity"] = "1.0001" },
		"eleven digits":     func(m map[string]any) { m["ConfirmationYieldQuantity"] = "12345678901" },
		"long order":        func(m map[string]any) { m["OrderID"] = "1234567890123" },
		"long operation":    func(m map[string]any) { m["OrderOperation"] = "00010" },
		"date as text":      func(m map[string]any) { m["PostingDate"] = "2026-03-01" },
		"key that is none":  func(m map[string]any) { m["ExternalSystemConfirmation"] = "ABC" },
		"flag as text":      func(m map[string]any) { m["IsFinalConfirmation"] = "X" },
		"unit of another":   func(m map[string]any) { m["ConfirmationUnitISOCode"] = "KGM" },
		"unknown operation": func(m map[string]any) { m["OrderOperation"] = "0099" },
	} {
		in := confirmation(order, "0010", "1")
		change(in)
		if status, _, text := k.post(confs+"ProdnOrdConf2", in); status != 400 || strings.HasPrefix(code(text), "not an error") {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for _, method := range []string{"PATCH", "DELETE", "PUT"} {
		if status, _, _ := k.send(method, confs+"ProdnOrdConf2(ConfirmationGroup='207',ConfirmationCount='1')", "{}", map[string]string{"X-CSRF-Token": k.token}); status != 405 {
			t.Errorf("%s gives %d, want 405: confirmations cannot be changed", method, status)
		}
	}
	if x := k.Totals(order); x.Confirmations != 0 {
		t.Errorf("%d confirmations were made", x.Confirmations)
	}
}

// The same key twice is two confirmations; the same RequestID twice is one, until it is forgotten.
func TestOnlyTheRequestIDKeepsADuplicateAway(t *testing.T) {
	now := time.Now()
	k := open(t, s4double.Options{Now: func() time.Time { return now }})
	order := k.order()
	k.login(confs)
	key := confs + "ProdnOrdConf2?$filter=ExternalSystemConfirmation eq guid'a7c6e446-75e9-8f5a-8066-09f68bb10667'"
	for range 2 {
		if status, _, text := k.post(confs+"ProdnOrdConf2", confirmation(order, "0020", "1")); status != 201 {
			t.Fatalf("%d %s", status, text)
		}
	}
	if n := len(k.rows(key)); n != 2 {
		t.Errorf("the key finds %d, want 2", n)
	}
	first := ""
	created := now.UTC().Format(time.RFC3339)
	for _, want := range []struct {
		status, holds int
		result        string
		later         time.Duration
	}{{201, 3, "accepted", 0}, {201, 3, "accepted", time.Hour}, {400, 3, "", 6 * time.Hour}, {400, 3, "", 12 * time.Hour}} {
		now = now.Add(want.later)
		status, h, text := k.post(confs+"ProdnOrdConf2", confirmation(order, "0020", "1"), "RequestID", strings.Repeat("A1", 16), "RepeatabilityCreation", created)
		if status != want.status || h.Get("RepeatabilityResult") != want.result {
			t.Errorf("after %s: %d %q, want %d %q", want.later, status, h.Get("RepeatabilityResult"), want.status, want.result)
		}
		if status == 400 && code(text) != "/IWBEP/CM_COS/005" {
			t.Errorf("the code is %s", code(text))
		}
		if first == "" {
			first = string(text)
		}
		if status == 201 && string(text) != first {
			t.Errorf("the repetition is answered %s, the first %s", text, first)
		}
		if n := len(k.rows(key)); n != want.holds {
			t.Errorf("the key finds %d, want %d", n, want.holds)
		}
	}
	k.SetTraps(s4double.Traps{NoRepeats: true})
	for range 2 {
		if _, h, _ := k.post(confs+"ProdnOrdConf2", confirmation(order, "0020", "1"), "RequestID", strings.Repeat("B1", 16), "RepeatabilityCreation", now.UTC().Format(time.RFC3339)); h.Get("RepeatabilityResult") != "unsupported" {
			t.Errorf("a system without says %q", h.Get("RepeatabilityResult"))
		}
	}
	if n := len(k.rows(key)); n != 5 {
		t.Errorf("the key finds %d, want 5", n)
	}
}

// Automatic receipt and backflush, and what they do when there is not enough.
func TestConfirmationIsSavedAlthoughItsMovementFails(t *testing.T) {
	k := open(t, s4double.Options{})
	order := k.order()
	k.login(confs)
	k.PutStock("RM124", "1710", "171B", d("3"))
	if status, _, text := k.post(confs+"ProdnOrdConf2", confirmation(order, "0010", "2")); status != 201 {
		t.Fatalf("%d %s", status, text)
	}
	x := k.Totals(order)
	if !x.Yield.Equal(d("2")) || !x.Issued["RM124"].IsZero() || k.Failed(order) != 1 || !x.Received.IsZero() {
		t.Errorf("totals %+v with %d failed, want 2 confirmed, nothing issued, 1 failed", x, k.Failed(order))
	}
	k.login(orders)
	_, _, text := k.post(orders+"TechlyCmpltOrder?ManufacturingOrder='"+order+"'", nil)
	if !bytes.Contains(text, []byte(`"SystemMessageType":"E"`)) || !bytes.Contains(text, []byte(`"688"`)) {
		t.Errorf("completion is answered %s", text)
	}
	k.PutStock("RM124", "1710", "171B", d("10"))
	if k.Reprocess() != 0 || !k.Totals(order).Issued["RM124"].Equal(d("4")) || !k.StockOf("RM124", "1710", "171B").Equal(d("6")) {
		t.Errorf("after processing: %+v, stock %s", k.Totals(order), k.StockOf("RM124", "1710", "171B"))
	}
	k.login(confs)
	k.post(confs+"ProdnOrdConf2", confirmation(order, "0020", "2")) // the last operation receives
	if x := k.Totals(order); !x.Received.Equal(d("2")) {
		t.Errorf("received %s, want 2", x.Received)
	}
	moves := k.rows(confs + "ProdnOrdConf2(ConfirmationGroup='208',ConfirmationCount='1')/to_ProdnOrdConfMatlDocItm")
	if len(moves) != 1 || moves[0]["GoodsMovementType"] != "101" || moves[0]["QuantityInEntryUnit"] != "2" || moves[0]["EntryUnit"] != "PC" {
		t.Errorf("movements are %v", moves)
	}
	status, _, text := k.post(confs+"CancelProdnOrdConf?ConfirmationGroup='208'&ConfirmationCount='1'&ExternalSystemConfirmation=guid'00000000-0000-0000-0000-000000000001'", nil)
	if x := k.Totals(order); status != 200 || !x.Received.IsZero() || x.Confirmations != 3 {
		t.Errorf("cancelled with %d %s: %+v", status, text, x)
	}
	if status, _, text := k.post(confs+"CancelProdnOrdConf?ConfirmationGroup='208'&ConfirmationCount='1'", nil); status != 400 || code(text) != "RU/016" {
		t.Errorf("the second cancellation gives %d %s", status, text)
	}
}

func TestMaterialDocumentsFollowTheirCodes(t *testing.T) {
	k := open(t, s4double.Options{})
	order := k.order()
	k.login(docs)
	document := func(code, kind, quantity, posting string) map[string]any {
		return map[string]any{"GoodsMovementCode": code, "ReferenceDocument": "abcdefghijklmnop", "to_MaterialDocumentItem": []any{map[string]any{"Material": "RM124", "Plant": "1710",
			"StorageLocation": "171B", "GoodsMovementType": kind, "ManufacturingOrder": order, "EntryUnitISOCode": "KGM", "QuantityInEntryUnit": quantity, "MaterialDocumentPostingType": posting,
			"Reservation": "22", "ReservationItem": "1"}}}
	}
	for _, test := range []struct {
		code, kind, quantity, posting string
		status                        int
		message, withdrawn            string
	}{{"03", "261", "5", "", 201, "", "5"}, {"01", "261", "5", "", 400, "M7/012", "5"}, {"03", "261", "1000", "", 400, "M7/021", "5"}, {"06", "262", "1", "", 400, "M7/012", "5"},
		{"03", "262", "1", "", 201, "", "5"}, {"06", "262", "1", "1", 201, "", "4"}, {"03", "999", "1", "", 400, "M7/012", "4"}} {
		status, _, text := k.post(docs+"A_MaterialDocumentHeader", document(test.code, test.kind, test.quantity, test.posting))
		if status != test.status || (status == 400 && code(text) != test.message) {
			t.Errorf("%+v gives %d %s", test, status, text)
		}
		if got := k.Withdrawn(order, "RM124"); !got.Equal(d(test.withdrawn)) {
			t.Errorf("%+v leaves %s withdrawn", test, got)
		}
	}
	k.SetPeriod(time.Now().UTC().Format("2006-01"), false)
	if status, _, text := k.post(docs+"A_MaterialDocumentHeader", document("03", "261", "1", "")); status != 400 || code(text) != "M7/053" {
		t.Errorf("a closed period gives %d %s", status, text)
	}
	k.SetPeriod(time.Now().UTC().Format("2006-01"), true)
	found := k.rows(docs + "A_MaterialDocumentHeader?$filter=ReferenceDocument eq 'ABCDEFGHIJKLMNOP'&$orderby=MaterialDocument&$expand=to_MaterialDocumentItem")
	if len(found) != 3 {
		t.Fatalf("the reference, in upper case, finds %d", len(found))
	}
	cancel := docs + fmt.Sprintf("Cancel?MaterialDocumentYear='%s'&MaterialDocument='%s'", found[0]["MaterialDocumentYear"], found[0]["MaterialDocument"])
	for i, want := range []int{200, 400} {
		if status, _, text := k.post(cancel, nil); status != want {
			t.Errorf("cancellation %d gives %d %s", i+1, status, text)
		}
	}
	if stock := k.rows(stocks + "A_MatlStkInAcctMod?$filter=Material eq 'RM124'"); len(stock) != 1 || stock[0]["MatlWrhsStkQtyInMatlBaseUnit"] != "102.000" {
		t.Errorf("stock is %v", stock)
	}
}

func TestPagesAreCutByClientAndServer(t *testing.T) {
	k := open(t, s4double.Options{})
	var all []string
	for range 5 {
		all = append(all, k.order())
	}
	page := k.get(orders + "A_ProductionOrder_2?$orderby=ManufacturingOrder desc&$top=2&$skip=1&$inlinecount=allpages&$expand=to_ProductionOrderOperation,to_ProductionOrderStatus")
	rows := page["results"].([]any)
	first := rows[0].(map[string]any)
	if page["__count"] != "5" || len(rows) != 2 || first["ManufacturingOrder"] != all[3] || len(first["to_ProductionOrderOperation"].(map[string]any)["results"].([]any)) != 2 {
		t.Errorf("page is %v", page)
	}
	k.SetTraps(s4double.Traps{PageSize: 2})
	seen := 0
	for path := orders + "A_ProductionOrder_2?$filter=LastChangeDateTime ge '20200101000000' and (ProductionPlant eq '1710' or Plant eq '1')"; path != ""; {
		page := k.get(path)
		seen += len(page["results"].([]any))
		path, _ = page["__next"].(string)
	}
	if seen != 5 {
		t.Errorf("the server's pages show %d orders, want 5", seen)
	}
	for _, bad := range []string{"Nothing eq 'x'", "LastChangeDateTime ge", "LastChangeDateTime like '2'", "(Plant eq '1'", "TotalQuantity eq 'x'"} {
		if status, _, text := k.send("GET", orders+"A_ProductionOrder_2?$filter="+url.QueryEscape(bad), nil, nil); status != 400 {
			t.Errorf("filter %q gives %d %s", bad, status, text)
		}
	}
	if status, _, _ := k.send("GET", confs+"ProdnOrdConf2?$filter=ExternalSystemConfirmation eq 'a7c6e446-75e9-8f5a-8066-09f68bb10667'", nil, nil); status != 400 {
		t.Errorf("a key as text gives %d, want 400", status)
	}
}

func TestETagGuardsFunctions(t *testing.T) {
	k := open(t, s4double.Options{})
	order := k.order()
	k.login(orders)
	_, h, _ := k.send("GET", orders+"A_ProductionOrder_2('"+order+"')", nil, nil)
	if status, _, _ := k.post(orders+"TechlyCmpltOrder?ManufacturingOrder='"+order+"'", nil, "If-Match", `W/"'19990101000000'"`); status != 412 {
		t.Errorf("a stale ETag gives %d, want 412", status)
	}
	if status, _, text := k.post(orders+"TechlyCmpltOrder?ManufacturingOrder='"+order+"'", nil, "If-Match", h.Get("ETag")); status != 200 || !k.Totals(order).Order.TechnicallyComplete {
		t.Errorf("the right one gives %d %s", status, text)
	}
}

func TestMetadataAreWellFormedAndNameEveryField(t *testing.T) {
	k := open(t, s4double.Options{})
	for _, service := range []string{orders, confs, docs, stocks} {
		_, _, text := k.send("GET", service+"$metadata", nil, nil)
		var doc struct {
			Types []struct {
				Properties []struct {
					Name string `xml:"Name,attr"`
				} `xml:"Property"`
			} `xml:"DataServices>Schema>EntityType"`
		}
		if err := xml.Unmarshal(text, &doc); err != nil || len(doc.Types) == 0 || len(doc.Types[0].Properties) < 10 {
			t.Errorf("%s: %v, %d types", service, err, len(doc.Types))
		}
	}
}

// FuzzRequest sends anything as path, options and body: the server answers, and a refused posting books nothing.
func FuzzRequest(f *testing.F) {
	f.Add("ProdnOrdConf2", "$filter=ExternalSystemConfirmation eq guid'a7c6e446-75e9-8f5a-8066-09f68bb10667'", `{"OrderID":"1000001","OrderOperation":"0010","ConfirmationYieldQuantity":"1"}`)
	f.Add("A_ProductionOrder_2('1000001')/to_ProductionOrderOperation", "$expand=x&$top=-1", `{}`)
	f.Add("A_ProductionOrder_2", "$filter=((((Plant eq '1'))) or Material ne 'a''b'&$orderby=Material desc,", `[]`)
	f.Add("CancelProdnOrdConf", "ConfirmationGroup='207'&ConfirmationCount='", ``)
	f.Add("A_MaterialDocumentHeader", "$skiptoken=99&$skip=7", `{"to_MaterialDocumentItem":{"results":[{"QuantityInEntryUnit":"1e9"}]}}`)
	f.Fuzz(func(t *testing.T, path, query, body string) {
		s := s4double.New(s4double.Options{})
		s.PutMaterial(s4double.Material{Number: "FG226", Unit: "PC", UnitISO: "PCE"})
		order := s.CreateOrder(s4double.Order{Material: "FG226", Plant: "1710", StorageLocation: "171A", Quantity: d("10"), Released: true, Operations: []s4double.Operation{{Number: "0010"}}})
		h := s.Handler()
		call := func(method, service string, header http.Header) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "/", strings.NewReader(body))
			r.URL = &url.URL{Path: service + path, RawQuery: query}
			if header == nil {
				r.URL = &url.URL{Path: service}
				header = http.Header{"X-Csrf-Token": {"Fetch"}}
			}
			r.Header = header
			r.SetBasicAuth("LINEKEEPER", "secret")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		for _, service := range []string{orders, confs, docs, stocks} {
			call("GET", service, http.Header{})
			login := call("GET", service, nil)
			header := http.Header{"X-Csrf-Token": {login.Header().Get("X-CSRF-Token")}}
			for _, c := range login.Result().Cookies() {
				header.Add("Cookie", c.Name+"="+c.Value)
			}
			before := s.Totals(order)
			if w := call("POST", service, header); w.Code >= 400 {
				if x := s.Totals(order); x.Confirmations != before.Confirmations || x.Documents != before.Documents {
					t.Fatalf("%d %s changed the books", w.Code, w.Body)
				}
			}
		}
	})
}
