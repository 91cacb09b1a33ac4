// Command opcuaload is the other side of measurements of the OPC UA driver: servers that say much, and a client that only counts.
//
// It owns three roles, each a process of its own so that processor and memory of the agent's side can be told from theirs: "serve"
// is a plant whose tags count by the clock, with everything that a driver needs to lose nothing; "blast" answers each publish
// request at once with a full message, so that it is the client that is measured; "count" is the plain client library, with its own
// decoding, that counts values. It knows no part of the agent: the driver replaces the library's decoding in its process.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	dir, endpoint string
	port, control int
	items         int
	period        time.Duration
	base          int64
	length        time.Duration
}

func main() {
	log.SetOutput(io.Discard) // the library writes there
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "opcuaload: name a role: serve, blast or count")
		os.Exit(2)
	}
	var o options
	f := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	f.StringVar(&o.dir, "dir", "", "folder of the server's certificate, cert.der; count trusts the one that lies there")
	f.StringVar(&o.endpoint, "endpoint", "", "server that count connects to")
	f.IntVar(&o.port, "port", 0, "OPC UA port of a server")
	f.IntVar(&o.control, "control", 0, "HTTP port of serve: GET /count is what the first tag shows, GET /stop ends the counting and answers with the last count of all tags")
	f.IntVar(&o.items, "items", 10_000, "tags")
	f.DurationVar(&o.period, "period", time.Second, "time between two counts of a tag")
	f.Int64Var(&o.base, "base", time.Now().UnixMilli(), "when the counting began, in milliseconds since 1970: a restarted server goes on")
	f.DurationVar(&o.length, "length", 5*time.Second, "how long count counts")
	f.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	roles := map[string]func(context.Context, options) error{"serve": serve, "blast": blast, "count": count}
	role := roles[os.Args[1]]
	if role == nil {
		fmt.Fprintf(os.Stderr, "opcuaload: there is no role %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := role(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "opcuaload:", err)
		os.Exit(1)
	}
}
