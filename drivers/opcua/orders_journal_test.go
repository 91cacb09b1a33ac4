package opcua

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// A machine whose clock is behind ours would have its start sorted before our note of its acceptance, and the older word shown.
func TestAnswersKeepTheirOrderWhateverTheMachinesClockSays(t *testing.T) {
	f, now := &follower{}, time.Now()
	e := entry{Order: "WO-1", Machine: "m", Revision: none, Cancelling: none}
	for i, phase := range []jobcontrol.Phase{jobcontrol.Allowed, jobcontrol.Running, jobcontrol.Interrupted, jobcontrol.Running, jobcontrol.Ended} {
		behind := now.Add(-time.Duration(i) * time.Hour)
		f.advance(&e, phase, 1, moments{behind, behind, behind})
	}
	var list []string
	seen := map[string]bool{}
	for i, a := range e.Telling {
		list = append(list, a.Status)
		if seen[a.Position] || i > 0 && a.At.Before(e.Telling[i-1].At) {
			t.Errorf("answer %d is %+v after %+v", i, a, e.Telling[max(i-1, 0)])
		}
		seen[a.Position] = true
	}
	if got := strings.Join(list, " "); got != "accepted started held started finished" {
		t.Errorf("answers are %s", got)
	}
}

func TestDamagedNotesOnOneOrderTakeNoOtherAlong(t *testing.T) {
	dir := t.TempDir()
	j, _, err := openJournal(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"WO-1", "WO-2"} {
		e := j.get("m", no)
		e.Done = 7
		e.say(7, signal.AnswerAccepted, "", time.Now())
		if err := j.put(e); err != nil {
			t.Fatal(err)
		}
	}
	realparts.WriteFile(t, dir+"/"+key("m", "WO-1")+".json", "{\"order\":\"WO")
	j, damaged, err := openJournal(dir, time.Now())
	if err != nil || len(damaged) != 1 {
		t.Fatalf("%v, %v", damaged, err)
	}
	if a, b := j.get("m", "WO-1"), j.get("m", "WO-2"); a.Done != none || b.Done != 7 || len(b.Telling) != 1 {
		t.Errorf("%+v, %+v", a, b)
	}
}
