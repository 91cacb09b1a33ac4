package plant

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// broker is the plant's MQTT broker, and the scales that publish to it one message after the other.
type broker struct {
	addr   string
	server *mqtt.Server
	client paho.Client

	mu    sync.Mutex
	queue []publication // the first is under way until the broker has it
	wake  chan struct{}
}

type publication struct {
	topic   string
	payload []byte
}

// Message is what a scale publishes on plant/MACHINE/consumption.
type Message struct {
	ID       string `json:"id"`
	Order    string `json:"order"`
	Item     string `json:"item"`
	Quantity string `json:"qty"`
	Unit     string `json:"unit"`
	Time     string `json:"ts"`
}

func startBroker(port int) (*broker, error) {
	limits := mqtt.NewDefaultServerCapabilities()
	limits.MaximumInflight = 60000 // what it keeps for a client that is away
	limits.MaximumClientWritesPending = 60000
	b := &broker{server: mqtt.New(&mqtt.Options{Capabilities: limits, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}), wake: make(chan struct{}, 1)}
	l := listeners.NewTCP(listeners.Config{ID: "plant", Address: fmt.Sprintf("127.0.0.1:%d", port)})
	if err := b.server.AddHook(new(openDoor), nil); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	if err := b.server.AddListener(l); err != nil {
		return nil, fmt.Errorf("start broker on port %d: %w", port, err)
	}
	if err := b.server.Serve(); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b.addr = l.Address()
	b.client = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + b.addr).SetClientID("plant-scales").SetConnectRetry(true).
		SetConnectRetryInterval(time.Second).SetMaxReconnectInterval(time.Second).SetOrderMatters(true))
	t := b.client.Connect()
	if !t.WaitTimeout(10*time.Second) || t.Error() != nil {
		return nil, fmt.Errorf("connect scales to broker %s: %w", b.addr, t.Error())
	}
	return b, nil
}

// openDoor lets every client in.
type openDoor struct{ mqtt.HookBase }

func (*openDoor) ID() string { return "open door" }

func (*openDoor) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (*openDoor) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (*openDoor) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// newID is a random UUID (version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// enqueue hands over a message to be published. Its id makes it unmistakable.
func (b *broker) enqueue(machine, order string, k booking, at time.Time) {
	payload, _ := json.Marshal(Message{ID: newID(), Order: order, Item: k.Item, Quantity: k.take.String(), Unit: k.Unit,
		Time: at.Format("2006-01-02T15:04:05.000Z07:00")}) // strings only: it cannot fail
	b.mu.Lock()
	b.queue = append(b.queue, publication{"plant/" + machine + "/consumption", payload})
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *broker) first() (publication, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return publication{}, false
	}
	return b.queue[0], true
}

// run publishes until ctx ends. A message waits until somebody has subscribed to its topic, because a broker drops what
// nobody wants.
func (b *broker) run(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if p, ok := b.first(); ok && len(b.server.Topics.Subscribers(p.topic).Subscriptions) > 0 {
			if b.publish(ctx, p) {
				b.mu.Lock()
				b.queue = b.queue[1:]
				b.mu.Unlock()
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-tick.C:
		}
	}
}

// publish hands a message to the broker with QoS 1 and reports whether the broker has it.
func (b *broker) publish(ctx context.Context, p publication) bool {
	t := b.client.Publish(p.topic, 1, false, p.payload)
	select {
	case <-t.Done():
		return t.Error() == nil
	case <-ctx.Done():
		return false
	}
}

// drain waits until all messages are with the broker.
func (b *broker) drain(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, more := b.first(); !more {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (b *broker) close() error {
	b.client.Disconnect(100)
	return b.server.Close()
}
