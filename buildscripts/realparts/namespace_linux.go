package realparts

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// SmallDisk gives the test that calls it a real file system of its own with so many bytes, for what happens when it is full. The
// test runs a second time, in a process that may mount; folder is where the disk is there, and empty in the first run, which has
// nothing more to do.
func SmallDisk(t *testing.T, size string) (folder string) {
	t.Helper()
	const variable = "LINEKEEPER_SMALL_DISK" // the folder on which the test's own process mounts the disk
	if folder = os.Getenv(variable); folder != "" {
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
		return folder
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.TempDir())
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
	return ""
}
