package dispatch_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
)

func (w *world) approve(s mapping.Set, from time.Time, rows ...mapping.Row) {
	w.t.Helper()
	ctx := context.Background()
	all, _, err := w.s.MappingVersions(ctx, s.Name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatal(err)
	}
	v, err := w.s.AddMappingVersion(ctx, s, len(all), mapping.Content{Rows: rows, Tests: []mapping.Test{{From: "not there", Missing: true}}}, "anna", "test", true)
	if err == nil {
		_, err = w.s.ChangeMapping(ctx, s.Name, v.Number, "approved", "bert", "test", func(v *mapping.Version, all []mapping.Version, now time.Time) error {
			return v.Approve(all, "bert", "test", from, now, mapping.Dry{Set: s.Name, Version: v.Number}, nil)
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.pass(time.Second)
}

// last is the order that was sent last.
func (w *world) last(plant, agent string) *pb.WorkOrder {
	w.t.Helper()
	a, err := w.s.Agent(context.Background(), plant, agent)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := w.s.DeliveriesAfter(context.Background(), a.ID, 0, 100)
	if err != nil || len(list) == 0 {
		w.t.Fatal(err, "nothing was sent")
	}
	var o pb.WorkOrder
	if err := proto.Unmarshal(list[len(list)-1].Body, &o); err != nil {
		w.t.Fatal(err)
	}
	return &o
}

var weights = mapping.Set{Name: "weights", Kind: mapping.Unit, ERP: "erp"}

func weighed(no string, s object.OrderState) object.WorkOrder {
	o := order(no, s)
	o.Item, o.Quantity = "M-1", object.Quantity{Value: decimal.NewFromInt(2500), Unit: "GRM"}
	return o
}

func TestOrderGoesDownInThePlantsWordsAndAgainWhenTheseChange(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.approve(weights, time.Time{}, mapping.Row{From: "KGM", To: "GRM", Factor: "1000"})
		w.approve(mapping.Set{Name: "items", Kind: mapping.Item}, time.Time{}, mapping.Row{From: "steel", To: "M-1"})
		w.approve(mapping.Set{Name: "sites", Kind: mapping.Site}, time.Time{}, mapping.Row{From: "1000", To: "DE-ULM"})
		o := weighed("WO-1", object.OrderReleased)
		o.Site = "DE-ULM" // the routes are in our words
		w.say(o)
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2.5")
		if got := w.last("ulm", "edge1"); got.GetQuantity().GetUnit() != "KGM" || got.GetItem() != "steel" {
			t.Errorf("sent %v", got)
		}
		stored, err := w.s.Order(t.Context(), "erp", "WO-1")
		if err != nil || stored.Order.Quantity.Unit != "GRM" || stored.Order.Item != "M-1" || stored.Order.Site != "DE-ULM" {
			t.Errorf("the system's own words are not kept: %+v, %v", stored.Order, err)
		}
		w.say(o) // nothing new
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2.5")
		w.approve(weights, time.Now().Add(time.Hour), mapping.Row{From: "GRM", To: "GRM"})
		w.pass(59 * time.Minute)
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2.5")
		w.pass(2 * time.Minute)
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2.5, WO-1/2 RELEASED 2500")
	})
}

func TestOrderWithAnUnknownUnitWaitsVisiblyAndStopsNoOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.approve(weights, time.Time{}, mapping.Row{From: "C62", To: "C62"})
		w.say(weighed("WO-1", object.OrderReleased))
		w.say(order("WO-2", object.OrderReleased))
		w.want("ulm", "edge1", "WO-2/1 RELEASED 100")
		stored, err := w.s.Order(t.Context(), "erp", "WO-1")
		if err != nil || !strings.HasPrefix(stored.Unroutable, "mapping_missing: ") || !strings.Contains(stored.Unroutable, `"GRM"`) || stored.Order.Plant != "ulm" {
			t.Errorf("%+v, %v", stored, err)
		}
		w.approve(weights, time.Time{}, mapping.Row{From: "C62", To: "C62"}, mapping.Row{From: "KGM", To: "GRM", Factor: "1000"})
		w.want("ulm", "edge1", "WO-2/1 RELEASED 100, WO-1/2 RELEASED 2.5")
		if stored, err = w.s.Order(t.Context(), "erp", "WO-1"); err != nil || stored.Unroutable != "" {
			t.Errorf("%q, %v", stored.Unroutable, err)
		}
	})
}

// An order that the plant has is not taken away because a mapping lost its unit, and its cancelling gets through.
func TestOrderThatCannotBeSaidAnyMoreStaysUntilItIsCancelled(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.say(weighed("WO-1", object.OrderReleased))
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2500")
		w.approve(weights, time.Time{}, mapping.Row{From: "C62", To: "C62"})
		w.say(weighed("WO-1", object.OrderReleased))
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2500")
		w.say(weighed("WO-1", object.OrderCancelled))
		w.want("ulm", "edge1", "WO-1/1 RELEASED 2500, WO-1/2 CANCELLED 2500")
	})
}
