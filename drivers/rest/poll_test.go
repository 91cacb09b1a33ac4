package rest

import (
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

var seed = flag.Uint64("seed", 0, "repeat a random run")

func dice(t *testing.T) *mathrand.Rand {
	s := *seed
	if s == 0 {
		s = mathrand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed)", s)
	return mathrand.New(mathrand.NewPCG(s, 1))
}

// ways are the ways to go on that the MES of these tests knows.
var ways = map[string]string{
	"number": "url: '/items?since={cursor}&limit={limit}', records: data.items, cursor: {field: seq}, key: [id], page_size: 7, first: '0', overlap: '20'",
	"time":   "url: '/items?since={cursor}&limit={limit}', records: data.items, cursor: {field: at}, key: [id], page_size: 7, first: '2026-01-01T00:00:00Z', overlap: 20s",
	"token":  "url: '/feed?token={cursor}', records: records, cursor: {body: next}, key: [id]",
	"pages":  "url: /pages, next: {link: next}, key: [id]",
	"all":    "url: /all, key: [id], version: content",
}

func section(m *mes, more string) string {
	return fmt.Sprintf("base: %s\nqueries:\n- {tag: q, poll: 10ms, %s}\n", m.url(), more)
}

// Records come page by page while the driver dies at random, before a batch is durable, after it, or in peace.
func TestEveryWayOfGoingOnReadsEachRecordOnce(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			r, m, p := dice(t), newMES(t), newPlant(t)
			m.etags = true
			text := section(m, way)
			made := 0
			add := func() { n := r.IntN(20); made += n; m.add(n) }
			stop := p.start(text)
			for round := range 12 {
				add()
				if r.IntN(2) == 0 {
					m.set(func() { m.broken = r.IntN(2) })
				}
				stop()
				emit := p.emit
				if round%3 != 2 {
					emit = p.dying(r.IntN(4), r.IntN(2) == 0)
				}
				stop = p.run(p.make(text), emit)
				add()
			}
			stop()
			p.start(text)
			p.awaitCount(made)
			add()
			p.awaitCount(made)
			p.await("no problem", func() bool { return len(p.problems) == 0 && p.state == signal.StateOK })
			p.compare(made)
			s := p.all()[0]
			if s.Value.(map[string]any)["good"] != signal.Number("12.500000000000000001") || !strings.Contains(string(s.Payload), "12.500000000000000001") {
				t.Errorf("the number is not exact: %+v, %s", s, s.Payload)
			}
		})
	}
}

// Records turn up behind later ones, as a slow transaction of the MES lets them; within the overlap none is missed.
func TestLateRecordsAreFoundWithinTheOverlap(t *testing.T) {
	for _, name := range []string{"number", "time"} {
		t.Run(name, func(t *testing.T) {
			r, m, p := dice(t), newMES(t), newPlant(t)
			hidden := map[int64]bool{}
			m.visible = func(x item) bool { return !hidden[x.Seq] }
			text := section(m, ways[name])
			stop := p.start(text)
			made := 0
			for round := range 15 {
				m.set(func() {
					for i := range int64(10) {
						hidden[int64(made)+1+i] = r.IntN(3) == 0
					}
				})
				m.add(10)
				made += 10
				late := 0
				m.set(func() { late = len(m.items) - len(m.shown()) })
				p.awaitCount(made - late)
				if round%4 == 3 {
					stop()
					stop = p.start(text)
				}
				m.set(func() { clear(hidden) })
				p.awaitCount(made)
			}
			p.compare(made)
		})
	}
}

func TestNothingNewCostsNoBody(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.etags = true
	m.add(3)
	p.start(section(m, ways["all"]))
	p.awaitCount(3)
	before := m.count("GET /all")
	p.await("more polls", func() bool { return m.count("GET /all") > before+5 })
	m.add(1) // and the answer is another one again
	p.awaitCount(4)
	p.compare(4)
}

