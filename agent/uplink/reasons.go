package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Fault is why the line is down, for machines (Code is stable) and for the operator.
type Fault struct {
	Code     string
	Reason   string
	NextStep string
	// Refused says that the hub answered and said no: it is asked again slowly.
	Refused bool
	cause   error
}

func (f *Fault) Error() string { return f.Reason }

// Unwrap returns the error behind the plain words, if there is one.
func (f *Fault) Unwrap() error { return f.cause }

func (f *Fault) causeText() string {
	if f.cause == nil {
		return ""
	}
	return oneLine(f.cause.Error())
}

func asFault(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Code: "line", Reason: oneLine(err.Error()), NextStep: "it is tried again by itself", cause: err}
}

// refusals gives each code of the hub its own words; what the hub itself says is preferred.
var refusals = map[pb.Refusal_Code]Fault{
	pb.Refusal_CODE_PROTOCOL_VERSION: {
		Code: "refused_protocol_version", Refused: true,
		Reason: "the hub does not speak this agent's protocol version", NextStep: "update the older of the two: hub first, then agents",
	},
	pb.Refusal_CODE_IDENTITY_MISMATCH: {
		Code: "refused_identity_mismatch", Refused: true,
		Reason:   "the certificate was made out to another agent than the configuration names",
		NextStep: "compare plant and agent name in the configuration with the certificate, or enrol again",
	},
	pb.Refusal_CODE_UNKNOWN_AGENT: {
		Code: "refused_unknown_agent", Refused: true,
		Reason: "the hub does not know this agent", NextStep: "add the agent at the hub, or enrol again with a new token",
	},
	pb.Refusal_CODE_IDENTITY_IN_USE: {
		Code: "refused_identity_in_use", Refused: true,
		Reason:   "another running agent uses this identity: this may be a copy of a machine or of its disk",
		NextStep: "stop one of the two, or enrol this one under its own name",
	},
	pb.Refusal_CODE_OUT_OF_SEQUENCE: {
		Code: "out_of_sequence", Reason: "the hub found a gap in what was sent", NextStep: "it is sent again by itself; look at the hub's log if it stays",
	},
	pb.Refusal_CODE_BUSY: {
		Code: "hub_busy", Reason: "the hub lets agents in one after the other", NextStep: "it is tried again by itself",
	},
	pb.Refusal_CODE_HUB_STORE: {
		Code: "hub_store", Reason: "the hub cannot store now", NextStep: "look at the hub's disk and database",
	},
}

func refusalFault(r *pb.Refusal) *Fault {
	f, known := refusals[r.GetCode()]
	if !known {
		f = Fault{Code: "refused", Refused: true, Reason: "the hub refuses this agent", NextStep: "look at the hub's log"}
	}
	if r.GetReason() != "" {
		f.Reason = oneLine(f.Reason + ": " + r.GetReason())
	}
	if r.GetNextStep() != "" {
		f.NextStep = oneLine(r.GetNextStep())
	}
	if after := r.GetRetryAfter(); after != nil {
		f.cause = &turn{after.AsDuration()}
	}
	return &f
}

// explain turns what an attempt met into a Fault. The earliest step that failed is the cause.
func (a *attempt) explain(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	a.mu.Lock()
	dialErr, tlsErr, readErr, greeted := a.dialErr, a.tlsErr, a.readErr, a.greeted
	a.mu.Unlock()
	switch {
	case dialErr != nil:
		return a.explainDial(dialErr)
	case tlsErr != nil:
		return a.explainTLS(tlsErr)
	case readErr != nil && strings.Contains(readErr.Error(), "remote error: tls:"):
		return a.explainAlert(readErr)
	}
	if f := a.ownValidity(err); f != nil && !greeted {
		return f // it hung up without a word, but this is why
	}
	return a.explainStream(err)
}

// cutEarly reports that the line was cut, or stayed silent, between TCP and the hub's first word.
func (a *attempt) cutEarly(f *Fault) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.greeted && f.inTheNetwork() && (a.secured || f.Code == "tls")
}

func (a *attempt) explainDial(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	what, host := "hub", hostOf(a.target())
	if a.proxy != nil {
		what, host = "proxy", a.proxy.Hostname()
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Fault{"dns", what + " name not found: " + host, "check the name in the configuration and the computer's name server", false, err}
	case errors.As(err, &dns):
		return &Fault{"dns", "name server does not answer for " + host, "check the network cable and the computer's name server", false, err}
	case isRefused(err):
		return &Fault{what + "_connection_refused", "connection refused by " + what + " " + host, "check that the " + what + " runs and the port is right", false, err}
	case isUnreachable(err):
		return &Fault{what + "_unreachable", what + " " + host + " is unreachable: no route", "check the network cable and the gateway", false, err}
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return &Fault{what + "_timeout", what + " " + host + " does not answer", "check the network, and that a firewall lets the port through", false, err}
	}
	return &Fault{"connect", "cannot connect to " + what + ": " + oneLine(err.Error()), "check the network", false, err}
}

