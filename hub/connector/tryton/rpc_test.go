package tryton

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A question whose answer is lost is asked again, a few times; what may have changed something never is.
func TestOnlyQuestionsAreAskedAgainWhenTheAnswerIsLost(t *testing.T) {
	for _, test := range []struct {
		method   string
		lost     int // answers
		asked    int
		answered bool
	}{
		{"production.search_read", 0, 1, true},
		{"production.search_read", 2, 3, true},
		{"stock.move.read", 9, 3, false},
		{"production.write", 1, 1, false},
		{"stock.move.do", 1, 1, false},
		{"ir.note.create", 1, 1, false},
	} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var call struct{ Method string }
			if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
				t.Error(err)
			}
			switch call.Method {
			case "common.db.login":
				io.WriteString(w, `{"result":[7,"key"]}`)
				return
			case "model.res.user.get_preferences":
				io.WriteString(w, `{"result":{}}`)
				return
			}
			if asked++; asked <= test.lost {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, `{"result":null}`)
		}))
		c, err := Config{URL: server.URL + "/erp", User: "linekeeper", Password: "x"}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		err = newClient(c).call(t.Context(), nil, nil, test.method)
		server.Close()
		if asked != test.asked || (err == nil) != test.answered || err != nil && kindOf(err) != unknown {
			t.Errorf("%s with %d answers lost: asked %d times, %v; want %d times, answered %v", test.method, test.lost, asked, err, test.asked, test.answered)
		}
	}
}
