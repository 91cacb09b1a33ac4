package uplink

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// port serves the hub as its agents' port does: gRPC, and HTTP/1.1 to whoever asks for that.
func (h *hub) port(t *testing.T, a *authority, from, to time.Duration) (address string) {
	t.Helper()
	conf := a.server("hub.test", from, to)
	direct, plain := newPipes(), newPipes()
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(serveBoth(l, conf, direct, plain))
	t.Cleanup(h.serve(direct, conf))
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(plain) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

func TestClockThatIsWrongByYearsIsNamedWithTheHubsTimeAndWorksOnceItIsSet(t *testing.T) {
	for _, c := range []struct {
		name string
		off  time.Duration
		word string
		side string
	}{
		{"dead battery", -3650 * day, "10 years", "behind"},
		{"from the future", 1825 * day, "5 years", "ahead"},
		{"some weeks", -40*day - hour, "40 days", "behind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t)
			h := newHub(t)
			p := newPlant(a)
			p.connectTo(h.port(t, a, -hour, day))
			var set atomicOffset
			set.Store(c.off)
			p.cfg.Now = func() time.Time { return time.Now().Add(set.Load()) }
			p.business.append(records(0, 500, 100)...)
			defer p.run(t)()
			realparts.Eventually(t, 20*time.Second, "the clock is named", func() error {
				st := p.up.Status()
				if st.Code != "clock" || !strings.Contains(st.Reason, "the clock is wrong by "+c.word) || !strings.Contains(st.Reason, "the hub says "+time.Now().UTC().Format("2006-01-02")) ||
					!strings.Contains(st.NextStep, c.side) {
					return fmt.Errorf("%+v", st)
				}
				return nil
			})
			t.Log(p.up.Status().Reason)
			skew, ok := p.up.ClockSkew()
			if d := skew - c.off; !ok || d.Abs() > 3*time.Second || !p.up.ClockSuspect() {
				t.Errorf("skew is %s (known %v, suspect %v), want %s", skew, ok, p.up.ClockSuspect(), c.off)
			}
			if h.helloCount() != 0 || h.count() != 0 {
				t.Errorf("%d hellos, %d records although the hub's certificate could not be checked", h.helloCount(), h.count())
			}
			p.business.append(records(500, 500, 100)...) // collecting goes on
			set.Store(0)
			if p.up.ClockSuspect() {
				t.Error("the clock is right and still suspect")
			}
			arrived(t, p, h, 1000)
		})
	}
}

func TestCertificateThatReallyExpiredIsToldFromAWrongClock(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	p := newPlant(a)
	p.connectTo(h.port(t, a, -9*day, -3*day-hour))
	code, reason, next := reasonOf(t, p)
	t.Logf("%s: %s (%s)", code, reason, next)
	if code != "hub_certificate_expired" || !strings.Contains(next, "agrees with the hub's") || p.up.ClockSuspect() {
		t.Errorf("code %q, next step %q", code, next)
	}
}

// Whoever holds no certificate of our authority cannot tell us the time.
func TestTimeOfAStrangerIsNotBelieved(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	h := newHub(t)
	p := newPlant(a)
	p.connectTo(h.port(t, stranger, 41*time.Minute+30*time.Second, day))
	if _, reason, _ := reasonOf(t, p); strings.Contains(reason, "the hub says") {
		t.Errorf("believed: %s", reason)
	}
	if _, ok := p.up.ClockSkew(); ok {
		t.Error("a skew is known")
	}
}

func TestClockThatIsSetWhileTheLineHoldsIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var set atomicOffset
		w.cfg.Now = func() time.Time { return time.Now().Add(set.Load()) }
		defer w.start(t)()
		until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		pause(t.Context(), 3*time.Hour)
		if skew, ok := w.up.ClockSkew(); !ok || skew.Abs() > time.Second || w.up.ClockSuspect() {
			t.Errorf("skew is %s after three calm hours", skew)
		}
		set.Store(-2 * hour)
		if skew, _ := w.up.ClockSkew(); skew.Round(time.Second) != -2*hour || !w.up.ClockSuspect() {
			t.Errorf("skew is %s after the clock was set back by two hours", skew)
		}
		if w.hub.helloCount() != 1 {
			t.Error("the line was lost")
		}
	})
}
