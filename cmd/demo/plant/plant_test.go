package plant_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	mrand "math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/cmd/demo/plant"
	"github.com/shopspring/decimal"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the plant; 0 draws one")

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the OPC UA library writes there
	os.Exit(m.Run())
}

func start(t *testing.T, o plant.Options) *plant.Plant {
	t.Helper()
	o.Dir, o.Seed, o.Settle = t.TempDir(), *seedFlag, 30*time.Millisecond
	if o.Seed == 0 {
		o.Seed = mrand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed=%d)", o.Seed, o.Seed)
	p, err := plant.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// database opens the MES as another process does.
func database(t *testing.T, p *plant.Plant) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(p.MESPath())+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

const components = `[{"item":"STEEL","required":12.5,"unit":"KGM"},{"item":"GRANULATE","required":"3.333","unit":"KGM"},
	{"item":"BAG","required":100,"unit":"C62"},{"item":"OIL","required":"1","unit":"LTR","backflush":true}]`

func order(t *testing.T, db *sql.DB, no string, revision int, action, workCenter, quantity string) {
	t.Helper()
	_, err := db.Exec(`insert into lk_work_order (message_id, order_no, revision, action, work_center, item, description, quantity,
		unit, priority, lot, operations, components) values ($1, $2, $3, $4, $5, 'BRACKET', 'Bracket', $6, 'C62', 0, '', '[]', $7)`, fmt.Sprintf("%s/%d", no, revision), no, revision, action, workCenter, quantity, components)
	if err != nil {
		t.Fatal(err)
	}
}

// status waits until a revision's row shows one of the states.
func status(t *testing.T, db *sql.DB, no string, revision int, want string) (reason string) {
	t.Helper()
	realparts.Eventually(t, 2*time.Minute, fmt.Sprintf("order %s revision %d is %s", no, revision, want), func() error {
		var state string
		var text, changed sql.NullString
		if err := db.QueryRow(`select status, error_text, changed_at from lk_work_order where order_no = $1 and revision = $2`, no, revision).Scan(&state, &text, &changed); err != nil {
			return err
		}
		if state != want {
			return fmt.Errorf("it is %s", state)
		}
		if _, err := time.Parse(time.RFC3339, changed.String); err != nil {
			return err
		}
		reason = text.String
		return nil
	})
	return reason
}

// pieces are what an observer counted.
type pieces struct{ good, scrap int64 }

// watcher reads the machines' tags like any OPC UA client.
type watcher struct {
	mu     sync.Mutex
	last   map[string]uint32 // by tag
	order  map[string]string // by machine
	counts map[string]pieces // by order
	stray  int64             // counted without an order
}

func watch(t *testing.T, p *plant.Plant) *watcher {
	t.Helper()
	c, err := opcua.NewClient(p.OPCUAEndpoint(), options(t, p)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	notes := make(chan *opcua.PublishNotificationData, 10000)
	sub, err := c.Subscribe(t.Context(), &opcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{last: map[string]uint32{}, order: map[string]string{}, counts: map[string]pieces{}}
	var tags []string
	for _, m := range p.Machines() {
		for _, tag := range []string{"Order", "Good", "Scrap"} {
			r := opcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewStringNodeID(1, m+"."+tag), ua.AttributeIDValue, uint32(len(tags)))
			r.RequestedParameters.QueueSize = 10000
			tags = append(tags, m+"."+tag)
			if res, err := sub.Monitor(t.Context(), ua.TimestampsToReturnBoth, r); err != nil || res.Results[0].StatusCode != ua.StatusOK {
				t.Fatal(err, res)
			}
		}
	}
	go func() {
		for n := range notes {
			if d, ok := n.Value.(*ua.DataChangeNotification); ok {
				for _, i := range d.MonitoredItems {
					w.take(tags[i.ClientHandle], i.Value.Value.Value())
				}
			}
		}
	}()
	return w
}

func options(t *testing.T, p *plant.Plant) []opcua.Option {
	t.Helper()
	endpoints, err := opcua.GetEndpoints(t.Context(), p.OPCUAEndpoint())
	if err != nil {
		t.Fatal(err)
	}
	e, err := opcua.SelectEndpoint(endpoints, "Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
	if err != nil || string(e.ServerCertificate) != string(p.OPCUACertificate()) {
		t.Fatal("endpoint", e, err)
	}
	client := identity()
	return []opcua.Option{opcua.AutoReconnect(false), opcua.SecurityFromEndpoint(e, ua.UserTokenTypeUserName), opcua.AuthUsername(plant.User, plant.Password),
		opcua.PrivateKey(client.key), opcua.Certificate(client.der), opcua.ApplicationURI(client.uri)}
}

type certificate struct {
	key *rsa.PrivateKey
	der []byte
	uri string
}

// identity is the certificate of all clients, since making one takes long.
var identity = sync.OnceValue(func() certificate {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	name := &url.URL{Scheme: "urn", Opaque: "test:client"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		URIs: []*url.URL{name}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return certificate{key, der, name.String()}
})

func (w *watcher) take(tag string, value any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	machine, kind, _ := strings.Cut(tag, ".")
	if kind == "Order" {
		w.order[machine] = value.(string)
		return
	}
	v := value.(uint32)
	last, known := w.last[tag]
	w.last[tag] = v
	if !known {
		return // the baseline
	}
	step, no := int64(v-last), w.order[machine]
	n := w.counts[no]
	switch {
	case no == "":
		w.stray += step
	case kind == "Good":
		n.good += step
	default:
		n.scrap += step
	}
	w.counts[no] = n
}

// scale collects the messages of a persistent session.
type scale struct {
	client paho.Client
	mu     sync.Mutex
	seen   map[string]plant.Message // by id
}

func (s *scale) connect(t *testing.T, p *plant.Plant) {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + p.MQTTAddr()).SetClientID("observer").SetCleanSession(false).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		var v plant.Message
		if err := json.Unmarshal(m.Payload(), &v); err != nil {
			t.Errorf("message %q: %v", m.Payload(), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen[v.ID] = v
	})
	s.client = paho.NewClient(o)
	if token := s.client.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal("connect observer", token.Error())
	}
	if token := s.client.Subscribe("plant/+/consumption", 1, nil); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal("subscribe observer", token.Error())
	}
	t.Cleanup(func() { s.client.Disconnect(50) })
}

func (s *scale) sums() map[string]decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	sums := map[string]decimal.Decimal{}
	for _, m := range s.seen {
		sums[m.Order+" "+m.Item] = sums[m.Order+" "+m.Item].Add(decimal.RequireFromString(m.Quantity))
	}
	return sums
}

