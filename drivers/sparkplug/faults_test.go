package sparkplug

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// parts are the numbers of the parts that became durable, in their order; it fails when one has two identities.
func (p *plant) parts() []int {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []int
	identity := map[int]string{}
	for i := range p.signals {
		n, ok := part(&p.signals[i])
		if !ok {
			continue
		}
		if before, again := identity[n]; again && before != p.signals[i].Position {
			p.t.Errorf("part %d came as %q and as %q", n, before, p.signals[i].Position)
		} else if again {
			continue
		}
		identity[n] = p.signals[i].Position
		list = append(list, n)
	}
	return list
}

func (p *plant) awaitParts(n int) {
	p.t.Helper()
	realparts.Eventually(p.t, testPatience, fmt.Sprintf("%d parts", n), func() error {
		if got := len(p.parts()); got != n {
			return fmt.Errorf("%d parts are durable", got)
		}
		return nil
	})
}

// goods are the good values of the counter, in their order.
func (p *plant) goods() (list []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.signals {
		if s.Tag == "good" && s.Quality == signal.Good {
			n, err := strconv.Atoi(fmt.Sprint(s.Value))
			if err != nil {
				p.t.Errorf("count %v", s.Value)
			}
			list = append(list, n)
		}
	}
	return list
}

func produce(t testing.TB, e *realparts.Edge, n int) {
	t.Helper()
	e.Post(t, "/produce", map[string]any{"n": n})
}

func awaitEdge(t testing.TB, e *realparts.Edge, what string, ok func(realparts.EdgeState) bool) {
	t.Helper()
	realparts.Eventually(t, testPatience, what, func() error {
		if s := e.State(t); !ok(s) {
			return fmt.Errorf("the node says %+v", s)
		}
		return nil
	})
}

// The host joins a node that has been talking for long, and the node does much of what nodes do wrong.
func TestFaultsOfANodeAreHealed(t *testing.T) {
	t.Parallel() // tests beside the suite of every driver: that one counts goroutines
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), Devices: []string{"press"}})
	awaitEdge(t, edge, "the node's birth", func(s realparts.EdgeState) bool { return s.Born })
	edge.Post(t, "/fault", map[string]any{"ignoreRebirth": true})
	p := newPlant(t)
	p.start(section(b))
	p.awaitOK()

	produce(t, edge, 5)
	awaitEdge(t, edge, "a request for the birth of a node that was never heard", func(s realparts.EdgeState) bool { return s.RebirthsAsked >= 2 })
	if n := len(p.parts()); n != 0 {
		t.Errorf("%d parts were read without a birth", n)
	}
	edge.Post(t, "/fault", map[string]any{"ignoreRebirth": false})
	p.awaitParts(5) // parked, and understood now

	produce(t, edge, 1)
	edge.Post(t, "/fault", map[string]any{"skip": 1})
	births := edge.State(t).Births
	produce(t, edge, 3)
	p.awaitParts(9)
	p.await("the gap is shown", func() bool {
		x := p.problems["gap:plant/line1"]
		return x != nil && strings.Contains(x.Reason, "1 messages") && x.Missing == 1
	})
	awaitEdge(t, edge, "a new birth", func(s realparts.EdgeState) bool { return s.Births > births })

	births = edge.State(t).Births
	edge.Post(t, "/fault", map[string]any{"unknownAlias": true})
	produce(t, edge, 2)
	p.awaitParts(11)
	awaitEdge(t, edge, "a birth for an unknown alias", func(s realparts.EdgeState) bool { return s.Births > births })
	p.await("the value that no birth explains is put aside", func() bool {
		return slices.ContainsFunc(p.signals, func(s signal.Signal) bool { return s.Problem != nil && s.Problem.Code == "unknown_metric" })
	})

	edge.Post(t, "/bytes", map[string]any{"type": "NDATA", "bytes": "/////w=="})
	produce(t, edge, 1)
	p.awaitParts(12)
	p.await("a message that is none is put aside", func() bool {
		return slices.ContainsFunc(p.signals, func(s signal.Signal) bool { return s.Problem != nil && s.Problem.Code == "bad_payload" })
	})

	edge.Post(t, "/say", map[string]any{"type": "DDEATH", "device": "press"})
	p.await("the dead device's value is bad", func() bool {
		return slices.ContainsFunc(p.signals, func(s signal.Signal) bool {
			return s.Topic == "plant/line1/press/Counts/Good" && s.Quality == signal.Bad && s.Status == "Stale"
		})
	})
	edge.Kill(9)
	p.await("the dead node's value is bad", func() bool {
		return slices.ContainsFunc(p.signals, func(s signal.Signal) bool { return s.Tag == "good" && s.Quality == signal.Bad })
	})
}

