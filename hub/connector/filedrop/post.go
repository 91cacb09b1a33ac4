package filedrop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// intent is what the file is made of beside the fact.
type intent struct {
	At time.Time `json:"at"`
	// Try counts the fact's files from 1: the ones before were refused.
	Try   int              `json:"try"`
	Order object.WorkOrder `json:"order"`
}

func readIntent(raw []byte) (in intent, err error) {
	if err = json.Unmarshal(raw, &in); err == nil && (in.Try < 1 || in.At.IsZero()) {
		err = errors.New("it is not one of this connector")
	}
	if err != nil {
		err = fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, err
}

// reference names one file of a fact.
func reference(key factkey.Key, try int) string {
	if try == 1 {
		return key.String()
	}
	return fmt.Sprintf("%s-%d", key, try)
}

// vars is a posting in the words of expressions.
func (c *Connector) vars(p connector.Posting, in intent) map[string]any {
	p.Order = in.Order
	v := generic.FactVars(p, c.units)
	v["ref"] = reference(p.Fact.Key, in.Try)
	return v
}

// made is a file as it shall be handed over.
type made struct {
	ref, name string
	data      []byte
}

func (c *Connector) make(p connector.Posting, in intent) (m made, err error) {
	f, vars := c.files[p.Fact.Kind], c.vars(p, in)
	m.ref = reference(p.Fact.Key, in.Try)
	if m.name, err = f.name.Fill(vars, inName); err != nil {
		return m, fmt.Errorf("name: %w", err)
	}
	m.data, err = f.build(vars)
	return m, err
}

// temporary is where a file lies that is not handed over yet, copied and pending where its copies are.
func (c *Connector) temporary(ref string) string { return c.store.join(c.cfg.Out.Folder, ref+".tmp") }
func (c *Connector) copied(ref string) string    { return filepath.Join(c.cfg.Out.Sent, ref) }
func (c *Connector) pending(ref string) string   { return c.copied(ref) + ".pending" }

// Prepare finds the file that counts, what became of it, and what the next one needs of the order.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if early := c.fits(p); early != nil {
		return nil, early, nil
	}
	in := intent{At: time.Now(), Try: 1}
	early, err := c.prepare(ctx, p, &in)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	b, err := json.Marshal(in)
	return b, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	in.Order = p.Order
	for ; ; in.Try++ {
		asked := time.Now()
		a, err := c.answer(p, *in)
		switch {
		case err != nil:
			return nil, err
		case a != nil && a.refusal != nil:
			continue
		case a != nil && a.booked:
			return &connector.Outcome{Result: connector.Posted, Document: a.document}, nil
		}
		at, err := c.handedOver(reference(p.Fact.Key, in.Try))
		if err != nil {
			return nil, err
		}
		if !at.IsZero() {
			if f := c.without(p, *in, asked.Sub(at)); f.Presence == connector.Found {
				return &connector.Outcome{Result: connector.Posted, Document: f.Document}, nil
			}
			return generic.Reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "%s", c.waiting(p, *in, a)), nil
		}
		early, err := c.misfit(ctx, &p)
		if early != nil || err != nil {
			return early, err
		}
		in.Order = p.Order
		if _, err := c.make(p, *in); err != nil {
			if no := generic.Unmapped(p, err); no != nil {
				return no, nil
			}
			return generic.Reject(connector.Fatal, "MAPPING", "Correct the expression in out.postings of the configuration, then replay the fact.",
				"The file for fact %s of order %s cannot be made: %v.", p.Fact.Key, generic.OrderNo(p), err), nil
		}
		return nil, nil
	}
}

// waiting is a sentence of a file that is not decided.
func (c *Connector) waiting(p connector.Posting, in intent, a *said) string {
	ref := reference(p.Fact.Key, in.Try)
	if a == nil {
		return fmt.Sprintf("File %s of order %s has no answer yet.", ref, generic.OrderNo(p))
	}
	return fmt.Sprintf("The answer %s to file %s of order %s is not one that the configuration recognises: %s.", a.name, ref, generic.OrderNo(p), a.why)
}

// handedOver says when a file was handed over, the zero time when it was not: its copy is there, and the file is no more beside
// its place; or the other side has it.
func (c *Connector) handedOver(ref string) (time.Time, error) {
	if info, err := os.Stat(c.copied(ref)); err == nil {
		return info.ModTime(), nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, err
	}
	info, err := os.Stat(c.pending(ref))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.lying(ref)
	case err != nil:
		return time.Time{}, err
	}
	waits, err := c.store.exists(c.temporary(ref))
	if err != nil || waits {
		return time.Time{}, err
	}
	if err := c.sameFolder(); err != nil { // else it may be beside its place, in a folder that is not there now
		return time.Time{}, err
	}
	return info.ModTime(), c.local.rename(c.pending(ref), c.copied(ref))
}

