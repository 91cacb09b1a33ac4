package buffer

import (
	"os"

	"golang.org/x/sys/unix"
)

// limitSelf ends this process rather than letting it take more than so many bytes, and makes it the first to go when the
// machine runs out of memory.
func limitSelf(bytes uint64) {
	_ = unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes})
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)
}
