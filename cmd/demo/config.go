package main

import (
	"fmt"
	"strings"

	"github.com/linekeeper/linekeeper/cmd/demo/plant"
)

func hubConfig(grpc, http int, erpURL string) string {
	return fmt.Sprintf(`listen: {grpc: "127.0.0.1:%d", http: "127.0.0.1:%d"}
tls: {cert_file: pki/hub.pem, key_file: pki/hub.key, agents_ca_file: pki/ca.pem}
data_dir: hub-data
plants:
  - {plant: ulm, time_zone: Europe/Berlin, agents: [line1]}
erps:
  - {name: erp, kind: sandbox, url: %q, user: hub, password_file: erp-password.txt, settle: 2s}
routes:
  - {erp: erp, plant: ulm, agent: line1}
dispatch: {every: 1s}
posting: {quiet: 3s}
`, grpc, http, erpURL)
}

func agentConfig(page int, hub string, p *plant.Plant) string {
	var nodes, rules strings.Builder
	for _, m := range p.Machines() {
		for _, tag := range []string{"Good", "Scrap", "Order"} {
			fmt.Fprintf(&nodes, "      - {tag: %s.%s, node: %q, sampling: 0s, queue: 2000}\n", m, tag, p.NodeID(m, tag))
		}
		for tag, counts := range map[string]string{"Good": "yield", "Scrap": "scrap"} {
			fmt.Fprintf(&rules, "  - {name: %[1]s %[3]s, rule: counter, source: press, tag: %[1]s.%[2]s, counts: %[3]s, work_center: %[1]s, equipment: ulm/hall1/%[1]s, unit: C62, close: {quantity: \"20\", every: 3s}}\n", m, tag, counts)
		}
		fmt.Fprintf(&rules, "  - {name: %[1]s order, rule: state, source: press, tag: %[1]s.Order, work_center: %[1]s}\n", m)
	}
	return fmt.Sprintf(`plant: ulm
agent: line1
time_zone: Europe/Berlin
data_dir: agent-data
listen: "127.0.0.1:%d"
buffer: {disk_reserve: none}
hub: {address: %q, server_name: localhost, ca_file: line1/ca.pem, cert_file: line1/agent.pem, key_file: line1/agent.key}
sources:
  - name: press
    kind: opcua
    endpoint: %s
    user: {name: %s, password_file: press-password.txt}
    publishing_interval: 200ms
    nodes:
%s
  - name: scales
    kind: mqtt
    broker: tcp://%s
    topics: [{tag: consumption, topic: plant/+/consumption}]
  - name: mes
    kind: mes
    driver: sqlite
    dsn: %q
    queries:
      - {tag: consumption, table: mes_consumption, key: [id], poll: 500ms}
    work_orders: {table: lk_work_order, create: true, answers: {poll: 300ms}}
rules:
%s
  - name: scales
    rule: record
    source: scales
    tag: consumption
    fact: material_consumption
    id: payload.id
    fields: {order_no: payload.order, item: payload.item, quantity: payload.qty, unit: payload.unit, occurred_at: payload.ts}
  - name: material bookings
    rule: record
    source: mes
    tag: consumption
    fact: material_consumption
    fields: {order_no: payload.order_no, item: payload.item, quantity: payload.quantity, unit: payload.unit, lot: payload.lot, occurred_at: payload.booked_at}
  - name: answers
    rule: record
    source: mes
    tag: work_order_answer
    fact: order_state
    fields: {order_no: payload.order_no, state: payload.status, revision: payload.revision, reason: payload.error_text, occurred_at: payload.changed_at}
    states: {ACCEPTED: accepted, REJECTED: rejected, STARTED: started, HELD: held, FINISHED: finished, CANCELLED: cancelled}
`, page, hub, p.OPCUAEndpoint(), plant.User, nodes.String(), p.MQTTAddr(), p.MESPath(), rules.String())
}
