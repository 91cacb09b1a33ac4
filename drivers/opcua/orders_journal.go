package opcua

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// none is no revision.
const none = -1

// entry is what the driver must remember of one order at one machine: what it was about to do, what is known to be done, and
// what was told of it. It is on the disk before a call is made and before an answer is told.
type entry struct {
	Machine string `json:"machine"`
	Order   string `json:"order"`
	// Tried is the newest revision that was sent, Done the newest one that the machine has. Open says since when the outcome of
	// a call is unknown.
	Tried int64     `json:"tried"`
	Done  int64     `json:"done"`
	Open  time.Time `json:"open,omitzero"`
	// Strobe is what was, or is about to be, written to the strobe for Tried.
	Strobe uint64 `json:"strobe,omitempty"`
	// Cancelling is the revision of a cancellation that the machine was, or is about to be, told of; Stop says that this ends
	// a job that runs.
	Cancelling int64 `json:"cancelling"`
	Stop       bool  `json:"stop,omitempty"`
	// Paused and Revoked say that a hold paused the job, or took back its leave to start: what an operator does himself is left
	// to him.
	Paused  bool `json:"paused,omitempty"`
	Revoked bool `json:"revoked,omitempty"`
	// Phase and Revision are of the job as it was last told, with the status Last. Times counts the answers of each status.
	Phase    jobcontrol.Phase `json:"phase"`
	Revision int64            `json:"revision"`
	Last     string           `json:"last,omitempty"`
	LastAt   time.Time        `json:"last_at,omitzero"`
	Times    map[string]int   `json:"times,omitempty"`
	// Telling are answers that are being told: the same again after a crash.
	Telling []answer  `json:"telling,omitempty"`
	Changed time.Time `json:"changed"`
}

// answer is one state of an order as it is told.
type answer struct {
	Position string    `json:"position"`
	Revision int64     `json:"revision"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
	// Data and Materials are what the machine says it made and used, all as text; only of a job that is over.
	Data      map[string]string `json:"data,omitempty"`
	Materials []actual          `json:"materials,omitempty"`
}

// actual is material that was made or used.
type actual struct {
	Use      string `json:"use,omitempty"`
	Item     string `json:"item"`
	Lot      string `json:"lot,omitempty"`
	Quantity string `json:"quantity"`
	Unit     string `json:"unit,omitempty"`
}

func (e *entry) over() bool {
	return len(e.Telling) == 0 && e.Open.IsZero() && (e.Phase.Over() || e.Phase == jobcontrol.Gone)
}

// journal keeps the entries, each in a file of its own: a damaged one takes no other along.
type journal struct {
	dir string

	mu      sync.Mutex
	entries map[string]*entry
}

// keepEntries is how long an order that is over is remembered.
const keepEntries = 90 * 24 * time.Hour

// openJournal reads the entries. What cannot be read is set aside and named: the machine's list tells the rest.
func openJournal(dir string, now time.Time) (j *journal, damaged []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of work orders: %w", err)
	}
	j = &journal{dir: dir, entries: map[string]*entry{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		var e entry
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		switch {
		case err != nil || e.Order == "":
			damaged = append(damaged, filepath.Base(f))
			if err := os.Rename(f, f+".damaged"); err != nil {
				return nil, nil, fmt.Errorf("set a damaged work order aside: %w", err)
			}
		case e.over() && now.Sub(e.Changed) > keepEntries:
			if err := os.Remove(f); err != nil {
				return nil, nil, fmt.Errorf("forget an old work order: %w", err)
			}
		default:
			j.entries[key(e.Machine, e.Order)] = &e
		}
	}
	return j, damaged, nil
}

func key(machine, order string) string {
	sum := sha256.Sum256([]byte(machine + "\x00" + order))
	return hex.EncodeToString(sum[:16])
}

// get returns a copy of an order's entry, a new one when there is none.
func (j *journal) get(machine, order string) entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[key(machine, order)]; e != nil {
		return e.clone()
	}
	return entry{Machine: machine, Order: order, Tried: none, Done: none, Cancelling: none, Revision: none}
}

func (e *entry) clone() entry {
	c := *e
	c.Telling = append([]answer(nil), e.Telling...)
	c.Times = make(map[string]int, len(e.Times)+1)
	for k, v := range e.Times {
		c.Times[k] = v
	}
	return c
}

// of returns copies of those entries of a machine that a caller wants.
func (j *journal) of(machine string, want func(*entry) bool) (list []entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if e.Machine == machine && want(e) {
			list = append(list, e.clone())
		}
	}
	return list
}

// put makes an entry durable.
func (j *journal) put(e entry) error {
	e.Changed = time.Now().UTC()
	name := key(e.Machine, e.Order)
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write down work order %q: %w", e.Order, err)
	}
	if err := replaceFile(filepath.Join(j.dir, name+".json"), b); err != nil {
		return fmt.Errorf("write down work order %q: %w", e.Order, err)
	}
	c := e.clone()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries[name] = &c
	return nil
}

// replaceFile writes a file so that after a crash it holds the old bytes or the new ones.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncFolder(filepath.Dir(path))
}
