package connectortest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

func TestProxyMakesEachFaultLookAsItSays(t *testing.T) {
	var reached atomic.Int64
	system := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		reached.Add(1)
		io.WriteString(w, r.URL.Path+" got "+string(b))
	}))
	defer system.Close()
	p := NewProxy(t, system.URL)
	post := func() (int, string, error) {
		resp, err := http.Post(p.URL+"/db/", "text/plain", strings.NewReader("body"))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	for _, test := range []struct {
		fault   Fault
		reaches int64 // at once
		later   int64 // after Deliver
		status  int
		fails   bool
	}{
		{LoseReply, 1, 1, 0, true},
		{HalfReply, 1, 1, 200, true},
		{LoseRequest, 0, 0, 0, true},
		{DelayRequest, 0, 1, 0, true},
		{ServerError, 0, 0, 503, false},
	} {
		reached.Store(0)
		p.Arm(test.fault, 2)
		if status, body, err := post(); status != 200 || body != "/db/ got body" || err != nil || reached.Load() != 1 {
			t.Errorf("%s: the exchange before it gave %d %q, %v", test.fault, status, body, err)
		}
		status, _, err := post()
		if status != test.status || (err != nil) != test.fails || reached.Load() != 1+test.reaches {
			t.Errorf("%s: status %d, error %v, %d requests arrived", test.fault, status, err, reached.Load()-1)
		}
		if !p.Fired() {
			t.Errorf("%s: it is not reported as fired", test.fault)
		}
		p.Deliver()
		if got := reached.Load() - 1; got != test.later {
			t.Errorf("%s: after Deliver %d requests arrived, want %d", test.fault, got, test.later)
		}
		if _, _, err := post(); err != nil {
			t.Errorf("%s: the exchange after it gives %v", test.fault, err)
		}
	}
}

func TestLossySharesComeFromTheSeed(t *testing.T) {
	system := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer system.Close()
	p := NewProxy(t, system.URL)
	draw := func(seed int64) (out []Fault) {
		p.Lossy(seed, 0.2, 0.1)
		for range 200 {
			out = append(out, p.next())
		}
		return out
	}
	a, b := draw(7), draw(7)
	lost := 0
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("one seed draws %q and %q", a[i], b[i])
		}
		if a[i] != "" {
			lost++
		}
	}
	if lost < 30 || lost > 90 {
		t.Errorf("%d of 200 exchanges went wrong, want about 60", lost)
	}
}

// amnesiac is a connector whose first outcome is lost.
type amnesiac struct {
	connector.Connector
	calls    []string
	presence connector.Presence
}

func (c *amnesiac) Prepare(context.Context, connector.Posting) ([]byte, *connector.Outcome, error) {
	c.calls = append(c.calls, "prepare")
	return []byte("intent"), nil, nil
}

func (c *amnesiac) Post(_ context.Context, p connector.Posting, _ []byte) connector.Outcome {
	c.calls = append(c.calls, "post")
	if p.Attempt == 1 {
		return connector.Outcome{Result: connector.InDoubt}
	}
	return connector.Outcome{Result: connector.Posted}
}

func (c *amnesiac) Lookup(context.Context, connector.Posting, []byte) (connector.Finding, error) {
	c.calls = append(c.calls, "lookup")
	return connector.Finding{Presence: c.presence}, nil
}

func (c *amnesiac) Verify(context.Context, connector.Posting, []byte, connector.Document) (connector.Verification, error) {
	c.calls = append(c.calls, "verify")
	return connector.Verification{Matches: true}, nil
}

func TestDriveLooksUpBeforeItPostsAgain(t *testing.T) {
	p := connector.Posting{Fact: object.Fact{Kind: object.KindConfirmation, Confirmation: &object.Confirmation{}}}
	for presence, want := range map[connector.Presence]struct {
		end   End
		calls string
	}{
		connector.Found:      {Settled, "prepare post lookup verify"},
		connector.Absent:     {Settled, "prepare post lookup prepare post verify"},
		connector.CannotTell: {Undecided, "prepare post lookup"},
	} {
		c := &amnesiac{presence: presence}
		x := Drive(t.Context(), c, p, time.Minute)
		if got := strings.Join(c.calls, " "); x.End != want.end || got != want.calls {
			t.Errorf("%s: ended %s after %q, want %s after %q", presence, x.End, got, want.end, want.calls)
		}
	}
	c := &amnesiac{presence: connector.NotFoundYet}
	if x := Drive(t.Context(), c, p, 100*time.Millisecond); x.End != Undecided || x.Attempts != 1 {
		t.Errorf("not found yet: ended %s after %d posts, want undecided after one", x.End, x.Attempts)
	}
}
