package inbox

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/linekeeper/linekeeper/agent/buffer"
)

// A commit that failed may be in the file all the same: bbolt then goes on from it, and nobody knows whether it is on the disk.
// What memory says stays as it was until a commit that does nothing has gone well: with that, all that the file says is
// durable, and memory is read from it anew. So Position never says too much.

// settle finds out what the file holds after a failed commit, and makes it durable.
func (in *Inbox) settle() error {
	if err := in.db.Update(makeBuckets); err != nil {
		return err
	}
	there := &Inbox{db: in.db, orders: map[string]*record{}, listed: map[string]int{}}
	if err := there.load(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.epoch, in.seq, in.arrivals, in.orders, in.listed = there.epoch, there.seq, there.arrivals, there.orders, there.listed
	in.doubtful = false
	return nil
}

// explain names the file in an error of the disk, and the next step.
func explain(path string, err error) error {
	step := "look into the system's log and at the disk"
	switch {
	case buffer.IsDiskFull(err):
		step = "the disk is full: free some of it"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		step = "let the agent's user write the file and its folder, or mount the disk for writing"
	}
	return fmt.Errorf("inbox %q: %w (%s)", path, err, step)
}
