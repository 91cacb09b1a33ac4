package store

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// large are the tables that grow with the facts: a query that runs while the hub works must find their rows by an index.
var large = regexp.MustCompile(`^(SCAN|SEARCH) (f|x|p|o|facts|fact_index|postings|posting_steps|deliveries|order_steps|order_revisions|marks|exceptions|e|conflicts|unreadable|w|l|business_objects|business_writes|business_links|business_revisions|business_exchanges|business_write_steps)\b(.*)`)

// mayScan are queries that a person asks for, or that a hub asks when it starts, and what they read.
var mayScan = []struct{ part, why string }{
	{"UNION SELECT erp, order_no FROM postings WHERE state = 'posted'", "at start: the indexes of what is open"},
	{" ORDER BY x.fact_id", "once for a database without sums"},
	{"FROM business_writes w WHERE w.state NOT IN ('verified', 'settled') AND w.state <> 'parked'", "the index of what is open"},
	{"FROM business_writes w WHERE w.state NOT IN ('verified', 'settled') GROUP BY", "the index of what is open"},
	{"FROM conflicts c JOIN", "conflicts are few"},
	{"FROM unreadable u JOIN", "unreadable records are few"},
}

func TestQueriesFindTheirRowsByAnIndex(t *testing.T) {
	ctx := context.Background()
	seed := seed(t)
	s, err := Open(ctx, filepath.Join(t.TempDir(), "hub.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &books{t: t, s: s, rng: rand.New(rand.NewPCG(seed, 1)), facts: map[int64]Fact{}}
	if err := s.Update(ctx, func(tx *Tx) (err error) { b.agent, err = tx.AgentByName("ulm", "edge1"); return err }); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		b.arrive()
		b.plan()
		b.change()
	}
	useEverything(t, b)

	var texts []string
	s.reads.Range(func(q, _ any) bool { texts = append(texts, q.(string)); return true })
	for q := range s.stmts {
		texts = append(texts, q)
	}
	slices.Sort(texts)
	looked := 0
	for _, q := range texts {
		if strings.HasPrefix(q, "BEGIN") || strings.HasPrefix(q, "COMMIT") || strings.HasPrefix(q, "SAVEPOINT") || strings.HasPrefix(q, "R") {
			continue
		}
		if slices.ContainsFunc(mayScan, func(m struct{ part, why string }) bool { return strings.Contains(q, m.part) }) {
			continue
		}
		for _, step := range plan(t, s, q) {
			m := large.FindStringSubmatch(step)
			if m == nil {
				continue
			}
			looked++
			if m[1] == "SCAN" && !strings.HasSuffix(q, "SELECT COALESCE(MAX(id), 0) FROM facts") {
				t.Errorf("%s\nreads all rows: %s", q, step)
			}
		}
	}
	order := "x.fact_id < $1 AND x.order_no = $2 AND x.plant || '' = $3 ORDER"
	if i := slices.IndexFunc(texts, func(q string) bool { return strings.Contains(q, order) }); i < 0 {
		t.Errorf("nobody asked for facts with %s", order)
	} else if steps := plan(t, s, texts[i]); !slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, "fact_index_order") }) {
		t.Errorf("the facts of an order are found by %q", steps)
	}
	if i := slices.IndexFunc(texts, func(q string) bool { return strings.Contains(q, "GROUP BY erp || '', unroutable") }); i < 0 {
		t.Error("nobody asked for orders that nobody gets")
	} else if steps := plan(t, s, texts[i]); !slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, "work_orders_unroutable") }) {
		t.Errorf("orders that nobody gets are found by %q", steps)
	}
	if looked < 30 {
		t.Errorf("only %d steps of plans were looked at", looked)
	}
}

