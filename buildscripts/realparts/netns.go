package realparts

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a computer of its own at the other end of a cable that can be made slow and bad: packets are lost in both
// directions without anybody being told, as on a real line. It needs root, as continuous integration has it.
type Namespace struct {
	// Here and There are the addresses of the two ends of the cable: There is inside.
	Here, There string

	t          testing.TB
	name       string
	outer, in  string // names of the cable's ends
	lossActive bool
}

var namespaces atomic.Int32

// NewNamespace makes one that ends with the test.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	for _, p := range [][2]string{{"ip", "iproute2"}, {"tc", "iproute2"}, {"nft", "nftables"}} {
		Need(t, p[0], p[1], "/usr/sbin", "/sbin")
	}
	if os.Geteuid() != 0 {
		t.Fatal("a network namespace needs root: run this test as root, as continuous integration does")
	}
	id := int(namespaces.Add(1)) + os.Getpid()*8
	n := &Namespace{t: t, name: fmt.Sprintf("lk%d", id), outer: fmt.Sprintf("lko%d", id), in: fmt.Sprintf("lki%d", id)}
	net := fmt.Sprintf("10.%d.%d.", 192+id>>14&31, id>>6&255)
	n.Here, n.There = fmt.Sprintf("%s%d", net, id&63*4+1), fmt.Sprintf("%s%d", net, id&63*4+2)
	t.Cleanup(func() {
		exec.Command("ip", "link", "del", n.outer).Run() // the namespace alone would let it go some time later
		exec.Command("ip", "netns", "del", n.name).Run()
	})
	n.run("ip", "netns", "add", n.name)
	n.run("ip", "link", "add", n.outer, "type", "veth", "peer", "name", n.in, "netns", n.name)
	n.run("ip", "addr", "add", n.Here+"/30", "dev", n.outer)
	n.run("ip", "link", "set", n.outer, "up")
	n.run("ip", "-n", n.name, "addr", "add", n.There+"/30", "dev", n.in)
	n.run("ip", "-n", n.name, "link", "set", n.in, "up")
	n.run("ip", "-n", n.name, "link", "set", "lo", "up")
	t.Cleanup(func() { n.Lose(0) }) // what stands outside of the namespace
	return n
}

func (n *Namespace) run(name string, args ...string) {
	n.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// inside runs a command in the namespace.
func (n *Namespace) inside(name string, args ...string) {
	n.t.Helper()
	n.run("ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

// Slow limits both directions to a rate such as "64kbit". The queue before the line holds 800 ms.
func (n *Namespace) Slow(rate string) {
	n.t.Helper()
	shape := []string{"root", "tbf", "rate", rate, "burst", "1600", "latency", "800ms"}
	n.run("tc", append([]string{"qdisc", "replace", "dev", n.outer}, shape...)...)
	n.inside("tc", append([]string{"qdisc", "replace", "dev", n.in}, shape...)...)
}

// Lose drops so many of 100 packets that arrive at either end, at random; 100 makes the line half-open, 0 makes it good.
func (n *Namespace) Lose(percent int) {
	n.t.Helper()
	table := "lk" + n.outer
	if n.lossActive {
		n.run("nft", "delete", "table", "netdev", table)
		n.inside("nft", "delete", "table", "netdev", table)
		n.lossActive = false
	}
	if percent == 0 {
		return
	}
	rules := func(device string) string {
		match := fmt.Sprintf("numgen random mod 100 < %d", percent)
		if percent >= 100 {
			match = ""
		}
		return fmt.Sprintf("table netdev %s { chain arriving { type filter hook ingress device %q priority 0; %s drop; }; }", table, device, match)
	}
	n.run("nft", rules(n.outer))
	n.inside("nft", rules(n.in))
	n.lossActive = true
}

// Dial opens a connection from inside the namespace. The address must be numeric.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	outside, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open own namespace: %w", err)
	}
	defer unix.Close(outside)
	within, err := unix.Open("/run/netns/"+n.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open namespace %q: %w", n.name, err)
	}
	defer unix.Close(within)
	// A thread is put into the namespace for as long as the socket is made; one that could not be taken back is let die.
	runtime.LockOSThread()
	if err := unix.Setns(within, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter namespace %q: %w", n.name, err)
	}
	c, err = (&net.Dialer{}).DialContext(ctx, network, address)
	if back := unix.Setns(outside, unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("leave namespace %q: %w", n.name, back)
	}
	runtime.UnlockOSThread()
	return c, err
}
