package payload

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// all reads every record; a fault ends it.
func all(r Reader) ([]Record, error) {
	var out []Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, rec)
	}
}

// shown writes records as a test compares them: values, or line and code of a problem.
func shown(records []Record) []any {
	var out []any
	for _, r := range records {
		if r.Problem != nil {
			out = append(out, fmt.Sprintf("%d %s %s", r.Line, r.Problem.Code, r.Problem.Item))
		} else {
			out = append(out, r.Value)
		}
	}
	return out
}

type m = map[string]any

func no() *bool { f := false; return &f }

func TestCSVKeepsWhatTheSenderWrote(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	german := CSVOptions{Columns: []Column{{Name: "Menge", As: "qty", Type: "number"}, {Name: "Zeit", Type: "time", Layout: "dd.MM.yyyy HH:mm"}},
		Locale: Locale{Decimal: ",", Thousands: ".", Zone: berlin}}
	for name, c := range map[string]struct {
		text string
		o    CSVOptions
		want []any
	}{
		"digits stay text":      {"order,lot\n000123,1E5\n", CSVOptions{}, []any{m{"order": "000123", "lot": "1E5"}}},
		"quotes":                {"a,b\r\n\"x, \"\"y\"\"\nz\",\"\"\r\n", CSVOptions{}, []any{m{"a": "x, \"y\"\nz", "b": ""}}},
		"an inch is no quote":   {"a;b\n19\" rack;2\n", CSVOptions{}, []any{m{"a": "19\" rack", "b": "2"}}},
		"German":                {"Auftrag;Menge;Zeit\n4711;1.234,50;26.10.2025 14:05\n4712;-0,5;\n4713;12,5-;\n", german, []any{m{"Auftrag": "4711", "qty": signal.Number("1234.50"), "Zeit": time.Date(2025, 10, 26, 14, 5, 0, 0, berlin)}, m{"Auftrag": "4712", "qty": signal.Number("-0.5"), "Zeit": nil}, m{"Auftrag": "4713", "qty": signal.Number("-12.5"), "Zeit": nil}}},
		"comments, empty lines": {"# by MES\na\tb\n\n1\t2\n# end", CSVOptions{Comment: "#"}, []any{m{"a": "1", "b": "2"}}},
		"no header":             {"garbage\n1;2\n", CSVOptions{Header: no(), SkipLines: 1, Delimiter: ";", Columns: []Column{{Name: "x"}, {Name: "y", Type: "number", Decimals: 3}}}, []any{m{"x": "1", "y": signal.Number("0.002")}}},
		"a bad line stops no other": {"a,b\n1,2\n3\n\"torn,4\n5,6\n7,8,9\n\"x\"y,1\n10,11\n", CSVOptions{}, []any{
			m{"a": "1", "b": "2"}, "3 bad_csv line 3", "4 bad_csv line 4", m{"a": "5", "b": "6"}, "6 bad_csv line 6", "7 bad_csv line 7", m{"a": "10", "b": "11"}}},
		"a bad value":          {"a,n\n1,x\n2,3\n4,\n", CSVOptions{Columns: []Column{{Name: "n", Type: "number", Required: true}}}, []any{"2 bad_value n", m{"a": "2", "n": signal.Number("3")}, "4 bad_value n"}},
		"a broken character":   {"a,b\nM\xfcller,1\nx,2\n", CSVOptions{}, []any{"2 bad_encoding line 2", m{"a": "x", "b": "2"}}},
		"trailing delimiter":   {"a,b\n1,2,\n", CSVOptions{}, []any{m{"a": "1", "b": "2"}}},
		"nothing":              {"", CSVOptions{}, nil},
		"only a header":        {"a,b\n", CSVOptions{}, nil},
		"date and time apart":  {"d;t\n1.2.2026;093000\n;\n", CSVOptions{Columns: []Column{{Name: "d", As: "at", Type: "time", With: "t", Layout: "d.M.yyyy HHmmss"}}}, []any{m{"at": time.Date(2026, 2, 1, 9, 30, 0, 0, time.UTC), "t": "093000"}, m{"at": nil, "t": ""}}},
		"Excel's sep":          {"sep=|\na;x|b|\n1|2|\n3|4\n", CSVOptions{}, []any{m{"a;x": "1", "b": "2"}, m{"a;x": "3", "b": "4"}}},
		"literals in a layout": {"t\n20260102T0930 Uhr\n", CSVOptions{Columns: []Column{{Name: "t", Type: "time", Layout: "yyyyMMdd'T'HHmm' Uhr'"}}}, []any{m{"t": time.Date(2026, 1, 2, 9, 30, 0, 0, time.UTC)}}},
		"spaces in numbers":    {"n\n1\u00a0234\u202f567,5\n", CSVOptions{Columns: []Column{{Name: "n", Type: "number"}}, Locale: Locale{Decimal: ",", Thousands: " "}, Delimiter: ";"}, []any{m{"n": signal.Number("1234567.5")}}},
		"trim":                 {"a, b\n 1 , \"2\" \n", CSVOptions{Trim: true}, []any{m{"a": "1", "b": "2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.o.Validate(); err != nil {
				t.Fatal(err)
			}
			got, err := all(CSV(strings.NewReader(c.text), c.o))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, shown(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryEncodingGivesTheSameText(t *testing.T) {
	const text = "name;größe\nMüller;5 µm\n"
	utf16le := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	utf16be := unicode.UTF16(unicode.BigEndian, unicode.ExpectBOM)
	encoded := func(s string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct{ text, encoding string }{
		"utf-8": {text, ""}, "utf-8 with mark": {"\ufeff" + text, ""}, "the mark beats the configuration": {"\ufeff" + text, "windows-1252"},
		"utf-16le":              {encoded(utf16le.NewEncoder().String(text)), ""},
		"utf-16be":              {encoded(utf16be.NewEncoder().String(text)), ""},
		"utf-16le without mark": {encoded(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder().String(text)), ""},
		"windows-1252":          {encoded(charmap.Windows1252.NewEncoder().String(text)), "windows-1252"},
		"iso-8859-15":           {encoded(charmap.ISO8859_15.NewEncoder().String(text)), "ISO-8859-15"},
	} {
		got, err := all(CSV(strings.NewReader(c.text), CSVOptions{Encoding: c.encoding}))
		if diff := cmp.Diff([]any{m{"name": "Müller", "größe": "5 µm"}}, shown(got)); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestANumberIsExactOrRefused(t *testing.T) {
	dot, comma := Locale{}, Locale{Decimal: ",", Thousands: "."}
	for _, c := range []struct {
		text   string
		column Column
		locale Locale
		want   string
	}{
		{"007", Column{}, dot, "7"}, {"+5", Column{}, dot, "5"}, {"-.5", Column{}, dot, "-0.5"}, {"5.", Column{}, dot, "5"}, {"0.10", Column{}, dot, "0.10"},
		{"123456789012345678901234567890.123456789", Column{}, dot, "123456789012345678901234567890.123456789"},
		{"1e3", Column{}, dot, "1e3"}, {"1.234.567,8", Column{}, comma, "1234567.8"}, {"1234,5", Column{}, comma, "1234.5"}, {"5-", Column{}, dot, "-5"},
		{"5", Column{Decimals: 2}, dot, "0.05"}, {"-1234", Column{Decimals: 2}, dot, "-12.34"},
		{"1.23.456", Column{}, comma, ""}, {"12,5", Column{}, dot, ""}, {"1,234", Column{}, dot, ""}, {"x", Column{}, dot, ""}, {"-", Column{}, dot, ""}, {".", Column{}, dot, ""},
		{"NaN", Column{}, dot, ""}, {"Infinity", Column{}, dot, ""}, {"0x10", Column{}, dot, ""}, {"1 2", Column{}, dot, ""}, {"--5", Column{}, dot, ""}, {"-5-", Column{}, dot, ""},
		{"1.5", Column{Decimals: 2}, dot, ""}, {strings.Repeat("9", 65), Column{}, dot, ""}, {"e5", Column{}, dot, ""}, {"1e", Column{}, dot, ""}, {"\u0661", Column{}, dot, ""},
	} {
		c.column.Name, c.column.Type = "n", "number"
		v, err := c.column.Value(c.text, c.locale)
		if got, _ := v.(signal.Number); string(got) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q with %+v: %v %v, not %q", c.text, c.column, v, err, c.want)
		}
	}
}

func TestAWrongHeaderIsAFaultOfTheWholeText(t *testing.T) {
	for text, code := range map[string]string{"a,b\n1,2\n": "column_missing", "qty,qty\n1,2\n": "column_twice", "\"qty\n1\n": "bad_header", "qty,\xff\n": "bad_header"} {
		_, err := all(CSV(strings.NewReader(text), CSVOptions{Columns: []Column{{Name: "qty", Type: "number"}}}))
		var f *Fault
		if !errors.As(err, &f) || f.Code != code || f.NextStep == "" {
			t.Errorf("%q: %v, not %s", text, err, code)
		}
	}
}

func TestALongLineCostsOnlyItself(t *testing.T) {
	text := "a,b\n" + strings.Repeat("x", 300) + ",1\n2,3\n\"" + strings.Repeat("y\n", 200) + "4,5\n"
	got, err := all(CSV(strings.NewReader(text), CSVOptions{MaxRecord: 100}))
	if err != nil {
		t.Fatal(err)
	}
	if shown(got)[0] != "2 bad_csv line 2" || !cmp.Equal(got[1].Value, any(m{"a": "2", "b": "3"})) || !cmp.Equal(got[len(got)-1].Value, any(m{"a": "4", "b": "5"})) {
		t.Errorf("%v", shown(got))
	}
}

func TestFixedWidth(t *testing.T) {
	o := FixedOptions{SkipLines: 1, Encoding: "windows-1252", Columns: []Column{{Name: "order", Start: 1, Length: 8}, {Name: "qty", Type: "number", Decimals: 3, Start: 9, Length: 7}, {Name: "text", Start: 16, Length: 5}}}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := all(Fixed(strings.NewReader("HDR\n000047110001500gr\xfcn \r\n00004712000000x\n4713\n\x1a"), o))
	want := []any{m{"order": "00004711", "qty": signal.Number("1.500"), "text": "grün"}, "3 bad_value qty", m{"order": "4713", "qty": nil, "text": ""}}
	if diff := cmp.Diff(want, shown(got)); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestXMLBecomesMaps(t *testing.T) {
	const doc = `<?xml version="1.0" encoding="ISO-8859-1"?><!-- MES --><o:Orders xmlns:o="urn:x" xmlns="urn:y" date="2025-01-01">
<Order id="7"><Qty unit="PCE">0012.50</Qty><Line>a &amp; b</Line><Note>gr` + "\xfc" + `n</Note></Order>
<Order id="8"><Qty>x</Qty><Line>1</Line><Line>2</Line><Empty/></Order></o:Orders>`
	got, err := all(XML(strings.NewReader(doc), XMLOptions{Record: "Orders/Order", Lists: []string{"Line"}, Columns: []Column{{Name: "@id", As: "id", Type: "number"}}}))
	want := []any{m{"id": signal.Number("7"), "Qty": m{"@unit": "PCE", "#text": "0012.50"}, "Line": []any{"a & b"}, "Note": "grün"},
		m{"id": signal.Number("8"), "Qty": "x", "Line": []any{"1", "2"}, "Empty": ""}}
	if diff := cmp.Diff(want, shown(got)); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	if r := string(got[1].Raw); !strings.HasPrefix(r, `<Order id="8">`) || !strings.HasSuffix(r, "</Order>") || got[1].Line != 3 {
		t.Errorf("raw %q, line %d", r, got[1].Line)
	}
	whole, err := all(XML(strings.NewReader(doc), XMLOptions{}))
	if err != nil || len(whole) != 1 || whole[0].Value.(m)["@date"] != "2025-01-01" || len(whole[0].Value.(m)["Order"].([]any)) != 2 {
		t.Errorf("%v %v", err, shown(whole))
	}
}

func TestAPrologThatLiesAboutUTF16(t *testing.T) {
	got, err := all(XML(strings.NewReader("\n<?xml version='1.0' encoding='UTF-16'?><a><b>gr\u00fcn</b></a>"), XMLOptions{}))
	if diff := cmp.Diff([]any{m{"b": "grün"}}, shown(got)); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestHostileXMLIsRefused(t *testing.T) {
	deep := strings.Repeat("<a>", 100_000) + strings.Repeat("</a>", 100_000)
	for name, c := range map[string]struct{ text, code string }{
		"external entity": {`<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>`, "bad_xml"},
		"unknown entity":  {"<a>&lol;</a>", "bad_xml"}, "deep": {deep, "bad_xml"}, "torn": {"<a><b>1</b>", "bad_xml"}, "empty": {"", "bad_xml"},
		"two roots": {"<a/><a/>", "bad_xml"}, "text only": {"hello", "bad_xml"}, "large": {"<a>" + strings.Repeat("x", 100_000) + "</a>", "too_large"},
	} {
		_, err := all(XML(strings.NewReader(c.text), XMLOptions{MaxRecord: 50_000}))
		var f *Fault
		if !errors.As(err, &f) || f.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARecordPathThatNeverFitsIsAFault(t *testing.T) {
	for path, fits := range map[string]bool{"Orders/Order": true, "Orders/Row": true, "Order/Row": false, "Orders/Order/Line": true, "Orders/X/Line": false, "Orders": true, "Order": false} {
		_, err := all(XML(strings.NewReader("<Orders><Order/></Orders>"), XMLOptions{Record: path}))
		var f *Fault
		if got := !errors.As(err, &f); got != fits && path != "Order" || path == "Order" && got {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add("a;b\n1;\"x\ny\"\n\"torn\n2;3\n", true, ";")
	f.Add("\xff\xfea\x00,\x00b\x00\n\x00", false, "auto")
	f.Fuzz(func(t *testing.T, text string, header bool, delimiter string) {
		o := CSVOptions{Header: &header, Delimiter: delimiter, MaxRecord: 1000, Columns: []Column{{Name: "a", Type: "number"}}}
		if o.Validate() != nil {
			return
		}
		r := CSV(strings.NewReader(text), o)
		for n := 0; ; n++ {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if n > len(text) || rec.Problem == nil && rec.Value == nil {
				t.Fatalf("record %d of %d bytes: %+v", n, len(text), rec)
			}
		}
	})
}

func FuzzXML(f *testing.F) {
	f.Add(`<a xmlns="x"><b c="1">2</b><b/></a>`, "a/b")
	f.Add("<?xml version='1.0' encoding='windows-1252'?><a>\x80</a>", "")
	f.Fuzz(func(t *testing.T, text, record string) {
		o := XMLOptions{Record: record, MaxRecord: 10_000}
		if o.Validate() != nil {
			return
		}
		if got, _ := all(XML(strings.NewReader(text), o)); len(got) > len(text) {
			t.Fatalf("%d records of %d bytes", len(got), len(text))
		}
	})
}

func FuzzFixed(f *testing.F) {
	f.Add("0001  x\n\xff")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := all(Fixed(strings.NewReader(text), FixedOptions{Columns: []Column{{Name: "a", Type: "number", Start: 2, Length: 3}, {Name: "t", Type: "time", Start: 1, Length: 20}}}))
		if err != nil {
			t.Fatal(err)
		}
	})
}