// A node whose protocol is all a library's, with and without compression.
func TestNodeOfAClientLibraryIsRead(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compressed %t", compress), func(t *testing.T) {
			b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
			p := newPlant(t)
			p.start(section(b))
			p.awaitOK()
			edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), Client: true, Compress: compress})
			p.await("births of node and device", func() bool {
				return slices.ContainsFunc(p.signals, func(s signal.Signal) bool { return s.Topic == "plant/line1/press/Counts/Good" }) &&
					slices.ContainsFunc(p.signals, func(s signal.Signal) bool { return s.Topic == "plant/line1/Counts/Good" })
			})
			produce(t, edge, 300) // numbers go round
			realparts.Eventually(t, testPatience, "the last parts", func() error {
				last := map[string]string{}
				p.mu.Lock()
				defer p.mu.Unlock()
				count := 0
				for _, s := range p.signals {
					last[s.Topic] = fmt.Sprint(s.Value)
					if s.Problem != nil {
						t.Fatalf("put aside: %+v", s.Problem)
					}
					if s.Tag == "parts" {
						count++
					}
				}
				if last["plant/line1/Counts/Good"] != "300" || last["plant/line1/press/Counts/Good"] != "300" || count != 600 {
					return fmt.Errorf("%d events, last values %v, problems %v", count, last, p.problems)
				}
				return nil
			})
			p.set(func() {
				if len(p.problems) > 0 {
					t.Errorf("problems: %v", p.problems)
				}
			})
			edge.Kill(9)
			p.await("the node's death", func() bool { return p.signals[len(p.signals)-1].Quality == signal.Bad })
		})
	}
}

// While the buffer takes nothing the host is offline and the node stores. What it stored comes in the order of time.
func TestHeldBackHostLetsNodesStore(t *testing.T) {
	t.Parallel()
	for _, format := range []string{format30, format22} {
		t.Run(format, func(t *testing.T) {
			b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
			edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here", OldState: format == format22})
			p := newPlant(t)
			stop := p.start(strings.Replace(section(b), "id: here", "id: here, state_format: '"+format+"'", 1))
			awaitEdge(t, edge, "a birth", func(s realparts.EdgeState) bool { return s.Born })
			produce(t, edge, 5)
			p.awaitParts(5)

			gate := make(chan struct{})
			p.set(func() { p.gate = gate })
			produce(t, edge, 1) // this one the buffer does not take
			awaitEdge(t, edge, "that the node knows", func(s realparts.EdgeState) bool { return !s.HostOnline && !s.Born })
			p.await("the state", func() bool { return p.state == signal.StateHeld })
			produce(t, edge, 30)
			if s := edge.State(t); s.Stored != 30 {
				t.Errorf("the node stores %d parts", s.Stored)
			}
			p.set(func() { p.gate = nil })
			close(gate)
			p.awaitParts(36)
			if list := p.parts(); !slices.IsSorted(list) {
				t.Errorf("parts came in the order %v", list)
			}
			realparts.Eventually(t, testPatience, "the last count", func() error {
				if list := p.goods(); list[len(list)-1] != 36 {
					return fmt.Errorf("counts are %v", list)
				}
				return nil
			})
			if list := p.goods(); !slices.IsSorted(list) {
				t.Errorf("counts came in the order %v", list)
			}

			stop()
			awaitEdge(t, edge, "that the node knows that the host stopped", func(s realparts.EdgeState) bool { return !s.HostOnline })
			produce(t, edge, 3)
			p.start(strings.Replace(section(b), "id: here", "id: here, state_format: '"+format+"'", 1))
			p.awaitParts(39)
		})
	}
}