func plan(t *testing.T, s *Store, q string) []string {
	args := make([]any, 0, 64)
	for range strings.Count(q, "?") + 100 {
		args = append(args, nil)
	}
	n := 0
	for _, m := range regexp.MustCompile(`[$?](\d*)`).FindAllStringSubmatch(q, -1) {
		var k int
		if _, err := fmt.Sscan(m[1], &k); err != nil {
			k = n + 1
		}
		n = max(n, k)
	}
	rows, err := s.ro.Query("EXPLAIN QUERY PLAN "+q, args[:n]...)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, none int
		var step string
		if err := rows.Scan(&id, &parent, &none, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	return steps
}

// useEverything asks whatever is asked while a hub works.
func useEverything(t *testing.T, b *books) {
	ctx, s, a := context.Background(), b.s, b.agent
	must := func(_ any, err error) {
		t.Helper()
		if err != nil && err != sql.ErrNoRows && !strings.Contains(err.Error(), ErrNotFound.Error()) {
			t.Fatal(err)
		}
	}
	texts := []string{"", "x"}
	for _, plant := range texts {
		for _, order := range texts {
			for _, state := range []string{"", "parked", "verified"} {
				must(s.Facts(ctx, FactFilter{Plant: plant, OrderNo: order, Outcome: state}, Page{}))
				for _, code := range texts {
					must(s.Postings(ctx, PostingFilter{Plant: plant, OrderNo: order, State: PostingState(state), Code: code}, Page{}))
				}
			}
			_, _, err := s.TallyInput(ctx, TallyFilter{Plant: plant, OrderNo: order})
			must(nil, err)
			must(s.EdgeLines(ctx, TallyFilter{Plant: plant, OrderNo: order}))
		}
	}
	for _, f := range b.facts {
		_, _, err := s.Life(ctx, f.Fact.Key.String())
		must(nil, err)
	}
	must(s.PostingCounts(ctx))
	must(s.CountPostings(ctx, PostingFilter{State: PostingParked}))
	must(s.ActiveLanes(ctx))
	must(s.LaneWork(ctx, Lane{"erp", "WO-1"}))
	must(s.Unverified(ctx, Lane{"erp", "WO-1"}))
	must(s.Task(ctx, 1))
	_, _, err := s.OpenBeside(ctx, "WO-1", 1)
	must(nil, err)
	must(s.OpenAggregates(ctx, Lane{"erp", "WO-1"}))
	must(s.Aggregate(ctx, 1))
	must(s.Members(ctx, 1))
	must(s.firstMember(ctx, []byte{1}))
	must(s.OrderFacts(ctx, "ulm", "WO-1"))
	must(s.PostingDate(ctx, 1))
	must(s.PostedYield(ctx, object.LedgerKey{OrderNo: "WO-1"}))
	must(s.ParkedOrders(ctx, "no_stock"))
	must(s.OrderSteps(ctx, "WO-1"))
	must(s.ConfirmedOperations(ctx, "ulm", "WO-1"))
	must(s.KnownOrders(ctx, []string{"WO-1"}, true))
	must(s.Agents(ctx))
	must(s.Marks(ctx, a.ID))
	must(s.Positions(ctx, a.ID))
	must(s.Readings(ctx, a.ID))
	must(s.DeliveriesAfter(ctx, a.ID, 0, 10))
	must(s.NeededAfter(ctx, a.ID, 0, 10))
	must(s.Orders(ctx, OrderFilter{Unroutable: true}, Page{}))
	must(s.Unrouted(ctx))
	must(s.Orderless(ctx, []string{"unknown_order"}, time.Unix(1, 0)))
	must(s.LatestAlarms(ctx, OrderAlarms()))
	must(s.AlarmsByID(ctx, []int64{1, 2}))
	must(s.AlarmCounts(ctx))
	_, _, _, err = s.OrderTimeline(ctx, "", "WO-1")
	must(nil, err)
	for _, f := range []BusinessFilter{{Kind: "invoice"}, {Kind: "invoice", Number: "1"}, {Kind: "invoice", Reference: "1"}, {Kind: "invoice", Partner: "1", State: "X", Since: time.Unix(1, 0)},
		{Kind: "invoice", After: 1, ERP: "erp"}, {ERP: "erp", LinkedTo: object.Link{Kind: "invoice", Number: "1"}}} {
		must(s.Business(ctx, f, Page{}))
	}
	must(s.FindBusiness(ctx, "erp", "invoice", "1"))
	must(s.BusinessRevisions(ctx, 1))
	must(s.BusinessCursors(ctx))
	must(s.LaneWrites(ctx, WriteLane{"erp", "l"}))
	must(s.ActiveWriteLanes(ctx))
	must(s.WriteCounts(ctx))
	must(s.WriteByID(ctx, 1))
	must(s.Writes(ctx, WriteFilter{State: PostingParked}, Page{}))
	_, _, _, err = s.WriteLife(ctx, [16]byte{})
	must(nil, err)
	must(s.TrimWriteExchanges(ctx, time.Now(), 10))
	must(s.Exceptions(ctx, ExceptionFilter{}, Page{}))
	must(s.StepsBack(ctx, 10))
	must(s.Gaps(ctx))
	must(s.LotStates(ctx, "ulm", "STEEL"))
	must(s.OrdersMoved(ctx, "erp", "STEEL"))
	must(s.StockMoves(ctx, "erp", "STEEL"))
	must(s.StockOpening(ctx, StockPlace{}))
	must(s.StockAccepted(ctx, "x", 0))
	must(s.GapFilled(ctx, Gap{}))
	must(s.Conflicts(ctx, false, Page{}))
	must(s.UnreadableRecords(ctx, false, Page{}))
	must(s.Alarms(ctx, false, Page{}))
	must(nil, s.MarkSent(ctx, a.ID, 1))
	must(nil, s.MarkStored(ctx, a.ID, 1))
	must(nil, s.SetStatus(ctx, a.ID, &pb.AgentStatus{Ledger: []*pb.LedgerRow{{OrderNo: "WO-1"}}}))
	must(nil, s.AppendReadings(ctx, a.ID, "t", 1, []Reading{{Source: "s", Tag: "t", At: time.Unix(1, 0)}}))
	must(nil, s.Update(ctx, func(tx *Tx) error {
		must(tx.Admissible([]string{"WO-1"}, "unknown_order", "order_without_plant", 0, 10))
		must(tx.PostingsAfter(PostingFilter{State: PostingSending}, 0, 10))
		must(tx.Mark("ulm", "s", "t", "e"))
		must(tx.Residue("erp", object.LedgerKey{}))
		_, _, err := tx.FindOrder("ulm", "WO-1")
		must(tx.OrderSteps("WO-1"))
		must(tx.Finished("WO-1"))
		must(nil, tx.MoveOrderSteps(1, "WO-1", "WO-2"))
		must(tx.PutBusiness("erp", object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Number: "1"}}))
		must(nil, tx.BeginSweep("erp", object.BusinessCount))
		must(tx.EndSweep("erp", object.BusinessCount))
		must(tx.BusinessKey("erp", object.BusinessCount, "1"))
		must(tx.LaneOf("erp", object.BusinessCount, "1"))
		must(tx.SendingWrites())
		must(tx.OpenAggregatesOf("WO-1"))
		must(tx.Residues("erp", "WO-1"))
		return err
	}))
}

func TestArgumentsLoseTheirNamesWhereTheirOrderSaysEnough(t *testing.T) {
	for q, want := range map[string]string{
		"a = $1 AND b IN ($2, $3)":                    "a = ? AND b IN (?, ?)",
		"VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)": "VALUES (?,?,?,?,?,?,?,?,?,?,?)",
		"a = $1 AND b = $1":                           "",
		"a = $2 AND b = $1":                           "",
		"a = $1 AND b = $10":                          "",
		"a = $10":                                     "",
		"a = ?1 AND b = $2":                           "",
		"a = '$1.50' AND b = '$'":                     "",
		"SELECT 1":                                    "SELECT 1",
	} {
		if want == "" {
			want = q
		}
		if got := unnamed(q); got != want {
			t.Errorf("unnamed(%q) = %q, want %q", q, got, want)
		}
	}
}
