//go:build crashpoints && unix

package posting

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Of the process, for tests that kill a real one.
const (
	crashAtVariable  = "LINEKEEPER_CRASH_AT"  // the step at which the process kills itself
	stopAtVariable   = "LINEKEEPER_STOP_AT"   // the step at which it stops itself each time, until somebody lets it go on
	crashLogVariable = "LINEKEEPER_CRASH_LOG" // the file that gets a line for each new step
)

var passed sync.Map

// crashPoint notes that a step was reached, and kills the process without warning, or stops it, when it is the one that was
// named.
func crashPoint(step string) error {
	at := os.Getenv(crashAtVariable) == step
	if _, known := passed.LoadOrStore(step, true); !known || at {
		noteStep(step, at)
	}
	if os.Getenv(stopAtVariable) == step {
		noteStep("stops at "+step, false)
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	if !at {
		return nil
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // dies here
}

func noteStep(step string, dies bool) {
	f, err := os.OpenFile(os.Getenv(crashLogVariable), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // nobody wants to know
	}
	defer f.Close()
	if dies {
		step = "dies at " + step
	}
	fmt.Fprintln(f, step)
}
