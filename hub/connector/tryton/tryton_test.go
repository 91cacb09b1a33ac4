package tryton_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// plant is a real Tryton with a proxy before it that loses what it is told to lose.
type plant struct {
	erp   *realparts.TrytonServer
	proxy *connectortest.Proxy
}

func startPlant(t *testing.T) *plant {
	erp := realparts.Tryton(t)
	p := &plant{erp: erp, proxy: connectortest.NewProxy(t, erp.URL)}
	p.proxy.EndSessions = func() { p.exec(t, `DELETE FROM ir_session`); p.erp.Forget() }
	return p
}

func (p *plant) config() tryton.Config {
	return tryton.Config{URL: p.proxy.URL + "/erp/", User: p.erp.User, Password: p.erp.Password,
		Sites: map[string]string{"WH": "ulm"}, PageSize: 20}
}

func (p *plant) connect(t testing.TB, change ...func(*tryton.Config)) *tryton.Connector {
	t.Helper()
	config := p.config()
	for _, f := range change {
		f(&config)
	}
	c, err := tryton.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (p *plant) order(t testing.TB, quantity string) string {
	t.Helper()
	return p.erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: quantity})
}

var floorStates = map[string]object.OrderState{"draft": object.OrderPlanned, "waiting": object.OrderReleased, "assigned": object.OrderReleased,
	"running": object.OrderInProgress, "done": object.OrderCompleted, "cancelled": object.OrderCancelled}

func (p *plant) harness(t *testing.T) connectortest.Harness {
	return connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector { return p.connect(t) },
		Item:    "FG-GEAR", ItemUnit: "C62", Component: "RM-STEEL", ComponentUnit: "KGM", PerItem: "2.5", Site: "ulm",
		CreateOrder:    p.order,
		ChangeQuantity: p.erp.ChangeQuantity,
		CancelOrder:    p.erp.CancelOrder,
		CloseOrder: func(t testing.TB, order string) {
			id := []int{p.erp.OrderID(t, order)}
			for _, step := range []string{"assign_try", "run", "done"} { // the planner's way: Tryton consumes what was planned
				p.erp.Call(t, "production", step, id)
			}
		},
		Effects: func(t testing.TB, order string) connectortest.Effects {
			t.Helper()
			made, used := p.erp.Effects(t, order, "FG-GEAR"), p.erp.Effects(t, order, "RM-STEEL")
			dec := decimal.RequireFromString
			return connectortest.Effects{Yield: dec(made.Yield).Sub(dec(made.Issued)), Scrap: dec(made.Scrap), Issued: dec(used.Issued), Returned: dec(used.Returned),
				Documents: made.Done + used.Done + made.Loose + used.Loose, State: floorStates[p.erp.OrderState(t, order)]}
		},
		Faults: p.proxy, Sparse: true, LossyPostings: 40,
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			db, err := sql.Open("pgx", p.erp.DSN)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			// Tryton stamps what it writes with the start of its transaction, too.
			if _, err := tx.Exec(`UPDATE production SET quantity = $1, write_date = CURRENT_TIMESTAMP WHERE number = $2`, quantity, order); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		},
		ExpireSessions: func(t testing.TB) { p.exec(t, `DELETE FROM ir_session`); p.erp.Forget() },
		Stock:          p.stock(t),
		Listing: connectortest.Listing{
			ByHand: p.byHand,
			Pending: func(testing.TB, string) func() { // the moves are added and noted, and never done
				p.proxy.Watch(func(body []byte) {
					if bytes.Contains(body, []byte(`"method":"model.stock.move.do"`)) {
						p.proxy.Arm(connectortest.LoseRequest, 1)
					}
				})
				return func() { p.proxy.Watch(nil) }
			},
			Without: map[string]string{"Pages": "a search without a limit gives all moves of an order"},
		},
		Troubles: map[connectortest.Trouble]connectortest.Switch{
			connectortest.OrderNotReleased: func(t testing.TB, order string) func() {
				id := []int{p.erp.OrderID(t, order)}
				p.erp.Call(t, "production", "draft", id)
				return func() { p.erp.Call(t, "production", "wait", id) }
			},
		},
		CannotShow: map[connectortest.Trouble]string{
			connectortest.OrderLocked:     "Tryton locks no orders; a change under way shows in OneIntentManyWorkersOneEffect",
			connectortest.SystemBusy:      "trytond never says so; a gateway's 503 is shown above",
			connectortest.Throttled:       "trytond throttles log-ins only; a gateway's 429 is shown above",
			connectortest.PeriodClosed:    "Tryton closes no period that reaches today; shown in ClosedPeriod",
			connectortest.OrderComplete:   "Tryton has no such state; done orders are shown in Rejections",
			connectortest.StockMissing:    "Tryton lets stock go below zero; check_stock is shown in BookStockIsCheckedWhenAsked",
			connectortest.NoRight:         "needs another account; shown in AccountWithoutRights",
			connectortest.MovementFailed:  "one write adds all moves; a posting that is half done is shown in KilledBetweenCreateAndDo",
			connectortest.ErrorInSuccess:  "all of Tryton's refusals come with status 200; shown in Rejections",
			connectortest.OnlyClaimed:     "Tryton answers after its commit; a step it ignores is shown in IgnoredTransitionIsNotTakenForSuccess",
			connectortest.BookedOtherwise: "Tryton changes no quantity; VerifySeesADifference shows the comparison",
			connectortest.BookedLater:     "Tryton books within the request; a late request is shown above",
			connectortest.BookedNever:     "Tryton books within the request",
			connectortest.ReadLate:        "Tryton reads the database that it writes",
			connectortest.DuplicateKey:    "Tryton knows no unique key; the timestamp does it, shown in OneIntentManyWorkersOneEffect",
			connectortest.NoSearch:        "the moves of an order can always be searched",
		},
	}
}