func rows(t *testing.T, db *sql.DB) map[string]decimal.Decimal {
	t.Helper()
	r, err := db.Query(`select order_no, item, quantity from mes_consumption`)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sums := map[string]decimal.Decimal{}
	for r.Next() {
		var no, item string
		var q decimal.Decimal
		if err := r.Scan(&no, &item, &q); err != nil {
			t.Fatal(err)
		}
		sums[no+" "+item] = sums[no+" "+item].Add(q)
	}
	return sums
}

// compare waits until all that was observed equals the truth.
func compare(t *testing.T, p *plant.Plant, db *sql.DB, w *watcher, s *scale) {
	t.Helper()
	truth := p.Truth()
	realparts.Eventually(t, time.Minute, "what was observed equals the truth", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		messages, booked := s.sums(), rows(t, db)
		if w.stray != 0 {
			return fmt.Errorf("%d pieces were counted without an order", w.stray)
		}
		for no, o := range truth.Orders {
			if got := w.counts[no]; got.good != o.Good || got.scrap != o.Scrap {
				return fmt.Errorf("order %s: counted %+v, want %d good %d scrap", no, got, o.Good, o.Scrap)
			}
			for item, q := range o.MQTT {
				if !messages[no+" "+item].Equal(q) {
					return fmt.Errorf("order %s: messages say %s of %s, want %s", no, messages[no+" "+item], item, q)
				}
			}
			for item, q := range o.MES {
				if !booked[no+" "+item].Equal(q) {
					return fmt.Errorf("order %s: rows say %s of %s, want %s", no, booked[no+" "+item], item, q)
				}
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(s.seen)) != truth.MQTTMessages {
		t.Errorf("%d messages, want %d", len(s.seen), truth.MQTTMessages)
	}
	var n int64
	if err := db.QueryRow(`select count(*) from mes_consumption`).Scan(&n); err != nil || n != truth.MESRows {
		t.Errorf("%d rows %v, want %d", n, err, truth.MESRows)
	}
	t.Logf("good %d, scrap %d, rows %d, messages %d", truth.Good, truth.Scrap, truth.MESRows, truth.MQTTMessages)
}

func TestWhatIsObservedEqualsTheTruth(t *testing.T) {
	p := start(t, plant.Options{Rate: 300, Scrap: 0.1})
	db := database(t, p)
	for i := range 7 {
		order(t, db, fmt.Sprintf("A%d", i), 1, "CREATE", []string{"press1", "ulm/hall1/PRESS2", "somewhere"}[i%3], "100")
	}
	status(t, db, "A6", 1, plant.Accepted)
	if n := p.Truth().Good; n != 0 {
		t.Errorf("%d pieces were made before anybody listened", n)
	}
	w := watch(t, p)
	for i := range 7 {
		status(t, db, fmt.Sprintf("A%d", i), 1, plant.Finished)
	}
	s := &scale{seen: map[string]plant.Message{}}
	s.connect(t, p) // the scales have waited
	if err := p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	compare(t, p, db, w, s)
	truth := p.Truth()
	for no, o := range truth.Orders {
		made := decimal.NewFromInt(o.Good + o.Scrap)
		if o.Good != 100 || o.State != plant.Finished || !o.MES["STEEL"].Equal(made.Mul(decimal.RequireFromString("0.125")).Round(3)) ||
			!o.MQTT["GRANULATE"].Equal(made.Mul(decimal.RequireFromString("0.03333")).Round(3)) || !o.MES["BAG"].Equal(made) || len(o.MES)+len(o.MQTT) != 3 {
			t.Errorf("order %s: %+v", no, o)
		}
	}
	if truth.Orders["A0"].Machine != "press1" || truth.Orders["A1"].Machine != "press2" || truth.Good != 700 {
		t.Errorf("truth %+v", truth)
	}
}

func TestClientThatWasAwayGetsAllMessages(t *testing.T) {
	p := start(t, plant.Options{Machines: 1, Rate: 300})
	db := database(t, p)
	w := watch(t, p)
	s := &scale{seen: map[string]plant.Message{}}
	s.connect(t, p)
	s.client.Disconnect(50)
	order(t, db, "A1", 1, "CREATE", "press1", "200")
	status(t, db, "A1", 1, plant.Finished)
	if err := p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.connect(t, p)
	compare(t, p, db, w, s)
}

func TestQuietPlantHasStoppedAtACleanPoint(t *testing.T) {
	p := start(t, plant.Options{Rate: 100})
	db := database(t, p)
	w := watch(t, p)
	s := &scale{seen: map[string]plant.Message{}}
	s.connect(t, p)
	for _, m := range p.Machines() {
		order(t, db, "A"+m, 1, "CREATE", m, "100000")
	}
	realparts.Eventually(t, time.Minute, "machines count", func() error {
		if n := p.Truth().Good; n < 100 {
			return fmt.Errorf("%d good", n)
		}
		return nil
	})
	if err := p.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	compare(t, p, db, w, s)
	if err := p.Quiesce(t.Context()); err != nil {
		t.Error("again:", err)
	}
}

func TestChangedOrderIsMadeInItsNewQuantity(t *testing.T) {
	p := start(t, plant.Options{Machines: 1, Rate: 200, Scrap: -1})
	db := database(t, p)
	order(t, db, "A1", 1, "CREATE", "press1", "100000")
	order(t, db, "A1", 2, "CHANGE", "press1", "60")
	status(t, db, "A1", 2, plant.Accepted)
	watch(t, p)
	status(t, db, "A1", 2, plant.Finished)
	if o := p.Truth().Orders["A1"]; o.Good != 60 || o.Scrap != 0 {
		t.Errorf("%+v", o)
	}
	order(t, db, "A1", 3, "CHANGE", "press1", "70")
	if reason := status(t, db, "A1", 3, plant.Rejected); !strings.Contains(reason, "FINISHED") {
		t.Errorf("reason %q", reason)
	}
}

func TestCancelledOrderIsNotMadeAndARunningOneIsNotCancelled(t *testing.T) {
	p := start(t, plant.Options{Machines: 1, Rate: 50})
	db := database(t, p)
	watch(t, p)
	order(t, db, "RUNS", 1, "CREATE", "press1", "30")
	order(t, db, "WAITS", 1, "CREATE", "press1", "30")
	order(t, db, "NEXT", 1, "CREATE", "press1", "5")
	status(t, db, "RUNS", 1, plant.Started)
	order(t, db, "WAITS", 2, "CANCEL", "press1", "")
	order(t, db, "RUNS", 2, "CANCEL", "press1", "")
	order(t, db, "NEVER", 1, "CANCEL", "press1", "")
	order(t, db, "WRONG", 1, "CREATE", "press1", "many")
	status(t, db, "WAITS", 2, plant.Cancelled)
	if reason := status(t, db, "RUNS", 2, plant.Rejected); reason == "" {
		t.Error("no reason")
	}
	status(t, db, "NEVER", 1, plant.Cancelled)
	if reason := status(t, db, "WRONG", 1, plant.Rejected); !strings.Contains(reason, "many") {
		t.Errorf("reason %q", reason)
	}
	status(t, db, "NEXT", 1, plant.Finished)
	truth := p.Truth()
	if truth.Orders["RUNS"].Good != 30 || truth.Orders["WAITS"].Good != 0 || truth.Orders["WAITS"].State != plant.Cancelled {
		t.Errorf("%+v", truth)
	}
}

func TestSameSeedMakesTheSamePieces(t *testing.T) {
	var scraps []int64
	for range 2 {
		t.Run("plant", func(t *testing.T) {
			p, err := plant.Start(t.Context(), plant.Options{Dir: t.TempDir(), Machines: 1, Rate: 500, Scrap: 0.3, Seed: 42, Settle: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			db := database(t, p)
			watch(t, p)
			order(t, db, "A1", 1, "CREATE", "press1", "50")
			status(t, db, "A1", 1, plant.Finished)
			scraps = append(scraps, p.Truth().Scrap)
		})
	}
	if scraps[0] != scraps[1] {
		t.Errorf("scrap %v", scraps)
	}
}
