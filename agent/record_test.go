package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/localui"
	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// busy is sources that count and book rows all at once; the returned function waits until each has said n things more.
func busy(t *testing.T, fs fakes, names ...string) (more func(n int)) {
	quota := map[string]chan int{}
	var wg sync.WaitGroup
	for _, name := range names {
		c := make(chan int)
		quota[name] = c
		fs[name] = &fake{run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
			said := 0
			for {
				select {
				case <-ctx.Done():
					return nil
				case n := <-c:
					for range n {
						said++
						order := signal.Signal{Tag: "states", Position: fmt.Sprint("s", said), Value: map[string]any{"order": fmt.Sprintf("WO-%s-%d", name, said/7), "state": "started"}}
						b := signal.Batch{Signals: []signal.Signal{order, count(3*said, time.Now()), row(said)}}
						if err := emit(ctx, b); err != nil {
							t.Errorf("emit: %v", err)
						}
					}
					wg.Done()
				}
			}
		}}
	}
	return func(n int) {
		for _, c := range quota {
			wg.Add(1)
			c <- n
		}
		wg.Wait()
	}
}

// A recording that begins while several sources speak at once holds, from one moment on, each thing that the rules were told in
// the order in which they saw it: replayed, it makes the very facts that the hub holds of that time.
func TestReplayOfARecordingMakesTheFactsThatTheHubHolds(t *testing.T) {
	h := serveHub(t)
	fs := fakes{}
	more := busy(t, fs, "one", "two", "three")
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	a := start(t, cfg, fs)
	eventually(t, "the hub to be heard", func() error {
		if a.Snapshot().Uplink.State != "connected" {
			return errors.New(a.Snapshot().Uplink.State)
		}
		return nil
	})
	more(20)
	var began sync.WaitGroup
	began.Go(func() {
		if _, err := a.StartRecording(context.Background(), status.RecordRequest{}); err != nil {
			t.Error(err)
		}
	})
	more(60)
	began.Wait()
	if _, err := a.StartRecording(context.Background(), status.RecordRequest{}); !errors.Is(err, ErrRecording) {
		t.Errorf("a second recording beside the first gave %v", err)
	}
	more(40)
	eventually(t, "all to be closed and sent", func() error {
		for _, row := range a.pipe.rules.Ledger(readOnly{a.pipe.business}) {
			if row.Counted != row.Stored {
				return fmt.Errorf("open: %v", row)
			}
		}
		if n := a.Snapshot().Business.Pending; n > 0 {
			return fmt.Errorf("%d records wait", n)
		}
		return nil
	})
	rec, err := a.StopRecording()
	if err != nil || rec.Running || rec.Ended != "it was stopped" {
		t.Fatalf("stopped: %+v, %v", rec, err)
	}
	a.stop()
	checkReplay(t, h, rec)
}

func checkReplay(t *testing.T, h *hub, rec status.Recording) {
	t.Helper()
	f, err := os.Open(rec.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head, events, cut, err := recording.Read(f)
	if err != nil || cut || uint64(len(events)) != rec.Events {
		t.Fatalf("read %d of %d events, cut off %v, %v", len(events), rec.Events, cut, err)
	}
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has number %d: one is missing or twice there", i+1, e.Seq)
		}
	}
	was, err := head.Config()
	if err != nil {
		t.Fatal(err)
	}
	facts, err := recording.Replay(&head, events, was)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	again := map[string]bool{}
	for _, r := range facts {
		again[r.Key] = true
	}
	found := 0
	for _, body := range h.facts {
		var live pb.Fact
		if err := proto.Unmarshal(body, &live); err != nil {
			t.Fatal(err)
		}
		if live.Header.RecordedAt.AsTime().Before(head.StartedAt) {
			continue
		}
		found++
		key, err := factkey.FromBytes(live.Key)
		if err != nil || !again[key.String()] {
			t.Errorf("the replay lacks %v", &live)
		}
	}
	if len(facts) != found || found < 100 {
		t.Errorf("the replay made %d facts, the hub holds %d of that time", len(facts), found)
	}
	t.Logf("%d events, %d bytes, %d facts made again", len(events), rec.Bytes, len(facts))
}

// Trace and recording are for those who may read the data folder; a trace says what a value became while that happens.
func TestTraceShowsWhatAValueBecameToThoseWithTheToken(t *testing.T) {
	fs := fakes{}
	more := busy(t, fs, "one", "two")
	cfg := testConfig(t.TempDir(), fs)
	a := start(t, cfg, fs)
	token, err := os.ReadFile(localui.TokenFile(cfg.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(ctx context.Context, method, path, token, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "http://"+a.Addr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	secret := strings.TrimSpace(string(token))
	for _, c := range []struct {
		method, path, token, body string
		want                      int
	}{
		{"GET", "/api/v1/trace?source=one", "", "", http.StatusUnauthorized},
		{"POST", "/api/v1/admin/recording", "", `{}`, http.StatusUnauthorized},
		{"GET", "/api/v1/trace?source=nine", secret, "", http.StatusNotFound},
		{"GET", "/api/v1/admin/recording", secret, "", http.StatusNotFound},
		{"POST", "/api/v1/admin/recording", secret, `{"sources": ["nine"]}`, http.StatusConflict},
		{"POST", "/api/v1/admin/recording", secret, `{"for": "soon"}`, http.StatusBadRequest},
		{"POST", "/api/v1/admin/recording", secret, `{"for": "48h"}`, http.StatusConflict},
		{"POST", "/api/v1/admin/recording", secret, `{"source": "one"}`, http.StatusBadRequest},
		{"DELETE", "/api/v1/admin/recording", secret, "", http.StatusConflict},
		{"POST", "/api/v1/admin/recording", secret, `{"sources": ["one"], "for": "1h"}`, http.StatusOK},
	} {
		res := get(context.Background(), c.method, c.path, c.token, c.body)
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s %s %s answers %s %s, want %d", c.method, c.path, c.body, res.Status, text, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	res := get(ctx, "GET", "/api/v1/trace?source=one&tag=count", secret, "")
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Scan() // it has begun
	more(2)
	var got []string
	for len(got) < 2 && lines.Scan() {
		var x translate.Explained
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		if x.Source != "one" || x.Tag != "count" && x.Tag != "" {
			t.Errorf("the trace shows %s/%s", x.Source, x.Tag)
		}
		if x.Tag == "count" {
			got = append(got, x.Value+" "+x.Steps[len(x.Steps)-1].Outcome+" "+x.Steps[len(x.Steps)-1].OrderNo)
		}
	}
	if diff := cmp.Diff([]string{"3 counted WO-one-0", "6 counted WO-one-0"}, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	eventually(t, "nothing to be explained any more", func() error {
		if a.pipe.tracer.on() {
			return errors.New("somebody looks on")
		}
		return nil
	})
	rec, err := a.StopRecording()
	if err != nil || rec.Events < 2 || len(rec.Sources) != 1 {
		t.Errorf("the recording is %+v, %v", rec, err)
	}
}

func TestRecordingEndsWithTheAgentAndItsFileIsWhole(t *testing.T) {
	fs := fakes{}
	more := busy(t, fs, "one")
	cfg := testConfig(t.TempDir(), fs)
	a := start(t, cfg, fs)
	rec, err := a.StartRecording(context.Background(), status.RecordRequest{Sources: []string{"one"}, For: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	more(5)
	a.stop()
	f, err := os.Open(rec.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, events, cut, err := recording.Read(f); err != nil || cut || len(events) < 5 {
		t.Errorf("%d events are read, cut off %v, %v", len(events), cut, err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file is open to others: %v, %v", info.Mode(), err)
	}
}