// The agent is stopped while its buffer takes nothing. The node believes that its last values arrived, and does not repeat them.
func TestStoppedWhileHeldBackLosesNothing(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here"})
	p := newPlant(t)
	stop := p.start(section(b))
	awaitEdge(t, edge, "a birth", func(s realparts.EdgeState) bool { return s.Born })
	produce(t, edge, 5)
	p.awaitParts(5)
	p.set(func() { p.gate = make(chan struct{}) })
	produce(t, edge, 20)
	if s := edge.State(t); s.Live != 25 {
		t.Fatalf("the node sent %d parts", s.Live)
	}
	for range 2 { // the second start finds the buffer as full as before
		stop()
		if n := len(p.parts()); n != 5 {
			t.Errorf("%d parts are durable", n)
		}
		stop = p.start(section(b))
	}
	stop()
	produce(t, edge, 3)
	p.set(func() { p.gate = nil })
	p.start(section(b))
	p.awaitParts(28)
	if _, err := os.Stat(p.dir + "/pending"); err == nil {
		t.Error("the file stays although its values are durable")
	}
}

func TestPendingValuesAreReadAsTheyWereWritten(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	var list []signal.Signal
	for _, v := range []any{nil, true, false, "", "ä", signal.Number("18446744073709551615"), at, []byte{0, 255}, []byte{}, []any{}, []any{nil, true, signal.Number("-0")},
		map[string]any{}, map[string]any{"a": nil, "b": []any{map[string]any{"c": at}}, "d": []any{}}} {
		list = append(list, signal.Signal{Tag: "t", Topic: "a/b", Labels: map[string]string{"node": "n"}, Value: v, Position: "p|1", SourceTime: at, ReceivedTime: at,
			Quality: signal.Uncertain, Status: "s"})
	}
	list = append(list, signal.Signal{Tag: "t", Payload: []byte("x"), Problem: &signal.Problem{Code: "c", Item: "i", Reason: "r", NextStep: "n"}})
	path := t.TempDir() + "/pending"
	if none, err := readPending(path); err != nil || none != nil {
		t.Errorf("no file is read as %v (%v)", none, err)
	}
	if err := keepPending(path, list); err != nil {
		t.Fatal(err)
	}
	got, err := readPending(path)
	if err != nil || len(got) != len(list) {
		t.Fatalf("%d of %d values: %v", len(got), len(list), err)
	}
	for i := range list {
		if !reflect.DeepEqual(got[i], list[i]) {
			t.Errorf("got %#v, want %#v", got[i], list[i])
		}
	}
	if err := os.WriteFile(path, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPending(path); err == nil {
		t.Error("a torn file was read")
	}
}

// A broker that lets the agent read and not say that it is online: nodes are read all the same, and the page says what is lost.
// This broker even ends the connection for the attempt, and in 3.1.1 it does not say why.
func TestHostThatMayNotSpeakStillReads(t *testing.T) {
	t.Parallel()
	for version, code := range map[string]string{"5": "state_refused", "3.1.1": "state_suspect"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			acl := realparts.WriteFile(t, t.TempDir()+"/acl", "topic readwrite spBv1.0/plant/#\ntopic read spBv1.0/#\n")
			b := realparts.Mosquitto(t, realparts.MosquittoOptions{Extra: "acl_file " + acl})
			edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b)})
			awaitEdge(t, edge, "the node's birth", func(s realparts.EdgeState) bool { return s.Born })
			p := newPlant(t)
			p.start("version: '" + version + "'" + section(b))
			p.await("the problem", func() bool { return p.problems["state"] != nil && p.problems["state"].Code == code })
			p.await("a connection that lasts", func() bool { return p.state == signal.StateOK && p.problems["connect:host"] == nil })
			produce(t, edge, 5)
			p.awaitParts(5)
		})
	}
}