func (a *attempt) explainTLS(err error) *Fault {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	text := err.Error()
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return a.explainValidity(invalid.Cert, err)
	case errors.As(err, &unknown):
		return &Fault{"hub_certificate_untrusted", "hub certificate is not trusted: signed by an authority that this agent does not know" + issuerOf(unknown.Cert),
			"compare the CA file with the hub's; behind an inspecting proxy ask for an exception for this address", false, err}
	case errors.As(err, &name):
		return &Fault{"hub_certificate_name", "hub certificate is not trusted: " + strings.TrimPrefix(oneLine(name.Error()), "x509: "),
			"use a name that the hub's certificate carries, or set the server name in the configuration", false, err}
	case errors.As(err, &invalid):
		return &Fault{"hub_certificate_untrusted", "hub certificate is not trusted: " + strings.TrimPrefix(oneLine(invalid.Error()), "x509: "), "renew the hub's certificate", false, err}
	case errors.As(err, &record), strings.Contains(text, "first record does not look like"):
		return &Fault{"not_tls", "what answers at " + a.cfg.Address + " does not speak TLS", "check the port: the hub takes agents at its gRPC port", false, err}
	case strings.Contains(text, "ALPN"):
		return &Fault{"no_http2", "what answers at " + a.cfg.Address + " does not offer HTTP/2: an inspecting proxy or not the hub's gRPC port",
			"check the port, or ask for an exception from inspection for this address", false, err}
	case strings.Contains(text, "remote error: tls:"):
		return a.explainAlert(err)
	}
	return &Fault{"tls", "secure connection failed: " + oneLine(text), "check whether something between agent and hub cuts the line", false, err}
}

// explainValidity tells an expired certificate from a wrong clock, as far as that is possible from here: our own
// certificate is the second witness.
func (a *attempt) explainValidity(hub *x509.Certificate, err error) *Fault {
	now := a.cfg.Now()
	clock := "this computer's clock says " + now.Format(time.RFC3339)
	if off := hub.NotBefore.Sub(now); off > 0 {
		return &Fault{"clock", "clock is wrong by at least " + span(off) + ": the hub certificate becomes valid only then", "set this computer's clock; it says " + now.Format(time.RFC3339), false, err}
	}
	off := now.Sub(hub.NotAfter)
	if a.own != nil && now.After(a.own.NotAfter) {
		return &Fault{"clock", "clock is probably wrong: hub certificate and own certificate both ended (" + span(off) + " and " + span(now.Sub(a.own.NotAfter)) + " ago)",
			clock + "; set it, or renew both certificates", false, err}
	}
	return &Fault{"hub_certificate_expired", "hub certificate expired " + span(off) + " ago", "renew the hub's certificate; if it is in order: " + clock, false, err}
}

// ownValidity says that our own certificate is outside of its time, nil when it is not.
func (a *attempt) ownValidity(err error) *Fault {
	if a.own == nil {
		return nil
	}
	now := a.cfg.Now()
	if off := now.Sub(a.own.NotAfter); off > 0 {
		return &Fault{"own_certificate_expired", "own certificate expired " + span(off) + " ago", "renew it or enrol again; this computer's clock says " + now.Format(time.RFC3339), true, err}
	}
	if off := a.own.NotBefore.Sub(now); off > 0 {
		return &Fault{"clock", "clock is wrong by at least " + span(off) + ": the own certificate becomes valid only then", "set this computer's clock; it says " + now.Format(time.RFC3339), true, err}
	}
	return nil
}

// explainAlert reads what the hub thought of our certificate.
func (a *attempt) explainAlert(err error) *Fault {
	if f := a.ownValidity(err); f != nil {
		return f
	}
	_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
	return &Fault{"own_certificate_refused", "the hub does not accept this agent's certificate: " + oneLine(alert),
		"enrol the agent again, or check that it talks to the hub that it was enrolled at", true, err}
}

func (a *attempt) explainStream(err error) *Fault {
	st := grpcstatus.Convert(err)
	text := oneLine(st.Message())
	switch st.Code() {
	case codes.Unauthenticated, codes.PermissionDenied:
		return &Fault{"refused", "the hub refuses this agent: " + text, "look at the hub's log; enrol the agent again if its certificate was withdrawn", true, err}
	case codes.Unimplemented:
		return &Fault{"not_a_hub", "what answers at " + a.cfg.Address + " is not a hub: " + text, "check address and port", true, err}
	case codes.ResourceExhausted:
		return &Fault{"hub_busy", "the hub takes no more now: " + text, "it is tried again by itself", false, err}
	case codes.DeadlineExceeded, codes.Canceled:
		return &Fault{"hub_timeout", "the hub does not answer", "look whether the hub is healthy", false, err}
	}
	return &Fault{"line_lost", "the line to the hub broke: " + text, "it is tried again by itself", false, err}
}

func fileFault(what, path string, err error) *Fault {
	reason := fmt.Sprintf("%s %q cannot be read: %v", what, path, err)
	next := "check the file and who may read it"
	if errors.Is(err, fs.ErrNotExist) {
		reason, next = fmt.Sprintf("%s %q does not exist", what, path), "enrol the agent at the hub, or correct the path in the configuration"
	}
	return &Fault{"own_files", reason, next, false, err}
}

func issuerOf(c *x509.Certificate) string {
	if c == nil || c.Issuer.String() == "" {
		return ""
	}
	return " (" + oneLine(c.Issuer.String()) + ")"
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// span writes a duration the way a person says it.
func span(d time.Duration) string {
	unit := func(n int64, one string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %ss", n, one)
	}
	switch {
	case d < time.Minute:
		return unit(int64(d.Round(time.Second)/time.Second), "second")
	case d < 2*time.Hour:
		return unit(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return unit(int64(d/time.Hour), "hour")
	}
	return unit(int64(d/(24*time.Hour)), "day")
}
