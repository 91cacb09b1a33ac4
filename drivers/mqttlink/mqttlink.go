// Package mqttlink is one connection to one MQTT broker, 3.1.1 or 5 alike.
//
// It owns the client libraries, the bounded window of what was received and not yet taken, the acknowledgements, the pings
// and the watch for a connection that is dead without saying so. It promises that nothing is acknowledged but what its user
// acknowledges, that memory stays bounded because a full window is not read past, that a lost connection ends a Session
// exactly once and for good, and that refusals are told in words. It never connects again by itself, decodes no payload and
// stores nothing.
package mqttlink

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Version of the protocol.
type Version string

// The versions. Auto tries 5 and goes back to 3.1.1 when the broker does not know it.
const (
	Auto Version = "auto"
	V311 Version = "3.1.1"
	V5   Version = "5"
)

// Forever is a SessionExpiry that never comes.
const Forever = time.Duration(1<<63 - 1)

// Options of a connection.
type Options struct {
	Broker   *url.URL // as ParseBroker returns it
	ClientID string
	Username string
	// Password is asked at each connect; nil means none.
	Password func() (string, error)
	TLS      TLS
	Version  Version // Auto when empty
	// KeepAlive is at least 1 s; a connection from which nothing was heard for three times as long is dead.
	KeepAlive time.Duration
	// Clean drops the session of an earlier connection. In 3.1.1 it also ends the session with the connection.
	Clean bool
	// SessionExpiry says, in MQTT 5, how long the broker keeps the session without a connection; zero ends it with the
	// connection. In 3.1.1 a session that is not Clean stays for ever.
	SessionExpiry time.Duration
	// Window is how many messages are received and not yet taken, WindowBytes how many bytes of payload; defaults 5000 and
	// 64 MiB. A version 5 broker is told the number as its receive maximum.
	Window, WindowBytes int
	// Will is published by the broker when the connection ends without a farewell; nil means none.
	Will *Publication
}

// TLS says how an encrypted connection is checked: file names, read at each connect.
type TLS struct {
	CA         string // who signed the broker's certificate; empty means those whom this computer trusts
	Cert, Key  string // the client's own, where the broker asks for one
	ServerName string // the name in the broker's certificate, when it is not the host's
}

// Message is one PUBLISH as it came.
type Message struct {
	Topic    string
	Payload  []byte
	Received time.Time
	ID       uint16
	QoS      byte
	Dup      bool
	Retained bool
	// Freed says that the broker had certainly read some acknowledgement of this connection when the message came.
	Freed bool
	// Properties came with it in MQTT 5; nil when there were none.
	Properties *Properties
}

// Properties travel beside a payload in MQTT 5. Version 3.1.1 leaves them out.
type Properties struct {
	ContentType   string
	ResponseTopic string
	Correlation   []byte
	// Expiry is how long the broker keeps the message for somebody who is not there; of a received one, what is left. Zero means
	// for ever.
	Expiry time.Duration
	User   []Property
}

// Property is one of the sender's own; a name may come several times.
type Property struct{ Name, Value string }

// Publication is a message to be published.
type Publication struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Subscription asks for the topics of a filter. The last three count in MQTT 5 only.
type Subscription struct {
	Filter string
	QoS    byte
	// Retained says when the broker sends its retained messages: one of the Retained constants.
	Retained byte
	// AsPublished leaves the retain flag on live messages as their sender set it.
	AsPublished bool
	// NotOwn leaves out what this client publishes itself.
	NotOwn bool
}

// When retained messages are sent.
const (
	RetainedAlways  = 0
	RetainedIfNew   = 1
	RetainedNotSent = 2
)

// Grant is a broker's answer to a Subscription.
type Grant struct {
	Filter  string
	QoS     byte
	Refused *Reason // nil when it was granted
}

// Limits are what a version 5 broker said it can do; a 3.1.1 broker says nothing and gets the defaults.
type Limits struct {
	Retain, Wildcards, Shared bool
	MaxQoS                    byte
	// SessionExpiry is how long the broker really keeps the session.
	SessionExpiry time.Duration
	KeepAlive     time.Duration
}

func (o *Options) fill() {
	if o.Version == "" {
		o.Version = Auto
	}
	o.KeepAlive = max(o.KeepAlive, time.Second)
	if o.Window == 0 {
		o.Window = 5000
	}
	if o.WindowBytes == 0 {
		o.WindowBytes = 64 << 20
	}
}

func (o *Options) password() (string, error) {
	if o.Password == nil {
		return "", nil
	}
	return o.Password()
}

// ParseBroker reads an address as people write it: tcp:// or mqtt:// without encryption, tls://, ssl:// or mqtts:// with it.
// The result's scheme is tcp or tls, and it has a port. The error never repeats a password.
func ParseBroker(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil { // the cause would repeat the text, which may hold a password
		return nil, errors.New("broker cannot be read as an address: write tcp://host:1883 or tls://host:8883")
	}
	if u.User != nil {
		return nil, errors.New("broker holds a user or password: use username and password_file instead")
	}
	port := ""
	switch u.Scheme {
	case "tcp", "mqtt":
		u.Scheme, port = "tcp", "1883"
	case "tls", "ssl", "mqtts":
		u.Scheme, port = "tls", "8883"
	default:
		return nil, fmt.Errorf("broker %q: write tcp://host:1883 or tls://host:8883", s)
	}
	if u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("broker %q: write a host and a port, such as tcp://host:1883", s)
	}
	if u.Port() == "" {
		u.Host += ":" + port
	}
	return u, nil
}
