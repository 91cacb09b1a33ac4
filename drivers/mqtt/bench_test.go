package mqtt

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// BenchmarkDrain measures how fast a night's queue goes from mosquitto through the driver when storing costs nothing:
// 100,000 JSON messages of about 200 bytes for each operation. cpu-us/msg is of this process alone.
func BenchmarkDrain(b *testing.B) {
	for _, version := range []string{"3.1.1", "5"} {
		b.Run(version, func(b *testing.B) { benchmarkDrain(b, "version: "+version) })
	}
}

func benchmarkDrain(b *testing.B, version string) {
	const n = 100_000
	b.StopTimer()
	for range b.N {
		broker := realparts.Mosquitto(b, realparts.MosquittoOptions{})
		p := newPlant(b)
		stop := p.start(section(broker, version))
		p.awaitOK()
		stop()
		fill(b, broker, n)
		d, err := Kind.New(p.env(), decodeYAML(section(broker, version)))
		if err != nil {
			b.Fatal(err)
		}
		var got, batches atomic.Int64
		done := make(chan struct{})
		before := cpu(b)
		b.StartTimer()
		started := time.Now()
		stop = p.run(d, func(_ context.Context, x signal.Batch) error {
			batches.Add(1)
			if got.Add(int64(len(x.Signals))) >= n {
				select {
				case <-done:
				default:
					close(done)
				}
			}
			return nil
		})
		<-done
		b.StopTimer()
		took := time.Since(started)
		b.ReportMetric(n/took.Seconds(), "msg/s")
		b.ReportMetric(float64((cpu(b)-before).Microseconds())/n, "cpu-us/msg")
		b.ReportMetric(float64(got.Load())/float64(batches.Load()), "msg/batch")
		stop()
		if got.Load() != n {
			b.Errorf("%d of %d messages", got.Load(), n)
		}
	}
}

// fill publishes with mosquitto's own client, so that the publisher's cost is not in this process. It is started anew for
// each 50,000 lines: it numbers all of them at once, and MQTT has only 65,535 numbers.
func fill(b *testing.B, broker *realparts.Broker, n int) {
	b.Helper()
	program := realparts.Need(b, "mosquitto_pub", "mosquitto-clients")
	const most = 50_000
	for from := 0; from < n; from += most {
		var lines bytes.Buffer
		for i := from; i < min(n, from+most); i++ {
			fmt.Fprintf(&lines, `{"order":"1000%05d","operation":"0010","work_center":"PRESS-%02d","counter":%d,"good":12.500,"scrap":0,"unit":"PCE","at":"2026-11-24T06:12:%02d.123Z","shift":"early","operator":"4711"}`+"\n", i/100, i%20, i, i%60)
		}
		cmd := exec.Command(program, "-p", fmt.Sprint(broker.Port), "-q", "1", "-t", "line/1/counts", "-l")
		cmd.Stdin = &lines
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("publish: %v\n%s", err, out)
		}
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
