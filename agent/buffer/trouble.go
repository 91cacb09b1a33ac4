package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// A disk that is full, or fails, is told to every caller with what to do about it. Nothing has to be started again: the next
// commit begins a new segment, and finds out whether the disk is well.

// explain adds the next step to an error of the disk. Other errors it leaves alone.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case IsDiskFull(err):
		return fmt.Errorf("%w (the disk is full: free some of it; the agent goes on by itself)", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w (it cannot be written: let the agent's user write the folder, or mount the disk for writing)", err)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w (the disk fails: look into the system's log and at the disk; the agent goes on by itself when it is well)", err)
	}
	return err
}

// noteTrouble keeps why the disk takes no writes, until it takes one.
func (b *Buffer) noteTrouble(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trouble = ""
	if err != nil {
		b.trouble = err.Error()
	}
}
