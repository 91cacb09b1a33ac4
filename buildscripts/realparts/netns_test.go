package realparts

import (
	"context"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The cable carries, carries nothing, carries again, and nothing of it is left behind.
func TestNamespaceCableCanBeCutSilently(t *testing.T) {
	var leftovers []string
	t.Run("cable", func(t *testing.T) {
		n := NewNamespace(t)
		leftovers = append(leftovers, n.name, n.outer)
		l, err := net.Listen("tcp", n.Here+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := make(chan string)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, 1)
			for {
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				got <- string(b)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := n.Dial(ctx, "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if a := c.LocalAddr().(*net.TCPAddr).IP.String(); a != n.There {
			t.Errorf("dialled from %s, want %s", a, n.There)
		}
		arrives := func(b string, within time.Duration) bool {
			io.WriteString(c, b)
			select {
			case s := <-got:
				return s == b
			case <-time.After(within):
				return false
			}
		}
		if !arrives("a", 5*time.Second) {
			t.Error("the good cable carries nothing")
		}
		n.Lose(100)
		if arrives("b", 500*time.Millisecond) {
			t.Error("the dark cable carries")
		}
		n.Lose(0)
		select {
		case <-got:
		case <-time.After(20 * time.Second):
			t.Error("what was lost did not come again")
		}
		n.Slow("64kbit")
		n.Lose(5)
		if !arrives("c", 20*time.Second) {
			t.Error("the slow cable carries nothing")
		}
	})
	for _, cmd := range []string{"ip netns list", "ip -br link", "nft list tables"} {
		f := strings.Fields(cmd)
		out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		for _, name := range leftovers {
			if strings.Contains(string(out), name) {
				t.Errorf("%s shows %s after the test:\n%s", cmd, name, out)
			}
		}
	}
}
