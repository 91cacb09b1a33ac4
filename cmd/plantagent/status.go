package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

const exitNotRunning = 4

type statusCmd struct {
	JSON bool   `help:"Print the whole status as JSON."`
	Addr string `help:"Address of the agent's page, when it is not the one of the configuration." placeholder:"HOST:PORT"`
}

func (statusCmd) Help() string {
	return examples("", "plantagent status -c plantagent.yaml; echo $?", "plantagent status --json --addr 127.0.0.1:8480")
}

// Run asks the running agent over its page: no rights are needed for that. Whatever does not answer like an agent counts as
// not running: the other exit codes are what an agent says of itself.
func (s statusCmd) Run(e *env) error {
	addr := s.Addr
	if addr == "" {
		cfg, err := load(e.cli.Config)
		if err != nil {
			return err
		}
		cfg.Check(nil) // fills the default
		addr = cfg.Listen
	}
	snap, raw, err := ask(addr)
	if err != nil {
		fmt.Fprintf(e.err, "the agent is not running: %v (start it with `plantagent start` or `plantagent run`)\n", err)
		return exitError(exitNotRunning)
	}
	if s.JSON {
		e.out.Write(raw)
	} else {
		printStatus(e.out, snap)
	}
	if code := status.ExitCode(snap.State); code != 0 {
		return exitError(code)
	}
	return nil
}

func ask(addr string) (*status.Snapshot, []byte, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "0" {
		return nil, nil, fmt.Errorf("address %q says no port: name the one that the agent printed with --addr", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port) // it listens everywhere
	}
	raw, err := fetch("http://" + addr + "/api/v1/status")
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil, nil, fmt.Errorf("nothing answers at %s", addr)
	}
	if err != nil {
		return nil, nil, err
	}
	var snap status.Snapshot
	if err := json.Unmarshal(raw, &snap); err != nil || snap.State == "" {
		return nil, nil, fmt.Errorf("what answers at %s is not a plant agent", addr)
	}
	return &snap, raw, nil
}

func fetch(url string) ([]byte, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	res, err := c.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, res.Status)
	}
	return raw, nil
}

func printStatus(w io.Writer, s *status.Snapshot) {
	fmt.Fprintf(w, "%s/%s  %s since %s\n", s.Plant, s.Agent, strings.ToUpper(s.State), s.Since.Local().Format(time.DateTime))
	if s.Reason != "" {
		fmt.Fprintf(w, "  %s\n", s.Reason)
	}
	if s.NextStep != "" {
		fmt.Fprintf(w, "  next step: %s\n", s.NextStep)
	}
	fmt.Fprintf(w, "hub        %s %s\n", s.Uplink.State, s.Uplink.Hub)
	if s.Uplink.State == "connected" && s.Uplink.Way == "websocket" {
		fmt.Fprintf(w, "           inside a WebSocket, because: %s\n", s.Uplink.WayReason)
	}
	fmt.Fprintf(w, "buffered   %d facts, %d bytes of %d\n", s.Business.Pending, s.Business.Bytes, s.Business.Limit)
	fmt.Fprintf(w, "dropped    %d readings\nquarantine %d inputs\n", s.Telemetry.Dropped, s.Quarantined)
	for _, src := range s.Sources {
		fmt.Fprintf(w, "source     %-16s %-10s %d signals %s\n", src.Name, src.State, src.Signals, src.Reason)
		for _, p := range src.Problems {
			fmt.Fprintf(w, "           %s: %s\n", p.Item, p.Reason)
		}
	}
}
