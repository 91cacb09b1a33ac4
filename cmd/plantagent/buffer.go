package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
)

type bufferCmd struct {
	Inspect bufferInspectCmd `cmd:"" help:"Show what the buffer holds: files, records, state, damage."`
	Verify  bufferVerifyCmd  `cmd:"" help:"Check every record and value. Exit code: 0 all is whole, 1 not, or the agent is running."`
	Export  bufferExportCmd  `cmd:"" help:"Write the records that the hub does not have into one sealed file, to be carried there."`
	Import  bufferImportCmd  `cmd:"" help:"Take the hub's answer to an exported file: what it holds, work orders and receipts."`
}

// bufferAt says which buffer is meant.
type bufferAt struct {
	Data string `help:"Data folder of the agent; default: the one of the configuration." placeholder:"DIR"`
}

// dataDir returns the agent's data folder. The configuration is needed only where it is not named.
func (a bufferAt) dataDir(e *env) (string, error) {
	if a.Data != "" {
		return a.Data, nil
	}
	cfg, err := load(e.cli.Config)
	if err != nil {
		return "", fmt.Errorf("%w; or name the data folder with --data", err)
	}
	cfg.Check(nil) // fills the default
	return cfg.DataDir, nil
}

func noBuffer(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no buffer in %q: an agent has never run there (name its data folder with --data, or its configuration with --config)", dir)
	case errors.Is(err, buffer.ErrInUse):
		return fmt.Errorf("%w: the agent is running, and the buffer changes meanwhile: stop it (`plantagent stop`), run this again and start it (`plantagent start`); the sources keep what comes in between", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (run this as the user that the agent runs as)", err)
	}
	return err
}

type bufferInspectCmd struct {
	bufferAt
	Telemetry bool `help:"The buffer of states and readings instead of that of the production facts."`
	JSON      bool `help:"Print JSON."`
}

func (bufferInspectCmd) Help() string {
	return examples("It only reads, and may be used while the agent runs.", "plantagent buffer inspect -c plantagent.yaml", "plantagent buffer inspect --data /var/lib/linekeeper --json")
}

func (c bufferInspectCmd) Run(e *env) error {
	dir, err := c.dataDir(e)
	if err != nil {
		return err
	}
	in, err := buffer.Inspect(bufferDir(dir, c.Telemetry))
	if err != nil {
		return noBuffer(dir, err)
	}
	if c.JSON {
		return printJSON(e.out, in)
	}
	printInspection(e.out, in)
	return nil
}

