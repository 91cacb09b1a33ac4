package d365_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/d365"
	"github.com/linekeeper/linekeeper/hub/connector/d365/d365double"
)

// FuzzAnswer gives any text as D365's answer to every question of a look-up: an effect is found only where a message is said to
// be processed or a journal carries the key.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"value":[]}`, `{"value":[{"MessageId":"1","MessageStatus":"Processed","MessageContent":"x"}]}`, `{"value":null}`, `{}`, ``, `<html>`, `[]`,
		`{"value":[{"ProductionOrderNumber":"P000123","GoodQuantity":1e999999999}]}`, `{"value":[null]}`} {
		f.Add(s)
	}
	b := newBench(f, d365double.Traps{KeyField: keyField})
	p := confirmation(b.order(f, "40"), "1", "0")
	intent, _, err := b.connect(f).Prepare(f.Context(), p)
	if err != nil {
		f.Fatal(err)
	}
	var text string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }))
	f.Cleanup(server.Close)
	c := b.connect(f, func(c *d365.Config) { c.URL = server.URL })
	f.Fuzz(func(t *testing.T, answer string) {
		text = answer
		if strings.Contains(answer, "nextLink") {
			return // the same page for ever is bounded elsewhere
		}
		found, err := c.Lookup(t.Context(), p, intent)
		if err == nil && found.Presence == connector.Found && !strings.Contains(answer, p.Fact.Key.String()) {
			t.Errorf("%q was taken for an effect: %+v", answer, found)
		}
		if _, err := c.Verify(t.Context(), p, intent, connector.Document{Number: "1"}); err == nil && found.Presence == "" {
			t.Errorf("%q verifies and cannot be looked up", answer)
		}
	})
}
