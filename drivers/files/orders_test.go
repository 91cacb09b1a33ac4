package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func someOrder() signal.WorkOrder {
	return signal.WorkOrder{OrderNo: "WO 1/a_b", Revision: 3, Plant: "ulm", WorkCenter: "PRESS1", Item: "COVER", Description: "covers; \"big\"", Quantity: "1000.50", Unit: "PCE", Priority: 2,
		PlannedStart: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Operations:   []signal.Operation{{Operation: "10", Quantity: "7"}},
		Components:   []signal.Component{{Item: "STEEL", Required: "12.250", Unit: "KGM", Operation: "10"}, {Item: "OIL", Backflush: true}}}
}

func deliver(t *testing.T, s *source, o signal.WorkOrder) {
	t.Helper()
	if err := s.Deliver(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

func TestAnOrderIsOneFileInEachFormat(t *testing.T) {
	const name = "WO%201%2Fa%5Fb_3"
	for format, check := range map[string]func(text string) string{
		"json, csv: {}": func(text string) string {
			var m struct {
				MessageID  string `json:"message_id"`
				Quantity   json.Number
				Start      string `json:"planned_start"`
				Components []map[string]any
			}
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(&m); err != nil || m.MessageID != "WO 1/a_b/3" || m.Quantity != "1000.50" || len(m.Components) != 2 || m.Start != "2026-01-02T03:04:05Z" {
				return fmt.Sprintf("%v %+v", err, m)
			}
			return ""
		},
		`csv, csv: {decimal: ",", columns: [order_no, action, description, quantity, component, component_quantity]}`: func(text string) string {
			want := "order_no;action;description;quantity;component;component_quantity\r\nWO 1/a_b;RELEASE;\"covers; \"\"big\"\"\";1000,50;STEEL;12,250\r\nWO 1/a_b;RELEASE;\"covers; \"\"big\"\"\";1000,50;OIL;\r\n"
			return cmp.Diff(want, text)
		},
		"b2mml, b2mml: {version: V0401, sender: LK}": func(text string) string {
			for _, want := range []string{"<ProcessProductionSchedule", "<BODID>WO 1/a_b/3</BODID>", "<QuantityString>1000.50</QuantityString>", "<LogicalID>LK</LogicalID>"} {
				if !strings.Contains(text, want) {
					return "no " + want + " in " + text
				}
			}
			return ""
		},
	} {
		p := newPlant(t)
		s := p.make(fmt.Sprintf("work_orders: {folder: %q, format: %s}", p.in, format))
		deliver(t, s, someOrder())
		found := p.glob("*")
		if len(found) != 1 || strings.TrimSuffix(filepath.Base(found[0]), filepath.Ext(found[0])) != name {
			t.Fatalf("%s: %v", format, found)
		}
		if wrong := check(read(t, found[0])); wrong != "" {
			t.Errorf("%s: %s", format, wrong)
		}
	}
}

func TestARevisionIsDeliveredOnceAndNeverAnOlderOne(t *testing.T) {
	p := newPlant(t)
	section := fmt.Sprintf("work_orders: {folder: %q, format: json}", p.in)
	s := p.make(section)
	o := someOrder()
	deliver(t, s, o)
	os.Remove(p.glob("*.json")[0]) // the MES took it
	deliver(t, s, o)
	s = p.make(section) // after a restart
	deliver(t, s, o)
	if found := p.glob("*"); len(found) != 0 {
		t.Errorf("laid down again: %v", found)
	}
	o.Revision = 2
	var refused *signal.Refused
	if err := s.Deliver(context.Background(), o); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "revision 3") {
		t.Errorf("an older revision: %v", err)
	}
	o.Revision, o.Cancelled = 4, true
	deliver(t, s, o)
	if found := p.glob("*.json"); len(found) != 1 || !strings.Contains(read(t, found[0]), `"cancelled": true`) {
		t.Errorf("the cancellation: %v", found)
	}
}

func TestAHeldOrderIsOfferedToWhoUnderstandsIt(t *testing.T) {
	p := newPlant(t)
	if p.make(fmt.Sprintf("work_orders: {folder: %q}", p.in)).HoldsOrders() {
		t.Error("held orders are offered to a receiver that was not said to understand them")
	}
	s := p.make(fmt.Sprintf("work_orders: {folder: %q, holds: true, format: csv, csv: {columns: [order_no, action]}}", p.in))
	o := someOrder()
	o.Held = true
	deliver(t, s, o)
	if text := read(t, p.glob("*.csv")[0]); !s.HoldsOrders() || !strings.Contains(text, "WO 1/a_b;HOLD") {
		t.Errorf("%s", text)
	}
}

func TestAFolderThatIsNotThereHoldsAnOrderBack(t *testing.T) {
	p := newPlant(t)
	p.in = filepath.Join(p.in, "away")
	s := p.make(fmt.Sprintf("work_orders: {folder: %q, format: json}", p.in))
	var refused *signal.Refused
	if err := s.Deliver(context.Background(), someOrder()); err == nil || errors.As(err, &refused) {
		t.Errorf("it must be tried again: %v", err)
	}
	p.awaitProblem("work_orders", "order_not_written")
	if err := os.Mkdir(p.in, 0o755); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, someOrder())
	p.await("no problem", func() bool { return len(p.problems) == 0 })
}

