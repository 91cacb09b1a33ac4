package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/proto/bundle"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// chainKey is where the buffer remembers the last bundle that was exported.
const chainKey = "bundle/last"

// chain is the last bundle, which the next one names.
type chain struct {
	Number uint64 `json:"number"`
	SHA256 string `json:"sha256"`
}

type bufferExportCmd struct {
	bufferAt
	Out   string  `required:"" help:"File to write; it must not be there yet." placeholder:"FILE"`
	After *uint64 `help:"Leave out the records up to this one: they went with an earlier bundle that the hub has. Without it all go that the hub has not acknowledged; what it has already does no harm." placeholder:"SEQ"`
	JSON  bool    `help:"Print JSON."`
}

func (bufferExportCmd) Help() string {
	return examples("For a plant without a line to its hub. The agent must be stopped for the moment that this takes. Nothing is deleted here "+
		"until the hub's answer says that it holds the records. The file is signed with the agent's certificate when the configuration names one.",
		"plantagent stop", "plantagent buffer export --out /media/stick/ulm-1.bundle", "plantagent start",
		"# at the hub: synchub import --answer ulm-1.answer ulm-1.bundle", "plantagent buffer import /media/stick/ulm-1.answer")
}

// exported is what the command prints.
type exported struct {
	File    string `json:"file"`
	Number  uint64 `json:"number"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Records uint64 `json:"records"`
	SHA256  string `json:"sha256"`
	Signed  bool   `json:"signed"`
}

func (c bufferExportCmd) Run(e *env) (err error) {
	cfg, err := c.loadFor(e)
	if err != nil {
		return err
	}
	sign, err := signer(cfg)
	if err != nil {
		return err
	}
	b, err := openBusiness(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	h, err := c.header(cfg, b)
	if err != nil {
		return err
	}
	done, err := c.write(b, h, sign)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(e.out, done)
	}
	fmt.Fprintf(e.out, "%s: bundle %d of %s/%s, %d records (%d to %d), sha256 %s\n", done.File, done.Number, cfg.Plant, cfg.Agent, done.Records, done.First, done.Last, done.SHA256)
	if !done.Signed {
		fmt.Fprintln(e.err, "warning: it is not signed, because the configuration names no hub.cert_file: the hub takes it with --accept-unsigned only")
	}
	fmt.Fprintf(e.out, "next: carry it to the hub, run `synchub import --answer FILE %s` there, and bring the answer back\n", filepath.Base(done.File))
	return nil
}

// signer is the agent's certificate, nil when it has none.
func signer(cfg agent.Config) (*tls.Certificate, error) {
	if cfg.Hub.CertFile == "" || cfg.Hub.KeyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.Hub.CertFile, cfg.Hub.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the agent's certificate: %w (enrol the agent again, or take hub.cert_file out of the configuration to export unsigned)", err)
	}
	return &pair, nil
}

func (c bufferExportCmd) header(cfg agent.Config, b *buffer.Buffer) (bundle.Header, error) {
	s := b.Stats()
	h := bundle.Header{
		Kind: bundle.Facts, Plant: cfg.Plant, Agent: cfg.Agent, Generation: s.Generation, MadeAt: time.Now().UTC(),
		First: s.AckedSeq + 1, Last: s.LastSeq, Acked: s.AckedSeq,
	}
	if c.After != nil {
		if *c.After < s.AckedSeq || *c.After > s.LastSeq {
			return h, fmt.Errorf("export after record %d: the hub has acknowledged up to %d, and the last record is %d; name one between, or leave --after out", *c.After, s.AckedSeq, s.LastSeq)
		}
		h.First = *c.After + 1
	}
	var last chain
	if v := b.State(chainKey); v != nil {
		if err := json.Unmarshal(v, &last); err != nil {
			return h, fmt.Errorf("read which bundle was the last: %w", err)
		}
	}
	h.Number, h.Previous = last.Number+1, last.SHA256
	if path := filepath.Join(cfg.DataDir, "inbox.db"); fileExists(path) {
		in, err := inbox.Open(path)
		if err != nil {
			return h, noBuffer(cfg.DataDir, err)
		}
		h.DeliveryEpoch, h.DeliverySeq = in.Position()
		if err := in.Close(); err != nil {
			return h, err
		}
	}
	return h, nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// write writes the bundle under another name, syncs it, and only then gives it its own and notes it in the chain.
func (c bufferExportCmd) write(b *buffer.Buffer, h bundle.Header, sign *tls.Certificate) (done exported, err error) {
	if fileExists(c.Out) {
		return done, fmt.Errorf("write %q: it is there already; name another file", c.Out)
	}
	if err := waitForSalvage(b, &h); err != nil {
		return done, err
	}
	part := c.Out + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return done, fmt.Errorf("write bundle: %w", err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	done = exported{File: c.Out, Number: h.Number, First: h.First, Last: h.Last, Signed: sign != nil}
	if done.SHA256, done.Records, err = writeBundle(f, b, h, sign); err != nil {
		return done, fmt.Errorf("write bundle %q: %w", c.Out, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return done, fmt.Errorf("write bundle %q: %w", c.Out, err)
	}
	if err := os.Rename(part, c.Out); err != nil {
		return done, fmt.Errorf("write bundle: %w", err)
	}
	note, err := json.Marshal(chain{h.Number, done.SHA256})
	if err != nil {
		return done, err
	}
	return done, b.Update(context.Background(), func(tx *buffer.Tx) error { tx.SetState(chainKey, note); return nil })
}

// waitForSalvage waits until it is known what is left of damaged files, and takes the numbers after that: the last record may
// be one that was lost.
func waitForSalvage(b *buffer.Buffer, h *bundle.Header) error {
	last := h.First - 1
	for {
		entries, err := b.Read(last, 1000, 1<<20)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			last = entries[len(entries)-1].Seq
			continue
		}
		if b.Stats().Salvaging == 0 {
			h.Last = last
			return nil
		}
		pause, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = b.Wait(pause, last) // ends when there is more to read, or when the time has come to ask again
		cancel()
	}
}

func writeBundle(f io.Writer, b *buffer.Buffer, h bundle.Header, sign *tls.Certificate) (sum string, records uint64, err error) {
	w, err := bundle.NewWriter(f, h)
	if err != nil {
		return "", 0, err
	}
	for after := h.First - 1; after < h.Last; {
		entries, err := b.Read(after, 1000, 1<<20)
		if err != nil {
			return "", 0, err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if err := w.Add(e.Seq, e.Body); err != nil {
				return "", 0, err
			}
			after, records = e.Seq, records+1
		}
	}
	sum, err = w.Close(sign)
	return sum, records, err
}

type bufferImportCmd struct {
	bufferAt
	AcceptUnsigned bool   `help:"Take an answer that is not signed by the hub."`
	File           string `arg:"" help:"The hub's answer."`
}

func (bufferImportCmd) Help() string {
	return examples("The agent must be stopped for the moment that this takes. An answer that was taken already, or that is older than what is known, "+
		"changes nothing.", "plantagent stop", "plantagent buffer import /media/stick/ulm-1.answer", "plantagent start")
}

func (c bufferImportCmd) Run(e *env) (err error) {
	cfg, err := c.loadFor(e)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	defer func() { _ = f.Close() }()
	a, err := c.open(cfg, f)
	if err != nil {
		return fmt.Errorf("read answer %q: %w; nothing was changed", c.File, err)
	}
	b, err := openBusiness(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	before := b.Stats()
	switch {
	case a.Generation != before.Generation:
		return fmt.Errorf("the answer is about generation %s of the buffer, this one is %s: the data was restored or began anew in between; export again and take the answer to that; nothing was changed", a.Generation, before.Generation)
	case a.Acked > before.LastSeq:
		return fmt.Errorf("the answer acknowledges record %d, the buffer ends at %d: this data folder is an older copy; export again; nothing was changed", a.Acked, before.LastSeq)
	}
	deliveries, err := storeDeliveries(cfg, a)
	if err != nil {
		return err
	}
	if err := b.Ack(a.Acked); err != nil {
		return err
	}
	after := b.Stats()
	fmt.Fprintf(e.out, "the hub holds the records up to %d: %d of %d that waited are done, %d wait; %d work orders and receipts came\n",
		after.AckedSeq, before.Pending-after.Pending, before.Pending, after.Pending, deliveries)
	return nil
}

// open reads an answer and checks that it is from the hub and for this agent.
func (c bufferImportCmd) open(cfg agent.Config, f *os.File) (*bundle.Bundle, error) {
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	a, err := bundle.Open(f, stat.Size())
	if err != nil {
		return nil, err
	}
	switch {
	case a.Kind == bundle.Facts:
		return nil, errors.New("it is a bundle of facts and goes to the hub: run `synchub import` there")
	case a.Plant != cfg.Plant || a.Agent != cfg.Agent:
		return nil, fmt.Errorf("it is for agent \"%s/%s\", this one is \"%s/%s\"", a.Plant, a.Agent, cfg.Plant, cfg.Agent)
	}
	if c.AcceptUnsigned {
		return a, nil
	}
	pool, err := hubAuthority(cfg)
	if err != nil {
		return nil, err
	}
	if err := a.VerifyHub(pool); errors.Is(err, bundle.ErrUnsigned) {
		return nil, fmt.Errorf("%w: if you trust the way it came, take it with --accept-unsigned", err)
	} else if err != nil {
		return nil, err
	}
	return a, nil
}

func hubAuthority(cfg agent.Config) (*x509.CertPool, error) {
	if cfg.Hub.CAFile == "" {
		return nil, errors.New("the configuration names no hub.ca_file to check the signature with: name it, or use --accept-unsigned")
	}
	raw, err := os.ReadFile(cfg.Hub.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("hub.ca_file %q holds no PEM certificate", cfg.Hub.CAFile)
	}
	return pool, nil
}

// storeDeliveries gives the inbox what the answer brings.
func storeDeliveries(cfg agent.Config, a *bundle.Bundle) (n int, err error) {
	if a.Records == 0 {
		return 0, nil
	}
	var list []*pb.Delivery
	err = a.Each(func(number uint64, body []byte) error {
		d := &pb.Delivery{}
		if err := proto.Unmarshal(body, d); err != nil {
			return fmt.Errorf("delivery %d: %w", number, err)
		}
		list = append(list, d)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	in, err := inbox.Open(filepath.Join(cfg.DataDir, "inbox.db"))
	if err != nil {
		return 0, noBuffer(cfg.DataDir, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if epoch, seq := in.Position(); epoch == a.DeliveryEpoch && seq >= list[len(list)-1].GetSeq() {
		return 0, nil // they are known
	}
	return len(list), in.Store(a.DeliveryEpoch, list)
}
