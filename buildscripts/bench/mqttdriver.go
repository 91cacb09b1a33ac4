package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqtt"
)

const (
	driverMessages = 100_000
	driverRounds   = 3
	driverGoal     = 0.6
)

// mqttDriver lets the client library alone count a night's queue, and the driver make the same queue durable and acknowledge it,
// in turns.
func mqttDriver(ctx context.Context, dir, _ string) error {
	broker, stop, err := benchBroker(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	for _, v := range []struct {
		version, name string
		bare          func(ctx context.Context, broker string, n int64) (time.Duration, error)
	}{{"3.1.1", "mqtt311_acked", count311}, {"5", "mqtt5_acked", count5}} {
		var bares, ours, ratios []float64
		for range driverRounds {
			bare, our, err := driverRound(ctx, dir, broker, v.version, v.bare)
			if err != nil {
				return fmt.Errorf("version %s: %w", v.version, err)
			}
			bares, ours = append(bares, driverMessages/bare.Seconds()), append(ours, driverMessages/our.Seconds())
			ratios = append(ratios, bare.Seconds()/our.Seconds())
		}
		for _, x := range [][]float64{bares, ours, ratios} {
			slices.Sort(x)
		}
		const mid = driverRounds / 2
		fmt.Printf("  version %-5s  library alone, only counting: %7.0f messages/s; durable and acknowledged: %7.0f/s\n", v.version, bares[mid], ours[mid])
		fmt.Printf("ratio %s %.2f %.2f\n", v.name, ratios[mid], driverGoal)
	}
	return nil
}

func benchBroker(ctx context.Context, dir string) (address string, stop func(), err error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", nil, err
	}
	address = fmt.Sprintf("127.0.0.1:%d", ports[0])
	conf := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 5000\n", ports[0], dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	mosquitto, err := exec.LookPath("mosquitto")
	if err != nil {
		mosquitto = "/usr/sbin/mosquitto"
	}
	listening := func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	}
	p, err := launch(ctx, dir, listening, mosquitto, "-c", conf)
	if err != nil {
		return "", nil, err
	}
	return address, p.kill, nil
}

// driverRound makes a session of each side, fills both queues with the same messages, and drains one after the other.
func driverRound(ctx context.Context, dir, broker, version string, bare func(context.Context, string, int64) (time.Duration, error)) (alone, our time.Duration, err error) {
	if _, err := bare(ctx, broker, 0); err != nil {
		return 0, 0, err
	}
	d, err := newBenchDriver(dir, broker, version)
	if err != nil {
		return 0, 0, err
	}
	defer d.close()
	if _, err := d.drain(ctx, 0); err != nil {
		return 0, 0, err
	}
	if err := publish(ctx, broker, driverMessages, nil); err != nil {
		return 0, 0, err
	}
	if alone, err = bare(ctx, broker, driverMessages); err != nil {
		return 0, 0, err
	}
	our, err = d.drain(ctx, driverMessages)
	return alone, our, err
}

// count311 counts n messages of its session and acknowledges each, as the library does by itself; n is 0 to subscribe only.
func count311(ctx context.Context, broker string, n int64) (time.Duration, error) {
	var got atomic.Int64
	done := make(chan struct{})
	o := paho3.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("alone311").SetCleanSession(false).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(paho3.Client, paho3.Message) {
		if got.Add(1) == n {
			close(done)
		}
	})
	c := paho3.NewClient(o)
	begin := time.Now()
	if t := c.Connect(); !t.WaitTimeout(10*time.Second) || t.Error() != nil {
		return 0, fmt.Errorf("connect: %w", t.Error())
	}
	defer c.Disconnect(1000)
	if n == 0 {
		t := c.Subscribe("bench/q", 1, nil)
		t.WaitTimeout(10 * time.Second)
		return 0, t.Error()
	}
	select {
	case <-done:
		return time.Since(begin), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// count5 is count311 for version 5.
func count5(ctx context.Context, broker string, n int64) (time.Duration, error) {
	var got atomic.Int64
	done := make(chan struct{})
	begin := time.Now()
	conn, err := net.Dial("tcp", broker)
	if err != nil {
		return 0, err
	}
	c := paho5.NewClient(paho5.ClientConfig{Conn: conn, OnPublishReceived: []func(paho5.PublishReceived) (bool, error){
		func(paho5.PublishReceived) (bool, error) {
			if got.Add(1) == n {
				close(done)
			}
			return true, nil
		}}})
	_, err = c.Connect(ctx, &paho5.Connect{ClientID: "alone5", KeepAlive: 30, Properties: &paho5.ConnectProperties{SessionExpiryInterval: paho5.Uint32(3600)}})
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer c.Disconnect(&paho5.Disconnect{})
	if n == 0 {
		_, err := c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "bench/q", QoS: 1}}})
		return 0, err
	}
	select {
	case <-done:
		return time.Since(begin), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// benchDriver is the MQTT driver over the agent's buffer.
type benchDriver struct {
	buffer *buffer.Buffer
	dir    string
	text   string
	cursor []byte
	ready  chan struct{} // of the present drain
}

func newBenchDriver(dir, broker, version string) (*benchDriver, error) {
	dir, err := os.MkdirTemp(dir, "driver-")
	if err != nil {
		return nil, err
	}
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "buffer"), DiskReserve: -1})
	if err != nil {
		return nil, err
	}
	return &benchDriver{buffer: b, dir: dir, text: fmt.Sprintf("broker: tcp://%s\nversion: %s\nclient_id: driver%s\ntopics: [{tag: q, topic: bench/q}]\n", broker, version, version)}, nil
}

func (d *benchDriver) close() {
	d.buffer.Close()
	os.RemoveAll(d.dir)
}

// State and Problem implement signal.Reporter.
func (d *benchDriver) State(s signal.State, _ string) {
	if s == signal.StateOK {
		select {
		case d.ready <- struct{}{}:
		default:
		}
	}
}

func (d *benchDriver) Problem(string, *signal.Problem) {}

// drain runs the driver until n messages are durable and acknowledged; n is 0 to subscribe only.
func (d *benchDriver) drain(ctx context.Context, n int) (time.Duration, error) {
	d.ready = make(chan struct{}, 1)
	driver, err := mqtt.Kind.New(signal.Env{Plant: "ulm", Agent: "line1", Source: "bus", Dir: d.dir, ConfigDir: d.dir, Zone: time.UTC, Reporter: d,
		Logger: slog.New(slog.DiscardHandler)}, func(into any) error { return yaml.Load([]byte(d.text), into, yaml.WithKnownFields()) })
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := 0
	done := make(chan struct{})
	emit := func(ctx context.Context, b signal.Batch) error {
		err := d.buffer.Commit(ctx, func(tx *buffer.Tx) error {
			for i := range b.Signals {
				tx.Append(b.Signals[i].Payload)
			}
			tx.SetState("cursor/bus", b.Cursor)
			return nil
		})
		if err != nil {
			return err
		}
		d.cursor = b.Cursor
		if got += len(b.Signals); n > 0 && got >= n && got-len(b.Signals) < n {
			close(done)
		}
		return nil
	}
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { ended <- driver.Run(ctx, d.cursor, emit) }()
	finished := done
	if n == 0 {
		finished = d.ready
	}
	select {
	case <-finished:
	case err := <-ended:
		return 0, errors.Join(err, ctx.Err())
	}
	cancel() // Run says farewell when the broker has read every acknowledgement
	if err := <-ended; err != nil {
		return 0, err
	}
	if got != n {
		return 0, fmt.Errorf("%d messages became durable, not %d", got, n)
	}
	return time.Since(begin), nil
}