func TestAnswersAreReadBack(t *testing.T) {
	p := newPlant(t)
	answers := filepath.Join(t.TempDir(), "answers")
	if err := os.Mkdir(answers, 0o755); err != nil {
		t.Fatal(err)
	}
	stop := p.start(fmt.Sprintf(`work_orders:
  folder: %q
  format: csv
  answers:
    folder: %q
    scan: 20ms
    ready: renamed
    csv: {delimiter: ";"}
    map: {message_id: Meldung, status: Status, reason: Text, changed_at: Zeit}
    statuses: {"0": accepted, "9": rejected}
`, p.in, answers))
	putFile(t, answers, "a.csv", "Meldung;Status;Text;Zeit\nWO/1/3;0;;2026-01-02T03:04:05+01:00\nWO/1/4;9;kein Material;\nWO/2/1;7;?;\nWO-3;running;;\n")
	p.awaitCount(4)
	stop()
	var got []string
	for _, s := range p.all() {
		if s.Tag != signal.AnswerTag || s.Position == "" {
			t.Errorf("%+v", s)
		}
		if s.Problem != nil {
			got = append(got, s.Problem.Code)
			continue
		}
		m := s.Value.(map[string]any)
		got = append(got, fmt.Sprintf("%v %v %v %v", m["order_no"], m["revision"], m["status"], m["reason"]))
	}
	want := []string{"WO/1 3 accepted ", "WO/1 4 rejected kein Material", "answer_unclear", "answer_without_order"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if at := p.all()[0].SourceTime; !at.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
		t.Errorf("answered at %s", at)
	}
}

func TestB2MMLOrdersAndAnswersOverSFTP(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	p := newPlant(t)
	answers := filepath.Join(t.TempDir(), "answers")
	if err := os.Mkdir(answers, 0o755); err != nil {
		t.Fatal(err)
	}
	s := p.make(sftpSection(server) + fmt.Sprintf("work_orders: {folder: %q, b2mml: {envelope: sync}, answers: {folder: %q, scan: 20ms, ready: renamed}}", p.in, answers))
	defer p.run(s, p.emit)()
	deliver(t, s, someOrder())
	deliver(t, s, someOrder())
	found := p.awaitFiles("*.xml", 1)
	if text := read(t, found[0]); !strings.Contains(text, "<SyncOperationsSchedule") || !strings.Contains(text, "http://www.mesa.org/xml/B2MML") {
		t.Errorf("%s", text)
	}
	server.Kill(syscall.SIGKILL)
	o := someOrder()
	o.Revision++
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Deliver(ctx, o); err == nil {
		t.Error("an order was delivered to a server that is not there")
	}
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, o)
	p.awaitFiles("*.xml", 2)
	putFile(t, answers, "no.xml", `<ConfirmBOD xmlns="http://www.mesa.org/xml/B2MML"><ApplicationArea><CreationDateTime>2026-01-02T03:04:05Z</CreationDateTime></ApplicationArea><DataArea><Confirm>
<OriginalApplicationArea><CreationDateTime>2026-01-02T03:04:05Z</CreationDateTime><BODID>WO 1/a_b/4</BODID></OriginalApplicationArea>
<ResponseCriteria><ResponseExpression actionCode="Rejected">/x</ResponseExpression></ResponseCriteria></Confirm><BOD><Description>closed</Description></BOD></DataArea></ConfirmBOD>`)
	p.awaitCount(1)
	m := p.all()[0].Value.(map[string]any)
	if m["order_no"] != "WO 1/a_b" || m["revision"] != signal.Number("4") || m["status"] != signal.AnswerRejected || m["reason"] != "closed" {
		t.Errorf("%v", m)
	}
}
