package mes

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	yaml "go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func TestSampleIsAValidConfiguration(t *testing.T) {
	everything := regexp.MustCompile(`(?m)^( *)# ([a-z_]+:( |$)|  table: |  create: |  check: |    - |  answers: )`).ReplaceAllString(sample, "$1$2")
	everything = strings.Replace(everything, "change: id", "change: version", 1)
	everything = strings.Replace(everything, ", pending: NEW", "", 1)
	for name, text := range map[string]string{"as shipped": sample, "with everything": everything} {
		p := newPlant(t)
		s := p.make(text).(*source)
		if name == "with everything" && len(s.config.WorkOrders.Check) != 1 {
			t.Error("the sample does not show a check")
		}
		q := s.config.Queries[0]
		if q.Poll != time.Second || q.Batch != 2000 || q.GapWait != 10*time.Minute || q.Overlap != 10*time.Minute || q.OverlapRows != 10_000 {
			t.Errorf("%s: the defaults in the text are not those of the code: %+v", name, q)
		}
		if name == "with everything" && (s.config.WorkOrders == nil || s.config.WorkOrders.Answers.Tag != "work_order_answer" || q.Mark == nil) {
			t.Errorf("the sample does not show everything: %+v", s.config)
		}
	}
}

func TestMistakesInTheConfigurationAreNamed(t *testing.T) {
	good := "driver: postgres\ndsn: postgres://u:hidden@h/d\n"
	for _, c := range []struct{ text, want string }{
		{"driver: oracle\ndsn: x\nqueries: []", "oracle"},
		{"driver: mysql\nqueries: []", "dsn_file"},
		{good, "nothing to do"},
		{good + "surprise: 1", "surprise"},
		{good + "queries: [{tag: a, table: t, key: [x, y]}]", "version column"},
		{good + "queries: [{tag: a, table: t}]", "key"},
		{good + "queries: [{tag: a, table: 't; drop', key: [x]}]", "drop"},
		{good + "queries: [{tag: a, table: t, key: [x], change: rowversion, version: v}]", "postgres"},
		{good + "queries: [{tag: a, table: t, key: [x], change: version}]", "needs version"},
		{good + "queries: [{tag: a, table: t, key: [x], change: mark}]", "pending"},
		{good + "queries: [{tag: a, table: t, key: [x]}, {tag: a, table: t, key: [x]}]", "twice"},
		{good + "queries: [{tag: a, table: t, key: [x], change: outbox, outbox: {taken: eaten}}]", "eaten"},
		{good + "queries: [{tag: a, table: t, key: [x], outbox: {}}]", "change: outbox"},
		{good + "queries: [{tag: a, call: p, key: [x]}]", "needs version"},
		{good + "queries: [{tag: a, call: p, key: [x], version: s, arguments: ['{limit}']}]", "{cursor}"},
		{good + "work_orders: {procedure: p, arguments: [order_no]}", "message_id"},
		{good + "work_orders: {procedure: p, arguments: [message_id, colour]}", "colour"},
		{good + "work_orders: {procedure: p, create: true}", "create"},
		{"driver: sqlite\ndsn: x\nwork_orders: {procedure: p}", "no procedures"},
		{good + "work_orders: {answers: {words: {DONE: ready}}}", "ready"},
		{good + "zone: Mars/Base\nwork_orders: {}", "Mars"},
	} {
		_, err := Kind.New(signal.Env{}, func(into any) error { return yaml.Load([]byte(c.text), into, yaml.WithKnownFields()) })
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: error is %v, want one about %q", c.text, err, c.want)
		}
	}
}

// The examples of other ways to find changes, and of procedures, are configurations.
func TestExamplesInTheSampleAreValid(t *testing.T) {
	_, rest, _ := strings.Cut(sample, "# Other ways, as examples:\n")
	queries, rest, _ := strings.Cut(rest, "\n# Work orders")
	_, orders, _ := strings.Cut(rest, "# The same with procedures, as an example:\n")
	uncommented := regexp.MustCompile(`(?m)^ *#   `)
	for _, driver := range []string{"postgres", "mysql", "sqlserver"} {
		p := newPlant(t)
		s := p.make("driver: " + driver + "\ndsn: x\nqueries:\n" + uncommented.ReplaceAllString(queries, "  ") + "\n" + uncommented.ReplaceAllString(orders, "")).(*source)
		if len(s.config.Queries) != 2 || s.config.Queries[0].Outbox == nil || s.config.Queries[1].Call == "" || s.config.WorkOrders.Procedure == "" || s.config.WorkOrders.Answers.Call == "" {
			t.Errorf("the examples do not show everything: %+v", s.config)
		}
		if o := s.config.Queries[0].Outbox; o.Table != "lk_outbox" || o.Taken != "delete" || o.Create || len(o.Operations) != 2 {
			t.Errorf("the defaults in the text are not those of the code: %+v", o)
		}
	}
}