func TestAnUpdateIsANewVersion(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(2)
	p.start(section(m, ways["all"]))
	p.awaitCount(2)
	m.set(func() { m.items[0].Good = "13" })
	p.awaitCount(3)
	if s := p.all()[2]; !strings.HasPrefix(s.Position, "/all|id1|h") || s.Value.(map[string]any)["good"] != signal.Number("13") {
		t.Errorf("signal is %+v", s)
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(1)
	m.rest = "1"
	begin := time.Now()
	p.start(section(m, ways["number"]))
	p.awaitProblem("query:q", "asked_to_wait")
	p.awaitCount(1)
	if took := time.Since(begin); took < time.Second {
		t.Errorf("the MES asked for a second of rest and got %s", took)
	}
}

// A record that is none costs only itself; what cannot be read at all is named and tried again.
func TestWhatTheMESDoesWrong(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(3)
	m.items[1].bad = true
	p.start(section(m, ways["number"]))
	p.awaitCount(3)
	if s := p.all()[1]; s.Problem == nil || s.Problem.Code != "key_missing" || s.Position == "" || len(s.Payload) == 0 {
		t.Errorf("signal is %+v", s)
	}
	for code, way := range map[string]string{
		"records_missing": "url: '/items', records: data.things, key: [id]",
		"address_missing": "url: /nowhere, key: [id]",
		"page_stuck":      "url: '/items?since={cursor}&limit=1', records: data.items, cursor: {field: seq}, first: '0', page_size: 1, key: [id]",
	} {
		q := newPlant(t)
		q.start(section(m, way))
		if x := q.awaitProblem("query:q", code); x.NextStep == "" || x.Reason == "" {
			t.Errorf("problem is %+v", x)
		}
	}
	m.set(func() { m.items[0].Seq, m.items[2].Seq = 3, 1 })
	q := newPlant(t)
	q.start(section(m, ways["number"]))
	q.awaitProblem("query:q", "not_ascending")
	if len(q.all()) > 0 {
		t.Errorf("records were taken out of a page that is not sorted: %+v", q.all())
	}
}

func TestAMESThatIsGoneIsNamed(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(1)
	text := section(m, ways["number"])
	m.server.Close()
	p.start(text)
	p.awaitProblem("query:q", "no_connection")
	p.await("failed", func() bool { return p.state == signal.StateFailed })
	m.start()
	p.awaitCount(1)
	p.await("ok", func() bool { return p.state == signal.StateOK && len(p.problems) == 0 })
}

const oauth = "auth: {oauth2: {token_url: %s/token, client_id: lk, client_secret_file: secret, parameters: {audience: mes}}}\n"

// A token is used until the MES does not take it any more, and then fetched once.
func TestATokenIsRenewedWhenTheMESRefusesIt(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.token = "nobody has it"
	p.file("secret", "wrong\n")
	m.add(1)
	p.start(fmt.Sprintf(oauth, m.url()) + section(m, ways["number"]))
	p.awaitProblem("query:q", "login_refused")
	p.file("secret", "s3cret\n") // corrected while the agent runs
	p.awaitCount(1)
	m.set(func() { m.token = "expired" })
	m.add(1)
	p.awaitCount(2)
	p.await("ok", func() bool { return len(p.problems) == 0 })
	if m.tokens != 2 {
		t.Errorf("%d tokens were issued, want 2", m.tokens)
	}
	for _, secret := range []string{"s3cret", m.token} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("a secret is in what the driver reported:\n%s", p.log.String())
		}
	}
}

// The MES names another host as the next page: it must not get our credentials.
func TestCredentialsStayWithTheConfiguredHost(t *testing.T) {
	m, thief, p := newMES(t), newMES(t), newPlant(t)
	p.file("token", "t0ken")
	m.token = "t0ken"
	m.answers = []map[string]any{{"next": thief.url() + "/all", "list": []int{}}}
	p.start("auth: {bearer_file: token}\n" + section(m, "url: '/answers', next: {body: 0.next}, key: [id], records: 0.list"))
	p.awaitProblem("query:q", "foreign_address")
	if len(thief.requests) > 0 {
		t.Errorf("the other host was asked: %q", thief.requests)
	}
}
