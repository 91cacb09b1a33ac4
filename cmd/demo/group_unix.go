//go:build !windows

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C, which the terminal sends to the whole group, from the product: the demo settles the books first.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
