//go:build unix

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// giveBack gives what the superuser made in the sources' folders to whom the data folder belongs: the service must be able to
// read its own certificate.
func giveBack(dataDir string) {
	if os.Geteuid() != 0 {
		return
	}
	info, err := os.Stat(dataDir)
	if err != nil {
		return
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return
	}
	// Links are not followed: the folder may be somebody else's by now.
	_ = filepath.WalkDir(filepath.Join(dataDir, "sources"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			_ = os.Lchown(path, int(owner.Uid), int(owner.Gid)) // what cannot be given is told by the agent that cannot read it
		}
		return nil
	})
}
