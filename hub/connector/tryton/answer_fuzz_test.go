package tryton

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/linekeeper/linekeeper/hub/object"
)

// mostDigits is how long a number with an exponent may become.
const mostDigits = 11_000

// FuzzAnswer reads anything as Tryton's answer to a call: what is no answer is an error of a known kind, and no exponent in an
// answer takes memory without bounds.
func FuzzAnswer(f *testing.F) {
	for _, s := range []struct {
		status int
		body   string
	}{
		{200, `{"id":0,"result":[{"id":7,"number":"4","state":"running","quantity":12.5,"uom":1,"planned_date":{"__class__":"date","year":2026,"month":2,"day":30}}]}`},
		{200, `{"result":[{"id":1,"quantity":1e999999999,"write_date":{"__class__":"datetime","year":99999999999,"month":-5}}]}`},
		{200, `{"error":["UserError",["wrong","",null]]}`}, {200, `{"error":["UserWarning",["w","t","d"]]}`}, {200, `{"result":null}`}, {200, `{"result":{}}`},
		{200, `nothing`}, {401, ``}, {403, `x`}, {429, ``}, {500, `{}`}, {200, `{"result":[{"inputs.":[{"quantity":"NaN","product.":null}]}]}`},
	} {
		f.Add(s.status, []byte(s.body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var rows []production
		err := decode("m", &http.Response{StatusCode: status, Status: http.StatusText(status)}, body, &rows)
		if err != nil {
			if kindOf(err) == notSent || err.Error() == "" {
				t.Fatalf("%d %q is an error of the wrong kind: %v", status, body, err)
			}
			return
		}
		for _, x := range rows {
			for _, n := range []json.Number{x.Quantity} {
				if q, err := exact(n, 3); err == nil && len(q.String()) > len(body)+mostDigits {
					t.Fatalf("a quantity of %d digits out of an answer of %d bytes", len(q.String()), len(body))
				}
			}
			_, _, _ = x.Start.instant(), x.End.instant(), x.Written.instant()
			operations(x.Works, object.Quantity{})
		}
	})
}
