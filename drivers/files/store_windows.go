package files

import (
	"errors"
	"syscall"
)

// errorNotSameDevice is ERROR_NOT_SAME_DEVICE.
const errorNotSameDevice = syscall.Errno(17)

func crossesVolumes(err error) bool { return errors.Is(err, errorNotSameDevice) }

// syncFolder has nothing to do: NTFS writes names to its journal itself.
func syncFolder(string) error { return nil }