// Somebody says that the host is offline, and then that it was so at a later time than the host's own clock shows.
func TestHostInsistsThatItIsOnline(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	other := realparts.SparkplugHost(t, clients(b))
	p := newPlant(t)
	p.start(section(b))
	p.awaitOK()
	last := func() (text string) {
		for _, m := range heardBy(t, other) {
			if m.Topic == "spBv1.0/STATE/here" {
				text = m.Text
			}
		}
		return text
	}
	awaitState := func(what string, ok func(online bool, at int64) bool) (at int64) {
		realparts.Eventually(t, testPatience, what, func() error {
			var online, read bool
			if online, at, read = readState(format30, []byte(last())); !read || !ok(online, at) {
				return fmt.Errorf("the last word is %q", last())
			}
			return nil
		})
		return at
	}
	first := awaitState("online", func(online bool, _ int64) bool { return online })
	other.Post(t, "/state", map[string]any{"id": "here", "online": false, "timestamp": first})
	awaitState("online again", func(online bool, at int64) bool { return online && at == first })
	tomorrow := time.Now().Add(24 * time.Hour).UnixMilli()
	other.Post(t, "/state", map[string]any{"id": "here", "online": false, "timestamp": tomorrow})
	awaitState("online later than tomorrow", func(online bool, at int64) bool { return online && at > tomorrow })
	p.awaitOK()

	// A second agent of the same name: both are told, and neither keeps the broker busy.
	q := newPlant(t)
	q.start("client_id: other\n" + section(b))
	for _, x := range []*plant{p, q} {
		x.await("the conflict", func() bool { return x.problems["host_id"] != nil })
	}
}

// heard is one message that another host read.
type heard struct {
	Topic    string
	Text     string
	QoS      int
	Retained bool
	Payload  struct {
		Timestamp string
		Seq       any
		Metrics   []heardMetric
	}
}

type heardMetric struct {
	Name         string
	Alias        any
	Timestamp    any
	Type         string
	Value        any
	IsHistorical bool
	IsNull       bool
	Properties   map[string]struct {
		Type  string
		Value any
	}
}

func heardBy(t testing.TB, h *realparts.HostApplication) []heard {
	t.Helper()
	var all struct{ Seen []heard }
	h.Get(t, "/", &all)
	return all.Seen
}

func (h *heard) metric(name string) *heardMetric {
	for i := range h.Payload.Metrics {
		if h.Payload.Metrics[i].Name == name {
			return &h.Payload.Metrics[i]
		}
	}
	return nil
}

