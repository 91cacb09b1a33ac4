//go:build !windows

package files

import (
	"errors"
	"os"
	"syscall"
)

func crossesVolumes(err error) bool { return errors.Is(err, syscall.EXDEV) }

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) { // shares cannot
		return err
	}
	return nil
}
