package mqttlink

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/eclipse/paho.golang/paho"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Why a connection failed or ended.
var (
	ErrSilent    = errors.New("nothing was heard from the broker for three keep-alive intervals")
	ErrVersion   = errors.New("the broker does not speak this version of MQTT")
	ErrTakenOver = errors.New("another client with the same client_id took the session over")
)

// Reason is a broker's no in words.
type Reason struct {
	Code  byte   // of MQTT 5
	Words string // what the code means
	Text  string // what the broker says beside it; often empty
}

func (r Reason) String() string {
	s := r.Words
	if s == "" {
		s = fmt.Sprintf("reason code 0x%02x", r.Code)
	}
	if r.Text != "" {
		s += " (" + r.Text + ")"
	}
	return s
}

// Refused is the broker's no to a connection or a publication, with the codes of MQTT 5 also where it speaks 3.1.1.
type Refused Reason

func (r *Refused) Error() string { return "the broker refuses: " + Reason(*r).String() }

// Is lets errors.Is find ErrVersion.
func (r *Refused) Is(target error) bool { return target == ErrVersion && r.Code == 0x84 }

// Disconnected is how a version 5 broker ended a connection.
type Disconnected Reason

func (d *Disconnected) Error() string {
	return "the broker ended the connection: " + Reason(*d).String()
}

// Is lets errors.Is find ErrTakenOver.
func (d *Disconnected) Is(target error) bool { return target == ErrTakenOver && d.Code == 0x8E }

func disconnected(d *paho.Disconnect) error {
	r := &Disconnected{Code: d.ReasonCode, Words: words[d.ReasonCode]}
	if d.Properties != nil {
		r.Text = d.Properties.ReasonString
	}
	return r
}

// lost is why the connection ended, never nil.
func (s *Session) lost() error {
	if err := s.Err(); err != nil {
		return err
	}
	return net.ErrClosed
}

// grant reads one answer to a subscription, of either version.
func grant(filter string, code byte) Grant {
	if code < 0x80 {
		return Grant{Filter: filter, QoS: code}
	}
	return Grant{Filter: filter, Refused: &Reason{Code: code, Words: words[code]}}
}

// NotGranted is the answer to a subscription that was not even asked for, with a reason code of MQTT 5.
func NotGranted(filter string, code byte) Grant { return grant(filter, code) }

var words = map[byte]string{
	0x00: "normal end",
	0x04: "end with a will",
	0x80: "no reason is given",
	0x81: "it finds a packet malformed",
	0x82: "it sees a breach of the protocol",
	0x83: "it does not take this",
	0x84: "it does not speak this version of MQTT",
	0x85: "it does not accept this client_id",
	0x86: "the user name or password is wrong",
	0x87: "the user is not authorised for this",
	0x88: "it is not available",
	0x89: "it is busy",
	0x8A: "this client is banned",
	0x8B: "it shuts down",
	0x8C: "it asks for another way of authentication",
	0x8D: "it heard nothing for longer than the keep-alive allows",
	0x8E: "another client with the same client_id took the session over",
	0x8F: "it does not accept this topic filter",
	0x90: "it does not accept this topic",
	0x93: "it counts more unacknowledged messages than were allowed",
	0x94: "a topic alias is wrong",
	0x95: "a packet is larger than it allows",
	0x96: "messages come too fast",
	0x97: "a limit set by its administrator is exceeded",
	0x98: "its administrator ended this",
	0x99: "a payload is not of the format that was stated",
	0x9A: "it keeps no retained messages",
	0x9B: "it does not offer this QoS",
	0x9C: "another server should be used for now",
	0x9D: "it has moved for good",
	0x9E: "it offers no shared subscriptions",
	0x9F: "connections are made too fast",
	0xA0: "the longest time for a connection is over",
	0xA1: "it offers no subscription identifiers",
	0xA2: "it offers no subscriptions with wildcards",
}

// Explain says why a connection failed or ended, on which side, and what to do. The names of keys are those that every MQTT
// source's configuration uses.
func Explain(err error, o *Options) *signal.Problem {
	p := &signal.Problem{Code: "no_connection", Item: o.Broker.String(), Reason: err.Error(),
		NextStep: "check that the broker runs and that this computer reaches it"}
	var refused *Refused
	if errors.As(err, &refused) {
		explainRefusal(p, refused, o)
		return p
	}
	if explainCertificate(p, err) {
		return p
	}
	var (
		timeout net.Error
		pathErr *os.PathError
		name    *net.DNSError
	)
	switch {
	case errors.Is(err, ErrTakenOver):
		p.Code, p.Item = "client_id_conflict", o.ClientID
		p.NextStep = "stop the other client that uses this client_id, or give this source its own"
	case errors.As(err, &name):
		p.Code, p.Reason, p.NextStep = "name_unknown", fmt.Sprintf("the name %q cannot be resolved", name.Name), "correct the host in broker, or this computer's name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Reason = "nothing listens at the broker's address"
	case errors.As(err, &pathErr):
		p.Code, p.Item, p.NextStep = "file_unreadable", pathErr.Path, "correct the path or the rights of the file"
	case errors.Is(err, ErrSilent):
		p.Reason = ErrSilent.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		p.Reason = "the broker does not answer"
	}
	return p
}

func explainRefusal(p *signal.Problem, r *Refused, o *Options) {
	p.Code, p.Reason = "refused", r.Error()
	switch r.Code {
	case 0x86, 0x87, 0x8C:
		p.Code, p.Reason = "login_refused", fmt.Sprintf("the broker refuses user %q", o.Username)
		p.NextStep = "correct username and password_file of this source, or allow the user at the broker"
	case 0x85:
		p.Code, p.Item, p.Reason = "client_id_refused", o.ClientID, "the broker refuses this client_id"
		p.NextStep = "set a client_id that the broker accepts"
	case 0x84:
		p.Code, p.NextStep = "version_refused", "set version: auto, or version: 3.1.1"
	case 0x88, 0x89, 0x97, 0x9F:
		p.NextStep = "look at the broker's load and limits; the agent goes on trying"
	default:
		p.NextStep = "look in the broker's log for this client_id"
	}
}

func explainCertificate(p *signal.Problem, err error) bool {
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		p.Code, p.Reason = "certificate_unknown", "the broker's certificate was signed by nobody this agent trusts; nothing was sent"
		p.NextStep = "set ca to the certificate of the authority that signed it"
	case errors.As(err, &host):
		p.Code, p.Reason = "certificate_name", "the broker's certificate is for another name: "+host.Error()
		p.NextStep = "set server_name to a name in the certificate, after checking that it is the right broker"
	case errors.As(err, &invalid):
		p.Code, p.Reason = "certificate_invalid", "the broker's certificate is not valid: "+invalid.Error()
		p.NextStep = "renew the broker's certificate and check the clocks of both computers"
	case strings.Contains(err.Error(), "remote error: tls"): // the alert has no type of its own
		p.Code, p.Reason = "certificate_refused", "the broker refuses the agent's certificate, or that it has none: "+err.Error()
		p.NextStep = "set cert and key to a certificate that the broker accepts"
	default:
		return false
	}
	return true
}
