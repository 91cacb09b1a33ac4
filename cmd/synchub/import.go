package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub"
	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/bundle"
)

type importCmd struct {
	AcceptUnsigned bool     `help:"Take bundles that are not signed by their agent."`
	Answer         string   `help:"File to write the answer to, which goes back to the plant: what the hub holds, work orders and receipts." placeholder:"FILE"`
	JSON           bool     `help:"Print JSON."`
	Files          []string `arg:"" name:"file" help:"Bundles that plantagent buffer export wrote; several of one agent are taken in their order."`
}

func (importCmd) Help() string {
	return "Example: synchub import --answer ulm-7.answer /media/stick/ulm-7.bundle\n\n" +
		"For plants without a line. The hub must be stopped for the moment that this takes; agents send again what they meanwhile could not. " +
		"A bundle that was imported already changes nothing; one whose predecessor is missing is refused. " +
		"Postings to the ERP begin when the hub runs again; import then once more with --answer to bring their receipts to the plant."
}

// importedFile is what the command prints.
type importedFile struct {
	File   string `json:"file"`
	Plant  string `json:"plant"`
	Agent  string `json:"agent"`
	Number uint64 `json:"number"`
	ingest.Imported
}

func (c importCmd) Run(e *env) (err error) {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	cfg.Check(connectors()) // fills the defaults
	bundles, closeAll, err := c.open(cfg)
	defer closeAll()
	if err != nil {
		return err
	}
	ctx := context.Background()
	path := filepath.Join(cfg.DataDir, "hub.db")
	st, err := store.Open(ctx, path, store.Options{})
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w: the hub is running: stop it, run this again, and start it; nothing was imported", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var done []importedFile
	for _, b := range bundles {
		i, err := ingest.Import(ctx, st, b.Bundle)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", b.path, err), c.print(e, done))
		}
		done = append(done, importedFile{b.path, b.Plant, b.Agent, b.Number, i})
	}
	if c.Answer != "" {
		if err := c.answer(ctx, cfg, st, bundles[len(bundles)-1].Bundle); err != nil {
			return err
		}
	}
	return c.print(e, done)
}

func (c importCmd) print(e *env, done []importedFile) error {
	if c.JSON {
		return json.NewEncoder(e.out).Encode(done)
	}
	for _, d := range done {
		fmt.Fprintf(e.out, "%s: bundle %d of %s/%s: %d records: %d stored, %d known already, %d in conflict, %d unreadable; all up to %d are here\n",
			d.File, d.Number, d.Plant, d.Agent, d.Records, d.Stored, d.Duplicates, d.Conflicts, d.Unreadable, d.Held)
	}
	if c.Answer != "" && len(done) > 0 {
		fmt.Fprintf(e.out, "next: carry %s to the plant and run `plantagent buffer import %s` there\n", c.Answer, filepath.Base(c.Answer))
	}
	return nil
}

// openBundle is a bundle with its open file.
type openBundle struct {
	*bundle.Bundle
	path string
}

// open checks all files before anything is stored, and puts them in order.
func (c importCmd) open(cfg hub.Config) (list []openBundle, closeAll func(), err error) {
	var files []*os.File
	closeAll = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	authority, err := agentsAuthority(cfg)
	if err != nil && !c.AcceptUnsigned {
		return nil, closeAll, err
	}
	for _, path := range c.Files {
		f, err := os.Open(path)
		if err != nil {
			return nil, closeAll, usage(fmt.Sprintf("read bundle: %v", err))
		}
		files = append(files, f)
		b, err := c.check(cfg, f, authority)
		if err != nil {
			return nil, closeAll, fmt.Errorf("%s: %w; nothing was imported", path, err)
		}
		list = append(list, openBundle{b, path})
	}
	slices.SortStableFunc(list, func(x, y openBundle) int {
		return cmp.Or(cmp.Compare(x.Plant, y.Plant), cmp.Compare(x.Agent, y.Agent), cmp.Compare(x.Number, y.Number))
	})
	return list, closeAll, c.checkChain(list)
}

func (c importCmd) check(cfg hub.Config, f *os.File, authority *x509.CertPool) (*bundle.Bundle, error) {
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(f, stat.Size())
	if errors.Is(err, bundle.ErrBroken) {
		return nil, fmt.Errorf("%w: copy it again; if it stays, export it again at the plant", err)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case b.Kind != bundle.Facts:
		return nil, errors.New("it is an answer and goes to the plant: run `plantagent buffer import` there")
	case !cfg.Known(b.Plant, b.Agent):
		return nil, fmt.Errorf("agent \"%s/%s\" is not configured at this hub: add it under plants, or find out whose bundle it is", b.Plant, b.Agent)
	}
	if authority == nil {
		return b, nil
	}
	switch err := b.VerifyAgent(authority); {
	case errors.Is(err, bundle.ErrUnsigned) && c.AcceptUnsigned:
		return b, nil
	case errors.Is(err, bundle.ErrUnsigned):
		return nil, fmt.Errorf("%w: if you trust the way it came, take it with --accept-unsigned", err)
	default:
		return b, err
	}
}

// checkChain says that consecutive bundles of one agent name each other, and that there is one agent to answer.
func (c importCmd) checkChain(list []openBundle) error {
	for i := 1; i < len(list); i++ {
		before, b := list[i-1], list[i]
		same := before.Plant == b.Plant && before.Agent == b.Agent
		if c.Answer != "" && !same {
			return usage("--answer is for one agent: import the bundles of each agent by themselves")
		}
		if same && b.Number == before.Number+1 && b.Previous != before.SHA256 {
			return fmt.Errorf("%s: it follows another bundle %d than %s: one of the two was made by a copy of the agent; nothing was imported", b.path, before.Number, before.path)
		}
	}
	return nil
}

func agentsAuthority(cfg hub.Config) (*x509.CertPool, error) {
	raw, err := os.ReadFile(cfg.TLS.AgentsCAFile)
	if err != nil {
		return nil, fmt.Errorf("read tls.agents_ca_file, which signatures are checked with: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("tls.agents_ca_file %q holds no PEM certificate", cfg.TLS.AgentsCAFile)
	}
	return pool, nil
}

// answer writes the answer, signed with the hub's certificate where there is one.
func (c importCmd) answer(ctx context.Context, cfg hub.Config, st *store.Store, b *bundle.Bundle) (err error) {
	var sign *tls.Certificate
	if cfg.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
		if err != nil && !c.AcceptUnsigned {
			return fmt.Errorf("sign the answer: %w", err)
		}
		if err == nil {
			sign = &pair
		}
	}
	h, records, err := ingest.AnswerTo(ctx, st, b)
	if err != nil {
		return err
	}
	h.MadeAt = time.Now().UTC()
	f, err := os.OpenFile(c.Answer, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write answer: %w (the bundle is imported; importing it again does no harm)", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(c.Answer)
		}
	}()
	w, err := bundle.NewWriter(f, h)
	if err != nil {
		return err
	}
	numbers := make([]uint64, 0, len(records))
	for n := range records {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if err := w.Add(n, records[n]); err != nil {
			return err
		}
	}
	if _, err := w.Close(sign); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return f.Sync()
}