// The agent as an edge node, read by a host that is not ours.
func TestAnotherHostReadsTheAgentsBirths(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	other := realparts.SparkplugHost(t, clients(b))
	p := newPlant(t)
	publishing := fmt.Sprintf("broker: tcp://127.0.0.1:%d\npublish: {tags: ['press1/*']}\n", b.Port)
	d := p.driver(publishing)
	stop := p.run(d)
	at := time.Now()
	tell := func(waiting string, more ...signal.Metric) {
		d.Publish(append([]signal.Metric{
			{Name: "Agent/State", Value: "ok", At: at}, {Name: "Facts/Waiting", Value: signal.Number(waiting), At: at}, {Name: "Hub/Connected", Value: true, At: at},
			{Name: "Facts/Oldest", Value: nil, At: at}, {Name: "Facts/Stored", Value: signal.Number("18446744073709551615"), At: at},
			{Name: "Tags/press1/temperature", Value: signal.Number("21.5"), At: at, Quality: signal.Uncertain, Unit: "CEL"},
			{Name: "Tags/press2/temperature", Value: signal.Number("99"), At: at},
		}, more...))
	}
	tell("7")
	// find waits for a message of one kind behind the ones that were looked at.
	looked := 0
	find := func(kind string) (found heard) {
		t.Helper()
		realparts.Eventually(t, testPatience, kind+" of the agent", func() error {
			all := heardBy(t, other)
			for i := looked; i < len(all); i++ {
				if all[i].Topic == "spBv1.0/ulm/"+kind+"/line1" {
					found, looked = all[i], i+1
					return nil
				}
			}
			return errors.New("none yet")
		})
		return found
	}
	birth := find("NBIRTH")
	for name, want := range map[string]string{
		"bdSeq": "Int64 0", "Node Control/Rebirth": "Boolean false", "Agent/State": "String ok", "Facts/Waiting": "Int64 7", "Hub/Connected": "Boolean true",
		"Facts/Stored": "UInt64 18446744073709551615", "Tags/press1/temperature": "Double 21.5",
	} {
		if m := birth.metric(name); m == nil || fmt.Sprint(m.Type, " ", m.Value) != want {
			t.Errorf("%s was read as %+v, want %s", name, m, want)
		}
	}
	if m := birth.metric("Facts/Oldest"); m == nil || m.Value != nil {
		t.Errorf("what is null was read as %+v", m)
	}
	if m := birth.metric("Tags/press1/temperature"); m == nil || fmt.Sprint(m.Properties["Quality"].Value) != "64" || m.Properties["engUnit"].Value != "CEL" {
		t.Errorf("quality and unit were read as %+v", m)
	}
	if birth.metric("Tags/press2/temperature") != nil {
		t.Error("a tag that was not chosen is told")
	}
	if birth.QoS != 0 || birth.Retained || fmt.Sprint(birth.Payload.Seq) != "0" {
		t.Errorf("the birth has QoS %d, retained %t, seq %v", birth.QoS, birth.Retained, birth.Payload.Seq)
	}

	at = at.Add(time.Second)
	tell("8")
	data := find("NDATA")
	if len(data.Payload.Metrics) != 1 || fmt.Sprint(data.Payload.Metrics[0].Value) != "8" || fmt.Sprint(data.Payload.Seq) != "1" ||
		fmt.Sprint(data.Payload.Metrics[0].Alias) != fmt.Sprint(birth.metric("Facts/Waiting").Alias) {
		t.Errorf("the change was read as %+v", data.Payload)
	}
	other.Post(t, "/rebirth", map[string]any{"group": "ulm", "node": "line1"})
	if again := find("NBIRTH"); fmt.Sprint(again.metric("Facts/Waiting").Value) != "8" || fmt.Sprint(again.metric("bdSeq").Value) != "0" {
		t.Errorf("the birth that was asked for is %+v", again.Payload)
	}
	tell("8", signal.Metric{Name: "Sources/new/State", Value: "ok", At: at})
	if more := find("NBIRTH"); more.metric("Sources/new/State") == nil {
		t.Error("a new metric came without a birth")
	}
	stop()
	if death := find("NDEATH"); fmt.Sprint(death.metric("bdSeq").Value) != "0" || death.QoS != 1 {
		t.Errorf("the death is %+v", death)
	}
	d = p.driver(publishing)
	p.run(d)
	tell("9")
	if next := find("NBIRTH"); fmt.Sprint(next.metric("bdSeq").Value) != "1" {
		t.Errorf("the next session's birth is %+v", next.Payload)
	}
}

