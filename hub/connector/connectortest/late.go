package connectortest

import (
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// asks is a way to ask whether a posting is there; yet: it is not, and may still appear.
type asks func(t testing.TB, c connector.Connector, q connector.ToVerify) (yet bool, err error)

// RunLateAnswers is the case of Run that has answers read late, for a configuration that Run is not made with, or a system whose Faults
// are none. It asks at the age of ripe or later: an answer cannot be held for longer than the connector waits for it. It fails where no
// time needs to pass until anything is a proof.
func RunLateAnswers(t *testing.T, h Harness, holder Holder, ripe time.Duration) {
	s := &suite{Harness: h, c: h.Connect(t), ripe: ripe}
	s.can = s.c.Capabilities()
	if !s.lateAnswers(t, holder) && !t.Failed() {
		t.Error("what was never sent is called missing at once")
	}
}

// lateAnswers lets an answer be read long after it was given, as by a hub whose computer slept in between: what had time to appear since
// the question may be there by now, so the answer must be worth what it was worth when it was asked for. It reports whether there is
// anything for which the connector lets time pass.
func (s *suite) lateAnswers(t *testing.T, holder Holder) (waits bool) {
	ways := map[string]asks{"LookUp": lookedUp, "ReadBack": readBack}
	if _, many := s.c.(connector.ManyVerifier); many {
		ways["ReadBackOfMany"] = readBackOfMany
	}
	for name, ask := range ways {
		t.Run(name, func(t *testing.T) { waits = s.lateAnswer(t, holder, ask) || waits })
	}
	return waits
}

func lookedUp(t testing.TB, c connector.Connector, q connector.ToVerify) (bool, error) {
	f, err := c.Lookup(t.Context(), q.Posting, q.Intent)
	return f.Presence == connector.NotFoundYet, err
}

func readBack(t testing.TB, c connector.Connector, q connector.ToVerify) (bool, error) {
	v, err := c.Verify(t.Context(), q.Posting, q.Intent, q.Document)
	return v.NotYet, err
}

func readBackOfMany(t testing.TB, c connector.Connector, q connector.ToVerify) (bool, error) {
	all, err := c.(connector.ManyVerifier).VerifyMany(t.Context(), []connector.ToVerify{q})
	return err == nil && all[0].NotYet, err
}

// lateAnswer asks for what was never sent, and holds the answer back until the same answer is a proof for a twin that is younger still.
// It reports whether the connector lets time pass before anything is a proof to it. On a machine that is so slow that the question
// itself may have come too late, it asks again for another.
func (s *suite) lateAnswer(t *testing.T, holder Holder, ask asks) (waits bool) {
	other := s.Connect(t) // its own sessions: nothing of it waits for what is held
	const tries = 10
	var slow error
	for try := range tries {
		order, twins := s.CreateOrder(t, "40"), s.CreateOrder(t, "40")
		began := time.Now()
		q := s.neverSent(t, s.c, order)
		if yet, err := ask(t, s.c, q); err != nil {
			t.Fatal(err)
		} else if !yet { // at once, or because the machine was slow
			if !waits && try == 2 {
				t.Log("not part of this run: no time needs to pass until this is a proof")
				return false
			}
			continue
		}
		waits = true
		twin := &unsent{c: other, q: s.neverSent(t, other, twins), ask: ask}
		twin.while(t, func(yet bool) bool { return yet && time.Since(began) < s.ripe })
		asked, yet, err := s.heldBack(t, holder, twin, func() (bool, error) { return ask(t, s.c, q) })
		switch age := asked.Sub(began); {
		case err != nil: // nobody waits so long for an answer
			slow = err
		case yet:
			return true
		case age <= twin.young:
			t.Fatalf("what was asked for at most %s after it was prepared may still appear, as it may after %s; the answer was read later, and it is called gone", age, twin.young)
		}
	}
	t.Errorf("the machine was too slow to ask in time, %d times: %v", tries, slow)
	return waits
}

// heldBack asks and holds the answer back until the twin can no longer appear. asked is when the question came.
func (s *suite) heldBack(t *testing.T, holder Holder, twin *unsent, ask func() (bool, error)) (asked time.Time, yet bool, err error) {
	t.Helper()
	came, release := holder.Hold()
	defer release()
	read := make(chan struct{})
	go func() {
		defer close(read)
		yet, err = ask()
	}()
	select {
	case asked = <-came:
	case <-read:
		t.Fatalf("nobody was asked, and the answer is %t, %v", yet, err)
	}
	twin.while(t, func(yet bool) bool { return yet })
	release()
	<-read
	return asked, yet, err
}

func (s *suite) neverSent(t testing.TB, c connector.Connector, order string) connector.ToVerify {
	t.Helper()
	p := s.confirmation(order, "6", "0")
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	return connector.ToVerify{Posting: p, Intent: intent, Document: connector.Document{Number: "NO-SUCH-DOCUMENT"}}
}

// unsent is asked for again and again.
type unsent struct {
	c     connector.Connector
	q     connector.ToVerify
	ask   asks
	first time.Time     // its first answer was there by then
	young time.Duration // an age at which it could still appear, counted from first
}

// while asks until on says no to the answer.
func (u *unsent) while(t testing.TB, on func(yet bool) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); pause(t.Context(), 10*time.Millisecond) {
		asked := time.Now()
		yet, err := u.ask(t, u.c, u.q)
		switch {
		case err != nil:
			t.Fatal(err)
		case yet && u.first.IsZero():
			u.first = time.Now()
		case yet:
			u.young = asked.Sub(u.first)
		}
		if !on(yet) {
			return
		}
	}
	t.Fatalf("what was never sent may still appear after %s", patience)
}
