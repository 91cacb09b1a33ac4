package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
)

// admin is a way to the running agent with the rights of who may read its data folder.
type admin struct{ base, token string }

func (e *env) admin(addr string) (*admin, error) {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return nil, err
	}
	cfg.Check(nil) // fills the defaults
	token, err := adminToken(e.cli.Config)
	if err != nil {
		return nil, err
	}
	if addr == "" {
		addr = cfg.Listen
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "0" {
		return nil, fmt.Errorf("address %q says no port: name the one that the agent printed with --addr", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", port) // it listens everywhere
	}
	return &admin{"http://" + addr, token}, nil
}

// call asks the agent; the body of a success is the caller's to close.
func (a *admin) call(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	res, err := c.Do(req)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil, fmt.Errorf("the agent is not running: nothing answers at %s (start it with `plantagent start` or `plantagent run`)", strings.TrimPrefix(a.base, "http://"))
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return nil, fmt.Errorf("the agent says: %s", strings.TrimSpace(string(text)))
	}
	return res.Body, nil
}

type traceCmd struct {
	Source string `help:"Only this source. Default: all." placeholder:"NAME"`
	Tag    string `help:"Only this tag." placeholder:"TAG"`
	For    string `help:"End by itself after this time, such as 30s. Default: at Ctrl-C." placeholder:"TIME"`
	Count  int    `help:"End by itself after this many values." placeholder:"N"`
	JSON   bool   `help:"Print JSON lines."`
	Addr   string `help:"Address of the agent's page, when it is not the one of the configuration." placeholder:"HOST:PORT"`
}

func (traceCmd) Help() string {
	return examples("Shows live what the rules of the running agent make of each value, and why: which rule took it, the fact it became (with key, quantity and order), or why it became none.",
		"plantagent trace --source press1", "plantagent trace --source press1 --tag good --json")
}

// Run shows what comes until it is interrupted.
func (t traceCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if t.For != "" {
		d, err := time.ParseDuration(t.For)
		if err != nil || d <= 0 {
			return fmt.Errorf("--for %q is no time such as 30s", t.For)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	a, err := e.admin(t.Addr)
	if err != nil {
		return err
	}
	body, err := a.call(ctx, http.MethodGet, "/api/v1/trace?"+url.Values{"source": {t.Source}, "tag": {t.Tag}}.Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), 64<<20)
	for n := 0; (t.Count == 0 || n < t.Count) && lines.Scan(); {
		shown, err := t.show(e.out, lines.Bytes())
		if err != nil {
			return err
		}
		if shown {
			n++
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the agent stopped answering: %w", err)
	}
	return nil
}

func (t traceCmd) show(w io.Writer, line []byte) (shown bool, err error) {
	var got struct {
		translate.Explained
		agent.TraceMissed
	}
	if err := json.Unmarshal(line, &got); err != nil {
		return false, fmt.Errorf("what answers is not a plant agent: %w", err)
	}
	x := &got.Explained
	switch {
	case got.Missed == 0 && x.Source == "":
		return false, nil // a beat
	case t.JSON:
		_, err = fmt.Fprintf(w, "%s\n", line)
	case got.Missed > 0:
		_, err = fmt.Fprintf(w, "(%d values were left out: they came faster than they could be shown)\n", got.Missed)
	default:
		_, err = io.WriteString(w, explained(x))
	}
	return got.Missed == 0, err
}

// explained is an explanation as text.
func explained(x *translate.Explained) string {
	var b strings.Builder
	at := x.At.Local().Format("15:04:05.000")
	if x.Tag == "" {
		fmt.Fprintf(&b, "%s  %s  (its time had come)\n", at, x.Source)
	} else {
		name := x.Source + "/" + x.Tag
		if x.Topic != "" {
			name += " (" + x.Topic + ")"
		}
		fmt.Fprintf(&b, "%s  %s = %s  %s", at, name, x.Value, x.Quality)
		if x.Status != "" && x.Status != "Good" {
			b.WriteString(" " + x.Status)
		}
		b.WriteByte('\n')
	}
	for _, s := range x.Steps {
		b.WriteString("    ")
		if s.Rule != "" {
			b.WriteString(s.Rule + ": ")
		}
		fmt.Fprintf(&b, "%s: %s", strings.ReplaceAll(s.Outcome, "_", " "), s.Text)
		if s.OrderNo != "" {
			b.WriteString(", order " + s.OrderNo)
		}
		if s.Key != "" {
			b.WriteString(" [" + s.Key + "]")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

type recordCmd struct {
	Source  []string `help:"Record this source, and those that say what its counts are booked on (may be given several times). Default: all." placeholder:"NAME"`
	For     string   `default:"1h" help:"How long, at most 24h." placeholder:"TIME"`
	MaxSize string   `help:"How large the file may become. Default 64MiB, at most 1GiB." placeholder:"SIZE"`
	Stop    bool     `help:"End the recording that runs."`
	Show    bool     `help:"Say how the recording is."`
	JSON    bool     `help:"Print JSON."`
	Addr    string   `help:"Address of the agent's page, when it is not the one of the configuration." placeholder:"HOST:PORT"`
}

func (recordCmd) Help() string {
	return examples("Lets the running agent record what its rules are given, for `plantagent replay`. The command returns at once; the agent ends the recording by itself.",
		"plantagent record --source press1 --for 1h", "plantagent record --show", "plantagent record --stop")
}

// Run starts, stops or shows a recording.
func (c recordCmd) Run(e *env) error {
	a, err := e.admin(c.Addr)
	if err != nil {
		return err
	}
	method, body := http.MethodPost, any(nil)
	switch {
	case c.Stop:
		method = http.MethodDelete
	case c.Show:
		method = http.MethodGet
	default:
		var size agent.Size
		if c.MaxSize != "" {
			if err := size.UnmarshalText([]byte(c.MaxSize)); err != nil {
				return err
			}
		}
		body = map[string]any{"sources": c.Source, "for": c.For, "max_bytes": int64(size)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	res, err := a.call(ctx, method, "/api/v1/admin/recording", body)
	if err != nil {
		return err
	}
	defer res.Close()
	var s status.Recording
	if err := json.NewDecoder(res).Decode(&s); err != nil {
		return fmt.Errorf("what answers is not a plant agent: %w", err)
	}
	if c.JSON {
		return json.NewEncoder(e.out).Encode(s)
	}
	if s.Running {
		fmt.Fprintf(e.out, "recording until %s into %s (%d events, %d bytes so far)\n", s.Until.Local().Format(time.DateTime), s.File, s.Events, s.Bytes)
		return nil
	}
	fmt.Fprintf(e.out, "recorded %d events, %d bytes, into %s: it ended because %s\n", s.Events, s.Bytes, s.File, s.Ended)
	return nil
}