// The agent waits for its primary host and sends what it stored as history.
func TestAgentStoresForItsPrimaryHost(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	other := realparts.SparkplugHost(t, clients(b))
	p := newPlant(t)
	d := p.driver(fmt.Sprintf("broker: tcp://127.0.0.1:%d\npublish: {primary_host: scada, stored: 4}\n", b.Port))
	p.run(d)
	p.awaitOK()
	at := time.Now().Add(-time.Hour)
	tell := func(waiting int) {
		at = at.Add(time.Second)
		d.Publish([]signal.Metric{{Name: "Facts/Waiting", Value: signal.Number(fmt.Sprint(waiting)), At: at}})
	}
	for i := range 7 {
		tell(i)
	}
	values := func() (list []string) {
		for _, m := range heardBy(t, other) {
			for _, x := range m.Payload.Metrics {
				if x.Name == "" || x.Name == "Facts/Waiting" {
					list = append(list, fmt.Sprintf("%s %v %t", m.Topic[len("spBv1.0/ulm/"):][:6], x.Value, x.IsHistorical))
				}
			}
		}
		return list
	}
	expect := func(want ...string) {
		t.Helper()
		realparts.Eventually(t, testPatience, "what the host reads", func() error {
			if got := values(); !slices.Equal(got, want) {
				return fmt.Errorf("got %q, want %q", got, want)
			}
			return nil
		})
	}
	expect()
	now := time.Now().UnixMilli()
	other.Post(t, "/state", map[string]any{"id": "scada", "online": true, "timestamp": now})
	first := []string{"NBIRTH 6 false", "NDATA/ 3 true", "NDATA/ 4 true", "NDATA/ 5 true"}
	expect(first...)
	tell(7)
	first = append(first, "NDATA/ 7 false")
	expect(first...)
	other.Post(t, "/state", map[string]any{"id": "scada", "online": false, "timestamp": now - 5000}) // an old will
	tell(8)
	first = append(first, "NDATA/ 8 false")
	expect(first...)
	other.Post(t, "/state", map[string]any{"id": "scada", "online": false, "timestamp": now})
	realparts.Eventually(t, testPatience, "the node's death", func() error {
		for _, m := range heardBy(t, other) {
			if m.Topic == "spBv1.0/ulm/NDEATH/line1" {
				return nil
			}
		}
		return errors.New("none yet")
	})
	tell(9)
	tell(10)
	other.Post(t, "/state", map[string]any{"id": "scada", "online": true, "timestamp": now + 1})
	expect(append(first, "NBIRTH 10 false", "NDATA/ 9 true")...)
	for _, m := range heardBy(t, other) {
		if m.Topic == "spBv1.0/ulm/NBIRTH/line1" && m.metric("bdSeq") == nil {
			t.Error("a birth without bdSeq")
		}
	}
}

