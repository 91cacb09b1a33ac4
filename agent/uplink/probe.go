package uplink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// endsSoon is how long before the end of a certificate a Probe says so.
const endsSoon = 30 * 24 * time.Hour

// Probe goes the way to the hub step by step, as the line would: certificates, proxy, port, mutual TLS, and the WebSocket where
// something between breaks the direct way. It says no hello: the hub would take that for a second agent of this name.
func Probe(ctx context.Context, cfg Config) []signal.Step {
	cfg.setDefaults()
	if faults := cfg.Validate(); len(faults) > 0 {
		var steps []signal.Step
		for _, err := range faults {
			steps = append(steps, failed("the configuration of the hub is in order", &Fault{Code: "config", Reason: err.Error(), NextStep: "correct the hub section"}))
		}
		return steps
	}
	a := &attempt{cfg: &cfg}
	steps, usable := a.probeFiles()
	if !usable {
		return steps
	}
	var because *Fault
	if cfg.WebSocket != wsAlways {
		more, fault := probeWay(ctx, &cfg, way{})
		steps = append(steps, more...)
		if fault == nil || cfg.WebSocket == wsNever || !fault.inTheNetwork() && !meddling[fault.Code] {
			return steps
		}
		because = fault
	}
	for _, address := range cfg.tunnels() {
		more, fault := probeWay(ctx, &cfg, way{url: address})
		if fault == nil {
			if because != nil && len(steps) > 0 {
				steps[len(steps)-1].Warning = true // it does not keep the line from working
			}
			return append(steps, more...)
		}
		steps = append(steps, more...)
	}
	return steps
}

func failed(name string, f *Fault) signal.Step {
	next := f.NextStep
	if next == "" {
		next = "look into the hub's log"
	}
	return signal.Step{Name: name, Problem: &signal.Problem{Code: f.Code, Item: "hub", Reason: f.Reason, NextStep: next}}
}

// probeFiles looks at the agent's own papers, and reports whether they can be used.
func (a *attempt) probeFiles() ([]signal.Step, bool) {
	const name = "this agent's certificate for the hub is in order"
	if _, err := a.tlsConfig(); err != nil {
		return []signal.Step{failed(name, asFault(err))}, false
	}
	if f := a.ownValidity(errors.New("outside of its time")); f != nil {
		return []signal.Step{failed(name, f)}, false
	}
	if a.own == nil {
		return []signal.Step{{Name: name}}, true
	}
	end := a.own.NotAfter
	if left := end.Sub(a.cfg.Now()); left < endsSoon {
		s := failed(name, &Fault{Code: "own_certificate_ends", Reason: "it ends on " + end.Format(time.DateOnly),
			NextStep: "renew it: enrol the agent again at the hub"})
		s.Warning = true
		return []signal.Step{s}, true
	}
	return []signal.Step{{Name: name, Detail: fmt.Sprintf("%s, until %s", a.own.Subject, end.Format(time.DateOnly))}}, true
}

// probeWay tries one way to the hub, up to its first word.
func probeWay(ctx context.Context, cfg *Config, w way) ([]signal.Step, *Fault) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	a := &attempt{cfg: cfg, way: w}
	defer a.cut()
	reach, secure := fmt.Sprintf("the hub %s is reached", cfg.Address), "the hub and this agent trust each other"
	if w.url != "" {
		reach, secure = "the hub is reached inside a WebSocket", secure+" inside the WebSocket"
	}
	conn, err := a.open()
	if err != nil {
		return []signal.Step{failed(reach, asFault(err))}, asFault(err)
	}
	defer conn.Close()
	conn.Connect()
	state := conn.GetState()
	for state != connectivity.Ready && state != connectivity.TransientFailure && state != connectivity.Shutdown && conn.WaitForStateChange(ctx, state) {
		state = conn.GetState()
	}
	f := a.explain(context.DeadlineExceeded)
	a.mu.Lock()
	dialled, hub := a.dialErr == nil && len(a.conns) > 0, a.hub
	a.mu.Unlock()
	switch {
	case state != connectivity.Ready && !dialled:
		return []signal.Step{failed(reach, f)}, f
	case state != connectivity.Ready:
		return []signal.Step{{Name: reach, Detail: a.reachedBy()}, failed(secure, f)}, f
	}
	steps := []signal.Step{{Name: reach, Detail: a.reachedBy()}, {Name: secure}}
	if hub == nil {
		return steps, nil
	}
	end := hub.NotAfter.Format(time.DateOnly)
	steps[1].Detail = fmt.Sprintf("TLS on both sides; the hub's certificate, %s, ends on %s", hub.Subject, end)
	if hub.NotAfter.Sub(cfg.Now()) < endsSoon {
		s := failed("the hub's certificate lasts", &Fault{Code: "hub_certificate_ends", Reason: "it ends on " + end, NextStep: "tell who runs the hub to renew it"})
		s.Warning = true
		steps = append(steps, s)
	}
	return steps, nil
}

// reachedBy says which way the bytes go.
func (a *attempt) reachedBy() string {
	var parts []string
	if a.way.url != "" {
		parts = append(parts, a.way.url)
	}
	if a.proxy != nil {
		parts = append(parts, "through the proxy "+a.proxy.Host)
	}
	if parts == nil {
		return "directly"
	}
	return strings.Join(parts, ", ")
}