// marker lies in the folder for the other side and, once it does, in the folder sent: so a share that is not mounted, or a server
// that was set up anew, is not taken for the folder in which files were handed over.
const marker = "linekeeper.tmp"

// sameFolder makes sure that the folder is the one into which files were written before, and marks it the first time.
func (c *Connector) sameFolder() error {
	there, err := c.store.exists(c.store.join(c.cfg.Out.Folder, marker))
	if err != nil {
		return err
	}
	known, err := c.local.exists(c.copied(marker))
	switch {
	case err != nil || there && known:
		return err
	case known:
		return fmt.Errorf("folder %s is not the one into which files were written before, for there is no %s in it: mount the share, or make that file if the folder was moved with all that is in it",
			c.cfg.Out.Folder, marker)
	case !there:
		if err := c.store.write(c.store.join(c.cfg.Out.Folder, marker), []byte("This file tells Linekeeper that the folder is the right one.\n")); err != nil {
			return err
		}
	}
	return c.local.write(c.copied(marker), nil)
}

// lying looks for a file with the reference where the other side can have it, for a hub whose copies were put back.
func (c *Connector) lying(ref string) (time.Time, error) {
	for _, folder := range append([]string{c.cfg.Out.Folder}, c.cfg.Out.Taken...) {
		all, err := c.store.list(folder)
		if err != nil {
			return time.Time{}, err
		}
		for _, e := range all {
			if holds(e.name, ref) {
				return e.at, nil
			}
		}
	}
	return time.Time{}, nil
}

// holds reports that a name holds a reference, and not one of which it is the beginning.
func holds(name, ref string) bool {
	if strings.HasSuffix(name, ".tmp") {
		return false
	}
	_, after, found := strings.Cut(name, ref)
	if !found || len(after) > 1 && after[0] == '-' && after[1] >= '0' && after[1] <= '9' {
		return false
	}
	return after == "" || after[0] < '0' || after[0] > '9'
}

// Post hands the file over and waits a little for the answer.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	if early := c.fits(p); early != nil {
		return *early
	}
	in, err := readIntent(raw)
	if err != nil {
		return *generic.Reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared: %v.", p.Fact.Key, err)
	}
	m, err := c.make(p, in)
	if err != nil {
		return *generic.Reject(connector.Fatal, "MAPPING", "Correct the expression in out.postings of the configuration, then replay the fact.",
			"The file for fact %s of order %s cannot be made: %v.", p.Fact.Key, generic.OrderNo(p), err)
	}
	if out := c.put(p, in, m); out != nil {
		return *out
	}
	if c.cfg.Answers == nil {
		return connector.Outcome{Result: connector.Posted, Document: handed(m.ref)}
	}
	return c.await(ctx, p, in)
}

// handed is the document of a file that nobody answers.
func handed(ref string) connector.Document { return connector.Document{Number: ref, ID: ref} }

// put brings the file to its place. Nil means that it is handed over, now or before.
func (c *Connector) put(p connector.Posting, in intent, m made) *connector.Outcome {
	c.putting.Lock()
	defer c.putting.Unlock()
	failed := func(err error) *connector.Outcome { // before the last step the other side sees nothing
		return generic.Reject(connector.Retryable, "FOLDER", "Look at the folders' rights and space, and at the server: it is tried again by itself.",
			"The file of order %s cannot be written: %v.", generic.OrderNo(p), err)
	}
	if err := c.folders(); err != nil {
		return failed(err)
	}
	at, err := c.handedOver(m.ref)
	if err != nil {
		return failed(err)
	}
	if !at.IsZero() {
		return nil
	}
	if err := c.sameFolder(); err != nil {
		return failed(err)
	}
	// What lies there of an earlier attempt is written anew: nobody has seen it.
	if err := c.store.write(c.temporary(m.ref), m.data); err != nil {
		return failed(err)
	}
	if err := c.keep(m, in.Order); err != nil {
		return failed(err)
	}
	doubt := func(err error) *connector.Outcome {
		return &connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("Whether file %s of order %s was handed over is unknown: %v.", m.name, generic.OrderNo(p), err)}
	}
	if err := c.store.rename(c.temporary(m.ref), c.store.join(c.cfg.Out.Folder, m.name)); err != nil {
		return doubt(err)
	}
	if err := c.local.rename(c.pending(m.ref), c.copied(m.ref)); err != nil {
		return doubt(err)
	}
	return nil
}

// keep writes the copy of a file that will be handed over, and of the order that it was made with. It appears whole.
func (c *Connector) keep(m made, o object.WorkOrder) error {
	order, err := json.Marshal(o)
	if err == nil {
		err = c.local.write(c.copied(m.ref)+".order", order)
	}
	if err != nil {
		return err
	}
	if err := c.local.write(c.copied(m.ref)+".new", m.data); err != nil {
		return err
	}
	return c.local.rename(c.copied(m.ref)+".new", c.pending(m.ref))
}