// byHand does so much of an order's planned output, as a person does in Tryton's own screens.
func (p *plant) byHand(t testing.TB, order, yield string) {
	t.Helper()
	db, err := sql.Open("pgx", p.erp.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var id int
	if err := db.QueryRow(`SELECT m.id FROM stock_move m JOIN production o ON o.id = m.production_output WHERE o.number = $1 AND m.state = 'draft'`, order).Scan(&id); err != nil {
		t.Fatal(err)
	}
	p.erp.Call(t, "stock.move", "write", []int{id}, map[string]any{"quantity": json.Number(yield)})
	p.erp.Call(t, "stock.move", "do", []int{id})
}

func (p *plant) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("pgx", p.erp.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatalf("execute %q: %v", statement, err)
	}
}

// rows reads rows straight from the database.
func (p *plant) rows(t testing.TB, query string, each func(scan func(...any)), args ...any) {
	t.Helper()
	db, err := sql.Open("pgx", p.erp.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("query %q: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		each(func(into ...any) {
			t.Helper()
			if err := rows.Scan(into...); err != nil {
				t.Fatalf("read a row of %q: %v", query, err)
			}
		})
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("query %q: %v", query, err)
	}
}

// One Tryton serves all these tests, because its start is the longest part of each.
func TestTryton(t *testing.T) {
	t.Parallel()
	p := startPlant(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *plant)
	}{
		{"Conformance", func(t *testing.T, p *plant) { connectortest.Run(t, p.harness(t)) }},
		{"KilledBetweenCreateAndDo", killedBetweenCreateAndDo},
		{"DatabaseConnectionsCut", databaseConnectionsCut},
		{"IgnoredTransitionIsNotTakenForSuccess", ignoredTransition},
		{"YieldIsTakenOffThePlannedOutput", plannedOutput},
		{"EveryMoveCarriesTheKeyBeforeItIsDone", keyOnEveryMove},
		{"RefusedDraftIsTakenBack", refusedDraft},
		{"SessionThatEndsAfterTheCommitIsNoRefusal", endedAfterCommit},
		{"PostingDateOfTomorrowIsConfirmed", postedTomorrow},
		{"ClosedPeriod", closedPeriod},
		{"BookStockIsCheckedWhenAsked", checkedStock},
		{"ReworkNeedsAPlace", rework},
		{"LotsAreRegisteredWhenMadeNotWhenTaken", lots},
		{"ReversalGoesTheOtherWay", reversal},
		{"OpenWorksRefuseAFinishAndChangeNothing", openWorks},
		{"OrderWithARoutingIsFinishedByItsOperations", routedOrder},
		{"OrderWithARoutingIsFinishedAsAWhole", routedAsAWhole},
		{"OperationThoughRepliesAreLost", operationThoughLostReplies},
		{"LotTrackedProduction", lotTracked},
		{"StockOfAllDays", stockOfAllDays},
		{"ReworkIsStock", reworkIsStock},
		{"StockIsMovedInTheUnitInWhichItIsHeld", heldInAnotherUnit},
		{"AccountWithoutRights", withoutRights},
		{"WrongPasswordIsNotTriedAgain", wrongPassword},
		{"OrderWithUnmappedUnitStopsNoNeighbour", unmappedUnit},
		{"ComponentChangedOnItsLineIsListed", changedLine},
		{"ManyChangesOfOneInstantArePagedThrough", paging},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, p) })
	}
}
