package e2e

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// The tests of this file are about the line between agent and hub, with the real binaries where it matters.

// wireLine is an agent that reads one broker, and a hub without an ERP.
type wireLine struct {
	*line
	broker *realparts.Broker
	sent   int
}

// newWireLine starts nothing but the broker. hub is added to the agent's hub section, as lines of YAML.
func newWireLine(t testing.TB, hub string) *wireLine {
	t.Helper()
	w := &wireLine{broker: realparts.Mosquitto(t, realparts.MosquittoOptions{})}
	w.line = newLine(t, func(string) (string, string) {
		return "erps: []\nroutes: []\n", hub + fmt.Sprintf(`
sources:
  - name: broker
    kind: mqtt
    broker: %s
    topics:
      - {tag: consumption, topic: plant/ulm/+/consumption}
rules:
  - name: dosing
    rule: record
    source: broker
    tag: consumption
    fact: material_consumption
    id: payload.id
    fields: {order_no: payload.order, item: payload.item, quantity: payload.qty, unit: '"KGM"', occurred_at: payload.ts}
`, w.broker.URL())
	})
	return w
}

// publish sends n messages to the broker and returns when the agent has them on its disk.
func (w *wireLine) publish(t testing.TB, n int) {
	t.Helper()
	var b bytes.Buffer
	for range n {
		w.sent++
		fmt.Fprintf(&b, `{"id":"m-%06d","order":"1004711","item":"RM-1","qty":"1.5","ts":"2026-11-25T10:00:00Z"}`+"\n", w.sent)
	}
	cmd := exec.Command(realparts.Need(t, "mosquitto_pub", "mosquitto-clients"), "-p", fmt.Sprint(w.broker.Port), "-q", "1", "-t", "plant/ulm/press1/consumption", "-l")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("publish: %v\n%s", err, out)
	}
	realparts.Eventually(t, 30*time.Second, "the agent has stored what was published", func() error {
		s, err := w.status()
		if err != nil {
			return err
		}
		if s.Business.LastSeq < uint64(w.sent) {
			return fmt.Errorf("%d of %d stored", s.Business.LastSeq, w.sent)
		}
		return nil
	})
}

// db opens the hub's store beside the hub. Its own transactions last no longer than a statement.
func (w *wireLine) db(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "hub-data", "hub.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// facts counts what the hub's store holds.
func facts(t testing.TB, db *sql.DB) (all, keys int) {
	t.Helper()
	if err := db.QueryRow("SELECT count(*), count(DISTINCT key) FROM facts").Scan(&all, &keys); err != nil {
		t.Fatal(err)
	}
	return all, keys
}

// settled waits until the hub holds everything that was sent, and counts.
func (w *wireLine) settled(t testing.TB, db *sql.DB) {
	t.Helper()
	realparts.Eventually(t, time.Minute, "the hub has acknowledged everything", func() error {
		s, err := w.status()
		if err != nil {
			return err
		}
		if s.Business.AckedSeq < uint64(w.sent) {
			return fmt.Errorf("%d of %d: %+v", s.Business.AckedSeq, w.sent, s.Uplink)
		}
		return nil
	})
	all, keys := facts(t, db)
	t.Logf("sent=%d received=%d missing=%d doubled=%d", w.sent, keys, w.sent-keys, all-keys)
	if keys != w.sent || all != keys {
		t.Errorf("the hub holds %d facts with %d keys, %d were sent", all, keys, w.sent)
	}
}

func (w *wireLine) uplinkIs(t testing.TB, what string, ok func(code, state, way, reason string) bool) {
	t.Helper()
	realparts.Eventually(t, 40*time.Second, what, func() error {
		s, err := w.status()
		if err != nil {
			return err
		}
		if u := s.Uplink; !ok(u.Code, u.State, u.Way, u.Reason+" "+u.WayReason) {
			return fmt.Errorf("uplink: %+v", u)
		}
		return nil
	})
}

// The hub is killed after it has committed and before its word of that has come: everything is sent again, nothing counts
// twice.
func TestHubKilledBetweenCommitAndAcknowledgementLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	w := newWireLine(t, "")
	w.hub.Start(t)
	w.agent.Start(t)
	db := w.db(t)
	w.publish(t, 10)
	w.settled(t, db)
	for range 3 {
		before, _ := facts(t, db)
		w.link.SwallowReplies(true)
		w.publish(t, 200)
		realparts.Eventually(t, 30*time.Second, "the hub has committed", func() error {
			if all, _ := facts(t, db); all == before {
				return errors.New("nothing new")
			}
			return nil
		})
		s, err := w.status()
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := facts(t, db); s.Business.AckedSeq >= uint64(all) {
			t.Fatalf("acknowledged up to %d of %d: the reply was not lost", s.Business.AckedSeq, all)
		}
		w.hub.Kill(syscall.SIGKILL)
		w.link.SwallowReplies(false)
		if err := w.hub.Run(); err != nil {
			t.Fatal(err)
		}
		w.settled(t, db)
	}
}

