package buffer

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who only asks whether a folder is locked must not keep the agent from starting.
func TestALockThatIsHeldForAMomentIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	release := time.AfterFunc(lockPause, func() { f.Close() })
	defer release.Stop()
	b, err := Open(small(dir))
	if err != nil {
		t.Fatalf("a lock that was held for a moment: %v", err)
	}
	b.Close()
}
