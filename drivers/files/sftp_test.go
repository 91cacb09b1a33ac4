package files

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestAnUnknownHostKeyIsShownAndRefused(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	for name, c := range map[string]struct{ old, with, says string }{
		"none":    {fmt.Sprintf("host_key: [%q]", server.Fingerprint), "host_key: []", "does not name"},
		"another": {server.Fingerprint, "SHA256:" + strings.Repeat("A", 43), "somebody stands in between"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			stop := p.start(strings.Replace(sftpSection(server), c.old, c.with, 1) + p.section())
			shown := p.awaitProblem("connection", "host_key_unknown")
			if !strings.Contains(shown.Reason, server.Fingerprint) || !strings.Contains(shown.Reason, c.says) || !strings.Contains(shown.NextStep, server.Fingerprint) {
				t.Errorf("%+v", shown)
			}
			p.await("state failed", func() bool { return p.state == signal.StateFailed })
			stop()
			defer p.start(sftpSection(server) + p.section())()
			p.await("connected once the key is named", func() bool { return p.state == signal.StateOK && len(p.problems) == 0 })
		})
	}
}

func TestARefusedLoginNamesTheUserAndNoSecret(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	p := newPlant(t)
	const secret = "s3cr3t-passphrase"
	file := realparts.WriteFile(t, filepath.Join(p.dir, "password"), secret+"\n")
	section := strings.Replace(sftpSection(server), fmt.Sprintf("key_file: %q", server.KeyFile), fmt.Sprintf("password_file: %q", file), 1)
	defer p.start(section + p.section())()
	shown := p.awaitProblem("connection", "login_refused")
	p.mu.Lock()
	defer p.mu.Unlock()
	if said := fmt.Sprintf("%+v %s %s", shown, p.why, p.log.String()); strings.Contains(said, secret) || !strings.Contains(said, server.User) {
		t.Errorf("%s", said)
	}
}

// The server is killed in the middle of a large file, with everything that serves it.
func TestTheServerIsKilledInTheMiddleOfATransfer(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	p := newPlant(t)
	const lines = 115_000
	pad := strings.Repeat("x", 150)
	var b strings.Builder
	b.WriteString("n,text\n")
	for i := 1; i <= lines; i++ {
		fmt.Fprintf(&b, "%d,%s\n", i, pad)
	}
	p.put("large.csv", b.String())
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	proxy.SetDelay(20 * time.Millisecond) // a line on which the transfer takes a while
	defer p.start(strings.Replace(sftpSection(server), fmt.Sprintf("127.0.0.1:%d", server.Port), proxy.Addr(), 1) + p.section("ready: renamed", "batch: 10000"))()
	spooled := int64(0)
	realparts.Eventually(t, patience, "a part of the file has come", func() error {
		found, _ := filepath.Glob(filepath.Join(p.dir, "spool-*"))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.Size() > 1<<20 {
				spooled = info.Size()
				return nil
			}
		}
		if len(p.all()) > 0 {
			t.Fatal("the transfer was over before it could be cut: make the file larger")
		}
		return fmt.Errorf("not yet")
	})
	server.Kill(syscall.SIGKILL)
	proxy.SetDelay(0)
	if n := len(p.all()); n > 0 {
		t.Fatalf("%d records of a file that has not come whole", n)
	}
	p.await("the loss is shown", func() bool { return p.state == signal.StateFailed })
	p.put("small.csv", rows(lines+1, lines+2))
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	p.awaitFiles("done/*/*.csv", 2)
	if err := counted(p.numbers(), lines+2); err != nil || len(p.all()) != lines+2 {
		t.Errorf("%v, %d signals", err, len(p.all()))
	}
	t.Logf("killed after %d of %d bytes", spooled, b.Len())
}

func TestAServerThatMayOnlyBeRead(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{ReadOnly: true})
	p := newPlant(t)
	p.put("a.csv", rows(1, 3))
	stop := p.start(sftpSection(server) + p.section())
	shown := p.awaitProblem("feed:rows:folder", "right_missing")
	if !strings.Contains(shown.NextStep, "keep: true") || len(p.all()) != 0 {
		t.Errorf("%+v, %d signals", shown, len(p.all()))
	}
	stop()
	defer p.start(sftpSection(server) + p.section("keep: true"))()
	p.awaitCount(3)
	p.await("no problem", func() bool { return len(p.problems) == 0 && p.state == signal.StateOK })
}

// A link that neither carries nor breaks ends with the agent, too.
func TestASilentServerDoesNotKeepTheAgentFromStopping(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", server.Port))
	p := newPlant(t)
	section := strings.Replace(sftpSection(server), fmt.Sprintf("127.0.0.1:%d", server.Port), proxy.Addr(), 1) + p.section("ready: renamed")
	stop := p.start(section)
	p.put("a.csv", rows(1, 3))
	p.awaitCount(3)
	proxy.Stall()
	p.put("b.csv", rows(4, 4))
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	proxy.Cut()
	proxy.Resume()
	defer p.start(section)()
	p.awaitCount(4)
	if err := counted(p.numbers(), 4); err != nil {
		t.Error(err)
	}
}
