package buffer

import (
	"os"

	"golang.org/x/sys/unix"
)

// loadSoon asks the system to load a part of a file. It is a hint only.
func loadSoon(path string, from, to int64) {
	f, err := os.Open(path)
	if err != nil {
		return // who reads it will say so
	}
	const most = 128 << 10 // what every system takes of one hint
	for ; from < to; from += most {
		_ = unix.Fadvise(int(f.Fd()), from, min(most, to-from), unix.FADV_WILLNEED)
	}
	_ = f.Close()
}
