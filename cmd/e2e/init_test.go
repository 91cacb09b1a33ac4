package e2e

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// From an unpacked agent to a first fact in the tally, by a file of answers, with servers that are not ours.
func TestInitLeadsToAFirstFactInTheTally(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Machines: 2})
	broker := realparts.Mosquitto(t, realparts.MosquittoOptions{User: "linekeeper", Password: "broker-secret"})
	server := realparts.Postgres(t)
	dsn := server.NewDatabase(t)
	db, err := sql.Open(server.Driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE conf (id bigserial PRIMARY KEY, order_no text, good int)"); err != nil {
		t.Fatal(err)
	}
	l := newLine(t, func(string) (string, string) { return "erps: []\nroutes: []", "" })
	l.hub.Start(t)
	o := mqtt.NewClientOptions().AddBroker(broker.URL()).SetUsername("linekeeper").SetPassword("broker-secret").SetClientID("scale")
	scale := mqtt.NewClient(o)
	if token := scale.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer scale.Disconnect(100)
	if token := scale.Publish("plant/ulm/scale1/weight", 1, true, `{"order_no":"WO-9","good":5,"id":"w1"}`); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	realparts.WriteFile(t, filepath.Join(l.dir, "press.secret"), "secret\n")
	realparts.WriteFile(t, filepath.Join(l.dir, "broker.secret"), "broker-secret\n")
	realparts.WriteFile(t, filepath.Join(l.dir, "mes.dsn"), dsn+"\n")
	file := filepath.Join(l.dir, "init", "plantagent.yaml")
	answers := realparts.WriteFile(t, filepath.Join(l.dir, "answers.yaml"), fmt.Sprintf(`
plant: ulm
agent: line1
time_zone: Europe/Berlin
listen: 127.0.0.1:0
hub: {address: "%s", credentials: ../line1}
sources:
  - name: press
    kind: opcua
    address: 127.0.0.1:%d
    offer: Basic256Sha256
    section: {user: {name: operator, password_file: ../press.secret}}
    trust: %s
    pick: ["Objects/**/Press1/*", "Objects/**/Press2/Good"]
  - name: broker
    kind: mqtt
    address: %s
    insecure: true
    section: {username: linekeeper, password_file: ../broker.secret}
    pick: ["plant/ulm/*/weight"]
  - name: mes
    kind: mes
    section: {driver: postgres, dsn_file: ../mes.dsn}
    pick: ["**/conf"]
`, l.link.Addr(), plant.Port, fingerprintOf(t, filepath.Join(plant.Dir, "server.pem")), strings.TrimPrefix(broker.URL(), "tcp://")))
	plant.Post(t, "/run", map[string]any{"period": 300, "scrapEvery": 10}) // the presses work all the time
	began := time.Now()
	out := mustRun(t, "plantagent", "init", "-c", file, "--answers", answers, "--try", "110s")
	t.Logf("init took %s:\n%s", time.Since(began).Round(100*time.Millisecond), out)
	if !strings.Contains(out, "first fact:") {
		t.Fatal("init ended without a first fact")
	}
	var y tally
	l.api(t, "/v1/tally", &y)
	if received, _ := y.Sum["received"].(string); received == "" || received == "0" {
		t.Errorf("nothing is in the tally: %v", y.Sum)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"security_policy: Basic256Sha256", "counts: yield", "counts: scrap", "rule: state", "fact: production_confirmation", "work_center: Press1", "plant/ulm/scale1/weight"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the configuration lacks %q:\n%s", want, text)
		}
	}
}

// fingerprintOf is the SHA-256 of a certificate, as the machine's own screen would show it.
func fingerprintOf(t testing.TB, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}
