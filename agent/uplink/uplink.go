package uplink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/pace"
)

// Protocol is the version of the contract that this package speaks.
const Protocol = 1

// Config says where the hub is and who we are. Zero means the default given on the field.
type Config struct {
	// Address is "host:port" of the hub.
	Address string `yaml:"address"`
	// ServerName is the name in the hub's certificate; the host of Address when empty.
	ServerName string `yaml:"server_name"`
	// CAFile holds the certificates (PEM) that the hub's must be signed by; CertFile and KeyFile are this agent's own.
	// All three are read again at each connect, so that a renewed certificate needs no restart.
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// Proxy is "http://user:password@host:port", "direct" for none, or empty for HTTPS_PROXY and NO_PROXY of the
	// environment.
	Proxy string `yaml:"proxy"`
	// WebSocket says when the line runs inside a WebSocket, for proxies that inspect TLS or know no HTTP/2: "auto" (the
	// default) when the direct way is broken by something between, "always", or "never".
	WebSocket string `yaml:"websocket"`
	// WebSocketURL is where: "wss://hub.example.com/v1/agent-tunnel". When empty, the host of Address is asked at the same
	// port, then at port 443. One that is given is tried after every fault of the network.
	WebSocketURL string `yaml:"websocket_url"`
	// WebSocketCAFile holds the certificates (PEM) that the outer layer's must be signed by: an inspecting proxy's own. When
	// empty, any will do: the line inside has its own TLS, which demands the hub's certificate as CAFile says.
	WebSocketCAFile string `yaml:"websocket_ca_file"`

	// Plant and Agent are the identity that the certificate must carry, Version is this program's.
	Plant   string `yaml:"-"`
	Agent   string `yaml:"-"`
	Version string `yaml:"-"`

	// BatchRecords and BatchBytes bound one batch; 256 records and 256 KiB. One record may be larger than BatchBytes.
	BatchRecords int `yaml:"-"`
	BatchBytes   int `yaml:"-"`
	// StartBytes is how many bytes may be unacknowledged before the line's speed is known, QueueTime how long records may
	// wait on the line once it is: what is urgent waits behind them; 16 KiB and 0.5 s.
	StartBytes int           `yaml:"-"`
	QueueTime  time.Duration `yaml:"-"`
	// Window is how many batches may be unacknowledged when the hub does not say; 32.
	Window int `yaml:"-"`
	// AckTimeout is how long batches in flight may stay without any acknowledgement before the line counts as dead; 30 s.
	AckTimeout time.Duration `yaml:"-"`
	// ConnectTimeout bounds everything up to the hub's answer to hello; 30 s.
	ConnectTimeout time.Duration `yaml:"-"`
	// Keepalive is after which silence the peer is asked whether it lives, and KeepaliveTimeout how long it may take to
	// answer; 20 s (at least 10 s) and 20 s. A slow line that loses packets needs some seconds for an answer.
	Keepalive        time.Duration `yaml:"-"`
	KeepaliveTimeout time.Duration `yaml:"-"`
	// BackoffMin and BackoffMax bound the pause between attempts, drawn evenly from zero to a limit that doubles; 200 ms
	// and 30 s. After a refusal the limits are RefusedMin and RefusedMax; 15 s and 5 min.
	BackoffMin time.Duration `yaml:"-"`
	BackoffMax time.Duration `yaml:"-"`
	// BackoffSoon is the highest limit as long as an outage is not older than BackoffSoonFor; 2 s and 30 s.
	BackoffSoon    time.Duration `yaml:"-"`
	BackoffSoonFor time.Duration `yaml:"-"`
	RefusedMin     time.Duration `yaml:"-"`
	RefusedMax     time.Duration `yaml:"-"`
	// Healthy is how long a connection must have held for the pauses to start small again; 10 s.
	Healthy time.Duration `yaml:"-"`
	// StatusEvery is how often the agent's status is sent at least, StatusGap the least time between two; 30 s and 2 s.
	StatusEvery time.Duration `yaml:"-"`
	StatusGap   time.Duration `yaml:"-"`
	// RetryDirect is about when the direct way is looked at first while the line runs inside a WebSocket; each pause after
	// it is twice as long, up to 16 times; 15 min.
	RetryDirect time.Duration `yaml:"-"`

	// Now is this computer's clock, for what depends on the date: certificates, and the comparison with the hub's; time.Now.
	Now func() time.Time `yaml:"-"`
	// Dial opens the TCP connection to the hub or its proxy; net.Dialer when nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error) `yaml:"-"`
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	num(&c.BatchRecords, 256)
	num(&c.BatchBytes, 256<<10)
	num(&c.Window, 32)
	num(&c.StartBytes, 16<<10)
	def(&c.QueueTime, time.Second/2)
	def(&c.AckTimeout, 30*time.Second)
	def(&c.ConnectTimeout, 30*time.Second)
	def(&c.Keepalive, 20*time.Second)
	def(&c.KeepaliveTimeout, 20*time.Second)
	def(&c.BackoffMin, 200*time.Millisecond)
	def(&c.BackoffMax, 30*time.Second)
	def(&c.BackoffSoon, 2*time.Second)
	def(&c.BackoffSoonFor, 30*time.Second)
	def(&c.RefusedMin, 15*time.Second)
	def(&c.RefusedMax, 5*time.Minute)
	def(&c.Healthy, 10*time.Second)
	def(&c.StatusEvery, 30*time.Second)
	def(&c.StatusGap, 2*time.Second)
	def(&c.RetryDirect, 15*time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 15 * time.Second}).DialContext
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(c.Address)
	}
}

