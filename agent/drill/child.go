package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// pageLine is what a drilled agent says first; the address of its page follows.
const pageLine = "page: "

// RunAgent is the drilled agent: the process that a drill starts, cuts off and kills. specFile is what Run wrote for it, load
// reads a configuration file, o has the version and the salvager. It runs until its standard input ends, so that it never
// outlives the drill that started it.
func RunAgent(specFile string, o agent.Options, load func(path string) (agent.Config, error), in io.Reader, out, log io.Writer) error {
	raw, err := os.ReadFile(specFile)
	if err != nil {
		return fmt.Errorf("read the drill's orders: %w", err)
	}
	var s spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read the drill's orders: %w", err)
	}
	cfg, err := load(s.Config)
	if err != nil {
		return err
	}
	cfg = adapt(cfg, s)
	o.Logger, o.Kinds = slog.New(slog.NewTextHandler(log, nil)), []signal.Kind{kind(s)}
	a, err := agent.New(cfg, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s%s\n", pageLine, a.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the process: it waits for whoever started it
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return a.Run(ctx)
}

// process is a drilled agent as the drill sees it.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	page string
	done chan struct{}
	err  error // of Wait, after done
	once sync.Once
}

// startTimeout is how long an agent may take until its page answers: the product's own promise.
const startTimeout = 60 * time.Second

// launch starts an agent and waits until its page answers, or until ctx ends.
func launch(ctx context.Context, command []string, specFile, logFile string) (*process, error) {
	p, page, err := spawn(command, specFile, logFile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case p.page = <-page:
	case <-p.done:
		return nil, fmt.Errorf("the agent ended at its start: %w (its log is %q)", p.err, logFile)
	case <-ctx.Done():
		p.kill()
		return nil, fmt.Errorf("the agent was not ready after %s (its log is %q)", startTimeout, logFile)
	}
	return p, nil
}

// spawn starts an agent. page receives its page's address; reading that is up to the caller.
func spawn(command []string, specFile, logFile string) (*process, <-chan string, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the agent's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], specFile)...)
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the agent: %w", err)
	}
	p := &process{cmd: cmd, in: in, done: make(chan struct{})}
	page := make(chan string, 1)
	go func() { // ends with the process
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if addr, ok := strings.CutPrefix(sc.Text(), pageLine); ok {
				page <- addr
			}
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, page, nil
}

// kill ends the process as a power cut would: without a word.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop lets the agent end by itself.
func (p *process) stop() error {
	p.once.Do(func() { p.in.Close() })
	t := time.NewTimer(startTimeout)
	defer t.Stop()
	select {
	case <-p.done:
		return p.err
	case <-t.C:
		p.kill()
		return errors.New("the agent did not stop")
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// look reads the agent's own page.
func (p *process) look(ctx context.Context) (s status.Snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.page+"/api/v1/status", nil)
	if err != nil {
		return s, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("the page says %s", resp.Status)
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func writeSpec(dir, name string, s spec) (string, error) {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, raw, 0o600)
}