// The hub is killed while it holds what was sent and has not committed: nothing was acknowledged, everything is sent again.
func TestHubKilledBeforeCommitLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWireLine(t, "")
	w.hub.Start(t)
	w.agent.Start(t)
	db := w.db(t)
	w.publish(t, 10)
	w.settled(t, db)
	for range 3 {
		before, _ := facts(t, db)
		lock, err := db.Conn(t.Context()) // holds every commit back
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		sent := w.link.Sent()
		w.publish(t, 200)
		realparts.Eventually(t, 30*time.Second, "the hub has got facts", func() error {
			if n := w.link.Sent() - sent; n < 5000 {
				return fmt.Errorf("%d bytes", n)
			}
			return nil
		})
		w.hub.Kill(syscall.SIGKILL)
		if _, err := lock.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		lock.Close()
		s, err := w.status()
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := facts(t, db); all != before || s.Business.AckedSeq != uint64(before) {
			t.Fatalf("the hub holds %d facts, %d are acknowledged, want %d: the kill came too late", all, s.Business.AckedSeq, before)
		}
		if err := w.hub.Run(); err != nil {
			t.Fatal(err)
		}
		w.settled(t, db)
	}
}

// viaProxy writes the agent's configuration anew with a proxy, its only key that is about this.
func (w *wireLine) viaProxy(t testing.TB, url string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(raw), "\nhub:\n", "\nhub:\n  proxy: "+url+"\n", 1)
	w.agentCfg = realparts.WriteFile(t, filepath.Join(w.dir, "agent-proxy.yaml"), config)
}

// throughInspection runs the real agent with a wrong password of the proxy, then with the right one, cuts the line and
// kills the hub.
func (w *wireLine) throughInspection(t testing.TB, url, password, issuer string, cut func()) {
	t.Helper()
	w.viaProxy(t, strings.Replace(url, password, "wrong", 1))
	w.hub.Start(t)
	w.agent.Start(t)
	w.uplinkIs(t, "the wrong password is named", func(code, state, _, reason string) bool {
		return code == "proxy_login" && state == "offline" && strings.Contains(reason, "407")
	})
	w.viaProxy(t, url)
	restart(t, w.agent, syscall.SIGTERM)
	w.publish(t, 300)
	w.uplinkIs(t, "connected inside a WebSocket", func(_, state, way, reason string) bool {
		return state == "connected" && way == "websocket" && strings.Contains(reason, issuer)
	})
	db := w.db(t)
	w.settled(t, db)
	said, _ := command(t, "plantagent", "status", "-c", w.agentCfg)
	page, err := http.Get(w.page + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	html, err := io.ReadAll(page.Body)
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"the command": said, "the page": string(html)} {
		if !strings.Contains(text, "inside a WebSocket, because: ") {
			t.Errorf("%s does not say which way is used and why:\n%.3000s", where, text)
		}
	}
	cut()
	restart(t, w.hub, syscall.SIGKILL)
	w.publish(t, 300)
	w.settled(t, db)
}

// The real agent passes an inspecting proxy that wants a login, and the proxy can read nothing.
func TestRealAgentPassesAnInspectingProxyWithPassword(t *testing.T) {
	t.Parallel()
	w := newWireLine(t, "")
	proxy := realparts.NewInspector(t, realparts.InspectorOptions{User: "ulm", Password: "secret", Inspect: true})
	w.throughInspection(t, proxy.URL(), "secret", "Plant Web Gateway CA", proxy.Cut)
	if seen := proxy.Seen(); len(seen) < 10_000 || bytes.Contains(seen, []byte("RM-1")) {
		t.Errorf("the proxy saw %d bytes, item numbers among them: %v", len(seen), bytes.Contains(seen, []byte("RM-1")))
	}
}