func (c *Config) pace() pace.Config {
	return pace.Config{Least: min(8<<10, c.StartBytes), First: c.StartBytes, Most: max(c.StartBytes, c.Window*c.BatchBytes), Queue: c.QueueTime}
}

// Validate lists what is wrong with what a configuration file says, each with the next step.
func (c Config) Validate() []error {
	var faults []error
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil || host == "" || port == "" {
		faults = append(faults, fmt.Errorf("hub address %q is not host:port: write it like \"hub.example.com:9443\"", c.Address))
	}
	if c.CertFile == "" || c.KeyFile == "" {
		faults = append(faults, errors.New("certificate or key file is not named: enrol the agent at the hub first"))
	}
	if _, err := proxyFor(c.Proxy, c.Address); err != nil {
		faults = append(faults, err)
	}
	if err := c.checkWebSocket(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

// Source is a buffer that records are sent from. Its methods may be called from several goroutines.
type Source interface {
	// Generation is random and drawn anew by NewGeneration.
	Generation() string
	// Stats tells the last sequence written and the last one acknowledged.
	Stats() buffer.Stats
	// Read returns the records that follow after in order, at most maxRecords and about maxBytes but at least one when
	// there is any. Sequences may have gaps where records were dropped.
	Read(after uint64, maxRecords, maxBytes int) ([]buffer.Entry, error)
	// Wait returns nil once there is a record after that sequence, or the context's error.
	Wait(ctx context.Context, after uint64) error
	// Ack says that the hub holds everything up to seq.
	Ack(seq uint64) error
	// NewGeneration gives all records that are not acknowledged to a new generation.
	NewGeneration() error
}

// Inbox stores what comes down.
type Inbox interface {
	// Position is the last delivery stored and the epoch it belongs to.
	Position() (epoch string, seq int64)
	// Store returns nil once all deliveries are durable; storing one twice has no second effect.
	Store(epoch string, deliveries []*pb.Delivery) error
}

// Deps are the parts that the line serves. Only Business is needed.
type Deps struct {
	Business  Source
	Telemetry Source
	Inbox     Inbox
	// Marks is told at each hello, before anything is sent, what the hub knows of each counter. wentBack says that this
	// agent's data is older than the hub's: counters must resume from the marks. After an error the line starts over.
	Marks func(ctx context.Context, marks []*pb.SourceMark, wentBack bool) error
	// Verdict is told of each record that the hub did not simply accept. It must not block.
	Verdict func(stream pb.Stream, generation string, v *pb.Verdict)
	// HubLost is told when the hub no longer holds records that it once acknowledged and that are gone here: (from, to].
	HubLost func(stream pb.Stream, generation string, from, to uint64)
	// Status makes what is sent to the hub; StatusChanged receives when it should be sent soon.
	Status        func() *pb.AgentStatus
	StatusChanged <-chan struct{}
	// Changed is told after the line's own state changed. It must not block.
	Changed func()
	Logger  signal.Logger
}

// Uplink is the line. Make one with New.
type Uplink struct {
	cfg      Config
	deps     Deps
	instance string

	// Run's own: the way that worked last, whether the direct one ever did, and how often it was cut in a row since.
	way          way
	directWorked bool
	cuts         int

	mu         sync.Mutex
	state      status.Uplink
	clock      hubClock
	hubVersion string
}

// New checks cfg and returns a line that is not yet connected.
func New(cfg Config, deps Deps) (*Uplink, error) {
	cfg.setDefaults()
	if faults := cfg.Validate(); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Plant == "" || cfg.Agent == "" {
		return nil, errors.New("plant or agent name is empty: the hub knows an agent by both")
	}
	if deps.Business == nil {
		return nil, errors.New("uplink needs a business buffer")
	}
	var id [8]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return &Uplink{
		cfg: cfg, deps: deps, instance: hex.EncodeToString(id[:]),
		state: status.Uplink{State: "connecting", Since: time.Now(), Hub: cfg.Address, Reason: "first attempt"},
	}, nil
}

// Status returns how the line is now.
func (u *Uplink) Status() status.Uplink {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// HubVersion returns the version that the hub named at the last hello.
func (u *Uplink) HubVersion() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.hubVersion
}

// errAgain ends a session that wants another one at once.
var errAgain = errors.New("connect again")

// Run keeps the line until ctx ends, and returns nil after all of its goroutines have ended.
func (u *Uplink) Run(ctx context.Context) error {
	var pauses backoff
	again := 0
	for ctx.Err() == nil {
		before := u.Status().LastAck
		o := u.round(ctx)
		if ctx.Err() != nil {
			break
		}
		held, err := o.held, o.err
		if held >= u.cfg.Healthy {
			pauses = backoff{}
		}
		if held >= u.cfg.Healthy || u.Status().LastAck.After(before) {
			again = 0
		}
		if errors.Is(err, errDirectAgain) {
			u.log().Info("the direct way to the hub works again: the WebSocket is left")
			u.way = way{}
			continue
		}
		if errors.Is(err, errAgain) {
			// Twice in a row would be a hub that never has enough: that one gets the ordinary pauses.
			if again++; again <= 2 {
				continue
			}
			err = &Fault{Code: "hello_loop", Reason: "the hub asks for a new hello again and again", NextStep: "look at the hub's log"}
		}
		again = 0
		fault := asFault(err)
		wait, asked := turnOf(fault)
		if !asked {
			wait = pauses.next(time.Now(), fault.Refused, u.cfg)
		}
		u.setDown(fault, time.Now().Add(wait))
		pause(ctx, wait)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (u *Uplink) setDown(f *Fault, next time.Time) {
	state := "offline"
	if f.Refused {
		state = "refused"
	}
	u.mu.Lock()
	was := u.state
	if was.State != state {
		u.state.Since = time.Now()
	}
	// "offline" and "refused" are the same outage to the person who reads since when.
	if was.State == "offline" || was.State == "refused" {
		u.state.Since = was.Since
	}
	u.state.State, u.state.Reason, u.state.Code, u.state.NextStep, u.state.NextTry = state, f.Reason, f.Code, f.NextStep, next
	changed := was.State != state || was.Reason != f.Reason
	u.mu.Unlock()
	if changed {
		u.log().Warn("hub is not reached", "reason", f.Reason, "code", f.Code, "cause", f.causeText())
		u.changed()
	}
}

func (u *Uplink) setConnected(w way, outer, note string) {
	u.mu.Lock()
	u.state = status.Uplink{
		State: "connected", Since: time.Now(), Hub: u.cfg.Address, LastAck: u.state.LastAck, Reason: note, Way: w.name(), WayURL: w.url, WayReason: w.because,
	}
	u.mu.Unlock()
	if w.url == "" {
		u.log().Info("hub is reached", "hub", u.cfg.Address, "way", w.name())
	} else {
		u.log().Info("hub is reached", "hub", u.cfg.Address, "way", w.name(), "url", w.url, "because", w.because, "outer_certificate_by", outer)
	}
	u.changed()
}

func (u *Uplink) acked() {
	now := time.Now()
	u.mu.Lock()
	u.state.LastAck = now
	u.mu.Unlock()
}

func (u *Uplink) changed() {
	if u.deps.Changed != nil {
		u.deps.Changed()
	}
}

func (u *Uplink) log() signal.Logger {
	if u.deps.Logger == nil {
		return silent{}
	}
	return u.deps.Logger
}

type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

// oneLine makes a foreign text fit for a status line.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}
