package e2e

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// Each bad input has an error that names the item, on the page and in the hub's API, and nothing else stops.
func TestBadInputIsNamedAndStopsNothingElse(t *testing.T) {
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Machines: 1})
	broker := realparts.Mosquitto(t, realparts.MosquittoOptions{User: "linekeeper", Password: "broker-secret"})
	mesDB := realparts.Postgres(t)
	erp := realparts.Tryton(t)
	dsn := mesDB.NewDatabase(t)
	db, err := sql.Open(mesDB.Driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(mesSchema); err != nil {
		t.Fatal(err)
	}

	l := newLine(t, func(dir string) (string, string) {
		realparts.WriteFile(t, dir+"/wrong-password.txt", "not-the-password\n")
		agent := plantConfig(t, dir, plant, broker, dsn)
		// A second broker login with a wrong password, a second press whose certificate nobody trusts, a missing table.
		agent = strings.Replace(agent, "\nrules:", fmt.Sprintf(`
  - name: locked
    kind: mqtt
    broker: %s
    username: linekeeper
    password_file: wrong-password.txt
    topics: [{tag: x, topic: locked/x}]
  - name: stranger
    kind: opcua
    endpoint: %s
    user: {name: operator, password_file: press-password.txt}
    nodes: [{tag: y, node: "ns=2;s=Press1.Good"}]
  - name: badlogin
    kind: opcua
    endpoint: %s
    user: {name: operator, password_file: wrong-password.txt}
    nodes: [{tag: z, node: "ns=2;s=Press1.Good"}]
rules:`, broker.URL(), plant.Endpoint(), plant.Endpoint()), 1)
		agent = strings.Replace(agent, "{tag: consumption, table: mes_consumption, key: [id], poll: 500ms}",
			"{tag: consumption, table: mes_consumption, key: [id], poll: 500ms}\n      - {tag: missing, table: mes_scrap, key: [id], poll: 500ms}", 1)
		return erpConfig(t, dir, erp, erp.URL), agent
	})
	l.hub.Start(t)
	l.agent.Start(t)
	l.trust(t, "press")
	l.trust(t, "badlogin")
	order := erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: "50"})
	realparts.Eventually(t, time.Minute, "the order is at the MES", func() error {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM lk_work_order WHERE order_no = $1", order).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})

	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(broker.URL()).SetUsername("linekeeper").SetPassword("broker-secret").SetClientID("scale"))
	if tok := client.Connect(); !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
		t.Fatalf("connect the scale: %v", tok.Error())
	}
	defer client.Disconnect(100)
	send := func(payload string) {
		if tok := client.Publish("plant/ulm/Press1/consumption", 1, false, payload); !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
			t.Fatalf("publish: %v", tok.Error())
		}
	}
	message := func(id, order, qty, unit string) string {
		return fmt.Sprintf(`{"id":%q,"order":%q,"item":"RM-STEEL","qty":%s,"unit":%q,"ts":%q}`, id, order, qty, unit, time.Now().UTC().Format(time.RFC3339Nano))
	}
	send(`{"id":"broken","order":`)
	send(message("unit", order, "1", "furlong"))
	send(message("negative", order, "-3", "kg"))
	send(message("type", order, `"many"`, "kg"))
	send(message("unknown", "WO-NOBODY", "1", "kg"))
	plant.Post(t, "/order", map[string]any{"machine": "Press1", "order": order})
	plant.Post(t, "/count", map[string]any{"machine": "Press1", "good": 7})
	realparts.Eventually(t, time.Minute, "the first pieces are counted", func() error {
		s, err := l.status()
		if err != nil || !strings.Contains(fmt.Sprintf("%+v", s.Ledger), "Counted:7") {
			return fmt.Errorf("%+v %v", s.Ledger, err)
		}
		return nil
	})
	// The counter is set back by hand, and goes on.
	plant.Post(t, "/change", map[string]any{"node": "Press1.Good", "value": 2})
	send(message("good", order, "2.5", "kg")) // after all of the bad ones, a good one

	for _, want := range []struct{ code, item string }{
		{"bad_json", "plant/ulm/Press1/consumption"}, {"unknown_unit", "furlong"}, {"negative_count", "-3"}, {"wrong_type", "many"},
	} {
		realparts.Eventually(t, time.Minute, want.code+" is named on the page and in /v1/exceptions", func() error {
			s, err := l.status()
			if err != nil {
				return err
			}
			if !strings.Contains(fmt.Sprintf("%+v", s.Quarantine), want.code) {
				return fmt.Errorf("the page's quarantine: %+v", s.Quarantine)
			}
			return l.lists("/v1/exceptions", want.code, want.item)
		})
	}
	realparts.Eventually(t, time.Minute, "the counter's step back is named", func() error { return l.lists("/v1/exceptions", "counter_", "press1.Good") })
	realparts.Eventually(t, time.Minute, "the fact of an unknown order is parked by name", func() error {
		return l.lists("/v1/postings?state=parked", "unknown_order", "WO-NOBODY")
	})
	for _, want := range []struct{ source, item string }{
		{"locked", "password"}, {"stranger", "plantagent trust stranger"}, {"badlogin", "password"}, {"mes", "mes_scrap"},
	} {
		realparts.Eventually(t, time.Minute, "source "+want.source+" says what is wrong, on the page and in /v1/agents", func() error {
			s, err := l.status()
			if err != nil {
				return err
			}
			for _, src := range s.Sources {
				if src.Name == want.source && strings.Contains(fmt.Sprintf("%s %+v", src.Reason, src.Problems), want.item) {
					return l.lists("/v1/agents", want.source, "")
				}
			}
			return fmt.Errorf("sources: %+v", s.Sources)
		})
	}
	// Nothing else stopped: the good message and the count are posted.
	realparts.Eventually(t, 2*time.Minute, "the good inputs are posted in the ERP", func() error {
		steel, gear := erp.Effects(t, order, "RM-STEEL"), erp.Effects(t, order, "FG-GEAR")
		if !strings.HasPrefix(steel.Issued, "2.5") || !strings.HasPrefix(gear.Yield, "7") && !strings.HasPrefix(gear.Yield, "9") {
			return fmt.Errorf("steel %+v, gear %+v", steel, gear)
		}
		return nil
	})
	raw, err := os.ReadFile(filepath.Join(l.dir, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out := l.agent.Output() + l.hub.Output()
	for _, secret := range []string{"broker-secret", "not-the-password", erp.Password} {
		if strings.Contains(out, secret) {
			t.Errorf("the log shows a password")
		}
	}
	// A configuration with a fault is refused with its line.
	bad := realparts.WriteFile(t, filepath.Join(l.dir, "bad.yaml"), strings.Replace(string(raw), "data_dir:", "data_dri:", 1))
	text, code := command(t, "plantagent", "check", "-c", bad)
	if code != 78 || !strings.Contains(text, "bad.yaml:5: unknown key \"data_dri\" (did you mean \"data_dir\"?)") {
		t.Errorf("check ended with %d:\n%s", code, text)
	}
}

// lists reports whether one entry of a list of the hub's API mentions both texts.
func (l *line) lists(path, a, b string) error {
	var list struct{ Items []any }
	if err := l.get(l.hubHTTP+path, &list); err != nil {
		return err
	}
	for _, x := range list.Items {
		if s := fmt.Sprint(x); strings.Contains(s, a) && strings.Contains(s, b) {
			return nil
		}
	}
	return fmt.Errorf("%s has no entry with %q and %q: %v", path, a, b, list.Items)
}
