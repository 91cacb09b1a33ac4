package tryton

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
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

// One session after the other is ended, as by a cleaning of the table: that says nothing of the account's rights.
func TestSessionThatEndsTwiceInOneCallIsNoWantOfRights(t *testing.T) {
	logins := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Method string }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		switch call.Method {
		case "common.db.login":
			logins++
			fmt.Fprintf(w, `{"result":[7,"key%d"]}`, logins)
		case "model.res.user.get_preferences":
			io.WriteString(w, `{"result":{}}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	c, err := New(Config{URL: server.URL + "/erp", User: "linekeeper", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	out := c.beforeEffect(connector.Posting{}, c.client.call(t.Context(), nil, nil, "production.write"))
	if out.Result != connector.Rejected || out.Class != connector.Retryable || out.Code != "session_ended" || logins != 2 {
		t.Errorf("after %d log-ins the posting is %+v", logins, out)
	}
}
