package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

// erpVariable holds what the slow ERP is to be, as JSON, in the environment of the process that is to be it.
const erpVariable = "LINEKEEPER_BENCH_ERP"

// slowERP is the sandbox in a process of its own, as an ERP has one, with a time that each call takes at least.
type slowERP struct {
	Dir    string
	Takes  time.Duration
	Orders int
}

// served is what the process says first, and again for each line of its input, with which it ends.
type served struct {
	Addr    string
	Numbers []string // of the orders that it released
	Calls   int64
	Busy    time.Duration // all calls together
}

// erpProcess turns the process into the slow ERP when it was started as that, and then does not return.
func erpProcess() {
	var e slowERP
	text := os.Getenv(erpVariable)
	if text == "" {
		return
	}
	err := json.Unmarshal([]byte(text), &e)
	if err == nil {
		err = e.serve(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ERP of the benchmark:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (e *slowERP) serve(ctx context.Context) (err error) {
	books, err := erp.Open(filepath.Join(e.Dir, "erp.db"), erp.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, books.Close()) }()
	if err := books.SeedDemo(ctx); err != nil {
		return err
	}
	var s served
	for range e.Orders {
		no, err := books.ReleaseOrder(ctx, erp.Order{Item: "BRACKET-10", Quantity: decimal.NewFromInt(1_000_000), Site: "1000", WorkCenter: "press1",
			PlannedStart: benchTime, PlannedEnd: benchTime.AddDate(1, 0, 0)})
		if err != nil {
			return err
		}
		s.Numbers = append(s.Numbers, no)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Addr = l.Addr().String()
	var calls, busy atomic.Int64
	api := books.Handler()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/login") {
			api.ServeHTTP(w, r)
			return
		}
		began := time.Now()
		time.Sleep(e.Takes)
		api.ServeHTTP(w, r)
		calls.Add(1)
		busy.Add(int64(time.Since(began)))
	})}
	go server.Serve(l)
	defer server.Close()
	for in := bufio.NewScanner(os.Stdin); ; {
		s.Calls, s.Busy = calls.Load(), time.Duration(busy.Load())
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil || !in.Scan() {
			return err
		}
	}
}

// runningERP is a slowERP as another process sees it.
type runningERP struct {
	served
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *json.Decoder
}

func (e slowERP) start() (r *runningERP, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	r = &runningERP{cmd: exec.Command(self)}
	r.cmd.Env = append(os.Environ(), erpVariable+"="+string(text))
	r.cmd.Stderr = os.Stderr
	if r.input, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.output = json.NewDecoder(output)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.output.Decode(&r.served); err != nil {
		return nil, errors.Join(fmt.Errorf("the ERP does not start: %w", err), r.end())
	}
	return r, nil
}

// since brings the counts up to date and returns what was done since they were.
func (r *runningERP) since() (calls int64, busy time.Duration, err error) {
	before := r.served
	if _, err := io.WriteString(r.input, "\n"); err != nil {
		return 0, 0, err
	}
	err = r.output.Decode(&r.served)
	return r.Calls - before.Calls, r.Busy - before.Busy, err
}

func (r *runningERP) end() error {
	return errors.Join(r.input.Close(), r.cmd.Wait())
}
