package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
)

// A real Tryton is put back to a copy while a hub runs beside it. What was written since is found gone and brought forward once, in
// its order, through a line that loses answers; what a person must decide waits for one click.
func TestWritesThatARealERPLostComeBackOnce(t *testing.T) {
	seed := uint64(numberFrom(t, "LINEKEEPER_SEED", time.Now().UnixNano()%1_000_000_000))
	t.Logf("LINEKEEPER_SEED=%d", seed)
	books := tradeBooks{newTrytonBooks(t)}
	books.db.SetMaxIdleConns(0) // a connection would not outlive the database
	r := &tradeRun{parked: map[string]string{}, front: &front{books: books, random: rand.New(rand.NewPCG(seed, 4))}}
	server := httptest.NewServer(r.front)
	t.Cleanup(server.Close)
	t.Cleanup(r.front.calm)
	r.soleHub = newSoleHub(t, "synchub", func(dir string) string {
		// One call at a time: where two are in each other's way, Tryton undoes one and leaves its number out. What got another number
		// than before waits for a person, and this is about what does not.
		return strings.Replace(books.section(dir, server.URL), "parallel: 4", "parallel: 1", 1) + `
business:
  - {erp: erp, kinds: [purchase_order, sales_order, shipment, cycle_count], every: 2s, write: true}
reconcile: {every: 1s, settle: 1s, writes_every: 5s, writes_window: 1h}
log: {level: error}
`
	})
	p := r.start()
	finish := func(deals ...*deal) {
		t.Helper()
		r.deals = append(r.deals, deals...)
		stop := make(chan struct{})
		defer time.AfterFunc(3*time.Minute, func() { close(stop) }).Stop()
		if !r.drive(stop) {
			t.Fatalf("not all is done; parked: %v", r.parked)
		}
	}
	name := func(kind string, n int) string { return fmt.Sprintf("%s-%d-%d", kind, seed, n) }
	half := bought(name("PR", 0)) // is a draft when the copy is taken
	rest := half.steps
	half.steps = rest[:1]
	finish(half, bought(name("PR", 1)), sold(name("CO", 1)))
	books.erp.Backup(t)
	half.steps = rest
	finish(bought(name("PR", 2)), sold(name("CO", 2)), counted(name("CC", 2), "111"))
	r.front.mu.Lock()
	r.front.share = share{lost: 0.10, asked: 0.01}
	r.front.mu.Unlock()
	books.erp.Restore(t)

	t.Cleanup(func() {
		if t.Failed() {
			r.tellWrites()
		}
	})
	var counted api.Discrepancy
	realparts.Eventually(t, 2*time.Minute, "all that may come by itself is back", func() error {
		live, err := r.live()
		if err == nil && (len(live) != 1 || !strings.Contains(live[0].Why, "count again")) {
			err = fmt.Errorf("live are %+v", live)
		}
		if err == nil {
			counted = live[0]
		}
		return err
	})
	// What is counted again by the rule of one click.
	if err := r.call("POST", fmt.Sprintf("/v1/discrepancies/%d/act", counted.ID), map[string]string{"note": "nothing has moved that stock"}, nil); err != nil {
		t.Fatal(err)
	}
	realparts.Eventually(t, 3*time.Minute, "the count is back, too", func() error {
		live, err := r.live()
		if err == nil && len(live) > 0 {
			err = fmt.Errorf("live are %+v", live)
		}
		return err
	})
	lost, doubled := r.check(books)
	renewed := 0
	for _, d := range r.deals {
		for n, key := range d.writes {
			var w api.WriteLife
			if err := r.call("GET", "/v1/writes/"+url.PathEscape(key), nil, &w); err != nil {
				t.Fatal(err)
			}
			if w.State != "verified" || w.Code != "" || w.Document != d.documents[n] {
				t.Errorf("write %d of %s is %s %s as %s, was %s", n, d.name, w.State, w.Code, w.Document, d.documents[n])
			}
			for _, x := range w.Life {
				if x.Step == "renewed" {
					renewed++
				}
			}
		}
	}
	p.kill()
	r.front.mu.Lock()
	defer r.front.mu.Unlock()
	t.Logf("brought_forward=%d lost_replies=%d lost=%d doubled=%d", renewed, r.front.lost, lost, doubled)
	if renewed != 8 {
		t.Errorf("%d writes were brought forward, want the 8 that were made after the copy", renewed)
	}
}

// tellWrites logs the life of each write that is not as it should be.
func (r *tradeRun) tellWrites() {
	for _, d := range r.deals {
		for _, key := range d.writes {
			var w api.WriteLife
			if err := r.call("GET", "/v1/writes/"+url.PathEscape(key), nil, &w); err != nil || w.State == "verified" && w.Code == "" {
				continue
			}
			r.note(w.Write)
			r.t.Log(r.parked[w.Key])
		}
	}
}

// live are the discrepancies about which something has to happen.
func (r *tradeRun) live() ([]api.Discrepancy, error) {
	var page struct {
		Items []api.Discrepancy `json:"items"`
	}
	err := r.call("GET", "/v1/discrepancies?live=true", nil, &page)
	return page.Items, err
}
