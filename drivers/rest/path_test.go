package rest

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

func TestLinksAreRead(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{`<https://h/a?b=1,2>; rel="next"`, "https://h/a?b=1,2"},
		{`</a>; rel=prev, </b>; rel=next`, "/b"},
		{`</a>; title="x, y"; rel="last next"`, "/a"},
		{`</a>; rel="nextish"`, ""},
		{`</a; rel="next"`, ""},
		{``, ""},
	} {
		if got := link([]string{c.header}, "next"); got != c.want {
			t.Errorf("%q: next is %q, want %q", c.header, got, c.want)
		}
	}
}

func TestAValueIsTakenBackInItsOwnForm(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		v       any
		overlap string
		want    string
	}{
		{signal.Number("100"), "20", "80"}, {"100", "20", "80"}, {signal.Number("5"), "20", "0"}, {signal.Number("99999999999999999999"), "1", "99999999999999999998"},
		{"2026-01-02T03:04:05.5Z", "5s", "2026-01-02T03:04:00.5Z"}, {"2026-01-02T03:04:05+01:00", "5m", "2026-01-02T02:59:05+01:00"},
		{"2026-01-02 03:04:05", "5s", "2026-01-02 03:04:00"}, {"abc", "5s", "abc"},
	} {
		o, err := parseOverlap(c.overlap)
		if err != nil {
			t.Fatal(err)
		}
		v, ok := readValue(c.v, berlin)
		if got := o.back(v); !ok || got != c.want {
			t.Errorf("%v less %s is %q, want %q", c.v, c.overlap, got, c.want)
		}
	}
}

// A value that looks like a placeholder, or like a part of an address, stays a value.
func TestValuesNeverBecomePartsOfAnAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cursor := rapid.String().Draw(t, "cursor")
		page := rapid.StringMatching(`[{}a-z&=?/#%+ ]*`).Draw(t, "page")
		u, err := join("https://h", fillURL("/a/{cursor}?c={cursor}&p={page}&l={limit}", map[string]string{"{cursor}": cursor, "{page}": page, "{limit}": "5"}))
		if err != nil {
			t.Fatalf("%v", err)
		}
		if u.Host != "h" || u.Fragment != "" || u.Query().Get("c") != cursor || u.Query().Get("p") != page || u.Query().Get("l") != "5" || u.Path != "/a/"+cursor {
			t.Fatalf("%q, %q became %q", cursor, page, u)
		}
	})
}

// FuzzAnswer reads anything as an answer with records: each becomes a signal with an identity, or a problem.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"data": [{"id": 1, "seq": 5}, {"id": null}, 7, []]}`, "data", "id")
	f.Add(`[{"a": {"b": [1e999, "x"]}}]`, "", "a.b.1")
	f.Add(`{"data": null}`, "data", "x")
	f.Fuzz(func(t *testing.T, text, records, key string) {
		body, err := payload.JSON([]byte(text))
		if err != nil {
			return
		}
		q := Query{Tag: "t", URL: "/x?c={cursor}", Records: records, Key: []string{key}, Cursor: &Place{Field: "seq"}}
		p := &poller{source: &source{zone: time.UTC}, query: &q}
		items, err := p.items(body)
		if err != nil {
			return
		}
		for _, item := range items {
			r := p.record(item)
			s := r.signal
			if !strings.HasPrefix(s.Position, "/x|") || (s.Problem == nil) == (s.Value == nil) || len(s.Payload) == 0 {
				t.Fatalf("%v became %+v", item, s)
			}
			if r.at != nil {
				r.at.compare(*r.at)
				q.overlap.back(*r.at)
			}
		}
		(&Fields{OrderNo: key, Status: records}).complete(&signal.Signal{Value: body}, time.UTC)
		link([]string{text}, key)
	})
}
