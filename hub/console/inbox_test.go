package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

func TestTheInboxShowsWhatWaitsWhoseItIsAndTheEvidence(t *testing.T) {
	w := newWorld(t)
	w.page("/inbox", "Nothing waits for a person")
	w.fill()
	body := w.page("/inbox", "is out of stock", "unknown", "warehouse", "fill up the stock", "identity in use", "payload.qty", "Heals so far: 0")
	f, err := w.s.FactByKey(t.Context(), steel.Key.String())
	if err != nil {
		t.Fatal(err)
	}
	ref := store.InboxRow{Kind: store.InboxPosting, ID: f.ID}.Ref()
	if !strings.Contains(body, `href="/inbox/`+ref+`"`) {
		t.Errorf("no link to %s", ref)
	}
	w.update(func(tx *store.Tx) error {
		return tx.PutExchanges(f.ID, "post", []store.Exchange{{At: time.Now(), Method: "POST", Address: "https://erp.example/movements", Request: `{"item": "STEEL"}`, Status: "422 Unprocessable",
			Answer: "<b>no stock</b>"}})
	})
	w.page("/inbox/"+ref, "https://erp.example/movements", "<b>no stock</b>", "422 Unprocessable", "Correct and post", "Replay", "Refused by the ERP", "1.125 kg")
	w.page("/inbox?owner=quality", "Nothing here of that kind")

	if rec := w.call("POST", "/inbox/"+ref, url.Values{"owner": {"quality"}, "person": {"anna"}, "note": {"knows the lot"}}); rec.Code != http.StatusSeeOther {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.page("/inbox?person=anna", "anna", "is out of stock")
	if rec := w.call("POST", "/inbox/"+ref, url.Values{}); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.call("GET", "/inbox/posting:999999", nil); rec.Code != http.StatusNotFound {
		t.Errorf("%d", rec.Code)
	}

	close(w.erp.stock)
	page := "/facts/" + steel.Key.String() + "/evidence"
	if rec := w.call("POST", page, url.Values{"action": {"correct"}, "lot": {"L77"}, "order_no": {" "}, "note": {"the scale named no lot"}}); rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/facts/"+steel.Key.String() {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.becomes("verified")
	w.page(page, "the scale named no lot", "L77", "Take back", "4900000001")
	w.page("/facts/"+steel.Key.String(), "Corrected by a person", "Evidence, correction")
	if rec := w.call("POST", page, url.Values{"action": {"melt"}}); rec.Code != http.StatusBadRequest {
		t.Errorf("%d", rec.Code)
	}
}

func TestThePageOfMessagesShowsWhatDidNotArriveAndWhy(t *testing.T) {
	w := newWorld(t)
	w.page("/messages", "No message of that kind")
	m := store.Message{MessageID: "msg_1", Receiver: "ops", Topic: "ulm tier 0", Subject: "[ulm] 10,000 postings", Entries: 10_000, Body: "{}"}
	if err := w.s.AddMessage(t.Context(), &m, []store.Notice{{Ref: "posting:1"}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	m.Tries, m.Reason, m.NextAt = 3, "connection refused", time.Now().Add(time.Minute)
	if err := w.s.PutMessage(t.Context(), m, "messages do not arrive: connection refused", "start it", false); err != nil {
		t.Fatal(err)
	}
	w.page("/messages?state=due", "ops", "[ulm] 10,000 postings", "connection refused", "again at")
	w.page("/inbox", "receiver ops: not delivered", "connection refused", "start it")
	m.State, m.Answer, m.Reason = store.MessageDelivered, "200 OK", ""
	if err := w.s.PutMessage(t.Context(), m, "", "", true); err != nil {
		t.Fatal(err)
	}
	w.page("/messages", "200 OK", "delivered")
	w.page("/messages?state=due", "No message of that kind")
	w.page("/inbox", "Nothing waits for a person")
}

func TestManyPostingsAreReplayedFromAPage(t *testing.T) {
	w := newWorld(t)
	w.fill()
	w.page("/replays", "None was begun yet")
	form := url.Values{"action": {"count"}, "code": {"no_stock"}, "per_minute": {"30"}, "note": {"stock came"}}
	if rec := w.call("POST", "/replays", form); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "1 posting would be") || !strings.Contains(rec.Body.String(), steel.Key.String()) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	form.Set("action", "begin")
	if rec := w.call("POST", "/replays", form); rec.Code != http.StatusSeeOther {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.page("/replays", "stock came", "running", "Cancel")
	if rec := w.call("POST", "/replays/1/cancel", url.Values{"note": {"too early"}}); rec.Code != http.StatusSeeOther {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.page("/replays", "cancelled", "too early")
	form.Set("per_minute", "many")
	if rec := w.call("POST", "/replays", form); rec.Code != http.StatusBadRequest {
		t.Errorf("%d", rec.Code)
	}
}
