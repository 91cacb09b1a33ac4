package uplink

import (
	"errors"

	"golang.org/x/sys/windows"
)

// Windows has its own numbers: the constants of package syscall never match there.

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

func isUnreachable(err error) bool {
	return errors.Is(err, windows.WSAENETUNREACH) || errors.Is(err, windows.WSAEHOSTUNREACH) || errors.Is(err, windows.WSAENETDOWN)
}
