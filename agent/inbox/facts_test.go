package inbox

import (
	"fmt"
	"testing"
	"time"
)

func TestTheNewestFactsStayOverARestart(t *testing.T) {
	f := open(t)
	at := time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC)
	noted := func(from, to uint64) (all []Noted) {
		for seq := from; seq <= to; seq++ {
			all = append(all, Noted{Seq: seq, Key: fmt.Sprint("K", seq), OrderNo: "WO-1", What: "12 pcs yield of GEAR", At: at})
		}
		return all
	}
	f.must(f.NoteFacts(nil))
	f.must(f.NoteFacts(noted(1, 400)))
	f.must(f.NoteFacts(noted(390, 1000)))
	f.reopen()
	got := f.Facts()
	if len(got) != keepFacts || got[0].Seq != 1000-keepFacts+1 || got[keepFacts-1] != noted(1000, 1000)[0] {
		t.Errorf("%d facts, from %+v", len(got), got[0])
	}
	if f.Recovered() != "" {
		t.Error(f.Recovered())
	}
}
