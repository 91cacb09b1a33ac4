package localui

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

// exposition writes the Prometheus text format.
type exposition struct{ bytes.Buffer }

func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes a value; labels are name, value, name, value.
func (e *exposition) sample(name string, value any, labels ...string) {
	e.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		e.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		fmt.Fprintf(e, `%s="%s"`, labels[i], escapeLabel.Replace(strings.ToValidUTF8(labels[i+1], "?")))
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	fmt.Fprintf(e, " %v\n", value)
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func yes(b bool) int {
	if b {
		return 1
	}
	return 0
}

// metrics writes a snapshot for Prometheus.
func metrics(s status.Snapshot) []byte {
	e := &exposition{}
	e.family("linekeeper_agent_info", "gauge", "The agent; always 1.")
	e.sample("linekeeper_agent_info", 1, "version", s.Version, "plant", s.Plant, "agent", s.Agent)
	e.family("linekeeper_agent_start_time_seconds", "gauge", "When the agent started, seconds since 1970.")
	e.sample("linekeeper_agent_start_time_seconds", s.StartedAt.Unix())
	e.family("linekeeper_agent_state", "gauge", "1 for the state that the agent is in.")
	for _, state := range []string{status.OK, status.Degraded, status.Offline, status.Losing} {
		e.sample("linekeeper_agent_state", yes(s.State == state), "state", state)
	}
	e.buffers(s)
	e.family("linekeeper_quarantined_records", "gauge", "Inputs that could not be used and are kept aside.")
	e.sample("linekeeper_quarantined_records", s.Quarantined)
	e.family("linekeeper_disk_free_bytes", "gauge", "Free space on the disk of the buffers.")
	e.sample("linekeeper_disk_free_bytes", s.FreeDisk)
	e.sources(s.Sources)
	e.family("linekeeper_uplink_connected", "gauge", "1 while the hub is reached.")
	e.sample("linekeeper_uplink_connected", yes(s.Uplink.State == "connected"))
	if !s.Uplink.LastAck.IsZero() {
		e.family("linekeeper_uplink_last_ack_time_seconds", "gauge", "When the hub last acknowledged something, seconds since 1970.")
		e.sample("linekeeper_uplink_last_ack_time_seconds", s.Uplink.LastAck.Unix())
	}
	if d, err := time.ParseDuration(s.HubClockSkew); err == nil {
		e.family("linekeeper_hub_clock_skew_seconds", "gauge", "This computer's clock minus the hub's.")
		e.sample("linekeeper_hub_clock_skew_seconds", d.Seconds())
	}
	return e.Bytes()
}

func (e *exposition) buffers(s status.Snapshot) {
	each := func(name, kind, help string, value func(status.Buffer) any) {
		e.family(name, kind, help)
		e.sample(name, value(s.Business), "stream", "business")
		e.sample(name, value(s.Telemetry), "stream", "telemetry")
	}
	each("linekeeper_buffer_pending_records", "gauge", "Records that the hub has not acknowledged.", func(b status.Buffer) any { return b.Pending })
	each("linekeeper_buffer_bytes", "gauge", "What they take.", func(b status.Buffer) any { return b.Bytes })
	each("linekeeper_buffer_limit_bytes", "gauge", "What they may take.", func(b status.Buffer) any { return b.Limit })
	each("linekeeper_buffer_oldest_age_seconds", "gauge", "Age of the oldest of them, 0 without one.", func(b status.Buffer) any {
		if b.Oldest.IsZero() || b.Oldest.After(s.At) {
			return 0
		}
		return int64(s.At.Sub(b.Oldest).Seconds())
	})
	each("linekeeper_buffer_last_sequence", "gauge", "Sequence of the last record stored.", func(b status.Buffer) any { return b.LastSeq })
	each("linekeeper_buffer_acked_sequence", "gauge", "Sequence of the last record that the hub holds.", func(b status.Buffer) any { return b.AckedSeq })
	each("linekeeper_buffer_dropped_records_total", "counter", "Records lost to the limit.", func(b status.Buffer) any { return b.Dropped })
	each("linekeeper_buffer_held", "gauge", "1 while sources are held back because the buffer is full.", func(b status.Buffer) any { return yes(b.Held) })
}

func (e *exposition) sources(list []status.Source) {
	if len(list) == 0 {
		return
	}
	each := func(name, kind, help string, value func(status.Source) any) {
		e.family(name, kind, help)
		for _, s := range list {
			if v := value(s); v != nil {
				e.sample(name, v, "source", s.Name, "kind", s.Kind)
			}
		}
	}
	each("linekeeper_source_up", "gauge", "1 while the source is read.", func(s status.Source) any { return yes(s.State == "ok") })
	each("linekeeper_source_signals_total", "counter", "Signals of the source made durable since the agent started.", func(s status.Source) any { return s.Signals })
	each("linekeeper_source_problems", "gauge", "Faults that do not stop the source.", func(s status.Source) any { return len(s.Problems) })
	each("linekeeper_source_last_data_time_seconds", "gauge", "When the source last had data, seconds since 1970.", func(s status.Source) any {
		if s.LastData.IsZero() {
			return nil
		}
		return s.LastData.Unix()
	})
}
