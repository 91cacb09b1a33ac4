package exact

import (
	"encoding/json"
	"errors"
	"testing"

	"cel.dev/cel-go/cel"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

func TestDivideRoundsHalfEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := decimal.New(rapid.Int64Range(-1e9, 1e9).Draw(t, "a"), -rapid.Int32Range(0, 4).Draw(t, "ea"))
		b := decimal.New(rapid.Int64Range(1, 1e6).Draw(t, "b")*int64(rapid.SampledFrom([]int{-1, 1}).Draw(t, "sign")), 0)
		n := rapid.Int32Range(0, 6).Draw(t, "places")
		// |a - q*b| <= |b| / 2 at the last decimal, and an exact half goes to the even neighbour.
		q := Divide(a, b, n)
		twice, limit := a.Sub(q.Mul(b)).Abs().Mul(decimal.NewFromInt(2)), b.Abs().Shift(-n)
		if cmp := twice.Cmp(limit); cmp > 0 || cmp == 0 && !q.Shift(n).Mod(decimal.NewFromInt(2)).IsZero() {
			t.Fatalf("%s / %s to %d decimals is %s", a, b, n, q)
		}
	})
}

func TestNumbersStayExactThroughAnExpression(t *testing.T) {
	env, err := cel.NewEnv(append(Library(), cel.Variable("body", cel.DynType))...)
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"a": json.Number("0.1"), "b": "0.2", "big": json.Number("12345678901234567890.123456789")}
	for src, want := range map[string]string{
		"add(body.a, body.b)": "0.3", "body.a + 0.2": "0.3", "body.big": "12345678901234567890.123456789",
		"mul(body.a, 3)": "0.3", "div(1, 3, 4)": "0.3333", "round(2.5, 0)": "2", "string(body.big)": "12345678901234567890.123456789",
	} {
		ast, iss := env.Compile(src)
		if iss.Err() != nil {
			t.Fatal(iss.Err())
		}
		prg, err := env.Program(ast)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := prg.Eval(map[string]any{"body": body})
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := Of(out, true); err != nil || got.String() != want {
			t.Errorf("%s is %v (%v), want %s", src, got, err, want)
		}
	}
}

func TestParseRefusesWhatWouldCostMemory(t *testing.T) {
	for text, want := range map[string]error{"1e100": ErrTooLarge, "NaN": ErrNotNumber, "": ErrNotNumber, "12345678901234567890123": ErrTooLarge, "1e-9999": ErrTooLarge} {
		if _, err := Parse(text); !errors.Is(err, want) {
			t.Errorf("%q gives %v, want %v", text, err, want)
		}
	}
}