func bufferDir(dataDir string, telemetry bool) string {
	if telemetry {
		return filepath.Join(dataDir, "telemetry")
	}
	return filepath.Join(dataDir, "business")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

const stateShown = 40

func printInspection(w io.Writer, in *buffer.Inspection) {
	fmt.Fprintf(w, "buffer      %s\n", in.Dir)
	if in.Running {
		fmt.Fprintln(w, "            the agent is running: this is what it has committed so far")
	}
	fmt.Fprintf(w, "generation  %s\nrecords     up to %d, the hub holds those up to %d, %d wait for it\n", in.Generation, in.LastSeq, in.AckedSeq, in.Pending)
	if in.Salvaged > 0 {
		fmt.Fprintf(w, "            and %d that were saved from damaged files\n", in.Salvaged)
	}
	if in.Dropped > 0 {
		fmt.Fprintf(w, "dropped     %d records, to the limit\n", in.Dropped)
	}
	fmt.Fprintf(w, "quarantine  %d inputs\n\n", in.Quarantined)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tRECORDS\tFROM\tTO\tBYTES")
	for _, s := range in.Segments {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\n", s.File, s.Records, s.First, s.Last, s.Bytes)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\nstate       %d keys\n", len(in.State))
	for i, s := range in.State {
		if i == stateShown {
			fmt.Fprintf(w, "            and %d more (see --json)\n", len(in.State)-stateShown)
			break
		}
		fmt.Fprintf(w, "            %s, %d bytes\n", s.Key, s.Bytes)
	}
	for _, d := range in.Damage {
		fmt.Fprintf(w, "damage      %s: %s\n            %s\n", d.At.Local().Format(time.DateTime), d, d.Reason)
	}
	for _, name := range in.SetAside {
		fmt.Fprintf(w, "set aside   %s\n", name)
	}
	for _, name := range in.Foreign {
		fmt.Fprintf(w, "foreign     %s\n", name)
	}
	printFaults(w, in)
}

func printFaults(w io.Writer, in *buffer.Inspection) {
	for _, f := range in.Faults {
		fmt.Fprintf(w, "fault       %s: %s\n", f.File, f.Reason)
	}
}

type bufferVerifyCmd struct {
	bufferAt
	Telemetry bool `help:"The buffer of states and readings instead of that of the production facts."`
	JSON      bool `help:"Print JSON."`
}

func (bufferVerifyCmd) Help() string {
	return examples("It never writes. The agent must be stopped.", "plantagent stop; plantagent buffer verify -c plantagent.yaml; echo $?; plantagent start")
}

func (c bufferVerifyCmd) Run(e *env) error {
	dir, err := c.dataDir(e)
	if err != nil {
		return err
	}
	in, err := buffer.Verify(bufferDir(dir, c.Telemetry))
	if err != nil {
		return noBuffer(dir, err)
	}
	if c.JSON {
		err = printJSON(e.out, in)
	} else {
		printVerdict(e.out, in)
	}
	if err == nil && len(in.Faults) > 0 {
		return exitError(exitFailed)
	}
	return err
}

func printVerdict(w io.Writer, in *buffer.Inspection) {
	records, bytes := uint64(0), int64(0)
	for _, s := range in.Segments {
		records, bytes = records+s.Records, bytes+s.Bytes
	}
	for _, d := range in.Damage {
		fmt.Fprintf(w, "earlier     %s: %s\n", d.At.Local().Format(time.DateTime), d)
	}
	printFaults(w, in)
	checked := fmt.Sprintf("%d %s, %d records, %d keys of state, %d bytes", len(in.Segments), plural(len(in.Segments), "file"), records, len(in.State), bytes)
	if len(in.Faults) == 0 {
		fmt.Fprintf(w, "all is whole: %s\n", checked)
		return
	}
	fmt.Fprintf(w, "%d %s in %s\n", len(in.Faults), plural(len(in.Faults), "fault"), checked)
	fmt.Fprintln(w, "Copy the folder to a safe place and start the agent: it sets damaged files aside, saves what is whole in them and says what is lost. Then check the disk.")
}

type salvageCmd struct {
	Args []string `arg:"" optional:""`
}

// Run is the life of a process that the agent starts for a damaged file.
func (c salvageCmd) Run(e *env) error { return buffer.SalvageProcess(c.Args, e.out) }

// salvager is the command that reads damaged buffer files: this program itself.
func salvager() []string {
	self, err := os.Executable()
	if err != nil {
		return nil // the agent then does it by itself
	}
	return []string{self, "salvage-segment"}
}

// openBusiness opens the buffer of the production facts, which must be there.
func openBusiness(cfg agent.Config) (*buffer.Buffer, error) {
	dir := bufferDir(cfg.DataDir, false)
	if _, err := os.Stat(dir); err != nil {
		return nil, noBuffer(cfg.DataDir, err)
	}
	b, err := buffer.Open(buffer.Config{
		Dir: dir, Limit: int64(cfg.Buffer.BusinessLimit), DiskReserve: int64(cfg.Buffer.DiskReserve), SegmentSize: int64(cfg.Buffer.SegmentSize),
		Salvager: salvager(),
	})
	if err != nil {
		return nil, noBuffer(cfg.DataDir, err)
	}
	return b, nil
}

// loadFor reads the configuration for a command that works on the data folder.
func (a bufferAt) loadFor(e *env) (agent.Config, error) {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return cfg, err
	}
	cfg.Check(nil) // fills the defaults
	cfg.DataDir = cmp.Or(a.Data, cfg.DataDir)
	return cfg, nil
}
