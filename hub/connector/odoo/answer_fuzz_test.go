package odoo_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/odoo"
	"github.com/linekeeper/linekeeper/hub/connector/odoo/odoodouble"
)

// FuzzAnswer gives any text as Odoo's answer to one of the exchanges of a look-up and of a list: never a panic, and an effect is found only where the
// books have one.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`[]`, `true`, `[{"id":1,"name":"WH/SF/1","state":"done","x_fact_key":"K"}]`, `[{"id":1,"quantity":1e999999999}]`, `{"name":"odoo.exceptions.UserError","message":"no"}`,
		`{"jsonrpc":"2.0","id":1,"result":[]}`, `{"jsonrpc":"2.0","id":2,"error":{"code":200,"data":{"name":"odoo.exceptions.AccessError"}}}`, `<html>`, ``, `null`, `[null]`, `{"type":"ir.actions.act_window"}`,
		`[{"id":1,"product_id":[1],"state":"draft"}]`, `[{"id":1,"write_date":"now"}]`} {
		for nth := range 12 {
			f.Add(200, text, nth, true)
			f.Add(422, text, nth, false)
		}
	}
	b := newBench(f, odoodouble.Options{}, nil)
	p := made(b.order(f, "40"), "1", "0")
	intent, _, err := b.connect(f).Prepare(f.Context(), p)
	if err != nil {
		f.Fatal(err)
	}
	var status, nth, count atomic.Int64
	var text atomic.Value
	double := b.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count.Add(1)-1 != nth.Load() {
			double.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(int(status.Load()))
		io.WriteString(w, text.Load().(string))
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, code int, answer string, at int, old bool) {
		if code < 200 || code > 599 {
			return
		}
		cfg := b.config()
		cfg.URL = server.URL
		if old {
			rpc(&cfg)
		}
		c, err := odoo.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		status.Store(int64(code))
		text.Store(answer)
		for _, ask := range []func(){
			func() {
				x, err := c.Lookup(t.Context(), p, intent)
				if err == nil && x.Presence == connector.Found && len(b.Transfers(p.Fact.Key.String())) == 0 && !strings.Contains(answer, "done") {
					t.Errorf("%d %q at %d: found %+v", code, answer, at, x)
				}
			},
			func() { _, _ = c.ListChanged(t.Context(), "") },
			func() { _, _ = c.Effects(t.Context(), p.Fact.OrderNo()) },
			func() { _, _ = c.Inventory(t.Context(), nil) },
		} {
			nth.Store(int64(at & 15))
			count.Store(0)
			ask()
		}
	})
}
