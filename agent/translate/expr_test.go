package translate

import (
	"fmt"
	"math"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func TestExpressions(t *testing.T) {
	sig := &signal.Signal{Tag: "dosing", Topic: "ulm/press1/out", Position: "k|1", Value: decode(t, `{
		"a": {"b": 12.500}, "Auftrag Nr": "4711", "list": [1, {"x": "y"}], "n": 3, "big": 12345678901234567890.123456789, "s": "1.10", "t": true}`)}
	in := &scope{sig: sig, source: "mq", item: map[string]any{"x": "el"}}
	for _, c := range []struct {
		src, want string
		direct    bool
	}{
		{"payload.a.b", "12.500", true},
		{`payload["Auftrag Nr"]`, "4711", true},
		{"payload['list'][1].x", "y", true},
		{"payload.list[7]", "<nil>", true},
		{"payload.none.of.it", "<nil>", true},
		{"payload.s.deeper", "<nil>", true},
		{"topic_parts[1]", "press1", true},
		{"topic_parts[9]", "<nil>", true},
		{"topic", "ulm/press1/out", true},
		{"tag", "dosing", true},
		{"source", "mq", true},
		{"position", "k|1", true},
		{"item.x", "el", true},
		{"'KGM'", "KGM", true},
		{`"a 'quoted' b"`, "a 'quoted' b", true},
		{"12.50", "12.50", true},
		{"true", "true", true},
		{"payload.a.b * 1000", "12500", false},
		{"payload.a.b + payload.n - 0.1", "15.4", false},
		{"-payload.n", "-3", false},
		{"payload.n == 3", "true", false},
		{"payload.n != 3.0", "false", false},
		{"payload.n in [1, 2, 3]", "true", false},
		{"payload.n > 2.5 && payload.t", "true", false},
		{"payload.big + 1", "12345678901234567891.123456789", false},
		{"add(payload.s, '0.01')", "1.11", false},
		{"sub(1, payload.s)", "-0.1", false},
		{"mul(3, payload.a.b)", "37.5", false},
		{"div(1, 3, 4)", "0.3333", false},
		{"div(1, 8, 2)", "0.12", false},
		{"div(3, 8, 2)", "0.38", false},
		{"div(-3, 8, 2)", "-0.38", false},
		{"round(2.5, 0)", "2", false},
		{"round(payload.a.b, 0)", "12", false},
		{"dec(payload.s) > 1.05", "true", false},
		{"'PO-' + string(payload.n)", "PO-3", false},
		{"has(payload.zz) ? payload.zz : 'none'", "none", false},
		{"topic_parts[0] + '/' + topic_parts[1]", "ulm/press1", false},
		{"payload.list.exists(e, e == 1)", "true", false},
	} {
		e, err := compile(c.src, true)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if (e.prg == nil) != c.direct {
			t.Errorf("%s: direct is %v", c.src, e.prg == nil)
		}
		v, err := e.eval(in)
		if got := fmt.Sprint(v); err != nil || got != c.want {
			t.Errorf("%s is %s (%v), want %s", c.src, got, err, c.want)
		}
	}
	for _, src := range []string{"payload.none + 1", "payload.n / 2", "payload.s + 1", "div(1, 0, 2)", "dec('x')", "round(1, 99)"} {
		e, err := compile(src, true)
		if err != nil {
			continue
		}
		if v, err := e.eval(in); err == nil {
			t.Errorf("%s is %v, want an error", src, v)
		}
	}
	for _, src := range []string{"", "payload.", "payload.a b", "nope", "2 * payload.n", "3 == payload.n", "3 in payload.list", "'a"} {
		if _, err := compile(src, true); err == nil {
			t.Errorf("%q was accepted", src)
		}
	}
}

// A direct look-up and CEL must mean the same.
func TestPathsMeanTheSameToCEL(t *testing.T) {
	in := &scope{sig: &signal.Signal{Value: decode(t, `{"a": {"b c": [5, {"d": "x"}]}, "e": 1.50}`), Topic: "x/y"}}
	for _, src := range []string{"payload.a['b c'][0]", `payload.a["b c"][1].d`, "payload.e", "topic_parts[1]"} {
		direct, err := compile(src, false)
		if err != nil || direct.prg != nil {
			t.Fatalf("%s: %v", src, err)
		}
		program, err := compileCEL(src, false)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := direct.eval(in)
		b, err := program.eval(in)
		if an, ok := a.(signal.Number); ok {
			d, _ := parse(string(an))
			a = signal.Number(d.String())
		}
		if err != nil || a != b {
			t.Errorf("%s is %v directly and %v (%v) in CEL", src, a, b, err)
		}
	}
}

func TestAmountsAddUpExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.StringMatching(`[0-9]{1,22}(\.[0-9]{1,9})?`)).Draw(t, "amounts")
		r, want := &row{}, decimal.Decimal{}
		for _, s := range texts {
			a, err := parseAmount(s)
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			r.record(a)
			d, err := decimal.NewFromString(s)
			if err != nil {
				t.Fatal(err)
			}
			want = want.Add(d)
		}
		back, err := decodeRow(r.append(nil))
		if err != nil || !back.counted.decimal().Equal(want) || !back.stored.decimal().Equal(want) {
			t.Fatalf("row is %+v (%v), want %s", back, err, want)
		}
	})
}

// TestAmountsAreWrittenAsDecimals: the ledger's lines stay byte for byte as releases before wrote them.
func TestAmountsAreWrittenAsDecimals(t *testing.T) {
	short := rapid.Custom(func(t *rapid.T) amount {
		n := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1000, 1000), rapid.Int64Range(math.MaxInt64-1000, math.MaxInt64), rapid.Int64Range(math.MinInt64, math.MinInt64+1000))
		return amount{n: n.Draw(t, "n"), places: rapid.Int32Range(0, 18).Draw(t, "places")}
	})
	long := rapid.Map(rapid.StringMatching(`-?[0-9]{1,22}(\.[0-9]{1,9})?`), func(s string) amount { return exactly(decimal.RequireFromString(s)) })
	any := rapid.OneOf(short, short, long)
	rapid.Check(t, func(t *rapid.T) {
		a, b := any.Draw(t, "a"), any.Draw(t, "b")
		for _, c := range []struct {
			got  amount
			want decimal.Decimal
		}{{a, a.decimal()}, {a.plus(b), a.decimal().Add(b.decimal())}} {
			if got := string(c.got.append(nil)); got != c.want.String() {
				t.Fatalf("%v, %v: wrote %s, want %s", a.decimal(), b.decimal(), got, c.want)
			}
		}
		if a.equal(b) != a.decimal().Equal(b.decimal()) || !a.plus(b).equal(b.plus(a)) {
			t.Fatalf("%v and %v are compared wrongly", a.decimal(), b.decimal())
		}
	})
}