// SQL Server is not installed for tests: its statements are compared with what its manual asks for.
func TestStatementsForSQLServer(t *testing.T) {
	s := newSource(signal.Env{Zone: time.UTC}, Config{Driver: "sqlserver", DSN: "sqlserver://u:p@h", WorkOrders: &WorkOrders{Table: "dbo.lk_work_order"}}, time.UTC)
	defer s.db().Close()
	q := Query{Tag: "t", Table: "mes.confirmation", Key: []string{"order no", "line"}, Change: "rowversion", Version: "rv", Batch: 500}
	p := &poller{source: s, query: &q, columns: []column{{name: "order no"}, {name: "line"}, {name: "rv"}}}
	f := &byHor{Mark: &place{Version: "77", Key: []any{"A", signal.Number("3")}}}
	got := f.statement(p, false).add(s.dialect.limit, q.Batch)
	want := "SELECT CONVERT(nvarchar(20), CONVERT(bigint, lk.[rv])) AS lk_extra_0, lk.[order no], lk.[line], lk.[rv] FROM [mes].[confirmation] AS lk" +
		" WHERE lk.[rv] < MIN_ACTIVE_ROWVERSION() AND (lk.[rv] > CONVERT(binary(8), CONVERT(bigint, @p1))" +
		" OR lk.[rv] = CONVERT(binary(8), CONVERT(bigint, @p2)) AND (lk.[order no] > @p3 OR lk.[order no] = @p4 AND lk.[line] > @p5))" +
		" ORDER BY lk.[rv], lk.[order no], lk.[line] OFFSET 0 ROWS FETCH NEXT 500 ROWS ONLY"
	if got.text.String() != want || fmt.Sprint(got.args) != "[77 77 A A 3]" {
		t.Errorf("statement\n%s\nwant\n%s\narguments %v", got.text.String(), want, got.args)
	}
	insert, err := s.insertStatement("dbo.lk_work_order", order("1", 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"INSERT INTO [dbo].[lk_work_order] (message_id,", "CAST(@p8 AS decimal(28, 9))", "CAST(@p12 AS datetimeoffset)",
		"THEN 'CHANGE' ELSE 'CREATE' END", "WITH (UPDLOCK, HOLDLOCK) WHERE message_id = @p18)"} {
		if !strings.Contains(insert.text.String(), part) {
			t.Errorf("statement lacks %q:\n%s", part, insert.text.String())
		}
	}
	for n, arg := range insert.args {
		if !strings.Contains(insert.text.String(), fmt.Sprintf("@p%d", n+1)) {
			t.Errorf("parameter %d (%v) is not used", n+1, arg)
		}
	}
	if insert.args[17] != "1/2" {
		t.Errorf("the last parameter is %v", insert.args[17])
	}
	for number, want := range map[int32]fault{208: faultTable, 207: faultColumn, 18456: faultLogin, 4060: faultDatabase, 229: faultRight, 2628: faultValue, 1: faultOther} {
		if got, _ := faultOfSQLServer(fmt.Errorf("wrapped: %w", mssql.Error{Number: number})); got != want {
			t.Errorf("error %d is class %d, want %d", number, got, want)
		}
	}
	if got, _ := faultOfSQLServer(&net.OpError{Op: "dial", Err: io.EOF}); got != faultConnection {
		t.Errorf("a broken connection is class %d", got)
	}
}

func TestKeysNeverLookAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringOfN(rapid.RuneFrom([]rune(`ab|,\`)), 0, 4, -1)
		a := []any{part.Draw(t, "a0"), part.Draw(t, "a1")}
		b := []any{part.Draw(t, "b0"), part.Draw(t, "b1")}
		if !slices.Equal(a, b) && keyText(a) == keyText(b) {
			t.Fatalf("%q and %q are both %q", a, b, keyText(a))
		}
		if strings.Contains(strings.ReplaceAll(strings.ReplaceAll(keyText(a), `\\`, ""), `\|`, ""), "|") {
			t.Fatalf("%q has a border in it", keyText(a))
		}
	})
}

func TestGapsAreSplitAtWhatWasFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gap{From: rapid.Int64Range(-20, 20).Draw(t, "from"), Since: 5, Open: 7}
		g.To = g.From + rapid.Int64Range(0, 20).Draw(t, "length")
		ids := rapid.SliceOfNDistinct(rapid.Int64Range(-30, 50), 0, 20, rapid.ID).Draw(t, "found")
		slices.Sort(ids)
		left := map[int64]bool{}
		for _, part := range g.without(ids, 9) {
			for id := part.From; id <= part.To; id++ {
				left[id] = true
			}
			above := slices.ContainsFunc(ids, func(id int64) bool { return id >= g.From && id < part.From })
			if young := part.Since == 9; young != above {
				t.Fatalf("part %+v of %+v, found %v", part, g, ids)
			}
		}
		for id := g.From; id <= g.To; id++ {
			if left[id] == slices.Contains(ids, id) {
				t.Fatalf("number %d of %+v, found %v, left %v", id, g, ids, left)
			}
		}
		if len(g.without(nil, 9)) != 1 {
			t.Fatal("nothing was found and the gap changed")
		}
	})
}

func TestValuesOfEveryKind(t *testing.T) {
	tokyo := time.FixedZone("", 9*3600)
	for _, c := range []struct {
		driver, typeName string
		raw, want        any
	}{
		{"mysql", "DECIMAL", []byte("1.500"), signal.Number("1.500")},
		{"mysql", "UNSIGNED BIGINT", []byte("18446744073709551615"), signal.Number("18446744073709551615")},
		{"mysql", "DATETIME", []byte("0000-00-00 00:00:00"), "0000-00-00 00:00:00"},
		{"mysql", "TIMESTAMP", []byte("2026-01-02 03:04:05"), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"mysql", "VARCHAR", []byte("x"), "x"},
		{"postgres", "NUMERIC", "NaN", "NaN"},
		{"postgres", "TIMESTAMPTZ", "infinity", "infinity"},
		{"postgres", "FLOAT4", float32(0.1), signal.Number("0.1")},
		{"postgres", "FLOAT4", float64(float32(0.1)), signal.Number("0.1")},
		{"sqlserver", "REAL", float64(float32(0.1)), signal.Number("0.1")},
		{"sqlserver", "MONEY", []byte("12.3400"), signal.Number("12.3400")},
		{"sqlserver", "DATETIME2", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 0, tokyo)},
		{"sqlserver", "UNIQUEIDENTIFIER", []byte{0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
			"00112233-4455-6677-8899-AABBCCDDEEFF"},
		{"sqlite", "BOOLEAN", int64(1), true},
		{"sqlite", "NUMERIC(10,2)", "1.10", signal.Number("1.10")},
	} {
		got, err := column{name: "c", kind: kindOf(c.driver, c.typeName)}.value(c.raw, tokyo)
		if at, ok := c.want.(time.Time); ok {
			if x, ok := got.(time.Time); ok && x.Equal(at) {
				continue
			}
		}
		if err != nil || got != c.want {
			t.Errorf("%s %s: %#v, %v, want %#v", c.driver, c.typeName, got, err, c.want)
		}
	}
}

func TestAddressThatCannotBeReadIsNotRepeated(t *testing.T) {
	for driver, dsn := range map[string]string{"postgres": "postgres://u:hidden pass%zz@h:x/", "mysql": "u:hidden@h", "sqlserver": "sqlserver://u:hidden pass%zz@h:x"} {
		c := &connector{config: &Config{Driver: driver, DSN: dsn}}
		_, err := c.Connect(t.Context())
		if err == nil || strings.Contains(err.Error(), "hidden") || !errors.Is(err, errAddress) {
			t.Errorf("%s: error is %v", driver, err)
		}
	}
}