// await reads answers until there is one or the time is over.
func (c *Connector) await(ctx context.Context, p connector.Posting, in intent) connector.Outcome {
	deadline := time.Now().Add(c.cfg.Out.Wait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		a, err := c.answer(p, in)
		switch {
		case err == nil && a != nil && a.booked:
			return connector.Outcome{Result: connector.Posted, Document: a.document}
		case err == nil && a != nil && a.refusal != nil:
			return *a.refusal
		case time.Now().After(deadline) || ctx.Err() != nil:
			return connector.Outcome{Result: connector.InDoubt, Reason: c.waiting(p, in, a)}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Lookup asks what the other side said, and whether the file was handed over.
func (c *Connector) Lookup(_ context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	a, err := c.answer(p, in)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	switch {
	case a != nil && a.booked:
		return connector.Finding{Presence: connector.Found, Document: a.document}, nil
	case a != nil && a.refusal != nil:
		return connector.Finding{Presence: connector.Absent, Reason: a.refusal.Reason, Rejection: a.refusal}, nil
	}
	ref := reference(p.Fact.Key, in.Try)
	at, err := c.handedOver(ref)
	switch {
	case err != nil:
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	case at.IsZero() && a == nil:
		return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("File %s was not handed over.", ref)}, nil
	case at.IsZero():
		return connector.Finding{Presence: connector.NotFoundYet, Reason: c.waiting(p, in, a)}, nil
	}
	f := c.without(p, in, asked.Sub(at))
	if a != nil && f.Presence != connector.NotFoundYet { // an answer that nobody understands is not silence
		f = connector.Finding{Presence: connector.CannotTell, Reason: c.waiting(p, in, a)}
	}
	return f, nil
}

// without says what a file is worth that had no answer when it was asked for, age after the file was handed over.
func (c *Connector) without(p connector.Posting, in intent, age time.Duration) connector.Finding {
	ref := reference(p.Fact.Key, in.Try)
	a := c.cfg.Answers
	switch {
	case a != nil && age < a.Within:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: c.waiting(p, in, nil)}
	case c.cfg.Out.HandoverIsEffect:
		return connector.Finding{Presence: connector.Found, Document: handed(ref), Reason: fmt.Sprintf("File %s was handed over, which by the configuration is the effect.", ref)}
	}
	return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("File %s of order %s was not answered within %s: look for it in the ERP.", ref, generic.OrderNo(p), a.Within)}
}

// Verify compares the file that was handed over with the posting, and what the answer says.
func (c *Connector) Verify(_ context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	v, err := c.verify(p, in, doc)
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return v, nil
}

func (c *Connector) verify(p connector.Posting, in intent, doc connector.Document) (connector.Verification, error) {
	differs := func(format string, args ...any) (connector.Verification, error) {
		return connector.Verification{Difference: fmt.Sprintf(format, args...)}, nil
	}
	if doc.ID != "" { // the file that was posted may be one before the intent's
		if _, try, has := strings.Cut(doc.ID, "-"); has {
			fmt.Sscanf(try, "%d", &in.Try)
		}
	}
	ref := reference(p.Fact.Key, in.Try)
	if order, err := os.ReadFile(c.copied(ref) + ".order"); err == nil { // it may have changed since
		var o object.WorkOrder
		if json.Unmarshal(order, &o) == nil {
			in.Order = o
		}
	}
	m, err := c.make(p, in)
	if err != nil {
		return differs("The file %s cannot be made again to be compared: %v.", ref, err)
	}
	sent, err := os.ReadFile(c.copied(ref))
	if errors.Is(err, fs.ErrNotExist) { // its answer came before anybody asked whether it was handed over
		sent, err = os.ReadFile(c.pending(ref))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return differs("The copy of file %s is missing in the folder sent.", ref)
	case err != nil:
		return connector.Verification{}, err
	case !bytes.Equal(sent, m.data):
		return differs("The file %s that was handed over holds something else than fact %s now.", ref, p.Fact.Key)
	}
	a, err := c.answer(p, in)
	switch {
	case err != nil:
		return connector.Verification{}, err
	case a != nil && a.refusal != nil:
		return differs("The other side refuses file %s now: %s", ref, a.refusal.Reason)
	case a != nil && a.booked:
		if wrong := c.unequal(p, in, a); len(wrong) > 0 {
			return differs("The answer to file %s of order %s: %s.", ref, generic.OrderNo(p), strings.Join(wrong, "; "))
		}
	case !c.cfg.Out.HandoverIsEffect:
		return differs("The answer that file %s was booked is gone.", ref)
	}
	return connector.Verification{Matches: true}, nil
}
