package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/linekeeper/linekeeper/agent/translate"
)

const sampleHead = `# Linekeeper plant agent. Unknown keys are refused; check this file with: plantagent check -c FILE
# A relative file name starts at this file's own folder.

plant: ulm                  # the ISA-95 site; part of every fact's key: never change it later
agent: line1                # this installation; plant and agent stand in the certificate too
time_zone: Europe/Berlin    # the plant's IANA zone
# data_dir: data            # buffers, certificates, trust lists
# listen: 127.0.0.1:8480    # the operator's page
# contact: "control room, phone 4711"

hub:
  address: hub.example.com:9443
  ca_file: ca.pem           # these three files come from: synchub cert agent
  cert_file: agent.pem
  key_file: agent.key
  # proxy: http://user:password@proxy:3128   # "direct" for none; default: HTTPS_PROXY of the environment
  # websocket: auto         # where a proxy inspects TLS or knows no HTTP/2 the line runs inside a WebSocket; always, never
  # websocket_url: wss://hub.example.com/v1/agent-tunnel   # default: the hub's own port, then port 443
  # websocket_ca_file: proxy-ca.pem   # whom to believe for the outer layer; default: anybody, the line inside is checked

# buffer:
#   business_limit: 2GiB    # at the limit the sources are held back; facts are never dropped
#   telemetry_limit: 256MiB # at the limit the oldest readings are dropped and counted
#   disk_reserve: 1GiB      # stays free whatever happens

# work_orders:
#   receiver: mes           # the source that takes work orders; default: the only one that can
#   # receivers:            # or several: the first whose work centre fits (a name or a path, may end in *) takes an order. One that
#   #   - {work_center: "press*", source: press1}   # is slow delays no other; an order that none takes waits and is shown. An order
#   #   - {source: mes}       # that moves to another one is cancelled at the first before
#   check:                  # what is refused by name when it arrives, and told to the hub, instead of failing when it is confirmed.
#     #                     # Always: a unit that is neither a code of UN/ECE Rec 20 nor in units. The lists below are all that there
#     #                     # is, each entry may end in *; what no list names is not looked at
#     items: [FG-*]
#     operations: ["10", "20"]
#     work_centers: [press*]
#     units: [C62, KGM]
#     strict: false         # true refuses what is only a warning otherwise: a work centre that no rule and no receiver names, and
#     #                     # a unit that has the form of a Rec 20 code and is not a known one

sources:
`

type sampleCmd struct{}

func (sampleCmd) Help() string { return examples("", "plantagent sample > plantagent.yaml") }

// Run prints one whole file: the agent's own keys, one source of each kind, and every kind of rule.
func (sampleCmd) Run(e *env) error { return writeSample(e.out) }

func writeSample(w io.Writer) error {
	var b strings.Builder
	b.WriteString(sampleHead)
	for _, k := range drivers() {
		fmt.Fprintf(&b, "  - name: %s\n    kind: %s\n", cmp.Or(map[string]string{"opcua": "press1", "mqtt": "broker"}[k.Name], k.Name), k.Name)
		for line := range strings.Lines(strings.TrimSpace(k.Sample) + "\n") {
			if strings.TrimSpace(line) != "" {
				b.WriteString("    ")
			}
			b.WriteString(line)
		}
		b.WriteByte('\n')
	}
	b.WriteString(translate.Sample)
	_, err := io.WriteString(w, b.String())
	return err
}
