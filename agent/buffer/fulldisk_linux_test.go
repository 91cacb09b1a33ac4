package buffer

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const smallDiskVariable = "LINEKEEPER_BUFFER_SMALL_DISK" // the folder on which the test's own process mounts a small disk

// A real file system without a free block: writes end in the middle. What was promised is there, the caller is told, and when
// somebody makes room the open buffer goes on.
func TestRealDiskWithoutRoomLosesNothing(t *testing.T) {
	dir := os.Getenv(smallDiskVariable)
	if dir == "" {
		inOwnNamespace(t, t.TempDir())
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(dir, 0) }()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := random(t)
	cfg := small(filepath.Join(dir, "buffer"))
	b := open(t, cfg)
	var want []string
	put := func() error {
		body := fmt.Sprintf("%d %s", len(want)+1, strings.Repeat("f", rng.IntN(20_000)))
		err := b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte(body)); return nil })
		if err == nil {
			want = append(want, fmt.Sprintf("%d:%s", len(want)+1, body))
		}
		return err
	}
	check := func() {
		t.Helper()
		wantBodies(t, b, want...)
		if damage := b.Damaged(); len(damage) > 0 {
			t.Fatalf("%v (%s)", damage, damage[0].Reason)
		}
	}
	told := 0
	for told < 20 {
		if err := put(); err != nil {
			if told++; !strings.Contains(err.Error(), "the disk is full: free some of it") {
				t.Fatalf("the caller is told %v", err)
			}
			check()
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := put(); err != nil {
			t.Fatalf("there is room again, and the buffer says %v", err)
		}
	}
	check()
	b = reopen(t, b)
	check()
	t.Logf("%d records promised, %d errors told", len(want), told)
}

// inOwnNamespace runs the test that calls it in a process that may mount.
func inOwnNamespace(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), smallDiskVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
