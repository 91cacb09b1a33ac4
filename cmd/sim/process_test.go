package sim

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer/faultdisk"
	"github.com/linekeeper/linekeeper/hub/store/faultvfs"
)

// process is one run of an agent or of the hub on a machine, from its start to its death.
//
// Death has three steps. First nothing of the process leaves any more (freeze): its connections pass nothing, its calls of
// the ERP and its acknowledgements to sources do not return, its disk takes nothing. Then, when all of it stands still, the
// folder is copied: that is what a crash leaves. Only then the process is told to stop, on a folder that nobody needs.
type process struct {
	w        *world
	machine  string
	dir      string
	clock    *clock
	dead     atomic.Bool
	released chan struct{} // closed when a frozen process may end
	cancel   context.CancelFunc
	ended    chan error

	// A disk that forgets what was not synced, in some seeds; left is what a crash in the middle of its work left.
	disk *faultdisk.Disk
	vfs  *faultvfs.FS
	left string
	sick atomic.Bool // the disk fails

	mu    sync.Mutex
	armed map[string]int // crash at the n-th time that a point is passed
}

func (w *world) newProcess(machine, dir string, c *clock) *process {
	return &process{w: w, machine: machine, dir: dir, clock: c, released: make(chan struct{}), ended: make(chan error, 1), armed: map[string]int{}}
}

var errDead = errors.New("the process is dead")

func (p *process) frozen() bool { return p.dead.Load() }

// arm lets the process die at the n-th time that it passes a point from now on.
func (p *process) arm(point string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[point] = n
}

// hit counts that a point is passed and reports whether the process dies of it.
func (p *process) hit(point string) bool {
	p.mu.Lock()
	n := p.armed[point]
	if n > 0 {
		p.armed[point] = n - 1
	}
	p.mu.Unlock()
	if n != 1 || p.frozen() {
		return false
	}
	p.w.logf("%s dies at %q", p.machine, point)
	p.freeze()
	p.w.crashed <- p
	return true
}

// pass is called where something leaves the process. It returns errDead, when the process is gone, and then nothing may
// have left.
func (p *process) pass(point string) error {
	p.hit(point)
	if p.frozen() {
		<-p.released
		return errDead
	}
	return nil
}

func (p *process) freeze() {
	if !p.dead.Swap(true) {
		p.w.net.stall(p, true)
	}
}

// run starts the process' main function.
func (p *process) run(main func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		err := main(ctx)
		p.ended <- err
		if ctx.Err() == nil && !p.frozen() {
			p.w.logf("%s ends by itself: %v", p.machine, err)
			p.w.crashed <- p
		}
	}()
}

// end tells a frozen process to stop and waits for it. silent: its peers are not told.
func (p *process) end(silent bool) {
	if silent {
		p.w.net.vanish(p)
	} else {
		p.w.net.stall(p, false)
		p.w.net.cut(p)
	}
	close(p.released)
	p.cancel()
	<-p.ended
	p.w.net.forget(p)
	p.w.net.drop(p)
	p.letGo()
}

// stop ends a process in order, as a service is stopped. One that died at the last moment is ended as such.
func (p *process) stop() error {
	p.disarm()
	if p.frozen() {
		p.end(false)
		return nil
	}
	p.cancel()
	err := <-p.ended
	p.dead.Store(true)
	close(p.released)
	p.w.net.forget(p)
	p.letGo()
	return err
}

// letGo takes the disk's registration back.
func (p *process) letGo() {
	if p.vfs != nil {
		if err := p.vfs.Close(); err != nil {
			p.w.failf("close the disk of %s: %v", p.machine, err)
		}
	}
}

// forgetful puts a disk under an agent that forgets what was not synced.
func (p *process) forgetful(rng *rand.Rand) error {
	d, err := faultdisk.New(p.dir, rng)
	if err != nil {
		return err
	}
	p.disk = d
	d.Before(func(op faultdisk.Op, _ string) error {
		if p.hit("disk " + op.String()) {
			p.leave()
		}
		if p.frozen() || p.sick.Load() {
			return syscall.EIO
		}
		return nil
	})
	return nil
}

// forgetfulStore does the same for the hub's store.
func (p *process) forgetfulStore(rng *rand.Rand) error {
	f, err := faultvfs.New(rng)
	if err != nil {
		return err
	}
	p.vfs = f
	f.Before(func(op faultvfs.Op, _ string) faultvfs.Code {
		if p.hit("disk " + op.String()) {
			p.leave()
		}
		if !p.frozen() && !p.sick.Load() {
			return faultvfs.OK
		}
		return map[faultvfs.Op]faultvfs.Code{
			faultvfs.Write: faultvfs.WriteFail, faultvfs.Sync: faultvfs.SyncFail, faultvfs.Truncate: faultvfs.CutFail, faultvfs.Delete: faultvfs.DelFail,
		}[op]
	})
	return nil
}

// leave writes what a power cut at this moment leaves.
func (p *process) leave() {
	to, err := p.w.cutPower(p)
	if err != nil {
		p.w.failf("cut the power of %s: %v", p.machine, err)
	}
	p.left = to
}

// clock is the wall clock of one machine. off is how wrong it is.
type clock struct{ off atomic.Int64 }

// today is what a clock that is right shows when the simulation begins: fake time begins in the year 2000, which the product
// knows to be wrong.
var today = time.Date(2026, 6, 15, 6, 0, 0, 0, time.UTC)

// right is the true time.
func right() time.Time { return today.Add(time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))) }

func (c *clock) now() time.Time { return right().Add(time.Duration(c.off.Load())) }

// copyDir copies what lies in a folder, without what only a living process needs.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, ".lock") || d.Name() == "lock" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}

// disarm lets the process live on.
func (p *process) disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.armed)
}
