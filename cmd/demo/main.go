// Command demo runs the whole product on one machine: a simulated plant with real OPC UA, real MQTT and an MES database,
// the real plant agent, the real hub, and an ERP sandbox that loses every tenth reply.
//
// It owns the show: it releases work orders, cuts the network, kills the agent and the hub, and says so. It promises that
// its last line compares what the machines counted with what the ERP's books hold, and that it exits with 0 only when they
// are equal. It never helps the product: agent and hub run as processes of their own, from their own configuration files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	length := time.Duration(0)
	if s := os.Getenv("DEMO_FOR"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil || length < 10*time.Second {
			fmt.Fprintf(os.Stderr, "demo: DEMO_FOR=%s is not a time of at least 10s, such as 90s\n", s)
			os.Exit(64)
		}
	}
	ok, err := show(ctx, length, os.Stdout)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// show runs the demo until length has passed (or ctx ended) and reports whether the books balance.
func show(ctx context.Context, length time.Duration, out io.Writer) (balanced bool, err error) {
	s, err := setUp(ctx, out)
	if err != nil {
		return false, err
	}
	defer s.tearDown()
	s.say("operator's page  %s", s.agentURL)
	s.say("hub console      %s", s.hubURL)
	s.say("ERP sandbox      %s (loses one reply in ten after it has posted)", s.erpURL)
	if length > 0 {
		s.say("ends by itself after %s", length)
	} else {
		s.say("ends with Ctrl-C, and then settles the books")
	}
	s.perform(ctx, length)
	s.say("the machines stop; what is on its way may arrive")
	final, err := s.settle()
	if err != nil {
		return false, err
	}
	s.tearDown()
	fmt.Fprintln(out, final)
	return final.balanced(), nil
}
