package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C from the product: the demo settles the books first.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