func TestNodesAreFoundByTheirBirths(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), Devices: []string{"press"}})
	edge.Post(t, "/extra", map[string]any{"metrics": []any{map[string]any{"name": "Oven/Temperature", "type": "Double", "value": 21.5,
		"properties": map[string]any{"engUnit": map[string]any{"type": "String", "value": "°C"}}}}})
	awaitEdge(t, edge, "the node's birth", func(s realparts.EdgeState) bool { return s.Born })
	p := newPlant(t)
	e, err := Kind.Explore(p.env(), decodeYAML(fmt.Sprintf("broker: tcp://127.0.0.1:%d", b.Port)))
	if err != nil {
		t.Fatal(err)
	}
	d := e.(*driver)
	for _, step := range d.Probe(t.Context()) {
		if step.Problem != nil {
			t.Errorf("%s: %+v", step.Name, step.Problem)
		}
	}
	stop := make(chan struct{})
	talking := make(chan struct{})
	go func() { // a node that says nothing is not heard
		defer close(talking)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				edge.Try("/produce", map[string]any{"n": 1})
			}
		}
	}()
	list := func(at, page string, limit int) (names []string, next string) {
		t.Helper()
		entries, next, err := d.Browse(t.Context(), at, page, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.ID)
		}
		return names, next
	}
	top, _ := list("", "", 10)
	close(stop)
	<-talking
	if !slices.Equal(top, []string{"level:plant"}) {
		t.Errorf("the top is %q", top)
	}
	first, next := list("level:plant/line1", "", 2)
	rest, _ := list("level:plant/line1", next, 2)
	if all := append(first, rest...); !slices.Equal(all, []string{"level:plant/line1/Counts", "level:plant/line1/Oven", "level:plant/line1/press", "metric:plant/line1/PartDone"}) {
		t.Errorf("below the node is %q, then %q", first, rest)
	}
	var found []signal.Entry
	if err := d.Find(t.Context(), "level:plant", "**/Temp*", func(e signal.Entry) bool { found = append(found, e); return true }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Type != "Double" || found[0].Value != "21.5" || found[0].Unit != "°C" {
		t.Fatalf("found %+v", found)
	}
	// What a look offers as a tag reads that metric and no other.
	p.start(fmt.Sprintf("broker: tcp://127.0.0.1:%d\nmetrics:\n  - %s", b.Port, strings.ReplaceAll(strings.TrimSpace(found[0].Tag), "\n", "\n    ")))
	p.awaitOK()
	edge.Post(t, "/restart", nil)
	p.await("the value", func() bool {
		return len(p.signals) == 1 && p.signals[0].Tag == "Temperature" && fmt.Sprint(p.signals[0].Value) == "21.5"
	})
}

func TestSessionNumberOutlivesTheAgent(t *testing.T) {
	path := t.TempDir() + "/bdseq"
	for want := range 300 {
		got, err := nextBdSeq(path)
		if err != nil || got != uint64(want%256) {
			t.Fatalf("session %d got number %d (%v)", want, got, err)
		}
	}
}

func TestWrongConfigurationIsNamed(t *testing.T) {
	p := newPlant(t)
	for part, text := range map[string]string{
		"list of metrics": "broker: tcp://h",
		"names no metric": "broker: tcp://h\nmetrics: [{tag: x}]",
		"has no tag":      "broker: tcp://h\nmetrics: [{metric: x}]",
		"reports":         "broker: tcp://h\nmetrics: [{tag: x, metric: x, reports: all}]",
		"in braces":       "broker: tcp://h\nmetrics: [{tag: '{line}', metric: x}]",
		"host.id":         "broker: tcp://h\nhost: {id: a/b}\nmetrics: [{tag: x, metric: x}]",
		"state_format":    "broker: tcp://h\nhost: {state_format: '1'}\nmetrics: [{tag: x, metric: x}]",
		"reorder_wait":    "broker: tcp://h\nhost: {reorder_wait: 1h}\nmetrics: [{tag: x, metric: x}]",
		"host.groups":     "broker: tcp://h\nhost: {groups: ['+']}\nmetrics: [{tag: x, metric: x}]",
		"rebirth":         "broker: tcp://h\nhost: {rebirth: now}\nmetrics: [{tag: x, metric: x}]",
		"max_size":        "broker: tcp://h\nhost: {max_size: 1}\nmetrics: [{tag: x, metric: x}]",
		"publish.node":    "broker: tcp://h\npublish: {node: 'a#'}",
		"publish.stored":  "broker: tcp://h\npublish: {stored: -1}",
		"version":         "broker: tcp://h\nversion: '4'\npublish: {}",
		"not encrypted":   "broker: tcp://h\nca: x\npublish: {}",
		"keep_alive":      "broker: tcp://h\nkeep_alive: 1ms\npublish: {}",
		"no_such_key":     "broker: tcp://h\npublish: {}\nno_such_key: 1",
		"write tcp://":    "broker: http://h\npublish: {}",
	} {
		if _, err := Kind.New(p.env(), decodeYAML(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v", part, err)
		}
	}
	if _, err := Kind.New(p.env(), decodeYAML(sample)); err != nil {
		t.Errorf("the sample: %v", err)
	}
}