func TestRealAgentPassesSquidThatOpensTLS(t *testing.T) {
	t.Parallel()
	w := newWireLine(t, "")
	squid := realparts.InspectingSquid(t, filepath.Join(w.dir, "pki", "ca.pem"))
	w.throughInspection(t, squid.URL(), squid.Password, "not trusted", func() { restart(t, squid, syscall.SIGKILL) })
	w.agent.Kill(syscall.SIGTERM) // squid logs a request when that ends
	realparts.Eventually(t, 20*time.Second, "squid saw inside TLS what was asked for", func() error {
		if log := squid.Log(); !strings.Contains(log, "/v1/agent-tunnel") {
			return errors.New(log)
		}
		return nil
	})
}

// Packets are lost in silence: the agent finds out, and when they come through again everything arrives once. LINEKEEPER_DARK=1h
// takes the silence that long, and the agent as it is shipped.
func TestHalfOpenLineIsFoundAndResumes(t *testing.T) {
	t.Parallel()
	ns := realparts.NewNamespace(t)
	b := newLab(t, ns.Here)
	buf := openBuffer(t)
	cfg := b.agent("line1")
	cfg.Dial = ns.Dial
	silence, patience := 16*time.Second, 30*time.Second
	if long := os.Getenv("LINEKEEPER_DARK"); long != "" {
		var err error
		if silence, err = time.ParseDuration(long); err != nil {
			t.Fatal(err)
		}
		patience = 10 * time.Minute
	} else {
		cfg.AckTimeout, cfg.BackoffSoon, cfg.ConnectTimeout = 6*time.Second, 500*time.Millisecond, 5*time.Second
	}
	up, _ := b.run(cfg, uplink.Deps{Business: buf})
	fill(t, buf, "line1", 0, 500)
	acked := func(want uint64) func() error {
		return func() error {
			if s := buf.Stats(); s.AckedSeq < want {
				return fmt.Errorf("%d of %d: %+v", s.AckedSeq, want, up.Status())
			}
			return nil
		}
	}
	realparts.Eventually(t, 20*time.Second, "all is acknowledged", acked(500))
	ns.Lose(100)
	dark := time.Now()
	fill(t, buf, "line1", 500, 1000)
	realparts.Eventually(t, patience, "the dead line is found", func() error {
		if st := up.Status(); st.State != "offline" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	found := time.Since(dark)
	realparts.Eventually(t, silence+patience, "it has been dark for a while", func() error {
		if time.Since(dark) < silence {
			return errors.New("not yet")
		}
		return nil
	})
	fill(t, buf, "line1", 1000, 1500)
	ns.Lose(0)
	light := time.Now()
	realparts.Eventually(t, patience, "all is acknowledged", acked(1500))
	t.Logf("found after %s, everything there %s after the light", found.Round(time.Millisecond), time.Since(light).Round(time.Millisecond))
	b.tally(1500)
}

// A line of 64 kbit/s that loses 5 of 100 packets: backlogs in both directions drain, and what is urgent passes them.
func TestSlowLossyLineDrainsAndDelaysNothingUrgent(t *testing.T) {
	t.Parallel()
	ns := realparts.NewNamespace(t)
	ns.Slow("64kbit")
	ns.Lose(5)
	b := newLab(t, ns.Here)
	buf := openBuffer(t)
	in, err := inbox.Open(filepath.Join(t.TempDir(), "inbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	cfg := b.agent("line1")
	cfg.Dial = ns.Dial
	const count, receipts, orders = 1000, 1000, 6
	fill(t, buf, "line1", 0, count)
	up, _ := b.run(cfg, uplink.Deps{Business: buf, Inbox: in})
	realparts.Eventually(t, 30*time.Second, "connected", func() error {
		if st := up.Status(); st.State != "connected" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	since := up.Status().Since
	b.deliver("line1", receipts, "")
	var longest time.Duration
	passed := 0
	for i := range orders {
		order := fmt.Sprintf("WO-%d", i)
		b.deliver("line1", 0, order)
		sent := time.Now()
		realparts.Eventually(t, time.Minute, "the order is stored at the agent", func() error {
			if b.stored(order).IsZero() {
				return fmt.Errorf("%+v", up.Status())
			}
			return nil
		})
		longest = max(longest, time.Since(sent))
		if _, seq := in.Position(); seq < receipts && buf.Stats().Pending > 0 {
			passed++
		}
	}
	realparts.Eventually(t, 3*time.Minute, "both backlogs are gone", func() error {
		_, seq := in.Position()
		if s := buf.Stats(); s.Pending > 0 || seq < receipts+orders {
			return fmt.Errorf("%d facts, %d deliveries are open: %+v", s.Pending, receipts+orders-seq, up.Status())
		}
		return nil
	})
	t.Logf("orders=%d, %d of them passed both backlogs, the longest took %s", orders, passed, longest.Round(time.Millisecond))
	if st := up.Status(); !st.Since.Equal(since) {
		t.Errorf("the line was cut: %+v", st)
	}
	if passed < 2 {
		t.Errorf("%d orders passed both backlogs", passed)
	}
	b.tally(count)
}

// All agents of a large site come back after a restart: soon, at a bounded rate, and with everything.
func TestTwoHundredAgentsComeBackWithoutAStampede(t *testing.T) {
	const agents, each = 200, 40
	b := newLab(t, "127.0.0.1")
	var shelves []*shelf
	var ups []*uplink.Uplink
	for i := range agents {
		s := newShelf(fmt.Sprintf("line%d", i))
		s.put(each / 2)
		up, _ := b.run(b.agent(s.agent), uplink.Deps{Business: s})
		shelves, ups = append(shelves, s), append(ups, up)
	}
	all := func() error {
		for i, s := range shelves {
			if st := ups[i].Status(); s.pending() > 0 || st.State != "connected" {
				n := s.pending()
				return fmt.Errorf("%s: %d are pending: %+v", s.agent, n, ups[i].Status())
			}
		}
		return nil
	}
	realparts.Eventually(t, time.Minute, "all agents are there", all)
	b.stop()
	for _, s := range shelves {
		s.put(each / 2)
	}
	b.mu.Lock()
	b.hellos = nil
	b.mu.Unlock()
	b.start()
	back := time.Now()
	realparts.Eventually(t, time.Minute, "all agents are back", all)
	took := time.Since(back)
	b.mu.Lock()
	perSecond := map[int64]int{}
	most := 0
	for _, at := range b.hellos {
		perSecond[at.Unix()]++
		most = max(most, perSecond[at.Unix()])
	}
	hellos := len(b.hellos)
	b.mu.Unlock()
	accepted := b.ingest.Counts().Accepted
	t.Logf("agents=%d back after %s, hellos=%d, at most %d in a second, accepted=%d", agents, took.Round(time.Millisecond), hellos, most, accepted)
	for _, up := range ups {
		if st := up.Status(); st.Way != "direct" {
			t.Errorf("the restart was taken for a firewall: %+v", st)
		}
	}
	// After a short outage the first attempts of all may well fall into one second; they must not be repeated at once.
	if hellos > 3*agents || most > 2*agents {
		t.Errorf("%d hellos, %d in a second", hellos, most)
	}
	if accepted != agents*each/2 {
		t.Errorf("accepted %d, want %d", accepted, agents*each/2)
	}
	b.tally(agents * each)
}

// A plant computer whose battery is dead says so with the hub's time, keeps its facts, and sends them once it is set.
func TestClockTenYearsBackIsNamedAndEverythingComesOnceItIsSet(t *testing.T) {
	t.Parallel()
	b := newLab(t, "127.0.0.1")
	buf := openBuffer(t)
	fill(t, buf, "line1", 0, 300)
	var off atomic.Int64
	off.Store(int64(-10 * 365 * 24 * time.Hour))
	cfg := b.agent("line1")
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	up, _ := b.run(cfg, uplink.Deps{Business: buf})
	realparts.Eventually(t, 30*time.Second, "the clock is named", func() error {
		if st := up.Status(); st.Code != "clock" || !strings.Contains(st.Reason, "wrong by 10 years") || !strings.Contains(st.Reason, "the hub says") || !up.ClockSuspect() {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	t.Log(up.Status().Reason)
	if n := b.ingest.Counts().Accepted; n != 0 {
		t.Errorf("%d facts were sent to a hub whose certificate could not be checked", n)
	}
	fill(t, buf, "line1", 300, 500)
	off.Store(0)
	realparts.Eventually(t, time.Minute, "all is acknowledged", func() error {
		if s := buf.Stats(); s.Pending > 0 || up.ClockSuspect() {
			return fmt.Errorf("%d are pending: %+v", s.Pending, up.Status())
		}
		return nil
	})
	b.tally(500)
}
